//! What is due and waits for its turn: a lane for each next hop, each at the pace of its destination, which
//! several lanes may share (one receiver hosts many domains). Lanes take turns in classes (those whose destination
//! answers, those nothing is known of and somebody writes to now, those nothing is known of, those in trouble),
//! none of which may use up all attempts: so a hundred thousand dead domains hold no live one up. Holds hints only: whoever takes one looks at the
//! entry again. Times are milliseconds of a clock that is not set back. Pure.

mod lane;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use gatepost_protocol::pairing::NodeKey;

pub use self::lane::Past;
use self::lane::{Class, Place, Queued};
use super::QueueId;
use super::entry::Final;
use super::next_hop::Via;
use super::pace::{Ending, Limits, Pace, Turn};
use crate::delivery::config::Server;

/// Reports handed over at once, questions asked at once of one edge, messages offered at once to one server of
/// mailboxes: what needs nobody of the world.
const INNER_MAX: u32 = 8;
/// Lanes in which nothing waits and of which is remembered what was heard last.
const HEARD_MAX: usize = 4096;
/// Lanes of which something is remembered although nothing waits in them.
const IDLE_MAX: usize = 10_000;

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
        to: Box<str>,
    },
    /// Messages for mailboxes here, to the server that keeps them; `None`: to our Maildirs.
    Mailboxes(Option<Server>),
}

/// Whose pace a lane goes at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Destination {
    /// Its own.
    Lane(Arc<Lane>),
    /// That of all lanes whose mail this receiver takes.
    Receiver(Arc<str>),
}

/// How much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Attempts in all.
    pub attempts_max: usize,
    /// For any destination.
    pub destination: Limits,
    /// An edge is connected.
    pub edge_up: bool,
}

/// What is known of a lane, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Entries that wait in it.
    pub waiting: usize,
    /// Attempts under way.
    pub running: usize,
    /// Milliseconds for which its destination is still left alone.
    pub paused_ms: Option<u64>,
    /// Messages a minute and attempts at once that its destination is held to.
    pub throttled: Option<(u32, u32)>,
    /// What was heard last, if that is why it waits.
    pub last: Option<Final>,
}

/// What is known of an attempt, question or report under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    class: Class,
    // It was filed again meanwhile, with this behind it.
    again: Option<Past>,
}

/// The lanes.
#[derive(Debug, Default)]
pub struct Ready {
    lanes: HashMap<Arc<Lane>, Queued>,
    paces: HashMap<Destination, Pace>,
    // Lanes that go at the pace of a receiver, to be woken together.
    of_receiver: HashMap<Arc<str>, BTreeSet<Arc<Lane>>>,
    rings: [VecDeque<Arc<Lane>>; Class::COUNT],
    timers: BTreeSet<(u64, Arc<Lane>)>,
    // Via an edge, while none is up.
    away: Vec<Arc<Lane>>,
    // What waits in a lane: nothing is twice.
    filed: HashSet<(Arc<Lane>, QueueId)>,
    running: HashMap<(Arc<Lane>, QueueId), UnderWay>,
    running_of: [usize; Class::COUNT],
    // Of those nothing is known of, the ones to which nothing was begun yet, in the order they came.
    never_begun: VecDeque<Arc<Lane>>,
    turn: usize,
    drawn: usize,
    // Of those somebody writes to now, the newest was drawn last, not the oldest.
    newest: bool,
    // Lanes of which is known what was heard last.
    heard: usize,
}

impl Ready {
    /// Puts an entry into a lane, unless it is there; if it is under way there, after that.
    pub fn push(&mut self, lane: &Arc<Lane>, id: QueueId, past: Past) {
        let key = (Arc::clone(lane), id);
        if let Some(under_way) = self.running.get_mut(&key) {
            under_way.again = Some(past);
            return;
        }
        if !self.filed.insert(key) {
            return;
        }
        let queued = self.lanes.entry(Arc::clone(lane)).or_default();
        queued.waiting.push_back(id);
        queued.fresh |= past != Past::Tried;
        queued.new |= past == Past::New;
        if queued.place == Place::Nowhere {
            self.enter(lane);
        }
    }

