//! Which message goes over which connection: kept ones first, new ones within bounds, else a turn in a
//! queue. Connections are opaque here and the moment is handed in; whoever owns the sockets does what
//! this decides. A key names all that two messages must share to use one connection.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Bounds of reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReuseLimits {
    /// A connection nobody uses is kept so long.
    pub idle_max: Duration,
    /// No connection is used again when it is older: the destination's hosts may have changed.
    pub age_max: Duration,
    /// Messages over one connection.
    pub messages_max: u32,
    /// Connections of one key at once, used and kept.
    pub per_key_max: usize,
    /// Messages of one key that may wait for a turn.
    pub waiting_per_key_max: usize,
    /// Connections kept unused, of all keys.
    pub kept_max: usize,
}

impl Default for ReuseLimits {
    /// As big receivers like it: few connections, given back soon.
    fn default() -> Self {
        Self {
            idle_max: Duration::from_secs(5),
            age_max: Duration::from_mins(5),
            messages_max: 100,
            per_key_max: 20,
            waiting_per_key_max: 200,
            kept_max: 50,
        }
    }
}

/// The past of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Messages it was used for.
    pub messages: u32,
    /// Since when it is open.
    pub since: Instant,
}

/// Names a message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What a message gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<C> {
    /// This connection.
    Kept(C, Carried),
    /// It may open one.
    Open,
    /// It waits; [`Reuse::done`] names it when its turn has come.
    Wait(Ticket),
    /// As many wait as may.
    Full,
}

/// What is to be done after a turn has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct After<K, C> {
    /// Whose turn it is now, over this connection or one it may open.
    pub next: Option<(Ticket, Option<(C, Carried)>)>,
    /// To be closed politely; with its key.
    pub closed: Option<(K, C)>,
}

#[derive(Debug)]
struct Kept<C> {
    connection: C,
    carried: Carried,
    unused_since: Instant,
}

/// The connections of one key. There while it has any, or a turn.
#[derive(Debug)]
struct Shared<C> {
    /// Turns that were given and have not ended.
    turns: usize,
    /// Oldest first.
    kept: Vec<Kept<C>>,
    waiting: VecDeque<Ticket>,
}

/// All connections, by key.
#[derive(Debug)]
pub struct Reuse<K, C> {
    limits: ReuseLimits,
    shared: HashMap<K, Shared<C>>,
    kept: usize,
    next_ticket: u64,
}

impl<K: Clone + Eq + Hash, C> Reuse<K, C> {
    /// Holds nothing yet.
    pub fn new(limits: ReuseLimits) -> Self {
        Self { limits, shared: HashMap::new(), kept: 0, next_ticket: 0 }
    }

    /// A message wants a connection. Every turn given must end by [`Reuse::done`], every ticket by a turn
    /// or by [`Reuse::give_up`].
    pub fn ask(&mut self, key: &K, now: Instant) -> Turn<C> {
        let shared = self.shared.entry(key.clone()).or_insert_with(Shared::empty);
        // The one that rested least: the others may end.
        if let Some(kept) = shared.kept.pop_if(|kept| self.limits.allows(kept, now)) {
            shared.turns += 1;
            self.kept -= 1;
            return Turn::Kept(kept.connection, kept.carried);
        }
        if shared.turns + shared.kept.len() < self.limits.per_key_max {
            shared.turns += 1;
            return Turn::Open;
        }
        if shared.waiting.len() >= self.limits.waiting_per_key_max {
            return Turn::Full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        shared.waiting.push_back(ticket);
        Turn::Wait(ticket)
    }

    /// A message that waits wants none any more.
    pub fn give_up(&mut self, key: &K, ticket: Ticket) {
        if let Some(shared) = self.shared.get_mut(key) {
            shared.waiting.retain(|waiting| *waiting != ticket);
        }
        self.forget_if_empty(key);
    }

    /// A turn has ended. `back` is its connection if it is still good, its message counted.
    pub fn done(&mut self, key: &K, back: Option<(C, Carried)>, now: Instant) -> After<K, C> {
        let limits = self.limits;
        let mut after = After { next: None, closed: None };
        let Some(shared) = self.shared.get_mut(key) else {
            debug_assert!(false, "a turn ended that was never given");
            after.closed = back.map(|(connection, _)| (key.clone(), connection));
            return after;
        };
        let used_up = |carried: &Carried| {
            carried.messages >= limits.messages_max || now.saturating_duration_since(carried.since) >= limits.age_max
        };
        let back = match back {
            Some((connection, carried)) if used_up(&carried) => {
                after.closed = Some((key.clone(), connection));
                None
            }
            back => back,
        };
        if let Some(ticket) = shared.waiting.pop_front() {
            after.next = Some((ticket, back));
            return after;
        }
        shared.turns -= 1;
        if let Some((connection, carried)) = back {
            shared.kept.push(Kept { connection, carried, unused_since: now });
            self.kept += 1;
            if self.kept > limits.kept_max {
                after.closed = self.take_oldest();
            }
        }
        self.forget_if_empty(key);
        after
    }

    /// Connections that rested too long or are too old, to be closed politely.
    pub fn expire(&mut self, now: Instant) -> Vec<C> {
        let limits = self.limits;
        let mut expired = Vec::new();
        for shared in self.shared.values_mut() {
            expired.extend(shared.kept.extract_if(.., |kept| !limits.allows(kept, now)).map(|kept| kept.connection));
        }
        self.kept -= expired.len();
        self.shared.retain(|_, shared| !shared.is_empty());
        if self.shared.is_empty() {
            self.shared = HashMap::new();
        }
        expired
    }

    /// When [`Reuse::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        let kept = self.shared.values().flat_map(|shared| &shared.kept);
        kept.map(|kept| self.limits.end(kept)).min()
    }

