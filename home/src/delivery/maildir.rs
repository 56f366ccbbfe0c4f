//! Maildir++ under `mail/<domain>/<local part>/`: written under `tmp/`, synced, renamed into `new/`, the
//! directory synced. Dovecot and mutt read it.
//!
//! Line ends stay CRLF, as they came: Dovecot and mutt take either, IMAP wants CRLF, signatures were
//! made over it, and a large body can be copied by the system without being read. The file's length
//! therefore is the message's (`S=`), on the wire too (`W=`).

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, Draft, DurableError};
use gatepost_runtime::random;

use super::usage::Usage;
use crate::mailbox::bells::Bells;
use crate::message::Message;

/// The folder for what was taken although it had to be refused.
const JUNK: &str = ".Junk";
/// Folders whose directories are known to be there; beyond them the memory starts anew.
const KNOWN_MAX: usize = 10_000;
/// A file left in `tmp/` this long belongs to nobody any more (the age is Maildir's own rule).
const TMP_AGE_MAX: Duration = Duration::from_hours(36);

/// One folder of one mailbox, as a path below `mail/`. Made only from addresses, so it never leaves it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Folder(Box<str>);

impl Folder {
    /// The inbox of a mailbox, named by its address's lookup key.
    pub fn inbox(mailbox: &str) -> Self {
        let (local, domain) = mailbox.rsplit_once('@').unwrap_or((mailbox, "_"));
        Self(format!("{}/{}", encode(domain), encode(local)).into_boxed_str())
    }

    /// The same mailbox's Junk.
    pub fn junk(mailbox: &str) -> Self {
        Self(format!("{}/{JUNK}", Self::inbox(mailbox).0).into_boxed_str())
    }

    /// The inbox of the mailbox it belongs to.
    pub fn mailbox(&self) -> Self {
        Self(self.0.strip_suffix(JUNK).and_then(|inbox| inbox.strip_suffix('/')).unwrap_or(&self.0).into())
    }

    /// True for the Junk of a mailbox.
    pub fn is_junk(&self) -> bool {
        self.0.strip_suffix(JUNK).is_some_and(|inbox| inbox.ends_with('/'))
    }

    /// The path below `mail/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads back what [`Folder::as_str`] gave; `None` if it could lead anywhere else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let good = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && !part.starts_with('.'));
        let whole = good(parts.next()) && good(parts.next()) && matches!(parts.next(), None | Some(JUNK));
        (whole && parts.next().is_none()).then(|| Self(text.into()))
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one copy lies, or will lie: a folder and the unique part of a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: Folder,
    /// The file's name, without the flags that mail clients append.
    pub name: String,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Under `tmp/`: its owner does not see it.
    Written,
    /// In `new/` or `cur/`.
    Delivered,
    /// Not there.
    Nowhere,
}

/// All mailboxes.
#[derive(Debug)]
pub struct Maildirs {
    root: PathBuf,
    host: String,
    // Makes names of this run differ from those of every other run with the same process id and time.
    run: String,
    counter: AtomicU64,
    known: Mutex<HashSet<Folder>>,
    usage: Usage,
    bells: Bells,
    clock: Clock,
}

impl Maildirs {
    /// `mail/` in the state directory. `hostname` ends every file name.
    pub fn new(state: &Path, hostname: &str, clock: Clock) -> Self {
        let run = format!("{:016x}", u64::from_be_bytes(random::bytes()));
        // The two characters the Maildir rules want away from names.
        let host = hostname.replace('/', "\\057").replace(':', "\\072");
        let usage = Usage::new(state, clock.clone());
        Self {
            root: state.join("mail"),
            host,
            run,
            counter: AtomicU64::new(0),
            known: Mutex::default(),
            usage,
            bells: Bells::default(),
            clock,
        }
    }

    /// The folder's directory.
    pub fn path(&self, folder: &Folder) -> PathBuf {
        self.root.join(folder.as_str())
    }

    /// What they hold.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What rings when something was delivered.
    pub fn bells(&self) -> &Bells {
        &self.bells
    }

