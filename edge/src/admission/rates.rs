//! How much comes in a minute, from one network (/24 of IPv4, /64 of IPv6) and from all. Pure. What was said of a
//! network fades by itself; a network that has been quiet for a minute is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use gatepost_protocol::network::Network;

use crate::config::PerMinute;

/// What a rate is counted over, and how much of it may come at once.
const WINDOW: Duration = Duration::from_mins(1);
/// Networks counted; while more are busy, new ones count for all only.
const NETWORKS_MAX: usize = 10_000;

/// What has come.
#[derive(Debug, Default)]
pub struct Rate {
    /// When what came from each will have faded.
    networks: HashMap<Network, Instant>,
    all: Option<Instant>,
}

impl Rate {
    /// Whether one more may come now; if so, it is counted.
    pub fn take(&mut self, now: Instant, client: IpAddr, most: PerMinute) -> bool {
        let network = Network::of_neighbours(client);
        let Some(all) = added(self.all, now, most.all) else { return false };
        let Some(one) = added(self.networks.get(&network).copied(), now, most.network) else { return false };
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks.retain(|_, fades| *fades > now);
        }
        if self.networks.len() < NETWORKS_MAX || self.networks.contains_key(&network) {
            self.networks.insert(network, one);
        }
        self.all = Some(all);
        true
    }
}

/// One more on top of what fades until then; none if that is more than a window's worth.
fn added(fades: Option<Instant>, now: Instant, most: usize) -> Option<Instant> {
    let later = fades.map_or(now, |fades| fades.max(now)) + WINDOW / u32::try_from(most.max(1)).unwrap_or(u32::MAX);
    // Shares of a window are rounded down, so that all of them fit.
    (later <= now + WINDOW).then_some(later)
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::clock::Clock;

    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4((number << 8).into())
    }

    #[test]
    fn a_minutes_share_is_a_minutes_share() {
        let (mut rate, now) = (Rate::default(), Clock::real().now());
        let most = PerMinute { network: 3, all: 5 };
        assert_eq!((0..4).map(|_| rate.take(now, ip(1), most)).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(
            (0..3).map(|_| rate.take(now, ip(2), most)).collect::<Vec<_>>(),
            [true, true, false],
            "all together"
        );
        assert!(rate.take(now + WINDOW / 3, ip(1), most), "a third of the minute makes room for one");
        assert!(!rate.take(now + WINDOW / 3, ip(1), most));
        assert!((0..3).all(|_| rate.take(now + WINDOW * 2, ip(1), most)));
    }

    #[test]
    fn a_flood_of_networks_is_bounded_and_counted_for_all() {
        let (mut rate, now) = (Rate::default(), Clock::real().now());
        let most = PerMinute { network: 1, all: 1_000_000 };
        for number in 0..20_000 {
            assert!(rate.take(now, ip(number), most));
            assert!(rate.networks.len() <= NETWORKS_MAX);
        }
        assert!(!rate.take(now, ip(0), most));
        assert!(rate.take(now + WINDOW, ip(30_000), most) && rate.networks.len() == 1, "the quiet are forgotten");
    }
}
