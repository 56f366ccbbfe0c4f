//! The promise behind 250. A message goes through the tunnel as it comes; until the home has
//! acknowledged it, what may still have to be sealed is kept: small ones in memory, large ones
//! sealed to an unsynced draft. A home that is away, breaks off or stays silent costs nobody a
//! retry: the sealed copy is finished, synced, and goes home later under the same transfer id.

pub mod credential;
pub mod keep;
pub mod sealed;
pub mod through;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::findings::WireFindings;
use gatepost_protocol::tunnel::frame::DATA_OCTETS_MAX;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::inbound::{Credential, Inbound, Submission};
use gatepost_protocol::tunnel::wire::WireVerdict;
use gatepost_runtime::clock::Clock;
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use self::credential::Proof;
use self::keep::Keep;
use self::sealed::{SealError, SealTo};
use self::through::Through;
use crate::homes::Home;
use crate::spool::Spool;

/// Room made for a message at first; it grows with what comes.
const GATHER_OCTETS: usize = 8 * 1024;

/// Hands messages over. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handover {
    spool: Spool,
    clock: Clock,
    patience: Patience,
}

/// How long homes are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A home may be silent for so long before a message is sealed instead.
    pub home_wait_max: Duration,
    /// A home may be away for so long before nothing more is sealed for it.
    pub home_away_max: Duration,
}

/// What kind of message it is, beside envelope and bytes.
#[derive(Clone, Debug)]
pub enum Cargo {
    /// From the world.
    Inbound,
    /// From an account.
    Submission {
        /// Shown to a home that is connected.
        shown: Credential,
        /// Sealed in, if it comes to that and the login can be verified without the home.
        proof: Arc<Proof>,
    },
}

/// A message on its way. Dropped before [`Transfer::finish`], it is forgotten on both sides.
#[derive(Debug)]
pub struct Transfer {
    handover: Handover,
    home: Arc<Home>,
    cargo: Cargo,
    open: TransferOpen,
    octets_max: u64,
    tally: Tally,
    gathering: BytesMut,
    through: Through,
    keep: Keep,
}

impl Handover {
    /// Over this spool, with this patience.
    pub fn new(spool: Spool, clock: Clock, patience: Patience) -> Self {
        Self { spool, clock, patience }
    }

    /// Whether a message of so many octets could be taken for this home, as things stand. While the home is away that is
    /// what can be sealed, and better refused before its body than after. An error is the reply.
    pub async fn room(&self, home: &Arc<Home>, octets: u64) -> Result<(), Reply> {
        if home.is_removed() {
            return Err(Reply::local_error());
        }
        if home.session().is_some() {
            return Ok(());
        }
        if home.away(self.clock.now()) > self.patience.home_away_max {
            return Err(Reply::home_away(self.patience.home_away_max));
        }
        let (spool, name) = (self.spool.clone(), home.name().to_owned());
        let room = spawn_blocking(move || spool.check_room(&name, octets.max(1))).await;
        room.map_err(|_| Reply::local_error())?.map_err(|error| {
            warn!(home = home.name(), %error, "the home is away and nothing more can be sealed for it");
            SealError::Spool(error).reply()
        })
    }

    /// The same for a message whose home is not known yet: whether any of these could take it.
    pub async fn room_at_any(&self, homes: &[Arc<Home>], octets: u64) -> Result<(), Reply> {
        let mut room = Ok(());
        for home in homes {
            room = self.room(home, octets).await;
            if room.is_ok() {
                break;
            }
        }
        room
    }

    /// Begins a message. An error is the reply to DATA: it could be taken neither by the home nor
    /// by the spool now.
    pub async fn begin(&self, home: Arc<Home>, cargo: Cargo, open: TransferOpen) -> Result<Transfer, Reply> {
        if home.is_removed() {
            return Err(Reply::local_error());
        }
        let directory = home.directory().ok_or_else(Reply::directory_missing)?;
        let through = Through::new(home.session(), self.patience.home_wait_max, self.clock.clone());
        let transfer = Transfer {
            handover: self.clone(),
            octets_max: directory.message_octets_max,
            home,
            cargo,
            open,
            tally: Tally::default(),
            gathering: BytesMut::new(),
            through,
            keep: Keep::default(),
        };
        if transfer.through.is_gone() {
            transfer.check_sealing().await?;
        }
        Ok(transfer)
    }
}

impl Transfer {
    /// Takes the next bytes of the message, and waits while the home or the disk is slow. An error
    /// is the refusal of the whole message.
    pub async fn data(&mut self, bytes: &[u8]) -> Result<(), Reply> {
        self.tally.add(bytes);
        if self.tally.octets() > self.octets_max {
            return Err(Reply::too_big(self.octets_max));
        }
        let mut left = bytes;
        while self.gathering.len() + left.len() >= DATA_OCTETS_MAX {
            let (fits, rest) = left.split_at(DATA_OCTETS_MAX - self.gathering.len());
            self.gathering.extend_from_slice(fits);
            left = rest;
            let chunk = std::mem::replace(&mut self.gathering, BytesMut::with_capacity(DATA_OCTETS_MAX)).freeze();
            self.pass_on(chunk).await?;
        }
        if self.gathering.capacity() == 0 {
            self.gathering.reserve(left.len().max(GATHER_OCTETS));
        }
        self.gathering.extend_from_slice(left);
        Ok(())
    }

