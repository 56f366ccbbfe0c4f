//! RCPT by the directory: known, unknown, not ours, or not to be told yet. Pure over what it is
//! handed; a transaction is for one home only.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, ForwardPath, LocalPart, ReversePath};
use gatepost_protocol::mail::directory::{Lookup, ReturnLookup, Room};
use gatepost_protocol::mail::policy::Policy;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::srs::Day;

use super::access::{self, Allowed};
use crate::homes::{Home, Homes};

/// A recipient that is taken, and whose it is.
#[derive(Debug)]
pub struct Taken {
    /// The home.
    pub home: Arc<Home>,
    /// The address; the bare postmaster has got a domain.
    pub address: Address,
    /// What the home's access list says.
    pub allowed: Allowed,
    /// What is done with mail for its domain.
    pub policy: Arc<Policy>,
}

/// What is known of a transaction when a recipient is judged.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The home of the recipients taken before.
    pub home: Option<&'a Arc<Home>>,
    /// What the client announced.
    pub size: Option<u64>,
    /// Who connects.
    pub client: IpAddr,
    /// What it hears because of DNS lists, unless the home's access list allows it.
    pub listed: Option<&'a Reply>,
    /// What is done with mail for the recipients taken before.
    pub policy: Option<&'a Arc<Policy>>,
    /// Who sends; nobody sends bounces.
    pub sender: &'a ReversePath,
    /// Today, for return paths, which expire.
    pub today: Day,
}

/// Judges a recipient of mail from the world.
pub fn judge_inbound(homes: &Homes, path: ForwardPath, asked: Asked<'_>) -> Result<Taken, Reply> {
    let address = match path {
        ForwardPath::Address(address) => address,
        // The first domain of the first home speaks for the host (RFC 5321 §4.5.1); a host that has no
        // home yet has nobody to take it.
        ForwardPath::Postmaster => match homes.all().first() {
            Some(home) => postmaster(home),
            None => return Err(Reply::directory_missing()),
        },
    };
    let Some(owner) = homes.of_domain(address.domain()) else {
        return Err(Reply::relay_denied());
    };
    if asked.home.is_some_and(|home| !Arc::ptr_eq(home, &owner)) {
        return Err(Reply::too_many_recipients());
    }
    let Some(directory) = owner.directory() else {
        return Err(Reply::directory_missing());
    };
    let policy = directory.policies.of(address.domain());
    // One message is judged once: the client brings it again for the others (RFC 5321 §4.5.3.1.10).
    if asked.policy.is_some_and(|before| before != policy) {
        return Err(Reply::too_many_recipients());
    }
    // Before anything is told of who exists.
    let allowed = access::judge(&directory, asked.client, asked.sender, address.domain())?;
    if let Some(reply) = asked.listed
        && allowed == Allowed::No
        && !policy.monitor
        && !is_postmaster(&address)
    {
        return Err(reply.clone());
    }
    match directory.return_path(&address, *asked.sender == ReversePath::Null, asked.today) {
        Some(ReturnLookup::Good) => {}
        Some(ReturnLookup::NoBounce) => return Err(Reply::bounces_only()),
        Some(ReturnLookup::Invalid) => return Err(Reply::return_path_invalid()),
        None => match directory.lookup(&address) {
            Lookup::Known => {}
            Lookup::Unknown if is_postmaster(&address) => {}
            Lookup::Unknown => return Err(Reply::unknown_recipient()),
            // Configured for this home, but the home does not serve it (yet).
            Lookup::NotOurs => return Err(Reply::directory_missing()),
        },
    }
    if asked.size.is_some_and(|size| size > directory.message_octets_max) {
        return Err(Reply::too_big(directory.message_octets_max));
    }
    // Postmaster always has room (RFC 5321 §4.5.1).
    if let Some(room) = directory.room(&address).filter(|_| !is_postmaster(&address)) {
        fits(asked.size.unwrap_or(1).max(1), room)?;
    }
    Ok(Taken { home: owner, address, allowed, policy: Arc::clone(policy) })
}

/// Whether a message of about so many octets may find room.
fn fits(octets: u64, room: Room) -> Result<(), Reply> {
    if octets > room.whole && room.whole > 0 {
        return Err(Reply::mailbox_too_small(room.whole));
    }
    if octets > room.left { Err(Reply::mailbox_full()) } else { Ok(()) }
}

