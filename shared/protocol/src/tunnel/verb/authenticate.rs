//! `Authenticate`: a SASL exchange carried to the home. After the opening record the home answers
//! with [`AuthStep`]s, and each challenge is followed by one [`AuthResponse`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::tunnel::wire::WireReply;

/// Opens an exchange.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticate {
    /// SASL mechanism by its registered name.
    pub mechanism: String,
    /// The client's initial response, decoded.
    pub initial: Option<Vec<u8>>,
    /// The channel binding of the client's TLS session.
    pub exporter: Option<[u8; 32]>,
    /// Where the client connects from.
    pub client: IpAddr,
}

impl std::fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticate({} from {})", self.mechanism, self.client)
    }
}

/// What the home says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthStep {
    /// Pass this to the client, decoded.
    Challenge(Vec<u8>),
    /// Logged in.
    Granted {
        /// Shown again with each message of this session.
        grant: [u8; 16],
        /// Who logged in.
        login: String,
        /// SCRAM's last word to the client, if the mechanism has one.
        last: Option<Vec<u8>>,
        /// Seconds this grant lives.
        expires_s: u32,
    },
    /// Not logged in.
    Refused(WireReply),
}

impl std::fmt::Debug for AuthStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Challenge(_) => f.write_str("Challenge"),
            Self::Granted { login, .. } => write!(f, "Granted({login})"),
            Self::Refused(reply) => write!(f, "Refused({reply:?})"),
        }
    }
}

/// What the client says to a challenge.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthResponse(pub Vec<u8>);

impl std::fmt::Debug for AuthResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthResponse([secret])")
    }
}
