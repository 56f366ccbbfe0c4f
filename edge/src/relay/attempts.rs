//! What became of each attempt, on disk: "final dot sent" before it, the outcome after the reply,
//! kept until the home has it. So a home whose tunnel broke asks instead of sending twice.
//!
//! A journal for each home, `attempts/<home>/journal`: of each record a version octet, then the postcard of
//! `Record`. Builds before it kept a file for each attempt, `attempts/<home>/<id>`, a version octet and the
//! postcard of `Entry`: those are read at the start and go once the journal has them.

pub mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use gatepost_protocol::tunnel::verb::relay::{AttemptId, AttemptState, RelayDone, RelayFacts};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, Appended, DurableError, Journal};
use thiserror::Error;
use tracing::error;

use self::record::{Entry, Record, decode, encode};

/// First octet of each file of a build before the journal.
const FILE_VERSION: u8 = 1;
/// The journal's name among a home's files.
const JOURNAL: &str = "journal";
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
    /// The home is not known here (any more).
    #[error("nothing is remembered for this home")]
    NoHome,
    /// The disk.
    #[error("{0}")]
    Disk(Arc<DurableError>),
}

/// The attempts of all homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    clock: Clock,
    homes: Mutex<HashMap<String, Arc<OfHome>>>,
    outcomes_octets_max: usize,
}

/// The attempts of one home.
#[derive(Debug)]
struct OfHome {
    known: Mutex<Known>,
    journal: Journal,
}

/// What is remembered for one home.
#[derive(Debug, Default)]
struct Known {
    attempts: HashMap<AttemptId, Remembered>,
    /// Of the outcomes among them, as they are written.
    outcomes_octets: usize,
}

#[derive(Clone, Debug)]
struct Remembered {
    /// Under way now.
    runs: bool,
    /// What the disk must know of it; nothing before the final dot.
    entry: Option<Entry>,
    unix_s: i64,
}

impl Known {
    fn set(&mut self, attempt: AttemptId, remembered: Option<Remembered>) {
        let new = remembered.as_ref().map_or(0, Remembered::octets);
        let old = match remembered {
            Some(remembered) => self.attempts.insert(attempt, remembered),
            None => self.attempts.remove(&attempt),
        };
        self.outcomes_octets = self.outcomes_octets + new - old.as_ref().map_or(0, Remembered::octets);
    }

    /// A record for each that the disk must know of.
    fn records(&self) -> Vec<Vec<u8>> {
        let record = |(attempt, remembered): (&AttemptId, &Remembered)| {
            let entry = remembered.entry.clone()?;
            Some(encode(&Record::Known(*attempt, remembered.unix_s, entry)))
        };
        self.attempts.iter().filter_map(record).collect()
    }
}

impl Remembered {
    /// Octets of an outcome; what has none counts only as one of [`ATTEMPTS_MAX`].
    fn octets(&self) -> usize {
        match &self.entry {
            None | Some(Entry::DotSent) => 0,
            Some(entry) => entry.octets(),
        }
    }

    fn state(&self) -> AttemptState {
        match &self.entry {
            _ if self.runs => AttemptState::Running,
            Some(Entry::Ended(done)) => AttemptState::Ended(done.clone()),
            Some(Entry::EndedWith(done, facts)) => AttemptState::EndedWith(done.clone(), facts.clone()),
            Some(Entry::DotSent) => AttemptState::InDoubt,
            None => AttemptState::Unknown,
        }
    }
}

/// An attempt under way. Dropped before its dot, it never was.
#[derive(Debug)]
pub struct Running {
    attempts: Attempts,
    home: Arc<OfHome>,
    attempt: AttemptId,
    /// It has ended: nothing is left to do on drop.
    settled: bool,
}

