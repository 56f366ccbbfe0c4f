//! One file of a journal: a header that says whose numbering it belongs to, then events, each with its
//! length and checksum, so that a tail torn by a crash is told from what is whole. Pure.
//!
//! ```text
//! "GPEVENT1" | journal, 16 | number of the first event, 8 big-endian
//! then each: octets of the event, 4 big-endian | CRC-32 of the event, 4 | the event, postcard
//! ```

use gatepost_protocol::tunnel::verb::events::{EVENT_OCTETS_MAX, WireEvent};

/// First octets of the file.
const MAGIC: &[u8; 8] = b"GPEVENT1";
/// Octets of the header.
pub const HEADER_OCTETS: usize = 32;
/// Octets in front of each event.
const FRONT_OCTETS: usize = 8;

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The numbering its events belong to.
    pub journal: [u8; 16],
    /// Number of its first event.
    pub first: u64,
}

impl Header {
    /// As it lies in the file.
    pub fn encode(&self) -> [u8; HEADER_OCTETS] {
        let mut octets = [0; HEADER_OCTETS];
        octets[..8].copy_from_slice(MAGIC);
        octets[8..24].copy_from_slice(&self.journal);
        octets[24..].copy_from_slice(&self.first.to_be_bytes());
        octets
    }

    /// Reads it; `None` if this is no such file.
    pub fn decode(file: &[u8]) -> Option<Self> {
        let (header, _) = file.split_first_chunk::<HEADER_OCTETS>()?;
        if &header[..8] != MAGIC {
            return None;
        }
        let journal = header[8..24].try_into().ok()?;
        Some(Self { journal, first: u64::from_be_bytes(header[24..].try_into().ok()?) })
    }
}

/// Appends an event as it lies in the file; false if it is over its bound, and nothing is appended.
pub fn put(into: &mut Vec<u8>, event: &WireEvent) -> bool {
    let start = into.len();
    into.extend_from_slice(&[0; FRONT_OCTETS]);
    let written = postcard::to_io(event, &mut *into).is_ok();
    let octets = into.len() - start - FRONT_OCTETS;
    let Some(length) = u32::try_from(octets).ok().filter(|_| written && octets <= EVENT_OCTETS_MAX) else {
        into.truncate(start);
        return false;
    };
    let sum = crc32(&into[start + FRONT_OCTETS..]);
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    into[start + 4..start + FRONT_OCTETS].copy_from_slice(&sum.to_be_bytes());
    true
}

/// The event at the beginning of these bytes and the octets it takes; `None` if none is whole there.
pub fn take(bytes: &[u8]) -> Option<(WireEvent, usize)> {
    let (body, octets) = checked(bytes)?;
    postcard::from_bytes(body).ok().map(|event| (event, octets))
}

/// How many whole events follow each other from the beginning of these bytes, and the octets they take.
pub fn whole(mut bytes: &[u8]) -> (u64, usize) {
    let (mut count, mut octets) = (0, 0);
    while let Some((_, taken)) = checked(bytes) {
        count += 1;
        octets += taken;
        bytes = &bytes[taken..];
    }
    (count, octets)
}

fn checked(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (front, rest) = bytes.split_first_chunk::<FRONT_OCTETS>()?;
    let length = usize::try_from(u32::from_be_bytes(front[..4].try_into().ok()?)).ok()?;
    // A length of nothing is what a file system leaves of a write that never reached the disk.
    if length == 0 || length > EVENT_OCTETS_MAX {
        return None;
    }
    let body = rest.get(..length)?;
    let sum = u32::from_be_bytes(front[4..].try_into().ok()?);
    (crc32(body) == sum).then_some((body, FRONT_OCTETS + length))
}

/// CRC-32 as Ethernet and zip have it (ISO 3309): against torn and rotten bytes, not against anybody.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &octet| TABLE[usize::from(sum.to_le_bytes()[0] ^ octet)] ^ (sum >> 8))
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    let mut first: u32 = 0;
    while at < 256 {
        let mut sum = first;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xEDB8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
        first += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u64, what: &str) -> WireEvent {
        let facts = vec![("sender".to_owned(), "a@b.example".to_owned())];
        WireEvent { number, at_unix_ms: 5, trace: Some([1; 10]), what: what.to_owned(), facts, refused: None }
    }

    #[test]
    fn the_checksum_is_the_one_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn what_was_put_is_taken_and_a_torn_tail_is_not() {
        let mut bytes = Vec::new();
        assert!(put(&mut bytes, &event(1, "one")));
        let first = bytes.len();
        assert!(put(&mut bytes, &event(2, "two")));
        assert_eq!(take(&bytes), Some((event(1, "one"), first)));
        assert_eq!(take(&bytes[first..]).map(|(event, _)| event.number), Some(2));
        assert_eq!(whole(&bytes), (2, bytes.len()));
        for torn in first..bytes.len() {
            assert_eq!(whole(&bytes[..torn]), (1, first), "{torn}");
        }
        let mut rotten = bytes.clone();
        rotten[first + 12] ^= 1;
        assert_eq!(whole(&rotten), (1, first));
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(whole(&bytes).0, 2, "zeroes after a crash are no events");
    }

    #[test]
    fn an_event_over_its_bound_is_not_put() {
        let mut bytes = vec![7];
        assert!(!put(&mut bytes, &event(1, &"x".repeat(EVENT_OCTETS_MAX))));
        assert_eq!(bytes, [7]);
    }

    #[test]
    fn a_header_is_read_back_and_anything_else_is_none() {
        let header = Header { journal: [3; 16], first: 77 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::decode(&header.encode()[..31]), None);
        assert_eq!(Header::decode(&[0; 64]), None);
    }

    fn any_event() -> impl Strategy<Value = WireEvent> {
        let facts = proptest::collection::vec((".{0,20}", ".{0,40}"), 0..5);
        (any::<u64>(), any::<i64>(), any::<Option<[u8; 10]>>(), ".{0,40}", facts).prop_map(
            |(number, at_unix_ms, trace, what, facts)| WireEvent {
                number,
                at_unix_ms,
                trace,
                what,
                facts,
                refused: None,
            },
        )
    }

    proptest! {
        #[test]
        fn any_events_are_taken_as_they_were_put(events in proptest::collection::vec(any_event(), 0..6)) {
            let mut file = Vec::new();
            for event in &events {
                prop_assert!(put(&mut file, event));
            }
            prop_assert_eq!(whole(&file), (events.len() as u64, file.len()));
            let mut rest = file.as_slice();
            for event in events {
                let (taken, octets) = take(rest).expect("whole");
                prop_assert_eq!(taken, event);
                rest = &rest[octets..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_events_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(whole(&bytes).1 <= bytes.len());
            let _ = (take(&bytes), Header::decode(&bytes));
        }
    }
}
