//! What a sealed message looks like on disk and on its way home.
//!
//! ```text
//! header: "GPSEAL" | version, 1 octet | suite, 1 octet | transfer id, 16 | sealed at, unix seconds, 8 big-endian
//!         | hash of the home's public key, 32 (SHA-256) | length of encapsulated key, 2 | encapsulated key
//! chunk:  kind, 1 octet (0 more follow, 1 the last) | length of ciphertext, 4 big-endian | ciphertext
//! ```
//! The whole header in front of the encapsulated key is bound as HPKE `info`, and a chunk's kind as
//! its AAD, so that truncation, reordering and swapping of anything is noticed. Nothing may follow the
//! last chunk. Reading here checks bounds and form only; it opens nothing.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Buf, BytesMut};
use thiserror::Error;

use crate::tunnel::transfer::TransferId;

/// Key encapsulation of suite 1.
pub type Kem = hpke::kem::XWing;
/// Key derivation of suite 1.
pub type Kdf = hpke::kdf::HkdfSha256;
/// Encryption of suite 1.
pub type Aead = hpke::aead::AesGcm256;

/// Octets of a home's public key in suite 1.
pub const PUBLIC_KEY_OCTETS: usize = 1216;
/// Octets of an encapsulated key in suite 1.
pub const ENCAPSULATED_OCTETS: usize = 1120;
/// Largest plaintext of one chunk.
pub const CHUNK_OCTETS_MAX: usize = 64 * 1024;
/// What a chunk's ciphertext is longer than its plaintext.
pub const TAG_OCTETS: usize = 16;
/// Octets of a whole header.
pub const HEADER_OCTETS: usize = INFO_OCTETS + ENCAPSULATED_OCTETS;

pub(super) const CHUNK_HEADER_OCTETS: usize = 5;
const INFO_OCTETS: usize = MAGIC.len() + 1 + 1 + 16 + 8 + 32 + 2;
const MAGIC: &[u8; 6] = b"GPSEAL";
const VERSION: u8 = 1;
const SUITE: u8 = 1;

/// Why bytes are no sealed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContainerError {
    /// It does not begin like one.
    #[error("this is no sealed message")]
    Magic,
    /// Made by a newer version.
    #[error("sealed in format version {version}, suite {suite}, which this build can't read")]
    Unsupported {
        /// Format version.
        version: u8,
        /// Suite.
        suite: u8,
    },
    /// The encapsulated key has another length than its suite says.
    #[error("the encapsulated key has {0} octets")]
    Encapsulated(usize),
    /// A chunk of unknown kind.
    #[error("a chunk of unknown kind {0}")]
    Kind(u8),
    /// A chunk announces a length out of bounds.
    #[error("a chunk of {0} octets is out of bounds")]
    ChunkSize(usize),
    /// Something follows the last chunk.
    #[error("something follows the end")]
    Trailing,
    /// It ends before its last chunk does.
    #[error("it is cut short")]
    Truncated,
}

/// What stands in front of the chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Names the hand-over.
    pub transfer: TransferId,
    /// When it was sealed, seconds since 1970.
    pub sealed_unix_s: i64,
    /// SHA-256 of the public key it is sealed to.
    pub recipient: [u8; 32],
    /// What the private key makes the message's key from.
    pub encapsulated: Vec<u8>,
}

/// The name of a public key in a header.
pub fn key_id(public_key: &[u8]) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, public_key).as_ref());
    id
}

impl Header {
    /// HPKE `info`: everything in front of the encapsulated key.
    pub fn info(&self) -> Vec<u8> {
        info(self.transfer, self.sealed_unix_s, &self.recipient)
    }

    /// The whole header.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.info();
        bytes.extend_from_slice(&self.encapsulated);
        bytes
    }

    /// Reads a header off the front of `bytes`, [`HEADER_OCTETS`] long; `None` if more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ContainerError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(ContainerError::Magic);
        }
        if let (Some(&version), Some(&suite)) = (bytes.get(6), bytes.get(7))
            && (version, suite) != (VERSION, SUITE)
        {
            return Err(ContainerError::Unsupported { version, suite });
        }
        let Some((info, rest)) = bytes.split_at_checked(INFO_OCTETS) else {
            return Ok(None);
        };
        let octets = usize::from(u16::from_be_bytes([info[64], info[65]]));
        if octets != ENCAPSULATED_OCTETS {
            return Err(ContainerError::Encapsulated(octets));
        }
        let Some(encapsulated) = rest.get(..ENCAPSULATED_OCTETS) else {
            return Ok(None);
        };
        Ok(Some(Self {
            transfer: TransferId(array(&info[8..24])),
            sealed_unix_s: i64::from_be_bytes(array(&info[24..32])),
            recipient: array(&info[32..64]),
            encapsulated: encapsulated.to_vec(),
        }))
    }
}

pub(super) fn info(transfer: TransferId, sealed_unix_s: i64, recipient: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_OCTETS);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, SUITE]);
    bytes.extend_from_slice(&transfer.0);
    bytes.extend_from_slice(&sealed_unix_s.to_be_bytes());
    bytes.extend_from_slice(recipient);
    bytes.extend_from_slice(&u16::try_from(ENCAPSULATED_OCTETS).unwrap_or(u16::MAX).to_be_bytes());
    bytes
}

