//! A file that grows by small records which must be durable soon. Records that come at the same time share
//! one write and one sync; when most of the file is past, it is replaced by what still lives. After a
//! failure it is replaced too: nothing is ever written behind what may be torn.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{DurableError, write_file};

/// What each file begins with.
const HEAD: &[u8; 8] = b"gpjrnl1\n";
/// Octets of a record's checksum: the first of its SHA-256.
const SUM_OCTETS: usize = 8;
/// Octets before a record: its length and its checksum.
const FRAME_OCTETS: usize = 4 + SUM_OCTETS;
/// Octets of one record.
pub const JOURNAL_RECORD_OCTETS_MAX: usize = 512 * 1024;
/// A file grows by so many octets, and by what it held when it was new, before it is replaced.
const GROWTH_OCTETS: u64 = 1024 * 1024;
/// A buffer is kept between commits up to this capacity.
const KEPT_OCTETS_MAX: usize = 4 * 1024;

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its records, oldest first.
    pub records: Vec<Vec<u8>>,
    /// Records whose checksum does not fit: the disk has changed them.
    pub damaged: usize,
    /// Octets at the end that are no whole record: a crash came before their sync.
    pub torn_octets: usize,
}

/// What must be in the file now, a record each.
type Living = Box<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>;

/// An open journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    path: PathBuf,
    living: Living,
    waiting: Mutex<Waiting>,
    file: Mutex<Option<Open>>,
}

/// What no commit has taken up yet.
#[derive(Default)]
struct Waiting {
    frames: Vec<u8>,
    answers: Vec<oneshot::Sender<Result<(), Arc<DurableError>>>>,
    /// A commit runs and will look here again.
    committing: bool,
}

struct Open {
    file: File,
    octets: u64,
    octets_max: u64,
}

/// Reads a journal; a missing one holds nothing. Blocking.
pub fn read_journal(path: &Path) -> Result<Found, DurableError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(records(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Found::default()),
        Err(error) => Err(DurableError::new("read", path, error)),
    }
}

/// The records of a file. Pure.
pub fn records(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let Some(mut rest) = bytes.strip_prefix(HEAD) else {
        found.torn_octets = bytes.len();
        return found;
    };
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > JOURNAL_RECORD_OCTETS_MAX {
            break;
        }
        let Some((sum, behind)) = behind.split_at_checked(SUM_OCTETS) else { break };
        let Some((record, behind)) = behind.split_at_checked(length) else { break };
        if sum == checksum(record) {
            found.records.push(record.to_vec());
        } else {
            found.damaged += 1;
        }
        rest = behind;
    }
    found.torn_octets = rest.len();
    found
}

fn put_frame(frames: &mut Vec<u8>, record: &[u8]) {
    debug_assert!(record.len() <= JOURNAL_RECORD_OCTETS_MAX, "the owner bounds its records");
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    frames.reserve(FRAME_OCTETS + record.len());
    frames.extend_from_slice(&length.to_le_bytes());
    frames.extend_from_slice(&checksum(record));
    frames.extend_from_slice(record);
}

fn checksum(record: &[u8]) -> [u8; SUM_OCTETS] {
    let sum = digest::digest(&digest::SHA256, record);
    let mut first = [0; SUM_OCTETS];
    first.copy_from_slice(&sum.as_ref()[..SUM_OCTETS]);
    first
}

