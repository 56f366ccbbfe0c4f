//! `Admin`: what the home's owner asks of an edge. One record back.

use serde::{Deserialize, Serialize};

use super::examination::Examination;

/// What is asked. New requests are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Everything `gatepost-edge status` would show this home, and nothing of another.
    Status,
    /// Its counters for this home, as `gatepost_runtime::metrics` writes a page of them.
    Metrics,
    /// The bans in force, the newest first.
    BansList,
    /// Ban a network.
    BansAdd {
        /// An address, or a network such as `192.0.2.0/24`.
        network: String,
        /// For how long, in seconds; without it, for good.
        for_s: Option<u64>,
    },
    /// Lift a ban.
    BansLift {
        /// An address, or a network.
        network: String,
    },
    /// What it finds when it tries these things out; the answer is an [`super::examination::Examined`].
    Examine(Box<Examination>),
    /// So many octets there, so many back, at most [`super::examination::ECHO_OCTETS_MAX`] of each: to see how much passes.
    Echo {
        /// There.
        there: Vec<u8>,
        /// Back.
        back: u32,
    },
    /// What it would answer a CA that shows this token: where one name leads to several edges, the CA may come to another
    /// one than ordered. The answer is the key authorization.
    Challenge {
        /// The token.
        token: String,
    },
    /// Make the keys that are to follow those of its certificate; the answer has their TLSA records.
    CertificateRotate,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAnswer {
    /// JSON text.
    Answer(String),
    /// Not done, and why, for people.
    Refused(String),
}
