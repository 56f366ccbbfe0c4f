//! The drop: a folder in the state directory where programs of this machine leave mail, also while nobody
//! serves it. Its mode is 3730: members of its group may put files in, can't list it, and can't touch each
//! other's. A file under its real name is whole and synced. Who serves it believes nothing of what lies there.

pub mod rounds;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::durable::{self, DRAFT_SUFFIX, Draft, DurableError};
use crate::random;

/// Its name in the state directory.
pub const FOLDER: &str = "drop";
/// Where that lies which can't be used, inside it.
pub const DAMAGED: &str = "damaged";
/// Set group id: what is left belongs to the folder's group. Sticky: nobody removes what others left. No reading.
const MODE: u32 = 0o3730;
/// A file left for whoever comes.
const LEFT: &str = ".mail";
/// A file whose writer is about to ask what became of it.
const ASKED: &str = ".asked";
/// Names given at once.
const NAMES_MAX: usize = 1000;
/// What was begun so long ago will not be finished.
const DRAFT_AGE_MAX: Duration = Duration::from_hours(24);

/// The folder.
#[derive(Clone, Debug)]
pub struct Maildrop {
    folder: PathBuf,
}

/// What a file may be called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    id: [u8; 16],
    asked: bool,
}

impl Name {
    /// Unique: names the hand-over.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Its writer is about to ask for it; taken unasked only if nobody does.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// Reads a file's name.
    pub fn parse(text: &str) -> Option<Self> {
        let (hex, asked) = match text.strip_suffix(ASKED) {
            Some(hex) => (hex, true),
            None => (text.strip_suffix(LEFT)?, false),
        };
        let lower = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = u128::from_str_radix(hex, 16).ok().filter(|_| lower)?.to_be_bytes();
        Some(Self { id, asked })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}{}", u128::from_be_bytes(self.id), if self.asked { ASKED } else { LEFT })
    }
}

/// A file being left. Dropped before [`Leaving::commit`], nothing remains of it.
#[derive(Debug)]
pub struct Leaving {
    draft: Draft,
    folder: PathBuf,
    id: [u8; 16],
}

/// A file that was left.
#[derive(Debug)]
pub struct Found {
    /// Its bytes. Whoever left it may still change them: copy before you believe.
    pub file: File,
    /// How many they are now.
    pub octets: u64,
    /// The user who left it.
    pub uid: u32,
}

