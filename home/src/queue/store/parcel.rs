//! The file of a queued message: its bytes, and behind them the entry as it was when it was queued, with a
//! checksum and a mark. So a message and who gets it become durable by one sync, and a queue whose `home.db`
//! was lost or replaced can still be read.
//!
//! ```text
//! message | text of the entry | its checksum, 8 octets | its octets, 4 | "GPQ1"
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{Context, SHA256};
use gatepost_runtime::durable::{Draft, DurableError};

use super::super::entry::record;
use super::super::entry::{Entry, MessageFacts};
use crate::message::Message;

/// Ends every file.
const MARK: &[u8; 4] = b"GPQ1";
/// Octets behind the text.
const TAIL_OCTETS: u64 = 16;
/// Largest text that is read, in octets.
const TEXT_OCTETS_MAX: u64 = 16 * 1024 * 1024;
/// Octets read at a time.
const CHUNK_OCTETS: usize = 256 * 1024;

/// Reads a whole message for its digest.
pub fn facts(message: &Message) -> io::Result<MessageFacts> {
    let mut gathered = Gathered::default();
    gathered.add(&message.front);
    for chunk in message.body.chunks() {
        gathered.add(&chunk?);
    }
    Ok(gathered.end())
}

/// Reads the first octets of a file for their digest.
pub fn facts_of_file(file: &File, octets: u64) -> io::Result<MessageFacts> {
    let mut gathered = Gathered::default();
    let mut buffer = vec![0; usize::try_from(octets).unwrap_or(CHUNK_OCTETS).min(CHUNK_OCTETS)];
    while gathered.octets < octets {
        let left = usize::try_from(octets - gathered.octets).unwrap_or(CHUNK_OCTETS).min(buffer.len());
        file.read_exact_at(&mut buffer[..left], gathered.octets)?;
        gathered.add(&buffer[..left]);
    }
    Ok(gathered.end())
}

/// Writes message and entry.
pub fn write(draft: &mut Draft, message: &Message, entry: &Entry) -> Result<(), DurableError> {
    message.write_to(draft)?;
    let mut end = record::encode(entry);
    let checksum = record::checksum(&end);
    let octets = u32::try_from(end.len()).unwrap_or(u32::MAX);
    end.extend_from_slice(&checksum.to_be_bytes());
    end.extend_from_slice(&octets.to_be_bytes());
    end.extend_from_slice(MARK);
    draft.write(&end)
}

/// The entry behind the message, if the file is whole. An error is one of reading.
pub fn entry(file: &File) -> io::Result<Option<Entry>> {
    let octets = file.metadata()?.len();
    let Some(tail_at) = octets.checked_sub(TAIL_OCTETS) else { return Ok(None) };
    let mut tail = [0; 16];
    file.read_exact_at(&mut tail, tail_at)?;
    let (checksum, rest) = tail.split_first_chunk::<8>().expect("16 octets hold 8");
    let (text_octets, mark) = rest.split_first_chunk::<4>().expect("8 octets hold 4");
    let text_octets = u64::from(u32::from_be_bytes(*text_octets));
    if mark != MARK || text_octets > TEXT_OCTETS_MAX {
        return Ok(None);
    }
    let Some(text_at) = tail_at.checked_sub(text_octets) else { return Ok(None) };
    let mut text = vec![0; usize::try_from(text_octets).unwrap_or_default()];
    file.read_exact_at(&mut text, text_at)?;
    if record::checksum(&text) != i64::from_be_bytes(*checksum) {
        return Ok(None);
    }
    Ok(record::decode(&text).ok().filter(|entry| entry.octets == text_at))
}

struct Gathered {
    digest: Context,
    octets: u64,
    eight_bit: bool,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), octets: 0, eight_bit: false }
    }
}

impl Gathered {
    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.octets += bytes.len() as u64;
        self.eight_bit |= !bytes.is_ascii();
    }

    fn end(self) -> MessageFacts {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        MessageFacts { octets: self.octets, eight_bit: self.eight_bit, sha256 }
    }
}
