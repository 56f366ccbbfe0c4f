//! What the home tells its edges, so that they can answer for it while it is away: its domains,
//! its addresses, the verifiers of submission-only app passwords, its sealing key, its limits.

use std::collections::{HashMap, HashSet};

use super::address::{Address, Domain};

/// One snapshot. A newer version replaces an older one whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Grows with each change at home.
    pub version: u64,
    /// Domains the home serves.
    pub domains: HashMap<Domain, DomainPolicy>,
    /// Every address and alias that exists, by [`Address::lookup_key`].
    pub addresses: HashSet<String>,
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
    /// Addresses, by [`Address::lookup_key`], all of whose mailboxes are over quota.
    pub full: HashSet<String>,
    /// What checks the return path of forwarded mail; none is forwarded without.
    pub srs: Option<SrsVerifier>,
}

/// Addresses of one domain that exist because their local part fits an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainPattern {
    /// Of this domain.
    pub domain: Domain,
    /// A regular expression over the whole local part, in lower case.
    pub expression: String,
}

/// Checks the part of an SRS hash that is an edge's to check; it can't make one that the home forwards.
#[derive(Clone, PartialEq, Eq)]
pub struct SrsVerifier {
    /// Key of the edge's part of the hash.
    pub key: [u8; 32],
}

impl std::fmt::Debug for SrsVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[srs verifier]")
    }
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
    /// Whether mail for this address is taken.
    pub fn lookup(&self, address: &Address) -> Lookup {
        let Some(policy) = self.domains.get(address.domain()) else {
            return Lookup::NotOurs;
        };
        if policy.catch_all || self.addresses.contains(&address.lookup_key()) {
            return Lookup::Known;
        }
        let base = self.subaddress_separator.and_then(|separator| address.local().split_detail(separator));
        match base {
            Some((name, _)) => {
                let key = format!("{}@{}", name.to_lowercase(), address.domain());
                if self.addresses.contains(&key) { Lookup::Known } else { Lookup::Unknown }
            }
            None => Lookup::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("valid")
    }

    fn directory() -> Directory {
        Directory {
            version: 1,
            domains: [("example.org", false), ("all.example", true)]
                .map(|(name, catch_all)| (Domain::parse(name).expect("valid"), DomainPolicy { catch_all }))
                .into(),
            addresses: ["alice@example.org".to_owned()].into(),
            subaddress_separator: Some('+'),
            verifiers: HashMap::new(),
            seal_key: Vec::new(),
            message_octets_max: 1,
            patterns: Vec::new(),
            full: HashSet::new(),
            srs: None,
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
            ("anyone@all.example", Lookup::Known),
            ("alice@example.com", Lookup::NotOurs),
        ] {
            assert_eq!(directory().lookup(&address(text)), expected, "{text}");
        }
    }
}
