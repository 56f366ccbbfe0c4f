//! A report as a message: which it is, so that the same one never goes out twice, and its text (RFC 9990 §5.1). Pure but
//! for what the packing costs.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use gatepost_protocol::mail::report::judged;
use gatepost_protocol::mail::report::{Aggregate, Metadata, Row};
use gatepost_runtime::authentication::reporting;
use gatepost_runtime::clock::{mail_date, rfc3339};

use super::schedule::{self, DAY_S};
use super::store::{Report, policy};

/// Octets of a line of base64 (RFC 2045 §6.8).
const LINE_OCTETS: usize = 76;

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// The domain in whose name it is done.
    pub domain: &'a str,
}

impl Reporter<'_> {
    /// Who reads what others have to say about it.
    pub fn contact(self) -> String {
        format!("postmaster@{}", self.domain)
    }
}

/// Names a report: always the same for the same day, domain and policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; 32]);

impl Name {
    /// Of this report of ours.
    pub fn of(report: &Report, reporter: Reporter<'_>) -> Self {
        let mut name = Context::new(&SHA256);
        let (day, policy) = (report.day.to_string(), policy(&report.published));
        for part in ["aggregate report", reporter.hostname, &day, &report.published.domain, &policy] {
            name.update(part.as_bytes());
            name.update(&[0]);
        }
        let mut octets = [0; 32];
        octets.copy_from_slice(name.finish().as_ref());
        Self(octets)
    }

    /// For the ledger.
    pub fn transfer(self) -> [u8; 16] {
        self.part(0)
    }

    /// For the log.
    pub fn trace(self) -> [u8; 10] {
        self.part(16)
    }

    /// For the report itself.
    fn word(self) -> String {
        self.part::<8>(0).iter().fold(String::new(), |mut word, octet| {
            let _ = write!(word, "{octet:02x}");
            word
        })
    }

    fn part<const OCTETS: usize>(self, from: usize) -> [u8; OCTETS] {
        let mut part = [0; OCTETS];
        part.copy_from_slice(&self.0[from..from + OCTETS]);
        part
    }
}

/// What a report tells, of these rows.
pub fn aggregate(report: &Report, rows: Vec<Row>, reporter: Reporter<'_>) -> Aggregate {
    let begin = schedule::start_unix_s(report.day);
    let missing = (report.missed > 0)
        .then(|| format!("{} of {} messages are not in it: too many different ones", report.missed, report.messages));
    Aggregate {
        metadata: Metadata {
            organisation: reporter.domain.to_owned(),
            email: reporter.contact(),
            contact: None,
            id: format!("{}.{}", date(report.day), Name::of(report, reporter).word()),
            begin_unix_s: begin,
            end_unix_s: begin + DAY_S - 1,
            errors: missing.into_iter().collect(),
            generator: Some(concat!("Gatepost ", env!("CARGO_PKG_VERSION")).to_owned()),
        },
        published: judged::published(&report.published),
        rows,
    }
}

/// The message, to these addresses.
pub fn message(
    report: &Report,
    aggregate: &Aggregate,
    reporter: Reporter<'_>,
    to: &[String],
    now_unix_s: i64,
) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(reporting::xml(aggregate).as_bytes())?;
    let packed = STANDARD.encode(gzip.finish()?);
    let (word, domain, ours) = (Name::of(report, reporter).word(), &report.published.domain, reporter.domain);
    let Metadata { id, begin_unix_s, end_unix_s, .. } = &aggregate.metadata;
    let boundary = format!("=_{word}");
    let mut text = String::with_capacity(packed.len() + packed.len() / LINE_OCTETS * 2 + 2048);
    let _ = write!(
        text,
        "From: {contact}\r\nTo: {to}\r\nSubject: Report Domain: {domain}\r\n Submitter: {ours}\r\n Report-ID: <{id}>\r\n\
         Date: {date}\r\nMessage-ID: <{word}.report@{host}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         This is an aggregate report of DMARC. It tells what mail in the name of\r\n{domain} came to {ours}\r\n\
         on {day} (UTC), by whom it was brought, and what was done with it.\r\n\r\n\
         It was made without human help, because the DMARC record of that domain asks\r\nfor it (rua). \
         Questions go to {contact}.\r\n\r\n\
         --{boundary}\r\nContent-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n filename=\"{ours}!{domain}!{begin_unix_s}!{end_unix_s}!{word}.xml.gz\"\r\n\r\n",
        contact = reporter.contact(),
        to = to.iter().map(|address| format!("<{address}>")).collect::<Vec<_>>().join(",\r\n "),
        date = mail_date(now_unix_s),
        host = reporter.hostname,
        day = &rfc3339(*begin_unix_s)[..10],
    );
    for line in packed.as_bytes().chunks(LINE_OCTETS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push_str("\r\n");
    }
    let _ = write!(text, "--{boundary}--\r\n");
    Ok(text.into_bytes())
}

/// A day in digits: 20261121.
fn date(day: i64) -> String {
    rfc3339(schedule::start_unix_s(day)).chars().take(10).filter(char::is_ascii_digit).collect()
}