/// Judges a recipient of an account's mail: what is local must exist, the rest is the home's to say.
pub fn judge_submission(home: &Arc<Home>, path: ForwardPath, size: Option<u64>) -> Result<Address, Reply> {
    let address = match path {
        ForwardPath::Address(address) => address,
        ForwardPath::Postmaster => postmaster(home),
    };
    if let Some(directory) = home.directory() {
        if directory.lookup(&address) == Lookup::Unknown && !is_postmaster(&address) {
            return Err(Reply::unknown_recipient());
        }
        if size.is_some_and(|size| size > directory.message_octets_max) {
            return Err(Reply::too_big(directory.message_octets_max));
        }
    }
    Ok(address)
}

fn postmaster(home: &Home) -> Address {
    let local = LocalPart::parse("postmaster").expect("an atom is a local part");
    Address::new(local, home.domains()[0].clone())
}

/// True for `postmaster`, whom every domain must have (RFC 5321 §4.5.1).
/// Whether it is whom every host has (RFC 5321 §4.5.1).
pub fn is_postmaster(address: &Address) -> bool {
    address.local().as_str().eq_ignore_ascii_case("postmaster")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use gatepost_protocol::mail::access::{Access, AccessList, Rule};
    use gatepost_protocol::mail::address::Domain;
    use gatepost_protocol::mail::directory::{Directory, DomainPolicy, SrsVerifier};
    use gatepost_protocol::mail::pattern::{DomainPattern, LocalPattern};
    use gatepost_protocol::mail::policy::Policies;
    use gatepost_protocol::mail::srs::{self, ReturnPath, SrsKey};
    use gatepost_protocol::pairing::NodeKey;
    use gatepost_protocol::tunnel::verb::directory::WireDirectory2;

    use super::*;
    use crate::config::{HomeConfig, Origin};
    use crate::homes::directory::Shelf;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).expect("valid")
    }

    fn config(name: &str, domains: &[&str]) -> HomeConfig {
        HomeConfig {
            name: name.into(),
            keys: vec![NodeKey::of_spki(name.as_bytes())],
            domains: domains.iter().map(|name| domain(name)).collect(),
            private_routes: Some(false),
            origin: Origin::Paired,
        }
    }

    fn homes(state: &Path) -> Homes {
        let directory = Directory {
            version: 1,
            domains: ["example.org", "watched.example", "same.example"]
                .map(|name| (domain(name), DomainPolicy { catch_all: name != "example.org" }))
                .into(),
            addresses: ["alice@example.org", "full@example.org", "tight@example.org"].into(),
            subaddress_separator: Some('+'),
            verifiers: HashMap::new(),
            seal_key: Vec::new(),
            message_octets_max: 1000,
            patterns: vec![DomainPattern {
                domain: domain("example.org"),
                pattern: LocalPattern::parse("shop-.*").expect("good"),
            }],
            tight: [("full", 0), ("postmaster", 0), ("tight", 300)]
                .map(|(name, left)| (format!("{name}@example.org"), Room { left, whole: 500 }))
                .into(),
            srs: Some(SrsVerifier { keys: vec![SrsKey::new([1; 32])] }),
            access: AccessList::new([
                rule(Access::Refuse, "a.example", None),
                rule(Access::Allow, "bob@a.example", Some("example.org")),
                rule(Access::Refuse, "203.0.113.0/24", None),
                rule(Access::Allow, "203.0.113.7", None),
            ]),
            policies: Policies {
                domains: [("watched.example", true), ("same.example", false)]
                    .map(|(name, monitor)| (domain(name), Arc::new(Policy { monitor, ..Policy::default() })))
                    .into(),
                ..Policies::default()
            },
            hosts: Vec::new(),
            mta_sts: None,
            services: gatepost_protocol::mail::services::Services::default(),
        };
        for name in ["cottage", "cabin"] {
            let mut directory = directory.clone();
            if name == "cabin" {
                directory.domains = HashMap::from([(domain("example.com"), DomainPolicy { catch_all: true })]);
            }
            let own: Vec<_> = directory.domains.keys().cloned().collect();
            let shelf = Shelf::open(&state.join("directory"), name, &own).expect("opened");
            shelf.put(WireDirectory2::from(&directory)).expect("kept");
        }
        let configs = [
            config("cottage", &["example.org", "later.example", "watched.example", "same.example"]),
            config("cabin", &["example.com"]),
            config("silent", &["silent.example"]),
        ];
        Homes::open(state, &configs, gatepost_runtime::clock::Clock::real()).expect("opened")
    }

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(text).expect("valid")
    }

    fn asked() -> Asked<'static> {
        Asked {
            home: None,
            size: None,
            client: [192, 0, 2, 1].into(),
            policy: None,
            listed: None,
            sender: &ReversePath::Null,
            today: Day::of(0),
        }
    }

    fn sender(text: &str) -> ReversePath {
        ReversePath::parse(text).expect("valid")
    }

    fn rule(access: Access, subject: &str, recipient: Option<&str>) -> Rule {
        Rule { subject: subject.parse().expect("a subject"), recipient: recipient.map(domain), access }
    }

    fn announced(size: u64) -> Asked<'static> {
        Asked { size: Some(size), ..asked() }
    }

    #[test]
    fn a_return_path_takes_bounces_only_and_only_if_the_home_made_it() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let made = |key| {
            let origin = srs::Origin::of(&Address::parse("x@world.example").expect("valid"));
            ReturnPath::new(origin, Day::of(0), &SrsKey::new([key; 32]), &SrsKey::new([9; 32])).to_string()
        };
        let judge = |local: &str, domain: &str, asked: Asked<'_>| {
            judge_inbound(&homes, path(&format!("{local}@{domain}")), asked).err()
        };
        let (bounce, world) = (asked(), sender("x@world.example"));
        let letter = Asked { sender: &world, ..bounce };
        assert_eq!(judge(&made(1), "example.org", bounce), None);
        assert_eq!(judge(&made(1).to_lowercase(), "example.org", bounce), None);
        assert_eq!(judge(&made(1), "example.org", letter), Some(Reply::bounces_only()));
        assert_eq!(judge(&made(2), "example.org", bounce), Some(Reply::return_path_invalid()));
        assert_eq!(judge(&made(2), "example.com", bounce), Some(Reply::return_path_invalid()), "not by catch-all");
        let late = Asked { today: Day::of(23 * 24 * 3600), ..bounce };
        assert_eq!(judge(&made(1), "example.org", late), Some(Reply::return_path_invalid()));
    }

    #[test]
    fn the_homes_access_list_is_heard_before_anything_is_told_of_who_exists() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let judge = |client: [u8; 4], from: &str, to: &str| {
            let from = sender(from);
            let asked = Asked { client: client.into(), sender: &from, ..asked() };
            judge_inbound(&homes, path(to), asked).map(|taken| taken.allowed)
        };
        let refused = |who: &str| Err(Reply::access_refused(who));
        let (any, known, unknown) = ([192, 0, 2, 1], "alice@example.org", "nobody@example.org");
        assert_eq!(judge(any, "x@b.example", known), Ok(Allowed::No));
        assert_eq!(judge(any, "x@a.example", unknown), refused("x@a.example"));
        assert_eq!(judge(any, "bob@a.example", known), Ok(Allowed::Sender));
        assert_eq!(judge(any, "bob@a.example", "anyone@example.com"), refused("bob@a.example"), "not there");
        assert_eq!(judge([203, 0, 113, 9], "", unknown), refused("203.0.113.9"));
        assert_eq!(judge([203, 0, 113, 7], "", known), Ok(Allowed::Client));
    }

    #[test]
    fn who_is_listed_reaches_postmaster_and_who_allows_it() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let listed = Reply::listed("192.0.2.1", "list.example", None);
        let judge = |client: [u8; 4], from: &str, to: &str| {
            let from = sender(from);
            let asked = Asked { client: client.into(), sender: &from, listed: Some(&listed), ..asked() };
            judge_inbound(&homes, path(to), asked).map(|taken| taken.allowed)
        };
        let any = [192, 0, 2, 1];
        assert_eq!(judge(any, "x@b.example", "alice@example.org"), Err(listed.clone()));
        assert_eq!(judge(any, "x@b.example", "nobody@example.org"), Err(listed.clone()), "nobody is told who exists");
        assert_eq!(judge(any, "x@b.example", "alice@elsewhere.example"), Err(Reply::relay_denied()));
        assert_eq!(judge(any, "x@b.example", "Postmaster@example.org"), Ok(Allowed::No));
        assert_eq!(judge(any, "bob@a.example", "alice@example.org"), Ok(Allowed::Sender));
        assert_eq!(judge([203, 0, 113, 7], "x@b.example", "alice@example.org"), Ok(Allowed::Client));
        assert_eq!(
            judge_inbound(&homes, ForwardPath::Postmaster, Asked { listed: Some(&listed), ..asked() }).err(),
            None
        );
    }

    #[test]
    fn only_what_every_home_refuses_is_turned_away_early() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let refused = IpAddr::from([203, 0, 113, 9]);
        assert_eq!(access::client_refused(&homes, refused), None, "the silent home may take it");
        let both: Vec<_> =
            [("cottage", "example.org"), ("cabin", "example.com")].map(|(name, of)| config(name, &[of])).into();
        homes.set(&both).expect("set");
        assert_eq!(access::client_refused(&homes, refused), None, "it may be for Bob");
        assert_eq!(access::sender_refused(&homes, refused, &sender("bob@a.example")), None);
        let eve = sender("eve@b.example");
        assert_eq!(access::sender_refused(&homes, refused, &eve), Some(Reply::access_refused("eve@b.example")));
        assert_eq!(access::sender_refused(&homes, [203, 0, 113, 7].into(), &eve), None);
        homes.set(&[]).expect("set");
        assert_eq!(access::sender_refused(&homes, refused, &eve), None);
    }

    #[test]
    fn each_recipient_gets_its_reply() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        for (recipient, code) in [
            ("alice@example.org", 250),
            ("ALICE+x@example.org", 250),
            ("anyone@example.com", 250),
            ("Postmaster@example.org", 250),
            ("postmaster", 250),
            ("bob@example.org", 550),
            ("shop-7@example.org", 250),
            ("my-shop-7@example.org", 550),
            ("full@example.org", 452),
            ("Full+x@example.org", 452),
            ("alice@example.net", 550),
            ("alice@silent.example", 450),
            ("alice@later.example", 450),
        ] {
            let judged = judge_inbound(&homes, path(recipient), asked());
            assert_eq!(judged.as_ref().map_or_else(Reply::code, |_| 250), code, "{recipient}");
        }
        let denied = judge_inbound(&homes, path("alice@example.net"), asked()).expect_err("not ours");
        assert_eq!(denied, Reply::relay_denied());
        let postmaster = judge_inbound(&homes, path("Postmaster"), asked()).expect("taken");
        assert_eq!(postmaster.address.to_string(), "postmaster@example.org");
    }

    #[test]
    fn an_edge_without_a_home_takes_nothing_and_says_so() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = Homes::open(state.path(), &[], gatepost_runtime::clock::Clock::real()).expect("opened");
        let judge = |recipient| judge_inbound(&homes, path(recipient), asked()).expect_err("nobody's");
        assert_eq!(judge("postmaster"), Reply::directory_missing());
        assert_eq!(judge("alice@example.org"), Reply::relay_denied());
    }

    #[test]
    fn a_transaction_is_for_one_home() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let first = judge_inbound(&homes, path("alice@example.org"), asked()).expect("taken").home;
        let after = Asked { home: Some(&first), ..asked() };
        let second = judge_inbound(&homes, path("x@example.com"), after).expect_err("another home");
        assert_eq!(second, Reply::too_many_recipients());
        assert!(judge_inbound(&homes, path("postmaster@example.org"), after).is_ok());
    }

    #[test]
    fn a_transaction_is_for_one_policy() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let first = judge_inbound(&homes, path("alice@example.org"), asked()).expect("taken");
        let after = Asked { home: Some(&first.home), policy: Some(&first.policy), ..asked() };
        let other = judge_inbound(&homes, path("x@watched.example"), after).expect_err("another policy");
        assert_eq!(other, Reply::too_many_recipients());
        assert!(judge_inbound(&homes, path("x@same.example"), after).is_ok(), "what counts is what it says");
    }

    #[test]
    fn the_homes_size_limit_counts_at_the_bound() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        assert!(judge_inbound(&homes, path("alice@example.org"), announced(1000)).is_ok());
        let over = judge_inbound(&homes, path("alice@example.org"), announced(1001)).expect_err("too big");
        assert_eq!(over, Reply::too_big(1000));
    }

    #[test]
    fn what_does_not_fit_a_mailbox_is_refused_before_it_is_sent() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        for (recipient, size, refusal) in [
            ("tight@example.org", None, None),
            ("tight@example.org", Some(300), None),
            ("Tight+x@example.org", Some(301), Some(Reply::mailbox_full())),
            ("tight@example.org", Some(500), Some(Reply::mailbox_full())),
            ("tight@example.org", Some(501), Some(Reply::mailbox_too_small(500))),
            ("full@example.org", Some(0), Some(Reply::mailbox_full())),
            ("alice@example.org", Some(999), None),
            ("postmaster@example.org", Some(999), None),
        ] {
            let judged = judge_inbound(&homes, path(recipient), Asked { size, ..asked() });
            assert_eq!(judged.err(), refusal, "{recipient} {size:?}");
        }
    }

    #[test]
    fn an_account_may_write_to_the_world_but_not_to_a_neighbour_who_does_not_exist() {
        let state = tempfile::tempdir().expect("a temporary directory");
        let homes = homes(state.path());
        let home = &homes.all()[0];
        for (recipient, taken) in [
            ("x@elsewhere.example", true),
            ("alice@example.org", true),
            ("bob@example.org", false),
            ("postmaster", true),
        ] {
            assert_eq!(judge_submission(home, path(recipient), None).is_ok(), taken, "{recipient}");
        }
    }
}