impl Attempts {
    /// Reads what is remembered. An attempt whose reply was not seen before the end is in doubt from
    /// now on. Blocking.
    pub fn open<'a>(
        state: &Path,
        homes: impl IntoIterator<Item = &'a str>,
        clock: Clock,
    ) -> Result<Self, DurableError> {
        Self::open_with(state, homes, clock, OUTCOMES_OCTETS_MAX)
    }

    fn open_with<'a>(
        state: &Path,
        homes: impl IntoIterator<Item = &'a str>,
        clock: Clock,
        outcomes_octets_max: usize,
    ) -> Result<Self, DurableError> {
        let folder = state.join("attempts");
        let attempts = Self(Arc::new(Inner { folder, clock, homes: Mutex::default(), outcomes_octets_max }));
        for home in homes {
            attempts.add(home)?;
        }
        Ok(attempts)
    }

    /// Remembers for this home too, and what was remembered of it before. Blocking.
    pub fn add(&self, home: &str) -> Result<(), DurableError> {
        if self.homes().contains_key(home) {
            return Ok(());
        }
        let folder = self.0.folder.join(home);
        let (known, files) = load(&folder)?;
        let of_home = Arc::new_cyclic(|of_home: &Weak<OfHome>| {
            let of_home = of_home.clone();
            let living = move || of_home.upgrade().map(|of_home| of_home.known().records()).unwrap_or_default();
            OfHome { known: Mutex::new(known), journal: Journal::new(folder.join(JOURNAL), living) }
        });
        if !files.is_empty() {
            of_home.journal.replace()?;
            for file in files {
                // One that stays is read again, and what it tells is overruled by the journal.
                if let Err(error) = durable::remove(&file) {
                    error!(%error, "an attempt's old file stays");
                }
            }
        }
        self.homes().entry(home.to_owned()).or_insert(of_home);
        Ok(())
    }

    /// What became of an attempt.
    pub fn state(&self, home: &str, attempt: AttemptId) -> AttemptState {
        let Some(of_home) = self.of(home) else { return AttemptState::Unknown };
        let known = of_home.known();
        known.attempts.get(&attempt).map_or(AttemptState::Unknown, Remembered::state)
    }

    /// The home has the outcome. One that runs is not forgotten. Not durable when it returns: a crash may
    /// bring it back, to be swept when it is old.
    pub fn forget(&self, home: &str, attempt: AttemptId) {
        let Some(of_home) = self.of(home) else { return };
        let mut known = of_home.known();
        if known.attempts.get(&attempt).is_some_and(|remembered| !remembered.runs) {
            known.set(attempt, None);
            of_home.journal.append(&encode(&Record::Forgotten(attempt)));
        }
    }

    /// Forgets what no home has asked for in [`KEPT_MAX`]; gives how many.
    pub fn sweep(&self) -> usize {
        let now = self.0.clock.steady_s();
        let kept = i64::try_from(KEPT_MAX.as_secs()).unwrap_or(i64::MAX);
        let homes: Vec<String> = self.homes().keys().cloned().collect();
        let mut forgotten = 0;
        for home in homes {
            let Some(of_home) = self.of(&home) else { continue };
            let is_old = |remembered: &Remembered| !remembered.runs && now.saturating_sub(remembered.unix_s) > kept;
            let old: Vec<AttemptId> = {
                let known = of_home.known();
                known.attempts.iter().filter(|(_, one)| is_old(one)).map(|(attempt, _)| *attempt).collect()
            };
            forgotten += old.len();
            for attempt in old {
                self.forget(&home, attempt);
            }
        }
        forgotten
    }

    /// Begins an attempt.
    pub fn begin(&self, home: &str, attempt: AttemptId) -> Result<Running, AttemptError> {
        let of_home = self.of(home).ok_or(AttemptError::NoHome)?;
        let mut known = of_home.known();
        if known.attempts.contains_key(&attempt) {
            return Err(AttemptError::Known);
        }
        if known.attempts.len() >= ATTEMPTS_MAX || known.outcomes_octets >= self.0.outcomes_octets_max {
            return Err(AttemptError::TooMany);
        }
        known.set(attempt, Some(Remembered { runs: true, entry: None, unix_s: self.0.clock.steady_s() }));
        drop(known);
        Ok(Running { attempts: self.clone(), home: of_home, attempt, settled: false })
    }

    fn homes(&self) -> MutexGuard<'_, HashMap<String, Arc<OfHome>>> {
        self.0.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, home: &str) -> Option<Arc<OfHome>> {
        self.homes().get(home).cloned()
    }
}

