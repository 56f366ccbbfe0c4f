//! The `[[home]]` tables, of the config and of `paired.toml` alike, and the one rule over both: no
//! name, key or domain belongs to two homes.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::path::PathBuf;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::pairing::{NodeKey, NodeKeyError};
use gatepost_runtime::config::{ConfigError, Placed, Source};
use serde::Deserialize;

use super::paired::{self, RawPaired};

/// Longest name of a home, in octets: it is also a directory name.
pub const NAME_OCTETS_MAX: usize = 64;

/// One paired home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeConfig {
    /// For people, and for directory names.
    pub name: String,
    /// Keys it may show (two while it changes its key).
    pub keys: Vec<NodeKey>,
    /// Domains it may serve.
    pub domains: Vec<Domain>,
    /// Whether its routes may lead to loopback, private and other addresses that are not public; if it
    /// is not said, only while there is no other home.
    pub private_routes: Option<bool>,
    /// Where it is listed.
    pub origin: Origin,
}

/// Where a home is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the config, at this line: its owner's to change.
    File(PathBuf, usize),
    /// In [`paired::FILE`]: it was paired by code.
    Paired,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Paired => f.write_str(paired::FILE),
        }
    }
}

/// A `[[home]]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHome {
    name: Placed<String>,
    key: Placed<OneOrMore>,
    domains: Placed<Vec<Placed<String>>>,
    private_routes: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a key (\"gp1…\") or a list of keys")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::More(texts) => texts.as_slice(),
        }
    }
}

/// The homes listed so far, and what each of them has taken.
#[derive(Default)]
pub(super) struct Roll {
    homes: Vec<HomeConfig>,
    // Of each name, key and domain: the place of the home that has it.
    names: HashMap<String, usize>,
    keys: HashMap<NodeKey, usize>,
    domains: HashMap<Domain, usize>,
}

impl Roll {
    /// Adds those of the config.
    pub(super) fn list(&mut self, source: &Source, raw: &[RawHome]) -> Result<(), ConfigError> {
        raw.iter().try_for_each(|home| {
            let origin = Origin::File(source.name().into(), source.line_of(&home.name));
            self.add(source, home, origin)
        })
    }

    /// Adds those that were paired by code.
    pub(super) fn list_paired(&mut self, source: &Source) -> Result<(), ConfigError> {
        let raw: RawPaired = source.parse()?;
        raw.home.iter().try_for_each(|home| self.add(source, home, Origin::Paired))
    }

    /// All of them.
    pub(super) fn homes(self) -> Vec<HomeConfig> {
        self.homes
    }

    fn add(&mut self, source: &Source, home: &RawHome, origin: Origin) -> Result<(), ConfigError> {
        let name = home.name.get_ref();
        if !is_home_name(name) {
            let remedy = "lower-case letters, digits and hyphens, at most 64, such as \"cottage\"";
            return Err(source.error(&home.name, "not a name for a home", remedy));
        }
        let place = self.homes.len();
        if let Some(other) = take(&mut self.names, name.clone(), place) {
            let remedy = self.remedy(other, &origin, name, "give each its own");
            return Err(source.error(&home.name, "two homes have this name", &remedy));
        }
        let mut keys = Vec::new();
        for text in home.key.get_ref().texts() {
            let key: NodeKey = text.parse().map_err(|error: NodeKeyError| {
                source.error(&home.key, &error.to_string(), "the key printed by: gatepost-home key")
            })?;
            if let Some(other) = take(&mut self.keys, key, place) {
                let remedy = self.remedy(other, &origin, name, "each home has a key of its own");
                return Err(source.error(&home.key, "this key is listed twice", &remedy));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(source.error(&home.key, "no key", "the key printed by: gatepost-home key"));
        }
        let mut domains = Vec::new();
        for text in home.domains.get_ref() {
            let domain = Domain::parse(text.get_ref()).ok().filter(|domain| domain.literal().is_none());
            let domain =
                domain.ok_or_else(|| source.error(text, "not a domain name", "a name such as \"example.org\""))?;
            if let Some(other) = take(&mut self.domains, domain.clone(), place) {
                let remedy = self.remedy(other, &origin, name, "a domain belongs to one home");
                return Err(source.error(text, "this domain is listed twice", &remedy));
            }
            domains.push(domain);
        }
        if domains.is_empty() {
            return Err(source.error(&home.domains, "no domain", "the domains whose mail goes to this home"));
        }
        let (name, private_routes) = (name.clone(), home.private_routes);
        self.homes.push(HomeConfig { name, keys, domains, private_routes, origin });
        Ok(())
    }

    /// What helps where `other` has already what the home `name` claims: between the two files, one of
    /// two things.
    fn remedy(&self, other: usize, origin: &Origin, name: &str, within_one_file: &str) -> String {
        match self.homes.get(other) {
            Some(other) if *origin == Origin::Paired && other.origin != Origin::Paired => format!(
                "{} lists it for the home \"{}\": take it out there, or give up the one that was paired by code: \
                 gatepost-edge unpair {name}",
                other.origin, other.name
            ),
            _ => within_one_file.to_owned(),
        }
    }
}

/// Takes something for the home at `place`; gives the one that has it already.
fn take<K: Eq + Hash>(taken: &mut HashMap<K, usize>, what: K, place: usize) -> Option<usize> {
    if let Some(other) = taken.get(&what) {
        return Some(*other);
    }
    taken.insert(what, place);
    None
}

/// Whether a home may be called this.
pub fn is_home_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_OCTETS_MAX
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
