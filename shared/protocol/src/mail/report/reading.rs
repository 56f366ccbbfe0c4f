//! Finds the report that a message carries, by what its attachments say that they are and by how they begin. What it
//! costs is bounded whoever sent it: so many parts, so many of them unpacked, so much out of each.

use super::aggregate;
use super::archive::unpack;
use super::failure::{self, Failure};
use super::parts::{self, Part};
use super::tls::{self, TlsReport};
use super::{Aggregate, Unreadable};

/// Longest message read, in octets. Reports of large receivers to a large domain have a tenth of it.
pub const MESSAGE_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// Attachments of one message that are unpacked.
const ATTACHMENTS_MAX: usize = 4;

/// A report that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Of many messages.
    Aggregate {
        /// What it tells.
        report: Box<Aggregate>,
        /// Rows that are not in it: beyond the bound, or without an address.
        left_out: u64,
    },
    /// Of one.
    Failure(Box<Failure>),
    /// Of TLS.
    Tls(Box<TlsReport>),
}

/// The report in a message; `None` in one that carries nothing like it.
pub fn read(message: &[u8]) -> Result<Option<Report>, Unreadable> {
    let parts = parts::of(message);
    if let Some(failure) = failure::read(&parts) {
        return Ok(Some(Report::Failure(Box::new(failure))));
    }
    let mut found = Ok(None);
    for part in parts.iter().filter(|part| may_be_report(part)).take(ATTACHMENTS_MAX) {
        let packed = part.decoded();
        match unpack(&packed).and_then(|text| read_text(&text, part)) {
            Ok(report) => return Ok(Some(report)),
            // Ordinary mail has attachments, too.
            Err(Unreadable::NoReport) => {}
            Err(error) => found = Err(error),
        }
    }
    found
}

/// JSON is of TLS, XML is of DMARC.
fn read_text(text: &[u8], part: &Part<'_>) -> Result<Report, Unreadable> {
    if text.trim_ascii_start().starts_with(b"{") {
        return match tls::read(text) {
            Ok(report) => Ok(Report::Tls(Box::new(report))),
            // Much else is JSON.
            Err(Unreadable::NoJson) if !part.media_type.contains("tlsrpt") => Err(Unreadable::NoReport),
            Err(error) => Err(error),
        };
    }
    let (report, left_out) = aggregate::read(text)?;
    Ok(Report::Aggregate { report: Box::new(report), left_out })
}

/// By its type, or by its name where the type says nothing.
fn may_be_report(part: &Part<'_>) -> bool {
    let (kind, subtype) = part.media_type.split_once('/').unwrap_or((&part.media_type, ""));
    let typed = matches!(kind, "application" | "text" | "multipart")
        && ["xml", "zip", "gzip", "tlsrpt"].iter().any(|one| subtype.trim_start_matches("x-").starts_with(one));
    let named =
        [".xml", ".zip", ".gz", ".json"].iter().any(|end| part.name.as_ref().is_some_and(|name| name.ends_with(end)));
    typed || named
}

#[cfg(test)]
mod tests;
