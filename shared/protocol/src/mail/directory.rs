//! What the home tells its edges, so that they can answer for it while it is away: its domains,
//! its addresses, the verifiers of submission-only app passwords, its sealing key, its limits.

use std::collections::HashMap;

use super::access::AccessList;
use super::address::{Address, Domain};
use super::address_set::AddressSet;
use super::mta_sts::StsPolicy;
use super::pattern::DomainPattern;
use super::policy::Policies;
use super::services::Services;
use super::srs::{Day, ReturnPath, SrsKey};

/// One snapshot. A newer version replaces an older one whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Grows with each change at home.
    pub version: u64,
    /// Domains the home serves.
    pub domains: HashMap<Domain, DomainPolicy>,
    /// Every address and alias that exists, by [`Address::lookup_key`].
    pub addresses: AddressSet,
    /// Separator of subaddresses, usually `+`.
    pub subaddress_separator: Option<char>,
    /// Logins an edge may check while the home is away, by login name in lower case.
    pub verifiers: HashMap<String, LoginVerifier>,
    /// Public key that mail is sealed to while the home is away.
    pub seal_key: Vec<u8>,
    /// Largest message the home takes, in octets.
    pub message_octets_max: u64,
    /// Addresses that exist by pattern, in the order they are tried.
    pub patterns: Vec<DomainPattern>,
    /// Addresses, by [`Address::lookup_key`], all of whose mailboxes have less room than the largest message may take.
    pub tight: HashMap<String, Room>,
    /// What checks the return path of forwarded mail; none is forwarded without.
    pub srs: Option<SrsVerifier>,
    /// From whom mail is taken whatever else is found, and from whom never.
    pub access: AccessList,
    /// What is done with mail of the world.
    pub policies: Policies,
    /// Names under which the home's edges write results, in lower case: [`HOSTS_MAX`](super::policy::HOSTS_MAX) at most.
    pub hosts: Vec<String>,
    /// What other hosts are told of how mail for these domains is to be brought; `None`: nothing.
    pub mta_sts: Option<StsPolicy>,
    /// What mail programs are told.
    pub services: Services,
}

/// Checks the half of an SRS hash that is an edge's to check; it can't make one that the home forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrsVerifier {
    /// The key in use, and those before it that still count: [`KEYS_MAX`](super::srs::KEYS_MAX) at most.
    pub keys: Vec<SrsKey>,
}

/// What a mailbox with a quota can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room {
    /// Octets now, about: never less than there are, and 0 only if it is full.
    pub left: u64,
    /// Octets if it were empty.
    pub whole: u64,
}

/// What one domain does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainPolicy {
    /// Every address of this domain exists.
    pub catch_all: bool,
}

/// SCRAM-SHA-256 verifiers (RFC 5802 §3) of one login's submission-only app passwords. One login's
/// passwords share salt and iteration count, so one exchange can be checked against each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginVerifier {
    /// Salt, 16 octets.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// A pair of stored key and server key for each app password.
    pub keys: Vec<ScramKeys>,
}

/// StoredKey and ServerKey (RFC 5802 §3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ScramKeys {
    /// H(ClientKey): checks a client's proof.
    pub stored: [u8; 32],
    /// Proves to the client that we know its password.
    pub server: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[scram keys]")
    }
}

/// What the directory says of a recipient that looks like a return path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnLookup {
    /// A bounce to a return path of ours.
    Good,
    /// Something else than a bounce to one.
    NoBounce,
    /// Forged, expired, or somebody else's.
    Invalid,
}

/// What the directory says of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It exists.
    Known,
    /// Its domain is served here and it does not exist.
    Unknown,
    /// Its domain is not served here.
    NotOurs,
}

impl Directory {
    /// Whether mail for this address is taken. The most specific counts: the address, its base without the
    /// subaddress, a pattern, the whole domain.
    pub fn lookup(&self, address: &Address) -> Lookup {
        let Some(policy) = self.domains.get(address.domain()) else {
            return Lookup::NotOurs;
        };
        let known = policy.catch_all || self.is_listed(address) || {
            let local = address.local().as_str().to_lowercase();
            let of_domain = |pattern: &&DomainPattern| pattern.domain == *address.domain();
            self.patterns.iter().filter(of_domain).any(|pattern| pattern.pattern.matches(&local))
        };
        if known { Lookup::Known } else { Lookup::Unknown }
    }

    /// What the mailboxes behind this address can take, if that is little. The most specific counts, as in
    /// [`Directory::lookup`]; of patterns and whole domains only the home knows.
    pub fn room(&self, address: &Address) -> Option<Room> {
        if self.tight.is_empty() {
            return None;
        }
        let key = address.lookup_key();
        if self.addresses.contains(&key) {
            return self.tight.get(&key).copied();
        }
        self.base(address).and_then(|base| self.tight.get(&base).copied())
    }

