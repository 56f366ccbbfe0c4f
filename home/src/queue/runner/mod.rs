//! Performs what the schedule asks: one loop that finds what is due and starts a task for each
//! attempt, question and bounce, within the bounds. Knows no timing rule of its own.

mod attempt;
mod body;
mod direct;
mod inquiry;
mod local;
mod notice;
mod relay;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::relay::AttemptId;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::{Phase, Signal};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::entries::{Entries, Rules};
use super::entry::{Entry, Place};
use super::next_hop::Via;
use super::ready::{Lane, Ready};
use super::{Bounce, ConnectedEdge, Edges, QueueId, schedule};
use crate::delivery::lmtp::Servers;

/// Longest sleep of the loop, and between two tries to write.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How often finished entries are forgotten and expiry is looked at while no edge is there.
const HOUSEKEEPING: Duration = Duration::from_mins(1);
/// No more than this of an entry's life is spent waiting for a first edge after a start.
const GRACE_MAX: Duration = Duration::from_hours(1);
/// Attempts to be forgotten by edges that are away, at most; more would be of no harm, only of size.
const OWED_MAX: usize = 10_000;

/// The loop.
pub struct Runner {
    context: Arc<Context>,
    edges: Edges,
    ready: Ready,
    tasks: JoinSet<()>,
    working: HashMap<Id, (Lane, QueueId)>,
    connected: BTreeSet<NodeKey>,
    started_unix_ms: i64,
    // The rules that lanes were chosen by.
    rules: Arc<Rules>,
}

