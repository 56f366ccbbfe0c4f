//! Sealed mail held for homes that are away: bounds and quota per home, list, fetch, acknowledge.
//! What was answered 250 is deleted on the home's acknowledgement and by nothing else.

pub mod inventory;
pub mod record;
pub mod serve;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::spool::{LISTING_MAX, SpoolItem, SpoolListing};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, DRAFT_SUFFIX, DurableError};
use thiserror::Error;
use tracing::error;

use self::inventory::{Entry, Inventory, OpenError};
use self::record::{RecordError, RecordReader, RecordWriter};

/// Bounds of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Sealed mail held for one home, in octets.
    pub home_octets_max: u64,
    /// Disk left free, in octets.
    pub disk_reserve_octets: u64,
}

/// Why nothing more is held.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The home's quota is used up.
    #[error("the spool holds as much as it may for this home")]
    Quota,
    /// The disk has no more than its reserve left.
    #[error("the disk has no more than its reserve left")]
    Reserve,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DurableError),
}

impl SpoolError {
    /// True if there is no room, rather than something broken.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Quota | Self::Reserve => true,
            Self::Disk(error) => error.is_full(),
        }
    }
}

/// The spool of all homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    homes: RwLock<HashMap<String, Arc<HomeSpool>>>,
    limits: RwLock<SpoolLimits>,
    clock: Clock,
    sequence: AtomicU32,
    /// Octets that are on their way to the disk.
    writing: AtomicU64,
}

#[derive(Debug)]
struct HomeSpool {
    inventory: Mutex<Inventory>,
    /// Octets of drafts, which count towards the quota while they are written. Changed under the inventory's lock,
    /// so that those who write at once never share the last room.
    drafts_octets: AtomicU64,
}

/// What is held for one home, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Octets, sealed.
    pub octets: u64,
    /// When the oldest was sealed, seconds since 1970.
    pub oldest_unix_s: Option<i64>,
    /// Files set aside because they can't be used.
    pub damaged: u64,
}

