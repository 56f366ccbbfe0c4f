//! Whether a DNS list can be believed: proven by its test points (RFC 5782 §5) before it counts, again each hour, and
//! passed over for a while once it lies or is silent. Pure.

use std::fmt;
use std::time::{Duration, Instant};

/// A proof is good for so long.
const PROOF_KEPT: Duration = Duration::from_hours(1);
/// A list that failed is asked nothing for so long.
const PASSED_OVER: Duration = Duration::from_mins(10);
/// Questions in a row without an answer before a list is passed over.
const SILENT_MAX: u32 = 3;

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not answer.
    Silent,
    /// It lists what no list may list: everything, it seems.
    ListsEverything,
    /// It does not list what every list has: it is gone, or refuses to answer us.
    ListsNothing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "it does not answer",
            Self::ListsEverything => "it lists 127.0.0.1, which no list may: it seems to list everything",
            Self::ListsNothing => "it does not list 127.0.0.2, which every list has: it is gone, or does not answer us",
        })
    }
}

/// What to do before asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Ask, and believe what it says.
    Ask,
    /// Ask, but believe it only once its test points were right.
    Prove,
    /// Don't.
    Leave,
}

/// Of one list, for one family of addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    state: State,
    silent: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Unproven,
    Good {
        until: Instant,
    },
    Bad(Fault, Instant),
}

impl Health {
    /// Whether and how to ask it now. Of a proof that is old, one who asks brings a new one.
    pub fn before_asking(&mut self, now: Instant) -> Use {
        match self.state {
            State::Good { until } if now < until => Use::Ask,
            State::Good { .. } => {
                // Others go by the old one meanwhile.
                self.state = State::Good { until: now + PASSED_OVER };
                Use::Prove
            }
            State::Bad(_, until) if now < until => Use::Leave,
            State::Bad(fault, _) => {
                self.state = State::Bad(fault, now + PASSED_OVER);
                Use::Prove
            }
            State::Unproven => Use::Prove,
        }
    }

    /// Its test points: whether the one that must be listed is, and the one that must not be. What is to be reported,
    /// if that is new.
    pub fn proven(&mut self, now: Instant, listed: bool, unlisted: bool) -> Option<Result<(), Fault>> {
        self.silent = 0;
        match (listed, unlisted) {
            (_, true) => self.fail(now, Fault::ListsEverything),
            (false, false) => self.fail(now, Fault::ListsNothing),
            (true, false) => {
                let was_bad = self.fault().is_some();
                self.state = State::Good { until: now + PROOF_KEPT };
                was_bad.then_some(Ok(()))
            }
        }
    }

    /// It answered a question.
    pub fn answered(&mut self) {
        self.silent = 0;
    }

    /// It did not.
    pub fn silent(&mut self, now: Instant) -> Option<Result<(), Fault>> {
        self.silent = self.silent.saturating_add(1);
        if self.silent < SILENT_MAX && self.fault().is_none() { None } else { self.fail(now, Fault::Silent) }
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<Fault> {
        match self.state {
            State::Bad(fault, _) => Some(fault),
            State::Unproven | State::Good { .. } => None,
        }
    }

    /// Whether it was found good.
    pub fn is_good(&self) -> bool {
        matches!(self.state, State::Good { .. })
    }

    fn fail(&mut self, now: Instant, fault: Fault) -> Option<Result<(), Fault>> {
        let was = self.fault();
        self.state = State::Bad(fault, now + PASSED_OVER);
        (was != Some(fault)).then_some(Err(fault))
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    fn now() -> Instant {
        Clock::real().now()
    }

    #[test]
    fn a_list_counts_once_its_test_points_are_right() {
        let (mut health, now) = (Health::default(), now());
        assert_eq!(health.before_asking(now), Use::Prove);
        assert_eq!(health.before_asking(now), Use::Prove, "everybody waits for the first proof");
        assert_eq!(health.proven(now, true, false), None);
        assert!(health.is_good());
        assert_eq!(health.before_asking(now + PROOF_KEPT / 2), Use::Ask);
        assert_eq!(health.before_asking(now + PROOF_KEPT), Use::Prove);
        assert_eq!(health.before_asking(now + PROOF_KEPT), Use::Ask, "one brings the new proof");
    }

    #[test]
    fn a_list_that_lies_is_left_for_a_while_and_told_of_once() {
        for (listed, unlisted, fault) in [
            (true, true, Fault::ListsEverything),
            (false, true, Fault::ListsEverything),
            (false, false, Fault::ListsNothing),
        ] {
            let (mut health, mut now) = (Health::default(), now());
            assert_eq!(health.proven(now, listed, unlisted), Some(Err(fault)));
            assert_eq!(health.before_asking(now), Use::Leave);
            now += PASSED_OVER;
            assert_eq!(health.before_asking(now), Use::Prove);
            assert_eq!(health.before_asking(now), Use::Leave, "one looks whether it is back");
            assert_eq!(health.proven(now, listed, unlisted), None, "told already");
            now += PASSED_OVER;
            assert_eq!(health.proven(now, true, false), Some(Ok(())), "it is back");
            assert_eq!(health.before_asking(now), Use::Ask);
        }
    }

    #[test]
    fn silence_is_forgiven_twice() {
        let (mut health, now) = (Health::default(), now());
        assert_eq!(health.proven(now, true, false), None);
        assert_eq!((health.silent(now), health.silent(now)), (None, None));
        health.answered();
        assert_eq!((health.silent(now), health.silent(now)), (None, None));
        assert_eq!(health.silent(now), Some(Err(Fault::Silent)));
        assert_eq!(health.silent(now), None);
        assert_eq!(health.before_asking(now), Use::Leave);
        assert_eq!(health.before_asking(now + PASSED_OVER), Use::Prove);
        assert_eq!(health.silent(now + PASSED_OVER), None, "still silent, told already");
        assert_eq!(health.before_asking(now + PASSED_OVER), Use::Leave);
    }
}
