//! One program per state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::DurableError;

/// Name of the lock file; it holds the process id of who runs, for people.
const LOCK: &str = "lock";

/// An exclusive lock on a state directory, so that two programs never share one. Held until dropped;
/// the system frees it when the process dies, however it dies.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes it, or fails at once with a kind message naming who holds it.
    pub fn take(directory: &Path) -> Result<Self, DurableError> {
        let path = directory.join(LOCK);
        let failed = |error| DurableError::new("lock", &path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // Not truncated before it is ours: the holder's id stands there.
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(failed(held(&mut file))),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn held(file: &mut File) -> io::Error {
    let mut holder = String::new();
    // A process id is short; whatever else stands there is not worth reading.
    let known = file.take(20).read_to_string(&mut holder).is_ok() && holder.trim().parse::<u32>().is_ok();
    let who = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{who} already runs on this state directory; stop it first, or give another with --state"),
    )
}
