//! A file under a temporary name until it is whole. Dropped before its rename, it is removed.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::{DurableError, rename};

/// Octets asked of one `copy_file_range`; the system may copy fewer.
const RANGE_OCTETS: usize = 64 * 1024 * 1024;
/// Octets copied at a time where the system can't copy by itself.
const COPY_OCTETS: usize = 64 * 1024;

/// A file being written under a temporary name. Dropping it removes it; only a crash leaves it behind.
#[derive(Debug)]
pub struct Draft {
    file: File,
    // None once it has its real name.
    path: Option<PathBuf>,
}

impl Draft {
    /// Creates `path` (mode 0600), which must not exist. A name that ends in
    /// [`DRAFT_SUFFIX`](super::DRAFT_SUFFIX) is found by [`sweep`](super::sweep) after a crash.
    pub fn create(path: &Path) -> Result<Self, DurableError> {
        Self::create_with(path, 0o600)
    }

    /// The same, but readable for the group of the file's directory, whatever the umask says.
    pub fn create_for_group(path: &Path) -> Result<Self, DurableError> {
        let draft = Self::create_with(path, 0o640)?;
        let permissions = Permissions::from_mode(0o640);
        draft.file.set_permissions(permissions).map_err(|error| draft.failed("set the mode of", error))?;
        Ok(draft)
    }

    fn create_with(path: &Path, mode: u32) -> Result<Self, DurableError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(|error| DurableError::new("create", path, error))?;
        Ok(Self { file, path: Some(path.to_owned()) })
    }

    /// Appends, by one write: give it large pieces.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.file.write_all(bytes).map_err(|error| self.failed("write", error))
    }

    /// Appends the contents of another file from octet `skip` to `end`, or its own end if that comes first, by `copy_file_range` where the system
    /// can; gives their length. The other file's own position does not matter and does not move.
    pub fn append_file(&mut self, from: &File, skip: u64, end: u64) -> Result<u64, DurableError> {
        self.append(from, skip, end).map(|end| end.saturating_sub(skip)).map_err(|error| self.failed("write", error))
    }

    /// Makes the contents durable (data, not yet the name).
    pub fn sync(&mut self) -> Result<(), DurableError> {
        // fdatasync is enough: it writes whatever is needed to read the data back, which for a new
        // file is its length, its blocks and the inode itself; only times may be lost.
        #[expect(clippy::disallowed_methods, reason = "the one place that syncs")]
        self.file.sync_data().map_err(|error| self.failed("sync", error))
    }

    /// Gives the file the owner and the mode of another, and makes it durable with them.
    pub fn sync_like(&mut self, like: &Metadata) -> Result<(), DurableError> {
        let now = self.file.metadata().map_err(|error| self.failed("read", error))?;
        if (now.uid(), now.gid()) != (like.uid(), like.gid()) {
            let (user, group) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
            rustix::fs::fchown(&self.file, Some(user), Some(group))
                .map_err(|error| self.failed("give to its owner", error.into()))?;
        }
        // After the owner: a change of owner may take bits of the mode away.
        self.file.set_permissions(like.permissions()).map_err(|error| self.failed("set the mode of", error))?;
        // Owner and mode must be there after a crash too, so the data alone is not enough.
        #[expect(clippy::disallowed_methods, reason = "the one place that syncs")]
        self.file.sync_all().map_err(|error| self.failed("sync", error))
    }

    /// The file, to read back from.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its real name, in place of what may stand there. The name is durable after
    /// [`sync_directory`](super::sync_directory); if this fails, the file is gone.
    pub fn rename(mut self, to: &Path) -> Result<(), DurableError> {
        if let Some(path) = &self.path {
            rename(path, to)?;
            self.path = None;
        }
        Ok(())
    }

    /// Leaves the file under its temporary name: from now on it is the caller's to [`rename`] or to
    /// [`remove`](super::remove), and a rename that fails leaves it there to be tried again.
    pub fn release(mut self) {
        self.path = None;
    }

    /// Removes it.
    pub fn discard(self) {}

    /// Copies from `skip` to the end; gives the position of the end.
    /// Gives a synced draft its real name, durably, in a directory that may be written to and not read (so it
    /// can't be synced): then everything on its file system is synced.
    pub fn rename_unread(self, to: &Path) -> Result<(), DurableError> {
        let file = self.file.try_clone().map_err(|error| self.failed("open", error))?;
        self.rename(to)?;
        match super::sync_directory(super::parent(to)) {
            Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => rustix::fs::syncfs(&file)
                .map_err(|error| DurableError::new("sync the file system of", to, error.into())),
            synced => synced,
        }
    }

    fn append(&mut self, from: &File, skip: u64, last: u64) -> io::Result<u64> {
        let mut copied = skip;
        // The system refuses across some file systems, and a few answer 0 too early; whatever is
        // left when it stops goes the plain way, which also is what finds the end.
        loop {
            let octets = part(last, copied, RANGE_OCTETS);
            match rustix::fs::copy_file_range(from, Some(&mut copied), &self.file, None, octets) {
                Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.append_plainly(from, copied, last)
    }

    /// Copies from `position` to the end; gives the position of the end.
    fn append_plainly(&mut self, from: &File, mut position: u64, last: u64) -> io::Result<u64> {
        let mut buffer = vec![0; COPY_OCTETS];
        loop {
            let octets = part(last, position, COPY_OCTETS);
            match from.read_at(&mut buffer[..octets], position) {
                Ok(0) => return Ok(position),
                Ok(count) => {
                    self.file.write_all(&buffer[..count])?;
                    position += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a broken device behind the draft.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    fn failed(&self, action: &'static str, error: io::Error) -> DurableError {
        DurableError::new(action, self.path.as_deref().unwrap_or(Path::new("")), error)
    }
}

/// Octets from `at` to `last`, at most so many.
fn part(last: u64, at: u64, octets_max: usize) -> usize {
    usize::try_from(last.saturating_sub(at)).unwrap_or(octets_max).min(octets_max)
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Best effort: what stays behind is swept at the next start.
            let _ = fs::remove_file(path);
        }
    }
}
