//! What this edge did, kept for the homes it did it for until they have it: each home's events in a ring of
//! its own, never another's. Events come from the log ([`gatepost_runtime::event`]), are written a few times
//! a second, and leave by the verb `Events`.

pub mod counts;
pub mod ring;
pub mod segment;
pub mod tell;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::verb::events::{WireEvent, WireRefused};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::DurableError;
use gatepost_runtime::event::{Event, Events};
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::warn;

use self::counts::Counts;
use self::ring::Ring;

/// Lines that are events although they name no message.
pub const NAMED: &[&str] = &[
    "edge starts",
    "edge ends",
    "home connected",
    "home disconnected",
    "directory stored",
    "logged in",
    "login failed",
    "config reloaded",
    "config not reloaded",
    "banned",
];
/// Where the rings lie inside the state directory.
const FOLDER: &str = "events";
/// The words of the line that ends a message: what was found about a refused one travels with it.
const ANSWERED: &str = "answered";
/// Refused messages whose line is not written yet; beyond them what was found is lost, and the line stays.
const REFUSED_MAX: usize = 1024;
/// The field that says whose event it is.
const HOME: &str = "home";
/// How long events gather before they are written.
const GATHER: Duration = Duration::from_millis(200);

/// The journals of all homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journals {
    folder: Arc<Path>,
    of_home: Arc<RwLock<HashMap<String, Arc<Journal>>>>,
    refused: Arc<Mutex<HashMap<TraceId, WireRefused>>>,
}

/// The journal of one home.
#[derive(Debug)]
pub struct Journal {
    // The numbering of this run.
    ours: [u8; 16],
    // Held while the disk is asked: never by an async thread.
    ring: Mutex<Ring>,
    waiting: AtomicU64,
    dropped: AtomicU64,
    counts: Counts,
    // Changes after each append.
    grown: watch::Sender<u64>,
}

impl Journals {
    /// Opens the rings of these homes. Blocking.
    pub fn open<'a>(state: &Path, homes: impl Iterator<Item = &'a str>) -> Result<Self, DurableError> {
        let journals = Self { folder: state.join(FOLDER).into(), of_home: Arc::default(), refused: Arc::default() };
        for home in homes {
            journals.add(home)?;
        }
        Ok(journals)
    }

    /// Opens the ring of one more home; does nothing for one that has its own already. Blocking.
    pub fn add(&self, home: &str) -> Result<(), DurableError> {
        if self.of(home).is_some() {
            return Ok(());
        }
        let ours = random::bytes();
        let ring = Ring::open(self.folder.join(home), ours)?;
        let journal = Journal {
            ours,
            waiting: AtomicU64::new(ring.waiting()),
            dropped: AtomicU64::new(0),
            counts: Counts::default(),
            ring: Mutex::new(ring),
            grown: watch::Sender::new(0),
        };
        let mut of_home = self.of_home.write().unwrap_or_else(PoisonError::into_inner);
        of_home.insert(home.to_owned(), Arc::new(journal));
        Ok(())
    }

    /// The journal of a home; `None` for one that was never added.
    pub fn of(&self, home: &str) -> Option<Arc<Journal>> {
        self.of_home.read().unwrap_or_else(PoisonError::into_inner).get(home).cloned()
    }

    /// Whose event it is: the home it names, or the only one there ever was.
    pub fn owner(&self, event: &Event) -> Option<String> {
        let of_home = self.of_home.read().unwrap_or_else(PoisonError::into_inner);
        match event.fact(HOME) {
            Some(name) => of_home.get_key_value(name),
            None if of_home.len() == 1 => of_home.iter().next(),
            None => None,
        }
        .map(|(name, _)| name.clone())
    }

    /// What was found about a message that is refused: goes with the line that is about to be said of it.
    pub fn note_refused(&self, trace: TraceId, refused: WireRefused) {
        let mut waiting = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= REFUSED_MAX {
            // Their lines were lost.
            waiting.clear();
        }
        waiting.insert(trace, refused);
    }

    /// What was noted for the line of this event.
    fn refused(&self, event: &Event) -> Option<Box<WireRefused>> {
        let trace = event.trace.filter(|_| event.what == ANSWERED)?;
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&trace).map(Box::new)
    }

    /// Writes events down, each for its home. Blocking.
    fn append(&self, events: Vec<Event>) {
        let mut of_home: HashMap<String, Vec<WireEvent>> = HashMap::new();
        for event in events {
            let refused = self.refused(&event);
            if let Some(owner) = self.owner(&event) {
                if let Some(journal) = self.of(&owner) {
                    journal.counts.count(&event);
                }
                of_home.entry(owner).or_default().push(wire(event, refused));
            }
        }
        for (home, events) in of_home {
            let Some(journal) = self.of(&home) else { continue };
            let count = events.len();
            if let Err(error) = journal.with(|ring| ring.append(events)) {
                // This line names no message, so that it can't become an event itself and turn in circles.
                warn!(count, %error, "events for a home can't be kept");
            }
            journal.grown.send_modify(|times| *times += 1);
        }
    }
}

