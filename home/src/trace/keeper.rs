//! Keeps events: a thread of its own writes, so that nobody ever waits for it but an edge that wants to
//! forget. Our own gather for half a second; whatever waits is committed together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::events::WireEvent;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::event::{Event, Events};
use gatepost_runtime::shutdown::Signal;
use tokio::sync::{mpsc, oneshot};

use super::Rules;
use super::store::{self, Store};

/// How long our own events gather before they are written.
const GATHER: Duration = Duration::from_millis(500);
/// A line that is older than this was written by a wrong date: lines wait for seconds.
const BEHIND_MAX_MS: i64 = 3_600_000;
/// Orders that wait for the thread: a batch of ours or of an edge each.
const ORDERS_MAX: usize = 64;
/// Orders of one commit.
const GROUP_MAX: usize = 16;
/// Commits between two looks for what is too old or too much.
const PRUNE_EVERY: u32 = 64;
/// Who may wait for what was said to be kept.
const FLUSHES_MAX: usize = 8;
/// Stack of the thread, in octets.
const STACK_OCTETS: usize = 256 * 1024;

enum Order {
    Own(Vec<Event>),
    Told { edge: String, journal: [u8; 16], events: Vec<WireEvent>, held: oneshot::Sender<Option<u64>> },
    Last { edge: String, journal: [u8; 16], held: oneshot::Sender<Option<u64>> },
    Flush(oneshot::Sender<()>),
}

/// Where events are kept. Cheap to clone; the thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct Traces {
    orders: SyncSender<Order>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    well: Arc<AtomicBool>,
    rules: Arc<Mutex<Rules>>,
}

/// What the collecting task works with.
#[derive(Debug)]
pub struct Collector {
    orders: SyncSender<Order>,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Traces {
    /// Starts the thread; it opens, or makes, `trace.db` in this state directory with its first work.
    pub fn start(state: PathBuf, rules: Rules, clock: Clock) -> std::io::Result<(Self, Collector)> {
        let (orders, work) = sync_channel(ORDERS_MAX);
        let (flushes, asked) = mpsc::channel(FLUSHES_MAX);
        let (well, rules) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(rules)));
        let (told, followed) = (Arc::clone(&well), Arc::clone(&rules));
        let keeper = Keeper { state, rules: followed, clock, store: None, well: told, commits: 0 };
        thread::Builder::new().name("trace".to_owned()).stack_size(STACK_OCTETS).spawn(move || keeper.run(&work))?;
        let collector = Collector { orders: orders.clone(), flushes: asked };
        Ok((Self { orders, flushes, well, rules }, collector))
    }

    /// So much is kept from the next pruning on.
    pub fn reload(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Keeps what an edge told. The number of the last event held, once that is durable; `None` if it can't be
    /// kept now.
    pub async fn keep_told(&self, edge: &str, journal: [u8; 16], events: Vec<WireEvent>) -> Option<u64> {
        self.ask(|held| Order::Told { edge: edge.to_owned(), journal, events, held }).await
    }

    /// The number of the last event held of this journal; `None` if that can't be known now.
    pub async fn last(&self, edge: &str, journal: [u8; 16]) -> Option<u64> {
        self.ask(|held| Order::Last { edge: edge.to_owned(), journal, held }).await
    }

    /// Whether events could be kept, last time.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Returns when everything said so far is kept, or can't be.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        if self.flushes.send(done).await.is_ok() {
            // A collector that ended has kept what there was.
            let _ = waiting.await;
        }
    }

    async fn ask(&self, order: impl FnOnce(oneshot::Sender<Option<u64>>) -> Order) -> Option<u64> {
        let (held, answer) = oneshot::channel();
        // A thread that has so much to do does not keep up with its disk: the edge asks again.
        self.orders.try_send(order(held)).ok()?;
        answer.await.ok().flatten()
    }
}

/// Collects what the program says until the signal ends it; what was said before that is kept, too. `seen` sees
/// each event first.
pub async fn collect(
    mut events: Events,
    mut collector: Collector,
    clock: Clock,
    mut signal: Signal,
    mut seen: impl FnMut(&Event) + Send,
) {
    let mut open = true;
    while open {
        let mut flush = None;
        let mut batch = Vec::new();
        tokio::select! {
            first = events.next() => match first {
                Some(first) => batch.push(first),
                None => open = false,
            },
            asked = collector.flushes.recv() => flush = asked,
            () = signal.ended() => open = false,
        }
        if open && flush.is_none() {
            tokio::select! {
                () = clock.sleep(GATHER) => {}
                asked = collector.flushes.recv() => flush = asked,
                () = signal.ended() => open = false,
            }
        }
        events.take(&mut batch);
        batch.iter().for_each(&mut seen);
        date(&mut batch, clock.steady_ms());
        let lost = events.take_lost();
        if lost > 0 {
            let at = clock.unix_ms().max(clock.steady_ms());
            batch.push(Event::lost(at, lost));
        }
        let mut orders = Vec::new();
        if !batch.is_empty() {
            orders.push(Order::Own(batch));
        }
        let (done, waiting) = oneshot::channel();
        let wait = flush.is_some() || !open;
        if wait {
            orders.push(Order::Flush(done));
        }
        for order in orders {
            if !give(&collector.orders, order, &clock).await {
                return;
            }
        }
        if wait {
            let _ = waiting.await;
        }
        if let Some(flush) = flush {
            let _ = flush.send(());
        }
    }
}

