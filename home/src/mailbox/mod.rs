//! Mailboxes as Maildir++: the files are the truth and stay usable by other programs at the same time; [`index`] keeps what
//! files can't say. One [`Mailbox`] an account, in memory only while somebody has it open; every call blocks, and is made off the
//! async threads.

pub mod bells;
mod change;
pub mod folder;
pub mod index;
mod keywords;
pub mod message;
pub mod name;
mod tree;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, DurableError};
use gatepost_runtime::random;
use thiserror::Error;
use tokio::sync::watch;

pub use self::change::{Added, Change, Copied};
pub use self::keywords::Words;
pub use self::tree::{Listed, Use};

use self::bells::Bells;
use self::folder::{Folder, Message, Numbers};
use self::index::{Index, Structure};
use self::name::FolderName;

/// Why a mailbox did not do what it was asked.
#[derive(Debug, Error)]
pub enum MailboxError {
    /// It is not there.
    #[error("there is no such folder")]
    NoSuchFolder,
    /// It is there already.
    #[error("there is such a folder already")]
    Exists,
    /// It can't be done.
    #[error("{0}")]
    Cannot(&'static str),
    /// No number is left, or no letter for a keyword.
    #[error("the folder has no room for that")]
    Full,
    /// The index.
    #[error("the index: {0}")]
    Index(#[from] rusqlite::Error),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// The disk.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl MailboxError {
    /// True if the disk (or quota) is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Durable(error) => error.is_full(),
            Self::Disk(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            Self::Index(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::NoSuchFolder | Self::Exists | Self::Cannot(_) | Self::Full => false,
        }
    }
}

/// All mailboxes that are open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: Mutex<HashMap<PathBuf, Weak<Mailbox>>>,
    bells: Bells,
    names: Arc<Names>,
    clock: Clock,
}

/// What makes names of files.
#[derive(Debug)]
struct Names {
    host: String,
    run: String,
    counter: AtomicU64,
}

impl Mailboxes {
    /// None is open. Whoever delivers rings `bells`; `hostname` ends every file name.
    pub fn new(bells: Bells, hostname: &str, clock: Clock) -> Self {
        let host = hostname.replace('/', "\\057").replace(':', "\\072").replace(',', "\\054");
        let run = format!("{:016x}", u64::from_be_bytes(random::bytes()));
        let names = Arc::new(Names { host, run, counter: AtomicU64::new(0) });
        Self(Arc::new(Inner { open: Mutex::default(), bells, names, clock }))
    }

    /// The mailbox in this directory; made with its usual folders if it has no index yet.
    pub fn open(&self, path: &Path) -> Result<Arc<Mailbox>, MailboxError> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailbox) = open.get(path).and_then(Weak::upgrade) {
            return Ok(mailbox);
        }
        open.retain(|_, mailbox| mailbox.strong_count() > 0);
        let mailbox = Arc::new(Mailbox::open(&self.0, path)?);
        open.insert(path.to_owned(), Arc::downgrade(&mailbox));
        Ok(mailbox)
    }
}

/// One mailbox.
#[derive(Debug)]
pub struct Mailbox {
    path: PathBuf,
    names: Arc<Names>,
    bells: Bells,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    index: Index,
    folders: HashMap<FolderName, Folder>,
}

/// A folder as somebody who opens it sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// Its numbers.
    pub numbers: Numbers,
    /// UIDs, ascending.
    pub uids: Vec<u32>,
    /// The keywords it knows.
    pub words: Words,
}

impl Mailbox {
    fn open(inner: &Inner, path: &Path) -> Result<Self, MailboxError> {
        for part in ["tmp", "new", "cur"] {
            durable::create_directory(&path.join(part))?;
        }
        let is_fresh = !path.join(index::FILE).exists();
        let index = Index::open(path, inner.clock.latest_s())?;
        let mailbox = Self {
            path: path.to_owned(),
            names: Arc::clone(&inner.names),
            bells: inner.bells.clone(),
            clock: inner.clock.clone(),
            state: Mutex::new(State { index, folders: HashMap::new() }),
        };
        if is_fresh {
            mailbox.make_usual()?;
        }
        Ok(mailbox)
    }

