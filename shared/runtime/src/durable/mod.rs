//! Durable files: write to a temporary name, sync, rename, sync the directory. Nothing else in the
//! tree renames or syncs, so this folder is where a simulated disk enters. Blocking: call it off
//! the async threads. It never retries: a failed sync means that the data must be taken for lost.

mod directory;
mod draft;
mod journal;
mod lock;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

pub use self::directory::sync_directory;
pub use self::draft::Draft;
pub use self::journal::{Appended, Found, JOURNAL_RECORD_OCTETS_MAX, Journal, read_journal, records};
pub use self::lock::StateLock;

/// What the names of temporary files end in; [`sweep`] removes them.
pub const DRAFT_SUFFIX: &str = ".tmp";

/// What failed, on which path.
#[derive(Debug, Error)]
#[error("can't {action} {}: {source}", path.display())]
pub struct DurableError {
    /// `write`, `sync`, `rename`…
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's words.
    pub source: io::Error,
}

impl DurableError {
    fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }

    /// True if the disk (or quota) is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Writes a whole small file so that it is there, whole, after any crash: the old contents or the
/// new, never a mixture. Mode 0600. Durable when it returns.
pub fn write_file(path: &Path, contents: &[u8]) -> Result<(), DurableError> {
    write(path, contents, None)
}

/// Replaces the contents of a file that is somebody's own, such as a config: like [`write_file`], but
/// its mode and its owner stay, and a link is followed. Fails, and changes nothing, if it can't give
/// the file back to its owner.
pub fn replace_file(path: &Path, contents: &[u8]) -> Result<(), DurableError> {
    let path = &fs::canonicalize(path).map_err(|error| DurableError::new("find", path, error))?;
    let like = fs::metadata(path).map_err(|error| DurableError::new("read", path, error))?;
    write(path, contents, Some(&like))
}

fn write(path: &Path, contents: &[u8], like: Option<&fs::Metadata>) -> Result<(), DurableError> {
    // Unlike a random name, one of process and counter can be left behind only once for each place.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}{DRAFT_SUFFIX}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(name);
    remove_if_there(&temporary)?;
    let mut draft = Draft::create(&temporary)?;
    draft.write(contents)?;
    match like {
        Some(like) => draft.sync_like(like)?,
        None => draft.sync()?,
    }
    draft.rename(path)?;
    sync_directory(parent(path))
}

/// Moves a file that is already durable (settling an intent after a crash). The new name is durable
/// after [`sync_directory`].
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    #[expect(clippy::disallowed_methods, reason = "the one place that renames")]
    fs::rename(from, to).map_err(|error| DurableError::new("rename", from, error))
}

/// Removes a file and syncs its directory; a missing file is no error.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    if remove_if_there(path)? { sync_directory(parent(path)) } else { Ok(()) }
}

/// Creates a directory and its parents, mode 0700, durably. One that is there is left as it is.
pub fn create_directory(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent(path);
    create_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(parent),
        // Somebody else made it meanwhile; whoever did syncs it, and so do we before we rely on it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => sync_directory(parent),
        Err(error) => Err(DurableError::new("create", path, error)),
    }
}

/// Removes temporary files ([`DRAFT_SUFFIX`]) that a crash left in a directory; gives their number.
/// Only at start, before anything is written there. A missing directory holds none.
pub fn sweep(directory: &Path) -> Result<usize, DurableError> {
    let failed = |error| DurableError::new("read", directory, error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_draft = entry.file_name().as_encoded_bytes().ends_with(DRAFT_SUFFIX.as_bytes());
        // Not synced: a removal that a crash undoes is made again by the next sweep.
        if is_draft && entry.file_type().is_ok_and(|kind| kind.is_file()) && remove_if_there(&entry.path())? {
            swept += 1;
        }
    }
    Ok(swept)
}

/// Octets free for us on the file system of `path`.
pub fn free_octets(path: &Path) -> Result<u64, DurableError> {
    let found = rustix::fs::statvfs(path).map_err(|error| DurableError::new("measure", path, error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// True if there was one.
fn remove_if_there(path: &Path) -> Result<bool, DurableError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DurableError::new("remove", path, error)),
    }
}

/// The directory a name stands in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        // A relative name of one part, or the root, which is its own parent.
        _ if path.has_root() => path,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
