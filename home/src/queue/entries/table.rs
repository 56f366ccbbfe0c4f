//! What is in memory of every entry: its row, when it is due, and which lanes it waits for; some hundred octets
//! an entry, so that a hundred thousand fit. Whole entries are kept while something here is open that is not
//! on disk, and a bounded number of those touched last. Pure.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::QueueId;
use super::super::entry::Entry;
use super::super::ready::{Lane, Past};

/// Recipients of the whole entries that are kept only because they were touched last.
const WARM_RECIPIENTS_MAX: usize = 1024;

/// The lanes an entry waits for: mostly one.
#[derive(Clone, Debug, Default)]
pub enum Lanes {
    /// None.
    #[default]
    None,
    /// One.
    One(Arc<Lane>),
    /// More.
    Many(Arc<[Arc<Lane>]>),
}

impl Lanes {
    /// Each of them.
    pub fn as_slice(&self) -> &[Arc<Lane>] {
        match self {
            Self::None => &[],
            Self::One(lane) => std::slice::from_ref(lane),
            Self::Many(lanes) => lanes,
        }
    }
}

/// What is known of an entry without reading it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its row.
    pub row: i64,
    /// When to try it next; `None` while it is being tried, held, or filed in its lanes.
    pub try_unix_ms: Option<i64>,
    /// When to look at it for another reason.
    pub look_unix_ms: Option<i64>,
    /// Where it goes then.
    pub lanes: Lanes,
    /// When it was queued.
    pub queued_unix_ms: i64,
    /// Recipients that wait and were tried before.
    pub deferred: u32,
    /// Recipients that wait and never were.
    pub untried: u32,
    /// It is held.
    pub held: bool,
    /// It is for mailboxes here.
    pub local: bool,
}

/// Whole entries.
#[derive(Debug, Default)]
struct Whole {
    // With what is in memory only: never let go.
    pinned: HashMap<QueueId, Arc<Entry>>,
    // With the touch that put it there.
    warm: HashMap<QueueId, (Arc<Entry>, u64)>,
    order: VecDeque<(QueueId, u64, usize)>,
    recipients: usize,
    touches: u64,
}

/// All entries that wait, and the names of those that are finished.
#[derive(Debug, Default)]
pub struct Table {
    live: HashMap<QueueId, Slot>,
    tries: BTreeSet<(i64, QueueId)>,
    looks: BTreeSet<(i64, QueueId)>,
    lanes: HashSet<Arc<Lane>>,
    whole: Whole,
    /// Finished entries: row and since when.
    pub finished: HashMap<QueueId, (i64, i64)>,
    /// Found at the start and not settled yet.
    pub unfinished: BTreeSet<QueueId>,
    /// Entries in later rows were written since the start.
    pub loaded_row_max: i64,
}

