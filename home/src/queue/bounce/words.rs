//! What a report says to a person: what happened and what to do, then the other side's own words. Pure.

use std::fmt::Write;

use gatepost_runtime::clock::mail_date;

use super::super::entry::{About, Entry, Final};
use super::super::explain;
use super::{Told, printable, wrapped};

/// Columns a text for people is indented by, below the recipient it is about.
const INDENT: usize = 4;

/// The subject of a report.
pub fn subject(about: About, told: &[Told<'_>]) -> String {
    let (one, many) = match about {
        About::Failure => ("Not delivered: ", "Not delivered to"),
        About::Delay => ("Delayed: ", "Delayed for"),
        About::Relay => ("Sent on: ", "Sent on to"),
        About::Delivery => ("Delivered: ", "Delivered to"),
    };
    match told {
        [(addressee, _)] => format!("{one}{}", addressee.recipient.address),
        told => format!("{many} {} recipients", told.len()),
    }
}

// Writing to a string can't fail: the results are dropped throughout.

/// The text.
pub fn explain(text: &mut String, entry: &Entry, about: About, told: &[Told<'_>], retried_until_unix_ms: i64) {
    let sent = mail_date(entry.received_unix_ms.div_euclid(1000));
    let whom = if told.len() == 1 { "this recipient" } else { "these recipients" };
    let _ = write!(text, "Your message of {sent}\r\n");
    let _ = match about {
        About::Failure => write!(text, "was not delivered to {whom}, and will not be tried again:\r\n"),
        About::Delay => write!(
            text,
            "has not been delivered to {whom} yet:\r\n\r\n{}\r\n",
            paragraph(
                &format!(
                    "It is tried again until {}. You need do nothing; if it can't be delivered by then, you are told.",
                    mail_date(retried_until_unix_ms.div_euclid(1000))
                ),
                0
            ),
        ),
        About::Relay => {
            write!(text, "was taken for {whom} by a mail host that does not report\r\nhow it goes on from there:\r\n")
        }
        About::Delivery => write!(text, "was delivered to {whom}:\r\n"),
    };
    for (addressee, last) in told {
        let _ = write!(text, "\r\n  {}\r\n", addressee.recipient.address);
        if about == About::Delivery {
            continue;
        }
        match last {
            Some(last) => one(text, about, last),
            None => text.push_str("\r\n    It was not tried yet: nothing could be sent to the world.\r\n"),
        }
    }
}

fn one(text: &mut String, about: About, last: &Final) {
    if matches!(about, About::Failure | About::Delay) {
        let meaning = explain::meaning(&last.reply, last.remote.as_deref());
        let sentence = meaning.map_or_else(|| unexplained(about, last).to_owned(), |meaning| meaning.to_string());
        let _ = write!(text, "\r\n{}\r\n", paragraph(&sentence, INDENT));
    }
    let _ = match &last.remote {
        Some(remote) => write!(text, "\r\n    {} answered:\r\n", printable(remote)),
        None => write!(text, "\r\n    The reason:\r\n"),
    };
    for line in wrapped(&last.reply.to_string(), INDENT + 2) {
        let _ = write!(text, "      {line}\r\n");
    }
}

fn unexplained(about: About, last: &Final) -> &'static str {
    match (about, last.remote.is_some()) {
        (About::Failure, true) => "The receiving mail host refuses it. Its own words below say why.",
        (About::Failure, false) => "It could not be sent. The reason is below.",
        (_, true) => "The receiving mail host does not take it now. Its own words below say why.",
        (_, false) => "It could not be sent yet. The reason is below.",
    }
}

/// Folded, each line indented.
fn paragraph(sentence: &str, indent: usize) -> String {
    let indent_text = " ".repeat(indent);
    let lines = wrapped(sentence, indent);
    let lines: Vec<String> = lines.iter().map(|line| format!("{indent_text}{line}")).collect();
    lines.join("\r\n")
}
