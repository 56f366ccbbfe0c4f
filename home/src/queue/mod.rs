//! The outbound queue: durable before 250, retried with backoff, bounced at expiry. What leaves
//! the queue for a local mailbox (a bounce) leaves as an event ([`Bounce`]); the queue knows
//! neither the router nor how edges are dialled.
//!
//! The order at start: [`Queue::open`], then [`Queue::settle`] for every open intent, then
//! [`Queue::run`] (which removes what was written and never committed).

pub mod bounce;
pub mod command;
pub mod config;
pub mod downgrade;
mod entries;
pub mod entry;
pub mod explain;
pub mod floor;
pub mod given_up;
pub mod next_hop;
pub mod pace;
pub mod ready;
mod runner;
pub mod schedule;
mod store;
pub mod summary;
pub mod usual;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::Draft;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Session;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::config::Settings;
use self::downgrade::Downgrade;
use self::entries::Entries;
use self::entry::Entry;
use self::given_up::GivenUp;
use self::next_hop::Routes;
use self::runner::Runner;
pub use self::store::StoreError;
use crate::database::Database;
use crate::delivery::lmtp::{Answer, Servers};
use crate::message::Message;

/// Where files are put that can't be used, inside the state directory.
pub const DAMAGED: &str = "queue/damaged";

/// Names one entry: file names begin with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub [u8; 16]);

impl QueueId {
    /// Parses the printed form, 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        TransferId::parse(text).map(|id| Self(id.0))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A message to be queued.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its name, chosen by the caller, so that a repeat after a crash is recognised.
    pub id: QueueId,
    /// Its trace id.
    pub trace: TraceId,
    /// Remote recipients only.
    pub envelope: Envelope,
    /// The account it came from. `None` for bounces of ours and for what came without a login.
    pub login: Option<String>,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
    /// Why it is not to be sent until its owner releases it.
    pub held: Option<String>,
}

/// An edge that is connected now.
#[derive(Clone)]
pub struct ConnectedEdge {
    /// Its name in the config.
    pub name: String,
    /// Its key.
    pub key: NodeKey,
    /// The session with it.
    pub session: Session,
}

impl fmt::Debug for ConnectedEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectedEdge({})", self.name)
    }
}

/// The edges connected now, in the order they are to be used; every change wakes the queue. Whoever
/// dials the edges holds the sender, and sends the whole list at each connect and loss.
pub type Edges = watch::Receiver<Vec<ConnectedEdge>>;

/// What an event of the queue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A report to the sender.
    Report,
    /// A whole message for mailboxes here that refused it for good: the postmaster gets it.
    Stranded {
        /// It belonged in their Junk.
        is_junk: bool,
    },
    /// A whole message for mailboxes here that are Maildirs by now.
    Reclaimed {
        /// It belongs in their Junk.
        is_junk: bool,
    },
}

/// What is left to do for a mailbox here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What its server, or its disk, said; nothing positive.
    pub answer: Answer,
    /// It belongs in Junk.
    pub is_junk: bool,
}

/// A bounce on its way to a mailbox. The receiver hands it to the router as a message of our own
/// and answers with the router's reply: the queue forgets the recipient only after a positive one.
/// After a crash the same bounce comes again, byte for byte, under the same id.
#[derive(Debug)]
pub struct Bounce {
    /// What it is.
    pub errand: Errand,
    /// Names it, for good: what makes a repeat harmless.
    pub id: TransferId,
    /// Its trace id.
    pub trace: TraceId,
    /// From nobody to the sender.
    pub envelope: Envelope,
    /// The report.
    pub message: Message,
    /// When it was made, seconds since 1970.
    pub made_unix_s: i64,
    /// Where the router's reply goes.
    pub accepted: oneshot::Sender<Reply>,
}

/// A file of the queue that could not be used and now lies in `queue/damaged/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// The queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    entries: Arc<Entries>,
}

/// Written and synced, under temporary names: not yet in the queue. Dropping it forgets it.
#[derive(Debug)]
pub struct Prepared {
    entries: Arc<Entries>,
    entry: Entry,
    draft: Draft,
}

impl Queue {
    /// Reads the rows of this database and the names in `queue/` in the state directory (made if missing), and
    /// takes over what an older build left there. What is damaged is set aside, logged and told; the rest goes
    /// on. An error names what can't be read at all. Blocking.
    pub fn open(
        state: &Path,
        database: Database,
        settings: Settings,
        routes: Routes,
        clock: Clock,
    ) -> Result<(Self, Vec<SetAside>), StoreError> {
        let (entries, set_aside) = Entries::open(state, database, settings, routes, clock)?;
        Ok((Self { entries: Arc::new(entries) }, set_aside))
    }

    /// Takes a changed config; what is under way goes on as it began. Blocking.
    pub fn reload(&self, settings: Settings, routes: Routes) {
        if let Err(error) = self.entries.reload(settings, routes) {
            tracing::error!(%error, "the queue can't be read: what waits goes by the new routes after the next start");
        }
    }

