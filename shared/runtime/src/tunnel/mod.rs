//! The tunnel: one session of three connections (control, mail, splice), each TCP + TLS 1.3 +
//! `yamux` behind this wall. A connection is owned by one task; everyone else holds handles.
//!
//! * [`dial()`] makes a session from the home; [`Acceptor`] gathers one at the edge. Both check the
//!   pinned key before a byte of ours is read, and say hello before the multiplexer runs.
//! * [`Session`] opens exchanges; those the other side begins come out of a bounded channel as
//!   [`Incoming`]. Any connection's death ends the session and every [`Stream`] of it.
//!
//! The accepting side logs here whom it refused and why, one line each; who dials logs the error it
//! is given, which says the same.

mod accept;
mod connection;
mod dial;
mod greeting;
mod pairing;
mod pulse;
mod session;
mod splice;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

use gatepost_protocol::tunnel::frame::FrameError;
use gatepost_protocol::tunnel::hello::{Refusal, Role};
use gatepost_protocol::tunnel::verb::Request;
use thiserror::Error;

pub use self::accept::Acceptor;
pub use self::dial::dial;
pub use self::pairing::{Applicant, Pairing, PairingError, Visitor, pair, software};
pub use self::session::{Session, SessionFacts};
pub use self::splice::{Carried, Notes, Spliced, carry};
pub use self::stream::Stream;

/// Streams one side may have open on one connection.
pub const STREAMS_MAX: usize = 256;
/// Exchanges that may wait for whoever serves them; further ones wait in their own tasks.
pub const INCOMING_MAX: usize = 64;

/// Why a tunnel could not be made, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TunnelError {
    /// The address can't be resolved or reached.
    #[error("can't reach {address}: {why}")]
    Unreachable {
        /// As in the config.
        address: String,
        /// The system's words.
        why: String,
    },
    /// TLS failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// One side refused the other.
    #[error("{0}")]
    Refused(Refusal),
    /// No byte for 60 s.
    #[error("no sign of life for 60 s")]
    Silent,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// We closed it.
    #[error("closed")]
    Closed,
}

/// Why an exchange on a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The connection or the stream is gone.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// What came is no frame, or not the one due.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side speaks an older version, which has no such verb.
    #[error("the other side speaks version {spoken} of the tunnel's protocol, and this needs {needed}: upgrade it")]
    TooOld {
        /// Of this session.
        spoken: u16,
        /// Of the verb.
        needed: u16,
    },
    /// The other side ended the stream where a frame was due.
    #[error("the other side ended the exchange early")]
    Ended,
}

/// An exchange the other side began, with its first record.
#[derive(Debug)]
pub struct Incoming {
    /// Which connection it came on.
    pub role: Role,
    /// What it asks.
    pub request: Request,
    /// Where it goes on.
    pub stream: Stream,
}
