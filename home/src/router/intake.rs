//! One arriving message: its frames gathered, bounded and checked against their count and digest,
//! whether they come straight through the tunnel or out of what an edge sealed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferError, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::inbound::Credential;
use gatepost_protocol::tunnel::wire::WireError;
use thiserror::Error;

use super::{Arrival, Client, Origin, Router};
use crate::accounts::Accounts;
use crate::accounts::credential::Worthless;
use crate::assembly::Assembly;
use crate::message::Message;

/// Why what arrived is no message.
#[derive(Debug, Error)]
pub enum IntakeError {
    /// Count, digest or front fields.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The envelope.
    #[error(transparent)]
    Envelope(#[from] WireError),
    /// Our own disk.
    #[error("the message can't be held: {0}")]
    Disk(#[from] std::io::Error),
    /// Not the request that was expected here.
    #[error("it is no message")]
    NoMessage,
}

/// A message being gathered.
#[derive(Debug)]
pub struct Gathering {
    assembly: Assembly,
    tally: Tally,
    octets_max: u64,
}

/// What was gathered.
#[derive(Debug)]
pub enum Gathered {
    /// A whole message, its digest checked, and what its edge found out about it.
    Whole(Message, Verdict),
    /// The sender took it back.
    Aborted,
    /// Over the bound; its bytes were dropped.
    TooBig,
}

impl Gathering {
    /// Nothing yet; what goes over `octets_max` is counted and dropped.
    pub fn new(incoming: Arc<Path>, octets_max: u64) -> Self {
        Self { assembly: Assembly::new(incoming), tally: Tally::default(), octets_max }
    }

    /// Octets so far, kept or dropped.
    pub fn octets(&self) -> u64 {
        self.tally.octets()
    }

    /// The next bytes.
    pub async fn add(&mut self, data: Bytes) -> Result<(), IntakeError> {
        self.tally.add(&data);
        if self.tally.octets() > self.octets_max {
            return Ok(());
        }
        Ok(self.assembly.add(data).await?)
    }

    /// The end, as the sender sees it.
    pub async fn end(self, end: TransferEnd) -> Result<Gathered, IntakeError> {
        let Some((seal, verdict)) = end.whole() else { return Ok(Gathered::Aborted) };
        let too_big = self.tally.octets() > self.octets_max;
        self.tally.check(&seal)?;
        if too_big {
            return Ok(Gathered::TooBig);
        }
        let body = self.assembly.finish().await?;
        Ok(Gathered::Whole(Message { front: Bytes::from(seal.front), body }, verdict))
    }
}

/// What an edge brings: a message from the world, or one from an account with its proof.
#[derive(Debug)]
pub struct Brought {
    /// Envelope and facts.
    pub open: TransferOpen,
    /// Proof of the login; `None` for a message from the world.
    pub credential: Option<Credential>,
}

impl Brought {
    /// Reads the request that opens it.
    pub fn of(request: Request) -> Result<Self, IntakeError> {
        match request {
            Request::Inbound(inbound) => Ok(Self { open: inbound.open, credential: None }),
            Request::Submission(submission) => {
                Ok(Self { open: submission.open, credential: Some(submission.credential) })
            }
            _ => Err(IntakeError::NoMessage),
        }
    }
}

/// What became of a message from the spool.
#[derive(Debug)]
pub enum Taken {
    /// This is the answer.
    Answered(Reply),
    /// Nobody it could belong to: to be set aside.
    Nobodys,
}

/// Takes a whole message that came straight through the tunnel.
pub async fn take_live(
    router: &Router,
    accounts: &Accounts,
    edge: NodeKey,
    brought: Brought,
    (message, verdict): (Message, Verdict),
) -> Result<Reply, IntakeError> {
    let transfer = brought.open.transfer;
    let origin = match brought.credential {
        None => world(edge, &brought.open, false, verdict),
        Some(credential) => match accounts.verify(credential, edge).await {
            Ok(login) => Origin::Account { login, edge: Some((edge, transfer)), spooled: false },
            Err(Worthless { reply, .. }) => {
                let trace = TraceId::from_random(brought.open.trace);
                tracing::warn!(%trace, %edge, %reply, "a submission without a login we know is refused");
                return Ok(reply);
            }
        },
    };
    Ok(router.accept(arrival(origin, brought.open, message)?).await)
}

/// Takes a whole message that waited at the edge.
pub async fn take_spooled(
    router: &Router,
    accounts: &Accounts,
    edge: NodeKey,
    brought: Brought,
    (message, verdict): (Message, Verdict),
) -> Result<Taken, IntakeError> {
    let transfer = brought.open.transfer;
    let Some(credential) = brought.credential else {
        let origin = world(edge, &brought.open, true, verdict);
        return Ok(Taken::Answered(router.accept(arrival(origin, brought.open, message)?).await));
    };
    match accounts.verify(credential, edge).await {
        Ok(login) => {
            let origin = Origin::Account { login, edge: Some((edge, transfer)), spooled: true };
            Ok(Taken::Answered(router.accept(arrival(origin, brought.open, message)?).await))
        }
        Err(Worthless { reply, .. }) if reply == Reply::login_unavailable() => Ok(Taken::Answered(reply)),
        Err(Worthless { claimed: Some(login), reply }) => {
            let origin = Origin::Bounce { transfer };
            let refused = arrival(origin, brought.open, message)?;
            Ok(Taken::Answered(router.refuse_submission(&login, (edge, transfer), refused, reply).await))
        }
        Err(Worthless { claimed: None, .. }) => Ok(Taken::Nobodys),
    }
}

fn world(edge: NodeKey, open: &TransferOpen, spooled: bool, verdict: Verdict) -> Origin {
    let client = Client { address: open.client.address, helo: open.client.helo.clone() };
    Origin::World { edge, transfer: open.transfer, spooled, client, verdict: Arc::new(verdict) }
}

fn arrival(origin: Origin, open: TransferOpen, message: Message) -> Result<Arrival, WireError> {
    Ok(Arrival {
        origin,
        trace: TraceId::from_random(open.trace),
        envelope: Envelope::try_from(open.envelope)?,
        message,
        received_unix_s: open.received_unix_s,
    })
}