    /// Writes message and entry, synced, under a temporary name. Blocking. A full queue is
    /// [`StoreError::is_full`], as a full disk is.
    pub fn prepare(&self, entry: NewEntry, message: &Message) -> Result<Prepared, StoreError> {
        let (entry, draft) = self.entries.prepare(entry, message, |_| ())?;
        Ok(Prepared { entries: Arc::clone(&self.entries), entry, draft })
    }

    /// The same for mailboxes here whose server did not take the message: this is left of it, one for each recipient. Those that are not final are tried again; what is refused for good goes
    /// to the postmaster, or back to the account it came from. Blocking.
    pub fn prepare_local(&self, entry: NewEntry, left: &[Left], message: &Message) -> Result<Prepared, StoreError> {
        let (rules, now) = (self.entries.rules(), self.entries.now_unix_ms());
        let answers: Vec<Answer> = left.iter().map(|left| left.answer.clone()).collect();
        let (entry, draft) = self.entries.prepare(entry, message, |entry| {
            entry.local = true;
            for (addressee, left) in entry.recipients.iter_mut().zip(left) {
                addressee.is_junk = left.is_junk;
            }
            rules.schedule.begun_elsewhere(entry, &answers, now, u16::from_be_bytes(random::bytes()));
        })?;
        Ok(Prepared { entries: Arc::clone(&self.entries), entry, draft })
    }

    /// Settling after a crash: finishes an entry that was prepared (its files are whole) or tells that it is
    /// already queued or done. `false`: nothing of it exists. Blocking.
    pub fn settle(&self, id: QueueId) -> Result<bool, StoreError> {
        self.entries.settle(id)
    }

    /// Makes the temporary names of what was prepared durable: they are found, and can be settled, after a
    /// crash. Blocking.
    pub fn sync_prepared(&self) -> Result<(), StoreError> {
        Ok(self.entries.store().sync()?)
    }

    /// True if this was committed, even if it is done by now.
    pub fn has(&self, id: QueueId) -> bool {
        self.entries.has(id)
    }

    /// Removes what a commit that failed left: nobody was told that it is here. Blocking.
    pub fn withdraw(&self, id: QueueId) -> Result<(), StoreError> {
        self.entries.store().remove(id)
    }

    /// Sends what is due, until draining begins; then finishes what runs. Call it once, after every
    /// open intent was settled.
    pub async fn run(
        self,
        edges: Edges,
        bounces: mpsc::Sender<Bounce>,
        resolver: Resolver,
        servers: Servers,
        signal: Signal,
    ) {
        let watch = Arc::clone(&self.entries.watch);
        tokio::spawn(Arc::clone(&watch).keep_up(signal.clone()));
        Runner::new(self.entries, edges, bounces, resolver, servers).run(signal).await;
        if tokio::task::spawn_blocking(move || watch.keep()).await.is_err() {
            tracing::error!("writing down how secure mail usually is failed; this is a bug");
        }
    }

    /// What the control socket was asked under the key `queue` (`{"queue": …}`): the value beneath it in, the
    /// answer out. An error is a text for people.
    pub async fn control(&self, request: serde_json::Value) -> Result<serde_json::Value, String> {
        let command = serde_json::from_value(request).map_err(|error| format!("not a queue command: {error}"))?;
        let entries = Arc::clone(&self.entries);
        tokio::task::spawn_blocking(move || command::perform(&entries, command))
            .await
            .map_err(|_| "the command failed inside; the log has more".to_owned())?
    }

    /// The same without a runtime, for commands while nothing runs. Blocking.
    pub fn command(&self, command: command::Command) -> Result<serde_json::Value, String> {
        command::perform(&self.entries, command)
    }

    /// Recipients that are given up from now on because their time is over.
    pub fn given_up(&self) -> broadcast::Receiver<GivenUp> {
        self.entries.given_up.listen()
    }

    /// Domains that get mail less securely than is usual, from now on.
    pub fn downgrades(&self) -> broadcast::Receiver<Downgrade> {
        self.entries.watch.listen()
    }

    /// How many of those that wait are for mailboxes here.
    pub fn waiting_local(&self) -> usize {
        self.entries.waiting_local()
    }

    /// What waits, in a few numbers. Blocking, briefly.
    pub fn summary(&self) -> summary::Summary {
        self.entries.summary()
    }

    /// How many messages wait (held ones included).
    pub fn waiting(&self) -> usize {
        self.entries.waiting()
    }
}

impl Prepared {
    /// Gives the file its name, syncs the directory, writes the row, wakes the runner. If it fails, the file stays
    /// under whichever name it has: for [`Queue::settle`] or [`Queue::withdraw`]. Blocking.
    pub fn commit(self) -> Result<(), StoreError> {
        self.entries.commit(self.entry, self.draft)
    }
}

#[cfg(test)]
pub mod tests;
