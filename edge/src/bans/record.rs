//! The bans as they are kept: a text a person can read, a line a ban. Pure. A line that makes no sense is passed over.

use std::fmt::Write as _;

use gatepost_protocol::network::Network;

use super::strikes::{Ban, ByHand, Kind, Strikes};

/// The first line: what the file is, and its version.
const HEAD: &str = "gatepost bans 1";
/// What a ban by hand has instead of a kind.
const BY_HAND: &str = "hand";
/// When a ban for good ends.
const NEVER: &str = "never";
/// Octets that are read at most: as many bans as there can be.
pub const OCTETS_MAX: u64 = 2 * 1024 * 1024;

/// Why a file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not begin with {HEAD:?}")]
pub struct NotBans;

/// What was read, and how many lines made no sense.
#[derive(Debug)]
pub struct Read {
    /// The bans.
    pub strikes: Strikes,
    /// Lines that were passed over.
    pub damaged: usize,
}

/// The text.
pub fn write(strikes: &Strikes, now_ms: i64) -> String {
    let (bans, by_hand) = strikes.kept(now_ms);
    let mut text = format!("{HEAD}\n");
    for (network, Ban { kind, offence, since_ms, until_ms }) in bans {
        let _ = writeln!(text, "{network} {} {since_ms} {until_ms} {offence}", kind.name());
    }
    for ByHand { network, since_ms, until_ms } in by_hand {
        let until = until_ms.map_or_else(|| NEVER.to_owned(), |until| until.to_string());
        let _ = writeln!(text, "{network} {BY_HAND} {since_ms} {until}");
    }
    text
}

/// Reads it.
pub fn read(text: &str, now_ms: i64) -> Result<Read, NotBans> {
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(NotBans);
    }
    let (mut bans, mut by_hand, mut damaged) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        match parse(line) {
            Some(Line::Struck(network, ban)) => bans.push((network, ban)),
            Some(Line::ByHand(ban)) => by_hand.push(ban),
            None => damaged += 1,
        }
    }
    Ok(Read { strikes: Strikes::resumed(now_ms, bans, by_hand), damaged })
}

enum Line {
    Struck(Network, Ban),
    ByHand(ByHand),
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let network: Network = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let since_ms = words.next()?.parse().ok()?;
    let until = words.next()?;
    let parsed = if kind == BY_HAND {
        let until_ms = if until == NEVER { None } else { Some(until.parse().ok()?) };
        Line::ByHand(ByHand { network, since_ms, until_ms })
    } else {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let offence = words.next()?.parse().ok().filter(|offence| *offence > 0)?;
        // Only a client as strikes count them is ever looked up.
        if network != Network::of_client(network.address()) {
            return None;
        }
        Line::Struck(network, Ban { kind, offence, since_ms, until_ms: until.parse().ok()? })
    };
    words.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn struck(strikes: &mut Strikes, client: &str) {
        let client = client.parse().expect("an address");
        while strikes.strike(0, client, Kind::Login).is_none() {}
    }

    #[test]
    fn what_is_written_is_read() {
        let mut strikes = Strikes::default();
        struck(&mut strikes, "192.0.2.1");
        struck(&mut strikes, "2001:db8::1");
        assert!(strikes.add(1, "203.0.113.0/24".parse().expect("a network"), None));
        assert!(strikes.add(1, "198.51.100.1".parse().expect("a network"), Some(60_000)));
        let text = write(&strikes, 2);
        assert_eq!(
            text,
            "gatepost bans 1\n192.0.2.1 login 0 600000 1\n2001:db8::/64 login 0 600000 1\n\
             203.0.113.0/24 hand 1 never\n198.51.100.1 hand 1 60001\n"
        );
        let read = read(&text, 2).expect("read");
        assert_eq!((read.strikes.in_force(2), read.damaged), (strikes.in_force(2), 0));
        assert_eq!(write(&read.strikes, 2), text);
    }

    #[test]
    fn damaged_lines_are_passed_over_and_the_others_count() {
        let text = "gatepost bans 1\n192.0.2.1 login 0 600000 1\n\n192.0.2.2 login 0\n192.0.2.0/24 login 0 9 1\n\
                    192.0.2.3 rudeness 0 9 1\n192.0.2.3 login 0 9 0\n192.0.2.3 login 0 9 1 x\nx hand 0 never\n\
                    203.0.113.0/24 hand 0 nev";
        let found = read(text, 5).expect("read");
        assert_eq!(found.strikes.in_force(5).len(), 1);
        assert_eq!(found.damaged, 8);
        assert_eq!(read("", 0).expect_err("no bans"), NotBans);
        assert!(read("gatepost bans 2\n", 0).is_err());
    }

    #[test]
    fn no_ban_is_longer_than_it_can_be() {
        let text = format!("gatepost bans 1\n192.0.2.1 login 0 {} 1\n", i64::MAX);
        let found = read(&text, 1000).expect("read").strikes.in_force(1000);
        assert_eq!(found[0].until_ms, Some(1000 + 7 * 86_400_000));
        let text = format!("gatepost bans 1\n192.0.2.1 login {0} {0} 1\n", i64::MIN);
        let mut found = read(&text, i64::MAX).expect("read").strikes;
        assert!(found.in_force(i64::MAX).is_empty() && found.kept(i64::MAX).0.is_empty());
        struck(&mut found, "192.0.2.1");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,400}", now: i64) {
            let _ = read(&text, now);
            let text = format!("{HEAD}\n{text}");
            if let Ok(found) = read(&text, now) {
                let _ = write(&found.strikes, now);
            }
        }
    }
}