impl Journal {
    /// Touches nothing before the first record; that one replaces what was at `path` by what lives.
    /// `living` gives all records that the file must hold. Whoever appends one has made the change it tells
    /// of before, so that `living` knows of it already.
    pub fn new(path: PathBuf, living: impl Fn() -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (waiting, file) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { path, living: Box::new(living), waiting, file }))
    }

    /// Replaces the file by what lives. Durable when it returns. Blocking.
    pub fn replace(&self) -> Result<(), DurableError> {
        let mut held = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
        *held = Some(self.0.replace()?);
        Ok(())
    }

    /// Appends a record of at most [`JOURNAL_RECORD_OCTETS_MAX`]. What it returns resolves when the record is
    /// durable, or can't be made so; it need not be waited for. Inside the runtime only.
    pub fn append(&self, record: &[u8]) -> Appended {
        let (answer, appended) = oneshot::channel();
        let mut waiting = self.0.waiting();
        put_frame(&mut waiting.frames, record);
        waiting.answers.push(answer);
        if !waiting.committing {
            waiting.committing = true;
            let inner = self.0.clone();
            spawn_blocking(move || inner.commit_all());
        }
        Appended { path: self.0.clone(), appended }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.0.path.display())
    }
}

/// A record that is on its way to the disk.
pub struct Appended {
    path: Arc<Inner>,
    appended: oneshot::Receiver<Result<(), Arc<DurableError>>>,
}

impl Appended {
    /// Well, when the record is durable.
    pub async fn durable(self) -> Result<(), Arc<DurableError>> {
        self.appended.await.unwrap_or_else(|_| {
            // The commit panicked, or the runtime ends.
            Err(Arc::new(DurableError::new("write", &self.path.path, std::io::ErrorKind::Interrupted.into())))
        })
    }
}

impl std::fmt::Debug for Appended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Appended({})", self.path.path.display())
    }
}