/// What every task needs.
pub struct Context {
    entries: Arc<Entries>,
    bounces: mpsc::Sender<Bounce>,
    resolver: Resolver,
    servers: Servers,
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
        Self {
            started_unix_ms: entries.now_unix_ms(),
            rules: entries.rules(),
            context: Arc::new(Context { entries, bounces, resolver, servers, owed: Mutex::default() }),
            edges,
            ready: Ready::default(),
            tasks: JoinSet::new(),
            working: HashMap::new(),
            connected: BTreeSet::new(),
        }
    }

    /// Until draining begins and what runs has ended, or everything is dropped.
    pub async fn run(mut self, mut signal: Signal) {
        self.context.blocking(Entries::sweep_unfinished).await;
        let clock = self.context.entries.clock().clone();
        let mut house_kept = None;
        let mut edges_told = true;
        self.edges_changed();
        loop {
            let now = clock.now();
            if house_kept.is_none_or(|at| now >= at + HOUSEKEEPING) {
                house_kept = Some(now);
                self.keep_house().await;
            }
            self.collect();
            self.begin();
            let pause = self.pause();
            let entries = Arc::clone(&self.context.entries);
            tokio::select! {
                () = entries.changed.notified() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
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
    }

    /// Files what is due into its lanes.
    fn collect(&mut self) {
        let rules = self.context.entries.rules();
        if !Arc::ptr_eq(&rules, &self.rules) {
            // Routes may have changed: what waits is filed anew.
            self.rules = Arc::clone(&rules);
            for id in self.ready.drain(|lane| matches!(lane, Lane::Hop { .. } | Lane::Mailboxes(_))) {
                self.context.entries.reindex(id);
            }
        }
        let now = self.context.entries.now_unix_ms();
        for entry in self.context.entries.take_due(now) {
            for lane in lanes(&entry, &rules, &self.context.servers, now) {
                self.ready.push(lane, entry.id);
            }
        }
    }

    /// Starts what may start.
    fn begin(&mut self) {
        let settings = &self.rules.settings;
        let edges: Vec<ConnectedEdge> =
            self.edges.borrow().iter().filter(|edge| edge.session.is_alive()).cloned().collect();
        let open = |lane: &Lane| !edges.is_empty() || !matches!(lane, Lane::Hop { via: Via::Edge, .. });
        while let Some((lane, id)) = self.ready.take(settings.attempts_max, settings.attempts_per_destination_max, open)
        {
            let context = Arc::clone(&self.context);
            let task = match lane.clone() {
                Lane::Bounce => self.tasks.spawn(async move { notice::hand_over(&context, id).await }),
                Lane::Ask(place) => {
                    let edge = edges.iter().find(|edge| Some(edge.key) == place).cloned();
                    self.tasks.spawn(async move { inquiry::ask(&context, id, place, edge).await })
                }
                lane @ Lane::Hop { via: Via::Edge, .. } => {
                    let edge = choose(&edges, self.context.entries.entry(id).as_deref());
                    self.tasks.spawn(async move {
                        if let Some(edge) = edge {
                            relay::attempt(&context, id, &lane, edge).await;
                        }
                    })
                }
                lane @ Lane::Hop { via: Via::Home, .. } => {
                    self.tasks.spawn(async move { direct::attempt(&context, id, &lane).await })
                }
                Lane::Mailboxes(Some(server)) => {
                    self.tasks.spawn(async move { local::attempt(&context, id, &server).await })
                }
                Lane::Mailboxes(None) => self.tasks.spawn(async move { local::reclaim(&context, id).await }),
            };
            self.working.insert(task.id(), (lane, id));
        }
    }

    async fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some((lane, id)) = self.working.remove(&task) else { return };
        if let Err(error) = ended {
            tracing::error!(queue = %id, %error, "a task of the queue failed: this is a bug of ours");
            self.context.lose_all(id).await;
        }
        self.ready.ended(&lane, id);
        self.context.entries.reindex(id);
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
        let now = self.context.entries.now_unix_ms();
        let asked: Vec<QueueId> = self
            .context
            .entries
            .all()
            .iter()
            .filter(|entry| entry.attempts.iter().any(|attempt| is_asked(&attempt.place)))
            .map(|entry| entry.id)
            .collect();
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            for id in asked {
                let fresh = fresh.clone();
                let sooner = move |entry: &mut Entry| {
                    for attempt in &mut entry.attempts {
                        let here = matches!(&attempt.place, Place::Edge { key, .. } if fresh.contains(key));
                        if here && let Some(at) = &mut attempt.ask_unix_ms {
                            *at = now.min(*at);
                        }
                    }
                };
                context.blocking(move |entries| entries.touch(id, sooner)).await;
            }
            for edge in edges {
                inquiry::forget_owed(&context, &edge).await;
            }
        });
    }

    /// Forgets what finished long ago; gives up, past its time, what no edge was there for.
    async fn keep_house(&mut self) {
        self.context.blocking(Entries::sweep_finished).await;
        let rules = Arc::clone(&self.rules);
        let grace = i64::try_from(GRACE_MAX.min(rules.schedule.expire / 10).as_millis()).unwrap_or(i64::MAX);
        let patient = self.context.entries.now_unix_ms() < self.started_unix_ms.saturating_add(grace);
        if !self.connected.is_empty() || patient {
            return;
        }
        for id in self.ready.drain(|lane| matches!(lane, Lane::Hop { via: Via::Edge, .. })) {
            let rules = Arc::clone(&rules);
            self.context
                .blocking(move |entries| {
                    let now = entries.now_unix_ms();
                    let expired =
                        entries.update(id, |entry| rules.schedule.expire_untried(entry, &Reply::no_edge(), now));
                    if let Err(error) = expired {
                        tracing::error!(queue = %id, %error, "an expired message could not be marked");
                    }
                    entries.reindex(id);
                })
                .await;
        }
    }

    fn pause(&self) -> Duration {
        let now = self.context.entries.now_unix_ms();
        match self.context.entries.next_due() {
            Some(at) => PAUSE_MAX.min(Duration::from_millis(u64::try_from(at - now).unwrap_or(0).max(1))),
            None => PAUSE_MAX,
        }
    }
}

/// The lanes an entry has something to do in, now.
fn lanes(entry: &Entry, rules: &Rules, servers: &Servers, now_unix_ms: i64) -> BTreeSet<Lane> {
    let mut lanes = BTreeSet::new();
    if schedule::bounce_due(entry).is_some_and(|at| at <= now_unix_ms) {
        lanes.insert(Lane::Bounce);
    }
    for attempt in &entry.attempts {
        if attempt.ask_unix_ms.is_some_and(|at| at <= now_unix_ms) {
            lanes.insert(Lane::Ask(match attempt.place {
                Place::Edge { key, .. } => Some(key),
                Place::Home => None,
            }));
        }
    }
    for place in schedule::ready(entry, now_unix_ms) {
        let address = &entry.recipients[place].recipient.address;
        lanes.insert(if entry.local {
            Lane::Mailboxes(servers.keepers().of(&address.lookup_key()).cloned())
        } else {
            rules.routes.hop(address.domain()).lane()
        });
    }
    lanes
}

/// The first edge for a first attempt, then the others in turn: one may reach what another can't.
fn choose(edges: &[ConnectedEdge], entry: Option<&Entry>) -> Option<ConnectedEdge> {
    let attempts = entry
        .map_or(0, |entry| entry.recipients.iter().map(super::entry::Addressee::attempts).max().unwrap_or_default());
    let count = edges.len().max(1);
    edges.get(usize::try_from(attempts).unwrap_or(0) % count).cloned()
}

impl Context {
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