impl Maildrop {
    /// The drop of this state directory.
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join(FOLDER) }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes it, with its mode, and clears what was begun long ago. For who serves it. Blocking.
    pub fn prepare(&self, now_unix: Duration) -> Result<(), DurableError> {
        durable::create_directory(&self.folder.join(DAMAGED))?;
        let failed = |action, source| DurableError { action, path: self.folder.clone(), source };
        fs::set_permissions(&self.folder, Permissions::from_mode(MODE)).map_err(|e| failed("set the mode of", e))?;
        for entry in fs::read_dir(&self.folder).map_err(|e| failed("read", e))?.flatten() {
            let age = entry
                .metadata()
                .and_then(|found| found.modified())
                .ok()
                .and_then(|at| now_unix.checked_sub(at.duration_since(UNIX_EPOCH).unwrap_or_default()));
            let is_draft = entry.file_name().as_encoded_bytes().ends_with(DRAFT_SUFFIX.as_bytes());
            if is_draft && age.is_some_and(|age| age > DRAFT_AGE_MAX) {
                // A removal that fails is tried again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Begins a file. Blocking.
    pub fn leave(&self) -> Result<Leaving, DurableError> {
        let id = random::bytes();
        let path = self.folder.join(format!("{:032x}{DRAFT_SUFFIX}", u128::from_be_bytes(id)));
        Ok(Leaving { draft: Draft::create_for_group(&path)?, folder: self.folder.clone(), id })
    }

    /// What lies there now, not in order; at most a thousand. Blocking.
    pub fn names(&self) -> io::Result<Vec<Name>> {
        let names = fs::read_dir(&self.folder)?.flatten();
        Ok(names.filter_map(|entry| Name::parse(entry.file_name().to_str()?)).take(NAMES_MAX).collect())
    }

    /// Opens a file that was left, if it is one: no link to what is elsewhere, nothing that is not a file, which are
    /// `InvalidData`. `None` if it is not there. Blocking.
    pub fn open(&self, name: &Name) -> io::Result<Option<Found>> {
        let file = match careful().open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => return Err(not_plain()),
            opened => opened?,
        };
        let facts = file.metadata()?;
        if !facts.is_file() || facts.nlink() != 1 {
            return Err(not_plain());
        }
        Ok(Some(Found { file, octets: facts.len(), uid: facts.uid() }))
    }

    /// What was left is taken. Gone for good when this returns. Blocking.
    pub fn remove(&self, name: &Name) -> Result<(), DurableError> {
        durable::remove(&self.path(name))
    }

    /// Sets a file aside that can't be used. Blocking.
    pub fn set_aside(&self, name: &Name) -> Result<(), DurableError> {
        durable::rename(&self.path(name), &self.folder.join(DAMAGED).join(name.to_string()))
    }

    /// Hangs up a notice that who may leave mail can read, in the place of the last. Blocking.
    pub fn publish(&self, name: &str, notice: &[u8]) -> Result<(), DurableError> {
        let mut draft = self.leave()?.draft;
        draft.write(notice)?;
        draft.sync()?;
        draft.rename_unread(&self.folder.join(name))
    }

    /// Reads a notice of who serves the drop, and of nobody else. Blocking.
    pub fn published(&self, name: &str, octets_max: u64) -> io::Result<Vec<u8>> {
        let file = careful().open(self.folder.join(name))?;
        let (facts, folder) = (file.metadata()?, fs::metadata(&self.folder)?);
        if !facts.is_file() || facts.uid() != folder.uid() {
            return Err(not_plain());
        }
        let mut notice = Vec::new();
        file.take(octets_max).read_to_end(&mut notice)?;
        Ok(notice)
    }

    /// Tells when something new is there. Inside the runtime.
    pub fn watch(&self) -> io::Result<Watch> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&events, &self.folder, WatchFlags::MOVED_TO)?;
        #[expect(
            deprecated,
            reason = "the new function is unsafe; this descriptor is owned, and closed with its registration"
        )]
        let watched = AsyncFd::with_interest(events, Interest::READABLE)?;
        Ok(Watch(watched))
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(name.to_string())
    }
}

/// Reads, and follows no link and waits for no pipe.
fn careful() -> OpenOptions {
    let mut options = OpenOptions::new();
    // The flags of `open` are small numbers on every system there is.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    options.read(true).custom_flags(flags);
    options
}

fn not_plain() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no plain file of its own")
}

impl Leaving {
    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.draft.write(bytes)
    }

    /// It is whole: durable when this returns well. `asked` if its writer will ask for it at once.
    pub fn commit(mut self, asked: bool) -> Result<Name, DurableError> {
        self.draft.sync()?;
        let name = Name { id: self.id, asked };
        self.draft.rename_unread(&self.folder.join(name.to_string()))?;
        Ok(name)
    }

    /// Names the hand-over.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }
}

impl Write for Leaving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes).map_err(|error| error.source)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Wakes when something was left.
#[derive(Debug)]
pub struct Watch(AsyncFd<rustix::fd::OwnedFd>);

