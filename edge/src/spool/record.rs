//! The file of one sealed message: the sealed bytes as the home will get them, then a trailer that
//! tells a whole file from a torn or damaged one, since the edge cannot open the seal to find out.
//!
//! ```text
//! sealed bytes | "GPSPOOL1" | octets of sealed bytes, 8 big-endian | SHA-256 of the sealed bytes, 32
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gatepost_protocol::tunnel::transfer::{Tally, TransferId};
use gatepost_runtime::durable::{Draft, DurableError};
use thiserror::Error;

/// Octets of the trailer.
pub const TRAILER_OCTETS: usize = 48;
/// First octets of the trailer.
const MAGIC: &[u8; 8] = b"GPSPOOL1";
/// What the name of a whole record ends in.
const SUFFIX: &str = ".sealed";

/// Why a record can't be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The disk.
    #[error("can't read it: {0}")]
    Disk(#[from] io::Error),
    /// It is torn.
    #[error("it is not whole: {0}")]
    Torn(&'static str),
    /// Its bytes have changed.
    #[error("its bytes have changed since they were written")]
    Changed,
}

/// A record being written.
#[derive(Debug)]
pub struct RecordWriter {
    draft: Draft,
    tally: Tally,
}

impl RecordWriter {
    /// Begins, under a temporary name. Blocking.
    pub fn create(path: &Path) -> Result<Self, DurableError> {
        Ok(Self { draft: Draft::create(path)?, tally: Tally::default() })
    }

    /// Appends sealed bytes; give large pieces. Blocking.
    pub fn write(&mut self, sealed: &[u8]) -> Result<(), DurableError> {
        self.draft.write(sealed)?;
        self.tally.add(sealed);
        Ok(())
    }

    /// Octets written so far.
    pub fn octets(&self) -> u64 {
        self.tally.octets()
    }

    /// Ends the record and makes its contents durable. Blocking.
    pub fn finish(mut self) -> Result<Draft, DurableError> {
        let mut trailer = [0; TRAILER_OCTETS];
        trailer[..8].copy_from_slice(MAGIC);
        trailer[8..16].copy_from_slice(&self.tally.octets().to_be_bytes());
        trailer[16..].copy_from_slice(&self.tally.sha256());
        self.draft.write(&trailer)?;
        self.draft.sync()?;
        Ok(self.draft)
    }
}

/// A record being read, front to back.
#[derive(Debug)]
pub struct RecordReader {
    file: File,
    octets: u64,
    tally: Tally,
    expected: [u8; 32],
}

impl RecordReader {
    /// Opens a whole record: its trailer is there and fits the file's length. Blocking.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let octets = length.checked_sub(TRAILER_OCTETS as u64).ok_or(RecordError::Torn("shorter than its trailer"))?;
        let mut trailer = [0; TRAILER_OCTETS];
        file.read_exact_at(&mut trailer, octets)?;
        if trailer[..8] != *MAGIC {
            return Err(RecordError::Torn("no trailer at its end"));
        }
        if trailer[8..16] != octets.to_be_bytes() {
            return Err(RecordError::Torn("its length is not what its trailer says"));
        }
        let mut expected = [0; 32];
        expected.copy_from_slice(&trailer[16..]);
        Ok(Self { file, octets, tally: Tally::default(), expected })
    }

    /// Octets of sealed bytes.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Octets that were not read yet.
    pub fn left(&self) -> u64 {
        self.octets - self.tally.octets()
    }

    /// Fills the front of `buffer`; 0 at the end, where the digest was found to fit. Blocking.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, RecordError> {
        let at = self.tally.octets();
        let left = self.left();
        if left == 0 {
            return if self.tally.clone().sha256() == self.expected { Ok(0) } else { Err(RecordError::Changed) };
        }
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read_exact_at(&mut buffer[..want], at)?;
        self.tally.add(&buffer[..want]);
        Ok(want)
    }
}

/// The name of a record: sorted by name is oldest first.
pub fn name(sealed_unix_ms: u64, sequence: u32, transfer: TransferId) -> String {
    format!("{sealed_unix_ms:014}{sequence:06}-{transfer}{SUFFIX}")
}

/// When a record was sealed (milliseconds since 1970) and which transfer it is, by its name.
pub fn parse_name(name: &str) -> Option<(u64, TransferId)> {
    let (order, transfer) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    if order.len() != 20 || !order.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((order[..14].parse().ok()?, TransferId::parse(transfer)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, pieces: &[&[u8]]) -> std::path::PathBuf {
        let mut writer = RecordWriter::create(&folder.join("x.tmp")).expect("created");
        for piece in pieces {
            writer.write(piece).expect("written");
        }
        let path = folder.join("x.sealed");
        writer.finish().expect("synced").rename(&path).expect("named");
        path
    }

    fn read(path: &Path) -> Result<Vec<u8>, RecordError> {
        let mut reader = RecordReader::open(path)?;
        let (mut all, mut buffer) = (Vec::new(), [0; 7]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = write(folder.path(), &[b"hello ", b"sealed ", b"world"]);
        assert_eq!(read(&path).expect("whole"), b"hello sealed world");
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let whole = std::fs::read(write(folder.path(), &[b"sealed"])).expect("read");
        let path = folder.path().join("damaged.sealed");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("written");
            assert!(read(&path).is_err(), "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).expect("written");
            assert!(read(&path).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn names_sort_by_age() {
        let transfer = TransferId([7; 16]);
        let names = [name(999, 2, transfer), name(1000, 0, transfer), name(1000, 1, transfer)];
        assert!(names.is_sorted());
        assert_eq!(parse_name(&names[1]), Some((1000, transfer)));
        for bad in ["", "x.sealed", "00000000001000000000-07.sealed", "a.tmp"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
