//! The tunnel: one session of three connections (control, mail, splice), each TCP + TLS 1.3 +
//! `yamux` behind this wall. A connection is owned by one task; everyone else holds handles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::frame::{Frame, FrameError};
use gatepost_protocol::tunnel::hello::{Refusal, Role};
use gatepost_protocol::tunnel::verb::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::identity::Identity;

/// Streams one side may have open on one connection.
pub const STREAMS_MAX: usize = 256;

/// Why a tunnel could not be made, or ended.
#[derive(Clone, Debug, Error)]
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
#[derive(Clone, Debug, Error)]
pub enum StreamError {
    /// The connection or the stream is gone.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// What came is no frame, or not the one due.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side ended the stream where a frame was due.
    #[error("the other side ended the exchange early")]
    Ended,
}

/// One exchange: frames both ways. Dropping it without [`Stream::finish`] resets it.
pub struct Stream {
    _todo: (),
}

impl Stream {
    /// Queues a record; it goes out with [`Stream::flush`], or when enough has gathered.
    pub async fn send<T: Serialize + Sync>(&mut self, record: &T) -> Result<(), StreamError> {
        let _ = record;
        todo!()
    }

    /// Queues message bytes as one or more data frames.
    pub async fn send_data(&mut self, data: Bytes) -> Result<(), StreamError> {
        let _ = data;
        todo!()
    }

    /// Sends what is queued.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        todo!()
    }

    /// The next frame; `Ended` if the other side finished.
    pub async fn frame(&mut self) -> Result<Frame, StreamError> {
        todo!()
    }

    /// The next frame, which must be this record.
    pub async fn record<T: DeserializeOwned>(&mut self) -> Result<T, StreamError> {
        todo!()
    }

    /// Flushes and ends our side; does not wait for the other's.
    pub async fn finish(self) {
        todo!()
    }
}

/// An exchange the other side began, with its first record.
pub struct Incoming {
    /// Which connection it came on.
    pub role: Role,
    /// What it asks.
    pub request: Request,
    /// Where it goes on.
    pub stream: Stream,
}

/// A live session: three connections. Cheap to clone; lives until [`Session::close`] or until any
/// connection dies, which ends all three.
#[derive(Clone)]
pub struct Session {
    _todo: (),
}

/// Facts about a session, for `status`.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    /// The other node's key.
    pub peer: NodeKey,
    /// Its name.
    pub node: String,
    /// Its software.
    pub software: String,
    /// Its address, on the control connection.
    pub address: SocketAddr,
    /// Since when, seconds since 1970.
    pub since_unix_s: i64,
    /// Protocol version spoken.
    pub version: u16,
    /// Key exchange group.
    pub group: String,
}

impl Session {
    /// Begins an exchange on the verb's connection; the request goes out with the next flush.
    pub async fn open(&self, request: &Request) -> Result<Stream, StreamError> {
        let _ = request;
        todo!()
    }

    /// Facts.
    pub fn facts(&self) -> &SessionFacts {
        todo!()
    }

    /// The last round trip of the control connection's heartbeat.
    pub fn round_trip(&self) -> Option<Duration> {
        todo!()
    }

    /// True while no connection of it has died.
    pub fn is_alive(&self) -> bool {
        todo!()
    }

    /// Ends it. `Replaced` is told to the other side.
    pub fn close(&self, why: TunnelError) {
        let _ = why;
        todo!()
    }

    /// Resolves when it has ended, with the reason.
    pub async fn ended(&self) -> TunnelError {
        todo!()
    }
}

/// Dials a session: resolves the name (both families, raced), makes the three connections, checks
/// the key on each, says hello on each. Exchanges the other side begins come out of the receiver.
pub async fn dial(
    identity: &Identity,
    node: &str,
    address: &str,
    keys: &[NodeKey],
    clock: Clock,
) -> Result<(Session, mpsc::Receiver<Incoming>), TunnelError> {
    let _ = (identity, node, address, keys, clock);
    todo!()
}

/// The accepting side: gathers connections into sessions.
pub struct Acceptor {
    _todo: (),
}

impl Acceptor {
    /// `paired` says whether a key is known. Whole new sessions (with the exchanges their homes begin) go
    /// to `sessions`; an older session of the same key is closed as replaced first.
    pub fn new(
        identity: Arc<Identity>,
        node: String,
        paired: Arc<dyn Fn(NodeKey) -> bool + Send + Sync>,
        sessions: mpsc::Sender<(Session, mpsc::Receiver<Incoming>)>,
        clock: Clock,
    ) -> Self {
        let _ = (identity, node, paired, sessions, clock);
        todo!()
    }

    /// One accepted connection, until it has become part of a session or was refused. Bounded in time
    /// and memory; who is not paired is told so and costs nothing more.
    pub async fn accept(&self, stream: TcpStream, peer: SocketAddr) {
        let _ = (stream, peer);
        todo!()
    }
}
