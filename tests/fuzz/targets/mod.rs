//! The bodies of the fuzz targets: plain functions of bytes that panic when a promise is broken.
//! Also included by `tests/corpus.rs`, which replays the kept corpus on the ordinary compiler.

mod aliases;
mod codecs;
mod reports;
mod sendmail;
mod settings;
mod signatures;
mod smtp;
mod transport;

pub use aliases::{pattern, srs};
pub use codecs::{address, container, frame, header, pairing, record, verb};
pub use reports::report;
pub use sendmail::{sendmail_arguments, sendmail_text};
pub use settings::autoconfig;
pub use signatures::{dns_list, signature, spf};
pub use smtp::{body, command, line, reply_reader, sasl, sasl_client, smtp_client, smtp_server};
pub use transport::{mta_sts, tlsa};

/// What [`alarm`] fails on.
const PLANTED: &[u8] = b"RING";

/// Fails on purpose, to prove that a failing target is noticed.
pub fn alarm(data: &[u8]) {
    assert!(!data.starts_with(PLANTED), "the planted input was found: the alarm works");
}

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this folder by name, but for [`alarm`].
pub const TARGETS: &[Target] = &[
    ("address", address),
    ("autoconfig", autoconfig),
    ("body", body),
    ("command", command),
    ("container", container),
    ("dns_list", dns_list),
    ("frame", frame),
    ("header", header),
    ("line", line),
    ("mta_sts", mta_sts),
    ("pairing", pairing),
    ("pattern", pattern),
    ("record", record),
    ("reply_reader", reply_reader),
    ("report", report),
    ("sasl", sasl),
    ("sasl_client", sasl_client),
    ("sendmail_arguments", sendmail_arguments),
    ("sendmail_text", sendmail_text),
    ("signature", signature),
    ("smtp_client", smtp_client),
    ("smtp_server", smtp_server),
    ("spf", spf),
    ("srs", srs),
    ("tlsa", tlsa),
    ("verb", verb),
];
