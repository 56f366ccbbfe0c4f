//! What stands behind a queued message in its file: the entry as it was when it was queued, with a checksum and a
//! mark, so that a file that is torn or rotten is told from a whole one. Pure.
//!
//! ```text
//! message | text of the entry | its checksum, 8 octets | its octets, 4 | "GPQ1"
//! ```

use super::Entry;
use super::record;

/// Ends every file.
const MARK: &[u8; 4] = b"GPQ1";
/// Octets behind the text.
pub const TAIL_OCTETS: usize = 16;
/// Largest text that is read, in octets.
const TEXT_OCTETS_MAX: u32 = 16 * 1024 * 1024;

/// Where the text is, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    text_at: u64,
    text_octets: u32,
    checksum: i64,
}

/// Everything that stands behind the message.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut end = record::encode(entry);
    let checksum = record::checksum(&end);
    let octets = u32::try_from(end.len()).unwrap_or(u32::MAX);
    end.extend_from_slice(&checksum.to_be_bytes());
    end.extend_from_slice(&octets.to_be_bytes());
    end.extend_from_slice(MARK);
    end
}

impl Trailer {
    /// Of a file of so many octets with this end; `None` if it can't be one of ours.
    pub fn read(file_octets: u64, tail: &[u8; TAIL_OCTETS]) -> Option<Self> {
        let (checksum, rest) = tail.split_first_chunk::<8>()?;
        let (text_octets, mark) = rest.split_first_chunk::<4>()?;
        let text_octets = u32::from_be_bytes(*text_octets);
        if mark != MARK || text_octets > TEXT_OCTETS_MAX {
            return None;
        }
        let text_at = file_octets.checked_sub(TAIL_OCTETS as u64)?.checked_sub(u64::from(text_octets))?;
        Some(Self { text_at, text_octets, checksum: i64::from_be_bytes(*checksum) })
    }

    /// Where the text begins: the octets of the message.
    pub fn text_at(&self) -> u64 {
        self.text_at
    }

    /// Octets of the text.
    pub fn text_octets(&self) -> usize {
        // At most 16 MiB, whatever the file says.
        usize::try_from(self.text_octets).unwrap_or_default()
    }

    /// The entry this text is of; `None` if it is not what was written, or of another message.
    pub fn entry(&self, text: &[u8]) -> Option<Entry> {
        if record::checksum(text) != self.checksum {
            return None;
        }
        record::decode(text).ok().filter(|entry| entry.octets == self.text_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(file: &[u8]) -> Option<Entry> {
        let trailer = Trailer::read(file.len() as u64, file.last_chunk()?)?;
        let start = usize::try_from(trailer.text_at()).expect("small");
        trailer.entry(&file[start..start + trailer.text_octets()])
    }

    fn file() -> (Entry, Vec<u8>) {
        let mut entry = crate::queue::tests::entry(&["bob@example.com"]);
        entry.octets = 5;
        let file = [b"Hello", &encode(&entry)[..]].concat();
        (entry, file)
    }

    #[test]
    fn what_was_written_is_read_and_no_part_of_it_is() {
        let (entry, whole) = file();
        assert_eq!(read(&whole), Some(entry));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "{end}");
        }
        assert_eq!(read(&whole[1..]), None, "it is of another message");
    }

    proptest! {
        #[test]
        fn no_changed_octet_passes(place in any::<prop::sample::Index>(), by in 1u8..) {
            let (_, mut changed) = file();
            // Behind the message, whose own digest is in the entry.
            let at = 5 + place.index(changed.len() - 5);
            changed[at] ^= by;
            prop_assert_eq!(read(&changed), None);
        }

        #[test]
        fn any_end_is_refused_or_lies_within_its_file(octets in any::<u64>(), tail in any::<[u8; TAIL_OCTETS]>(), length in 0u32..40_000_000) {
            let mut tail = tail;
            tail[12..].copy_from_slice(MARK);
            tail[8..12].copy_from_slice(&length.to_be_bytes());
            if let Some(trailer) = Trailer::read(octets, &tail) {
                prop_assert!(trailer.text_octets() <= TEXT_OCTETS_MAX as usize);
                prop_assert_eq!(trailer.text_at() + u64::from(length) + TAIL_OCTETS as u64, octets);
            }
        }
    }
}
