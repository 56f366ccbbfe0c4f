//! Fetching what an edge sealed while the home was away: oldest first, a few at a time, beside the mail that
//! flows now. An entry is acknowledged, and only then deleted at the edge, once it is durable here:
//! delivered, or, if it can't be opened, set aside as it is.

pub mod ask;
pub mod rounds;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::frame::Frame;
use gatepost_protocol::tunnel::transfer::{TransferEnd, TransferId};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::spool::{SpoolEnd, SpoolItem, SpoolRequest};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, Draft, DurableError};
use gatepost_runtime::shutdown::{Phase, Shutdown};
use gatepost_runtime::tunnel::StreamError;
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};

use self::rounds::{Nudges, Pause, Rounds};
use super::Router;
use super::intake::{self, Brought, Gathered, Gathering, IntakeError, Taken};
use crate::accounts::Accounts;
use crate::assembly::Assembly;
use crate::message::{Body, Message};
use crate::queue::ConnectedEdge;
use crate::unseal::{SealKey, UnsealError};

/// Entries fetched at once: each costs two round trips, and an edge may be far away.
const FETCHES_MAX: usize = 16;
/// Octets of those fetched at once, by what the edge says of them; a larger one is fetched alone. The mail that
/// flows now has the same line.
const FETCHED_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// Between two pages of which nothing was taken.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// Largest sealed message taken. What the edge sealed was within a limit of ours, perhaps an older and larger one.
const SEALED_OCTETS_MAX: u64 = 1100 * 1024 * 1024;
/// Where that is put which can't be opened, inside the state directory.
pub const DAMAGED: &str = "damaged";
/// Files there; beyond them what can't be opened stays at its edge.
const DAMAGED_MAX: usize = 1000;
/// Octets there; beyond them it does, too. Room for the largest sealed message and some more.
const DAMAGED_OCTETS_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// What fetching needs.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// Where messages go.
    pub router: Router,
    /// Who may have sent them.
    pub accounts: Accounts,
    /// Opens them.
    pub key: Arc<SealKey>,
    /// The state directory.
    pub state: Arc<Path>,
    /// `incoming/` in it.
    pub incoming: Arc<Path>,
    /// Time.
    pub clock: Clock,
    /// Who fetches from which edge now.
    pub turns: Turns,
    /// What edges say they have sealed.
    pub nudges: Nudges,
    /// Once draining begins nothing more is fetched.
    pub work: Arc<Shutdown>,
}

/// Why an entry stays at the edge for now.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The tunnel.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Nothing came.
    #[error("nothing came for {} s", ask::FRAME_WAIT_MAX.as_secs())]
    Stalled,
    /// The edge's disk.
    #[error("the edge can't read it from its disk")]
    Unreadable,
    /// Too much, or too little.
    #[error("{arrived} octets came, {announced} were announced")]
    Count {
        /// By the edge.
        announced: u64,
        /// Here.
        arrived: u64,
    },
    /// Our disk.
    #[error("it can't be held: {0}")]
    Disk(#[from] std::io::Error),
    /// Our disk.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// Not now.
    #[error("it can't be taken now: {0}")]
    Deferred(String),
}

/// What became of one entry of a listing.
enum Item {
    /// It is durable here now.
    Taken,
    /// There was nothing to take: it was here before, or the edge has it no more.
    Known,
}

/// What came of one page.
#[derive(Debug, Default)]
pub struct Step {
    /// Durable here now.
    pub taken: Vec<SpoolItem>,
    /// Was here before, or was gone.
    pub known: usize,
    /// Stays at the edge for now, and why.
    pub failed: Vec<(SpoolItem, String)>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
    /// What the edge held before this.
    pub held: u64,
}

/// How the task of one message ended.
type Fetched = Result<(SpoolItem, Result<Item, FetchError>), JoinError>;

impl Step {
    fn add(&mut self, ended: Option<Fetched>) {
        match ended {
            Some(Ok((item, Ok(Item::Taken)))) => self.taken.push(item),
            Some(Ok((_, Ok(Item::Known)))) => self.known += 1,
            Some(Ok((item, Err(error)))) => self.failed.push((item, error.to_string())),
            Some(Err(error)) => tracing::error!(%error, "fetching a sealed message failed; this is a bug"),
            None => {}
        }
    }
}

