//! Greylisting (RFC 6647): who was never seen is asked to come back, which programs that only send spam seldom do. Pure.
//! Pending ones are in memory only: after a restart they come once more. Networks that passed are regulars.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gatepost_protocol::network::Network;

/// Who does not come back in this time is new again.
const PENDING_MAX: Duration = Duration::from_hours(24);
/// Pending ones; when there are as many recent ones, nobody new is put off.
const ENTRIES_MAX: usize = 20_000;
/// Octets of addresses that are remembered of each.
const ADDRESSES_OCTETS_MAX: usize = 128;

/// Who was put off: network, sender and recipient; and when first.
#[derive(Debug, Default)]
pub struct Greylist(HashMap<(Network, String), Instant>);

impl Greylist {
    /// Whether this one is put off (once more): it came first less than `delay` ago.
    pub fn puts_off(&mut self, now: Instant, client: IpAddr, sender: &str, recipient: &str, delay: Duration) -> bool {
        let mut addresses = format!("{sender} {recipient}").to_lowercase();
        addresses.truncate(addresses.floor_char_boundary(ADDRESSES_OCTETS_MAX));
        let entry = (Network::of_neighbours(client), addresses);
        let age = |since: &Instant| now.saturating_duration_since(*since);
        if let Some(since) = self.0.get(&entry).filter(|since| age(since) < PENDING_MAX) {
            return age(since) < delay;
        }
        if self.0.len() >= ENTRIES_MAX {
            self.0.retain(|_, since| age(since) < PENDING_MAX);
            if self.0.len() >= ENTRIES_MAX {
                return false;
            }
        }
        self.0.insert(entry, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    const DELAY: Duration = Duration::from_mins(5);

    #[test]
    fn who_comes_back_in_time_is_let_in() {
        let (mut list, now) = (Greylist::default(), Clock::real().now());
        let mut off = |after, last, sender| list.puts_off(now + after, [192, 0, 2, last].into(), sender, "a@b", DELAY);
        assert!(off(Duration::ZERO, 1, "x@y") && off(DELAY / 2, 1, "x@y"));
        assert!(!off(DELAY, 2, "X@Y"), "from a neighbour, in other letters");
        assert!(off(DELAY, 1, "z@y"), "another sender");
        assert!(!off(PENDING_MAX / 2, 1, "x@y"));
        assert!(off(PENDING_MAX, 1, "x@y"), "too late: it is new again");
    }

    #[test]
    fn a_flood_is_bounded_and_then_nobody_is_put_off() {
        let (mut list, now) = (Greylist::default(), Clock::real().now());
        for number in 0..30_000_u32 {
            let off = list.puts_off(now, [192, 0, 2, 1].into(), &format!("{number}@{}", "é".repeat(200)), "a@b", DELAY);
            assert_eq!(off, (number as usize) < ENTRIES_MAX);
        }
        assert!(list.puts_off(now + PENDING_MAX, [192, 0, 2, 1].into(), "x@y", "a@b", DELAY));
        assert_eq!(list.0.len(), 1);
    }
}
