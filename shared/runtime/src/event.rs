//! Events: the log line is the event. A layer beside the one that prints captures what our code says at
//! `info` and above about a message (it has a `trace` field), and the few named things without one. It has
//! a filter of its own, never waits, and counts what found no room.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatepost_protocol::mail::received::TraceId;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tracing::field::{Field, Visit};
use tracing::{Event as Said, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, Filtered, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;

/// Events that wait for whoever keeps them; more are lost, and counted.
pub const WAITING_MAX: usize = 8192;
/// Facts of one event.
pub const FACTS_MAX: usize = 24;
/// Octets of one fact; longer ones are cut.
pub const FACT_OCTETS_MAX: usize = 512;
/// The field that says which message an event is about.
const TRACE: &str = "trace";
/// The field in which `tracing` puts the words of a line.
const MESSAGE: &str = "message";
/// What the targets of our own code begin with.
const OURS: &str = "gatepost";

/// One thing that happened, as its log line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The message it is about.
    pub trace: Option<TraceId>,
    /// The words of the line.
    pub what: String,
    /// Its fields by name, in the order of the line.
    pub facts: Vec<(&'static str, String)>,
}

impl Event {
    /// A fact by its name.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// That so many events found no room: told like any other, so that a story with a hole says so.
    pub fn lost(at_unix_ms: i64, count: u64) -> Self {
        Self { at_unix_ms, trace: None, what: LOST.to_owned(), facts: vec![("count", count.to_string())] }
    }
}

/// The words of [`Event::lost`].
pub const LOST: &str = "events were lost: too many at once";

/// The events of this program, for whoever keeps them.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// The next one; `None` once the program says nothing more.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// All that wait, appended to `into`; false once there will be no more.
    pub fn take(&mut self, into: &mut Vec<Event>) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => into.push(event),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// How many were lost since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// The layer. `named` are the words of lines that are events although no message is named in them.
#[derive(Debug)]
pub struct Capture {
    sender: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
    named: &'static [&'static str],
    clock: Clock,
}

/// The layer with its filter.
pub type Capturing<S> = Filtered<Capture, FilterFn<fn(&Metadata<'_>) -> bool>, S>;

/// A capturing layer with its own filter, and where its events come out.
pub fn capture<S: Subscriber + for<'a> LookupSpan<'a>>(
    named: &'static [&'static str],
    clock: Clock,
) -> (Capturing<S>, Events) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let capture = Capture { sender, lost: Arc::clone(&lost), named, clock };
    let ours: fn(&Metadata<'_>) -> bool = |said| *said.level() <= Level::INFO && said.target().starts_with(OURS);
    // Without the hint every line of every library is put together, and then dropped.
    let ours = filter_fn(ours).with_max_level_hint(Level::INFO);
    (capture.with_filter(ours), Events { receiver, lost })
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, said: &Said<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        if said.metadata().fields().field(TRACE).is_none() {
            let mut words = Words::default();
            said.record(&mut words);
            if !self.named.contains(&words.0.as_str()) {
                return;
            }
        }
        said.record(&mut line);
        let Line { trace, what, facts } = line;
        let at_unix_ms = i64::try_from(self.clock.unix().as_millis()).unwrap_or(i64::MAX);
        if self.sender.try_send(Event { at_unix_ms, trace, what, facts }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Reads the words of a line alone.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0 = bounded(format_args!("{value:?}"));
        }
    }
}

/// Reads a whole line.
#[derive(Default)]
struct Line {
    trace: Option<TraceId>,
    what: String,
    facts: Vec<(&'static str, String)>,
}

impl Line {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            MESSAGE => self.what = bounded(value),
            TRACE => self.trace = TraceId::parse(&bounded(value)),
            name if self.facts.len() < FACTS_MAX => self.facts.push((name, bounded(value))),
            _ => {}
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// As text, cut at its bound, on one line: nothing a stranger wrote moves a terminal's cursor.
fn bounded(value: fmt::Arguments<'_>) -> String {
    let mut text = Bounded(String::new());
    // An error means that the bound was reached.
    let _ = text.write_fmt(value);
    text.0
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = FACT_OCTETS_MAX - self.0.len();
        let (fits, whole) =
            if piece.len() <= room { (piece, true) } else { (&piece[..piece.floor_char_boundary(room)], false) };
        if fits.bytes().any(|octet| octet.is_ascii_control()) || !fits.is_ascii() {
            self.0.extend(fits.chars().map(|c| if c.is_control() { ' ' } else { c }));
            // A control character beyond ASCII takes two octets, a space one: never longer.
        } else {
            self.0.push_str(fits);
        }
        if whole { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const NAMED: &[&str] = &["edge starts"];

    fn captured(say: impl FnOnce()) -> (Vec<Event>, Events) {
        let (layer, mut events) = capture(NAMED, Clock::still(Duration::from_millis(1_795_176_000_123)));
        with_default(tracing_subscriber::registry().with(layer), say);
        let mut found = Vec::new();
        events.take(&mut found);
        (found, events)
    }

    #[test]
    fn a_line_about_a_message_is_an_event_with_all_its_facts() {
        let trace = TraceId::from_random([7; 10]);
        let (found, _) = captured(|| {
            let (absent, present) = (None::<&str>, Some("alice"));
            tracing::info!(%trace, sender = %"a@b.example", octets = 5, absent, login = present, reply = ?"x", "accepted");
        });
        let facts = [("sender", "a@b.example"), ("octets", "5"), ("login", "alice"), ("reply", "\"x\"")]
            .map(|(n, v)| (n, v.to_owned()));
        let event = Event {
            at_unix_ms: 1_795_176_000_123,
            trace: Some(trace),
            what: "accepted".to_owned(),
            facts: facts.to_vec(),
        };
        assert_eq!(found, [event]);
        assert_eq!(found[0].fact("octets"), Some("5"));
        assert_eq!(found[0].fact("nothing"), None);
    }

    #[test]
    fn only_what_is_ours_loud_enough_and_about_a_message_or_named_is_one() {
        let trace = TraceId::from_random([7; 10]);
        let (found, _) = captured(|| {
            tracing::debug!(%trace, "too quiet");
            tracing::warn!("of nothing");
            tracing::info!(target: "yamux", %trace, "not ours");
            tracing::info!(key = 1, "edge starts");
            tracing::error!(%trace, "loud");
        });
        let whats: Vec<&str> = found.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(whats, ["edge starts", "loud"]);
    }

    #[test]
    fn what_strangers_wrote_is_cut_and_can_not_move_a_cursor() {
        let trace = TraceId::from_random([7; 10]);
        let long = "ü".repeat(FACT_OCTETS_MAX);
        let (found, _) = captured(|| tracing::info!(%trace, reply = %"550 no\r\n\x1b[2J\u{9b}", long, "refused"));
        assert_eq!(found[0].fact("reply"), Some("550 no   [2J "));
        assert_eq!(found[0].fact("long").map(str::len), Some(FACT_OCTETS_MAX));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let trace = TraceId::from_random([7; 10]);
        let (found, events) = captured(|| {
            for _ in 0..WAITING_MAX + 3 {
                tracing::info!(%trace, "again");
            }
        });
        assert_eq!(found.len(), WAITING_MAX);
        assert_eq!(events.take_lost(), 3);
        assert_eq!(events.take_lost(), 0);
    }
}
