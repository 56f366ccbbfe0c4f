//! Who is banned, when, for how long; and that nothing grows without end.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(text: &str) -> Network {
    text.parse().expect("a network")
}

/// Strikes at once until a ban; how many it took.
fn until_banned(strikes: &mut Strikes, now_ms: i64, client: IpAddr, kind: Kind) -> (u32, Ban) {
    (1..1000).find_map(|count| strikes.strike(now_ms, client, kind).map(|(_, ban)| (count, ban))).expect("at last")
}

#[test]
fn each_kind_has_its_weight() {
    for (kind, count) in [(Kind::Login, 10), (Kind::Unchecked, 200), (Kind::Recipient, 50), (Kind::Abuse, 5)] {
        let mut strikes = Strikes::default();
        let (counted, ban) = until_banned(&mut strikes, 7, ip("192.0.2.1"), kind);
        assert_eq!((counted, ban.kind, ban.offence), (count, kind, 1), "{kind:?}");
        assert!(strikes.is_banned(7, ip("192.0.2.1")) && strikes.is_banned(7, ip("::ffff:192.0.2.1")));
        assert!(!strikes.is_banned(7, ip("192.0.2.2")));
    }
}

#[test]
fn kinds_add_up() {
    let mut strikes = Strikes::default();
    for kind in [Kind::Abuse, Kind::Abuse, Kind::Abuse, Kind::Login, Kind::Login] {
        assert_eq!(strikes.strike(0, ip("192.0.2.1"), kind), None);
    }
    assert!(strikes.strike(0, ip("192.0.2.1"), Kind::Login).is_some());
}

#[test]
fn one_customer_of_ipv6_is_one_client() {
    let mut strikes = Strikes::default();
    for host in 0..9u128 {
        let client = IpAddr::V6((0x2001_0db8_0001_0002_u128 << 64 | host << 7).into());
        assert_eq!(strikes.strike(0, client, Kind::Login), None);
    }
    let (of, _) = strikes.strike(0, ip("2001:db8:1:2:f::"), Kind::Login).expect("banned");
    assert_eq!(of, network("2001:db8:1:2::/64"));
    assert!(strikes.is_banned(0, ip("2001:db8:1:2::1")));
    assert!(!strikes.is_banned(0, ip("2001:db8:1:3::1")));
}

#[test]
fn each_ban_is_longer_until_the_client_was_good_for_a_month() {
    let (mut strikes, client) = (Strikes::default(), ip("192.0.2.1"));
    let mut now = 0;
    let mut lengths = Vec::new();
    for _ in 0..6 {
        let (_, ban) = until_banned(&mut strikes, now, client, Kind::Login);
        lengths.push((ban.until_ms - ban.since_ms) / MINUTE_MS);
        assert!(strikes.is_banned(ban.until_ms - 1, client));
        assert!(!strikes.is_banned(ban.until_ms, client));
        now = ban.until_ms;
    }
    assert_eq!(lengths, [10, 60, 360, 1440, 10_080, 10_080]);
    let (_, ban) = until_banned(&mut strikes, now + REMEMBERED_MS, client, Kind::Login);
    assert_eq!(ban.offence, 1);
}

#[test]
fn who_was_struck_or_banned_is_suspect_for_a_while() {
    let (mut strikes, client) = (Strikes::default(), ip("192.0.2.1"));
    assert!(!strikes.is_suspect(0, client));
    assert_eq!(strikes.strike(0, client, Kind::Abuse), None);
    assert!(strikes.is_suspect(0, client) && !strikes.is_suspect(0, ip("192.0.2.2")));
    assert!(!strikes.is_suspect(HOUR_MS, client), "it has faded");
    let (_, ban) = until_banned(&mut strikes, HOUR_MS, client, Kind::Abuse);
    assert!(strikes.is_suspect(ban.until_ms + REMEMBERED_MS - 1, client));
    assert!(!strikes.is_suspect(ban.until_ms + REMEMBERED_MS, client));
}

#[test]
fn strikes_fade() {
    let mut strikes = Strikes::default();
    // A program that tries a password of yesterday every seven minutes.
    for minute in (0..100_000).step_by(7) {
        assert_eq!(strikes.strike(minute * MINUTE_MS, ip("192.0.2.1"), Kind::Login), None, "minute {minute}");
    }
    // Every five is too much in the long run.
    assert!(
        (0..1000).step_by(5).any(|minute| strikes.strike(minute * MINUTE_MS, ip("192.0.2.2"), Kind::Login).is_some())
    );
}

#[test]
fn good_mail_makes_up_for_recipients_that_are_gone() {
    let mut strikes = Strikes::default();
    for strike in 0..500 {
        assert_eq!(strikes.strike(0, ip("192.0.2.1"), Kind::Recipient), None, "strike {strike}");
        if strike % 10 == 9 {
            strikes.make_up(ip("192.0.2.1"), Kind::Recipient, 10);
        }
    }
    strikes.make_up(ip("192.0.2.1"), Kind::Recipient, i64::from(u16::MAX));
    let (count, _) = until_banned(&mut strikes, 0, ip("192.0.2.1"), Kind::Recipient);
    assert_eq!(count, 50, "no credit is given beyond that");
}

