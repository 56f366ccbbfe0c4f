//! What older builds left in `queue/`: an entry as a file `<id>.json` (`<id>.json.new` while it was being taken)
//! beside its message. Read once, at the first start; each entry becomes a row, and its file goes after the
//! row is durable. Blocking.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::QueueId;
use super::super::entry::{Entry, record};
use super::{StoreError, tells_damage, unreadable};

/// Suffix of an entry's file.
pub const RECORD: &str = ".json";
/// The same while it was being taken.
pub const RECORD_NEW: &str = ".json.new";
/// Largest file that is read, in octets.
const RECORD_OCTETS_MAX: u64 = 64 * 1024 * 1024;

/// The entry in such a file; an error that [is damage](StoreError::is_damage) if it holds none.
pub fn read(directory: &Path, id: QueueId, suffix: &str) -> Result<Entry, StoreError> {
    let path = directory.join(format!("{id}{suffix}"));
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(RECORD_OCTETS_MAX).read_to_end(&mut bytes));
    match read {
        Err(error) if tells_damage(&error) => Err(StoreError::Damaged(format!("it can't be read: {error}"))),
        Err(error) => Err(unreadable(&path, error)),
        Ok(_) => {
            let entry = record::decode_file(&bytes)?;
            if entry.id == id {
                Ok(entry)
            } else {
                Err(StoreError::Damaged(format!("it is the record of {}", entry.id)))
            }
        }
    }
}

/// The first of an entry's two files that holds one.
pub fn first(directory: &Path, id: QueueId) -> Result<Option<Entry>, StoreError> {
    for suffix in [RECORD, RECORD_NEW] {
        match read(directory, id, suffix) {
            Ok(entry) => return Ok(Some(entry)),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Removes both. Not synced: what a crash brings back is removed at the next start.
pub fn remove(directory: &Path, id: QueueId) -> io::Result<()> {
    for suffix in [RECORD, RECORD_NEW] {
        match std::fs::remove_file(directory.join(format!("{id}{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
