//! The file of a queued message: its bytes, and behind them the entry as it was when it was queued, as
//! [`trailer`] says. So a message and who gets it become durable by one sync, and a queue whose `home.db` was lost or
//! replaced can still be read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{Context, SHA256};
use gatepost_runtime::durable::{Draft, DurableError};

use super::super::entry::trailer::{self, TAIL_OCTETS, Trailer};
use super::super::entry::{Entry, MessageFacts};
use crate::message::Message;

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
    draft.write(&trailer::encode(entry))
}

/// The entry behind the message, if the file is whole. An error is one of reading.
pub fn entry(file: &File) -> io::Result<Option<Entry>> {
    let octets = file.metadata()?.len();
    let Some(tail_at) = octets.checked_sub(TAIL_OCTETS as u64) else { return Ok(None) };
    let mut tail = [0; TAIL_OCTETS];
    file.read_exact_at(&mut tail, tail_at)?;
    let Some(trailer) = Trailer::read(octets, &tail) else { return Ok(None) };
    let mut text = vec![0; trailer.text_octets()];
    file.read_exact_at(&mut text, trailer.text_at())?;
    Ok(trailer.entry(&text))
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