impl Journal {
    /// What its events add up to.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Events that wait for their home, at most.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Events that made room for newer ones before their home had them, in this run.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Blocking.
    fn with<T>(&self, work: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut ring);
        self.waiting.store(ring.waiting(), Ordering::Relaxed);
        self.dropped.store(ring.dropped(), Ordering::Relaxed);
        done
    }
}

/// Keeps what the program says until the signal ends it; what was said before that is kept, too.
pub async fn keep(mut events: Events, journals: Journals, clock: Clock, mut signal: Signal) {
    let mut open = true;
    while open {
        let first = tokio::select! {
            first = events.next() => first,
            () = signal.ended() => None,
        };
        open = first.is_some();
        if open {
            tokio::select! {
                () = clock.sleep(GATHER) => {}
                () = signal.ended() => open = false,
            }
        }
        let mut batch: Vec<Event> = first.into_iter().collect();
        events.take(&mut batch);
        let lost = events.take_lost();
        if lost > 0 {
            let at = i64::try_from(clock.unix().as_millis()).unwrap_or(i64::MAX);
            batch.push(Event::lost(at, lost));
        }
        if batch.is_empty() {
            continue;
        }
        let journals = journals.clone();
        // A task that fails is the program's end.
        let _ = spawn_blocking(move || journals.append(batch)).await;
    }
}

fn wire(event: Event, refused: Option<Box<WireRefused>>) -> WireEvent {
    WireEvent {
        number: 0,
        at_unix_ms: event.at_unix_ms,
        trace: event.trace.map(TraceId::to_bytes),
        what: event.what,
        facts: event.facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(home: Option<&'static str>) -> Event {
        let facts = home.map(|home| (HOME, home.to_owned())).into_iter().collect();
        Event { at_unix_ms: 1, trace: None, what: "accepted".to_owned(), facts }
    }

    #[test]
    fn a_home_hears_of_its_own_events_and_of_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        let journals = Journals::open(state.path(), ["one", "two"].into_iter()).unwrap();
        journals.append(vec![
            event(Some("one")),
            event(Some("two")),
            event(Some("two")),
            event(None),
            event(Some("three")),
        ]);
        assert_eq!(journals.of("one").map(|journal| journal.waiting()), Some(1));
        assert_eq!(journals.of("two").map(|journal| journal.waiting()), Some(2));
    }

    #[test]
    fn what_was_found_about_a_refused_message_goes_with_its_line_once() {
        let state = tempfile::tempdir().unwrap();
        let journals = Journals::open(state.path(), std::iter::once("one")).unwrap();
        let refused = WireRefused {
            client: [192, 0, 2, 1].into(),
            sender: "example.com".to_owned(),
            findings: (&gatepost_protocol::mail::verdict::Verdict::default()).into(),
        };
        let (one, other) = (TraceId::from_random([1; 10]), TraceId::from_random([2; 10]));
        journals.note_refused(one, refused.clone());
        let said = |trace, what: &str| Event { trace: Some(trace), what: what.to_owned(), ..event(None) };
        journals.append(vec![said(one, "struck"), said(other, ANSWERED), said(one, ANSWERED), said(one, ANSWERED)]);
        let journal = journals.of("one").unwrap();
        let events = journal.with(|ring| ring.read(journal.ours, 0)).unwrap();
        let told: Vec<_> = events.into_iter().map(|event| event.refused.map(|refused| *refused)).collect();
        assert_eq!(told, [None, None, Some(refused), None]);
    }

    #[test]
    fn what_concerns_nobody_in_particular_is_told_to_an_only_home() {
        let state = tempfile::tempdir().unwrap();
        let journals = Journals::open(state.path(), std::iter::once("one")).unwrap();
        journals.append(vec![event(None), event(Some("two"))]);
        assert_eq!(journals.of("one").map(|journal| journal.waiting()), Some(1));
    }
}
