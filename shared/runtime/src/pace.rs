//! How much an address, or a user of this machine, may send in an hour without a login: a device that was
//! taken over must not send for long. Kept in memory only; a place is forgotten once its hour is over.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is counted over.
const HOUR: Duration = Duration::from_hours(1);
/// Senders remembered at once. Those of a full list whose hour is over go first; then nobody new is let in.
const SENDERS_MAX: usize = 10_000;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A device. Of IPv6, a whole /64 counts as one: it has as many addresses as it likes.
    Address(IpAddr),
    /// A local user, by number.
    User(u32),
}

/// Counts recipients by sender and hour.
#[derive(Debug)]
pub struct Pace {
    recipients_per_hour_max: AtomicU32,
    counts: Mutex<HashMap<Sender, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    since: Instant,
    recipients: u32,
}

impl Pace {
    /// With this bound for each sender.
    pub fn new(recipients_per_hour_max: u32) -> Self {
        Self { recipients_per_hour_max: AtomicU32::new(recipients_per_hour_max), counts: Mutex::default() }
    }

    /// With another bound from now on; what was counted stays counted.
    pub fn set_max(&self, recipients_per_hour_max: u32) {
        self.recipients_per_hour_max.store(recipients_per_hour_max, Ordering::Relaxed);
    }

    /// Whether so many recipients more may be written to now; if so, they are counted.
    pub fn take(&self, now: Instant, sender: Sender, recipients: u32) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = counted_as(sender);
        let is_over = |count: &Count| now.saturating_duration_since(count.since) >= HOUR;
        if counts.len() >= SENDERS_MAX && !counts.contains_key(&sender) {
            counts.retain(|_, count| !is_over(count));
            if counts.len() >= SENDERS_MAX {
                return false;
            }
        }
        let count = counts.entry(sender).or_insert(Count { since: now, recipients: 0 });
        if is_over(count) {
            *count = Count { since: now, recipients: 0 };
        }
        let max = self.recipients_per_hour_max.load(Ordering::Relaxed);
        // A message for more than an hour's share goes alone: it would never go otherwise.
        let fits = count.recipients == 0 || count.recipients.saturating_add(recipients) <= max;
        if fits {
            count.recipients = count.recipients.saturating_add(recipients);
        }
        fits
    }
}

fn counted_as(sender: Sender) -> Sender {
    match sender {
        Sender::Address(IpAddr::V6(v6)) => {
            Sender::Address(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn an_hours_share_is_an_hours_share() {
        let (pace, clock) = (Pace::new(3), Clock::still(Duration::ZERO));
        let printer = Sender::Address("192.168.1.7".parse().expect("valid"));
        let nas = Sender::Address("192.168.1.8".parse().expect("valid"));
        assert!((0..3).all(|_| pace.take(clock.now(), printer, 1)));
        assert!(!pace.take(clock.now(), printer, 1), "one past the bound");
        assert!(pace.take(clock.now(), nas, 3), "another's share is its own");
        clock.turn(Duration::from_mins(59));
        assert!(!pace.take(clock.now(), printer, 1));
        clock.turn(Duration::from_mins(1));
        assert!(pace.take(clock.now(), printer, 3));
        assert!(!pace.take(clock.now(), printer, 1));
    }

    #[test]
    fn one_large_message_goes_alone() {
        let (pace, clock) = (Pace::new(3), Clock::still(Duration::ZERO));
        assert!(pace.take(clock.now(), Sender::User(0), 10));
        assert!(!pace.take(clock.now(), Sender::User(0), 1));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let (pace, clock) = (Pace::new(1), Clock::still(Duration::ZERO));
        let of = |text: &str| Sender::Address(text.parse().expect("valid"));
        assert!(pace.take(clock.now(), of("fd00::1"), 1));
        assert!(!pace.take(clock.now(), of("fd00::ffff:1"), 1));
        assert!(pace.take(clock.now(), of("fd00:0:0:1::1"), 1));
    }

    #[test]
    fn who_is_remembered_is_bounded() {
        let (pace, clock) = (Pace::new(1), Clock::still(Duration::ZERO));
        for user in 0..SENDERS_MAX {
            assert!(pace.take(clock.now(), Sender::User(u32::try_from(user).expect("small")), 1));
        }
        assert!(!pace.take(clock.now(), Sender::User(u32::MAX), 1), "no room for one more");
        clock.turn(HOUR);
        assert!(pace.take(clock.now(), Sender::User(u32::MAX), 1));
        assert_eq!(pace.counts.lock().expect("whole").len(), 1);
    }
}
