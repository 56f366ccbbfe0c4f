//! `Relay`: one message to one next hop. The edge answers [`RelayStep::Ready`] once the remote
//! host waits for the message (then data frames and a `TransferEnd` follow), and always ends with
//! [`RelayStep::Done`]. `Attempt` asks later what became of one, and lets the edge forget it.

use serde::{Deserialize, Serialize};

use crate::mail::demand::Floor;
use crate::tunnel::transport::{WireSessions, WireVouched};
use crate::tunnel::wire::{WireEnvelope, WireOutcome, WireTls};

/// Names one attempt, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptId(pub [u8; 16]);

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Opens an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Names it.
    pub attempt: AttemptId,
    /// The message's trace id.
    pub trace: [u8; 10],
    /// Sender and the recipients of this hop.
    pub envelope: WireEnvelope,
    /// Octets of the message, for `SIZE=`.
    pub octets: u64,
    /// True if the message holds octets over 127.
    pub eight_bit: bool,
    /// Where to.
    pub hop: WireHop,
}

/// Where a message goes next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireHop {
    /// The mail hosts of this domain, by MX.
    Domain(String),
    /// A host the owner named.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Which TLS.
        tls: WireHopTls,
        /// Login name and password, if it wants them.
        login: Option<(String, Vec<u8>)>,
    },
    /// The mail hosts of this domain, by MX, if they are at least so secure; since version 2.
    Demanding {
        /// The domain.
        domain: String,
        /// The least.
        floor: WireFloor,
    },
}

/// [`Floor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireFloor {
    /// What the domain itself asks for.
    None,
    /// TLS.
    Encrypt,
    /// TLS, and somebody vouches for the host.
    Verify,
    /// TLS, by signed TLSA records.
    Dane,
}

impl From<Floor> for WireFloor {
    fn from(floor: Floor) -> Self {
        match floor {
            Floor::None => Self::None,
            Floor::Encrypt => Self::Encrypt,
            Floor::Verify => Self::Verify,
            Floor::Dane => Self::Dane,
        }
    }
}

impl From<WireFloor> for Floor {
    fn from(wire: WireFloor) -> Self {
        match wire {
            WireFloor::None => Self::None,
            WireFloor::Encrypt => Self::Encrypt,
            WireFloor::Verify => Self::Verify,
            WireFloor::Dane => Self::Dane,
        }
    }
}

impl std::fmt::Debug for WireHop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "Domain({domain})"),
            Self::Demanding { domain, floor } => write!(f, "Demanding({domain} {floor:?})"),
            Self::Host { host, port, tls, .. } => write!(f, "Host({host}:{port} {tls:?})"),
        }
    }
}

/// TLS towards a named host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireHopTls {
    /// STARTTLS if offered, any certificate.
    Opportunistic,
    /// STARTTLS, certificate verified.
    StartTls,
    /// TLS from the first byte, certificate verified.
    Implicit,
    /// None.
    Off,
}

/// What the edge says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayStep {
    /// The remote host waits for the message.
    Ready,
    /// It is over.
    Done(RelayDone),
    /// It is over, told in full: in place of `Done` since version 2.
    Ended(RelayDone, RelayFacts),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayDone {
    /// One for each recipient, in the envelope's order.
    pub outcomes: Vec<WireOutcome>,
    /// `name [address]:port` of the host that answered, if one did.
    pub remote: Option<String>,
    /// The TLS spoken with it.
    pub tls: Option<WireTls>,
}

/// What else is known of an attempt, since version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayFacts {
    /// The host offers DSN (RFC 3461): it reports on from there, so we do not.
    pub dsn: bool,
    /// It went over a connection that had carried a message before.
    pub reused: bool,
    /// The exchanger's domain or address range, by which a receiver throttles: for the home's pace.
    pub exchanger: Option<String>,
    /// Who vouched for the host that answered.
    pub vouched: WireVouched,
    /// The sessions it took to get there, for reports of RFC 8460.
    pub sessions: WireSessions,
}

/// Asks about an attempt, or lets it be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptRequest {
    /// What became of it? Answered by [`AttemptState`].
    State(AttemptId),
    /// The home has its outcome: forget it. Answered by [`AttemptState::Unknown`].
    Forget(AttemptId),
}

/// What an edge knows of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptState {
    /// Nothing: the final dot was never sent.
    Unknown,
    /// It is under way now.
    Running,
    /// The final dot was sent and no reply was seen: in doubt (RFC 1047).
    InDoubt,
    /// It ended so.
    Ended(RelayDone),
    /// It ended so, told in full: in place of `Ended` since version 2.
    EndedWith(RelayDone, RelayFacts),
}