    /// Takes the next entry of the next lane whose turn it is.
    pub fn take(&mut self, bounds: Bounds, now_ms: u64) -> Option<(Arc<Lane>, QueueId)> {
        self.wake(bounds.edge_up, now_ms);
        for _ in 0..Class::COUNT {
            let class = Class::ALL[self.turn % Class::COUNT];
            self.turn = self.turn.wrapping_add(1);
            if let Some(taken) = self.take_of(class, bounds, now_ms) {
                return Some(taken);
            }
        }
        None
    }

    fn take_of(&mut self, class: Class, bounds: Bounds, now_ms: u64) -> Option<(Arc<Lane>, QueueId)> {
        while class.has_room(&self.running_of, bounds.attempts_max) {
            let lane = self.draw(class)?;
            let turn = self.turn_of(&lane, bounds, now_ms);
            let Some(queued) = self.lanes.get_mut(&lane) else { continue };
            queued.place = match turn {
                Turn::Now => Place::Nowhere,
                Turn::At(at) => {
                    self.timers.insert((at, Arc::clone(&lane)));
                    Place::Timer(at)
                }
                Turn::AfterAnother => Place::Parked,
            };
            if queued.place != Place::Nowhere {
                continue;
            }
            if !bounds.edge_up && lane.needs_edge() {
                queued.place = Place::Away;
                self.away.push(lane);
                continue;
            }
            let Some(id) = queued.waiting.pop_front() else { continue };
            queued.running += 1;
            if queued.waiting.is_empty() {
                (queued.fresh, queued.new) = (false, false);
                queued.waiting.shrink_to(4);
            } else {
                self.enter(&lane);
            }
            self.filed.remove(&(Arc::clone(&lane), id));
            self.running.insert((Arc::clone(&lane), id), UnderWay { class, again: None });
            self.running_of[class as usize] += 1;
            if let Some(destination) = self.destination(&lane) {
                self.paces.entry(destination).or_default().begins(now_ms);
            }
            return Some((lane, id));
        }
        None
    }

    /// The next lane of a class. Of those nothing is known of, the newest and the oldest in turn: one that was
    /// just written to must not wait for a hundred thousand others to prove dead.
    fn draw(&mut self, class: Class) -> Option<Arc<Lane>> {
        let ring = &mut self.rings[class as usize];
        if class == Class::New {
            self.newest = !self.newest;
            return if self.newest { ring.pop_back() } else { ring.pop_front() };
        }
        if class != Class::Unknown {
            return ring.pop_front();
        }
        self.drawn = self.drawn.wrapping_add(1);
        match self.drawn % 3 {
            0 => ring.pop_front().or_else(|| self.never_begun.pop_front()),
            1 => self.never_begun.pop_back().or_else(|| ring.pop_front()),
            _ => self.never_begun.pop_front().or_else(|| ring.pop_front()),
        }
    }

    fn turn_of(&mut self, lane: &Arc<Lane>, bounds: Bounds, now_ms: u64) -> Turn {
        match self.destination(lane) {
            Some(destination) => match self.paces.get_mut(&destination) {
                Some(pace) => pace.turn(bounds.destination, now_ms),
                None => Turn::Now,
            },
            None if self.lanes.get(lane).is_some_and(|queued| queued.running >= INNER_MAX) => Turn::AfterAnother,
            None => Turn::Now,
        }
    }

    /// What was taken has ended. `last`: the answer, if it is why the lane's others may have to wait.
    pub fn ended(
        &mut self,
        lane: &Arc<Lane>,
        id: QueueId,
        (ending, last): (Ending, Option<Final>),
        limits: Limits,
        now_ms: u64,
    ) {
        let Some(UnderWay { class, again }) = self.running.remove(&(Arc::clone(lane), id)) else { return };
        self.running_of[class as usize] -= 1;
        if let Some(queued) = self.lanes.get_mut(lane) {
            queued.running -= 1;
            let known = queued.last.is_some();
            match ending {
                Ending::Good => queued.last = None,
                Ending::Unknown => {}
                // What is to come may have to wait for it, too; but not every dead domain needs its words here.
                Ending::Throttled | Ending::Unreachable => {
                    if !queued.waiting.is_empty() || known || self.heard < HEARD_MAX {
                        queued.last = last.map(Box::new).or(queued.last.take());
                    }
                }
            }
            self.heard = self.heard + usize::from(queued.last.is_some()) - usize::from(known);
        }
        if let Some(past) = again {
            self.push(lane, id, past);
        }
        let Some(destination) = self.destination(lane) else {
            self.unpark(lane);
            return;
        };
        if let Some(pace) = self.paces.get_mut(&destination) {
            pace.ends(ending, limits, now_ms);
        }
        self.unpark_all(&destination);
    }

