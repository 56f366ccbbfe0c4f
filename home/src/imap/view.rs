//! An open folder as its session sees it: which messages have which numbers, and what the client is told when that changes
//! (RFC 9051 §5.5, §7.4). Numbers move only when the client may be told of it. Pure.

use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use crate::mailbox::Words;
use crate::mailbox::folder::{Folder, Message};
use crate::mailbox::name::{Flags, FolderName, Info};

/// The open folder.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub folder: FolderName,
    /// Opened by EXAMINE.
    pub read_only: bool,
    /// UIDs by number, the first is 1.
    uids: Vec<u32>,
    /// The client knows every change up to this modification sequence.
    seen: u64,
}

/// A message by its number and its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Number.
    pub number: u32,
    /// UID.
    pub uid: u32,
}

impl View {
    /// As the client is told of it.
    pub fn new(folder: FolderName, read_only: bool, uids: Vec<u32>, seen: u64) -> Self {
        Self { folder, read_only, uids, seen }
    }

    /// The number of a UID.
    pub fn number(&self, uid: u32) -> Option<u32> {
        let at = self.uids.binary_search(&uid).ok()?;
        u32::try_from(at + 1).ok()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Numbered> {
        self.uids.iter().zip(1..).map(|(uid, number)| Numbered { number, uid: *uid })
    }

    /// The messages of a set, ascending, each once. Numbers beyond the last are an error; UIDs that are not there are not.
    pub fn chosen(&self, set: &SequenceSet, by_uid: bool) -> Option<Vec<Numbered>> {
        let last = if by_uid { self.uids.last().copied().unwrap_or(0) } else { u32::try_from(self.uids.len()).ok()? };
        let mut ranges = Vec::new();
        for sequence in set.0.as_ref() {
            let value = |one: &SeqOrUid| match one {
                SeqOrUid::Value(value) => value.get(),
                SeqOrUid::Asterisk => last,
            };
            let (one, other) = match sequence {
                Sequence::Single(one) => (value(one), value(one)),
                Sequence::Range(one, other) => (value(one), value(other)),
            };
            let (low, high) = (one.min(other), one.max(other));
            if !by_uid && (low == 0 || high > last) {
                return None;
            }
            let range = if by_uid {
                self.uids.partition_point(|uid| *uid < low)..self.uids.partition_point(|uid| *uid <= high)
            } else {
                low as usize - 1..high as usize
            };
            ranges.push(range);
        }
        ranges.sort_by_key(|range| range.start);
        let (mut chosen, mut next) = (Vec::new(), 0);
        for range in ranges {
            for at in range.start.max(next)..range.end {
                chosen.push(Numbered { number: u32::try_from(at + 1).ok()?, uid: self.uids[at] });
            }
            next = next.max(range.end);
        }
        Some(chosen)
    }

    /// What has changed since the client was last told. `expunges`: numbers may move. `known`: the client was told of these
    /// messages' flags at this modification sequence already.
    pub fn catch_up(
        &mut self,
        into: &mut Vec<u8>,
        folder: &Folder,
        words: &Words,
        expunges: bool,
        known: Option<(u64, &[u32])>,
    ) {
        let now = &folder.messages;
        if expunges {
            let mut kept = 0;
            let mut gone = Vec::new();
            let mut there = now.iter().map(|message| message.uid).peekable();
            self.uids.retain(|uid| {
                while there.next_if(|other| other < uid).is_some() {}
                let stays = there.peek() == Some(uid);
                if stays {
                    kept += 1;
                } else {
                    gone.push(kept + 1);
                }
                stays
            });
            for number in gone {
                into.extend_from_slice(format!("* {number} EXPUNGE\r\n").as_bytes());
            }
        }
        let last = self.uids.last().copied().unwrap_or(0);
        let before = self.uids.len();
        let arrived = now.partition_point(|message| message.uid <= last);
        self.uids.extend(now[arrived..].iter().map(|message| message.uid));
        if self.uids.len() != before {
            into.extend_from_slice(format!("* {} EXISTS\r\n* 0 RECENT\r\n", self.uids.len()).as_bytes());
        }
        let is_known = |message: &Message| {
            known.is_some_and(|(modseq, uids)| message.modseq == modseq && uids.binary_search(&message.uid).is_ok())
        };
        for message in now[..arrived].iter().filter(|message| message.modseq > self.seen && !is_known(message)) {
            if let Some(number) = self.number(message.uid) {
                into.extend_from_slice(format!("* {number} FETCH (UID {} FLAGS ", message.uid).as_bytes());
                put_flags(into, message.info, words);
                into.extend_from_slice(b")\r\n");
            }
        }
        self.seen = folder.numbers.modseq;
    }
}

/// Appends a list of flags.
pub fn put_flags(into: &mut Vec<u8>, held: Info, words: &Words) {
    into.push(b'(');
    let start = into.len();
    let system = Flags::ALL.iter().filter(|(flag, ..)| held.flags.has(*flag)).map(|(_, name, _)| *name);
    for name in system.chain(words.of(held.keywords)) {
        if into.len() > start {
            into.push(b' ');
        }
        into.extend_from_slice(name.as_bytes());
    }
    into.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::folder::Numbers;

    fn folder(messages: &[(u32, u64)]) -> Folder {
        let message = |(uid, modseq): &(u32, u64)| Message {
            uid: *uid,
            modseq: *modseq,
            octets: 1,
            date_s: 0,
            is_new: false,
            info: Info { flags: Flags::SEEN, ..Info::default() },
            file: format!("u{uid}:2,S").into(),
        };
        let modseq = messages.iter().map(|(_, modseq)| *modseq).max().unwrap_or(1);
        Folder { numbers: Numbers { modseq, ..Numbers::default() }, messages: messages.iter().map(message).collect() }
    }

    fn view(uids: &[u32]) -> View {
        View::new(FolderName::inbox(), false, uids.to_vec(), 5)
    }

    fn chosen(view: &View, set: &str, by_uid: bool) -> Option<Vec<(u32, u32)>> {
        let set = SequenceSet::try_from(set).expect("a set");
        Some(view.chosen(&set, by_uid)?.into_iter().map(|one| (one.number, one.uid)).collect())
    }

    #[test]
    fn sets_are_taken_in_order_and_once() {
        let view = view(&[3, 7, 9]);
        assert_eq!(chosen(&view, "3,1:2,2", false), Some(vec![(1, 3), (2, 7), (3, 9)]));
        assert_eq!(chosen(&view, "*", false), Some(vec![(3, 9)]));
        assert_eq!(chosen(&view, "4", false), None);
        assert_eq!(chosen(&view, "2:4", false), None);
        assert_eq!(chosen(&view, "4:8,1000", true), Some(vec![(2, 7)]));
        assert_eq!(chosen(&view, "1000:*", true), Some(vec![(3, 9)]), "RFC 9051 §9: the last is always in it");
        let empty = View::new(FolderName::inbox(), false, Vec::new(), 0);
        assert_eq!(chosen(&empty, "1:*", true), Some(Vec::new()));
        assert_eq!(chosen(&empty, "1:*", false), None);
    }

    #[test]
    fn what_has_changed_is_told_once_and_numbers_move_only_when_they_may() {
        let mut view = view(&[3, 7, 9, 11]);
        let now = folder(&[(3, 6), (9, 5), (12, 7)]);
        let mut told = Vec::new();
        view.catch_up(&mut told, &now, &Words::default(), false, None);
        assert_eq!(String::from_utf8_lossy(&told), "* 5 EXISTS\r\n* 0 RECENT\r\n* 1 FETCH (UID 3 FLAGS (\\Seen))\r\n");
        told.clear();
        view.catch_up(&mut told, &now, &Words::default(), true, None);
        assert_eq!(String::from_utf8_lossy(&told), "* 2 EXPUNGE\r\n* 3 EXPUNGE\r\n");
        told.clear();
        view.catch_up(&mut told, &now, &Words::default(), true, None);
        assert!(told.is_empty());
        view.catch_up(&mut told, &folder(&[(3, 8), (9, 8), (12, 7)]), &Words::default(), true, Some((8, &[3])));
        assert_eq!(String::from_utf8_lossy(&told), "* 2 FETCH (UID 9 FLAGS (\\Seen))\r\n");
    }
}
