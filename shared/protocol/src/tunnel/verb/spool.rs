//! `Spool`: what the edge sealed while the home was away. A fetch is answered by data frames and a
//! [`SpoolEnd`]; list and acknowledge by one record.

use serde::{Deserialize, Serialize};

use crate::tunnel::transfer::TransferId;

/// Most entries in one listing; ask again after acknowledging them.
pub const LISTING_MAX: usize = 500;

/// What the home wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpoolRequest {
    /// The oldest entries. Answered by [`SpoolListing`].
    List,
    /// One entry, sealed. Answered by data frames and a [`SpoolEnd`].
    Fetch(TransferId),
    /// It is durable at home: delete it. Answered by [`SpoolDeleted`].
    Acknowledge(TransferId),
}

/// Oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolListing {
    /// At most [`LISTING_MAX`].
    pub entries: Vec<SpoolItem>,
    /// How many are held in all.
    pub total: u64,
    /// Octets held in all.
    pub total_octets: u64,
}

/// One sealed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolItem {
    /// Names it.
    pub transfer: TransferId,
    /// Octets, sealed.
    pub octets: u64,
    /// When it was sealed, seconds since 1970.
    pub sealed_unix_s: i64,
}

/// Ends a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpoolEnd {
    /// That was all of it.
    Whole {
        /// Octets sent.
        octets: u64,
    },
    /// No such entry (any more).
    Unknown,
    /// It can't be read from the edge's disk.
    Unreadable,
}

/// Answers an acknowledgement: the entry is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolDeleted;
