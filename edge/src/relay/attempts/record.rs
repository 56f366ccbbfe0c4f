//! A record of the journal of attempts: a version octet, then postcard. Pure.

use gatepost_protocol::tunnel::verb::relay::{AttemptId, RelayDone, RelayFacts};
use serde::{Deserialize, Serialize};

/// First octet of each record.
const VERSION: u8 = 1;

/// What is on disk of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The final dot went out, or was about to.
    DotSent,
    /// The reply was seen, as builds before version 2 of the tunnel kept it.
    Ended(RelayDone),
    /// The reply was seen.
    EndedWith(RelayDone, RelayFacts),
}

/// One record of a journal; of several about an attempt the last holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// So it stands with this attempt, since so many seconds after 1970.
    Known(AttemptId, i64, Entry),
    /// The home has its outcome.
    Forgotten(AttemptId),
}

impl Entry {
    /// Octets it takes in a record.
    pub fn octets(&self) -> usize {
        postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default())
            .expect("counting octets cannot run out of room, and every field has a form")
    }
}

/// As it lies in the journal.
pub fn encode(record: &Record) -> Vec<u8> {
    postcard::to_extend(record, vec![VERSION]).expect("memory grows, and every field has a form")
}

/// Reads it; `None` if it is none of ours.
pub fn decode(bytes: &[u8]) -> Option<Record> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let facts = (any::<bool>(), any::<bool>(), any::<Option<String>>())
            .prop_map(|(dsn, reused, exchanger)| RelayFacts { dsn, reused, exchanger, ..RelayFacts::default() });
        let done = any::<Option<String>>().prop_map(|remote| RelayDone { outcomes: Vec::new(), remote, tls: None });
        let entry = prop_oneof![
            Just(Entry::DotSent),
            done.clone().prop_map(Entry::Ended),
            (done, facts).prop_map(|(done, facts)| Entry::EndedWith(done, facts)),
        ];
        prop_oneof![
            any::<[u8; 16]>().prop_map(|id| Record::Forgotten(AttemptId(id))),
            (any::<[u8; 16]>(), any::<i64>(), entry).prop_map(|(id, at, entry)| Record::Known(
                AttemptId(id),
                at,
                entry
            )),
        ]
    }

    proptest! {
        #[test]
        fn any_record_is_read_as_it_was_written_and_no_part_of_it_is(record in any_record()) {
            let bytes = encode(&record);
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_none());
            }
            prop_assert_eq!(decode(&bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (decode(&bytes), decode(&[&[VERSION][..], &bytes].concat()));
        }
    }
}
