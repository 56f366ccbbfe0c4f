//! When a certificate is renewed, and when to try again after it failed. Pure: moments and a random share in,
//! moments out, in seconds since 1970.

/// Longest pause after failures, in seconds: a CA that is back is found within half a day.
const PAUSE_MAX_S: i64 = 12 * 3600;
/// A quarter is added to each pause by chance, so that many who failed together don't come again together.
const PAUSE_JITTER: i64 = 4;
/// Below this part of its life the owner is told that a certificate is not renewed.
const ALARMING_PART: i64 = 3;
/// The same where another program renews it, which gets some more time.
const NEGLECTED_PART: i64 = 5;

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Not before.
    pub begins: i64,
    /// Not after.
    pub ends: i64,
}

/// When the CA would like to be asked for the next one (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its start. In the past: now.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

/// A random share of a span, chosen once for each certificate: the same question has the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u16);

impl Share {
    fn of(self, span: i64) -> i64 {
        span.max(0).saturating_mul(i64::from(self.0)) / i64::from(u16::MAX)
    }
}

impl Life {
    /// Seconds from its first to its last.
    pub fn length(self) -> i64 {
        self.ends.saturating_sub(self.begins).max(0)
    }

    /// When it is renewed: within the CA's window if there is one, but never later than its last sixth; else between
    /// two thirds and three quarters of its life.
    pub fn renewal(self, window: Option<Window>, share: Share) -> i64 {
        let length = self.length();
        match window {
            Some(window) => {
                let chosen = window.start.saturating_add(share.of(window.end.saturating_sub(window.start)));
                chosen.min(self.ends.saturating_sub(length / 6))
            }
            None => self.begins.saturating_add(length / 3 * 2).saturating_add(share.of(length / 12)),
        }
    }

    /// True when less than a third of it is left: a renewal is overdue, and its owner should know.
    pub fn is_alarming(self, now: i64) -> bool {
        self.ends.saturating_sub(now) < self.length() / ALARMING_PART
    }

    /// The same for one that somebody else renews, as most do when a third is left.
    pub fn is_neglected(self, now: i64) -> bool {
        self.ends.saturating_sub(now) < self.length() / NEGLECTED_PART
    }
}

/// How long to wait after so many failures in a row, in seconds: `first` after one, twice as long after each further
/// one, at least what the CA asked for, with some chance in it.
pub fn pause(failures: u32, first: i64, asked_for: i64, share: Share) -> i64 {
    let doubled = first.max(1).saturating_mul(1 << failures.saturating_sub(1).min(30));
    let pause = doubled.min(PAUSE_MAX_S.max(first));
    pause.max(asked_for.min(7 * PAUSE_MAX_S)).saturating_add(share.of(pause / PAUSE_JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const QUARTER: Life = Life { begins: 1_000_000, ends: 1_000_000 + 90 * DAY };

    #[test]
    fn without_a_window_it_is_renewed_after_two_thirds_and_before_three_quarters() {
        assert_eq!(QUARTER.renewal(None, Share(0)), QUARTER.begins + 60 * DAY);
        assert_eq!(QUARTER.renewal(None, Share(u16::MAX)), QUARTER.begins + 67 * DAY + DAY / 2);
        let short = Life { begins: 0, ends: 120 };
        assert_eq!(short.renewal(None, Share(0)), 80);
        assert_eq!(short.renewal(None, Share(u16::MAX)), 90);
    }

    #[test]
    fn the_window_of_the_ca_counts() {
        let window = Window { start: QUARTER.begins + 10 * DAY, end: QUARTER.begins + 12 * DAY };
        assert_eq!(QUARTER.renewal(Some(window), Share(0)), window.start);
        assert_eq!(QUARTER.renewal(Some(window), Share(u16::MAX)), window.end);
        let past = Window { start: 5, end: 10 };
        assert!(QUARTER.renewal(Some(past), Share(9)) <= 10, "a revoked one is renewed at once");
    }

    #[test]
    fn a_window_that_makes_no_sense_lets_nothing_run_out() {
        let never = Window { start: i64::MAX - 1, end: i64::MAX };
        assert_eq!(QUARTER.renewal(Some(never), Share(u16::MAX)), QUARTER.ends - 15 * DAY);
        let backwards = Window { start: QUARTER.begins + 20 * DAY, end: QUARTER.begins };
        assert_eq!(QUARTER.renewal(Some(backwards), Share(u16::MAX)), QUARTER.begins + 20 * DAY);
        let upside_down = Life { begins: 100, ends: 50 };
        assert_eq!(upside_down.renewal(None, Share(u16::MAX)), 100);
        assert_eq!(Life { begins: i64::MIN, ends: i64::MAX }.length(), i64::MAX);
    }

    #[test]
    fn pauses_double_up_to_half_a_day_and_obey_the_ca() {
        let plain = |failures| pause(failures, 300, 0, Share(0));
        assert_eq!([1, 2, 3, 8, 9, 200].map(plain), [300, 600, 1200, 38_400, 43_200, 43_200]);
        assert_eq!(pause(1, 300, 0, Share(u16::MAX)), 375);
        assert_eq!(pause(1, 300, 7200, Share(0)), 7200);
        assert_eq!(pause(1, 300, i64::MAX, Share(0)), 7 * 43_200, "nobody is made to wait for ever");
        assert_eq!(pause(0, 0, 0, Share(0)), 1);
    }

    #[test]
    fn the_last_third_is_alarming() {
        assert!(!QUARTER.is_alarming(QUARTER.begins + 60 * DAY));
        assert!(QUARTER.is_alarming(QUARTER.begins + 60 * DAY + 1));
        assert!(!QUARTER.is_neglected(QUARTER.begins + 72 * DAY));
        assert!(QUARTER.is_neglected(QUARTER.begins + 72 * DAY + 1));
    }
}
