//! What our own mailboxes hold, without walking through them for each message: what is delivered is added, and a
//! folder is read again only when it has changed. The size of a message stands in its file's name (`S=`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use gatepost_runtime::clock::Clock;

use super::maildir::{Folder, Place};

/// A folder changed less than this before it was read may have changed again within the same tick of its
/// file system's clock.
const TICK: Duration = Duration::from_secs(2);

/// What mailboxes hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Usage {
    root: Arc<Path>,
    clock: Clock,
    mailboxes: Arc<Mutex<HashMap<Folder, Arc<Mailbox>>>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    // Held while it is read.
    parts: Mutex<HashMap<PathBuf, Part>>,
    octets: Mutex<Option<u64>>,
}

/// `new` or `cur` of one folder.
#[derive(Clone, Copy, Debug)]
struct Part {
    modified: SystemTime,
    // It can't have changed since without showing it.
    steady: bool,
    octets: u64,
}

impl Usage {
    /// Of `mail/` in the state directory; nothing is read yet.
    pub fn new(state: &Path, clock: Clock) -> Self {
        Self { root: state.join("mail").into(), clock, mailboxes: Arc::default() }
    }

    /// What a mailbox held when it was last counted, and what was delivered since. `None`: it never was.
    pub fn known(&self, mailbox: &str) -> Option<u64> {
        *lock(&self.mailboxes().get(&Folder::inbox(mailbox))?.octets)
    }

    /// What it holds, in octets; reads what has changed. Blocking. One that is not there holds nothing.
    pub fn count(&self, mailbox: &str) -> io::Result<u64> {
        let inbox = Folder::inbox(mailbox);
        let tracked = Arc::clone(self.mailboxes().entry(inbox.clone()).or_default());
        let mut parts = lock(&tracked.parts);
        let path = self.root.join(inbox.as_str());
        let mut found = HashMap::with_capacity(parts.len());
        for folder in folders(&path)? {
            for name in ["new", "cur"] {
                let part = folder.join(name);
                if let Some(counted) = self.count_part(&part, parts.get(&part))? {
                    found.insert(part, counted);
                }
            }
        }
        let octets = found.values().map(|part| part.octets).sum();
        *parts = found;
        *lock(&tracked.octets) = Some(octets);
        Ok(octets)
    }

    /// A copy was delivered; counts only where somebody counts.
    pub fn add(&self, place: &Place) {
        let Some(tracked) = self.mailboxes().get(&place.folder.mailbox()).cloned() else { return };
        if let Some(octets) = lock(&tracked.octets).as_mut() {
            *octets = octets.saturating_add(size_in(&place.name).unwrap_or(0));
        }
    }

    /// Forgets mailboxes that nobody counts any more.
    pub fn keep_only(&self, mailboxes: impl Iterator<Item = String>) {
        let kept: std::collections::HashSet<Folder> = mailboxes.map(|mailbox| Folder::inbox(&mailbox)).collect();
        self.mailboxes().retain(|folder, _| kept.contains(folder));
    }

