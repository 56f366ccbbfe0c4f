//! The verbs. Each exchange is a stream of its own, opened by the side that asks; its first record
//! is a [`Request`], which names the verb and decides what follows.

pub mod admin;
pub mod authenticate;
pub mod challenge;
pub mod directory;
pub mod events;
pub mod examination;
pub mod inbound;
pub mod relay;
pub mod splice;
pub mod spool;

use serde::{Deserialize, Serialize};

use self::spool::SpoolRequest;
use super::hello::Role;

/// The first record on a stream. New verbs are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Heartbeats of one connection, for as long as it lives.
    Heartbeat,
    /// Home to edge: a new snapshot of the directory.
    Directory(Box<directory::WireDirectory>),
    /// Edge to home: a message from the world.
    Inbound(Box<inbound::Inbound>),
    /// Edge to home: a message from an account.
    Submission(Box<inbound::Submission>),
    /// Edge to home: a SASL exchange.
    Authenticate(authenticate::Authenticate),
    /// Home to edge: a message for the world.
    Relay(Box<relay::Relay>),
    /// Home to edge: what became of an attempt?
    Attempt(relay::AttemptRequest),
    /// Home to edge: list, fetch, acknowledge what was sealed.
    Spool(spool::SpoolRequest),
    /// Home to edge: a new snapshot of the directory, since version 2.
    Directory2(Box<directory::WireDirectory2>),
    /// Edge to home: what it did and refused, since version 2.
    Events(events::EventsOpen),
    /// Home to edge: what its owner asks of it, since version 2.
    Admin(admin::AdminRequest),
    /// Edge to home: the answer to a CA's challenge, since version 2.
    Challenge(challenge::Challenge),
    /// Edge to home: a client of 993, since version 2.
    Splice(splice::Splice),
}

impl Request {
    /// The protocol version this verb came with: it is never said on a session that speaks an older one.
    pub fn since(&self) -> u16 {
        match self {
            Self::Heartbeat
            | Self::Directory(_)
            | Self::Inbound(_)
            | Self::Submission(_)
            | Self::Authenticate(_)
            | Self::Relay(_)
            | Self::Attempt(_)
            | Self::Spool(SpoolRequest::List | SpoolRequest::Fetch(_) | SpoolRequest::Acknowledge(_)) => 1,
            Self::Directory2(_)
            | Self::Events(_)
            | Self::Admin(_)
            | Self::Challenge(_)
            | Self::Splice(_)
            | Self::Spool(SpoolRequest::Page { .. } | SpoolRequest::Drop(_)) => 2,
        }
    }

    /// The connection this verb belongs on. [`Request::Heartbeat`] belongs on each.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Heartbeat => None,
            Self::Directory(_)
            | Self::Directory2(_)
            | Self::Authenticate(_)
            | Self::Events(_)
            | Self::Admin(_)
            | Self::Challenge(_) => Some(Role::Control),
            Self::Inbound(_) | Self::Submission(_) | Self::Relay(_) | Self::Attempt(_) | Self::Spool(_) => {
                Some(Role::Mail)
            }
            Self::Splice(_) => Some(Role::Splice),
        }
    }
}
