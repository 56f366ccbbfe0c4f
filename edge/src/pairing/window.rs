//! The codes that are open, and what became of those before: one hour, one use, and given up after a
//! few wrong ones. Pure: time, secrets and proofs are handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use gatepost_protocol::pairing::exchange::PairingRefusal;
use gatepost_protocol::secret::Secret;

/// How long a code is good.
pub const OPEN_FOR: Duration = Duration::from_hours(1);
/// Codes open at once.
pub const OPEN_MAX: usize = 4;
/// Wrong codes after which every open one is given up.
pub const WRONG_MAX: u32 = 5;
/// Codes that are no longer open and still known, so that whoever comes with one is told what became of it.
const PAST_MAX: usize = 16;

/// The codes.
#[derive(Debug, Default)]
pub struct Windows {
    known: VecDeque<Window>,
    next: u64,
}

#[derive(Debug)]
struct Window {
    id: u64,
    secret: Secret,
    name: Option<String>,
    until: Instant,
    wrong: u32,
    end: Option<End>,
}

/// What became of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This home used it.
    Paired(String),
    /// Its hour is over.
    Expired,
    /// Too many wrong codes came.
    GivenUp,
}

/// What is to be told of a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has used it; so many wrong codes came meanwhile.
    Open(u32),
    /// It is over.
    Over(End),
    /// Too long ago, or never.
    Unknown,
}

/// A code whose secret was proven.
#[derive(Debug)]
pub struct Good {
    /// Names it.
    pub id: u64,
    /// Its secret.
    pub secret: Secret,
    /// What its owner wants the home to be called.
    pub name: Option<String>,
}

