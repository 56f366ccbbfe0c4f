//! Networks that bring good mail (/24 of IPv4, /64 of IPv6): they are not kept waiting. Pure; time is the steady time.
//! Kept as a text a person can read, a line a network; a line that makes no sense is passed over.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use gatepost_protocol::network::Network;

/// The first line: what the file is, and its version.
const HEAD: &str = "gatepost regulars 1";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// So long after its last good message a network is a stranger again.
const REMEMBERED_MS: i64 = 35 * DAY_MS;
/// Networks remembered; then those that were seen least lately make room, a tenth at once.
const NETWORKS_MAX: usize = 10_000;
const ROOM_SHARE: usize = 10;
/// Octets of the file that are read at most.
pub const OCTETS_MAX: u64 = 1024 * 1024;

/// Why a file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not begin with {HEAD:?}")]
pub struct NotRegulars;

/// The networks, and when each brought its last good message, to the day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regulars(HashMap<Network, i64>);

impl Regulars {
    /// Whether this client's network has brought good mail.
    pub fn knows(&self, now_ms: i64, client: IpAddr) -> bool {
        let last = self.0.get(&Network::of_neighbours(client));
        last.is_some_and(|last| now_ms.saturating_sub(*last) < REMEMBERED_MS)
    }

    /// It brought a good message. True if that is worth writing down.
    pub fn note(&mut self, now_ms: i64, client: IpAddr) -> bool {
        let network = Network::of_neighbours(client);
        if self.0.get(&network).is_some_and(|last| now_ms.saturating_sub(*last) < DAY_MS) {
            return false;
        }
        if self.0.len() >= NETWORKS_MAX && !self.0.contains_key(&network) {
            let mut moments: Vec<i64> = self.0.values().copied().collect();
            let place = moments.len() / ROOM_SHARE;
            let cut = *moments.select_nth_unstable(place).1;
            self.0.retain(|_, last| *last > cut);
        }
        self.0.insert(network, now_ms);
        true
    }

    /// The text.
    pub fn write(&self, now_ms: i64) -> String {
        let mut kept: Vec<_> =
            self.0.iter().filter(|(_, last)| now_ms.saturating_sub(**last) < REMEMBERED_MS).collect();
        kept.sort();
        let mut text = format!("{HEAD}\n");
        for (network, last) in kept {
            let _ = writeln!(text, "{network} {last}");
        }
        text
    }

    /// Reads it; how many lines made no sense, too. No network was seen later than now.
    pub fn read(text: &str, now_ms: i64) -> Result<(Self, usize), NotRegulars> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(NotRegulars);
        }
        let (mut networks, mut damaged) = (HashMap::new(), 0);
        for line in lines {
            match parse(line) {
                Some((network, last)) if networks.len() < NETWORKS_MAX => {
                    networks.insert(network, last.min(now_ms));
                }
                _ => damaged += 1,
            }
        }
        Ok((Self(networks), damaged))
    }
}

fn parse(line: &str) -> Option<(Network, i64)> {
    let (network, last) = line.split_once(' ')?;
    let network: Network = network.parse().ok()?;
    (network == Network::of_neighbours(network.address())).then_some((network, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_is_known_until_it_was_silent_for_long() {
        let mut regulars = Regulars::default();
        assert!(!regulars.knows(0, ip("192.0.2.1")));
        assert!(regulars.note(0, ip("192.0.2.1")));
        assert!(regulars.knows(0, ip("192.0.2.200")) && !regulars.knows(0, ip("192.0.3.1")));
        assert!(!regulars.note(DAY_MS - 1, ip("192.0.2.9")), "to the day is enough");
        assert!(regulars.note(DAY_MS, ip("192.0.2.9")));
        assert!(regulars.knows(DAY_MS + REMEMBERED_MS - 1, ip("192.0.2.1")));
        assert!(!regulars.knows(DAY_MS + REMEMBERED_MS, ip("192.0.2.1")));
        assert!(regulars.note(0, ip("2001:db8::1")) && regulars.knows(0, ip("2001:db8::ffff")));
        assert!(!regulars.knows(0, ip("2001:db8:0:1::1")));
    }

    #[test]
    fn there_are_only_so_many_and_the_latest_stay() {
        let mut regulars = Regulars::default();
        let client = |number: usize| IpAddr::V4((u32::try_from(number).expect("small") << 8).into());
        for number in 0..2 * NETWORKS_MAX {
            regulars.note(i64::try_from(number).expect("small"), client(number));
            assert!(regulars.0.len() <= NETWORKS_MAX);
        }
        assert!(regulars.knows(20_000, client(2 * NETWORKS_MAX - 1)) && !regulars.knows(20_000, client(0)));
        let text = regulars.write(20_000);
        assert!(text.len() as u64 <= OCTETS_MAX);
    }

    #[test]
    fn what_is_written_is_read_and_damage_passed_over() {
        let mut regulars = Regulars::default();
        regulars.note(5, ip("192.0.2.1"));
        regulars.note(7, ip("2001:db8::1"));
        let text = regulars.write(10);
        assert_eq!(text, "gatepost regulars 1\n192.0.2.0/24 5\n2001:db8::/64 7\n");
        assert_eq!(Regulars::read(&text, 10), Ok((regulars, 0)));
        let (read, damaged) =
            Regulars::read("gatepost regulars 1\nx 1\n192.0.2.1 1\n192.0.2.0/24 99\n", 10).expect("read");
        assert_eq!((read.0.get(&Network::of_neighbours(ip("192.0.2.1"))), damaged), (Some(&10), 2));
        assert_eq!(Regulars::read("", 0), Err(NotRegulars));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,300}", now: i64) {
            let _ = Regulars::read(&text, now);
            if let Ok((read, _)) = Regulars::read(&format!("{HEAD}\n{text}"), now) {
                let _ = read.write(now);
            }
        }
    }
}