/// Waits for room; our own events wait in their channel meanwhile, which counts what it loses.
/// Lines of before the date was known are of now, or the next pruning would take them for old.
fn date(batch: &mut [Event], steady_ms: i64) {
    for event in batch.iter_mut().filter(|event| event.at_unix_ms.saturating_add(BEHIND_MAX_MS) < steady_ms) {
        event.at_unix_ms = steady_ms;
    }
}

async fn give(orders: &SyncSender<Order>, mut order: Order, clock: &Clock) -> bool {
    loop {
        match orders.try_send(order) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) => order = back,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        clock.sleep(GATHER).await;
    }
}

struct Keeper {
    state: PathBuf,
    rules: Arc<Mutex<Rules>>,
    clock: Clock,
    store: Option<Store>,
    // Nothing was wrong last time: trouble is told once.
    well: Arc<AtomicBool>,
    commits: u32,
}

impl Keeper {
    fn run(mut self, work: &Receiver<Order>) {
        while let Ok(first) = work.recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = work.try_recv()
            {
                group.push(next);
            }
            self.perform(group);
        }
    }

    fn perform(&mut self, group: Vec<Order>) {
        let mut kept = self.commit(&group);
        if let Err(error) = &kept
            && store::is_damage(error)
        {
            self.begin_anew(error);
            kept = self.commit(&group);
        }
        let numbers = match kept {
            Ok(numbers) => {
                if !self.well.swap(true, Ordering::Relaxed) {
                    tracing::info!("events are kept again");
                }
                numbers
            }
            Err(error) => {
                if self.well.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%error, "events can't be kept in trace.db; mail is not touched by this");
                }
                self.store = None;
                Vec::new()
            }
        };
        let mut numbers = numbers.into_iter();
        for order in group {
            match order {
                Order::Own(_) => {}
                Order::Told { held, .. } | Order::Last { held, .. } => drop(held.send(numbers.next())),
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    /// One transaction for all of them; the numbers asked for, in order.
    fn commit(&mut self, group: &[Order]) -> rusqlite::Result<Vec<u64>> {
        if group.iter().all(|order| matches!(order, Order::Flush(_))) {
            return Ok(Vec::new());
        }
        // A date that is years ahead by mistake makes nothing old, and one that is years behind nothing early.
        let (date, steady) = (self.clock.unix_ms(), self.clock.steady_ms());
        let (earliest, latest) = (date.min(steady), date.max(steady));
        let rules = *self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        self.commits = self.commits.wrapping_add(1);
        let prune = self.commits % PRUNE_EVERY == 1;
        let store = self.store()?;
        store.begin()?;
        let mut numbers = Vec::new();
        let mut work = || -> rusqlite::Result<()> {
            for order in group {
                match order {
                    Order::Own(events) => store.keep(events)?,
                    Order::Told { edge, journal, events, .. } => {
                        numbers.push(store.keep_told(edge, *journal, events, latest)?);
                    }
                    Order::Last { edge, journal, .. } => numbers.push(store.last(edge, *journal)?),
                    Order::Flush(_) => {}
                }
            }
            if prune {
                while store.prune(rules, earliest)? {}
            }
            store.commit()
        };
        if let Err(error) = work() {
            store.roll_back();
            return Err(error);
        }
        Ok(numbers)
    }

    fn store(&mut self) -> rusqlite::Result<&Store> {
        if self.store.is_none() {
            let opened = Store::open(&self.state);
            let opened = match opened {
                Err(error) if store::is_damage(&error) => {
                    self.begin_anew(&error);
                    Store::open(&self.state)
                }
                other => other,
            };
            self.store = Some(opened?);
        }
        self.store.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }

    fn begin_anew(&mut self, why: &rusqlite::Error) {
        // Closed first: what it still had in its log belongs to the damaged one.
        self.store = None;
        match Store::set_aside(&self.state) {
            Ok(aside) => {
                tracing::error!(%why, aside = %aside.display(), "trace.db is damaged: it was moved aside and begun anew");
            }
            Err(error) => tracing::error!(%why, %error, "trace.db is damaged and can't be moved aside"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_before_the_date_was_known_are_not_old() {
        const NOW: i64 = 1_795_176_000_000;
        let event = |at_unix_ms| Event { at_unix_ms, trace: None, what: "accepted".to_owned(), facts: Vec::new() };
        let mut batch: Vec<Event> = [5, NOW - 1000, NOW, NOW + 1000].map(event).into();
        date(&mut batch, NOW);
        let dates: Vec<i64> = batch.iter().map(|event| event.at_unix_ms).collect();
        assert_eq!(dates, [NOW, NOW - 1000, NOW, NOW + 1000]);
    }
}