/// One at a time for each edge.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    async fn take(&self, edge: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(edge.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// What a sealed message turned out to be.
enum Opened {
    Message(Box<Brought>, Box<(Message, Verdict)>),
    Nothing,
}

#[derive(Debug, Error)]
enum OpenError {
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    #[error("{0}")]
    Intake(IntakeError),
    #[error("it can't be held: {0}")]
    Disk(#[from] std::io::Error),
}

impl From<IntakeError> for OpenError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Disk(error) => Self::Disk(error),
            other => Self::Intake(other),
        }
    }
}

impl Fetcher {
    /// Asks this edge again and again until its session ends or draining begins. What can't be taken now holds up
    /// nothing behind it: every page is looked at before the first is looked at again.
    pub async fn run(self, edge: ConnectedEdge) {
        let mut signal = self.work.signal();
        let mut after = String::new();
        let (sealed, mut rounds) = (self.nudges.of(&edge.name), Rounds::default());
        while edge.session.is_alive() && signal.phase() == Phase::Running {
            let step = self.step(&edge, &after).await;
            if step.as_ref().map_or(true, |step| !step.failed.is_empty()) {
                rounds.failed();
            }
            let pause = match step {
                Ok(Step { next: Some(next), taken, .. }) => {
                    after = next;
                    Pause { at_most: if taken.is_empty() { IDLE_PAUSE } else { Duration::ZERO }, ends_early: false }
                }
                Ok(_) => {
                    after.clear();
                    rounds.over()
                }
                Err(error) => {
                    if edge.session.is_alive() {
                        tracing::warn!(edge = edge.name, %error, "the edge's spool can't be listed");
                    }
                    after.clear();
                    rounds.over()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause.at_most) => {}
                () = sealed.notified(), if pause.ends_early => {}
                _ = edge.session.ended() => return,
                () = signal.draining() => return,
            }
        }
    }

    /// Lists a page, fetches and acknowledges what is in it. One at a time for each edge: whoever comes second
    /// finds what is left.
    pub async fn step(&self, edge: &ConnectedEdge, after: &str) -> Result<Step, FetchError> {
        let _turn = self.turns.take(&edge.name).await;
        // Held to the end: a drain waits for what is on its way.
        let signal = self.work.signal();
        let page = ask::page(edge, after).await?;
        let mut step = Step { held: page.total, ..Step::default() };
        if page.entries.is_empty() {
            return Ok(step);
        }
        tracing::info!(
            edge = edge.name,
            held = page.total,
            octets = page.total_octets,
            "fetching what the edge sealed"
        );
        let count = page.entries.len();
        let (mut running, mut octets) = (JoinSet::<(SpoolItem, Result<Item, FetchError>)>::new(), 0u64);
        for item in page.entries {
            while running.len() == FETCHES_MAX
                || (!running.is_empty() && item.octets > FETCHED_OCTETS_MAX.saturating_sub(octets))
            {
                let ended = running.join_next().await;
                if let Some(Ok((done, _))) = &ended {
                    octets = octets.saturating_sub(done.octets);
                }
                step.add(ended);
            }
            octets = octets.saturating_add(item.octets);
            if signal.phase() > Phase::Running || !edge.session.is_alive() {
                break;
            }
            let (fetcher, edge) = (self.clone(), edge.clone());
            running.spawn(async move {
                let became = fetcher.item(&edge, item.transfer).await;
                if let Err(error) = &became {
                    tracing::warn!(edge = edge.name, transfer = %item.transfer, %error, "a sealed message stays at the edge for now");
                }
                (item, became)
            });
        }
        while let Some(result) = running.join_next().await {
            step.add(Some(result));
        }
        step.next = if ask::has_pages(edge) {
            page.next
        } else {
            // The oldest again, unless they are the same: it is not asked again and again without a pause.
            let all = step.taken.len() + step.known == count;
            (all && !step.taken.is_empty() && page.total > count as u64).then(String::new)
        };
        Ok(step)
    }

    async fn item(&self, edge: &ConnectedEdge, transfer: TransferId) -> Result<Item, FetchError> {
        if self.router.is_kept(edge.key, transfer).await {
            ask::acknowledge(edge, transfer).await?;
            return Ok(Item::Known);
        }
        let Some(sealed) = self.fetch(edge, transfer).await? else { return Ok(Item::Known) };
        self.take(edge, transfer, sealed).await?;
        ask::acknowledge(edge, transfer).await?;
        Ok(Item::Taken)
    }

