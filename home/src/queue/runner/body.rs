//! Reads a queued message piece by piece, off the async threads, and checks at its end that it is the
//! one that was queued.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gatepost_protocol::tunnel::transfer::{Tally, TransferSeal};
use gatepost_protocol::tunnel::wire::WireVerdict;

use super::Context;
use crate::queue::QueueId;

/// Octets read at a time.
const CHUNK_OCTETS: usize = 256 * 1024;

/// A message being read.
pub struct Reader {
    file: Arc<File>,
    octets: u64,
    sha256: [u8; 32],
    tally: Tally,
}

impl Reader {
    /// Opens the message of an entry.
    pub async fn open(context: &Context, id: QueueId, octets: u64, sha256: [u8; 32]) -> io::Result<Self> {
        let file = context.blocking(move |entries| entries.store().message(id)).await?;
        Ok(Self { file: Arc::new(file), octets, sha256, tally: Tally::default() })
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let position = self.tally.octets();
        let left = self.octets.saturating_sub(position);
        if left == 0 {
            return Ok(None);
        }
        let file = Arc::clone(&self.file);
        let count = usize::try_from(left).unwrap_or(CHUNK_OCTETS).min(CHUNK_OCTETS);
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = BytesMut::zeroed(count);
            file.read_exact_at(&mut piece, position)?;
            Ok::<_, io::Error>(piece.freeze())
        })
        .await
        .map_err(io::Error::other)??;
        self.tally.add(&piece);
        Ok(Some(piece))
    }

    /// The end of the transfer, if what was read is what was queued.
    pub fn seal(self) -> Option<TransferSeal> {
        let seal = self.tally.seal(WireVerdict::default(), Vec::new());
        (seal.octets == self.octets && seal.sha256 == self.sha256).then_some(seal)
    }
}