impl Windows {
    /// Opens one. `None` if there are as many as there may be.
    pub fn open(&mut self, now: Instant, secret: Secret, name: Option<String>) -> Option<u64> {
        self.expire(now);
        if self.open_now() >= OPEN_MAX {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.known.push_back(Window { id, secret, name, until: now + OPEN_FOR, wrong: 0, end: None });
        while self.known.len() > OPEN_MAX + PAST_MAX {
            match self.known.iter().position(|window| window.end.is_some()) {
                Some(oldest) => drop(self.known.remove(oldest)),
                None => break,
            }
        }
        Some(id)
    }

    /// Codes that are open.
    pub fn open_now(&self) -> usize {
        self.known.iter().filter(|window| window.end.is_none()).count()
    }

    /// Which code this is. `proven` is asked of every secret, whatever it said of those before. If it is
    /// none that is open, that counts against all that are.
    pub fn judge(&mut self, now: Instant, proven: impl Fn(&Secret) -> bool) -> Result<Good, PairingRefusal> {
        self.expire(now);
        let mut found = None;
        for window in &self.known {
            if proven(&window.secret) {
                found = Some(window);
            }
        }
        let refusal = match found.map(|window| (window, &window.end)) {
            Some((window, None)) => {
                return Ok(Good { id: window.id, secret: window.secret.clone(), name: window.name.clone() });
            }
            Some((_, Some(End::Paired(_)))) => PairingRefusal::Used,
            Some((_, Some(End::Expired))) => PairingRefusal::Expired,
            Some((_, Some(End::GivenUp))) => PairingRefusal::GivenUp,
            None => PairingRefusal::Wrong,
        };
        for window in self.known.iter_mut().filter(|window| window.end.is_none()) {
            window.wrong += 1;
            if window.wrong >= WRONG_MAX {
                window.end = Some(End::GivenUp);
            }
        }
        Err(refusal)
    }

    /// This home has used it.
    pub fn used(&mut self, id: u64, home: &str) {
        if let Some(window) = self.known.iter_mut().find(|window| window.id == id) {
            window.end = Some(End::Paired(home.to_owned()));
        }
    }

    /// What became of it.
    pub fn state(&mut self, now: Instant, id: u64) -> State {
        self.expire(now);
        match self.known.iter().find(|window| window.id == id) {
            Some(Window { end: Some(end), .. }) => State::Over(end.clone()),
            Some(window) => State::Open(window.wrong),
            None => State::Unknown,
        }
    }

    fn expire(&mut self, now: Instant) {
        for window in self.known.iter_mut().filter(|window| window.end.is_none() && window.until <= now) {
            window.end = Some(End::Expired);
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    fn secret(number: u8) -> Secret {
        Secret::new(vec![number; 16])
    }

    fn judged(windows: &mut Windows, clock: &Clock, number: u8) -> Result<u64, PairingRefusal> {
        windows.judge(clock.now(), |held| *held == secret(number)).map(|good| good.id)
    }

    #[test]
    fn a_code_is_good_once_and_for_an_hour() {
        let clock = Clock::still(Duration::ZERO);
        let mut windows = Windows::default();
        let first = windows.open(clock.now(), secret(1), None).expect("room");
        let second = windows.open(clock.now(), secret(2), None).expect("room");
        assert_eq!(judged(&mut windows, &clock, 1), Ok(first));
        assert_eq!(judged(&mut windows, &clock, 1), Ok(first), "looked at is not used");
        windows.used(first, "cottage");
        assert_eq!(judged(&mut windows, &clock, 1), Err(PairingRefusal::Used));
        assert_eq!(windows.state(clock.now(), first), State::Over(End::Paired("cottage".into())));
        clock.turn(OPEN_FOR.saturating_sub(Duration::from_millis(1)));
        assert_eq!(judged(&mut windows, &clock, 2), Ok(second));
        clock.turn(Duration::from_millis(1));
        assert_eq!(judged(&mut windows, &clock, 2), Err(PairingRefusal::Expired));
        assert_eq!(windows.state(clock.now(), second), State::Over(End::Expired));
        assert_eq!(judged(&mut windows, &clock, 3), Err(PairingRefusal::Wrong));
        assert_eq!(windows.state(clock.now(), 99), State::Unknown);
    }

    #[test]
    fn after_a_few_wrong_codes_every_open_one_is_given_up() {
        let clock = Clock::still(Duration::ZERO);
        let mut windows = Windows::default();
        let id = windows.open(clock.now(), secret(1), None).expect("room");
        for wrong in 1..WRONG_MAX {
            assert_eq!(judged(&mut windows, &clock, 9), Err(PairingRefusal::Wrong));
            assert_eq!(windows.state(clock.now(), id), State::Open(wrong));
        }
        assert_eq!(judged(&mut windows, &clock, 1), Ok(id), "up to the last");
        assert_eq!(judged(&mut windows, &clock, 9), Err(PairingRefusal::Wrong));
        assert_eq!(judged(&mut windows, &clock, 1), Err(PairingRefusal::GivenUp));
        assert_eq!(windows.state(clock.now(), id), State::Over(End::GivenUp));
        let fresh = windows.open(clock.now(), secret(2), None).expect("room again");
        assert_eq!(judged(&mut windows, &clock, 2), Ok(fresh));
    }

    #[test]
    fn a_code_that_is_over_counts_as_a_wrong_one() {
        let clock = Clock::still(Duration::ZERO);
        let mut windows = Windows::default();
        let used = windows.open(clock.now(), secret(1), None).expect("room");
        windows.used(used, "cottage");
        let open = windows.open(clock.now(), secret(2), None).expect("room");
        assert_eq!(judged(&mut windows, &clock, 1), Err(PairingRefusal::Used));
        assert_eq!(windows.state(clock.now(), open), State::Open(1));
    }

    #[test]
    fn there_are_never_many() {
        let clock = Clock::still(Duration::ZERO);
        let mut windows = Windows::default();
        for number in 0..100 {
            let opened = windows.open(clock.now(), secret(number), None);
            assert_eq!(opened.is_some(), usize::from(number) < OPEN_MAX);
        }
        for _ in 0..20 {
            clock.turn(OPEN_FOR);
            assert!(windows.open(clock.now(), secret(7), None).is_some());
        }
        assert!(windows.known.len() <= OPEN_MAX + PAST_MAX, "{}", windows.known.len());
    }
}