/// Copies a slice whose length the caller has just cut.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(slice);
    array
}

/// One sealed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Ciphertext and tag; can be opened in place.
    pub ciphertext: BytesMut,
    /// True for the last one.
    pub last: bool,
}

impl Chunk {
    /// What is authenticated beside the ciphertext.
    pub fn aad(&self) -> &'static [u8] {
        aad(self.last)
    }
}

pub(super) fn aad(last: bool) -> &'static [u8] {
    if last { b"last" } else { b"more" }
}

/// Cuts a sealed message into its parts as its bytes arrive. Holds no bytes itself; what the caller
/// has to buffer never grows past one chunk.
#[derive(Debug, Default)]
pub struct Reader {
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Header,
    Chunks,
    End,
}

/// A part of a sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Comes first, once.
    Header(Header),
    /// Then these, until one is the last.
    Chunk(Chunk),
}

impl Reader {
    /// Takes the next whole part off the front of `buffer`; `None` if more bytes are needed.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Part>, ContainerError> {
        match self.place {
            Place::Header => {
                let Some(header) = Header::parse(buffer)? else {
                    return Ok(None);
                };
                buffer.advance(HEADER_OCTETS);
                self.place = Place::Chunks;
                Ok(Some(Part::Header(header)))
            }
            Place::Chunks => {
                let Some(header) = buffer.get(..CHUNK_HEADER_OCTETS) else {
                    return Ok(None);
                };
                let last = match header[0] {
                    0 => false,
                    1 => true,
                    kind => return Err(ContainerError::Kind(kind)),
                };
                let octets = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
                if !(TAG_OCTETS..=CHUNK_OCTETS_MAX + TAG_OCTETS).contains(&octets) {
                    return Err(ContainerError::ChunkSize(octets));
                }
                if buffer.len() < CHUNK_HEADER_OCTETS + octets {
                    buffer.reserve(CHUNK_HEADER_OCTETS + octets - buffer.len());
                    return Ok(None);
                }
                buffer.advance(CHUNK_HEADER_OCTETS);
                if last {
                    self.place = Place::End;
                }
                Ok(Some(Part::Chunk(Chunk { ciphertext: buffer.split_to(octets), last })))
            }
            Place::End if buffer.is_empty() => Ok(None),
            Place::End => Err(ContainerError::Trailing),
        }
    }

    /// To be asked when no more bytes come: was that all of it?
    pub fn end(&self, buffer: &BytesMut) -> Result<(), ContainerError> {
        match self.place {
            Place::End if buffer.is_empty() => Ok(()),
            Place::End => Err(ContainerError::Trailing),
            Place::Header | Place::Chunks => Err(ContainerError::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            transfer: TransferId(*b"0123456789abcdef"),
            sealed_unix_s: 1_795_176_000,
            recipient: [7; 32],
            encapsulated: vec![9; ENCAPSULATED_OCTETS],
        }
    }

    #[test]
    fn headers_survive_and_have_their_length() {
        let bytes = header().to_bytes();
        assert_eq!(bytes.len(), HEADER_OCTETS);
        assert_eq!(Header::parse(&bytes), Ok(Some(header())));
        for cut in 0..bytes.len() {
            assert_eq!(Header::parse(&bytes[..cut]), Ok(None), "at {cut}");
        }
    }

    #[test]
    fn strangers_are_refused_at_their_first_wrong_octet() {
        assert_eq!(Header::parse(b"GPX"), Err(ContainerError::Magic));
        assert_eq!(Header::parse(b"GPSEAL\x02\x01"), Err(ContainerError::Unsupported { version: 2, suite: 1 }));
        let mut bytes = header().to_bytes();
        bytes[65] += 1;
        assert_eq!(Header::parse(&bytes), Err(ContainerError::Encapsulated(ENCAPSULATED_OCTETS + 1)));
    }

    #[test]
    fn chunk_lengths_at_the_bounds_and_past_them() {
        let taken = |octets: usize, kind: u8| {
            let mut buffer = BytesMut::from(&header().to_bytes()[..]);
            buffer.extend_from_slice(&[kind]);
            buffer.extend_from_slice(&u32::try_from(octets).expect("small").to_be_bytes());
            let mut reader = Reader::default();
            assert!(matches!(reader.take(&mut buffer), Ok(Some(Part::Header(_)))));
            reader.take(&mut buffer)
        };
        assert_eq!(taken(TAG_OCTETS, 0), Ok(None));
        assert_eq!(taken(TAG_OCTETS - 1, 0), Err(ContainerError::ChunkSize(TAG_OCTETS - 1)));
        assert_eq!(taken(CHUNK_OCTETS_MAX + TAG_OCTETS, 1), Ok(None));
        let over = CHUNK_OCTETS_MAX + TAG_OCTETS + 1;
        assert_eq!(taken(over, 1), Err(ContainerError::ChunkSize(over)));
        assert_eq!(taken(20, 2), Err(ContainerError::Kind(2)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), headed in any::<bool>()) {
            let mut buffer = BytesMut::new();
            if headed {
                buffer.extend_from_slice(&header().to_bytes());
            }
            buffer.extend_from_slice(&bytes);
            let mut reader = Reader::default();
            while let Ok(Some(_)) = reader.take(&mut buffer) {}
            let _ = reader.end(&buffer);
        }
    }
}
