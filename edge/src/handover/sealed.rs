//! The sealed copy of one message: the frames that would have gone through the tunnel, sealed to
//! the home's public key, written to the spool. Plaintext stays in memory. Blocking throughout.

use bytes::BytesMut;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::seal::container::CHUNK_OCTETS_MAX;
use gatepost_protocol::seal::writer::{self, Sealer};
use gatepost_protocol::tunnel::frame::{self, DATA_OCTETS_MAX, FrameError, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::transfer::{TransferEnd, TransferId};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_runtime::random::System;
use thiserror::Error;

use crate::spool::{Spool, SpoolDraft, SpoolError};

/// What begins a sealed copy.
#[derive(Debug)]
pub struct SealTo {
    /// Where it is kept.
    pub spool: Spool,
    /// For which home.
    pub home: String,
    /// The home's public key.
    pub key: Vec<u8>,
    /// Names the hand-over.
    pub transfer: TransferId,
    /// Now, seconds since 1970.
    pub sealed_unix_s: i64,
    /// What the home would have been asked.
    pub request: Request,
}

/// Why a message can't be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// The home has not told its key, or no usable one.
    #[error("the home's sealing key is not known")]
    NoKey,
    /// The home is not listed any more.
    #[error("this home is not listed any more")]
    Removed,
    /// The home's key is no key.
    #[error(transparent)]
    Key(#[from] writer::SealError),
    /// A submission whose login only the home can verify.
    #[error("only the home can verify this login")]
    NoCredential,
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A record over its bound.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The sealing task ended early: the program is ending, or it is our bug.
    #[error("sealing was interrupted")]
    Interrupted,
}

impl SealError {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Spool(error) if error.is_full() => Reply::no_room(),
            Self::NoCredential => Reply::login_unavailable(),
            Self::NoKey | Self::Removed | Self::Key(_) | Self::Spool(_) | Self::Frame(_) | Self::Interrupted => {
                Reply::local_error()
            }
        }
    }
}

/// The frames of one message, sealed as they come. Keeps less than a chunk of them back.
#[derive(Debug)]
pub struct SealedFrames {
    sealer: Sealer,
    frames: BytesMut,
    sealed: Vec<u8>,
}

impl SealedFrames {
    /// Begins: the request is in.
    pub fn begin(key: &[u8], transfer: TransferId, sealed_unix_s: i64, request: &Request) -> Result<Self, SealError> {
        let (header, sealer) = Sealer::new(key, transfer, sealed_unix_s, &mut System)?;
        let mut frames = BytesMut::new();
        frame::put_record(&mut frames, request, RECORD_OCTETS_MAX)?;
        Ok(Self { sealer, frames, sealed: header })
    }

    /// The next chunk of the message.
    pub fn data(&mut self, chunk: &[u8]) {
        for piece in chunk.chunks(DATA_OCTETS_MAX) {
            self.frames.extend_from_slice(&frame::data_header(piece.len()));
            self.frames.extend_from_slice(piece);
        }
        let whole = self.frames.len() - self.frames.len() % CHUNK_OCTETS_MAX;
        if whole > 0 {
            self.sealer.seal(&self.frames.split_to(whole), &mut self.sealed);
        }
    }

    /// What is sealed since this was asked last; may be nothing.
    pub fn sealed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sealed)
    }

    /// The message is whole: the rest, sealed.
    pub fn end(mut self, end: &TransferEnd) -> Result<Vec<u8>, SealError> {
        frame::put_record(&mut self.frames, end, RECORD_OCTETS_MAX)?;
        self.sealer.finish(&self.frames, &mut self.sealed);
        Ok(self.sealed)
    }
}

/// A message being sealed into the spool.
#[derive(Debug)]
pub struct SealedCopy {
    frames: SealedFrames,
    draft: SpoolDraft,
}

impl SealedCopy {
    /// Begins: the request is in.
    pub fn begin(to: SealTo) -> Result<Self, SealError> {
        let SealTo { spool, home, key, transfer, sealed_unix_s, request } = to;
        let frames = SealedFrames::begin(&key, transfer, sealed_unix_s, &request)?;
        Ok(Self { frames, draft: spool.draft(&home, transfer)? })
    }

    /// The next chunk of the message.
    pub fn data(&mut self, chunk: &[u8]) -> Result<(), SealError> {
        self.frames.data(chunk);
        let sealed = self.frames.sealed();
        if !sealed.is_empty() {
            self.draft.write(&sealed)?;
        }
        Ok(())
    }

    /// The message is whole: durable when this returns well.
    pub fn commit(mut self, end: &TransferEnd) -> Result<(), SealError> {
        let rest = self.frames.end(end)?;
        self.draft.write(&rest)?;
        Ok(self.draft.commit()?)
    }
}
