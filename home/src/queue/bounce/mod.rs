//! The report to a sender: that its message could not be delivered, that it takes long, or what it asked to
//! hear of success. A delivery status notification (RFC 3464) in a `multipart/report` (RFC 6522), for people
//! first. The same entry and the same bounce make the same bytes. Pure. Never made for the null sender
//! (RFC 5321 §4.5.5): that is seen to before.

mod words;

use std::fmt::Write;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient, Ret};
use gatepost_protocol::mail::reply::{Class, Enhanced, Reply};
use gatepost_runtime::clock::mail_date;

use super::entry::{About, Addressee, Entry, Final, OpenBounce, State};
use crate::message::MEMORY_OCTETS_MAX;

/// A message up to this size is returned whole if the sender did not say what it wants.
const WHOLE_OCTETS_MAX: u64 = 64 * 1024;
/// No more of a message than this is returned, whatever the sender wants.
pub const RETURNED_OCTETS_MAX: usize = MEMORY_OCTETS_MAX;
/// Columns at which long texts are folded, where they have a space.
const FOLD_COLUMNS: usize = 76;
/// Octets at which they are cut without one (RFC 5322 §2.1.1 allows 998).
const FOLD_OCTETS_MAX: usize = 900;

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// Who reads what people answer. Bounces come from `postmaster` at its domain (RFC 5321 §4.5.1), which
    /// reaches it and is nobody's own address.
    pub postmaster: &'a Address,
}

/// How much of the message goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// All of it.
    Whole,
    /// Its header section.
    Header,
}

/// What `RET=` and the size allow (RFC 3461 §4.3).
pub fn returned(entry: &Entry) -> Returned {
    let octets_max = match entry.ret {
        Some(Ret::Headers) => return Returned::Header,
        Some(Ret::Full) => RETURNED_OCTETS_MAX as u64,
        None => WHOLE_OCTETS_MAX,
    };
    if entry.octets <= octets_max { Returned::Whole } else { Returned::Header }
}

/// The envelope: from nobody, to the sender. `None` for the null sender.
pub fn envelope(entry: &Entry) -> Option<Envelope> {
    let ReversePath::Address(sender) = &entry.reverse_path else { return None };
    Some(Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient { address: sender.clone(), notify: Notify::Never, orcpt: None }],
        body: BodyKind::EightBit,
        smtputf8: entry.smtputf8,
        ret: None,
        envid: None,
    })
}

/// The report. `start` is the beginning of the message, at most [`RETURNED_OCTETS_MAX`]: all of it if that is
/// to be [returned]; `None` if it can't be read. What is delayed is tried until then.
pub fn report(
    entry: &Entry,
    bounce: &OpenBounce,
    reporter: Reporter<'_>,
    start: Option<&[u8]>,
    retried_until_unix_ms: i64,
) -> Vec<u8> {
    let about = bounce.about;
    let told: Vec<Told<'_>> = bounce
        .recipients
        .iter()
        .filter_map(|place| entry.recipients.get(*place))
        .filter_map(|addressee| match (&addressee.state, about) {
            (State::Failed { last, .. }, About::Failure)
            | (State::Delivered { last, .. }, About::Relay | About::Delivery) => Some((addressee, Some(last))),
            (State::Waiting(waiting), About::Delay) => Some((addressee, waiting.last.as_ref())),
            _ => None,
        })
        .collect();
    let boundary = format!("=_gatepost_{}", bounce.id);
    let mut text = String::with_capacity(4096);
    head(&mut text, entry, bounce, reporter, &told, &boundary);
    let _ = write!(
        text,
        "--{boundary}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\n\
         \r\n"
    );
    words::explain(&mut text, entry, about, &told, retried_until_unix_ms);
    let _ = write!(text, "\r\nReported by {}, trace {}.\r\n", reporter.hostname, entry.trace);
    status(&mut text, entry, reporter, &told, (about, retried_until_unix_ms), &boundary);
    let mut bytes = text.into_bytes();
    if let Some(start) = start {
        // RFC 3461 §4.3: the whole message goes back only where it has failed.
        let what = if about == About::Failure { returned(entry) } else { Returned::Header };
        original(&mut bytes, entry, what, start, &boundary);
    }
    bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    bytes
}

/// A recipient that is told of, and what was heard of it last.
type Told<'a> = (&'a Addressee, Option<&'a Final>);

// Writing to a string can't fail: the results are dropped throughout.

