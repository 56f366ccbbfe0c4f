//! What the queue keeps: a row an entry in `home.db` ([`rows`]), and a file a message, `queue/<id>.eml`, with
//! the entry as it began behind it ([`parcel`]). The file is written and synced as `….eml.new`; renamed, it is
//! committed; the row comes last. So a file without its row tells of a commit that was cut short, or of a
//! `home.db` that was replaced. Of an entry that is finished the row stays for a while, so that a repeat is
//! recognised. What can't be used goes to `queue/damaged/`, never away. Blocking.

mod legacy;
mod parcel;
mod rows;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gatepost_runtime::durable::{self, Draft, DurableError};
use thiserror::Error;

pub use self::rows::Outline;
use self::rows::Rows;
use super::entry::{Entry, record};
use super::{NewEntry, QueueId, SetAside};
use crate::database::{Database, DatabaseError};
use crate::message::Message;

/// Why an entry is held whose file was found without its row.
const FOUND: &str = "its message lay in queue/ and home.db does not know it: home.db was restored or replaced, so it may \
                     have been sent before; release it to send it";

/// Why the queue can't keep or find something.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The rows.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl From<record::RecordError> for StoreError {
    fn from(error: record::RecordError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl StoreError {
    /// True if the disk, or the queue, is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Durable(error) => error.is_full(),
            Self::Database(error) => error.is_full(),
            Self::Damaged(_) => false,
        }
    }

    /// True if what was read is not what was written: another time it will not be either.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

/// The names an entry's files can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Part {
    Message = 1,
    MessageNew = 2,
    Record = 4,
    RecordNew = 8,
}

impl Part {
    const ALL: [(Self, &str); 4] = [
        (Self::Message, ".eml"),
        (Self::MessageNew, ".eml.new"),
        (Self::Record, legacy::RECORD),
        (Self::RecordNew, legacy::RECORD_NEW),
    ];

    fn suffix(self) -> &'static str {
        Self::ALL.iter().find(|(part, _)| *part == self).map_or("", |(_, suffix)| suffix)
    }

    fn of(name: &str) -> Option<(QueueId, Self)> {
        Self::ALL.iter().find_map(|(part, suffix)| Some((QueueId::parse(name.strip_suffix(suffix)?)?, *part)))
    }
}

/// The names that were found of one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Parts(u8);

impl Parts {
    fn add(&mut self, part: Part) {
        self.0 |= part as u8;
    }

    fn has(self, part: Part) -> bool {
        self.0 & part as u8 != 0
    }
}

/// The directory and the rows.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    rows: Rows,
}

/// What lies there at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries that are finished: row and since when.
    pub finished: HashMap<QueueId, (i64, i64)>,
    /// Not, or not wholly, committed: to be settled, or cleared up when nobody asks for them.
    pub unfinished: BTreeSet<QueueId>,
    /// What was set aside.
    pub set_aside: Vec<SetAside>,
}

/// What clearing up did with the files nobody asked for.
#[derive(Debug)]
pub enum Cleared {
    /// Nobody was told that it is here: removed.
    Removed,
    /// It had been committed, and its row is gone: an entry again, held.
    Found(i64, Box<Entry>),
    /// Nothing can be made of it.
    SetAside,
}

/// True if an error of reading tells that the file is gone or torn. Any other (too many open files, no
/// permission, a bad disk) says nothing of its contents: another time it may be read.
pub fn tells_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

fn unreadable(path: &Path, source: io::Error) -> StoreError {
    DurableError { action: "read", path: path.to_owned(), source }.into()
}

impl Store {
    /// `queue/` in the state directory, made if missing, and the table in this database.
    pub fn open(state: &Path, database: Database) -> Result<Self, StoreError> {
        let directory = state.join("queue");
        durable::create_directory(&directory)?;
        durable::sweep(&directory)?;
        Ok(Self { directory, rows: Rows::new(database) })
    }

    fn path(&self, id: QueueId, part: Part) -> PathBuf {
        self.directory.join(format!("{id}{}", part.suffix()))
    }

