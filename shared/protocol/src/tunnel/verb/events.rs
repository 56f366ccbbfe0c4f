//! `Events`: what an edge did and refused, told to its home. The edge opens the exchange with the
//! number of its oldest event, then sends [`EventBatch`]es; the home answers each with one
//! [`EventsTaken`] after it is kept there. Kinds and fields are text, so that either side may be newer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::tunnel::findings::WireFindings;

/// Most events in one batch.
pub const BATCH_MAX: usize = 256;
/// Most octets of one batch as they travel: well within a record.
pub const BATCH_OCTETS_MAX: usize = 192 * 1024;
/// Most octets of one event as it travels and is kept; an edge cuts its facts to stay below.
pub const EVENT_OCTETS_MAX: usize = 16 * 1024;

/// Opens the exchange. Answered by [`EventsTaken`]: the last event the home holds of this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsOpen {
    /// Number of the oldest event the edge still holds.
    pub oldest: u64,
    /// Names this numbering: an edge that lost its journal begins another.
    pub journal: [u8; 16],
}

/// Events in the order they happened, at most [`BATCH_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Their numbers grow one by one.
    pub events: Vec<WireEvent>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireEvent {
    /// Its number in the edge's journal; grows.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The message it is about.
    pub trace: Option<[u8; 10]>,
    /// What happened, as the log line says it: `accepted`, `sealed`, `sent`, …
    pub what: String,
    /// Facts by name, as the log line has them.
    pub facts: Vec<(String, String)>,
    /// A message that was judged and refused, whose domain asks to be told of it: the home never sees it, and reports
    /// on it with all others.
    pub refused: Option<Box<WireRefused>>,
}

/// What a report on a refused message needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRefused {
    /// Who brought it.
    pub client: IpAddr,
    /// The domain of MAIL FROM; empty for the null sender.
    pub sender: String,
    /// What was found about it.
    pub findings: WireFindings,
}

/// The home has these, durably; the edge may forget them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsTaken {
    /// Number of the last event held; 0 for none.
    pub last: u64,
}
