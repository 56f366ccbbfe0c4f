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
use crate::queue::store::tells_damage;

/// Octets read at a time.
const CHUNK_OCTETS: usize = 256 * 1024;

/// Why a message can't be sent.
#[derive(Debug)]
pub enum Unfit {
    /// It is not the one that was queued, and never will be: what is wrong with it, for people.
    Damaged(String),
    /// Our disk or our system can't read it now.
    Unreadable(io::Error),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        if tells_damage(&error) {
            Self::Damaged(format!("its message can't be read: {error}"))
        } else {
            Self::Unreadable(error)
        }
    }
}

/// A message being read.
pub struct Reader {
    file: Arc<File>,
    octets: u64,
    sha256: [u8; 32],
    tally: Tally,
}

impl Reader {
    /// Opens the message of an entry.
    pub async fn open(context: &Context, id: QueueId, octets: u64, sha256: [u8; 32]) -> Result<Self, Unfit> {
        let file = context.blocking(move |entries| entries.store().message(id)).await?;
        Ok(Self { file: Arc::new(file), octets, sha256, tally: Tally::default() })
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unfit> {
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
    pub fn seal(self) -> Result<TransferSeal, Unfit> {
        let seal = self.tally.seal(WireVerdict::default(), Vec::new());
        if seal.octets == self.octets && seal.sha256 == self.sha256 {
            Ok(seal)
        } else {
            Err(Unfit::Damaged("its message is not the one that was queued".to_owned()))
        }
    }
}
