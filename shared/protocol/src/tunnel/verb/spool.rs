//! `Spool`: what the edge sealed while the home was away. A fetch is answered by data frames and a
//! [`SpoolEnd`]; everything else by one record.

use serde::{Deserialize, Serialize};

use crate::tunnel::transfer::TransferId;

/// Most entries in one listing; ask again after acknowledging them.
pub const LISTING_MAX: usize = 500;

/// Most damaged files named in one page.
pub const DAMAGED_MAX: usize = 100;

/// What the home wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpoolRequest {
    /// The oldest entries. Answered by [`SpoolListing`].
    List,
    /// One entry, sealed. Answered by data frames and a [`SpoolEnd`].
    Fetch(TransferId),
    /// It is durable at home: delete it. Answered by [`SpoolDeleted`].
    Acknowledge(TransferId),
    /// The oldest entries after a place, since version 2. Answered by [`SpoolPage`].
    Page {
        /// [`SpoolPage::next`] of the page before; empty for the first.
        after: String,
    },
    /// The owner wants it gone, whatever it is, since version 2. Answered by [`SpoolDropped`].
    Drop(TransferId),
}

/// Entries in the order they were sealed, and what can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolPage {
    /// At most [`LISTING_MAX`].
    pub entries: Vec<SpoolItem>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<String>,
    /// How many are held in all.
    pub total: u64,
    /// Octets held in all.
    pub total_octets: u64,
    /// Files set aside at the edge because they are damaged, at most [`DAMAGED_MAX`]; on the first page only.
    pub damaged: Vec<SpoolDamaged>,
    /// How many there are in all.
    pub damaged_total: u64,
}

/// A file that can't be read: it is kept, and holds nothing else up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolDamaged {
    /// Of which hand-over, if its name says.
    pub transfer: Option<TransferId>,
    /// Its name.
    pub name: String,
    /// Its octets.
    pub octets: u64,
}

/// Answers a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolDropped {
    /// It was there, and is gone for good.
    pub existed: bool,
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
