//! How long a home has been away: counted by the time that passes while the edge runs, so that no clock that jumps
//! can stretch it or hide it, and kept over restarts. Time for which the edge itself was off is not counted: it took
//! nothing then.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_runtime::durable::{self, DurableError};
use tracing::error;

/// What the file begins with; the seconds follow.
const HEAD: &str = "away_s ";
/// Absence is written down when it has grown by this much: what a crash may take off it.
pub const KEEP_EVERY: Duration = Duration::from_mins(10);

/// One home's absence.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    state: Mutex<State>,
    // Held while the file is written, so that the last word stays.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Absence before `since`.
    counted: Duration,
    /// Since when it is away; `None` while it is here.
    since: Option<Instant>,
    /// What the file says.
    kept: Duration,
}

impl Presence {
    /// Opens `folder/name`: away since `now`, and for as long before as the file says. Blocking.
    pub fn open(folder: &Path, name: &str, now: Instant) -> Result<Self, DurableError> {
        durable::create_directory(folder)?;
        let path = folder.join(name);
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                error!(path = %path.display(), "how long the home was away can't be read; counted from now on");
                Duration::ZERO
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Duration::ZERO,
            Err(source) => return Err(DurableError { action: "read", path, source }),
        };
        let state = State { counted: kept, since: Some(now), kept };
        Ok(Self { path, state: Mutex::new(state), writing: Mutex::default() })
    }

    /// It is here.
    pub fn come(&self) {
        let mut state = self.state();
        state.counted = Duration::ZERO;
        state.since = None;
    }

    /// It is gone.
    pub fn leave(&self, now: Instant) {
        self.state().since.get_or_insert(now);
    }

    /// How long it has been away; nothing while it is here.
    pub fn away(&self, now: Instant) -> Duration {
        self.state().away(now)
    }

    /// Writes down what is to outlive a restart, if it has grown enough or is over. Blocking.
    pub fn keep(&self, now: Instant) -> Result<(), DurableError> {
        self.keep_beyond(now, KEEP_EVERY)
    }

    /// The same at the end of the program: whatever it has grown by. Blocking.
    pub fn keep_all(&self, now: Instant) -> Result<(), DurableError> {
        self.keep_beyond(now, Duration::from_secs(1))
    }

    fn keep_beyond(&self, now: Instant, growth: Duration) -> Result<(), DurableError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (away, kept) = {
            let state = self.state();
            (state.away(now), state.kept)
        };
        if away.checked_sub(kept).is_some_and(|grown| grown < growth) {
            return Ok(());
        }
        durable::write_file(&self.path, format!("{HEAD}{}\n", away.as_secs()).as_bytes())?;
        self.state().kept = away;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn away(&self, now: Instant) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

fn parse(text: &str) -> Option<Duration> {
    text.trim_end().strip_prefix(HEAD)?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn absence_is_counted_over_restarts_and_ends_when_the_home_comes() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        clock.turn(20 * DAY);
        assert_eq!(presence.away(clock.now()), 20 * DAY);
        presence.keep(clock.now()).expect("kept");
        // A crash: what came after the last note is forgotten.
        clock.turn(Duration::from_mins(9));
        presence.keep(clock.now()).expect("too little to note");
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        assert_eq!(presence.away(clock.now()), 20 * DAY);
        clock.turn(DAY);
        presence.keep_all(clock.now()).expect("kept");
        presence.come();
        assert_eq!(presence.away(clock.now()), Duration::ZERO);
        clock.turn(DAY);
        assert_eq!(presence.away(clock.now()), Duration::ZERO);
        presence.keep(clock.now()).expect("kept");
        presence.leave(clock.now());
        clock.turn(DAY);
        presence.leave(clock.now());
        assert_eq!(presence.away(clock.now()), DAY);
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        assert_eq!(presence.away(clock.now()), Duration::ZERO, "that it came was noted before");
    }

    #[test]
    fn a_clock_that_jumps_neither_stretches_nor_hides_absence() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000_000));
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        clock.turn(DAY);
        clock.jump(Duration::from_secs(2_000_000_000));
        assert_eq!(presence.away(clock.now()), DAY);
        presence.keep(clock.now()).expect("kept");
        clock.jump(Duration::from_secs(1000));
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        clock.turn(DAY);
        assert_eq!(presence.away(clock.now()), 2 * DAY);
    }

    #[test]
    fn nothing_is_written_while_the_home_is_here() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("opened");
        presence.come();
        for _ in 0..100 {
            clock.turn(DAY);
            presence.keep(clock.now()).expect("nothing to keep");
        }
        assert!(!folder.path().join("cottage").exists());
        std::fs::write(folder.path().join("cottage"), "away_s oops\n").expect("written");
        let presence = Presence::open(folder.path(), "cottage", clock.now()).expect("no obstacle");
        assert_eq!(presence.away(clock.now()), Duration::ZERO);
    }
}
