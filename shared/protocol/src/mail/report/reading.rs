//! Finds the report that a message carries, by what its attachments say that they are and by how they begin. What it
//! costs is bounded whoever sent it: so many parts, so many of them unpacked, so much out of each.

use super::aggregate;
use super::archive::unpack;
use super::failure::{self, Failure};
use super::parts::{self, Part};
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
        match unpack(&packed).and_then(|xml| aggregate::read(&xml)) {
            Ok((report, left_out)) => return Ok(Some(Report::Aggregate { report: Box::new(report), left_out })),
            // Ordinary mail has attachments, too.
            Err(Unreadable::NoReport) => {}
            Err(error) => found = Err(error),
        }
    }
    found
}

/// By its type, or by its name where the type says nothing.
fn may_be_report(part: &Part<'_>) -> bool {
    let (kind, subtype) = part.media_type.split_once('/').unwrap_or((&part.media_type, ""));
    let typed = matches!(kind, "application" | "text" | "multipart")
        && ["xml", "zip", "gzip"].iter().any(|one| subtype.trim_start_matches("x-").starts_with(one));
    let named = [".xml", ".zip", ".gz"].iter().any(|end| part.name.as_ref().is_some_and(|name| name.ends_with(end)));
    typed || named
}

#[cfg(test)]
mod tests;
