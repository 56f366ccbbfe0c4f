//! What is held for one home: rebuilt from its directory at start, kept in memory from then on.
//! A record that can't be used is set aside in `damaged/` and reported; the rest goes on.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::durable::{self, DurableError};
use tracing::{error, info};

use super::record::{self, RecordReader};

/// Where what can't be used is set aside.
const DAMAGED: &str = "damaged";

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
    pub fn open(folder: PathBuf) -> Result<Self, DurableError> {
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
            match inventory.examine(&name) {
                Ok(entry) => inventory.insert(entry),
                Err(why) => inventory.set_aside(&name, &why),
            }
        }
        Ok(inventory)
    }

    fn examine(&self, name: &str) -> Result<Entry, String> {
        let (sealed_unix_ms, transfer) = record::parse_name(name).ok_or("its name is not one of ours")?;
        if self.names.contains_key(&transfer) {
            return Err("another file holds the same transfer".into());
        }
        let reader = RecordReader::open(&self.folder.join(name)).map_err(|error| error.to_string())?;
        Ok(Entry { transfer, name: name.to_owned(), octets: reader.octets(), sealed_unix_ms })
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

    /// How many are held.
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Octets held.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Files set aside, ever.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}
