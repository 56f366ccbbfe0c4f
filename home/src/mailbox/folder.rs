//! One folder in memory, for as long as somebody has it open: its messages in the order of their UIDs, kept equal to what
//! lies on disk. Whatever another program does there is found by looking: a file is known by the unique part of its name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::MailboxError;
use super::index::{self, Index};
use super::name::{self, Info};

/// A directory changed less than this before it was read may have changed again within the same tick of its file
/// system's clock.
const TICK: Duration = Duration::from_secs(2);
/// Octets read of a file at once.
const READ_OCTETS: usize = 64 * 1024;

/// What a folder's numbers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// In the index.
    pub id: i64,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// HIGHESTMODSEQ.
    pub modseq: u64,
    /// When its directories were read.
    pub stamp: Stamp,
}

/// The moments `new/` and `cur/` last changed before they were read, in nanoseconds; 0: to be read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// `new/`.
    pub new: i64,
    /// `cur/`.
    pub cur: i64,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// UID.
    pub uid: u32,
    /// MODSEQ of its last change.
    pub modseq: u64,
    /// Octets with CR LF line ends.
    pub octets: u64,
    /// Internal date, seconds since 1970.
    pub date_s: i64,
    /// It lies in `new/`: no program has taken notice of it.
    pub is_new: bool,
    /// Flags and keywords.
    pub info: Info,
    /// The whole name of its file.
    pub file: Box<str>,
}

impl Message {
    /// The part of its file's name that stays.
    pub fn unique(&self) -> &str {
        name::parse(&self.file).0
    }

    /// Where it lies, below its folder.
    pub fn path(&self) -> String {
        format!("{}/{}", if self.is_new { "new" } else { "cur" }, self.file)
    }
}

/// A folder.
#[derive(Debug)]
pub struct Folder {
    /// Its numbers.
    pub numbers: Numbers,
    /// By UID.
    pub messages: Vec<Message>,
}

/// One file that was found.
struct Found {
    is_new: bool,
    file: Box<str>,
}

impl Folder {
    /// As it was left, not looked at yet.
    pub fn load(index: &mut Index, folder: &name::FolderName) -> Result<Self, MailboxError> {
        let (numbers, messages) = index.load(folder)?;
        Ok(Self { numbers, messages })
    }

    /// The message of this UID.
    pub fn get(&self, uid: u32) -> Option<&Message> {
        self.messages.binary_search_by_key(&uid, |message| message.uid).ok().map(|at| &self.messages[at])
    }

    /// Looks at the disk; true if something is different from before. What is different is in the index when this returns.
    /// Blocking.
    pub fn look(&mut self, index: &mut Index, path: &Path, now: Duration) -> Result<bool, MailboxError> {
        let stamp = stamp(path, now)?;
        if stamp.changed == self.numbers.stamp && stamp.changed != Stamp::default() {
            return Ok(false);
        }
        // `new` first: a message that is moved meanwhile goes from there to `cur`.
        let mut found = HashMap::with_capacity(self.messages.len() + 16);
        read(&path.join("new"), true, &mut found)?;
        read(&path.join("cur"), false, &mut found)?;
        let missing = |found: &HashMap<Box<str>, Found>, messages: &[Message]| {
            messages.iter().any(|message| !found.contains_key(message.unique()))
        };
        if missing(&found, &self.messages) {
            // One that was renamed while its directory was read may have been missed: it is looked for again.
            read(&path.join("cur"), false, &mut found)?;
        }
        let before = self.numbers;
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let next = self.numbers.modseq + 1;
        self.messages.retain_mut(|message| {
            let Some(there) = found.remove(message.unique()) else {
                gone.push(message.uid);
                return false;
            };
            if there.file != message.file || there.is_new != message.is_new {
                let info = name::parse(&there.file).1;
                if info != message.info {
                    message.info = info;
                    message.modseq = next;
                }
                (message.is_new, message.file) = (there.is_new, there.file);
                changed.push(message.uid);
            }
            true
        });
        let arrived = self.arrived(path, found, next)?;
        let shown = !gone.is_empty() || !arrived.is_empty() || self.messages.iter().any(|one| one.modseq == next);
        if shown {
            self.numbers.modseq = next;
        }
        self.numbers.stamp = if stamp.steady { stamp.changed } else { Stamp::default() };
        let (numbers, id) = (self.numbers, self.numbers.id);
        if !shown && changed.is_empty() && numbers == before {
            return Ok(false);
        }
        let messages = &self.messages;
        index.change(|transaction| {
            index::write_numbers(transaction, &numbers)?;
            for uid in &gone {
                index::remove_message(transaction, id, *uid, next)?;
            }
            if !gone.is_empty() {
                index::trim_expunged(transaction, id)?;
            }
            let changed = changed.iter().filter_map(|uid| {
                messages.binary_search_by_key(uid, |message| message.uid).ok().map(|at| &messages[at])
            });
            for message in changed.chain(&arrived) {
                index::write_message(transaction, id, message)?;
            }
            Ok(())
        })?;
        self.messages.extend(arrived);
        Ok(shown)
    }

