//! Performs what the schedule asks: one loop that finds what is due and starts a task for each
//! attempt, question and bounce, within the bounds. Knows no timing rule of its own.

mod attempt;
mod body;
mod direct;
mod inquiry;
mod local;
mod look;
mod notice;
mod relay;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::smtp::client::reuse::ReuseLimits;
use gatepost_protocol::tunnel::verb::relay::AttemptId;
use gatepost_runtime::attempt::pool::Pool;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::{Phase, Signal};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::entries::Entries;
use super::entry::{Entry, Final, Place};
use super::next_hop::Via;
use super::pace::Ending;
use super::ready::Lane;
use super::{Bounce, ConnectedEdge, Edges, QueueId};
use crate::delivery::lmtp::Servers;

/// Longest sleep of the loop, and between two tries to write.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Shortest.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often finished entries and idle destinations are forgotten.
const HOUSEKEEPING: Duration = Duration::from_mins(1);
/// Entries looked at by one task.
const LOOKS_MAX: usize = 256;
/// Entries filed before the loop turns to what has ended.
const FILED_MAX: usize = 4096;
/// Attempts to be forgotten by edges that are away, at most; more would be of no harm, only of size.
const OWED_MAX: usize = 10_000;

/// The loop.
pub struct Runner {
    context: Arc<Context>,
    edges: Edges,
    tasks: JoinSet<()>,
    working: HashMap<Id, Working>,
    tellings: mpsc::UnboundedReceiver<(Id, Told)>,
    connected: BTreeSet<NodeKey>,
}

/// What a task works at, until it has told how that ended.
struct Working {
    lane: Arc<Lane>,
    id: QueueId,
    told: bool,
    // A question for this edge, which was not there when it began.
    unasked: Option<NodeKey>,
}

/// How a task's work ended, as far as its lane is concerned.
#[derive(Debug)]
pub struct Told {
    /// What it says of the destination.
    ending: Ending,
    /// What was heard there.
    last: Option<Final>,
    /// Who takes the destination's mail.
    receiver: Option<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self { ending: Ending::Unknown, last: None, receiver: None }
    }
}

/// What every task needs.
pub struct Context {
    entries: Arc<Entries>,
    bounces: mpsc::Sender<Bounce>,
    resolver: Resolver,
    // Connections straight to hosts the owner named.
    pool: Pool,
    servers: Servers,
    started_unix_ms: i64,
    // A task tells as soon as its lane may go on; it may have more to do. As many as tasks: bounded by them.
    tell: mpsc::UnboundedSender<(Id, Told)>,
    // Ended attempts that an edge was not yet told to forget.
    owed: Mutex<Vec<(NodeKey, AttemptId)>>,
}

impl Runner {
    /// Nothing is sent before [`Runner::run`].
    pub fn new(
        entries: Arc<Entries>,
        edges: Edges,
        bounces: mpsc::Sender<Bounce>,
        resolver: Resolver,
        servers: Servers,
    ) -> Self {
        let (tell, tellings) = mpsc::unbounded_channel();
        let started_unix_ms = entries.now_unix_ms();
        let (owed, pool) = (Mutex::default(), Pool::new(ReuseLimits::default(), entries.clock().clone()));
        Self {
            context: Arc::new(Context { entries, bounces, resolver, pool, servers, started_unix_ms, tell, owed }),
            edges,
            tasks: JoinSet::new(),
            working: HashMap::new(),
            tellings,
            connected: BTreeSet::new(),
        }
    }

