//! Every message that comes to the home goes through here, wherever it comes from.

pub mod completion;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;

use crate::message::Message;

/// A whole message, digest checked, and where it comes from.
#[derive(Debug)]
pub struct Arrival {
    /// Where from.
    pub origin: Origin,
    /// Its trace id.
    pub trace: TraceId,
    /// Who sent it, who gets it.
    pub envelope: Envelope,
    /// The bytes.
    pub message: Message,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// Where a message comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The world, by way of an edge: repeats are known by transfer id.
    World {
        /// Which edge.
        edge: NodeKey,
        /// Names the hand-over.
        transfer: TransferId,
        /// Pulled from the spool: no refusal can reach the sender any more.
        spooled: bool,
    },
    /// An account, verified.
    Account {
        /// Who logged in.
        login: String,
        /// By way of an edge, with its transfer id; `None` on the LAN.
        edge: Option<(NodeKey, TransferId)>,
        /// Pulled from the spool: a refusal becomes a bounce to the account.
        spooled: bool,
    },
    /// Ourselves: a bounce.
    Bounce {
        /// Names it: a repeat after a crash comes under the same id.
        transfer: TransferId,
    },
}

/// Takes messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    _todo: (),
}

impl Router {
    /// Delivers, queues or refuses. A positive reply means: durable.
    pub async fn accept(&self, arrival: Arrival) -> Reply {
        let _ = arrival;
        todo!()
    }

    /// Whether an account may send to this address now: local and known, or remote.
    pub async fn check_recipient(&self, address: &Address) -> Result<(), Reply> {
        let _ = address;
        todo!()
    }
}
