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
use gatepost_protocol::tunnel::verb::spool::{DAMAGED_MAX, LISTING_MAX, SpoolItem, SpoolListing, SpoolPage};
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
        SpoolListing {
            entries: inventory.oldest().take(LISTING_MAX).map(item).collect(),
            total: inventory.count(),
            total_octets: inventory.octets(),
        }
    }

    /// The oldest messages held for a home after a place, which is a page's own `next`; the first page names what is
    /// damaged, too. Blocking.
    pub fn page(&self, home: &str, after: &str) -> SpoolPage {
        let of_home = self.of(home);
        let inventory = of_home.inventory();
        let entries: Vec<&Entry> = inventory.after(after).take(LISTING_MAX + 1).collect();
        let more = entries.len() > LISTING_MAX;
        let entries = &entries[..entries.len().min(LISTING_MAX)];
        let next = entries.last().filter(|_| more).map(|last| last.name.clone());
        let damaged = if after.is_empty() { inventory.list_damaged(DAMAGED_MAX) } else { Vec::new() };
        SpoolPage {
            entries: entries.iter().map(|entry| item(entry)).collect(),
            next,
            total: inventory.count(),
            total_octets: inventory.octets(),
            damaged,
            damaged_total: inventory.damaged(),
        }
    }

    /// The owner wants a message gone for good, whole or damaged; false if there is none such. Blocking.
    pub fn drop_for_good(&self, home: &str, transfer: TransferId) -> Result<bool, DurableError> {
        let of_home = self.of(home);
        let held = of_home.inventory().path(transfer).is_some();
        if held {
            self.acknowledge(home, transfer)?;
        }
        let damaged = of_home.inventory().remove_damaged(transfer)?;
        Ok(held || damaged)
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

fn item(entry: &Entry) -> SpoolItem {
    SpoolItem { transfer: entry.transfer, octets: entry.octets, sealed_unix_s: unix_s(entry.sealed_unix_ms) }
}

fn unix_s(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