/// A commit that runs; a panic in it must not keep the next one from beginning.
struct Committing<'a>(&'a Inner);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut waiting = self.0.waiting();
            waiting.committing = false;
            waiting.answers.clear();
            waiting.frames.clear();
        }
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits until nothing waits.
    fn commit_all(&self) {
        let committing = Committing(self);
        let mut frames = Vec::new();
        loop {
            let answers = {
                let mut waiting = self.waiting();
                if waiting.answers.is_empty() {
                    waiting.committing = false;
                    if waiting.frames.capacity() > KEPT_OCTETS_MAX {
                        waiting.frames = Vec::new();
                    }
                    break;
                }
                std::mem::swap(&mut frames, &mut waiting.frames);
                std::mem::take(&mut waiting.answers)
            };
            let result = self.commit(&frames).map_err(Arc::new);
            frames.clear();
            for answer in answers {
                // Who does not wait does not hear.
                let _ = answer.send(result.clone());
            }
        }
        drop(committing);
    }

    fn commit(&self, frames: &[u8]) -> Result<(), DurableError> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut open) = held.take_if(|open| open.octets < open.octets_max) {
            // Should this fail, the file stays closed, and the next commit replaces it.
            let failed = |action, error| DurableError::new(action, &self.path, error);
            open.file.write_all(frames).map_err(|error| failed("write", error))?;
            #[expect(clippy::disallowed_methods, reason = "the one place that syncs")]
            open.file.sync_data().map_err(|error| failed("sync", error))?;
            open.octets += frames.len() as u64;
            *held = Some(open);
            return Ok(());
        }
        *held = None;
        // What waits is among what lives.
        *held = Some(self.replace()?);
        Ok(())
    }

    fn replace(&self) -> Result<Open, DurableError> {
        let mut contents = HEAD.to_vec();
        for record in (self.living)() {
            put_frame(&mut contents, &record);
        }
        write_file(&self.path, &contents)?;
        let file = OpenOptions::new().append(true).mode(0o600).open(&self.path);
        let file = file.map_err(|error| DurableError::new("open", &self.path, error))?;
        let octets = contents.len() as u64;
        Ok(Open { file, octets, octets_max: octets.saturating_mul(2).saturating_add(GROWTH_OCTETS) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A journal of numbers, all of which live.
    #[derive(Clone, Default)]
    struct Numbers(Arc<Mutex<Vec<u32>>>);

    impl Numbers {
        fn journal(&self, path: &Path) -> Journal {
            let numbers = self.clone();
            let living = move || numbers.0.lock().unwrap().iter().map(|number| number.to_le_bytes().to_vec()).collect();
            Journal::new(path.to_owned(), living)
        }

        fn add(&self, journal: &Journal, number: u32) -> Appended {
            self.0.lock().unwrap().push(number);
            journal.append(&number.to_le_bytes())
        }
    }

    fn read(path: &Path) -> Vec<u32> {
        let found = read_journal(path).unwrap();
        assert_eq!((found.damaged, found.torn_octets), (0, 0));
        let mut numbers: Vec<u32> =
            found.records.iter().map(|record| u32::from_le_bytes(record.as_slice().try_into().unwrap())).collect();
        numbers.sort_unstable();
        // What was replaced while it waited is there once, or once more.
        numbers.dedup();
        numbers
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_durable_is_read_again_and_nothing_is_touched_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let numbers = Numbers::default();
        let journal = numbers.journal(&path);
        assert!(!path.exists());
        for number in 0..10 {
            numbers.add(&journal, number).durable().await.unwrap();
            assert_eq!(read(&path), (0..=number).collect::<Vec<_>>());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_are_all_durable_and_the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::new(path.clone(), || vec![b"all that lives".to_vec()]);
        let record = vec![7; 40_000];
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let appended = journal.append(&record);
            all.spawn(appended.durable());
            // Not all in one commit.
            tokio::task::yield_now().await;
        }
        while let Some(done) = all.join_next().await {
            done.unwrap().unwrap();
        }
        assert!(path.metadata().unwrap().len() <= GROWTH_OCTETS + 200 * 41_000);
        for _ in 0..60 {
            journal.append(&record).durable().await.unwrap();
        }
        assert!(path.metadata().unwrap().len() <= GROWTH_OCTETS + 3 * 41_000, "it was replaced by what lives");
        assert_eq!(read_journal(&path).unwrap().records[0], b"all that lives");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_failure_the_next_record_replaces_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("away").join("journal");
        let numbers = Numbers::default();
        let journal = numbers.journal(&path);
        let error = numbers.add(&journal, 1).durable().await.unwrap_err();
        assert!(error.to_string().contains("journal"), "{error}");
        std::fs::create_dir(folder.path().join("away")).unwrap();
        numbers.add(&journal, 2).durable().await.unwrap();
        assert_eq!(read(&path), [1, 2], "all that lives, whatever failed");
    }

    #[test]
    fn a_torn_end_costs_only_itself_and_a_changed_record_only_that_one() {
        let mut bytes = HEAD.to_vec();
        for record in [&b"one"[..], b"two", b"three"] {
            put_frame(&mut bytes, record);
        }
        let whole = records(&bytes);
        assert_eq!(whole.records, [&b"one"[..], b"two", b"three"]);
        let torn = records(&bytes[..bytes.len() - 1]);
        assert_eq!(torn.records, [b"one", b"two"]);
        assert_eq!(torn.torn_octets, FRAME_OCTETS + 4);
        let at = HEAD.len() + FRAME_OCTETS + 3 + FRAME_OCTETS;
        bytes[at] ^= 1;
        let changed = records(&bytes);
        assert_eq!((changed.records.len(), changed.damaged, changed.torn_octets), (2, 1, 0));
        assert_eq!(records(b"something else").torn_octets, 14);
    }

    proptest! {
        #[test]
        fn records_come_back_and_any_octets_are_read_without_harm(written in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20), cut in 0..1000_usize, flip in 0..1000_usize) {
            let mut bytes = HEAD.to_vec();
            for record in &written {
                put_frame(&mut bytes, record);
            }
            let found = records(&bytes);
            prop_assert_eq!(&found.records, &written);
            bytes.truncate(cut);
            let found = records(&bytes);
            prop_assert!(written.starts_with(&found.records));
            let at = flip % bytes.len().max(1);
            if let Some(octet) = bytes.get_mut(at) {
                *octet = octet.wrapping_add(1);
            }
            let found = records(&bytes);
            prop_assert!(found.records.len() <= written.len());
        }
    }
}