    /// Until draining begins and what runs has ended, or everything is dropped.
    pub async fn run(mut self, mut signal: Signal) {
        self.context.blocking(Entries::sweep_unfinished).await;
        let servers = self.context.servers.clone();
        self.context.blocking(move |entries| entries.know_servers(servers)).await;
        let mailboxes = self.context.servers.clone();
        let clock = self.context.entries.clock().clone();
        let mut house_kept = clock.now();
        let mut edges_told = true;
        self.edges_changed();
        loop {
            let now = clock.now();
            if now >= house_kept + HOUSEKEEPING {
                house_kept = now;
                let context = Arc::clone(&self.context);
                self.tasks.spawn(async move { context.blocking(Entries::sweep).await });
            }
            self.file();
            self.begin();
            let pause = self.context.entries.next_due().map_or(PAUSE_MAX, |due| due.clamp(PAUSE_MIN, PAUSE_MAX));
            let entries = Arc::clone(&self.context.entries);
            tokio::select! {
                Some((task, told)) = self.tellings.recv() => self.told(task, told),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                () = entries.changed.notified() => {}
                () = mailboxes.back() => self.servers_back(),
                changed = self.edges.changed(), if edges_told => {
                    edges_told = changed.is_ok();
                    self.edges_changed();
                }
                () = clock.sleep(pause) => {}
                () = signal.draining() => break,
            }
        }
        loop {
            tokio::select! {
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.ended(ended).await,
                    None => break,
                },
                // What is dropped here is asked about at the next start.
                () = signal.ended() => break,
            }
        }
        if signal.phase() == Phase::Ended {
            self.tasks.shutdown().await;
        }
        self.context.pool.close().await;
    }

    /// Files what is due into its lanes, and looks at what is due for another reason.
    fn file(&mut self) {
        loop {
            let looks = self.context.entries.file_due(FILED_MAX, LOOKS_MAX);
            if looks.is_empty() {
                return;
            }
            let context = Arc::clone(&self.context);
            self.tasks.spawn(async move {
                let started_unix_ms = context.started_unix_ms;
                context
                    .blocking(move |entries| looks.into_iter().for_each(|id| look::at(entries, id, started_unix_ms)))
                    .await;
            });
        }
    }

    /// Starts what may start.
    fn begin(&mut self) {
        let edges: Arc<[ConnectedEdge]> =
            self.edges.borrow().iter().filter(|edge| edge.session.is_alive()).cloned().collect();
        while let Some((lane, id)) = self.context.entries.take(!edges.is_empty()) {
            let context = Arc::clone(&self.context);
            let (up, to) = (Arc::clone(&edges), Arc::clone(&lane));
            let task = self.tasks.spawn(async move {
                match &*to {
                    Lane::Bounce => notice::hand_over(&context, id).await,
                    Lane::Ask(place) => {
                        let edge = up.iter().find(|edge| Some(edge.key) == *place).cloned();
                        inquiry::ask(&context, id, *place, edge).await;
                    }
                    Lane::Hop { via: Via::Edge, .. } => relay::attempt(&context, id, &to, &up).await,
                    Lane::Hop { via: Via::Home, .. } => direct::attempt(&context, id, &to).await,
                    Lane::Mailboxes(Some(server)) => local::attempt(&context, id, server).await,
                    Lane::Mailboxes(None) => local::reclaim(&context, id).await,
                }
            });
            let unasked = match *lane {
                Lane::Ask(Some(key)) if edges.iter().all(|edge| edge.key != key) => Some(key),
                _ => None,
            };
            self.working.insert(task.id(), Working { lane, id, told: false, unasked });
        }
    }

    /// A task's lane may go on.
    fn told(&mut self, task: Id, told: Told) {
        if let Some(working) = self.working.get_mut(&task).filter(|working| !working.told) {
            working.told = true;
            let (lane, id) = (Arc::clone(&working.lane), working.id);
            self.lane_goes_on(&lane, id, told);
        }
    }

    fn lane_goes_on(&self, lane: &Arc<Lane>, id: QueueId, told: Told) {
        let entries = &self.context.entries;
        let (limits, now) = (entries.rules().limits(), entries.now_ms());
        let mut ready = entries.ready();
        if let Some(receiver) = &told.receiver {
            ready.is_received_by(lane, receiver);
        }
        ready.ended(lane, id, (told.ending, told.last), limits, now);
    }

    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        // What it told comes before its end.
        while let Ok((task, told)) = self.tellings.try_recv() {
            self.told(task, told);
        }
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some(Working { lane, id, told, unasked }) = self.working.remove(&task) else { return };
        if let Err(error) = ended {
            tracing::error!(queue = %id, %error, "a task of the queue failed: this is a bug of ours");
            self.context.lose_all(id).await;
        }
        if !told {
            self.lane_goes_on(&lane, id, Told::default());
        }
        if let Some(edge) = unasked.filter(|edge| self.connected.contains(edge)) {
            // It came while the question was put off for want of it.
            self.ask_now(vec![id], BTreeSet::from([edge]));
        }
    }

    /// What could not be delivered while a server of mailboxes was in trouble is offered to it now.
    fn servers_back(&mut self) {
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            let servers = context.servers.clone();
            let is_back = move |lane: &Lane| {
                matches!(lane, Lane::Mailboxes(Some(server)) if servers.overcome(server).is_some() && servers.trouble(server).is_none())
            };
            context.blocking(move |entries| entries.hurry_to(is_back)).await;
        });
    }

    /// An edge that is back is asked at once what became of its attempts, and told what to forget.
    fn edges_changed(&mut self) {
        let edges = self.edges.borrow_and_update().clone();
        let now_connected: BTreeSet<NodeKey> = edges.iter().map(|edge| edge.key).collect();
        let fresh: BTreeSet<NodeKey> = now_connected.difference(&self.connected).copied().collect();
        self.connected = now_connected;
        if fresh.is_empty() {
            return;
        }
        let is_asked = |place: &Place| matches!(place, Place::Edge { key, .. } if fresh.contains(key));
        // Of those that are not in memory the first look asks anyway.
        let asked: Vec<QueueId> = self
            .context
            .entries
            .pinned()
            .iter()
            .filter(|entry| entry.attempts.iter().any(|attempt| is_asked(&attempt.place)))
            .map(|entry| entry.id)
            .collect();
        self.ask_now(asked, fresh);
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            for edge in edges {
                inquiry::forget_owed(&context, &edge).await;
            }
        });
    }

    /// What was put off while these edges were away is asked of them at once.
    fn ask_now(&mut self, ids: Vec<QueueId>, edges: BTreeSet<NodeKey>) {
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            let sooner = move |entries: &Entries| {
                let now = entries.now_unix_ms();
                for id in ids {
                    entries.touch(id, |entry| {
                        for attempt in &mut entry.attempts {
                            let here = matches!(&attempt.place, Place::Edge { key, .. } if edges.contains(key));
                            if here && let Some(at) = &mut attempt.ask_unix_ms {
                                *at = now.min(*at);
                            }
                        }
                    });
                }
            };
            context.blocking(sooner).await;
        });
    }
}

