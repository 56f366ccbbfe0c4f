//! What became of each attempt, on disk: "final dot sent" before it, the outcome after the reply,
//! kept until the home has it. So a home whose tunnel broke asks instead of sending twice.
//!
//! A file for each attempt, `attempts/<home>/<id>`: a version octet, then the postcard of `Entry`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use gatepost_protocol::tunnel::verb::relay::{AttemptId, AttemptState, RelayDone, RelayFacts};
use gatepost_runtime::durable::{self, DurableError};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::error;

/// First octet of each file.
const FILE_VERSION: u8 = 1;
/// Attempts remembered for one home; beyond them nothing more is sent for it until it forgets some.
pub const ATTEMPTS_MAX: usize = 10_000;
/// Octets of outcomes remembered for one home: beyond them nothing new is sent for it either, but what is
/// under way may still add its own.
pub const OUTCOMES_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// How long an outcome waits for its home. A queue entry lives for days: a home that has not asked in a
/// month died between noting the outcome and letting us forget it.
pub const KEPT_MAX: Duration = Duration::from_hours(30 * 24);

/// Why an attempt can't begin, or can't go on.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// The home must forget some first.
    #[error("as many attempts are remembered as may be")]
    TooMany,
    /// The id was used before.
    #[error("this attempt began before")]
    Known,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DurableError),
}

/// What is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    /// The final dot went out, or was about to.
    DotSent,
    /// The reply was seen, as builds before version 2 of the tunnel kept it.
    Ended(RelayDone),
    /// The reply was seen.
    EndedWith(RelayDone, RelayFacts),
}

/// The attempts of all homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    known: Mutex<HashMap<String, Known>>,
    outcomes_octets_max: usize,
}

/// What is remembered for one home.
#[derive(Debug, Default)]
struct Known {
    states: HashMap<AttemptId, AttemptState>,
    /// Of the outcomes among them, as they are written.
    outcomes_octets: usize,
}

impl Known {
    fn set(&mut self, attempt: AttemptId, state: Option<AttemptState>) {
        let new = state.as_ref().map_or(0, octets);
        let old = match state {
            Some(state) => self.states.insert(attempt, state),
            None => self.states.remove(&attempt),
        };
        self.outcomes_octets = self.outcomes_octets + new - old.as_ref().map_or(0, octets);
    }
}

/// Octets of an outcome; what has none counts only as one of [`ATTEMPTS_MAX`].
fn octets(state: &AttemptState) -> usize {
    const HAS_A_FORM: &str = "counting octets cannot run out of room, and every field has a form";
    let size = postcard::ser_flavors::Size::default;
    match state {
        AttemptState::Ended(done) => postcard::serialize_with_flavor(done, size()).expect(HAS_A_FORM),
        AttemptState::EndedWith(done, facts) => {
            postcard::serialize_with_flavor(&(done, facts), size()).expect(HAS_A_FORM)
        }
        AttemptState::Unknown | AttemptState::Running | AttemptState::InDoubt => 0,
    }
}

/// An attempt under way. Dropped before its dot, it never was.
#[derive(Debug)]
pub struct Running {
    attempts: Attempts,
    home: String,
    attempt: AttemptId,
    dot: bool,
}