    /// The sealed bytes; `None` if the edge does not have them any more.
    async fn fetch(&self, edge: &ConnectedEdge, transfer: TransferId) -> Result<Option<Body>, FetchError> {
        let mut stream = edge.session.open(&Request::Spool(SpoolRequest::Fetch(transfer))).await?;
        stream.flush().await?;
        let mut assembly = Assembly::new(Arc::clone(&self.incoming));
        let end: SpoolEnd = loop {
            match ask::within(stream.frame()).await? {
                Frame::Data(data) => assembly.add(data).await?,
                frame @ Frame::Record(_) => break frame.record().map_err(StreamError::from)?,
            }
            if assembly.octets() > SEALED_OCTETS_MAX {
                return Err(FetchError::Count { announced: SEALED_OCTETS_MAX, arrived: assembly.octets() });
            }
        };
        stream.finish().await;
        let arrived = assembly.octets();
        match end {
            SpoolEnd::Whole { octets } if octets == arrived => Ok(Some(assembly.finish().await?)),
            SpoolEnd::Whole { octets } => Err(FetchError::Count { announced: octets, arrived }),
            SpoolEnd::Unknown => Ok(None),
            SpoolEnd::Unreadable => Err(FetchError::Unreadable),
        }
    }

    /// Makes it durable here, one way or another.
    async fn take(&self, edge: &ConnectedEdge, transfer: TransferId, sealed: Body) -> Result<(), FetchError> {
        let taken = match self.open(transfer, sealed.clone()).await {
            Ok(Opened::Nothing) => return Ok(()),
            Ok(Opened::Message(brought, whole)) => {
                // Told before what becomes of it: that is the order it happens in.
                let waited_s = self.clock.unix_s().saturating_sub(brought.open.received_unix_s).max(0);
                let trace = TraceId::from_random(brought.open.trace);
                tracing::info!(%trace, edge = edge.name, %transfer, waited_s, "fetched");
                intake::take_spooled(&self.router, &self.accounts, edge.key, *brought, *whole)
                    .await
                    .map_err(OpenError::from)
            }
            Err(error) => Err(error),
        };
        let why = match taken {
            Ok(Taken::Answered(reply)) if reply.is_positive() => return Ok(()),
            Ok(Taken::Answered(reply)) => return Err(FetchError::Deferred(reply.to_string())),
            Ok(Taken::Nobodys) => "it claims a login that does not exist".to_owned(),
            Err(OpenError::Disk(error)) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        let path = aside(&self.state, &edge.name, transfer);
        tracing::error!(
            edge = edge.name, %transfer, why, path = %path.display(),
            "a sealed message can't be taken; it is set aside"
        );
        let aside = tokio::task::spawn_blocking(move || set_aside(&path, &sealed));
        aside.await.map_err(|error| FetchError::Deferred(error.to_string()))?
    }

    async fn open(&self, transfer: TransferId, sealed: Body) -> Result<Opened, OpenError> {
        let (key, incoming) = (Arc::clone(&self.key), Arc::clone(&self.incoming));
        let runtime = tokio::runtime::Handle::current();
        let opened = tokio::task::spawn_blocking(move || runtime.block_on(open(&key, transfer, &sealed, incoming)));
        opened.await.map_err(std::io::Error::other)?
    }
}

/// Opens a sealed message; runs on a thread that may block.
async fn open(key: &SealKey, transfer: TransferId, sealed: &Body, incoming: Arc<Path>) -> Result<Opened, OpenError> {
    let mut opening = key.open(transfer);
    let mut request: Option<Brought> = None;
    let mut gathering = Gathering::new(incoming, SEALED_OCTETS_MAX);
    let mut end: Option<TransferEnd> = None;
    for chunk in sealed.chunks() {
        opening.add(&chunk?);
        while let Some(frame) = opening.frame()? {
            match (frame, &request, &end) {
                (frame @ Frame::Record(_), None, _) => {
                    let brought = Brought::of(frame.record().map_err(UnsealError::from)?)?;
                    if brought.open.transfer != transfer {
                        return Err(UnsealError::OtherTransfer { found: brought.open.transfer }.into());
                    }
                    request = Some(brought);
                }
                (Frame::Data(data), Some(_), None) => gathering.add(data).await?,
                (frame @ Frame::Record(_), Some(_), None) => end = Some(frame.record().map_err(UnsealError::from)?),
                _ => return Err(IntakeError::NoMessage.into()),
            }
        }
    }
    opening.end()?;
    let (Some(request), Some(end)) = (request, end) else { return Err(IntakeError::NoMessage.into()) };
    match gathering.end(end).await? {
        Gathered::Whole(message, verdict) => Ok(Opened::Message(Box::new(request), Box::new((message, verdict)))),
        // An edge seals nothing that was taken back; if it did, nobody was promised anything.
        Gathered::Aborted => Ok(Opened::Nothing),
        Gathered::TooBig => Err(IntakeError::NoMessage.into()),
    }
}

/// Where a message of this edge lies here if it could not be opened.
fn aside(state: &Path, edge: &str, transfer: TransferId) -> PathBuf {
    state.join(DAMAGED).join(format!("{edge}-{transfer}.sealed"))
}

/// Removes, for good, what was set aside here of this message; false if nothing was. Blocking.
pub fn drop_aside(state: &Path, edge: &str, transfer: TransferId) -> Result<bool, DurableError> {
    let path = aside(state, edge, transfer);
    let existed = path.exists();
    durable::remove(&path)?;
    Ok(existed)
}

/// Durable when it returns. Done before by an earlier try: then it is simply written again.
fn set_aside(path: &Path, sealed: &Body) -> Result<(), FetchError> {
    let folder = path.parent().unwrap_or(path);
    durable::create_directory(folder)?;
    let (mut files, mut octets) = (0, sealed.octets());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path() != path {
            // Others are set aside meanwhile: one that has just got its real name is gone under the other.
            let found = entry.metadata().map_or(0, |metadata| metadata.len());
            (files, octets) = (files + 1, octets.saturating_add(found));
        }
    }
    if files >= DAMAGED_MAX || octets > DAMAGED_OCTETS_MAX {
        return Err(FetchError::Deferred(format!("{} is full: look at it, and empty it", folder.display())));
    }
    let temporary = path.with_extension(format!("sealed{}", durable::DRAFT_SUFFIX));
    durable::remove(&temporary)?;
    let mut draft = Draft::create(&temporary)?;
    for chunk in sealed.chunks() {
        draft.write(&chunk?)?;
    }
    draft.sync()?;
    draft.rename(path)?;
    durable::sync_directory(folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, n: usize, octets: u64) -> Result<(), FetchError> {
        let sealed = Body::from(vec![1; usize::try_from(octets).expect("small")]);
        set_aside(&folder.join(format!("vps1-{n}.sealed")), &sealed)
    }

