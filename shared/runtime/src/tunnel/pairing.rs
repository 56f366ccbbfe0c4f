//! Pairing by code at the tunnel's door: another ALPN, one record each way. Who dials has checked the
//! edge's key before anything of its own left; what the codes are, and who may pair, is the edge's
//! business, which answers a [`Visitor`].

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::pairing::exchange::{
    EXPORTER_LABEL, EXPORTER_OCTETS, Paired, PairingAnswer, PairingRefusal, PairingRequest, RECORD_OCTETS_MAX, Side,
    is_proven, prove,
};
use gatepost_protocol::tunnel::hello::{Refusal, printable};
use thiserror::Error;

use super::TunnelError;
use super::dial;
use super::greeting::{self, SOFTWARE};
use super::transport::{self, Alpn, Secured, Tls};
use crate::clock::Clock;
use crate::identity::Identity;

/// Time for the home's record.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the edge's answer: it may have to wait for its disk.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Who serves visitors: gives what to log of one that was turned away.
pub type Pairing = dyn Fn(Visitor) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// At the edge: somebody who wants to pair. Has proven a key, and nothing more.
pub struct Visitor {
    io: Tls,
    peer: NodeKey,
    address: SocketAddr,
    exporter: [u8; EXPORTER_OCTETS],
    clock: Clock,
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Visitor({} from {})", self.peer, self.address)
    }
}

impl Visitor {
    pub(super) fn new(secured: Secured<Tls>, address: SocketAddr, clock: &Clock) -> Result<Self, TunnelError> {
        let exporter = exporter(&secured.io)?;
        Ok(Self { io: secured.io, peer: secured.peer, address, exporter, clock: clock.clone() })
    }

    /// The key it has proven.
    pub fn peer(&self) -> NodeKey {
        self.peer
    }

    /// From where.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What proofs are made over.
    pub fn exporter(&self) -> &[u8; EXPORTER_OCTETS] {
        &self.exporter
    }

    /// What it asks.
    pub async fn request(&mut self) -> Result<PairingRequest, TunnelError> {
        let heard = greeting::hear(&mut self.io, RECORD_OCTETS_MAX);
        self.clock.timeout(REQUEST_DEADLINE, heard).await.ok_or_else(late)?
    }

    /// Answers, and hangs up. An error says that the answer may not have arrived.
    pub async fn answer(mut self, answer: &PairingAnswer) -> Result<(), TunnelError> {
        let said = greeting::say(&mut self.io, answer, RECORD_OCTETS_MAX);
        let said = self.clock.timeout(ANSWER_DEADLINE, said).await.ok_or_else(late)?;
        transport::linger(self.io, &self.clock).await;
        said
    }
}

/// What a home tells of itself.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// Its name, for people.
    pub node: String,
    /// Keys it will show later.
    pub more_keys: Vec<NodeKey>,
    /// The domains it serves.
    pub domains: Vec<String>,
}

/// Why a home could not pair.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PairingError {
    /// Nobody there, or nobody who speaks this.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Not the edge that made the code: it was told nothing.
    #[error(
        "at {address} answers another machine than the one that made this code (its key is {found}); nothing was told to it"
    )]
    Stranger {
        /// Where.
        address: String,
        /// Its key.
        found: NodeKey,
    },
    /// It has the key, and does not know the secret.
    #[error("the edge did not prove that it made this code; ask for another one: gatepost-edge pair")]
    Unproven,
    /// It said no.
    #[error("{0}")]
    Refused(PairingRefusal),
}

/// Pairs: dials, checks the key, proves the secret, hears the edge prove it, and gives its answer.
pub async fn pair(
    identity: &Identity,
    code: &PairingCode,
    applicant: Applicant,
    clock: &Clock,
) -> Result<Paired, PairingError> {
    let address = code.address.as_str();
    let tcp = dial::connect(address, clock).await?;
    let (config, pinned) = identity.pairing_config(code.edge_key);
    let mut secured = transport::secure_dialled(tcp, config, clock).await.map_err(|error| match pinned.stranger() {
        Some(found) => PairingError::Stranger { address: address.to_owned(), found },
        None => error.into(),
    })?;
    if secured.alpn != Alpn::Pairing || secured.peer != code.edge_key {
        return Err(TunnelError::Refused(Refusal::Malformed).into());
    }
    let exporter = exporter(&secured.io)?;
    let request = PairingRequest {
        proof: prove(&code.secret, Side::Home, &exporter),
        software: SOFTWARE.to_owned(),
        node: printable(&applicant.node),
        more_keys: applicant.more_keys.iter().map(|key| *key.as_bytes()).collect(),
        domains: applicant.domains,
    };
    let exchanged = async {
        greeting::say(&mut secured.io, &request, RECORD_OCTETS_MAX).await?;
        greeting::hear(&mut secured.io, RECORD_OCTETS_MAX).await
    };
    let answer = clock.timeout(ANSWER_DEADLINE, exchanged).await.ok_or_else(late)??;
    match answer {
        PairingAnswer::Refused(refusal) => Err(PairingError::Refused(refusal)),
        PairingAnswer::Paired(paired) if !is_proven(&code.secret, Side::Edge, &exporter, &paired.proof) => {
            Err(PairingError::Unproven)
        }
        PairingAnswer::Paired(paired) => Ok(paired),
    }
}

/// Our answer to a request that was good.
pub fn software() -> String {
    SOFTWARE.to_owned()
}

fn exporter(io: &Tls) -> Result<[u8; EXPORTER_OCTETS], TunnelError> {
    let failed = |error: rustls::Error| TunnelError::Handshake(error.to_string());
    match io {
        Tls::Client(io) => io.get_ref().1.export_keying_material([0; EXPORTER_OCTETS], EXPORTER_LABEL, None),
        Tls::Server(io) => io.get_ref().1.export_keying_material([0; EXPORTER_OCTETS], EXPORTER_LABEL, None),
    }
    .map_err(failed)
}

fn late() -> TunnelError {
    TunnelError::Broken("the other side took too long".to_owned())
}