    /// This lane's mail is taken by a receiver that may take that of other lanes, too.
    pub fn is_received_by(&mut self, lane: &Arc<Lane>, receiver: &str) {
        let Some(before) = self.destination(lane) else { return };
        if matches!(&before, Destination::Receiver(known) if **known == *receiver) {
            return;
        }
        let receiver =
            self.of_receiver.get_key_value(receiver).map_or_else(|| receiver.into(), |(name, _)| name.clone());
        let running = self.lanes.get(lane).map_or(0, |queued| queued.running);
        let own = matches!(before, Destination::Lane(_));
        let mut pace = self.paces.get(&before).cloned().unwrap_or_default();
        if own {
            self.paces.remove(&before);
        } else {
            if let Some(pace) = self.paces.get_mut(&before) {
                pace.gives_up(running);
            }
            pace.gives_up(pace.running().saturating_sub(running));
            self.leave_receiver(lane, &before);
        }
        match self.paces.entry(Destination::Receiver(Arc::clone(&receiver))) {
            std::collections::hash_map::Entry::Occupied(mut known) => known.get_mut().takes_over(running),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(pace);
            }
        }
        self.of_receiver.entry(Arc::clone(&receiver)).or_default().insert(Arc::clone(lane));
        if let Some(queued) = self.lanes.get_mut(lane) {
            queued.receiver = Some(receiver);
        }
        // There is more room where it was.
        self.unpark_all(&before);
    }

    fn leave_receiver(&mut self, lane: &Arc<Lane>, destination: &Destination) {
        let Destination::Receiver(receiver) = destination else { return };
        let Some(lanes) = self.of_receiver.get_mut(receiver) else { return };
        lanes.remove(lane);
        if lanes.is_empty() {
            self.of_receiver.remove(receiver);
            self.paces.remove(destination);
        }
    }

    /// The owner wants what waits in a lane tried now.
    pub fn lift(&mut self, lane: &Arc<Lane>) {
        if let Some(destination) = self.destination(lane) {
            if let Some(pace) = self.paces.get_mut(&destination) {
                pace.lift();
            }
            self.unpark_all(&destination);
        }
    }

    /// When a lane that waits for a moment is to be taken again.
    pub fn next_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many are under way.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Takes out all that wait in lanes of messages: to be filed anew, by other routes.
    pub fn drain(&mut self) -> Vec<QueueId> {
        let mut drained = Vec::new();
        for (lane, queued) in &mut self.lanes {
            if matches!(**lane, Lane::Hop { .. } | Lane::Mailboxes(_)) {
                for id in queued.waiting.drain(..) {
                    self.filed.remove(&(Arc::clone(lane), id));
                    drained.push(id);
                }
            }
        }
        drained
    }

    /// What is known of a lane.
    pub fn shown(&self, lane: &Arc<Lane>, now_ms: u64) -> Option<Shown> {
        let queued = self.lanes.get(lane)?;
        let pace = self.destination(lane).and_then(|destination| self.paces.get(&destination));
        Some(Shown {
            waiting: queued.waiting.len(),
            running: queued.running as usize,
            paused_ms: pace.and_then(|pace| pace.paused_until_ms(now_ms)).map(|until| until.saturating_sub(now_ms)),
            throttled: pace.and_then(Pace::throttled),
            last: queued.last.as_deref().cloned(),
        })
    }

    /// What is known of every next hop that messages wait for.
    pub fn all_shown(&self, now_ms: u64) -> Vec<(String, Shown)> {
        let of = |lane: &Arc<Lane>| match &**lane {
            Lane::Hop { to, .. } => Some((to.to_string(), self.shown(lane, now_ms)?)),
            Lane::Bounce | Lane::Ask(_) | Lane::Mailboxes(_) => None,
        };
        self.lanes.keys().filter_map(of).collect()
    }

    /// Every lane of which something is known.
    pub fn known(&self) -> Vec<Arc<Lane>> {
        self.lanes.keys().map(Arc::clone).collect()
    }

    /// Forgets lanes in which nothing waits or runs and of which nothing is worth knowing; and all such, if they
    /// are too many.
    pub fn sweep(&mut self) {
        let idle = |queued: &Queued| queued.waiting.is_empty() && queued.running == 0;
        let too_many = self.lanes.values().filter(|queued| idle(queued)).count() > IDLE_MAX;
        let gone: Vec<Arc<Lane>> = self
            .lanes
            .iter()
            .filter(|(lane, queued)| idle(queued) && (too_many || !self.is_worth_knowing(lane)))
            .map(|(lane, _)| Arc::clone(lane))
            .collect();
        for lane in gone {
            match self.destination(&lane) {
                Some(own @ Destination::Lane(_)) => {
                    self.paces.remove(&own);
                }
                Some(shared) => self.leave_receiver(&lane, &shared),
                None => {}
            }
            let Some(queued) = self.lanes.remove(&lane) else { continue };
            self.heard -= usize::from(queued.last.is_some());
            if let Place::Timer(at) = queued.place {
                self.timers.remove(&(at, lane));
            }
        }
    }

    fn is_worth_knowing(&self, lane: &Arc<Lane>) -> bool {
        let pace = self.destination(lane).and_then(|destination| self.paces.get(&destination));
        pace.is_some_and(|pace| pace.is_proven() || pace.is_failing() || pace.throttled().is_some())
    }

    fn destination(&self, lane: &Arc<Lane>) -> Option<Destination> {
        if !matches!(**lane, Lane::Hop { .. }) {
            return None;
        }
        let receiver = self.lanes.get(lane).and_then(|queued| queued.receiver.as_ref());
        Some(match receiver {
            Some(receiver) => Destination::Receiver(Arc::clone(receiver)),
            None => Destination::Lane(Arc::clone(lane)),
        })
    }

    /// Puts a lane at the end of the ring it belongs to.
    fn enter(&mut self, lane: &Arc<Lane>) {
        let pace = self.destination(lane).map(|destination| self.paces.get(&destination));
        let Some(queued) = self.lanes.get_mut(lane) else { return };
        let class = match pace {
            None => Class::Inner,
            Some(Some(pace)) if pace.is_proven() => Class::Proven,
            Some(Some(pace)) if pace.is_failing() => Class::Troubled,
            Some(_) if queued.new => Class::New,
            Some(_) if queued.fresh => Class::Unknown,
            Some(_) => Class::Troubled,
        };
        queued.place = Place::Ring;
        let ring = match (class, pace) {
            (Class::Unknown, Some(None)) => &mut self.never_begun,
            _ => &mut self.rings[class as usize],
        };
        ring.push_back(Arc::clone(lane));
    }

    fn unpark_all(&mut self, destination: &Destination) {
        match destination {
            Destination::Lane(lane) => self.unpark(&Arc::clone(lane)),
            Destination::Receiver(receiver) => {
                let lanes: Vec<Arc<Lane>> =
                    self.of_receiver.get(receiver).into_iter().flatten().map(Arc::clone).collect();
                for lane in &lanes {
                    self.unpark(lane);
                }
            }
        }
    }

    fn unpark(&mut self, lane: &Arc<Lane>) {
        let Some(queued) = self.lanes.get(lane) else { return };
        match queued.place {
            Place::Timer(at) => {
                self.timers.remove(&(at, Arc::clone(lane)));
            }
            Place::Parked | Place::Nowhere => {}
            Place::Ring | Place::Away => return,
        }
        if queued.waiting.is_empty() {
            if let Some(queued) = self.lanes.get_mut(lane) {
                queued.place = Place::Nowhere;
            }
        } else {
            self.enter(lane);
        }
    }

    /// Lanes whose moment has come, or whose edge is back.
    fn wake(&mut self, edge_up: bool, now_ms: u64) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now_ms) {
            if let Some((_, lane)) = self.timers.pop_first() {
                self.enter(&lane);
            }
        }
        if edge_up {
            for lane in std::mem::take(&mut self.away) {
                self.enter(&lane);
            }
        }
    }
}

#[cfg(test)]
mod tests;
