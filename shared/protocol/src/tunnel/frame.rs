//! Frames: a length, a kind, a body. Records are postcard; data is message bytes as they are.
//!
//! ```text
//! length of body, 4 octets big-endian | kind, 1 octet (0 record, 1 data) | body
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Octets in front of each body.
pub const HEADER_OCTETS: usize = 5;
/// Largest data body.
pub const DATA_OCTETS_MAX: usize = 64 * 1024;
/// Largest record but the directory's.
pub const RECORD_OCTETS_MAX: usize = 256 * 1024;
/// Largest directory snapshot.
pub const DIRECTORY_OCTETS_MAX: usize = 16 * 1024 * 1024;

/// One frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A postcard record, not decoded yet.
    Record(Bytes),
    /// Message bytes.
    Data(Bytes),
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length announced is over the bound for its kind.
    #[error("a frame of {octets} octets is over the bound of {max}")]
    TooBig {
        /// Announced.
        octets: usize,
        /// Allowed.
        max: usize,
    },
    /// Neither record nor data.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The body is not what was expected here.
    #[error("a record that can't be read: {0}")]
    Malformed(postcard::Error),
    /// Data where a record was due, or the other way round.
    #[error("a frame out of order")]
    OutOfOrder,
}

/// Appends a record. Fails if it is over `octets_max`.
pub fn put_record<T: Serialize>(into: &mut BytesMut, record: &T, octets_max: usize) -> Result<(), FrameError> {
    let start = into.len();
    into.put_bytes(0, HEADER_OCTETS);
    let written = postcard::to_io(record, into.writer());
    if let Err(error) = written.map(|_| ()) {
        into.truncate(start);
        return Err(FrameError::Malformed(error));
    }
    let octets = into.len() - start - HEADER_OCTETS;
    if octets > octets_max {
        into.truncate(start);
        return Err(FrameError::TooBig { octets, max: octets_max });
    }
    // Fits: every bound is far below 4 GiB.
    let length = u32::try_from(octets).unwrap_or(u32::MAX);
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The header of a data frame for a body of `octets`, at most [`DATA_OCTETS_MAX`].
pub fn data_header(octets: usize) -> [u8; HEADER_OCTETS] {
    debug_assert!(octets <= DATA_OCTETS_MAX, "the caller cuts chunks");
    let length = u32::try_from(octets).unwrap_or(u32::MAX).to_be_bytes();
    [length[0], length[1], length[2], length[3], 1]
}

/// The length of the body that the header at the front of `bytes` ([`HEADER_OCTETS`] at least) announces.
pub fn announced(bytes: &[u8], record_octets_max: usize) -> Result<usize, FrameError> {
    let octets = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let max = match bytes[4] {
        0 => record_octets_max,
        1 => DATA_OCTETS_MAX,
        kind => return Err(FrameError::Kind(kind)),
    };
    if octets > max { Err(FrameError::TooBig { octets, max }) } else { Ok(octets) }
}

/// Takes the next whole frame off the front of `buffer`; `None` if more bytes are needed. What is
/// buffered never grows past one frame: the bound is checked on the announced length.
pub fn take(buffer: &mut BytesMut, record_octets_max: usize) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEADER_OCTETS {
        return Ok(None);
    }
    let octets = announced(buffer, record_octets_max)?;
    let kind = buffer[4];
    if buffer.len() < HEADER_OCTETS + octets {
        buffer.reserve(HEADER_OCTETS + octets - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_OCTETS);
    let body = buffer.split_to(octets).freeze();
    Ok(Some(if kind == 0 { Frame::Record(body) } else { Frame::Data(body) }))
}

impl Frame {
    /// Reads the record in this frame.
    pub fn record<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        match self {
            Self::Record(body) => postcard::from_bytes(body).map_err(FrameError::Malformed),
            Self::Data(_) => Err(FrameError::OutOfOrder),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lies_about_length_are_refused_before_they_are_buffered() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0][..]);
        assert_eq!(
            take(&mut buffer, RECORD_OCTETS_MAX),
            Err(FrameError::TooBig { octets: 0xffff_ffff, max: RECORD_OCTETS_MAX })
        );
        let mut buffer = BytesMut::from(&[0, 0, 0, 1, 7, 0][..]);
        assert_eq!(take(&mut buffer, 10), Err(FrameError::Kind(7)));
    }

    #[test]
    fn at_the_bound_and_one_past_it() {
        let mut buffer = BytesMut::new();
        assert_eq!(put_record(&mut buffer, &[7u8; 10], 10), Ok(()));
        assert_eq!(put_record(&mut buffer, &[7u8; 11], 10), Err(FrameError::TooBig { octets: 11, max: 10 }));
        assert_eq!(buffer.len(), HEADER_OCTETS + 10);
        assert_eq!(take(&mut buffer, 9), Err(FrameError::TooBig { octets: 10, max: 9 }));
        assert!(matches!(take(&mut buffer, 10), Ok(Some(Frame::Record(_)))));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8), cut in 1usize..50) {
            let mut wire = Vec::new();
            for body in &bodies {
                wire.extend_from_slice(&data_header(body.len()));
                wire.extend_from_slice(body);
            }
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(Frame::Data(body)) = take(&mut buffer, 10).expect("well formed") {
                    got.push(body.to_vec());
                }
            }
            prop_assert_eq!(got, bodies);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = take(&mut buffer, 64) {
                let _ = frame.record::<crate::tunnel::hello::Hello>();
            }
        }
    }
}
