//! When a key comes, signs, and goes. A new key signs only after the DNS shows its record; an old one stays published
//! for a while, for mail it signed is still under way. Pure: *now* comes in, by the steady time.

use gatepost_protocol::mail::signature::Algorithm;

const DAY_S: i64 = 24 * 3600;
/// A key that has signed for so long is to be followed by another, in seconds.
pub const SIGNS_S: i64 = 180 * DAY_S;
/// A key that signs no more stays in the DNS for so long, in seconds: longer than any queue of ours waits.
pub const KEPT_S: i64 = 7 * DAY_S;

/// Where a key stands; moments are seconds of the steady time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, and not seen in the DNS yet.
    Waiting,
    /// It signs.
    Signs {
        /// Since when.
        since_s: i64,
    },
    /// It signs no more, and its record is still needed.
    Retired {
        /// Since when.
        since_s: i64,
    },
}

impl Phase {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Signs { .. } => "signs",
            Self::Retired { .. } => "retired",
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A new key of this kind is to be made; it will wait.
    Make(Algorithm),
    /// The DNS is to be asked for this key's record; once it is there, the key signs.
    Look(usize),
    /// This key is to be removed.
    Forget(usize),
}

/// What is due for a domain's keys; numbers are places among them.
pub fn due(keys: &[(Algorithm, Phase)], now_s: i64) -> Vec<Due> {
    let mut due = Vec::new();
    for (place, (algorithm, phase)) in keys.iter().enumerate() {
        match *phase {
            Phase::Waiting => due.push(Due::Look(place)),
            Phase::Signs { since_s } => {
                let is_followed = keys.iter().any(|(of, phase)| of == algorithm && *phase == Phase::Waiting);
                if now_s.saturating_sub(since_s) >= SIGNS_S && !is_followed {
                    due.push(Due::Make(*algorithm));
                }
            }
            Phase::Retired { since_s } => {
                if now_s.saturating_sub(since_s) >= KEPT_S {
                    due.push(Due::Forget(place));
                }
            }
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: Algorithm = Algorithm::RsaSha256;
    const ED: Algorithm = Algorithm::Ed25519Sha256;

    #[test]
    fn a_key_is_followed_after_half_a_year_and_not_before() {
        let keys = [(RSA, Phase::Signs { since_s: 100 }), (ED, Phase::Signs { since_s: 200 })];
        assert_eq!(due(&keys, 100 + SIGNS_S - 1), []);
        assert_eq!(due(&keys, 100 + SIGNS_S), [Due::Make(RSA)]);
        assert_eq!(due(&keys, 200 + SIGNS_S), [Due::Make(RSA), Due::Make(ED)]);
    }

    #[test]
    fn one_waits_at_a_time_however_long_its_record_takes() {
        let keys = [(RSA, Phase::Signs { since_s: 0 }), (RSA, Phase::Waiting)];
        for now_s in [0, SIGNS_S, 10 * SIGNS_S] {
            assert_eq!(due(&keys, now_s), [Due::Look(1)], "only the DNS makes it sign");
        }
    }

    #[test]
    fn what_signs_no_more_is_kept_for_a_week() {
        let keys = [(RSA, Phase::Retired { since_s: 50 }), (RSA, Phase::Signs { since_s: 50 })];
        assert_eq!(due(&keys, 50 + KEPT_S - 1), []);
        assert_eq!(due(&keys, 50 + KEPT_S), [Due::Forget(0)]);
    }

    #[test]
    fn a_time_that_went_back_makes_nothing_due() {
        assert_eq!(
            due(&[(RSA, Phase::Signs { since_s: i64::MAX }), (RSA, Phase::Retired { since_s: 9 })], i64::MIN),
            []
        );
    }
}
