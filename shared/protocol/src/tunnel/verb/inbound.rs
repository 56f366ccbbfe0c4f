//! `Inbound` and `Submission`: envelope and facts, data frames, [`super::super::transfer::TransferEnd`];
//! then one [`Handed`] comes back. The reply is durable fact: a 2yz means the home has the message.

use serde::{Deserialize, Serialize};

use crate::tunnel::transfer::TransferOpen;
use crate::tunnel::wire::WireReply;

/// A message from the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Envelope and facts.
    pub open: TransferOpen,
}

/// A message from an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Envelope and facts.
    pub open: TransferOpen,
    /// What proves the login. The home verifies it, always.
    pub credential: Credential,
}

/// What proves a login to the home.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// Given by the home in this session, by `Authenticate`.
    Grant([u8; 16]),
    /// PLAIN or LOGIN while the home was away: travels and rests only inside a seal or the tunnel.
    Password {
        /// Login name.
        login: String,
        /// An app password for submission only.
        password: Vec<u8>,
    },
    /// The whole SCRAM exchange, while the home was away.
    Scram {
        /// `SCRAM-SHA-256` or `SCRAM-SHA-256-PLUS`.
        mechanism: String,
        /// As the client sent it.
        client_first: Vec<u8>,
        /// As the edge answered.
        server_first: Vec<u8>,
        /// As the client sent it.
        client_final: Vec<u8>,
        /// The channel binding of the client's TLS session.
        exporter: Option<[u8; 32]>,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Grant(_) => "Grant([secret])",
            Self::Password { .. } => "Password([secret])",
            Self::Scram { .. } => "Scram([secret])",
        })
    }
}

/// The answer to a whole message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What the client is told.
    pub reply: WireReply,
}
