//! A record of the journal of attempts: a version octet, then postcard. Pure.

use gatepost_protocol::tunnel::verb::relay::{AttemptId, RelayDone, RelayFacts};
use serde::{Deserialize, Serialize};

/// First octet of each record.
const VERSION: u8 = 1;

/// What is on disk of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The final dot went out, or was about to.
    DotSent,
    /// The reply was seen, as builds before version 2 of the tunnel kept it.
    Ended(RelayDone),
    /// The reply was seen.
    EndedWith(RelayDone, RelayFacts),
}

/// One record of a journal; of several about an attempt the last holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// So it stands with this attempt, since so many seconds after 1970.
    Known(AttemptId, i64, Entry),
    /// The home has its outcome.
    Forgotten(AttemptId),
}

impl Entry {
    /// Octets it takes in a record.
    pub fn octets(&self) -> usize {
        postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default())
            .expect("counting octets cannot run out of room, and every field has a form")
    }
}

/// As it lies in the journal.
pub fn encode(record: &Record) -> Vec<u8> {
    postcard::to_extend(record, vec![VERSION]).expect("memory grows, and every field has a form")
}

/// Reads it; `None` if it is none of ours.
pub fn decode(bytes: &[u8]) -> Option<Record> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        _ => None,
    }
}
