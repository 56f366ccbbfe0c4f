//! What is due and waits for its turn: a lane for each destination, taken round robin so that a
//! slow one holds nobody else up. Holds hints only: whoever takes one looks at the entry again.
//! Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;

use gatepost_protocol::pairing::NodeKey;

use super::QueueId;
use super::next_hop::Via;
use crate::delivery::config::Server;

/// Work of one kind towards one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Bounces, to the router.
    Bounce,
    /// Questions about attempts, to this edge; `None`: about the home's own.
    Ask(Option<NodeKey>),
    /// Messages, to this next hop.
    Hop {
        /// Who connects.
        via: Via,
        /// Domain, or host and port.
        to: String,
    },
    /// Messages for mailboxes here, to the server that keeps them; `None`: to our Maildirs.
    Mailboxes(Option<Server>),
}

/// The lanes.
#[derive(Debug, Default)]
pub struct Ready {
    lanes: BTreeMap<Lane, VecDeque<QueueId>>,
    // What is in a lane or under way: nothing is twice.
    known: HashSet<(Lane, QueueId)>,
    running: HashMap<Lane, usize>,
    running_total: usize,
    last: Option<Lane>,
}

impl Ready {
    /// Puts an entry into a lane, unless it is there or under way there already.
    pub fn push(&mut self, lane: Lane, id: QueueId) {
        if self.known.insert((lane.clone(), id)) {
            self.lanes.entry(lane).or_default().push_back(id);
        }
    }

    /// Takes the next entry of the next lane that has room and that `open` lets through.
    pub fn take(&mut self, total_max: usize, lane_max: usize, open: impl Fn(&Lane) -> bool) -> Option<(Lane, QueueId)> {
        if self.running_total >= total_max {
            return None;
        }
        let may = |lane: &Lane| self.running.get(lane).is_none_or(|count| *count < lane_max) && open(lane);
        let after = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let lane = self
            .lanes
            .range((after, Bound::Unbounded))
            .chain(self.lanes.iter())
            .map(|(lane, _)| lane)
            .find(|lane| may(lane))?
            .clone();
        let waiting = self.lanes.get_mut(&lane)?;
        let id = waiting.pop_front()?;
        if waiting.is_empty() {
            self.lanes.remove(&lane);
        }
        *self.running.entry(lane.clone()).or_default() += 1;
        self.running_total += 1;
        self.last = Some(lane.clone());
        Some((lane, id))
    }

    /// What was taken has ended.
    pub fn ended(&mut self, lane: &Lane, id: QueueId) {
        if !self.known.remove(&(lane.clone(), id)) {
            return;
        }
        self.running_total -= 1;
        if let Some(count) = self.running.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(lane);
            }
        }
    }

    /// How many are under way.
    pub fn running(&self) -> usize {
        self.running_total
    }

    /// Takes out all that wait in lanes that `chosen` names.
    pub fn drain(&mut self, chosen: impl Fn(&Lane) -> bool) -> Vec<QueueId> {
        let lanes: Vec<Lane> = self.lanes.keys().filter(|lane| chosen(lane)).cloned().collect();
        let mut drained = Vec::new();
        for lane in lanes {
            for id in self.lanes.remove(&lane).unwrap_or_default() {
                self.known.remove(&(lane.clone(), id));
                drained.push(id);
            }
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> QueueId {
        QueueId([n; 16])
    }

    fn hop(to: &str) -> Lane {
        Lane::Hop { via: Via::Edge, to: to.to_owned() }
    }

    #[test]
    fn a_slow_destination_holds_nobody_else_up() {
        let mut ready = Ready::default();
        for n in 0..10 {
            ready.push(hop("slow.example"), id(n));
        }
        ready.push(hop("swift.example"), id(100));
        let taken: Vec<Lane> = std::iter::from_fn(|| ready.take(20, 4, |_| true)).map(|(lane, _)| lane).collect();
        assert_eq!(taken.len(), 5);
        assert_eq!(taken.iter().filter(|lane| **lane == hop("swift.example")).count(), 1);
    }

    #[test]
    fn lanes_take_turns_within_the_bound_of_all() {
        let mut ready = Ready::default();
        for n in 0..5 {
            ready.push(hop("a.example"), id(n));
            ready.push(hop("b.example"), id(n));
        }
        let order: Vec<Lane> = std::iter::from_fn(|| ready.take(4, 4, |_| true)).map(|(lane, _)| lane).collect();
        assert_eq!(order, [hop("a.example"), hop("b.example"), hop("a.example"), hop("b.example")]);
        assert_eq!(ready.take(4, 4, |_| true), None);
        ready.ended(&hop("a.example"), id(0));
        assert!(ready.take(4, 4, |_| true).is_some());
    }

    #[test]
    fn nothing_is_taken_twice_at_once() {
        let mut ready = Ready::default();
        ready.push(hop("a.example"), id(1));
        ready.push(hop("a.example"), id(1));
        assert_eq!(ready.take(9, 9, |_| true), Some((hop("a.example"), id(1))));
        ready.push(hop("a.example"), id(1));
        assert_eq!(ready.take(9, 9, |_| true), None);
        ready.ended(&hop("a.example"), id(1));
        ready.push(hop("a.example"), id(1));
        assert!(ready.take(9, 9, |_| true).is_some());
    }

    #[test]
    fn closed_lanes_wait_and_can_be_drained() {
        let mut ready = Ready::default();
        ready.push(hop("a.example"), id(1));
        ready.push(Lane::Bounce, id(2));
        let edge_away = |lane: &Lane| !matches!(lane, Lane::Hop { via: Via::Edge, .. });
        assert_eq!(ready.take(9, 9, edge_away), Some((Lane::Bounce, id(2))));
        assert_eq!(ready.take(9, 9, edge_away), None);
        assert_eq!(ready.drain(|lane| *lane == hop("a.example")), [id(1)]);
        ready.push(hop("a.example"), id(1));
        assert!(ready.take(9, 9, |_| true).is_some());
    }
}