impl Context {
    /// The lane of the task that calls may go on: what is left to do is of no concern to it.
    fn tell(&self, told: Told) {
        if let Some(task) = tokio::task::try_id() {
            // Without the loop nobody waits for a lane.
            let _ = self.tell.send((task, told));
        }
    }

    /// Runs something that blocks off the async threads.
    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce(&Entries) -> R + Send + 'static) -> R {
        let entries = Arc::clone(&self.entries);
        match tokio::task::spawn_blocking(move || work(&entries)).await {
            Ok(result) => result,
            // Only a panic ends it otherwise (the runtime does not end before us): ours, go on with it.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Changes an entry, durably, however long the disk refuses: what has happened in the world can't be
    /// taken back, so until it is on disk the attempt stays open and nothing of it is tried again.
    async fn record<R: Send + 'static>(
        &self,
        id: QueueId,
        change: impl Fn(&mut Entry, i64) -> R + Send + Sync + 'static,
    ) -> Option<R> {
        let change = Arc::new(change);
        let mut pause = Duration::from_secs(1);
        loop {
            let once = Arc::clone(&change);
            let recorded = self
                .blocking(move |entries| {
                    let now = entries.now_unix_ms();
                    entries.update(id, |entry| once(entry, now))
                })
                .await;
            match recorded {
                Ok(result) => return result,
                Err(error) => tracing::error!(queue = %id, %error, "the queue can't write; trying again"),
            }
            self.entries.clock().sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Nobody follows this entry's attempts any more.
    async fn lose_all(&self, id: QueueId) {
        let schedule = self.entries.rules().schedule.clone();
        self.record(id, move |entry, now| {
            let open: Vec<AttemptId> = entry
                .attempts
                .iter()
                .filter(|attempt| attempt.ask_unix_ms.is_none())
                .map(|attempt| attempt.id)
                .collect();
            for attempt in open {
                schedule.lost(entry, attempt, now);
            }
        })
        .await;
    }

    fn owe(&self, edge: NodeKey, attempt: AttemptId) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.len() < OWED_MAX {
            owed.push((edge, attempt));
        }
    }

    fn take_owed(&self, edge: NodeKey) -> Vec<AttemptId> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, rest) = owed.drain(..).partition(|(key, _)| *key == edge);
        *owed = rest;
        let due: Vec<(NodeKey, AttemptId)> = due;
        due.into_iter().map(|(_, attempt)| attempt).collect()
    }
}

fn jitter() -> u16 {
    u16::from_be_bytes(random::bytes())
}

#[cfg(test)]
mod tests;