    /// What was not known: in the order it came, as far as names tell.
    fn arrived(
        &mut self,
        path: &Path,
        found: HashMap<Box<str>, Found>,
        modseq: u64,
    ) -> Result<Vec<Message>, MailboxError> {
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
        let mut arrived = Vec::with_capacity(found.len());
        for (unique, Found { is_new, file }) in found {
            let whole = path.join(if is_new { "new" } else { "cur" }).join(&*file);
            let (octets, date_s) = match facts(&whole, &unique) {
                Ok(facts) => facts,
                // Moved on meanwhile: the next look finds it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let uid = self.numbers.uidnext;
            let Some(uidnext) = uid.checked_add(1) else { return Err(MailboxError::Full) };
            self.numbers.uidnext = uidnext;
            let info = name::parse(&file).1;
            arrived.push(Message { uid, modseq, octets, date_s, is_new, info, file });
        }
        Ok(arrived)
    }
}

/// Names begin with the second they were made in, and often with its parts behind it.
fn order(unique: &str) -> (u64, &str) {
    let digits = unique.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(unique.len());
    (unique[..digits].parse().unwrap_or(u64::MAX), unique)
}

/// A message's octets as IMAP counts them, and its internal date.
fn facts(path: &Path, unique: &str) -> io::Result<(u64, i64)> {
    let metadata = fs::metadata(path)?;
    let date = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let octets = match name::number(unique, 'W') {
        Some(octets) => octets,
        None => metadata.len() + bare_line_ends(path)?,
    };
    Ok((octets, i64::try_from(date.as_secs()).unwrap_or(i64::MAX)))
}

/// Line ends without a CR, which IMAP gives one.
fn bare_line_ends(path: &Path) -> io::Result<u64> {
    use io::Read as _;
    let mut file = fs::File::open(path)?;
    let (mut buffer, mut before, mut bare) = (vec![0; READ_OCTETS], 0, 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(bare);
        }
        for at in memchr::memchr_iter(b'\n', &buffer[..count]) {
            let behind = if at == 0 { before } else { buffer[at - 1] };
            bare += u64::from(behind != b'\r');
        }
        before = buffer[count - 1];
    }
}

fn read(directory: &Path, is_new: bool, found: &mut HashMap<Box<str>, Found>) -> Result<(), MailboxError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut seen = HashSet::new();
    for entry in entries {
        let entry = entry?;
        // A name that is no text was made by no mail program.
        let Ok(file) = entry.file_name().into_string() else { continue };
        if file.starts_with('.') || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let unique: Box<str> = name::parse(&file).0.into();
        // Two files of one name: one of them is being renamed.
        if seen.insert(unique.clone()) {
            found.insert(unique, Found { is_new, file: file.into() });
        }
    }
    Ok(())
}

struct Looked {
    changed: Stamp,
    /// It can't have changed since without showing it.
    steady: bool,
}

fn stamp(path: &Path, now: Duration) -> Result<Looked, MailboxError> {
    let modified = |part: &str| match fs::metadata(path.join(part)).and_then(|found| found.modified()) {
        Ok(modified) => Ok(Some(modified)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let (new, cur) = (modified("new")?, modified("cur")?);
    if new.is_none() && cur.is_none() {
        return Err(MailboxError::NoSuchFolder);
    }
    let nanoseconds = |at: Option<SystemTime>| {
        let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(0)
    };
    let old =
        |at: Option<SystemTime>| at.is_none_or(|at| (UNIX_EPOCH + now).duration_since(at).is_ok_and(|age| age > TICK));
    Ok(Looked { changed: Stamp { new: nanoseconds(new), cur: nanoseconds(cur) }, steady: old(new) && old(cur) })
}