    /// What is to be said of a recipient that looks like a return path; `None` if this is none, or if nobody here
    /// forwards mail. An address that exists under such a name is an address.
    pub fn return_path(&self, address: &Address, from_nobody: bool, today: Day) -> Option<ReturnLookup> {
        let verifier = self.srs.as_ref().filter(|_| ReturnPath::is_like(address.local()))?;
        if !self.domains.contains_key(address.domain()) || self.addresses.contains(&address.lookup_key()) {
            return None;
        }
        let good = |path: ReturnPath| path.is_good_at_edge(&verifier.keys, today);
        Some(match ReturnPath::parse(address.local()).is_some_and(good) {
            false => ReturnLookup::Invalid,
            true if from_nobody => ReturnLookup::Good,
            true => ReturnLookup::NoBounce,
        })
    }

    fn is_listed(&self, address: &Address) -> bool {
        self.addresses.contains(&address.lookup_key())
            || self.base(address).is_some_and(|base| self.addresses.contains(&base))
    }

    /// The address without its subaddress, if it has one.
    fn base(&self, address: &Address) -> Option<String> {
        let (name, _) = address.local().split_detail(self.subaddress_separator?)?;
        Some(format!("{}@{}", name.to_lowercase(), address.domain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::pattern::LocalPattern;
    use crate::mail::srs::Origin;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("valid")
    }

    fn directory() -> Directory {
        Directory {
            version: 1,
            domains: [("example.org", false), ("all.example", true)]
                .map(|(name, catch_all)| (Domain::parse(name).expect("valid"), DomainPolicy { catch_all }))
                .into(),
            addresses: ["alice@example.org"].into(),
            subaddress_separator: Some('+'),
            verifiers: HashMap::new(),
            seal_key: Vec::new(),
            message_octets_max: 1,
            patterns: vec![DomainPattern {
                domain: Domain::parse("example.org").expect("valid"),
                pattern: LocalPattern::parse("shop-[0-9]+").expect("good"),
            }],
            tight: HashMap::new(),
            srs: Some(SrsVerifier { keys: vec![SrsKey::new([1; 32])] }),
            access: AccessList::default(),
            policies: Policies::default(),
            hosts: Vec::new(),
            mta_sts: None,
            services: Services::default(),
        }
    }

    #[test]
    fn looks_up() {
        for (text, expected) in [
            ("alice@example.org", Lookup::Known),
            ("ALICE@Example.ORG", Lookup::Known),
            ("alice+shop@example.org", Lookup::Known),
            ("bob@example.org", Lookup::Unknown),
            ("bob+alice@example.org", Lookup::Unknown),
            ("Shop-7@example.org", Lookup::Known),
            ("shop-x@example.org", Lookup::Unknown),
            ("anyone@all.example", Lookup::Known),
            ("alice@example.com", Lookup::NotOurs),
        ] {
            assert_eq!(directory().lookup(&address(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_full_mailbox_is_full_under_all_its_names_but_those_of_others() {
        let mut directory = directory();
        let room = Room { left: 0, whole: 1000 };
        directory.tight.insert("alice@example.org".to_owned(), room);
        directory.addresses.insert("alice+lists@example.org");
        for (text, full) in [
            ("Alice@example.org", true),
            ("alice+shop@example.org", true),
            ("alice+lists@example.org", false),
            ("shop-7@example.org", false),
            ("anyone@all.example", false),
        ] {
            assert_eq!(directory.room(&address(text)), full.then_some(room), "{text}");
        }
    }

    #[test]
    fn only_bounces_reach_a_return_path_and_only_a_good_one() {
        let today = Day::of(0);
        let made = |key| {
            let origin = Origin::of(&address("x@world.example"));
            let path = ReturnPath::new(origin, today, &SrsKey::new([key; 32]), &SrsKey::new([9; 32]));
            address(&format!("{path}@example.org"))
        };
        let asked = |address: &Address, from_nobody| directory().return_path(address, from_nobody, today);
        assert_eq!(asked(&made(1), true), Some(ReturnLookup::Good));
        assert_eq!(asked(&made(1), false), Some(ReturnLookup::NoBounce));
        assert_eq!(asked(&made(2), true), Some(ReturnLookup::Invalid));
        assert_eq!(asked(&address("SRS0=x@all.example"), true), Some(ReturnLookup::Invalid), "a catch-all takes none");
        assert_eq!(asked(&address("alice@example.org"), true), None);
        let without = Directory { srs: None, ..directory() };
        assert_eq!(without.return_path(&made(1), true, today), None);
        assert_eq!(without.lookup(&made(1)), Lookup::Unknown);
    }
}