    /// A new place for a message of so many octets.
    pub fn place(&self, folder: Folder, octets: u64) -> Place {
        let now = self.clock.unix();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}.M{}P{}Q{count}R{}.{},S={octets},W={octets}",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id(),
            self.run,
            self.host
        );
        Place { folder, name }
    }

    /// Makes the folder's directories if they are missing, durably. Blocking.
    pub fn ensure(&self, folder: &Folder) -> Result<(), DurableError> {
        if self.known().contains(folder) {
            return Ok(());
        }
        let path = self.path(folder);
        for part in ["tmp", "new", "cur"] {
            durable::create_directory(&path.join(part))?;
        }
        let marker = path.join("maildirfolder");
        if folder.as_str().ends_with(JUNK) && !marker.exists() {
            // Maildir++: tells deliverers that this is a folder of the mailbox above it.
            durable::write_file(&marker, b"")?;
        }
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(folder.clone());
        Ok(())
    }

    /// Writes a copy under `tmp/`, `fields` first, and syncs it. Blocking.
    pub fn write(&self, place: &Place, fields: Vec<u8>, message: &Message) -> Result<Draft, DurableError> {
        self.ensure(&place.folder)?;
        let mut draft = match Draft::create(&self.tmp(place)) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                // Its owner removed the folder behind our back.
                self.known().remove(&place.folder);
                self.ensure(&place.folder)?;
                Draft::create(&self.tmp(place))?
            }
            other => other?,
        };
        message.write_after(fields, &mut draft)?;
        draft.sync()?;
        Ok(draft)
    }

    /// Gives a copy that was written (and whose draft was released) its name in `new/`; durable after
    /// [`Maildirs::sync`]. Blocking.
    pub fn deliver(&self, place: &Place) -> Result<(), DurableError> {
        durable::rename(&self.tmp(place), &self.new_path(place))?;
        self.usage.add(place);
        Ok(())
    }

    /// Makes the names in the folder's `new/` durable, and tells who listens; many callers share a sync. Blocking.
    pub fn sync(&self, folder: &Folder) -> Result<(), DurableError> {
        let path = self.path(folder);
        durable::sync_directory(&path.join("new"))?;
        self.bells.ring(&path);
        Ok(())
    }

    /// Makes the names in the folder's `tmp/` durable. Blocking.
    pub fn sync_written(&self, folder: &Folder) -> Result<(), DurableError> {
        durable::sync_directory(&self.path(folder).join("tmp"))
    }

    /// Looks for a copy. Blocking.
    pub fn find(&self, place: &Place) -> Result<Found, io::Error> {
        if is_there(&self.new_path(place))? {
            return Ok(Found::Delivered);
        }
        if self.in_cur(place)? {
            return Ok(Found::Delivered);
        }
        // Last, so that one that is moved meanwhile is not missed: it only ever moves onwards.
        Ok(if is_there(&self.tmp(place))? { Found::Written } else { Found::Nowhere })
    }

    /// Removes a copy that was written and never delivered. Blocking.
    pub fn forget(&self, place: &Place) -> Result<(), DurableError> {
        durable::remove(&self.tmp(place))
    }

    /// Removes what stopped programs left under `tmp/` long ago; gives their number. Blocking; touches every mailbox.
    pub fn sweep(&self) -> usize {
        let mut swept = 0;
        for domain in directories(&self.root) {
            for mailbox in directories(&domain) {
                let folders = directories(&mailbox)
                    .into_iter()
                    .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
                for folder in folders.chain([mailbox.clone()]) {
                    swept += self.sweep_tmp(&folder.join("tmp"));
                }
            }
        }
        swept
    }

    fn sweep_tmp(&self, tmp: &Path) -> usize {
        let Ok(entries) = fs::read_dir(tmp) else { return 0 };
        let now = self.clock.unix();
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|found| found.modified()).ok();
            let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            since.is_some_and(|at| now.saturating_sub(at) > TMP_AGE_MAX)
        };
        entries.flatten().filter(old).filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
    }

    fn in_cur(&self, place: &Place) -> Result<bool, io::Error> {
        let entries = match fs::read_dir(self.path(&place.folder).join("cur")) {
            Ok(entries) => entries,
            Err(error) if is_nowhere(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let unique = name.as_encoded_bytes().split(|b| *b == b':').next();
            if unique == Some(place.name.as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn tmp(&self, place: &Place) -> PathBuf {
        self.path(&place.folder).join("tmp").join(&place.name)
    }

    fn new_path(&self, place: &Place) -> PathBuf {
        self.path(&place.folder).join("new").join(&place.name)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<Folder>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_there(path: &Path) -> Result<bool, io::Error> {
    path.try_exists().or_else(|error| if is_nowhere(&error) { Ok(false) } else { Err(error) })
}

/// Nothing is there, nor can be.
fn is_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// A name that is one safe path component: plain letters stay, anything odd becomes `%XX`.
fn encode(part: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(part.len());
    for (i, b) in part.bytes().enumerate() {
        if b.is_ascii_alphanumeric() || b"-_+=".contains(&b) || (b == b'.' && i > 0) {
            encoded.push(char::from(b));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{b:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Body;

    fn maildirs(state: &Path) -> Maildirs {
        Maildirs::new(state, "home.example.org", Clock::still(Duration::from_hours(500_000)))
    }

    fn message() -> Message {
        Message { front: Bytes::from_static(b"Received: x\r\n"), body: Body::from(b"Subject: y\r\n\r\nz\r\n".to_vec()) }
    }

    #[test]
    fn folders_never_leave_their_place() {
        for (mailbox, path) in [
            ("alice@example.org", "example.org/alice"),
            ("a.b+c@example.org", "example.org/a.b+c"),
            ("../../etc@example.org", "example.org/%2E.%2F..%2Fetc"),
            (".hidden@example.org", "example.org/%2Ehidden"),
            ("a b\0@example.org", "example.org/a%20b%00"),
            ("jörg@example.org", "example.org/j%C3%B6rg"),
            ("%41@example.org", "example.org/%2541"),
        ] {
            let folder = Folder::inbox(mailbox);
            assert_eq!(folder.as_str(), path);
            assert_eq!(Folder::parse(path), Some(folder));
        }
        let junk = Folder::junk("alice@example.org");
        assert_eq!(junk.mailbox(), Folder::inbox("alice@example.org"));
        assert_eq!(junk.mailbox().mailbox(), junk.mailbox());
        assert!(junk.is_junk() && !junk.mailbox().is_junk());
        assert_eq!(Folder::parse(junk.as_str()), Some(junk));
        for bad in ["", "a", "a/", "/etc/passwd", "../x", "a/..", "a/b/c", "a/b/.Junk/x", "a/.b"] {
            assert_eq!(Folder::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_delivery_is_seen_only_whole() {
        let state = tempfile::tempdir().expect("a folder");
        let maildirs = maildirs(state.path());
        let place = maildirs.place(Folder::inbox("alice@example.org"), message().octets() + 7);
        assert_eq!(maildirs.find(&place).expect("looked"), Found::Nowhere);
        let draft = maildirs.write(&place, b"X: y\r\n ".to_vec(), &message()).expect("written");
        assert_eq!(maildirs.find(&place).expect("looked"), Found::Written);
        draft.release();
        maildirs.deliver(&place).expect("renamed");
        maildirs.sync(&place.folder).expect("synced");
        assert_eq!(maildirs.find(&place).expect("looked"), Found::Delivered);
        let path = state.path().join("mail/example.org/alice/new").join(&place.name);
        let stored = fs::read(path).expect("there");
        assert!(stored.starts_with(b"X: y\r\n Received: x\r\nSubject: y\r\n"));
        assert!(place.name.contains(&format!(",S={}", stored.len())), "{}", place.name);
    }

    #[test]
    fn a_copy_is_found_where_a_mail_client_put_it() {
        let state = tempfile::tempdir().expect("a folder");
        let maildirs = maildirs(state.path());
        let place = maildirs.place(Folder::inbox("alice@example.org"), 1);
        let draft = maildirs.write(&place, Vec::new(), &message()).expect("written");
        draft.release();
        maildirs.deliver(&place).expect("renamed");
        let folder = maildirs.path(&place.folder);
        durable::rename(&folder.join("new").join(&place.name), &folder.join("cur").join(format!("{}:2,S", place.name)))
            .expect("moved");
        assert_eq!(maildirs.find(&place).expect("looked"), Found::Delivered);
        let other = maildirs.place(Folder::inbox("alice@example.org"), 1);
        assert_eq!(maildirs.find(&other).expect("looked"), Found::Nowhere);
    }

    #[test]
    fn names_are_unique_and_hold_no_separator() {
        let state = tempfile::tempdir().expect("a folder");
        let (one, other) = (maildirs(state.path()), maildirs(state.path()));
        let folder = Folder::inbox("alice@example.org");
        let names: HashSet<String> =
            (0..100).flat_map(|_| [one.place(folder.clone(), 1).name, other.place(folder.clone(), 1).name]).collect();
        assert_eq!(names.len(), 200);
        assert!(names.iter().all(|name| !name.contains([':', '/'])));
    }

    #[test]
    fn a_folder_removed_by_its_owner_is_made_again() {
        let state = tempfile::tempdir().expect("a folder");
        let maildirs = maildirs(state.path());
        let folder = Folder::junk("alice@example.org");
        maildirs.ensure(&folder).expect("made");
        assert!(maildirs.path(&folder).join("maildirfolder").exists());
        fs::remove_dir_all(maildirs.path(&folder)).expect("removed");
        let place = maildirs.place(folder, 1);
        maildirs.write(&place, Vec::new(), &message()).expect("written");
    }

    #[test]
    fn only_old_leftovers_are_swept() {
        let state = tempfile::tempdir().expect("a folder");
        let now = fs::metadata(state.path()).and_then(|found| found.modified()).expect("a time");
        let now = now.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let clock = Clock::still(now);
        let maildirs = Maildirs::new(state.path(), "h", clock.clone());
        let place = maildirs.place(Folder::inbox("alice@example.org"), 1);
        let draft = maildirs.write(&place, Vec::new(), &message()).expect("written");
        clock.turn(TMP_AGE_MAX.saturating_sub(Duration::from_mins(1)));
        assert_eq!(maildirs.sweep(), 0);
        clock.turn(Duration::from_mins(2));
        assert_eq!(maildirs.sweep(), 1);
        drop(draft);
    }
}
