//! A whole message as it lies at home before delivery: in memory if small, else in an unlinked
//! temporary file. Fields to be written in front are kept beside the body.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_runtime::durable::{Draft, DurableError};

/// Bodies up to this many octets stay in memory.
pub const MEMORY_OCTETS_MAX: usize = 256 * 1024;

/// A message. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Message {
    /// Header fields to be written in front, each ended by CRLF.
    pub front: Bytes,
    /// The rest, as received.
    pub body: Body,
}

/// Bytes as received.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Memory(Arc<[Bytes]>),
    /// In a file, from `skip` on.
    File {
        /// The file.
        file: Arc<File>,
        /// Octets at its start that are not part of the message any more (a replaced header).
        skip: u64,
        /// Octets from there on.
        octets: u64,
    },
}

impl Message {
    /// Octets, front included.
    pub fn octets(&self) -> u64 {
        todo!()
    }

    /// The header section of front and body (up to and with the empty line), at most `octets_max`; `None` if longer.
    pub fn header(&self, octets_max: usize) -> std::io::Result<Option<Vec<u8>>> {
        let _ = octets_max;
        todo!()
    }

    /// Writes front and body into a draft.
    pub fn write_to(&self, draft: &mut Draft) -> Result<(), DurableError> {
        let _ = draft;
        todo!()
    }
}