#[test]
fn the_owner_bans_and_lifts() {
    let mut strikes = Strikes::default();
    assert!(strikes.add(0, network("203.0.113.0/24"), None));
    assert!(strikes.add(0, network("198.51.100.7"), Some(MINUTE_MS)));
    until_banned(&mut strikes, 5, ip("2001:db8::1"), Kind::Abuse);
    assert!(strikes.is_banned(i64::MAX, ip("203.0.113.255")));
    assert!(strikes.is_banned(MINUTE_MS - 1, ip("198.51.100.7")) && !strikes.is_banned(MINUTE_MS, ip("198.51.100.7")));
    let listed: Vec<_> = strikes.in_force(5).iter().map(|ban| (ban.network.to_string(), ban.kind)).collect();
    let expected = [("2001:db8::/64", Some(Kind::Abuse)), ("198.51.100.7", None), ("203.0.113.0/24", None)];
    assert_eq!(listed, expected.map(|(of, kind)| (of.to_owned(), kind)));
    assert_eq!(strikes.lift(5, network("192.0.2.1")), Lifted::None);
    assert_eq!(strikes.lift(5, network("203.0.113.9")), Lifted::Within(network("203.0.113.0/24")));
    assert_eq!(strikes.lift(5, network("2001:db8::5")), Lifted::These(vec![network("2001:db8::/64")]));
    assert!(!strikes.is_banned(5, ip("2001:db8::1")));
    let (_, ban) = until_banned(&mut strikes, 5, ip("2001:db8::1"), Kind::Abuse);
    assert_eq!(ban.offence, 1, "what was lifted is forgotten");
    let all = strikes.lift(5, network("0.0.0.0/0"));
    assert_eq!(all, Lifted::These(vec![network("198.51.100.7"), network("203.0.113.0/24")]));
    assert_eq!(strikes.in_force(5).len(), 1);
}

#[test]
fn a_longer_ban_by_hand_replaces_a_shorter_and_there_are_only_so_many() {
    let mut strikes = Strikes::default();
    let host = |number: usize| Network::around(IpAddr::V4(u32::try_from(number).expect("small").into()), 32);
    assert!(strikes.add(0, host(0), Some(1)) && strikes.add(0, host(0), None));
    assert_eq!(strikes.in_force(0).len(), 1);
    assert!((1..BY_HAND_MAX).all(|number| strikes.add(0, host(number), Some(10))));
    assert!(!strikes.add(9, host(BY_HAND_MAX), None));
    assert!(strikes.add(10, host(BY_HAND_MAX), None), "those that are over make room");
}

#[test]
fn a_flood_of_clients_makes_the_mildest_be_forgotten() {
    let mut strikes = Strikes::default();
    let client = |number: usize| IpAddr::V4(u32::try_from(number).expect("small").into());
    for _ in 0..9 {
        assert_eq!(strikes.strike(0, ip("192.0.2.1"), Kind::Login), None);
    }
    for number in 0..3 * CLIENTS_MAX {
        assert_eq!(strikes.strike(0, client(number), Kind::Unchecked), None);
        assert!(strikes.suspects.len() <= CLIENTS_MAX);
    }
    assert!(strikes.strike(0, ip("192.0.2.1"), Kind::Login).is_some(), "the worst was remembered");
    for number in 0..CLIENTS_MAX + 10 {
        until_banned(&mut strikes, i64::try_from(number).expect("small"), client(number), Kind::Abuse);
        assert!(strikes.bans.len() <= CLIENTS_MAX);
    }
    assert!(strikes.is_banned(20_000, client(CLIENTS_MAX + 9)), "the newest is banned");
    assert!(!strikes.is_banned(20_000, client(0)), "the one that was to end first made room");
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_banned_for_less_than_the_points_of_a_ban(
        steps in proptest::collection::vec((0i64..HOUR_MS, 0u8..3, 0usize..4), 1..200),
    ) {
        let mut strikes = Strikes::default();
        let mut now = 0;
        let mut given = [[0i64; 4]; 3];
        for (passed, client, kind) in steps {
            now += passed;
            let (client, kind) = (usize::from(client), Kind::ALL[kind]);
            let address = IpAddr::from([192, 0, 2, u8::try_from(client).expect("small")]);
            let before = strikes.is_banned(now, address);
            let banned = strikes.strike(now, address, kind);
            if before {
                prop_assert!(banned.is_none());
                continue;
            }
            given[client][kind as usize] += kind.points();
            if let Some((_, ban)) = banned {
                prop_assert!(given[client].iter().sum::<i64>() >= BAN_AT);
                prop_assert!(BAN_MS.contains(&(ban.until_ms - ban.since_ms)));
                given[client] = [0; 4];
            }
            prop_assert_eq!(banned.is_some(), strikes.is_banned(now, address));
        }
        let (bans, by_hand) = strikes.kept(now);
        let again = Strikes::resumed(now, bans, by_hand);
        prop_assert_eq!(again.in_force(now), strikes.in_force(now));
    }
}
