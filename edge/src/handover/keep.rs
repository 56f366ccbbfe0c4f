//! What is kept of a message until the home has acknowledged it: its chunks in memory while it is
//! small, a sealed draft on disk once it is not. Sealing runs beside the tunnel, one chunk behind.

use bytes::Bytes;
use gatepost_protocol::tunnel::transfer::TransferEnd;
use tokio::task::{JoinHandle, spawn_blocking};

use super::sealed::{SealError, SealTo, SealedCopy};

/// Messages up to this many octets stay in memory until they are acknowledged.
pub const MEMORY_OCTETS_MAX: usize = 128 * 1024;

/// One message's insurance.
#[derive(Debug)]
pub enum Keep {
    /// Chunks in memory.
    Memory {
        /// In order.
        chunks: Vec<Bytes>,
        /// Together.
        octets: usize,
    },
    /// A draft, in the hands of the task that seals the last chunk given.
    Sealing(JoinHandle<Result<SealedCopy, SealError>>),
    /// It can't be sealed; the tunnel is all it has.
    Impossible(SealError),
}

impl Default for Keep {
    fn default() -> Self {
        Self::Memory { chunks: Vec::new(), octets: 0 }
    }
}

impl Keep {
    /// True if everything is in memory.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }

    /// True if so many more octets are too many for memory.
    pub fn wants_sealing(&self, more: usize) -> bool {
        matches!(self, Self::Memory { octets, .. } if octets + more > MEMORY_OCTETS_MAX)
    }

    /// Why it can't be sealed, if that is known.
    pub fn error(&self) -> Option<&SealError> {
        match self {
            Self::Impossible(error) => Some(error),
            Self::Memory { .. } | Self::Sealing(_) => None,
        }
    }

    /// Goes over from memory to a sealed draft.
    pub fn start_sealing(&mut self, to: Result<SealTo, SealError>) {
        let chunks = match std::mem::take(self) {
            Self::Memory { chunks, .. } => chunks,
            other => {
                *self = other;
                return;
            }
        };
        *self = match to {
            Err(error) => Self::Impossible(error),
            Ok(to) => Self::Sealing(spawn_blocking(move || {
                let mut copy = SealedCopy::begin(to)?;
                for chunk in chunks {
                    copy.data(&chunk)?;
                }
                Ok(copy)
            })),
        };
    }

    /// Keeps the next chunk, of at most one data frame.
    pub async fn add(&mut self, chunk: Bytes) {
        match self {
            Self::Memory { chunks, octets } => {
                *octets += chunk.len();
                chunks.push(chunk);
            }
            Self::Impossible(_) => {}
            Self::Sealing(last) => {
                *self = match joined(last.await) {
                    Err(error) => Self::Impossible(error),
                    Ok(mut copy) => Self::Sealing(spawn_blocking(move || {
                        copy.data(&chunk)?;
                        Ok(copy)
                    })),
                }
            }
        }
    }

    /// Ends the sealed copy: durable when this returns well.
    pub async fn commit(self, end: TransferEnd) -> Result<(), SealError> {
        match self {
            Self::Sealing(last) => {
                let copy = joined(last.await)?;
                spawn_blocking(move || copy.commit(&end)).await.unwrap_or(Err(SealError::Interrupted))
            }
            Self::Impossible(error) => Err(error),
            Self::Memory { .. } => unreachable!("sealing is started before it is ended"),
        }
    }

    /// The home has the message: what was kept goes.
    pub fn discard(self) {
        if let Self::Sealing(last) = self {
            tokio::spawn(async move {
                if let Ok(copy) = last.await {
                    // Removing a large file takes a while: not on an async thread.
                    spawn_blocking(move || drop(copy));
                }
            });
        }
    }
}

fn joined(copy: Result<Result<SealedCopy, SealError>, tokio::task::JoinError>) -> Result<SealedCopy, SealError> {
    copy.unwrap_or(Err(SealError::Interrupted))
}
