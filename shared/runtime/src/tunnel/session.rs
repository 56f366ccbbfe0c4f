//! A session: three connections that live and die together, and what is known of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::Role;
use gatepost_protocol::tunnel::verb::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use super::connection::{self, Link, Side};
use super::{INCOMING_MAX, Incoming, Stream, StreamError, TunnelError};
use crate::clock::Clock;

/// Facts about a session, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Whether a session has ended, and why. The first reason stays.
#[derive(Debug)]
pub(super) struct End(watch::Sender<Option<TunnelError>>);

impl End {
    fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Does nothing if there is a reason already.
    pub(super) fn set(&self, reason: TunnelError) {
        self.0.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert(reason);
            first
        });
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(super) fn reason(&self) -> Option<TunnelError> {
        self.0.borrow().clone()
    }

    pub(super) async fn wait(&self) -> TunnelError {
        let mut receiver = self.0.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        // The sender is `self`, so the channel can't close while we wait.
        reason.unwrap_or(TunnelError::Closed)
    }
}

/// A live session: three connections. Cheap to clone; lives until [`Session::close`] or until any
/// connection dies, which ends all three.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    facts: SessionFacts,
    links: [Arc<Link>; 3],
    end: Arc<End>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("facts", &self.0.facts).field("end", &self.0.end.reason()).finish()
    }
}

impl Session {
    /// Starts a session on three greeted connections, in the order of [`Role::ALL`].
    pub(super) fn start<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        connections: [IO; 3],
        side: Side,
        facts: SessionFacts,
        clock: &Clock,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let end = Arc::new(End::new());
        let (arrivals, incoming) = mpsc::channel(INCOMING_MAX);
        let mut connections = connections.into_iter();
        let links = Role::ALL.map(|role| {
            let io = connections.next().expect("there are as many connections as roles");
            connection::start(io, role, side, Arc::clone(&end), arrivals.clone(), clock)
        });
        (Self(Arc::new(Inner { facts, links, end })), incoming)
    }

    /// Begins an exchange on the verb's connection; the request goes out with the next flush. Waits
    /// while [`super::STREAMS_MAX`] exchanges of ours are open there. A verb newer than the session's version is
    /// [`StreamError::TooOld`].
    pub async fn open(&self, request: &Request) -> Result<Stream, StreamError> {
        let (spoken, needed) = (self.0.facts.version, request.since());
        if needed > spoken {
            return Err(StreamError::TooOld { spoken, needed });
        }
        let role = request.role().unwrap_or(Role::Control);
        self.0.links[role as usize].open(request).await
    }

    /// Facts.
    pub fn facts(&self) -> &SessionFacts {
        &self.0.facts
    }

    /// The last round trip of the control connection's heartbeat.
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.links[Role::Control as usize].round_trip()
    }

    /// When the other side was last heard on the control connection: every few seconds, while all is well.
    pub fn heard(&self) -> Instant {
        self.0.links[Role::Control as usize].heard()
    }

    /// True while no connection of it has died.
    pub fn is_alive(&self) -> bool {
        !self.0.end.is_set()
    }

    /// Ends it. A refusal (such as `Replaced`) is told to the other side. What was flushed before is
    /// sent still, if the other side takes it within two seconds.
    pub fn close(&self, why: TunnelError) {
        self.0.end.set(why);
    }

    /// Resolves when it has ended, with the reason.
    pub async fn ended(&self) -> TunnelError {
        self.0.end.wait().await
    }
}
