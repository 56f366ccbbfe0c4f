//! `paired.toml` in the state directory: the homes that were paired by code, in the form of the
//! config's `[[home]]`. The edge writes it itself; the config is its owner's, and never written.

use std::fmt::Write as _;
use std::path::Path;

use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use gatepost_runtime::durable::{self, DurableError};
use serde::Deserialize;

use super::homes::{HomeConfig, OneOrMore, RawHome, Roll};

/// Its name.
pub const FILE: &str = "paired.toml";
/// Homes that may be paired by code.
pub const HOMES_MAX: usize = 64;
/// Homes that are remembered after they were unpaired, the newest.
const UNPAIRED_MAX: usize = 64;
/// What stands above.
const HEAD: &str = "# Homes paired with this edge by code. gatepost-edge keeps this file; one is removed by\n\
                    # gatepost-edge unpair NAME\n";

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairedFile {
    /// The homes.
    pub homes: Vec<HomeConfig>,
    /// Homes that were unpaired: should one come back, it gets its name back, and with it its sealed mail.
    pub unpaired: Vec<Unpaired>,
}

/// A home that was unpaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpaired {
    /// Its name was.
    pub name: String,
    /// Its keys were.
    pub keys: Vec<NodeKey>,
}

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPaired {
    #[serde(default)]
    pub(super) home: Vec<RawHome>,
    #[serde(default)]
    unpaired: Vec<RawUnpaired>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUnpaired {
    name: String,
    key: Placed<OneOrMore>,
}

impl PairedFile {
    /// The file's text, if there is one. Blocking.
    pub(super) fn source(state: &Path) -> Result<Option<Source>, ConfigError> {
        let path = state.join(FILE);
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => Source::read(&path).map(Some),
            Err(error) => Err(ConfigError(format!(
                "can't look for {}: {error}; run this as the user gatepost-edge runs as",
                path.display()
            ))),
        }
    }

    /// Reads it; without a file there are no homes in it. Blocking.
    pub fn read(state: &Path) -> Result<Self, ConfigError> {
        let Some(source) = Self::source(state)? else { return Ok(Self::default()) };
        let mut roll = Roll::default();
        roll.list_paired(&source)?;
        let raw: RawPaired = source.parse()?;
        let unpaired = raw.unpaired.into_iter().map(|home| {
            let keys = home.key.get_ref().texts().iter().map(|text| text.parse());
            let keys = keys.collect::<Result<_, gatepost_protocol::pairing::NodeKeyError>>();
            let keys = keys.map_err(|error| source.error(&home.key, &error.to_string(), "a key starts with gp1"))?;
            Ok(Unpaired { name: home.name, keys })
        });
        Ok(Self { homes: roll.homes(), unpaired: unpaired.collect::<Result<_, ConfigError>>()? })
    }

    /// Writes it, durably. Blocking.
    pub fn write(&self, state: &Path) -> Result<(), DurableError> {
        durable::write_file(&state.join(FILE), self.text().as_bytes())
    }

    /// Lists a home, in place of the one with its name.
    pub fn put(&mut self, home: HomeConfig) {
        self.unpaired.retain(|old| old.name != home.name);
        match self.homes.iter_mut().find(|old| old.name == home.name) {
            Some(old) => *old = home,
            None => self.homes.push(home),
        }
    }

    /// Takes a home off the list, and remembers it. `None` if it is not listed.
    pub fn remove(&mut self, name: &str) -> Option<HomeConfig> {
        let place = self.homes.iter().position(|home| home.name == name)?;
        let home = self.homes.remove(place);
        self.unpaired.push(Unpaired { name: home.name.clone(), keys: home.keys.clone() });
        let old = self.unpaired.len().saturating_sub(UNPAIRED_MAX);
        self.unpaired.drain(..old);
        Some(home)
    }

    // Names, keys and domains hold nothing that TOML would want escaped.
    fn text(&self) -> String {
        let list = |texts: Vec<String>| match texts.as_slice() {
            [one] => format!("\"{one}\""),
            texts => format!("[\"{}\"]", texts.join("\", \"")),
        };
        let keys = |keys: &[NodeKey]| list(keys.iter().map(ToString::to_string).collect());
        let mut text = HEAD.to_owned();
        for home in &self.homes {
            let domains: Vec<_> = home.domains.iter().map(|domain| format!("\"{domain}\"")).collect();
            let _ = write!(
                text,
                "\n[[home]]\nname = \"{}\"\nkey = {}\ndomains = [{}]\n",
                home.name,
                keys(&home.keys),
                domains.join(", ")
            );
            if let Some(private_routes) = home.private_routes {
                let _ = writeln!(text, "private_routes = {private_routes}");
            }
        }
        for home in &self.unpaired {
            let _ = write!(text, "\n[[unpaired]]\nname = \"{}\"\nkey = {}\n", home.name, keys(&home.keys));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::address::Domain;

    use super::super::{Config, Origin};
    use super::*;

    fn home(name: &str, seeds: &[&str], domains: &[&str]) -> HomeConfig {
        HomeConfig {
            name: name.into(),
            keys: seeds.iter().map(|seed| NodeKey::of_spki(seed.as_bytes())).collect(),
            domains: domains.iter().map(|name| Domain::parse(name).expect("valid")).collect(),
            private_routes: None,
            origin: Origin::Paired,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let state = tempfile::tempdir().expect("a directory");
        assert_eq!(PairedFile::read(state.path()).expect("none"), PairedFile::default());
        let mut file = PairedFile::default();
        file.put(home("cottage", &["a"], &["example.org", "example.net"]));
        file.put(HomeConfig { private_routes: Some(true), ..home("cabin", &["b", "c"], &["example.com"]) });
        file.put(home("cottage", &["a"], &["example.org"]));
        file.put(home("hut", &["d"], &["hut.example"]));
        assert!(file.remove("hut").is_some());
        assert!(file.remove("hut").is_none());
        file.write(state.path()).expect("written");
        let read = PairedFile::read(state.path()).expect("good");
        assert_eq!(read, file);
        assert_eq!((read.homes.len(), read.unpaired.len()), (2, 1));
        file.put(home("hut", &["d"], &["hut.example"]));
        assert!(file.unpaired.is_empty());
    }

    #[test]
    fn who_was_unpaired_is_remembered_within_a_bound() {
        let mut file = PairedFile::default();
        for number in 0..=UNPAIRED_MAX {
            file.put(home(&format!("h{number}"), &["a"], &["a.example"]));
            file.remove(&format!("h{number}"));
        }
        assert_eq!((file.unpaired.len(), file.unpaired[0].name.as_str()), (UNPAIRED_MAX, "h1"));
    }

    #[test]
    fn the_two_files_may_not_claim_the_same() {
        let state = tempfile::tempdir().expect("a directory");
        let path = state.path().join("edge.toml");
        let key = NodeKey::of_spki(b"a");
        let config = format!(
            "hostname = \"mail.example.org\"\n[[home]]\nname = \"cottage\"\nkey = \"{key}\"\ndomains = [\"example.org\"]\n"
        );
        std::fs::write(&path, config).expect("written");
        for (paired, line, wrong) in [
            (home("cottage", &["b"], &["example.com"]), 5, "two homes have this name"),
            (home("cabin", &["a"], &["example.com"]), 6, "this key is listed twice"),
            (home("cabin", &["b"], &["example.com", "example.org"]), 7, "this domain is listed twice"),
        ] {
            let name = paired.name.clone();
            PairedFile { homes: vec![paired], unpaired: Vec::new() }.write(state.path()).expect("written");
            let error = Config::load(&path, Some(state.path())).expect_err(wrong).to_string();
            for words in [
                &format!("paired.toml:{line}: {wrong}"),
                &format!("{}:3 lists it for the home \"cottage\"", path.display()),
                &format!("gatepost-edge unpair {name}"),
            ] {
                assert!(error.contains(words.as_str()), "{error}\nlacks {words}");
            }
        }
        let good = PairedFile { homes: vec![home("cabin", &["b"], &["example.com"])], unpaired: Vec::new() };
        good.write(state.path()).expect("written");
        let config = Config::load(&path, Some(state.path())).expect("good");
        let listed: Vec<_> = config.homes.iter().map(|home| (home.name.as_str(), home.origin.to_string())).collect();
        assert_eq!(listed, [("cottage", format!("{}:3", path.display())), ("cabin", "paired.toml".to_owned())]);
    }
}