impl Watch {
    /// Waits for it. Cancel-safe. What came while nobody waited wakes at once.
    pub async fn changed(&self) -> io::Result<()> {
        let mut events = [0u8; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|events_fd| Ok(rustix::io::read(events_fd.get_ref(), &mut events)?));
            match read {
                // What the events say does not matter: the folder is looked at.
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maildrop() -> (tempfile::TempDir, Maildrop) {
        let state = tempfile::tempdir().unwrap();
        let maildrop = Maildrop::of(state.path());
        maildrop.prepare(Duration::from_hours(500_000)).unwrap();
        (state, maildrop)
    }

    #[test]
    fn what_is_left_is_there_whole_until_it_is_taken() {
        let (_state, maildrop) = maildrop();
        let mut leaving = maildrop.leave().unwrap();
        leaving.write(b"mail").unwrap();
        assert!(maildrop.names().unwrap().is_empty(), "nothing half is seen");
        let name = leaving.commit(false).unwrap();
        let dropped = maildrop.leave().unwrap();
        drop(dropped);
        assert_eq!(maildrop.names().unwrap(), std::slice::from_ref(&name));
        let found = maildrop.open(&name).unwrap().unwrap();
        assert_eq!((found.octets, found.uid), (4, rustix::process::getuid().as_raw()));
        maildrop.remove(&name).unwrap();
        assert!(maildrop.open(&name).unwrap().is_none());
        let entries = fs::read_dir(maildrop.folder()).unwrap().count();
        assert_eq!(entries, 1, "nothing but the folder for what is damaged");
    }

    #[test]
    fn others_may_leave_and_not_look() {
        let (_state, maildrop) = maildrop();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(maildrop.folder()), 0o3730);
        assert_eq!(mode(&maildrop.folder().join(DAMAGED)), 0o700);
        let name = maildrop.leave().unwrap().commit(true).unwrap();
        assert_eq!(mode(&maildrop.folder().join(name.to_string())), 0o640);
    }

    #[test]
    fn a_link_is_not_followed_and_a_pipe_does_not_block() {
        let (state, maildrop) = maildrop();
        let secret = state.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let names = [1u8, 2, 3].map(|id| Name { id: [id; 16], asked: false });
        let path = |name: &Name| maildrop.folder().join(name.to_string());
        std::os::unix::fs::symlink(&secret, path(&names[0])).unwrap();
        fs::hard_link(&secret, path(&names[1])).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path(&names[2]), pipe, rustix::fs::Mode::RUSR, 0).unwrap();
        for name in &names {
            assert_eq!(maildrop.open(name).unwrap_err().kind(), io::ErrorKind::InvalidData, "{name}");
            maildrop.set_aside(name).unwrap();
        }
        assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
    }

    #[test]
    fn a_notice_is_of_who_serves_the_drop() {
        let (state, maildrop) = maildrop();
        maildrop.publish("notice", b"first").unwrap();
        maildrop.publish("notice", b"second").unwrap();
        assert_eq!(maildrop.published("notice", 100).unwrap(), b"second");
        assert!(maildrop.names().unwrap().is_empty(), "it is no letter");
        std::os::unix::fs::symlink(state.path().join("drop/notice"), maildrop.folder().join("link")).unwrap();
        assert!(maildrop.published("link", 100).is_err());
    }

    #[test]
    fn names_are_read_strictly() {
        let hex = "0123456789abcdef0123456789abcdef";
        for (text, good) in [
            (format!("{hex}.mail"), true),
            (format!("{hex}.asked"), true),
            (format!("{hex}.tmp"), false),
            (format!("{}.mail", hex.to_uppercase()), false),
            (format!("+{}.mail", &hex[1..]), false),
            (format!("../{hex}.mail"), false),
            (".mail".to_owned(), false),
        ] {
            let parsed = Name::parse(&text);
            assert_eq!(parsed.is_some(), good, "{text}");
            assert!(parsed.is_none_or(|name| name.to_string() == text));
        }
    }

    #[test]
    fn what_was_begun_long_ago_is_cleared() {
        let (_state, maildrop) = maildrop();
        let left = maildrop.folder().join(format!("x{DRAFT_SUFFIX}"));
        fs::write(&left, "half").unwrap();
        let now = fs::metadata(&left).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        maildrop.prepare(now + DRAFT_AGE_MAX).unwrap();
        assert!(left.exists(), "somebody may be at it");
        maildrop.prepare(now + DRAFT_AGE_MAX + Duration::from_secs(1)).unwrap();
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn who_watches_is_woken() {
        let (_state, maildrop) = maildrop();
        let watch = maildrop.watch().unwrap();
        maildrop.leave().unwrap().commit(false).unwrap();
        watch.changed().await.unwrap();
        assert_eq!(maildrop.names().unwrap().len(), 1);
    }
}