    /// Where a folder lies.
    pub fn directory(&self, folder: &FolderName) -> PathBuf {
        if folder.is_inbox() { self.path.clone() } else { self.path.join(folder.directory()) }
    }

    /// Hears of changes of a folder.
    pub fn listen(&self, folder: &FolderName) -> watch::Receiver<u64> {
        self.bells.listen(&self.directory(folder))
    }

    /// Looks at a folder, and shows it.
    pub fn view(&self, folder: &FolderName) -> Result<View, MailboxError> {
        let words = self.words(folder)?;
        self.with(folder, |folder, _| {
            let uids = folder.messages.iter().map(|message| message.uid).collect();
            Ok(View { numbers: folder.numbers, uids, words })
        })
    }

    /// Looks at a folder, and lets its messages be seen.
    pub fn see<T>(&self, folder: &FolderName, see: impl FnOnce(&Folder) -> T) -> Result<T, MailboxError> {
        self.with(folder, |folder, _| Ok(see(folder)))
    }

    /// Lets its messages be seen as they were when it was last looked at.
    pub fn recall<T>(&self, folder: &FolderName, see: impl FnOnce(&Folder) -> T) -> Result<T, MailboxError> {
        let mut state = self.state();
        let State { index, folders } = &mut *state;
        let folder = match folders.entry(folder.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let loaded = Folder::load(index, entry.key())?;
                entry.insert(loaded)
            }
        };
        Ok(see(folder))
    }

    /// What was read out of a message; read now if it was not yet. Nothing for one that is gone.
    pub fn structures(&self, folder: &FolderName, uids: &[u32]) -> Result<HashMap<u32, Structure>, MailboxError> {
        let (mut known, mut unknown) = (HashMap::with_capacity(uids.len()), Vec::new());
        let id = {
            let state = self.state();
            let Some(open) = state.folders.get(folder) else { return Ok(known) };
            for uid in uids {
                match state.index.structure(open.numbers.id, *uid)? {
                    Some(structure) => drop(known.insert(*uid, structure)),
                    None => unknown.push(*uid),
                }
            }
            open.numbers.id
        };
        let mut fresh = Vec::with_capacity(unknown.len());
        for uid in unknown {
            if let Some(octets) = self.read(folder, uid)? {
                fresh.push((uid, message::structure(&octets)));
            }
        }
        if !fresh.is_empty() {
            self.state().index.keep_structures(id, &fresh)?;
            known.extend(fresh);
        }
        Ok(known)
    }

    /// A whole message with CR LF line ends; `None` if it is gone. It is found where other programs moved it meanwhile.
    pub fn read(&self, folder: &FolderName, uid: u32) -> Result<Option<Vec<u8>>, MailboxError> {
        let directory = self.directory(folder);
        for looked in [false, true] {
            let find = |folder: &Folder| folder.get(uid).map(Message::path);
            let found = if looked { self.see(folder, find)? } else { self.recall(folder, find)? };
            let Some(path) = found else { return Ok(None) };
            match std::fs::read(directory.join(path)) {
                Ok(octets) => return Ok(Some(message::with_line_ends(octets))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Works on a folder that was just looked at.
    fn with<T>(
        &self,
        name: &FolderName,
        work: impl FnOnce(&mut Folder, &mut Index) -> Result<T, MailboxError>,
    ) -> Result<T, MailboxError> {
        let mut state = self.state();
        let State { index, folders } = &mut *state;
        let directory = self.directory(name);
        if !folders.contains_key(name) {
            if !directory.join("cur").is_dir() {
                return Err(MailboxError::NoSuchFolder);
            }
            folders.insert(name.clone(), Folder::load(index, name)?);
        }
        let Some(folder) = folders.get_mut(name) else { return Err(MailboxError::NoSuchFolder) };
        let done = folder.look(index, &directory, self.clock.unix()).and_then(|changed| {
            if changed {
                self.bells.ring(&directory);
            }
            work(folder, index)
        });
        if done.is_err() {
            // What is in memory may be ahead of what is written down.
            folders.remove(name);
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
