//! The queue's files. An entry is two in `queue/`: `<id>.eml`, the message, and `<id>.json`, the
//! rest ([`record`]). Both are written and synced as `….new` first. The JSON of an entry that is
//! finished stays for a while without a message, so that a repeat is recognised. Files that can't
//! be used go to `queue/damaged/`, never away; a file that only can't be read now is no such file.
//! Blocking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use gatepost_runtime::durable::{self, Draft, DurableError};

use super::entry::record::{self, RECORD_OCTETS_MAX};
use super::entry::{Entry, MessageFacts};
use super::{NewEntry, QueueId, SetAside};
use crate::message::Message;

/// Octets read at a time.
const CHUNK_OCTETS: usize = 256 * 1024;

/// The four names an entry's files can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Message,
    MessageNew,
    Record,
    RecordNew,
}

impl Part {
    const ALL: [(Self, &str); 4] = [
        (Self::Message, ".eml"),
        (Self::MessageNew, ".eml.new"),
        (Self::Record, ".json"),
        (Self::RecordNew, ".json.new"),
    ];

    fn suffix(self) -> &'static str {
        Self::ALL.iter().find(|(part, _)| *part == self).map_or("", |(_, suffix)| suffix)
    }

    fn of(name: &str) -> Option<(QueueId, Self)> {
        Self::ALL.iter().find_map(|(part, suffix)| Some((QueueId::parse(name.strip_suffix(suffix)?)?, *part)))
    }
}

/// The directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

/// What lies there at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries in the queue.
    pub entries: Vec<Entry>,
    /// Entries that are finished, and since when.
    pub finished: Vec<(QueueId, i64)>,
    /// Prepared and not, or not wholly, committed: to be settled, or removed when nobody asks for them.
    pub unfinished: BTreeSet<QueueId>,
    /// What was set aside.
    pub set_aside: Vec<SetAside>,
}

/// Why a record gives no entry.
enum Unread {
    /// What is wrong with it, for people.
    Damaged(String),
    /// The system can't read it, now.
    Failed(DurableError),
}

/// True if an error of reading tells that the file is gone or torn. Any other (too many open files, no
/// permission, a bad disk) says nothing of its contents: another time it may be read.
pub fn tells_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Both files, synced, under temporary names. Dropped before [`Store::commit`], they are removed.
#[derive(Debug)]
pub struct Drafts {
    message: Draft,
    record: Draft,
}