    /// Tells of every entry that waits; sets aside what can't be used, finishes removals a crash cut short. No
    /// message and no entry is opened for it.
    pub fn load(&self, mut each: impl FnMut(Outline)) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let mut found = self.names(&mut loaded)?;
        if self.adopt_files_of_older_builds(&found, &mut loaded)? {
            found = self.names(&mut loaded)?;
        }
        let mut lost = Vec::new();
        self.rows.outlines(|outline| {
            let parts = found.remove(&outline.id).unwrap_or_default();
            match outline.finished_unix_ms {
                Some(at) => {
                    if parts.has(Part::Message) {
                        // Its removal was cut short, or undone by the crash.
                        self.remove_message_or_warn(outline.id);
                    }
                    loaded.finished.insert(outline.id, (outline.row, at));
                }
                None if parts.has(Part::Message) => each(outline),
                None => lost.push((outline.id, outline.row)),
            }
        })?;
        for (id, row) in lost {
            loaded.set_aside.extend(self.set_entry_aside(id, row, "its message is gone"));
        }
        loaded.unfinished.extend(found.into_keys());
        Ok(loaded)
    }

    fn names(&self, loaded: &mut Loaded) -> Result<HashMap<QueueId, Parts>, StoreError> {
        let mut found: HashMap<QueueId, Parts> = HashMap::new();
        let failed = |source| unreadable(&self.directory, source);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str().and_then(Part::of) {
                Some((id, part)) => found.entry(id).or_default().add(part),
                None if entry.file_type().map_err(failed)?.is_dir() => {}
                None => {
                    let name = name.to_string_lossy();
                    loaded.set_aside.push(self.set_aside(&name, "it is no file of the queue's"));
                }
            }
        }
        Ok(found)
    }

    /// Makes rows of entries that lie in files. True if there were any.
    fn adopt_files_of_older_builds(
        &self,
        found: &HashMap<QueueId, Parts>,
        loaded: &mut Loaded,
    ) -> Result<bool, StoreError> {
        let mut of_older: Vec<(QueueId, Parts)> =
            found.iter().filter(|(_, parts)| parts.has(Part::Record)).map(|(id, parts)| (*id, *parts)).collect();
        if of_older.is_empty() {
            return Ok(false);
        }
        of_older.sort_unstable_by_key(|(id, _)| *id);
        let mut known = BTreeSet::new();
        // A crash may have come between the rows and the removal of the files.
        self.rows.outlines(|outline| {
            known.insert(outline.id);
        })?;
        let mut entries = Vec::new();
        let mut adopted = Vec::new();
        for (id, parts) in of_older {
            if known.contains(&id) {
                adopted.push(id);
            } else if let Some(entry) = self.read_older(id, parts, loaded)? {
                adopted.push(id);
                entries.push(entry);
            }
        }
        // In the order they came.
        entries.sort_by_key(|entry| (entry.queued_unix_ms, entry.id));
        self.rows.insert_all(&entries)?;
        for id in &adopted {
            legacy::remove(&self.directory, *id).map_err(|source| unreadable(&self.path(*id, Part::Record), source))?;
        }
        if !entries.is_empty() {
            tracing::info!(entries = entries.len(), "moved the queue's entries from files into home.db");
        }
        Ok(true)
    }

    fn read_older(&self, id: QueueId, parts: Parts, loaded: &mut Loaded) -> Result<Option<Entry>, StoreError> {
        let mut set_aside = |part: Part, why: &str| {
            loaded.set_aside.push(self.set_aside(&format!("{id}{}", part.suffix()), why));
        };
        let entry = match legacy::read(&self.directory, id, legacy::RECORD) {
            Err(error) if error.is_damage() => {
                set_aside(Part::Record, &error.to_string());
                for part in [Part::Message, Part::MessageNew].into_iter().filter(|part| parts.has(*part)) {
                    set_aside(part, "its record is damaged");
                }
                return Ok(None);
            }
            other => other?,
        };
        if entry.finished_unix_ms.is_some() {
            return Ok(Some(entry));
        }
        if !parts.has(Part::Message) {
            if !parts.has(Part::MessageNew) {
                set_aside(Part::Record, "its message is gone");
            }
            // Else it was being taken: to be settled.
            return Ok(None);
        }
        let path = self.path(id, Part::Message);
        let octets = fs::metadata(&path).map_err(|source| unreadable(&path, source))?.len();
        if octets == entry.octets {
            return Ok(Some(entry));
        }
        set_aside(Part::Record, &format!("its message has {octets} octets, not {}", entry.octets));
        set_aside(Part::Message, "it is not whole");
        Ok(None)
    }

    /// Moves a file to `damaged/`, and says so.
    fn set_aside(&self, name: &str, why: &str) -> SetAside {
        let damaged = self.directory.join("damaged");
        let moved = durable::create_directory(&damaged)
            .and_then(|()| durable::rename(&self.directory.join(name), &damaged.join(name)))
            .and_then(|()| durable::sync_directory(&damaged));
        match moved {
            Ok(()) => tracing::error!(file = name, why, "a file of the queue was set aside in queue/damaged"),
            Err(error) => {
                tracing::error!(file = name, why, %error, "a damaged file of the queue could not be set aside");
            }
        }
        SetAside { name: name.to_owned(), why: why.to_owned() }
    }

    /// Sets an entry aside whose message was found damaged, or whose row was: the message, and what the row
    /// holds, as text.
    pub fn set_entry_aside(&self, id: QueueId, row: i64, why: &str) -> Vec<SetAside> {
        let mut set_aside = Vec::new();
        if self.path(id, Part::Message).symlink_metadata().is_ok() {
            set_aside.push(self.set_aside(&format!("{id}{}", Part::Message.suffix()), why));
        }
        let name = format!("{id}{}", legacy::RECORD);
        let damaged = self.directory.join("damaged");
        let written = self.rows.text(row).map_err(StoreError::from).and_then(|text| {
            durable::create_directory(&damaged)?;
            durable::write_file(&damaged.join(&name), &text)?;
            Ok(self.rows.remove(&[row])?)
        });
        match written {
            Ok(()) => tracing::error!(queue = %id, why, "an entry of the queue was set aside in queue/damaged"),
            Err(error) => tracing::error!(queue = %id, why, %error, "a damaged entry could not be set aside"),
        }
        set_aside.push(SetAside { name, why: why.to_owned() });
        set_aside
    }

    /// Writes and syncs the message with its entry, as `begin` leaves it, under a temporary name.
    pub fn prepare(
        &self,
        new: NewEntry,
        message: &Message,
        queued_unix_ms: i64,
        begin: impl FnOnce(&mut Entry),
    ) -> Result<(Entry, Draft), StoreError> {
        let id = new.id;
        let facts = parcel::facts(message).map_err(|source| unreadable(&self.path(id, Part::MessageNew), source))?;
        let mut entry = Entry::new(new, facts, queued_unix_ms);
        begin(&mut entry);
        let mut draft = self.draft(id)?;
        parcel::write(&mut draft, message, &entry)?;
        draft.sync()?;
        Ok((entry, draft))
    }

    /// A new file; one that a crash left under this name is replaced.
    fn draft(&self, id: QueueId) -> Result<Draft, DurableError> {
        let path = self.path(id, Part::MessageNew);
        match Draft::create(&path) {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                durable::remove(&path)?;
                Draft::create(&path)
            }
            other => other,
        }
    }

    /// Gives the file its name, and the entry its row, whose number it gives. Durable when it returns; if it
    /// fails, the file stays, to be settled.
    pub fn commit(&self, entry: &Entry, draft: Draft) -> Result<i64, StoreError> {
        draft.release();
        durable::rename(&self.path(entry.id, Part::MessageNew), &self.path(entry.id, Part::Message))?;
        self.sync()?;
        Ok(self.rows.insert(entry).wait()?)
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> Result<(), DurableError> {
        durable::sync_directory(&self.directory)
    }

    /// Finishes an entry whose message is whole, under whichever name; removes the remains of one whose message
    /// is not.
    pub fn settle(&self, id: QueueId) -> Result<Option<(i64, Entry)>, StoreError> {
        let Some((entry, part)) = self.whole(id)? else {
            self.remove(id)?;
            return Ok(None);
        };
        if part == Part::MessageNew {
            durable::rename(&self.path(id, part), &self.path(id, Part::Message))?;
        }
        self.sync()?;
        let row = self.rows.insert(&entry).wait()?;
        if let Err(error) = legacy::remove(&self.directory, id) {
            tracing::warn!(queue = %id, %error, "a file of an older build could not be removed");
        }
        Ok(Some((row, entry)))
    }

    /// An entry whose message is whole, and the message's name.
    fn whole(&self, id: QueueId) -> Result<Option<(Entry, Part)>, StoreError> {
        let of_older = legacy::first(&self.directory, id)?;
        for part in [Part::Message, Part::MessageNew] {
            let path = self.path(id, part);
            let entry = match File::open(&path).and_then(|file| whole(&file, of_older.as_ref())) {
                Ok(entry) => entry,
                Err(error) if tells_damage(&error) => None,
                Err(error) => return Err(unreadable(&path, error)),
            };
            if let Some(entry) = entry.filter(|entry| entry.id == id) {
                return Ok(Some((entry, part)));
            }
        }
        Ok(None)
    }

    /// Clears up what was left and nobody asked for.
    pub fn clear(&self, id: QueueId) -> Result<Cleared, StoreError> {
        if self.path(id, Part::Message).symlink_metadata().is_err() {
            self.remove(id)?;
            return Ok(Cleared::Removed);
        }
        if let Some((mut entry, Part::Message)) = self.whole(id)? {
            entry.held = Some(FOUND.to_owned());
            let row = self.rows.insert(&entry).wait()?;
            return Ok(Cleared::Found(row, Box::new(entry)));
        }
        self.set_aside(&format!("{id}{}", Part::Message.suffix()), "nothing says who gets it");
        Ok(Cleared::SetAside)
    }

    /// An entry as its row has it.
    pub fn entry(&self, row: i64) -> Result<Entry, StoreError> {
        self.rows.entry(row)
    }

    /// Replaces what its row has. Durable when it returns.
    pub fn write(&self, row: i64, entry: &Entry) -> Result<(), StoreError> {
        Ok(self.rows.update(row, entry).wait()?)
    }

    /// Tells of every row.
    pub fn outlines(&self, each: impl FnMut(Outline)) -> Result<(), StoreError> {
        Ok(self.rows.outlines(each)?)
    }

    /// Removes the message of a finished entry. Not synced: one that a crash brings back is removed at
    /// the next start.
    pub fn remove_message(&self, id: QueueId) -> io::Result<()> {
        match fs::remove_file(self.path(id, Part::Message)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_message_or_warn(&self, id: QueueId) {
        if let Err(error) = self.remove_message(id) {
            tracing::warn!(queue = %id, %error, "a finished message could not be removed");
        }
    }

    /// Removes the rows of entries that finished long ago. That their messages are gone is durable first: one
    /// that came back would be taken for one that waits.
    pub fn remove_finished(&self, rows: &[i64]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.sync()?;
        Ok(self.rows.remove(rows)?)
    }

    /// Removes every file of an entry: first those that tell that it may be finished.
    pub fn remove(&self, id: QueueId) -> Result<(), StoreError> {
        for part in [Part::MessageNew, Part::RecordNew, Part::Message, Part::Record] {
            durable::remove(&self.path(id, part))?;
        }
        Ok(())
    }

    /// The file of the message, to read from: its first octets, as many as the entry says.
    pub fn message(&self, id: QueueId) -> io::Result<File> {
        File::open(self.path(id, Part::Message))
    }
}

/// The entry of a message that is whole: the one behind it, or one of an older build's.
fn whole(file: &File, of_older: Option<&Entry>) -> io::Result<Option<Entry>> {
    let behind = parcel::entry(file)?;
    let older = || of_older.filter(|entry| file.metadata().is_ok_and(|file| file.len() == entry.octets)).cloned();
    let Some(entry) = behind.or_else(older) else { return Ok(None) };
    let facts = parcel::facts_of_file(file, entry.octets)?;
    Ok((facts.sha256 == entry.sha256).then_some(entry))
}