impl Attempts {
    /// Reads what is remembered. An attempt whose reply was not seen before the end is in doubt from
    /// now on. Blocking.
    pub fn open<'a>(state: &Path, homes: impl IntoIterator<Item = &'a str>) -> Result<Self, DurableError> {
        Self::open_with(state, homes, OUTCOMES_OCTETS_MAX)
    }

    fn open_with<'a>(
        state: &Path,
        homes: impl IntoIterator<Item = &'a str>,
        outcomes_octets_max: usize,
    ) -> Result<Self, DurableError> {
        let (folder, known) = (state.join("attempts"), Mutex::default());
        let attempts = Self(Arc::new(Inner { folder, known, outcomes_octets_max }));
        for home in homes {
            attempts.add(home)?;
        }
        Ok(attempts)
    }

    /// Remembers for this home too, and what was remembered of it before. Blocking.
    pub fn add(&self, home: &str) -> Result<(), DurableError> {
        if self.known().contains_key(home) {
            return Ok(());
        }
        let loaded = load(&self.0.folder.join(home))?;
        self.known().entry(home.to_owned()).or_insert(loaded);
        Ok(())
    }

    /// What became of an attempt.
    pub fn state(&self, home: &str, attempt: AttemptId) -> AttemptState {
        self.known().get(home).and_then(|known| known.states.get(&attempt)).cloned().unwrap_or(AttemptState::Unknown)
    }

    /// The home has the outcome. One that runs is not forgotten. Blocking.
    pub fn forget(&self, home: &str, attempt: AttemptId) -> Result<(), DurableError> {
        match self.state(home, attempt) {
            AttemptState::Unknown | AttemptState::Running => return Ok(()),
            AttemptState::InDoubt | AttemptState::Ended(_) | AttemptState::EndedWith(..) => {}
        }
        durable::remove(&self.path(home, attempt))?;
        self.set(home, attempt, None);
        Ok(())
    }

    /// Forgets what no home has asked for in [`KEPT_MAX`]; gives how many. `unix` is now, since 1970. Blocking.
    pub fn sweep(&self, unix: Duration) -> usize {
        let homes: Vec<String> = self.known().keys().cloned().collect();
        homes.iter().map(|home| self.sweep_home(home, unix)).sum()
    }

    fn sweep_home(&self, home: &str, unix: Duration) -> usize {
        let Ok(files) = std::fs::read_dir(self.0.folder.join(home)) else { return 0 };
        let old = |file: &std::fs::DirEntry| {
            let modified = file.metadata().and_then(|found| found.modified()).ok();
            let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            since.is_some_and(|at| unix.saturating_sub(at) > KEPT_MAX)
        };
        let attempts = files.flatten().filter(old).filter_map(|file| parse_id(&file.file_name().to_string_lossy()));
        let forgotten = attempts.filter(|attempt| match self.forget(home, *attempt) {
            Ok(()) => true,
            Err(error) => {
                error!(%attempt, %error, "an old attempt can't be forgotten");
                false
            }
        });
        forgotten.count()
    }

    /// Begins an attempt.
    pub fn begin(&self, home: &str, attempt: AttemptId) -> Result<Running, AttemptError> {
        let mut known = self.known();
        let of_home = known.entry(home.to_owned()).or_default();
        if of_home.states.contains_key(&attempt) {
            return Err(AttemptError::Known);
        }
        if of_home.states.len() >= ATTEMPTS_MAX || of_home.outcomes_octets >= self.0.outcomes_octets_max {
            return Err(AttemptError::TooMany);
        }
        of_home.set(attempt, Some(AttemptState::Running));
        Ok(Running { attempts: self.clone(), home: home.to_owned(), attempt, dot: false })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, home: &str, attempt: AttemptId, state: Option<AttemptState>) {
        let mut known = self.known();
        known.entry(home.to_owned()).or_default().set(attempt, state);
    }

    fn path(&self, home: &str, attempt: AttemptId) -> PathBuf {
        self.0.folder.join(home).join(attempt.to_string())
    }

    fn write(&self, home: &str, attempt: AttemptId, entry: &Entry) -> Result<(), DurableError> {
        let path = self.path(home, attempt);
        let bytes = postcard::to_extend(entry, vec![FILE_VERSION]).map_err(|error| DurableError {
            action: "encode",
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        durable::write_file(&path, &bytes)
    }
}

impl Running {
    /// The final dot may go out when this has returned well. Blocking.
    pub fn dot(&mut self) -> Result<(), DurableError> {
        self.attempts.write(&self.home, self.attempt, &Entry::DotSent)?;
        self.dot = true;
        Ok(())
    }

    /// The reply to the final dot was seen, or the attempt ended before it. Blocking. If the outcome
    /// of a sent dot can't be written it is still told, and after a restart the attempt is in doubt.
    pub fn ended(mut self, done: &RelayDone, facts: &RelayFacts) {
        if !self.dot {
            return;
        }
        if let Err(error) =
            self.attempts.write(&self.home, self.attempt, &Entry::EndedWith(done.clone(), facts.clone()))
        {
            error!(attempt = %self.attempt, %error, "the outcome of an attempt can't be kept");
        }
        let state = AttemptState::EndedWith(done.clone(), facts.clone());
        self.attempts.set(&self.home, self.attempt, Some(state));
        // Settled: nothing left to do on drop.
        self.home.clear();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.home.is_empty() {
            let state = self.dot.then_some(AttemptState::InDoubt);
            self.attempts.set(&self.home, self.attempt, state);
        }
    }
}

fn load(folder: &Path) -> Result<Known, DurableError> {
    durable::create_directory(folder)?;
    durable::sweep(folder)?;
    let failed = |source| DurableError { action: "read", path: folder.to_owned(), source };
    let mut known = Known::default();
    for found in std::fs::read_dir(folder).map_err(failed)? {
        let found = found.map_err(failed)?;
        let name = found.file_name().to_string_lossy().into_owned();
        let Some(attempt) = parse_id(&name) else {
            error!(file = %found.path().display(), "not an attempt; left alone");
            continue;
        };
        let bytes = std::fs::read(found.path()).map_err(failed)?;
        let entry = match bytes.split_first() {
            Some((&FILE_VERSION, body)) => postcard::from_bytes(body).ok(),
            _ => None,
        };
        let state = match entry {
            Some(Entry::Ended(done)) => AttemptState::Ended(done),
            Some(Entry::EndedWith(done, facts)) => AttemptState::EndedWith(done, facts),
            Some(Entry::DotSent) => AttemptState::InDoubt,
            None => {
                // The file is there, so the dot was about to go out.
                error!(file = %found.path().display(), "an attempt's file can't be read; it counts as in doubt");
                AttemptState::InDoubt
            }
        };
        known.set(attempt, Some(state));
    }
    Ok(known)
}

fn parse_id(text: &str) -> Option<AttemptId> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|bits| AttemptId(bits.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "cottage";
    const ID: AttemptId = AttemptId([7; 16]);

    fn done() -> RelayDone {
        RelayDone { outcomes: Vec::new(), remote: Some("mx.example.com [192.0.2.1]:25".into()), tls: None }
    }

    fn facts() -> RelayFacts {
        RelayFacts { dsn: true, reused: false, exchanger: Some("example.com".into()) }
    }

    fn open(state: &Path) -> Attempts {
        Attempts::open(state, [HOME]).expect("opened")
    }

    #[test]
    fn before_the_dot_it_never_was() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let running = attempts.begin(HOME, ID).expect("new");
        assert_eq!(attempts.state(HOME, ID), AttemptState::Running);
        assert!(matches!(attempts.begin(HOME, ID), Err(AttemptError::Known)));
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        attempts.begin(HOME, ID).expect("new again").ended(&done(), &facts());
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
    }

    #[test]
    fn a_dot_without_a_reply_is_in_doubt_across_a_restart() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().expect("kept");
        assert_eq!(attempts.state(HOME, ID), AttemptState::Running);
        assert_eq!(open(state.path()).state(HOME, ID), AttemptState::InDoubt);
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::InDoubt);
    }

    #[test]
    fn what_nobody_asked_for_in_a_month_is_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().expect("kept");
        running.ended(&done(), &facts());
        let path = attempts.path(HOME, ID);
        let written = path.metadata().and_then(|found| found.modified()).expect("there");
        let written = written.duration_since(UNIX_EPOCH).expect("after 1970");
        assert_eq!(attempts.sweep(written + KEPT_MAX), 0);
        assert_eq!(attempts.state(HOME, ID), AttemptState::EndedWith(done(), facts()));
        assert_eq!(attempts.sweep(written + KEPT_MAX + Duration::from_secs(1)), 1);
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        assert!(!path.exists());
    }

    #[test]
    fn an_outcome_is_kept_until_it_is_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().expect("kept");
        running.ended(&done(), &facts());
        for attempts in [&attempts, &open(state.path())] {
            assert_eq!(attempts.state(HOME, ID), AttemptState::EndedWith(done(), facts()));
        }
        attempts.forget(HOME, ID).expect("forgotten");
        attempts.forget(HOME, ID).expect("a repeat is harmless");
        for attempts in [&attempts, &open(state.path())] {
            assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        }
    }

    #[test]
    fn outcomes_over_their_bound_stop_new_attempts_until_some_are_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let octets = octets(&AttemptState::EndedWith(done(), facts()));
        for bound in [octets + 1, octets] {
            let attempts = Attempts::open_with(state.path(), [HOME], bound).expect("opened");
            if attempts.state(HOME, ID) == AttemptState::Unknown {
                let mut running = attempts.begin(HOME, ID).expect("new");
                running.dot().expect("kept");
                running.ended(&done(), &facts());
            }
            let other = AttemptId([8; 16]);
            assert_eq!(attempts.begin(HOME, other).is_ok(), bound > octets, "counted when set and when read");
            attempts.begin("cabin", other).expect("another home has its own");
            if bound == octets {
                attempts.forget(HOME, ID).expect("forgotten");
                attempts.begin(HOME, other).expect("room again");
            }
        }
    }

    #[test]
    fn one_that_runs_is_not_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().expect("kept");
        attempts.forget(HOME, ID).expect("no error");
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::InDoubt);
    }

    #[test]
    fn a_file_that_cannot_be_read_counts_as_in_doubt() {
        let state = tempfile::tempdir().expect("a temporary directory");
        open(state.path());
        let folder = state.path().join("attempts").join(HOME);
        std::fs::write(folder.join(ID.to_string()), b"\x01\xff").expect("written");
        std::fs::write(folder.join("stray"), b"?").expect("written");
        assert_eq!(open(state.path()).state(HOME, ID), AttemptState::InDoubt);
    }

    #[test]
    fn what_an_earlier_build_wrote_is_read() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let folder = state.path().join("attempts").join(HOME);
        std::fs::create_dir_all(&folder).expect("made");
        // Variant 1 of the entry: no outcome, a remote of 29 octets, no TLS.
        let written = [&b"\x01\x01\x00\x01\x1d"[..], b"mx.example.com [192.0.2.1]:25", b"\x00"].concat();
        std::fs::write(folder.join(ID.to_string()), written).expect("written");
        std::fs::write(folder.join(AttemptId([8; 16]).to_string()), b"\x01\x00").expect("written");
        let attempts = open(state.path());
        assert_eq!(attempts.state(HOME, ID), AttemptState::Ended(done()));
        assert_eq!(attempts.state(HOME, AttemptId([8; 16])), AttemptState::InDoubt);
    }
}
