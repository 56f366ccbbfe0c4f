//! Who was put off because the DNS could not tell: for so long and no longer, then the message is taken as it is. In
//! memory only. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gatepost_protocol::network::Network;

/// A sender is put off for so long, from the first time on.
const PUT_OFF_MAX: Duration = Duration::from_hours(4);
/// After this a sender is a new one.
const KEPT: Duration = Duration::from_hours(24);
/// Senders remembered; when all are recent, nobody new is put off.
const SENDERS_MAX: usize = 10_000;

/// Senders that were put off.
#[derive(Debug, Default)]
pub struct Deferrals(HashMap<(String, Network), Instant>);

impl Deferrals {
    /// Whether mail of this domain from this network may be put off (once more).
    pub fn may(&mut self, now: Instant, domain: &str, client: IpAddr) -> bool {
        let age = |since: &Instant| now.saturating_duration_since(*since);
        let sender = (domain.to_lowercase(), Network::of_neighbours(client));
        if let Some(since) = self.0.get(&sender).filter(|since| age(since) < KEPT) {
            return age(since) < PUT_OFF_MAX;
        }
        if self.0.len() >= SENDERS_MAX {
            self.0.retain(|_, since| age(since) < KEPT);
            if self.0.len() >= SENDERS_MAX {
                return false;
            }
        }
        self.0.insert(sender, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_sender_is_put_off_for_four_hours_and_then_taken() {
        let mut deferrals = Deferrals::default();
        let begun = Clock::real().now();
        let mut at = |hours: u64, domain: &str, client: &str| {
            deferrals.may(begun + Duration::from_mins(hours * 60), domain, ip(client))
        };
        assert!(at(0, "a.example", "192.0.2.1"));
        assert!(at(3, "A.example", "192.0.2.200"), "the same network");
        assert!(!at(4, "a.example", "::ffff:192.0.2.7"));
        assert!(at(4, "a.example", "192.0.3.1"), "another network");
        assert!(at(4, "b.example", "192.0.2.1"), "another domain");
        assert!(!at(23, "a.example", "192.0.2.1"));
        assert!(at(24, "a.example", "192.0.2.1"), "it is a new one");
        assert!(at(0, "a.example", "2001:db8::1"));
        assert!(!at(5, "a.example", "2001:db8::ffff"));
    }

    #[test]
    fn a_flood_of_senders_puts_nobody_off_for_ever() {
        let mut deferrals = Deferrals::default();
        let begun = Clock::real().now();
        for number in 0..SENDERS_MAX {
            assert!(deferrals.may(begun, &format!("{number}.example"), ip("192.0.2.1")));
        }
        assert!(!deferrals.may(begun, "late.example", ip("192.0.2.1")), "there is no room to remember it");
        assert!(deferrals.may(begun + KEPT, "late.example", ip("192.0.2.1")));
        assert_eq!(deferrals.0.len(), 1);
    }
}