impl Store {
    /// `queue/` in the state directory, made if missing.
    pub fn open(state: &Path) -> Result<Self, DurableError> {
        let directory = state.join("queue");
        durable::create_directory(&directory)?;
        durable::sweep(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, id: QueueId, part: Part) -> PathBuf {
        self.directory.join(format!("{id}{}", part.suffix()))
    }

    /// Reads everything, sets aside what can't be used, finishes removals a crash cut short. An error is a file
    /// that can't be read: what waits must not stay out of the queue unnoticed.
    pub fn load(&self) -> Result<Loaded, DurableError> {
        let mut loaded = Loaded::default();
        let mut found: BTreeMap<QueueId, BTreeSet<Part>> = BTreeMap::new();
        let failed = |source| DurableError { action: "read", path: self.directory.clone(), source };
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                continue;
            }
            let name = entry.file_name();
            match name.to_str().and_then(Part::of) {
                Some((id, part)) => {
                    found.entry(id).or_default().insert(part);
                }
                None => self.set_aside(&name.to_string_lossy(), "it is no file of the queue's", &mut loaded),
            }
        }
        for (id, parts) in found {
            self.load_one(id, &parts, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load_one(&self, id: QueueId, parts: &BTreeSet<Part>, loaded: &mut Loaded) -> Result<(), DurableError> {
        let has = |part| parts.contains(&part);
        let name = |part: Part| format!("{id}{}", part.suffix());
        if !has(Part::Record) {
            if has(Part::MessageNew) || has(Part::RecordNew) {
                loaded.unfinished.insert(id);
            } else {
                self.set_aside(&name(Part::Message), "nothing says who gets it", loaded);
            }
            return Ok(());
        }
        match self.read_record(id, Part::Record) {
            Ok(entry) if entry.finished_unix_ms.is_some() => {
                // The removal of its message was cut short, or undone by the crash.
                if let Err(error) = self.remove_message(id) {
                    tracing::warn!(trace = %entry.trace, queue = %id, %error, "a finished message could not be removed");
                }
                loaded.finished.push((id, entry.finished_unix_ms.unwrap_or_default()));
            }
            Ok(entry) => match self.message_octets(id, Part::Message) {
                Ok(octets) if octets == entry.octets => loaded.entries.push(entry),
                Ok(octets) => {
                    let why = format!("its message has {octets} octets, not {}", entry.octets);
                    self.set_aside(&name(Part::Record), &why, loaded);
                    self.set_aside(&name(Part::Message), "it is not whole", loaded);
                }
                Err(error) if !tells_damage(&error) => return Err(self.unreadable(id, Part::Message, error)),
                Err(_) if has(Part::MessageNew) => {
                    loaded.unfinished.insert(id);
                }
                Err(_) => self.set_aside(&name(Part::Record), "its message is gone", loaded),
            },
            Err(Unread::Failed(error)) => return Err(error),
            Err(Unread::Damaged(why)) => {
                self.set_aside(&name(Part::Record), &why, loaded);
                for part in [Part::Message, Part::MessageNew] {
                    if has(part) {
                        self.set_aside(&name(part), "its record is damaged", loaded);
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves a file to `damaged/`, and says so.
    fn set_aside(&self, name: &str, why: &str, loaded: &mut Loaded) {
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
        loaded.set_aside.push(SetAside { name: name.to_owned(), why: why.to_owned() });
    }

    /// Sets both files of an entry aside: its message was found damaged.
    pub fn set_entry_aside(&self, id: QueueId, why: &str) -> Vec<SetAside> {
        let mut loaded = Loaded::default();
        for part in [Part::Record, Part::Message] {
            self.set_aside(&format!("{id}{}", part.suffix()), why, &mut loaded);
        }
        loaded.set_aside
    }

    /// Writes and syncs both files under temporary names.
    pub fn prepare(
        &self,
        new: NewEntry,
        message: &Message,
        queued_unix_ms: i64,
        begin: impl FnOnce(&mut Entry),
    ) -> Result<(Entry, Drafts), DurableError> {
        let id = new.id;
        let mut draft = self.draft(id, Part::MessageNew)?;
        message.write_to(&mut draft)?;
        let facts = facts(draft.file()).map_err(|source| DurableError {
            action: "read",
            path: self.path(id, Part::MessageNew),
            source,
        })?;
        let mut entry = Entry::new(new, facts, queued_unix_ms);
        begin(&mut entry);
        let mut record = self.draft(id, Part::RecordNew)?;
        record.write(&record::encode(&entry))?;
        draft.sync()?;
        record.sync()?;
        Ok((entry, Drafts { message: draft, record }))
    }

    /// A new file; one that a crash left under this name is replaced.
    fn draft(&self, id: QueueId, part: Part) -> Result<Draft, DurableError> {
        let path = self.path(id, part);
        match Draft::create(&path) {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                durable::remove(&path)?;
                Draft::create(&path)
            }
            other => other,
        }
    }

    /// Gives both files their names. Durable when it returns; if it fails, the files stay, to be settled.
    pub fn commit(&self, id: QueueId, drafts: Drafts) -> Result<(), DurableError> {
        drafts.message.release();
        drafts.record.release();
        durable::rename(&self.path(id, Part::MessageNew), &self.path(id, Part::Message))?;
        durable::rename(&self.path(id, Part::RecordNew), &self.path(id, Part::Record))?;
        self.sync()
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> Result<(), DurableError> {
        durable::sync_directory(&self.directory)
    }

    /// Finishes an entry whose files are whole, under whichever names; removes the remains of one whose files
    /// are not.
    pub fn settle(&self, id: QueueId) -> Result<Option<Entry>, DurableError> {
        let Some((entry, record, message)) = self.whole(id)? else {
            self.remove(id)?;
            return Ok(None);
        };
        if message == Part::MessageNew {
            durable::rename(&self.path(id, message), &self.path(id, Part::Message))?;
        }
        if record == Part::RecordNew {
            durable::rename(&self.path(id, record), &self.path(id, Part::Record))?;
        }
        durable::sync_directory(&self.directory)?;
        Ok(Some(entry))
    }

    /// The first record of an entry that has its message, and the names of both.
    fn whole(&self, id: QueueId) -> Result<Option<(Entry, Part, Part)>, DurableError> {
        for record in [Part::Record, Part::RecordNew] {
            let entry = match self.read_record(id, record) {
                Ok(entry) => entry,
                Err(Unread::Damaged(_)) => continue,
                Err(Unread::Failed(error)) => return Err(error),
            };
            for message in [Part::Message, Part::MessageNew] {
                if self.digest_fits(id, message, &entry)? {
                    return Ok(Some((entry, record, message)));
                }
            }
        }
        Ok(None)
    }

    /// Replaces the record. Durable when it returns.
    pub fn write(&self, entry: &Entry) -> Result<(), DurableError> {
        durable::write_file(&self.path(entry.id, Part::Record), &record::encode(entry))
    }

    /// Removes the message of a finished entry. Not synced: one that a crash brings back is removed at
    /// the next start.
    pub fn remove_message(&self, id: QueueId) -> io::Result<()> {
        match fs::remove_file(self.path(id, Part::Message)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes the record of an entry that finished long ago. Not synced, for the same reason.
    pub fn remove_finished(&self, id: QueueId) -> io::Result<()> {
        match fs::remove_file(self.path(id, Part::Record)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes every file of an entry, its record last.
    pub fn remove(&self, id: QueueId) -> Result<(), DurableError> {
        for part in [Part::MessageNew, Part::RecordNew, Part::Message, Part::Record] {
            durable::remove(&self.path(id, part))?;
        }
        Ok(())
    }

    /// The message, to read from.
    pub fn message(&self, id: QueueId) -> io::Result<File> {
        File::open(self.path(id, Part::Message))
    }

    fn message_octets(&self, id: QueueId, part: Part) -> io::Result<u64> {
        fs::metadata(self.path(id, part)).map(|metadata| metadata.len())
    }

    fn digest_fits(&self, id: QueueId, part: Part, entry: &Entry) -> Result<bool, DurableError> {
        match File::open(self.path(id, part)).and_then(|file| facts(&file)) {
            Ok(facts) => Ok(facts.octets == entry.octets && facts.sha256 == entry.sha256),
            Err(error) if tells_damage(&error) => Ok(false),
            Err(error) => Err(self.unreadable(id, part, error)),
        }
    }

    fn read_record(&self, id: QueueId, part: Part) -> Result<Entry, Unread> {
        let mut bytes = Vec::new();
        let read =
            File::open(self.path(id, part)).and_then(|file| file.take(RECORD_OCTETS_MAX).read_to_end(&mut bytes));
        match read {
            Err(error) if tells_damage(&error) => return Err(Unread::Damaged(format!("it can't be read: {error}"))),
            Err(error) => return Err(Unread::Failed(self.unreadable(id, part, error))),
            Ok(_) => {}
        }
        let entry = record::decode(&bytes).map_err(|error| Unread::Damaged(error.to_string()))?;
        if entry.id == id { Ok(entry) } else { Err(Unread::Damaged(format!("it is the record of {}", entry.id))) }
    }

    fn unreadable(&self, id: QueueId, part: Part, source: io::Error) -> DurableError {
        DurableError { action: "read", path: self.path(id, part), source }
    }
}

/// Reads a whole message for its digest.
fn facts(file: &File) -> io::Result<MessageFacts> {
    let mut digest = Context::new(&SHA256);
    let mut facts = MessageFacts { octets: 0, eight_bit: false, sha256: [0; 32] };
    // One octet more than there should be, so that the end is found by the second read.
    let octets = usize::try_from(file.metadata()?.len()).unwrap_or(CHUNK_OCTETS);
    let mut buffer = vec![0; CHUNK_OCTETS.min(octets + 1)];
    loop {
        match file.read_at(&mut buffer, facts.octets) {
            Ok(0) => break,
            Ok(count) => {
                digest.update(&buffer[..count]);
                facts.eight_bit |= !buffer[..count].is_ascii();
                facts.octets += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    facts.sha256.copy_from_slice(digest.finish().as_ref());
    Ok(facts)
}
