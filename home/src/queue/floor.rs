//! How secure mail to a domain must at least be, as the owner wrote it: for a domain, for all below one, for all. Pure.

use std::collections::{BTreeMap, HashMap};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::demand::Floor;
use gatepost_runtime::config::{ConfigError, Placed, Source};

/// Domains a config may name.
const DOMAINS_MAX: usize = 10_000;

/// The floors. The most specific wins: the domain's own, then the nearest `*.parent`, then `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    domains: HashMap<Domain, Floor>,
    /// Subdomains of the key, at any depth.
    parents: HashMap<Domain, Floor>,
    all: Floor,
}

impl Floors {
    /// Checks the table.
    pub fn check(raw: &BTreeMap<String, Placed<String>>, source: &Source) -> Result<Self, ConfigError> {
        let mut floors = Self::default();
        for (number, (pattern, written)) in raw.iter().enumerate() {
            if number >= DOMAINS_MAX {
                return Err(source.error(written, "too many domains", "at most 10000"));
            }
            let word = written.get_ref();
            let floor = Floor::of_word(word).ok_or_else(|| {
                let remedy = "\"none\", \"encrypt\" (TLS, any certificate), \"verify\" (somebody vouches for the host) or \"dane\"";
                source.error(written, &format!("{word:?} is no security"), remedy)
            })?;
            let domain = |name: &str| {
                let domain = Domain::parse(name).ok().filter(|domain| domain.literal().is_none());
                let remedy = "\"example.com\", \"*.example.com\" or \"*\"";
                domain.ok_or_else(|| source.error(written, &format!("{pattern:?} is no domain"), remedy))
            };
            match pattern.strip_prefix("*.") {
                _ if pattern == "*" => floors.all = floor,
                Some(parent) => drop(floors.parents.insert(domain(parent)?, floor)),
                None => drop(floors.domains.insert(domain(pattern)?, floor)),
            }
        }
        Ok(floors)
    }

    /// That of this domain.
    pub fn of(&self, domain: &Domain) -> Floor {
        self.named(domain).unwrap_or(self.all)
    }

    /// That of this domain, if it or a domain above it is named.
    pub fn named(&self, domain: &Domain) -> Option<Floor> {
        if let Some(floor) = self.domains.get(domain) {
            return Some(*floor);
        }
        if self.parents.is_empty() {
            return None;
        }
        let mut rest = domain.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(floor) = Domain::parse(parent).ok().and_then(|parent| self.parents.get(&parent)) {
                return Some(*floor);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn check(toml: &str) -> Result<Floors, String> {
        #[derive(Deserialize)]
        struct File {
            tls: BTreeMap<String, Placed<String>>,
        }
        let source = Source::from_text("home.toml", toml);
        let file: File = source.parse().map_err(|error| error.to_string())?;
        Floors::check(&file.tls, &source).map_err(|error| error.to_string())
    }

    #[test]
    fn the_most_specific_floor_wins() {
        let toml = "[tls]\n\"*\" = \"encrypt\"\n\"bank.example\" = \"dane\"\n\"*.bank.example\" = \"verify\"\n\
                    \"old.bank.example\" = \"none\"\n";
        let floors = check(toml).expect("good");
        for (name, floor) in [
            ("else.example", Floor::Encrypt),
            ("bank.example", Floor::Dane),
            ("a.b.bank.example", Floor::Verify),
            ("old.bank.example", Floor::None),
        ] {
            assert_eq!(floors.of(&Domain::parse(name).expect("valid")), floor, "{name}");
        }
        let named = |name| floors.named(&Domain::parse(name).expect("valid"));
        assert_eq!((named("else.example"), named("old.bank.example")), (None, Some(Floor::None)));
        assert_eq!(Floors::default().of(&Domain::parse("x.example").expect("valid")), Floor::None);
    }

    #[test]
    fn what_means_nothing_is_refused_where_it_stands() {
        for (toml, words) in [
            ("[tls]\n\"a.example\" = \"strict\"", "is no security"),
            ("[tls]\n\"a b\" = \"dane\"", "is no domain"),
            ("[tls]\n\"*.\" = \"dane\"", "is no domain"),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(words) && error.contains("home.toml:2"), "{error}");
        }
    }
}