impl OfHome {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In memory first: the journal writes what lives whenever it is replaced.
    fn note(&self, attempt: AttemptId, runs: bool, unix_s: i64, entry: Entry) -> Appended {
        let record = encode(&Record::Known(attempt, unix_s, entry.clone()));
        // Held while it is appended, so that the journal has an attempt's records in their order.
        let mut known = self.known();
        known.set(attempt, Some(Remembered { runs, entry: Some(entry), unix_s }));
        self.journal.append(&record)
    }
}

impl Running {
    /// The final dot may go out when this has resolved well.
    pub async fn dot(&mut self) -> Result<(), AttemptError> {
        let now = self.attempts.0.clock.steady_s();
        let appended = self.home.note(self.attempt, true, now, Entry::DotSent);
        let result = appended.durable().await.map_err(AttemptError::Disk);
        if result.is_err() {
            // No dot goes out. Should the disk have it all the same, the attempt is in doubt after a restart.
            self.home.known().set(self.attempt, Some(Remembered { runs: true, entry: None, unix_s: now }));
        }
        result
    }

    /// The reply to the final dot was seen, or the attempt ended before it. What this gives resolves when
    /// that is durable; it can be told meanwhile, which makes a doubt only less likely. If it can't be
    /// written it is still told, and after a restart the attempt is in doubt.
    pub fn ended(mut self, done: &RelayDone, facts: &RelayFacts) -> Option<Appended> {
        let dotted = self.home.known().attempts.get(&self.attempt).is_some_and(|one| one.entry.is_some());
        if !dotted {
            return None;
        }
        self.settled = true;
        let entry = Entry::EndedWith(done.clone(), facts.clone());
        Some(self.home.note(self.attempt, false, self.attempts.0.clock.steady_s(), entry))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut known = self.home.known();
        let dotted = known.attempts.get(&self.attempt).filter(|remembered| remembered.entry.is_some()).cloned();
        known.set(self.attempt, dotted.map(|remembered| Remembered { runs: false, ..remembered }));
    }
}

/// What a home's folder tells, and its files of builds before the journal.
fn load(folder: &Path) -> Result<(Known, Vec<PathBuf>), DurableError> {
    durable::create_directory(folder)?;
    durable::sweep(folder)?;
    let mut known = Known::default();
    let files = load_files(folder, &mut known)?;
    let path = folder.join(JOURNAL);
    let found = durable::read_journal(&path)?;
    let mut unknown = found.damaged;
    for record in &found.records {
        match decode(record) {
            Some(Record::Known(attempt, unix_s, entry)) => {
                known.set(attempt, Some(Remembered { runs: false, entry: Some(entry), unix_s }));
            }
            Some(Record::Forgotten(attempt)) => known.set(attempt, None),
            None => unknown += 1,
        }
    }
    if unknown > 0 {
        error!(file = %path.display(), records = unknown, "records of attempts can't be read; a message may go out twice");
    }
    Ok((known, files))
}