fn head(
    text: &mut String,
    entry: &Entry,
    bounce: &OpenBounce,
    reporter: Reporter<'_>,
    told: &[Told<'_>],
    boundary: &str,
) {
    let Reporter { hostname, postmaster } = reporter;
    let about = words::subject(bounce.about, told);
    let _ = write!(
        text,
        "From: Mail Delivery System <postmaster@{}>\r\n\
         To: <{}>\r\n\
         Subject: {}\r\n\
         Date: {}\r\n\
         Message-ID: <{}.{}@{hostname}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
         \r\n",
        postmaster.domain(),
        entry.reverse_path,
        folded(&about, "Subject: ".len()),
        mail_date(bounce.made_unix_s),
        bounce.trace,
        bounce.id,
    );
}

fn status(
    text: &mut String,
    entry: &Entry,
    reporter: Reporter<'_>,
    told: &[Told<'_>],
    (about, retried_until_unix_ms): (About, i64),
    boundary: &str,
) {
    // RFC 6533 §3: with addresses beyond ASCII the report has a type of its own.
    let kind = if entry.smtputf8 { "message/global-delivery-status" } else { "message/delivery-status" };
    let _ = write!(
        text,
        "\r\n--{boundary}\r\n\
         Content-Type: {kind}\r\n\
         \r\n\
         Reporting-MTA: dns; {}\r\n",
        reporter.hostname
    );
    if let Some(envid) = &entry.envid {
        let _ = write!(text, "Original-Envelope-Id: {}\r\n", folded(envid, "Original-Envelope-Id: ".len()));
    }
    let _ = write!(text, "Arrival-Date: {}\r\n", mail_date(entry.received_unix_ms.div_euclid(1000)));
    for (addressee, last) in told {
        text.push_str("\r\n");
        if let Some(orcpt) = &addressee.recipient.orcpt {
            let _ = write!(text, "Original-Recipient: {}\r\n", folded(orcpt, "Original-Recipient: ".len()));
        }
        let address = &addressee.recipient.address;
        let kind = if address.needs_utf8() { "utf-8" } else { "rfc822" };
        let _ = write!(
            text,
            "Final-Recipient: {kind}; {address}\r\n\
             Action: {}\r\n\
             Status: {}\r\n",
            action(about),
            status_code(about, last.map(|last| &last.reply)),
        );
        let remote = last.and_then(|last| last.remote.as_ref());
        if let Some(remote) = remote {
            let name = remote.split(' ').next().unwrap_or(remote);
            let _ = write!(text, "Remote-MTA: dns; {}\r\n", folded(name, "Remote-MTA: dns; ".len()));
        }
        if let Some(last) = last {
            let kind = if remote.is_some() { "smtp" } else { "x-gatepost" };
            let _ = write!(
                text,
                "Diagnostic-Code: {kind}; {}\r\n\
                 Last-Attempt-Date: {}\r\n",
                folded(&last.reply.to_string(), "Diagnostic-Code: smtp; ".len()),
                mail_date(last.at_unix_ms.div_euclid(1000)),
            );
        }
        if about == About::Delay {
            let _ = write!(text, "Will-Retry-Until: {}\r\n", mail_date(retried_until_unix_ms.div_euclid(1000)));
        }
    }
}

/// RFC 3464 §2.3.3.
fn action(about: About) -> &'static str {
    match about {
        About::Failure => "failed",
        About::Delay => "delayed",
        About::Relay => "relayed",
        About::Delivery => "delivered",
    }
}

fn original(bytes: &mut Vec<u8>, entry: &Entry, what: Returned, start: &[u8], boundary: &str) {
    let (kind, part) = match (what, entry.smtputf8) {
        (Returned::Whole, false) => ("message/rfc822", start),
        (Returned::Whole, true) => ("message/global", start),
        (Returned::Header, false) => ("text/rfc822-headers", header(start)),
        (Returned::Header, true) => ("message/global-headers", header(start)),
    };
    let encoding = if part.is_ascii() { "7bit" } else { "8bit" };
    let head = format!(
        "\r\n--{boundary}\r\n\
         Content-Type: {kind}\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\
         \r\n"
    );
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(part);
    if !part.ends_with(b"\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
}

/// The header section, without the empty line; whole lines only.
fn header(start: &[u8]) -> &[u8] {
    if start.starts_with(b"\r\n") {
        return &[];
    }
    if let Some(end) = start.windows(4).position(|window| window == b"\r\n\r\n") {
        return &start[..end + 2];
    }
    let end = start.windows(2).rposition(|window| window == b"\r\n").map_or(0, |at| at + 2);
    &start[..end]
}

/// RFC 3463, of the class that fits the report: 5, the message has failed for good; 4, not yet; 2, it is on.
fn status_code(about: About, reply: Option<&Reply>) -> Enhanced {
    let class = match about {
        About::Failure => 5,
        About::Delay => 4,
        About::Relay | About::Delivery => 2,
    };
    match reply.and_then(|reply| Some((reply.enhanced()?, reply.class()))) {
        Some((Enhanced(said, subject, detail), _)) if said == class => Enhanced(class, subject, detail),
        Some((Enhanced(_, subject, detail), Class::Permanent)) if class == 5 => Enhanced(5, subject, detail),
        _ => Enhanced(class, 0, 0),
    }
}

/// As the value of a header field whose name takes up `used` columns: no control character, folded.
fn folded(text: &str, used: usize) -> String {
    wrapped(text, used).join("\r\n\t")
}

/// In lines of [`FOLD_COLUMNS`] where there are spaces, and never over [`FOLD_OCTETS_MAX`].
fn wrapped(text: &str, used: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut columns = used;
    for word in printable(text).split(' ').filter(|word| !word.is_empty()) {
        let mut word = word;
        loop {
            let line = lines.last_mut().expect("there is always a first line");
            if !line.is_empty() && columns + word.len() + 1 > FOLD_COLUMNS {
                lines.push(String::new());
                columns = 0;
                continue;
            }
            if !line.is_empty() {
                line.push(' ');
                columns += 1;
            }
            let fits = word.floor_char_boundary(FOLD_OCTETS_MAX);
            line.push_str(&word[..fits]);
            columns += fits;
            word = &word[fits..];
            if word.is_empty() {
                break;
            }
        }
    }
    lines
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