impl Spool {
    /// Opens `state/spool`, a folder for each home. Blocking.
    pub fn open<'a>(
        state: &Path,
        homes: impl IntoIterator<Item = &'a str>,
        limits: SpoolLimits,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let folder = state.join("spool");
        durable::create_directory(&folder)?;
        let (none, limits) = (RwLock::default(), RwLock::new(limits));
        let (sequence, writing) = (AtomicU32::new(0), AtomicU64::new(0));
        let spool = Self(Arc::new(Inner { folder, homes: none, limits, clock, sequence, writing }));
        for home in homes {
            spool.add(home)?;
        }
        for stranger in spool.strangers()? {
            error!(folder = %stranger.display(), "sealed mail lies here for a home that is not paired (any more)");
        }
        Ok(spool)
    }

    /// Holds mail for this home too, and what was held for it before. Blocking.
    pub fn add(&self, home: &str) -> Result<(), OpenError> {
        if self.homes().contains_key(home) {
            return Ok(());
        }
        let inventory = Inventory::open(self.0.folder.join(home))?;
        let held = HomeSpool { inventory: Mutex::new(inventory), drafts_octets: AtomicU64::new(0) };
        self.0.homes.write().unwrap_or_else(PoisonError::into_inner).entry(home.to_owned()).or_insert(Arc::new(held));
        Ok(())
    }

    /// Whether there is, or was, a home of this name. Blocking.
    pub fn knows(&self, home: &str) -> bool {
        self.0.folder.join(home).exists()
    }

    /// Whether sealed mail lies under this name. Blocking.
    pub fn holds_mail(&self, home: &str) -> bool {
        holds_mail(&self.0.folder.join(home))
    }

    /// Octets that may be held for one home.
    pub fn octets_max(&self) -> u64 {
        self.limits().home_octets_max
    }

    /// These are the bounds from now on. What is held is held all the same.
    pub fn reload(&self, limits: SpoolLimits) {
        *self.0.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Whether a message of about `octets` may be begun. Cheap, but asks the file system: blocking.
    pub fn check_room(&self, home: &str, octets: u64) -> Result<(), SpoolError> {
        let of_home = self.of(home);
        let folder = {
            let inventory = of_home.inventory();
            of_home.check_quota(&inventory, octets, self.limits())?;
            inventory.folder().to_owned()
        };
        self.check_reserve(&folder, self.0.writing.load(Ordering::SeqCst).saturating_add(octets))
    }

    /// Takes room for octets that are written next, all of it or none.
    fn take_room(&self, of_home: &HomeSpool, octets: u64) -> Result<Writing, SpoolError> {
        let folder = {
            let inventory = of_home.inventory();
            of_home.check_quota(&inventory, octets, self.limits())?;
            of_home.drafts_octets.fetch_add(octets, Ordering::SeqCst);
            inventory.folder().to_owned()
        };
        let all = self.0.writing.fetch_add(octets, Ordering::SeqCst).saturating_add(octets);
        let writing = Writing { spool: self.clone(), octets };
        if let Err(error) = self.check_reserve(&folder, all) {
            of_home.drafts_octets.fetch_sub(octets, Ordering::SeqCst);
            return Err(error);
        }
        Ok(writing)
    }

    fn check_reserve(&self, folder: &Path, octets: u64) -> Result<(), SpoolError> {
        let free = durable::free_octets(folder)?;
        if free.saturating_sub(octets) < self.limits().disk_reserve_octets {
            return Err(SpoolError::Reserve);
        }
        Ok(())
    }

    fn limits(&self) -> SpoolLimits {
        *self.0.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a message. Blocking.
    pub fn draft(&self, home: &str, transfer: TransferId) -> Result<SpoolDraft, SpoolError> {
        self.check_room(home, 1)?;
        let sealed_unix_ms = u64::try_from(self.0.clock.unix().as_millis()).unwrap_or(u64::MAX);
        let sequence = self.0.sequence.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        let name = record::name(sealed_unix_ms, sequence, transfer);
        let of_home = self.of(home);
        let path = of_home.inventory().folder().join(format!("{name}{DRAFT_SUFFIX}"));
        let writer = RecordWriter::create(&path)?;
        let entry = Entry { transfer, name, octets: 0, sealed_unix_ms };
        Ok(SpoolDraft { writer: Some(writer), entry, spool: self.clone(), of_home, counted: 0 })
    }

    /// The oldest messages held for a home.
    pub fn list(&self, home: &str) -> SpoolListing {
        let of_home = self.of(home);
        let inventory = of_home.inventory();
        let item = |entry: &Entry| SpoolItem {
            transfer: entry.transfer,
            octets: entry.octets,
            sealed_unix_s: unix_s(entry.sealed_unix_ms),
        };
        SpoolListing {
            entries: inventory.oldest().take(LISTING_MAX).map(item).collect(),
            total: inventory.count(),
            total_octets: inventory.octets(),
        }
    }

    /// What is held for a home.
    pub fn held(&self, home: &str) -> Held {
        let of_home = self.of(home);
        let inventory = of_home.inventory();
        Held {
            messages: inventory.count(),
            octets: inventory.octets(),
            oldest_unix_s: inventory.oldest().next().map(|entry| unix_s(entry.sealed_unix_ms)),
            damaged: inventory.damaged(),
        }
    }

    /// Opens a message to be fetched; `None` if there is none such. Blocking.
    pub fn fetch(&self, home: &str, transfer: TransferId) -> Option<Result<RecordReader, RecordError>> {
        let path = self.of(home).inventory().path(transfer)?;
        Some(RecordReader::open(&path))
    }

    /// Sets a message aside that could not be read, so that it is not offered again. Blocking.
    pub fn set_aside(&self, home: &str, transfer: TransferId, why: &RecordError) {
        let of_home = self.of(home);
        let mut inventory = of_home.inventory();
        if let Some(name) = inventory.path(transfer).and_then(|path| path.file_name().map(std::ffi::OsStr::to_owned)) {
            inventory.set_aside(&name.to_string_lossy(), &why.to_string());
        }
    }

    /// The home has this message durably: deletes it, for good when this returns. Blocking.
    pub fn acknowledge(&self, home: &str, transfer: TransferId) -> Result<(), DurableError> {
        let of_home = self.of(home);
        let Some(path) = of_home.inventory().path(transfer) else { return Ok(()) };
        durable::remove(&path)?;
        of_home.inventory().remove(transfer);
        Ok(())
    }

    fn homes(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<HomeSpool>>> {
        self.0.homes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, home: &str) -> Arc<HomeSpool> {
        self.homes().get(home).cloned().expect("run adds a home here before it is one, and none is ever taken away")
    }

    /// Folders that hold mail and belong to no home: what was answered 250 must not be forgotten.
    fn strangers(&self) -> Result<Vec<PathBuf>, DurableError> {
        let folder = &self.0.folder;
        let failed = |source| DurableError { action: "read", path: folder.clone(), source };
        let mut strangers = Vec::new();
        for found in std::fs::read_dir(folder).map_err(failed)? {
            let found = found.map_err(failed)?;
            let known = found.file_name().to_str().is_some_and(|name| self.homes().contains_key(name));
            if !known && holds_mail(&found.path()) {
                strangers.push(found.path());
            }
        }
        Ok(strangers)
    }
}

impl HomeSpool {
    fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_quota(&self, inventory: &Inventory, octets: u64, limits: SpoolLimits) -> Result<(), SpoolError> {
        let held = inventory.octets().saturating_add(self.drafts_octets.load(Ordering::SeqCst));
        if held.saturating_add(octets) > limits.home_octets_max { Err(SpoolError::Quota) } else { Ok(()) }
    }
}

/// Octets on their way to the disk, which does not count them yet.
#[derive(Debug)]
struct Writing {
    spool: Spool,
    octets: u64,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.spool.0.writing.fetch_sub(self.octets, Ordering::SeqCst);
    }
}

/// A message being sealed. Dropped before [`SpoolDraft::commit`], nothing remains of it.
#[derive(Debug)]
pub struct SpoolDraft {
    writer: Option<RecordWriter>,
    entry: Entry,
    spool: Spool,
    of_home: Arc<HomeSpool>,
    counted: u64,
}

impl SpoolDraft {
    /// Appends sealed bytes, within quota and reserve. Blocking.
    pub fn write(&mut self, sealed: &[u8]) -> Result<(), SpoolError> {
        let octets = sealed.len() as u64;
        let _writing = self.spool.take_room(&self.of_home, octets)?;
        self.counted += octets;
        self.writer.as_mut().expect("taken only by commit, which consumes the draft").write(sealed)?;
        Ok(())
    }

    /// Makes the message durable: it is held from now on, whatever happens. Blocking.
    pub fn commit(mut self) -> Result<(), SpoolError> {
        let writer = self.writer.take().expect("taken only here, which consumes the draft");
        let octets = writer.octets();
        let folder = self.of_home.inventory().folder().to_owned();
        writer.finish()?.rename(&folder.join(&self.entry.name))?;
        if let Err(error) = durable::sync_directory(&folder) {
            // The name may or may not outlive a crash, and the client will hear no 250: what the
            // home can undo by its transfer id is a repeat, not a message nobody was promised.
            if let Err(error) = durable::remove(&folder.join(&self.entry.name)) {
                error!(%error, transfer = %self.entry.transfer, "an unfinished spool file stays behind");
            }
            return Err(error.into());
        }
        let entry = Entry { octets, ..self.entry.clone() };
        // From here on the inventory counts it.
        let mut inventory = self.of_home.inventory();
        inventory.insert(entry);
        self.of_home.drafts_octets.fetch_sub(std::mem::take(&mut self.counted), Ordering::SeqCst);
        drop(inventory);
        Ok(())
    }
}

impl Drop for SpoolDraft {
    fn drop(&mut self) {
        self.of_home.drafts_octets.fetch_sub(self.counted, Ordering::SeqCst);
    }
}

/// Whether sealed mail lies in this folder. Blocking.
pub fn holds_mail(folder: &Path) -> bool {
    let mut names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.any(|entry| record::parse_name(&entry.file_name().to_string_lossy()).is_some())
}

fn unix_s(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spool(state: &Path, octets: u64, clock: &Clock) -> Spool {
        let limits = SpoolLimits { home_octets_max: octets, disk_reserve_octets: 0 };
        Spool::open(state, ["cottage"], limits, clock.clone()).expect("opened")
    }

    fn put(spool: &Spool, id: u8, bytes: &[u8]) -> Result<TransferId, SpoolError> {
        let transfer = TransferId([id; 16]);
        let mut draft = spool.draft("cottage", transfer)?;
        draft.write(bytes)?;
        draft.commit()?;
        Ok(transfer)
    }

    fn files(state: &Path, folder: &str) -> Vec<String> {
        let read = std::fs::read_dir(state.join("spool/cottage").join(folder)).expect("readable");
        let mut names: Vec<_> = read
            .map(|entry| entry.expect("readable"))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn holds_over_a_restart_until_it_is_acknowledged() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        let before = spool(state.path(), 10_000, &clock);
        let ids = [1, 2, 3].map(|id| {
            clock.turn(Duration::from_millis(1));
            put(&before, id, &[id; 100]).expect("room")
        });
        for spool in [&before, &spool(state.path(), 10_000, &clock)] {
            let listing = spool.list("cottage");
            assert_eq!(listing.entries.iter().map(|item| item.transfer).collect::<Vec<_>>(), ids);
            assert_eq!((listing.total, listing.total_octets), (3, 300));
        }
        before.acknowledge("cottage", ids[0]).expect("deleted");
        before.acknowledge("cottage", ids[0]).expect("a repeat is harmless");
        assert_eq!(before.list("cottage").total, 2);
        assert_eq!(spool(state.path(), 10_000, &clock).list("cottage").entries[0].transfer, ids[1]);
        assert!(before.fetch("cottage", ids[0]).is_none());
        let mut buffer = [0; 200];
        let count = before.fetch("cottage", ids[1]).expect("held").expect("whole").read(&mut buffer).expect("read");
        assert_eq!(buffer[..count], [2; 100]);
    }

    #[test]
    fn what_is_damaged_is_set_aside_and_the_rest_goes_on() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        {
            let spool = spool(state.path(), 10_000, &clock);
            put(&spool, 1, b"first").expect("room");
            put(&spool, 2, b"second").expect("room");
        }
        let folder = state.path().join("spool/cottage");
        let torn = folder.join(&files(state.path(), "")[0]);
        let whole = std::fs::read(&torn).expect("read");
        std::fs::write(&torn, &whole[..whole.len() - 1]).expect("torn");
        std::fs::write(folder.join("stray.sealed"), b"?").expect("written");
        std::fs::write(folder.join("left.tmp"), b"?").expect("written");
        let spool = spool(state.path(), 10_000, &clock);
        assert_eq!(spool.list("cottage").entries.len(), 1);
        assert_eq!(spool.held("cottage").damaged, 2);
        assert_eq!(files(state.path(), "damaged").len(), 2);
        assert_eq!(files(state.path(), "").len(), 1);
    }

    #[test]
    fn mail_of_a_home_that_left_the_config_is_noticed_and_kept() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        put(&spool(state.path(), 10_000, &clock), 1, b"sealed").expect("room");
        let folder = state.path().join("spool");
        let limits = SpoolLimits { home_octets_max: 10_000, disk_reserve_octets: 0 };
        let other = Spool::open(state.path(), ["cabin"], limits, clock.clone()).expect("opened");
        assert_eq!(other.strangers().expect("readable"), [folder.join("cottage")]);
        assert!(other.holds_mail("cottage") && !other.holds_mail("cabin") && !other.holds_mail("nobody"));
        other.add("cottage").expect("opened");
        other.add("cottage").expect("a repeat is harmless");
        assert_eq!(other.list("cottage").total, 1);
        assert!(other.strangers().expect("readable").is_empty());
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let spool = spool(state.path(), 150, &Clock::still(Duration::from_secs(1)));
        let mut draft = spool.draft("cottage", TransferId([1; 16])).expect("room");
        draft.write(&[0; 100]).expect("room");
        assert!(matches!(put(&spool, 2, &[0; 100]), Err(SpoolError::Quota)), "drafts count towards the quota");
        drop(draft);
        assert!(files(state.path(), "").is_empty());
        put(&spool, 2, &[0; 150]).expect("room to the last octet");
        assert!(matches!(put(&spool, 3, &[0; 1]), Err(SpoolError::Quota)));
        assert_eq!(spool.list("cottage").total, 1);
    }

    #[test]
    fn the_disk_keeps_its_reserve() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let limits = SpoolLimits { home_octets_max: u64::MAX, disk_reserve_octets: u64::MAX };
        let spool = Spool::open(state.path(), ["cottage"], limits, Clock::real()).expect("opened");
        assert!(matches!(put(&spool, 1, b"x"), Err(SpoolError::Reserve)));
    }

    #[test]
    fn nothing_that_is_held_is_let_go_for_its_age() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::still(Duration::from_secs(1_000_000));
        let before = spool(state.path(), 10_000, &clock);
        put(&before, 1, b"x").expect("room");
        clock.turn(Duration::from_hours(24 * 3650));
        put(&before, 2, b"x").expect("room");
        clock.jump(Duration::from_secs(10));
        put(&before, 3, b"x").expect("a clock that was turned back is no obstacle");
        for spool in [&before, &spool(state.path(), 10_000, &clock)] {
            assert_eq!(spool.list("cottage").total, 3);
            assert_eq!(spool.held("cottage").damaged, 0);
        }
    }

    #[test]
    fn many_who_write_at_once_never_hold_more_than_the_quota() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let spool = spool(state.path(), 100_000, &Clock::real());
        let refused = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for writer in 0..16u8 {
                let (spool, refused) = (&spool, &refused);
                scope.spawn(move || {
                    for message in 0..20u8 {
                        let mut id = [writer; 16];
                        id[0] = message;
                        let Ok(mut draft) = spool.draft("cottage", TransferId(id)) else { continue };
                        // In pieces, as a large message comes.
                        let written = (0..10).try_for_each(|_| draft.write(&[writer; 100]));
                        if written.and_then(|()| draft.commit()).is_err() {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        assert!(spool.held("cottage").octets <= 100_000);
                    }
                });
            }
        });
        let held = spool.held("cottage");
        assert!(held.octets <= 100_000 && held.messages * 1000 == held.octets, "{held:?}");
        assert!(held.messages >= 80, "drafts that fail give their room back: {held:?}");
        let of_home = spool.of("cottage");
        assert_eq!(of_home.drafts_octets.load(Ordering::SeqCst), 0);
        assert_eq!(spool.0.writing.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn other_bounds_count_at_once() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let spool = spool(state.path(), 10, &Clock::real());
        put(&spool, 1, b"123456").expect("room");
        spool.reload(SpoolLimits { home_octets_max: 5, disk_reserve_octets: 0 });
        assert!(matches!(put(&spool, 2, b"x"), Err(SpoolError::Quota)));
        spool.reload(SpoolLimits { home_octets_max: 7, disk_reserve_octets: 0 });
        put(&spool, 2, b"x").expect("room to the last octet");
        assert_eq!(spool.list("cottage").total, 2, "what is held is never let go for a bound");
    }
}
