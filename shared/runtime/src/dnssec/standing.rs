//! Whether the name servers in use pass signatures on, by what trying came to. Pure: results and moments go in.
//!
//! Servers that never did are believed at once: mail goes on without DANE. Servers that did and stopped are believed only
//! when it lasts, for whoever sits between us and them could strip signatures as well; until then mail waits.

use std::time::{Duration, Instant};

/// What trying came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// An anchor's own records were proven.
    Proven,
    /// The servers answer, but nothing can be proven by what they say.
    Unproven(String),
    /// They do not answer.
    Silent,
}

/// What may be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Find out first.
    Try,
    /// Signatures come through: what is bogus is bogus.
    Validate,
    /// They do not: ask without.
    Without,
}

/// What `status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nobody has asked yet.
    Unknown,
    /// Signatures come through.
    Works,
    /// They do not, in these words; DANE is not applied.
    Missing(String),
    /// They did until lately; mail waits for domains that can't be proven.
    Lost(String),
}

/// Servers that did not pass signatures on are tried again after so long.
pub const AGAIN_AFTER: Duration = Duration::from_mins(10);
/// What is bogus makes servers that did be tried again, but no more often than this.
pub const DOUBTED_AFTER: Duration = Duration::from_mins(1);
/// Servers that did and stopped are believed after so long.
pub const BELIEVED_AFTER: Duration = Duration::from_hours(1);

/// Where it stands with the servers of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unknown,
    Works {
        tried: Instant,
    },
    Lost {
        since: Instant,
        tried: Instant,
        why: String,
    },
    Missing {
        tried: Instant,
        why: String,
    },
}

impl Standing {
    /// What may be asked now.
    pub fn how(&self, now: Instant) -> Use {
        let is_over = |since: Instant, after: Duration| now.saturating_duration_since(since) >= after;
        match &self.state {
            State::Unknown => Use::Try,
            State::Lost { tried, .. } if is_over(*tried, DOUBTED_AFTER) => Use::Try,
            State::Works { .. } | State::Lost { .. } => Use::Validate,
            State::Missing { tried, .. } if is_over(*tried, AGAIN_AFTER) => Use::Try,
            State::Missing { .. } => Use::Without,
        }
    }

    /// Something could not be proven: true if that should make us try the servers.
    pub fn is_doubtful(&self, now: Instant) -> bool {
        match &self.state {
            State::Works { tried } => now.saturating_duration_since(*tried) >= DOUBTED_AFTER,
            State::Unknown | State::Lost { .. } | State::Missing { .. } => false,
        }
    }

    /// Trying came to this; true if that is news.
    pub fn tried(&mut self, trial: Trial, now: Instant) -> bool {
        let before = std::mem::discriminant(&self.state);
        self.state = match (std::mem::take(&mut self.state), trial) {
            (_, Trial::Proven) | (State::Works { .. }, Trial::Silent) => State::Works { tried: now },
            // Who says nothing at all has told nothing about signatures.
            (State::Unknown, Trial::Silent) => State::Unknown,
            (State::Lost { since, why, .. }, Trial::Silent) => State::Lost { since, tried: now, why },
            (State::Missing { why, .. }, Trial::Silent) => State::Missing { tried: now, why },
            (State::Works { .. }, Trial::Unproven(why)) => State::Lost { since: now, tried: now, why },
            (State::Lost { since, .. }, Trial::Unproven(why))
                if now.saturating_duration_since(since) < BELIEVED_AFTER =>
            {
                State::Lost { since, tried: now, why }
            }
            (State::Unknown | State::Lost { .. } | State::Missing { .. }, Trial::Unproven(why)) => {
                State::Missing { tried: now, why }
            }
        };
        before != std::mem::discriminant(&self.state)
    }

    /// What `status` shows.
    pub fn shown(&self) -> Shown {
        match &self.state {
            State::Unknown => Shown::Unknown,
            State::Works { .. } => Shown::Works,
            State::Lost { why, .. } => Shown::Lost(why.clone()),
            State::Missing { why, .. } => Shown::Missing(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn unproven() -> Trial {
        Trial::Unproven("no signatures".to_owned())
    }

    #[test]
    fn servers_that_never_passed_signatures_on_stop_no_mail() {
        let now = Clock::real().now();
        let mut standing = Standing::default();
        assert_eq!(standing.how(now), Use::Try);
        assert!(standing.tried(unproven(), now));
        assert_eq!(standing.how(now), Use::Without);
        assert_eq!(standing.how(now + AGAIN_AFTER), Use::Try, "they may have learnt it");
        assert!(!standing.tried(unproven(), now + AGAIN_AFTER), "told once");
        assert!(standing.tried(Trial::Proven, now + AGAIN_AFTER));
        assert_eq!(standing.how(now + AGAIN_AFTER), Use::Validate);
    }

    #[test]
    fn servers_that_stop_passing_signatures_on_are_not_believed_at_once() {
        let mut now = Clock::real().now();
        let mut standing = Standing::default();
        standing.tried(Trial::Proven, now);
        assert!(!standing.is_doubtful(now), "they were tried just now");
        now += DOUBTED_AFTER;
        assert!(standing.is_doubtful(now));
        assert!(standing.tried(unproven(), now));
        assert_eq!(standing.how(now), Use::Validate, "mail waits");
        let lost = now;
        while now.duration_since(lost) < BELIEVED_AFTER {
            assert_eq!(standing.how(now), if now == lost { Use::Validate } else { Use::Try });
            standing.tried(unproven(), now);
            assert!(matches!(standing.shown(), Shown::Lost(_)));
            now += DOUBTED_AFTER;
        }
        assert!(standing.tried(unproven(), now));
        assert_eq!(standing.how(now), Use::Without);
    }

    #[test]
    fn one_good_answer_mends_it() {
        let now = Clock::real().now();
        let mut standing = Standing::default();
        standing.tried(Trial::Proven, now);
        standing.tried(unproven(), now);
        standing.tried(Trial::Proven, now + DOUBTED_AFTER);
        assert_eq!(standing.shown(), Shown::Works);
    }

    #[test]
    fn silence_says_nothing_about_signatures() {
        let now = Clock::real().now();
        let mut standing = Standing::default();
        assert!(!standing.tried(Trial::Silent, now));
        assert_eq!(standing.how(now), Use::Try);
        standing.tried(Trial::Proven, now);
        assert!(!standing.tried(Trial::Silent, now));
        assert_eq!(standing.how(now), Use::Validate);
    }
}
