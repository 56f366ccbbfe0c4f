//! Durable files: write to a temporary name, sync, rename, sync the directory. Nothing else in the
//! tree renames or syncs. Blocking: call it off the async threads.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What failed, on which path.
#[derive(Debug, Error)]
#[error("can't {action} {path}: {source}")]
pub struct DurableError {
    /// `write`, `sync`, `rename`…
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's words.
    pub source: io::Error,
}

impl DurableError {
    /// True if the disk (or quota) is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Writes a whole small file so that it is there, whole, after any crash. Mode 0600.
pub fn write_file(path: &Path, contents: &[u8]) -> Result<(), DurableError> {
    let _ = (path, contents);
    todo!()
}

/// A file being written under a temporary name.
#[derive(Debug)]
pub struct Draft {
    _todo: (),
}

impl Draft {
    /// Creates `path` (mode 0600), which must not exist.
    pub fn create(path: &Path) -> Result<Self, DurableError> {
        let _ = path;
        todo!()
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        let _ = bytes;
        todo!()
    }

    /// Appends the contents of another file from its start, by copy_file_range where the system can.
    pub fn append_file(&mut self, from: &File) -> Result<u64, DurableError> {
        let _ = from;
        todo!()
    }

    /// Makes the contents durable (data, not yet the name).
    pub fn sync(&mut self) -> Result<(), DurableError> {
        todo!()
    }

    /// The file, to read back from.
    pub fn file(&self) -> &File {
        todo!()
    }

    /// Gives the file its real name (the directory is not yet synced).
    pub fn rename(self, to: &Path) -> Result<(), DurableError> {
        let _ = to;
        todo!()
    }

    /// Removes it.
    pub fn discard(self) {
        todo!()
    }
}

/// Moves a file that is already durable (settling an intent after a crash).
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    let _ = (from, to);
    todo!()
}

/// Makes the names in a directory durable. Many callers at once share syncs: each returns after a sync
/// that began after its call.
pub fn sync_directory(path: &Path) -> Result<(), DurableError> {
    let _ = path;
    todo!()
}

/// Removes a file and syncs its directory; a missing file is no error.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    let _ = path;
    todo!()
}

/// Creates a directory and its parents, mode 0700, durably.
pub fn create_directory(path: &Path) -> Result<(), DurableError> {
    let _ = path;
    todo!()
}

/// Octets free for us on the file system of `path`.
pub fn free_octets(path: &Path) -> Result<u64, DurableError> {
    let _ = path;
    todo!()
}

/// An exclusive lock on a state directory, so that two programs never share one. Held until dropped.
#[derive(Debug)]
pub struct StateLock {
    _todo: (),
}

impl StateLock {
    /// Takes it, or fails at once with a kind message naming who holds it.
    pub fn take(directory: &Path) -> Result<Self, DurableError> {
        let _ = directory;
        todo!()
    }
}