    /// What one directory holds; read only if it changed since `before`. `None`: it is not there.
    fn count_part(&self, path: &Path, before: Option<&Part>) -> io::Result<Option<Part>> {
        let modified = match fs::metadata(path).and_then(|found| found.modified()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            modified => modified?,
        };
        if let Some(before) = before.filter(|before| before.steady && before.modified == modified) {
            return Ok(Some(*before));
        }
        let mut octets = 0u64;
        let began = self.clock.unix();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let size = match entry.file_name().to_str().and_then(size_in) {
                Some(size) => size,
                // Put there by another program; gone again meanwhile, it holds nothing.
                None => entry.metadata().map_or(0, |found| found.len()),
            };
            octets = octets.saturating_add(size);
        }
        let steady = (SystemTime::UNIX_EPOCH + began).duration_since(modified).is_ok_and(|age| age > TICK);
        Ok(Some(Part { modified, steady, octets }))
    }

    fn mailboxes(&self) -> MutexGuard<'_, HashMap<Folder, Arc<Mailbox>>> {
        lock(&self.mailboxes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mailbox itself and the folders in it (Maildir++).
fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![path.to_owned()];
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") && entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// The size that stands in a file's name.
fn size_in(name: &str) -> Option<u64> {
    let (_, rest) = name.split_once(",S=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::maildir::Maildirs;

    const ALICE: &str = "alice@example.org";

    fn put(state: &Path, folder: &str, name: &str, octets: usize) -> PathBuf {
        let path = state.join("mail/example.org/alice").join(folder);
        fs::create_dir_all(&path).expect("made");
        fs::write(path.join(name), vec![b'x'; octets]).expect("written");
        path.join(name)
    }

    #[test]
    fn every_folder_counts_by_its_names_or_its_files_and_tmp_does_not() {
        let state = tempfile::tempdir().expect("a folder");
        let usage = Usage::new(state.path(), Clock::real());
        assert_eq!(usage.known(ALICE), None);
        assert_eq!(usage.count(ALICE).expect("counted"), 0, "nothing is there yet");
        put(state.path(), "new", "1.M1.host,S=1000,W=1000", 1);
        put(state.path(), "cur", "2.M1.host,S=200,W=200:2,S", 1);
        put(state.path(), ".Sent/cur", "3.M1.host:2,S", 30);
        put(state.path(), ".Junk/new", "4.M1.host,S=4", 1);
        put(state.path(), "tmp", "5.M1.host,S=9999", 1);
        assert_eq!(usage.count(ALICE).expect("counted"), 1234);
        assert_eq!(usage.known(ALICE), Some(1234));
        usage.keep_only(std::iter::empty());
        assert_eq!(usage.known(ALICE), None);
    }

    #[test]
    fn what_changes_at_once_is_seen_at_once() {
        let state = tempfile::tempdir().expect("a folder");
        let usage = Usage::new(state.path(), Clock::real());
        let mut sum = 0;
        let mut paths = Vec::new();
        for n in 1..20 {
            paths.push(put(state.path(), "new", &format!("{n}.host,S={n}"), 1));
            sum += n;
            assert_eq!(usage.count(ALICE).expect("counted"), sum);
        }
        for path in paths {
            fs::remove_file(path).expect("removed");
        }
        assert_eq!(usage.count(ALICE).expect("counted"), 0);
    }

    #[test]
    fn a_folder_that_stands_still_is_not_read_again() {
        let state = tempfile::tempdir().expect("a folder");
        let real = Clock::real().unix();
        let usage = Usage::new(state.path(), Clock::still(real + TICK * 5));
        let path = put(state.path(), "cur", "1.host,S=10", 1);
        assert_eq!(usage.count(ALICE).expect("counted"), 10);
        // Changed behind the back of its folder, which shows nothing.
        let folder = path.parent().expect("a folder");
        let modified = fs::metadata(folder).and_then(|found| found.modified()).expect("a time");
        put(state.path(), "cur", "2.host,S=7", 1);
        fs::File::open(folder).and_then(|file| file.set_modified(modified)).expect("set back");
        assert_eq!(usage.count(ALICE).expect("counted"), 10);
        put(state.path(), "cur", "3.host,S=5", 1);
        assert_eq!(usage.count(ALICE).expect("counted"), 22);
    }

    #[test]
    fn what_is_delivered_is_added_where_somebody_counts() {
        let state = tempfile::tempdir().expect("a folder");
        let usage = Usage::new(state.path(), Clock::real());
        let maildirs = Maildirs::new(state.path(), "home.example.org", Clock::real());
        let junk = maildirs.place(Folder::junk(ALICE), 321);
        usage.add(&junk);
        assert_eq!(usage.known(ALICE), None);
        usage.count(ALICE).expect("counted");
        usage.add(&junk);
        usage.add(&maildirs.place(Folder::inbox(ALICE), 1000));
        usage.add(&maildirs.place(Folder::inbox("bob@example.org"), 1000));
        assert_eq!(usage.known(ALICE), Some(1321));
    }
}
