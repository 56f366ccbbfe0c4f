//! What is held for one home: rebuilt from its directory at start, kept in memory from then on.
//! A record that is torn is set aside in `damaged/` and reported; the rest goes on. One that merely
//! can't be read now (a right, a descriptor, the disk) is never moved: the start fails instead.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::spool::SpoolDamaged;
use gatepost_runtime::durable::{self, DurableError};
use thiserror::Error;
use tracing::{error, info};

use super::record::{self, RecordError, RecordReader};

/// Where what can't be used is set aside.
const DAMAGED: &str = "damaged";
/// The system's numbers for: this process, or the whole system, has as many open files as it may.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Why the spool can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A directory.
    #[error(transparent)]
    Disk(#[from] DurableError),
    /// A sealed message that may be whole, but can't be read now.
    #[error("can't read the sealed message {}: {source}; {}", path.display(), remedy(source))]
    Record {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Why a record does not become an entry.
enum Unfit {
    /// It never will.
    Damaged(String),
    /// It may, once the system lets us read it.
    Unread(io::Error),
}

/// One sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names it.
    pub transfer: TransferId,
    /// Its file, in the home's folder.
    pub name: String,
    /// Octets, sealed.
    pub octets: u64,
    /// When it was sealed, milliseconds since 1970.
    pub sealed_unix_ms: u64,
}

/// Everything held for one home.
#[derive(Debug)]
pub struct Inventory {
    folder: PathBuf,
    // By file name, hence oldest first.
    entries: BTreeMap<String, Entry>,
    names: HashMap<TransferId, String>,
    octets: u64,
    damaged: u64,
}

impl Inventory {
    /// Reads a home's folder (made if missing); drafts a crash left behind are removed. Blocking.
    pub fn open(folder: PathBuf) -> Result<Self, OpenError> {
        Self::open_by(folder, |path| RecordReader::open(path).map(|reader| reader.octets()))
    }

    /// `measure` gives the sealed octets of a whole record.
    fn open_by(folder: PathBuf, measure: impl Fn(&Path) -> Result<u64, RecordError>) -> Result<Self, OpenError> {
        durable::create_directory(&folder.join(DAMAGED))?;
        let failed = |source| DurableError { action: "read", path: folder.clone(), source };
        let swept = durable::sweep(&folder)?;
        if swept > 0 {
            info!(folder = %folder.display(), swept, "removed unfinished spool files");
        }
        let damaged = fs::read_dir(folder.join(DAMAGED)).map_err(failed)?.count() as u64;
        let mut names = Vec::new();
        for found in fs::read_dir(&folder).map_err(failed)? {
            let found = found.map_err(failed)?;
            if found.file_type().map_err(failed)?.is_file() {
                names.push(found.file_name().to_string_lossy().into_owned());
            }
        }
        let mut inventory = Self { folder, entries: BTreeMap::new(), names: HashMap::new(), octets: 0, damaged };
        for name in names {
            match inventory.examine(&name, &measure) {
                Ok(entry) => inventory.insert(entry),
                Err(Unfit::Damaged(why)) => inventory.set_aside(&name, &why),
                Err(Unfit::Unread(source)) => {
                    return Err(OpenError::Record { path: inventory.folder.join(name), source });
                }
            }
        }
        Ok(inventory)
    }

    fn examine(&self, name: &str, measure: impl Fn(&Path) -> Result<u64, RecordError>) -> Result<Entry, Unfit> {
        let damaged = |why: &str| Unfit::Damaged(why.to_owned());
        let (sealed_unix_ms, transfer) =
            record::parse_name(name).ok_or_else(|| damaged("its name is not one of ours"))?;
        if self.names.contains_key(&transfer) {
            return Err(damaged("another file holds the same transfer"));
        }
        let octets = measure(&self.folder.join(name)).map_err(|error| match error {
            RecordError::Disk(source) => Unfit::Unread(source),
            torn @ (RecordError::Torn(_) | RecordError::Changed) => Unfit::Damaged(torn.to_string()),
        })?;
        Ok(Entry { transfer, name: name.to_owned(), octets, sealed_unix_ms })
    }

    /// Adds an entry whose file is durable.
    pub fn insert(&mut self, entry: Entry) {
        self.octets += entry.octets;
        self.names.insert(entry.transfer, entry.name.clone());
        self.entries.insert(entry.name.clone(), entry);
    }

    /// Forgets an entry.
    pub fn remove(&mut self, transfer: TransferId) -> Option<Entry> {
        let entry = self.names.remove(&transfer).and_then(|name| self.entries.remove(&name))?;
        self.octets -= entry.octets;
        Some(entry)
    }

    /// Moves a file that can't be used to `damaged/`. Blocking.
    pub fn set_aside(&mut self, name: &str, why: &str) {
        if let Some((_, transfer)) = record::parse_name(name)
            && self.names.get(&transfer).is_some_and(|held| held == name)
        {
            self.remove(transfer);
        }
        let aside = self.folder.join(DAMAGED);
        let moved = durable::rename(&self.folder.join(name), &aside.join(name))
            .and_then(|()| durable::sync_directory(&aside))
            .and_then(|()| durable::sync_directory(&self.folder));
        self.damaged += 1;
        match moved {
            Ok(()) => error!(file = %aside.join(name).display(), why, "a sealed message is damaged and was set aside"),
            Err(error) => error!(name, why, %error, "a sealed message is damaged and could not be set aside"),
        }
    }

    /// The file of an entry.
    pub fn path(&self, transfer: TransferId) -> Option<PathBuf> {
        self.names.get(&transfer).map(|name| self.folder.join(name))
    }

    /// The home's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Oldest first.
    pub fn oldest(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Oldest first, those after this name.
    pub fn after(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.entries.range::<str, _>((Bound::Excluded(name), Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// Files set aside that are still there, at most so many, by name. Blocking.
    pub fn list_damaged(&self, max: usize) -> Vec<SpoolDamaged> {
        let found = fs::read_dir(self.folder.join(DAMAGED)).into_iter().flatten().flatten();
        let mut files: Vec<SpoolDamaged> = found
            .map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                let octets = file.metadata().map_or(0, |found| found.len());
                SpoolDamaged { transfer: record::parse_name(&name).map(|(_, transfer)| transfer), name, octets }
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.truncate(max);
        files
    }

    /// Removes what was set aside of this hand-over, for good; false if there is nothing. Blocking.
    pub fn remove_damaged(&mut self, transfer: TransferId) -> Result<bool, DurableError> {
        let aside = self.folder.join(DAMAGED);
        let failed = |source| DurableError { action: "read", path: aside.clone(), source };
        let mut removed = false;
        for found in fs::read_dir(&aside).map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = found.file_name().to_string_lossy().into_owned();
            if record::parse_name(&name).is_some_and(|(_, of)| of == transfer) {
                durable::remove(&found.path())?;
                self.damaged = self.damaged.saturating_sub(1);
                removed = true;
            }
        }
        Ok(removed)
    }

    /// How many are held.
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Octets held.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Files set aside, and not dropped since.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

/// What helps against a record that can't be read. It was answered 250: nothing here throws it away.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the whole state directory back to the user that gatepost-edge runs as (chown -R): it may have been run as root once"
        }
        _ if error.raw_os_error().is_some_and(|code| code == EMFILE || code == ENFILE) => {
            "allow more open files (LimitNOFILE= in the systemd unit)"
        }
        _ => {
            "see what the kernel says of the disk (dmesg); if the file is beyond help, move it out of the spool by hand"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_that_cannot_be_read_just_now_stays_where_it_is_and_fails_the_start() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let folder = state.path().join("cottage");
        fs::create_dir(&folder).expect("made");
        let file = folder.join(record::name(1000, 0, TransferId([7; 16])));
        fs::write(&file, b"whole, for all we know").expect("written");
        for (code, words) in [(13, "chown"), (EMFILE, "LimitNOFILE"), (5, "dmesg")] {
            let unread = |_: &Path| Err(RecordError::Disk(io::Error::from_raw_os_error(code)));
            let error = Inventory::open_by(folder.clone(), unread).expect_err("it can't be read").to_string();
            assert!(error.contains(words) && error.contains(&file.display().to_string()), "{error}");
            assert!(file.exists(), "it is still offered after the next start");
        }
        let torn = Inventory::open(folder).expect("what is torn does not hold up the rest");
        assert_eq!((torn.count(), torn.damaged(), file.exists()), (0, 1, false));
    }
}