impl Table {
    /// What is known of an entry.
    pub fn slot(&self, id: QueueId) -> Option<&Slot> {
        self.live.get(&id)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Every entry that waits.
    pub fn ids(&self) -> impl Iterator<Item = (QueueId, &Slot)> {
        self.live.iter().map(|(id, slot)| (*id, slot))
    }

    /// The one name of these lanes.
    pub fn lanes(&mut self, lanes: impl IntoIterator<Item = Lane>) -> Lanes {
        let mut named: Vec<Arc<Lane>> = lanes.into_iter().map(|lane| self.lane(lane)).collect();
        named.sort_unstable();
        named.dedup();
        match named.len() {
            0 => Lanes::None,
            1 => named.pop().map_or(Lanes::None, Lanes::One),
            _ => Lanes::Many(named.into()),
        }
    }

    fn lane(&mut self, lane: Lane) -> Arc<Lane> {
        if let Some(known) = self.lanes.get(&lane) {
            return Arc::clone(known);
        }
        let lane = Arc::new(lane);
        self.lanes.insert(Arc::clone(&lane));
        lane
    }

    /// Forgets lanes that nothing waits for any more.
    pub fn forget_lanes(&mut self) {
        self.lanes.retain(|lane| Arc::strong_count(lane) > 1);
    }

    /// Puts an entry in, in place of what was known of it.
    pub fn put(&mut self, id: QueueId, slot: Slot) {
        self.unindex(id);
        if let Some(at) = slot.try_unix_ms {
            self.tries.insert((at, id));
        }
        if let Some(at) = slot.look_unix_ms {
            self.looks.insert((at, id));
        }
        self.live.insert(id, slot);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: QueueId) {
        self.unindex(id);
        self.live.remove(&id);
        self.whole.remove(id);
    }

    fn unindex(&mut self, id: QueueId) {
        let Some(slot) = self.live.get(&id) else { return };
        if let Some(at) = slot.try_unix_ms {
            self.tries.remove(&(at, id));
        }
        if let Some(at) = slot.look_unix_ms {
            self.looks.remove(&(at, id));
        }
    }

    /// The next entry to be filed in its lanes, if it is time: from now on it counts as filed.
    pub fn take_try(&mut self, now_unix_ms: i64) -> Option<(QueueId, Lanes, Past)> {
        let (at, id) = self.tries.first().copied().filter(|(at, _)| *at <= now_unix_ms)?;
        self.tries.remove(&(at, id));
        let slot = self.live.get_mut(&id)?;
        slot.try_unix_ms = None;
        let past = match slot.deferred {
            0 if slot.row > self.loaded_row_max => Past::New,
            0 => Past::Untried,
            _ => Past::Tried,
        };
        Some((id, slot.lanes.clone(), past))
    }

    /// The next entry to be looked at, if it is time: whoever does puts it back.
    pub fn take_look(&mut self, now_unix_ms: i64) -> Option<QueueId> {
        let (at, id) = self.looks.first().copied().filter(|(at, _)| *at <= now_unix_ms)?;
        self.looks.remove(&(at, id));
        if let Some(slot) = self.live.get_mut(&id) {
            slot.look_unix_ms = None;
        }
        Some(id)
    }

    /// When the next of them is due.
    pub fn next_due(&self) -> Option<i64> {
        let first = |set: &BTreeSet<(i64, QueueId)>| set.first().map(|(at, _)| *at);
        first(&self.tries).into_iter().chain(first(&self.looks)).min()
    }

    /// An entry that is in memory whole.
    pub fn whole(&self, id: QueueId) -> Option<Arc<Entry>> {
        self.whole.get(id)
    }

    /// The entries that are in memory because something of them is not on disk.
    pub fn pinned(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.whole.pinned.values()
    }

    /// Keeps an entry in memory: for as long as it must be, or a while.
    pub fn keep(&mut self, entry: Arc<Entry>) {
        self.whole.keep(entry);
    }
}

impl Whole {
    fn get(&self, id: QueueId) -> Option<Arc<Entry>> {
        self.pinned.get(&id).or_else(|| self.warm.get(&id).map(|(entry, _)| entry)).cloned()
    }

    fn remove(&mut self, id: QueueId) {
        self.pinned.remove(&id);
        // Its place in the order is let go when its turn comes.
        self.warm.remove(&id);
    }

    fn keep(&mut self, entry: Arc<Entry>) {
        let id = entry.id;
        if !entry.attempts.is_empty() {
            self.warm.remove(&id);
            self.pinned.insert(id, entry);
            return;
        }
        self.pinned.remove(&id);
        let recipients = entry.recipients.len();
        self.touches += 1;
        self.warm.insert(id, (entry, self.touches));
        self.order.push_back((id, self.touches, recipients));
        self.recipients += recipients;
        while self.recipients > WARM_RECIPIENTS_MAX {
            let Some((oldest, touch, recipients)) = self.order.pop_front() else { break };
            self.recipients -= recipients;
            // One touched again since has a later place in the order.
            if self.warm.get(&oldest).is_some_and(|(_, last)| *last == touch) {
                self.warm.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::entry;

    #[test]
    fn few_whole_entries_are_kept_but_all_that_must_be() {
        let mut whole = Whole::default();
        let open = |id: u16| {
            let mut entry = entry(&["bob@example.com"]);
            entry.id = QueueId([id.to_be_bytes(); 8].concat().try_into().expect("16 octets"));
            entry
        };
        let mut pinned = open(0);
        pinned.attempts.push(crate::queue::schedule::tests::attempt(vec![0]));
        let id = pinned.id;
        whole.keep(Arc::new(pinned));
        for n in 1..5000 {
            whole.keep(Arc::new(open(n)));
        }
        assert!(whole.warm.len() <= WARM_RECIPIENTS_MAX, "{}", whole.warm.len());
        assert!(whole.order.len() <= WARM_RECIPIENTS_MAX + 1);
        assert!(whole.get(id).is_some(), "what is only in memory stays");
        assert!(whole.get(open(4999).id).is_some());
        assert!(whole.get(open(1).id).is_none());
    }
}