    /// Everything kept, to be closed politely.
    pub fn drain(&mut self) -> Vec<C> {
        self.kept = 0;
        let drained = self.shared.values_mut().flat_map(|shared| std::mem::take(&mut shared.kept));
        let drained = drained.map(|kept| kept.connection).collect();
        self.shared.retain(|_, shared| !shared.is_empty());
        drained
    }

    /// Connections kept unused.
    pub fn kept(&self) -> usize {
        self.kept
    }

    fn take_oldest(&mut self) -> Option<(K, C)> {
        let oldest = |shared: &Shared<C>| shared.kept.first().map(|kept| kept.unused_since);
        let (_, key) =
            self.shared.iter().filter_map(|(key, shared)| Some((oldest(shared)?, key))).min_by_key(|(at, _)| *at)?;
        let key = key.clone();
        let kept = self.shared.get_mut(&key)?.kept.remove(0);
        self.kept -= 1;
        self.forget_if_empty(&key);
        Some((key, kept.connection))
    }

    fn forget_if_empty(&mut self, key: &K) {
        if self.shared.get(key).is_some_and(Shared::is_empty) {
            self.shared.remove(key);
        }
    }
}

impl<C> Shared<C> {
    fn empty() -> Self {
        Self { turns: 0, kept: Vec::new(), waiting: VecDeque::new() }
    }

    fn is_empty(&self) -> bool {
        self.turns == 0 && self.kept.is_empty() && self.waiting.is_empty()
    }
}

impl ReuseLimits {
    fn end<C>(&self, kept: &Kept<C>) -> Instant {
        (kept.unused_since + self.idle_max).min(kept.carried.since + self.age_max)
    }