    /// The message is whole. The reply is the home's own, or a 250 for what is sealed and synced.
    pub async fn finish(mut self, verdict: &Verdict, front: Vec<u8>) -> Reply {
        let rest = std::mem::take(&mut self.gathering).freeze();
        let tally = std::mem::take(&mut self.tally);
        let octets = tally.octets();
        let seal = tally.seal(WireVerdict::from(verdict), front);
        let end = match &verdict.evidence {
            Some(_) => TransferEnd::Judged(seal, WireFindings::from(verdict)).for_version(self.home.speaks()),
            None => TransferEnd::Whole(seal),
        };
        let trace = TraceId::from_random(self.open.trace);
        match self.through.end(|| request(&self.cargo, &self.open), rest.clone(), &end).await {
            Ok(reply) => {
                let reply = self.judge(reply);
                debug!(%trace, transfer = %self.open.transfer, home = self.home.name(), octets, %reply, "handed over");
                self.keep.discard();
                reply
            }
            Err(why) => match self.seal(rest, &end).await {
                Ok(()) => {
                    info!(%trace, transfer = %self.open.transfer, home = self.home.name(), octets, %why, "sealed");
                    Reply::accepted(&trace.to_string())
                }
                Err(reply) => {
                    warn!(%trace, transfer = %self.open.transfer, home = self.home.name(), octets, %why, %reply, "neither handed over nor sealed");
                    reply
                }
            },
        }
    }

    /// A full chunk goes both ways: to the home, and to what is kept.
    async fn pass_on(&mut self, chunk: Bytes) -> Result<(), Reply> {
        if self.keep.wants_sealing(chunk.len()) {
            let to = self.seal_to().await;
            self.keep.start_sealing(to);
        }
        self.keep.add(chunk.clone()).await;
        if !self.through.is_gone() {
            self.through.data(|| request(&self.cargo, &self.open), chunk).await;
        }
        if self.through.is_gone()
            && let Some(error) = self.keep.error()
        {
            warn!(trace = %TraceId::from_random(self.open.trace), home = self.home.name(), %error, "the home is gone and the message can't be sealed");
            return Err(error.reply());
        }
        Ok(())
    }

    async fn seal(&mut self, rest: Bytes, end: &TransferEnd) -> Result<(), Reply> {
        if self.keep.is_memory() {
            let to = self.seal_to().await;
            self.keep.start_sealing(to);
        }
        if !rest.is_empty() {
            self.keep.add(rest).await;
        }
        let committed = match self.check_listed() {
            Ok(()) => std::mem::take(&mut self.keep).commit(end.clone()).await,
            Err(error) => Err(error),
        };
        committed.map_err(|error| {
            warn!(trace = %TraceId::from_random(self.open.trace), home = self.home.name(), %error, "the message can't be sealed");
            error.reply()
        })
    }

    /// Whether a message for a home that is away could be sealed at all: better refused before its
    /// body than after.
    async fn check_sealing(&self) -> Result<(), Reply> {
        self.seal_to().await.map_err(|error| error.reply())?;
        self.handover.room(&self.home, 0).await
    }

    /// Nobody would ever fetch what is sealed for a home that is gone.
    fn check_listed(&self) -> Result<(), SealError> {
        if self.home.is_removed() { Err(SealError::Removed) } else { Ok(()) }
    }

    /// What begins the sealed copy: the request as it will reach the home.
    async fn seal_to(&self) -> Result<SealTo, SealError> {
        self.check_listed()?;
        let directory = self.home.directory().ok_or(SealError::NoKey)?;
        if directory.seal_key.is_empty() {
            return Err(SealError::NoKey);
        }
        let request = match &self.cargo {
            Cargo::Inbound => request(&self.cargo, &self.open),
            Cargo::Submission { proof, .. } => {
                let credential = proof.credential().await.ok_or(SealError::NoCredential)?;
                Request::Submission(Box::new(Submission { open: self.open.clone(), credential }))
            }
        };
        Ok(SealTo {
            spool: self.handover.spool.clone(),
            home: self.home.name().to_owned(),
            key: directory.seal_key.clone(),
            transfer: self.open.transfer,
            sealed_unix_s: self.handover.clock.unix_s(),
            request,
        })
    }

    /// The home's reply is the client's, unless it makes no sense as the last word on a message.
    fn judge(&self, reply: Reply) -> Reply {
        let lost_grant = matches!(self.cargo, Cargo::Submission { .. }) && reply == Reply::no_grant();
        match reply.class() {
            // A grant ends with the tunnel's session: the client logs in again and sends again.
            Class::Permanent if lost_grant => Reply::login_unavailable(),
            Class::Done | Class::Temporary | Class::Permanent => reply,
            Class::Continue => {
                warn!(home = self.home.name(), %reply, "the home's reply is not the end of a message");
                Reply::local_error()
            }
        }
    }
}

/// What a connected home is asked.
fn request(cargo: &Cargo, open: &TransferOpen) -> Request {
    match cargo {
        Cargo::Inbound => Request::Inbound(Box::new(Inbound { open: open.clone() })),
        Cargo::Submission { shown, .. } => {
            Request::Submission(Box::new(Submission { open: open.clone(), credential: shown.clone() }))
        }
    }
}