    #[test]
    fn many_are_set_aside_at_once() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join(DAMAGED);
        let one = |n: usize| (0..40).try_for_each(|k| put(&folder, n * 100 + k, 10));
        let all = std::thread::scope(|scope| {
            let running: Vec<_> = (0..FETCHES_MAX)
                .map(|n| {
                    scope.spawn({
                        let one = &one;
                        move || one(n)
                    })
                })
                .collect();
            running.into_iter().all(|thread| thread.join().is_ok_and(|ended| ended.is_ok()))
        });
        assert!(all);
        assert_eq!(std::fs::read_dir(&folder).expect("there").count(), FETCHES_MAX * 40);
    }

    #[test]
    fn what_is_set_aside_is_bounded_in_count_and_octets_and_a_repeat_always_has_its_place() {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join(DAMAGED);
        put(&folder, 0, 10).expect("room");
        // Its octets are counted, not stored.
        let large = std::fs::File::create(folder.join("vps1-1.sealed")).expect("made");
        large.set_len(DAMAGED_OCTETS_MAX - 20).expect("sparse");
        put(&folder, 0, 10).expect("in its own place");
        put(&folder, 2, 10).expect("just enough room");
        assert!(matches!(put(&folder, 3, 1), Err(FetchError::Deferred(why)) if why.contains("full")));
        large.set_len(0).expect("emptied");
        for n in 3..DAMAGED_MAX {
            std::fs::write(folder.join(format!("vps1-{n}.sealed")), b"").expect("written");
        }
        assert!(matches!(put(&folder, DAMAGED_MAX, 1), Err(FetchError::Deferred(why)) if why.contains("full")));
        put(&folder, 2, 10).expect("in its own place");
    }
}