fn load_files(folder: &Path, known: &mut Known) -> Result<Vec<PathBuf>, DurableError> {
    let failed = |source| DurableError { action: "read", path: folder.to_owned(), source };
    let mut files = Vec::new();
    for found in std::fs::read_dir(folder).map_err(failed)? {
        let found = found.map_err(failed)?;
        let name = found.file_name().to_string_lossy().into_owned();
        let Some(attempt) = parse_id(&name) else {
            if name != JOURNAL {
                error!(file = %found.path().display(), "not an attempt; left alone");
            }
            continue;
        };
        let bytes = std::fs::read(found.path()).map_err(failed)?;
        let entry = match bytes.split_first() {
            Some((&FILE_VERSION, body)) => postcard::from_bytes(body).ok(),
            _ => None,
        };
        let entry = entry.unwrap_or_else(|| {
            // The file is there, so the dot was about to go out.
            error!(file = %found.path().display(), "an attempt's file can't be read; it counts as in doubt");
            Entry::DotSent
        });
        let modified = found.metadata().and_then(|metadata| metadata.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let unix_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        known.set(attempt, Some(Remembered { runs: false, entry: Some(entry), unix_s }));
        files.push(found.path());
    }
    Ok(files)
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
        RelayFacts { dsn: true, exchanger: Some("example.com".into()), ..RelayFacts::default() }
    }

    fn ended() -> AttemptState {
        AttemptState::EndedWith(done(), facts())
    }

    fn open(state: &Path) -> Attempts {
        Attempts::open(state, [HOME], Clock::real()).expect("opened")
    }

    /// An attempt whose outcome is durable.
    async fn end(attempts: &Attempts) {
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().await.expect("kept");
        running.ended(&done(), &facts()).expect("a dot was sent").durable().await.expect("kept");
    }

    /// Waits until all that was appended so far is on disk.
    async fn settle(attempts: &Attempts) {
        let mut last = attempts.begin(HOME, AttemptId([99; 16])).expect("new");
        last.dot().await.expect("kept");
    }

    #[tokio::test]
    async fn before_the_dot_it_never_was() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let running = attempts.begin(HOME, ID).expect("new");
        assert_eq!(attempts.state(HOME, ID), AttemptState::Running);
        assert!(matches!(attempts.begin(HOME, ID), Err(AttemptError::Known)));
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        assert!(attempts.begin(HOME, ID).expect("new again").ended(&done(), &facts()).is_none());
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        assert!(matches!(attempts.begin("cabin", ID), Err(AttemptError::NoHome)));
    }

    #[tokio::test]
    async fn a_dot_without_a_reply_is_in_doubt_across_a_restart() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().await.expect("kept");
        assert_eq!(attempts.state(HOME, ID), AttemptState::Running);
        assert_eq!(open(state.path()).state(HOME, ID), AttemptState::InDoubt);
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::InDoubt);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_sends_no_dot_and_may_take_the_next() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let folder = state.path().join("attempts").join(HOME);
        std::fs::remove_dir(&folder).expect("empty");
        let mut running = attempts.begin(HOME, ID).expect("new");
        assert!(matches!(running.dot().await, Err(AttemptError::Disk(_))));
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        std::fs::create_dir(&folder).expect("made");
        end(&attempts).await;
        assert_eq!(open(state.path()).state(HOME, ID), ended());
    }

    #[tokio::test]
    async fn a_date_that_jumps_makes_no_home_send_twice() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_hours(24 * 365 * 50)).anchored(1_000_000);
        let attempts = Attempts::open(state.path(), [HOME], clock.clone()).expect("opened");
        end(&attempts).await;
        clock.jump(Duration::from_hours(24 * 365 * 70));
        assert_eq!(attempts.sweep(), 0);
        assert_eq!(attempts.state(HOME, ID), ended());
    }

    #[tokio::test]
    async fn what_nobody_asked_for_in_a_month_is_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_hours(24 * 365 * 50));
        let attempts = Attempts::open(state.path(), [HOME], clock.clone()).expect("opened");
        end(&attempts).await;
        clock.turn(KEPT_MAX);
        assert_eq!(attempts.sweep(), 0);
        assert_eq!(attempts.state(HOME, ID), ended());
        clock.turn(Duration::from_secs(1));
        assert_eq!(attempts.sweep(), 1);
        assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        settle(&attempts).await;
        assert_eq!(open(state.path()).state(HOME, ID), AttemptState::Unknown);
    }

    #[tokio::test]
    async fn an_outcome_is_kept_until_it_is_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        end(&attempts).await;
        for attempts in [&attempts, &open(state.path())] {
            assert_eq!(attempts.state(HOME, ID), ended());
        }
        attempts.forget(HOME, ID);
        attempts.forget(HOME, ID);
        settle(&attempts).await;
        for attempts in [&attempts, &open(state.path())] {
            assert_eq!(attempts.state(HOME, ID), AttemptState::Unknown);
        }
    }

    #[tokio::test]
    async fn outcomes_over_their_bound_stop_new_attempts_until_some_are_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let entry = Some(Entry::EndedWith(done(), facts()));
        let octets = Remembered { runs: false, entry, unix_s: 0 }.octets();
        for bound in [octets + 1, octets] {
            let homes = [HOME, "cabin"];
            let attempts = Attempts::open_with(state.path(), homes, Clock::real(), bound).expect("opened");
            if attempts.state(HOME, ID) == AttemptState::Unknown {
                end(&attempts).await;
            }
            let other = AttemptId([8; 16]);
            assert_eq!(attempts.begin(HOME, other).is_ok(), bound > octets, "counted when set and when read");
            attempts.begin("cabin", other).expect("another home has its own");
            if bound == octets {
                attempts.forget(HOME, ID);
                attempts.begin(HOME, other).expect("room again");
            }
        }
    }

    #[tokio::test]
    async fn one_that_runs_is_not_forgotten() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let attempts = open(state.path());
        let mut running = attempts.begin(HOME, ID).expect("new");
        running.dot().await.expect("kept");
        attempts.forget(HOME, ID);
        drop(running);
        assert_eq!(attempts.state(HOME, ID), AttemptState::InDoubt);
    }

    #[test]
    fn what_earlier_builds_wrote_is_read_and_moves_into_the_journal() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let folder = state.path().join("attempts").join(HOME);
        std::fs::create_dir_all(&folder).expect("made");
        // Variant 1 of the entry: no outcome, a remote of 29 octets, no TLS.
        let written = [&b"\x01\x01\x00\x01\x1d"[..], b"mx.example.com [192.0.2.1]:25", b"\x00"].concat();
        std::fs::write(folder.join(ID.to_string()), written).expect("written");
        std::fs::write(folder.join(AttemptId([8; 16]).to_string()), b"\x01\x00").expect("written");
        std::fs::write(folder.join(AttemptId([9; 16]).to_string()), b"\x01\xff").expect("written");
        std::fs::write(folder.join("stray"), b"?").expect("written");
        for attempts in [open(state.path()), open(state.path())] {
            assert_eq!(attempts.state(HOME, ID), AttemptState::Ended(done()));
            assert_eq!(attempts.state(HOME, AttemptId([8; 16])), AttemptState::InDoubt);
            assert_eq!(attempts.state(HOME, AttemptId([9; 16])), AttemptState::InDoubt, "unreadable");
        }
        let mut left: Vec<_> = std::fs::read_dir(&folder)
            .expect("there")
            .map(|file| file.expect("readable").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        assert_eq!(left, ["journal", "stray"]);
    }

    #[test]
    fn the_bytes_of_a_record_stay_as_they_are() {
        let known = encode(&Record::Known(ID, 1_795_176_000, Entry::EndedWith(done(), facts())));
        let remote = [&b"\x00\x01\x1d"[..], b"mx.example.com [192.0.2.1]:25", b"\x00"].concat();
        let tail = [&b"\x01\x00\x01\x0b"[..], b"example.com", b"\x00\x00"].concat();
        let unix_s = [0x80, 0xd9, 0x81, 0xb0, 0x0d];
        assert_eq!(known, [&[1, 0][..], &[7; 16], &unix_s, &[2], &remote, &tail].concat());
        assert_eq!(encode(&Record::Forgotten(ID)), [&[1, 1][..], &[7; 16]].concat());
        assert_eq!(encode(&Record::Known(ID, 0, Entry::DotSent)), [&[1, 0][..], &[7; 16], &[0, 0]].concat());
    }
}