    fn allows<C>(&self, kept: &Kept<C>, now: Instant) -> bool {
        now < self.end(kept)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ReuseLimits = ReuseLimits {
        idle_max: Duration::from_secs(5),
        age_max: Duration::from_mins(1),
        messages_max: 3,
        per_key_max: 2,
        waiting_per_key_max: 2,
        kept_max: 3,
    };

    fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "a test needs some moment to count from")]
        Instant::now()
    }

    fn after(messages: u32, since: Instant) -> Carried {
        Carried { messages, since }
    }

    #[test]
    fn a_connection_given_back_serves_the_next_message_of_its_key_only() {
        let (mut reuse, now) = (Reuse::new(LIMITS), now());
        assert_eq!(reuse.ask(&"a", now), Turn::Open);
        assert_eq!(reuse.done(&"a", Some((1, after(1, now))), now), After { next: None, closed: None });
        assert_eq!(reuse.ask(&"b", now), Turn::Open);
        assert_eq!(reuse.ask(&"a", now), Turn::Kept(1, after(1, now)));
        assert_eq!(reuse.ask(&"a", now), Turn::Open, "it is in use");
    }

    #[test]
    fn one_that_rested_too_long_or_is_too_old_is_not_used_again() {
        let (mut reuse, start) = (Reuse::new(LIMITS), now());
        assert_eq!(reuse.ask(&"a", start), Turn::Open);
        reuse.done(&"a", Some((1, after(1, start))), start);
        let end = start + LIMITS.idle_max;
        assert_eq!(reuse.next_expiry(), Some(end));
        assert!(reuse.expire(start + LIMITS.idle_max / 2).is_empty());
        assert_eq!(reuse.ask(&"a", end), Turn::Open, "even before it is swept");
        assert_eq!(reuse.expire(end), [1]);
        assert_eq!((reuse.kept(), reuse.next_expiry()), (0, None));
        let old = start + LIMITS.age_max;
        assert_eq!(reuse.done(&"a", Some((2, after(1, start))), old).closed, Some(("a", 2)));
        assert!(reuse.shared.is_empty());
    }

    #[test]
    fn one_that_carried_enough_is_closed_and_the_next_opens_its_own() {
        let (mut reuse, now) = (Reuse::new(LIMITS), now());
        for _ in 0..2 {
            assert_eq!(reuse.ask(&"a", now), Turn::Open);
        }
        let Turn::Wait(ticket) = reuse.ask(&"a", now) else { panic!("two are open") };
        let done = reuse.done(&"a", Some((1, after(3, now))), now);
        assert_eq!(done, After { next: Some((ticket, None)), closed: Some(("a", 1)) });
    }

    #[test]
    fn who_waits_gets_a_freed_connection_in_order_and_not_more_than_may_wait() {
        let (mut reuse, now) = (Reuse::new(LIMITS), now());
        for _ in 0..2 {
            assert_eq!(reuse.ask(&"a", now), Turn::Open);
        }
        let Turn::Wait(first) = reuse.ask(&"a", now) else { panic!("two are open") };
        let Turn::Wait(second) = reuse.ask(&"a", now) else { panic!("two are open") };
        assert_eq!(reuse.ask(&"a", now), Turn::Full);
        assert_eq!(reuse.ask(&"b", now), Turn::Open, "others are not concerned");
        reuse.give_up(&"a", first);
        let done = reuse.done(&"a", Some((7, after(1, now))), now);
        assert_eq!(done.next, Some((second, Some((7, after(1, now))))));
        // The connection broke: whoever is next would open one.
        assert_eq!(reuse.done(&"a", None, now), After { next: None, closed: None });
    }

    #[test]
    fn beyond_all_that_may_be_kept_the_one_that_rested_longest_goes() {
        let (mut reuse, start) = (Reuse::new(LIMITS), now());
        for (number, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let now = start + Duration::from_millis(number as u64);
            assert_eq!(reuse.ask(&key, now), Turn::Open);
            let done = reuse.done(&key, Some((number, after(1, now))), now);
            assert_eq!(done.closed, (key == "d").then_some(("a", 0)));
        }
        let mut all = reuse.drain();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
        assert!(reuse.shared.is_empty());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask(u8),
        Done(u8, bool),
        GiveUp,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u8).prop_map(Step::Ask),
            (0..3_u8, any::<bool>()).prop_map(|(key, good)| Step::Done(key, good)),
            Just(Step::GiveUp),
            (0..3000_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_no_bound_is_passed_and_no_connection_is_lost_or_shared(steps in proptest::collection::vec(step(), 1..200)) {
            let mut reuse = Reuse::new(LIMITS);
            let mut now = now();
            let (mut opened, mut closed) = (0_u32, 0_u32);
            // Turns that run, each with its connection; and who waits.
            let mut running: Vec<(u8, u32, Carried)> = Vec::new();
            let mut waiting: Vec<(u8, Ticket)> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        closed += u32::try_from(reuse.expire(now).len()).expect("few");
                    }
                    Step::Ask(key) => match reuse.ask(&key, now) {
                        Turn::Kept(connection, carried) => running.push((key, connection, carried)),
                        Turn::Open => {
                            opened += 1;
                            running.push((key, opened, after(0, now)));
                        }
                        Turn::Wait(ticket) => waiting.push((key, ticket)),
                        Turn::Full => prop_assert_eq!(waiting.iter().filter(|one| one.0 == key).count(), 2),
                    },
                    Step::GiveUp => if let Some((key, ticket)) = waiting.pop() { reuse.give_up(&key, ticket) },
                    Step::Done(key, good) => {
                        let Some(at) = running.iter().position(|one| one.0 == key) else { continue };
                        let (_, connection, mut carried) = running.swap_remove(at);
                        carried.messages += 1;
                        let done = reuse.done(&key, good.then_some((connection, carried)), now);
                        closed += u32::from(!good) + u32::from(done.closed.is_some());
                        if let Some((ticket, connection)) = done.next {
                            let at = waiting.iter().position(|one| *one == (key, ticket)).expect("it waits");
                            prop_assert_eq!(waiting.iter().position(|one| one.0 == key), Some(at), "in order");
                            waiting.remove(at);
                            let (connection, carried) = connection.unwrap_or_else(|| {
                                opened += 1;
                                (opened, after(0, now))
                            });
                            running.push((key, connection, carried));
                        }
                    }
                }
                let mut numbers: Vec<u32> = running.iter().map(|one| one.1).collect();
                numbers.sort_unstable();
                numbers.dedup();
                prop_assert_eq!(numbers.len(), running.len(), "one connection, one message");
                prop_assert!(reuse.kept() <= LIMITS.kept_max);
                prop_assert_eq!(running.len() + reuse.kept() + closed as usize, opened as usize);
                for key in 0..3 {
                    let kept = reuse.shared.get(&key).map_or(0, |shared| shared.kept.len());
                    prop_assert!(running.iter().filter(|one| one.0 == key).count() + kept <= LIMITS.per_key_max);
                }
            }
        }
    }
}
