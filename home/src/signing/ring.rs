//! The keys of one domain, as they lie in `keys/dkim/DOMAIN/`: a file a key, and a list that says where each stands.
//! A key is on the list after its file is durable, and its file goes after it is off the list. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::signature::Algorithm;
use gatepost_runtime::clock::rfc3339;
use gatepost_runtime::durable;
use serde::{Deserialize, Serialize};

use super::SigningError;
use super::key::Key;
use super::schedule::Phase;

/// Where the keys of all domains lie inside the state directory.
pub const FOLDER: &str = "keys/dkim";
/// The list in a domain's folder.
const LIST: &str = "keys.json";
/// Keys of one domain: more are made by nobody but by hand, again and again.
pub const KEYS_MAX: usize = 32;
/// Both kinds, the one everybody verifies first.
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256];

/// A domain's keys.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Whose.
    pub domain: Domain,
    /// In the order they were made.
    pub keys: Vec<RingKey>,
    folder: PathBuf,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct RingKey {
    /// What its record is called: `SELECTOR._domainkey.DOMAIN`.
    pub selector: String,
    /// Where it stands.
    pub phase: Phase,
    /// When it was made, by the date, for people.
    pub made_unix_s: i64,
    /// It.
    pub key: Arc<Key>,
}

impl RingKey {
    /// What its record is called.
    pub fn record_name(&self, domain: &Domain) -> String {
        format!("{}._domainkey.{domain}", self.selector)
    }
}

/// What time it is: `unix_s` by the date, `steady_s` by the steady time.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For people.
    pub unix_s: i64,
    /// For ages.
    pub steady_s: i64,
}

/// The list as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListRecord {
    keys: Vec<KeyRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRecord {
    selector: String,
    algorithm: String,
    made: i64,
    phase: PhaseRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseRecord {
    Waiting,
    Signs(i64),
    Retired(i64),
}

impl Ring {
    /// Reads a domain's keys; where one of a kind is missing that signs, it is made, and signs at once.
    pub fn open(state: &Path, domain: &Domain, now: Moment) -> Result<Self, SigningError> {
        let mut ring = Self::read(state, domain)?;
        for algorithm in ALGORITHMS {
            let signs = |key: &RingKey| key.key.algorithm() == algorithm && matches!(key.phase, Phase::Signs { .. });
            if !ring.keys.iter().any(signs) {
                ring.make(algorithm, Phase::Signs { since_s: now.steady_s }, now)?;
            }
        }
        Ok(ring)
    }

    fn read(state: &Path, domain: &Domain) -> Result<Self, SigningError> {
        let folder = state.join(FOLDER).join(domain.as_str());
        let mut ring = Self { domain: domain.clone(), keys: Vec::new(), folder };
        let path = ring.folder.join(LIST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ring),
            Err(source) => return Err(SigningError::Read { path, source }),
        };
        let malformed = || SigningError::Malformed { path: path.clone() };
        let list: ListRecord = serde_json::from_slice(&text).map_err(|_| malformed())?;
        for KeyRecord { selector, algorithm, made, phase } in list.keys {
            let is_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
            if selector.is_empty() || !selector.bytes().all(is_name) {
                return Err(malformed());
            }
            let algorithm = ALGORITHMS.into_iter().find(|known| known.word() == algorithm).ok_or_else(malformed)?;
            let key = Arc::new(Key::load(algorithm, &ring.file(&selector))?);
            let phase = match phase {
                PhaseRecord::Waiting => Phase::Waiting,
                PhaseRecord::Signs(since_s) => Phase::Signs { since_s },
                PhaseRecord::Retired(since_s) => Phase::Retired { since_s },
            };
            ring.keys.push(RingKey { selector, phase, made_unix_s: made, key });
        }
        Ok(ring)
    }

    /// Makes a key.
    pub fn make(&mut self, algorithm: Algorithm, phase: Phase, now: Moment) -> Result<(), SigningError> {
        if self.keys.len() >= KEYS_MAX {
            return Err(SigningError::TooMany { domain: self.domain.to_string() });
        }
        durable::create_directory(&self.folder)?;
        let selector = self.free_selector(algorithm, now);
        let key = Arc::new(Key::make(algorithm, &self.file(&selector))?);
        self.keys.push(RingKey { selector, phase, made_unix_s: now.unix_s, key });
        self.write()
    }

    /// From now on this key signs, and no other of its kind.
    pub fn put_in_use(&mut self, place: usize, now: Moment) -> Result<(), SigningError> {
        let Some(algorithm) = self.keys.get(place).map(|key| key.key.algorithm()) else { return Ok(()) };
        for (nth, key) in self.keys.iter_mut().enumerate().filter(|(_, key)| key.key.algorithm() == algorithm) {
            if nth == place {
                key.phase = Phase::Signs { since_s: now.steady_s };
            } else if matches!(key.phase, Phase::Signs { .. }) {
                key.phase = Phase::Retired { since_s: now.steady_s };
            }
        }
        self.write()
    }

    /// Removes keys.
    pub fn forget(&mut self, selectors: &[String]) -> Result<(), SigningError> {
        self.keys.retain(|key| !selectors.contains(&key.selector));
        self.write()?;
        for selector in selectors {
            durable::remove(&self.file(selector))?;
        }
        Ok(())
    }

    /// The keys that sign.
    pub fn signing(&self) -> impl Iterator<Item = &RingKey> {
        self.keys.iter().filter(|key| matches!(key.phase, Phase::Signs { .. }))
    }

    fn file(&self, selector: &str) -> PathBuf {
        self.folder.join(format!("{selector}.pem"))
    }

    /// Named by its day and kind; the second of a day gets a number.
    fn free_selector(&self, algorithm: Algorithm, now: Moment) -> String {
        let date = rfc3339(now.unix_s);
        let day: String = date.chars().take(10).filter(char::is_ascii_digit).collect();
        let kind = match algorithm {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        };
        let mut selector = format!("{day}-{kind}");
        let mut nth = 2;
        while self.keys.iter().any(|key| key.selector == selector) {
            selector = format!("{day}-{nth}-{kind}");
            nth += 1;
        }
        selector
    }

    fn write(&self) -> Result<(), SigningError> {
        let keys = self.keys.iter().map(|key| KeyRecord {
            selector: key.selector.clone(),
            algorithm: key.key.algorithm().word().to_owned(),
            made: key.made_unix_s,
            phase: match key.phase {
                Phase::Waiting => PhaseRecord::Waiting,
                Phase::Signs { since_s } => PhaseRecord::Signs(since_s),
                Phase::Retired { since_s } => PhaseRecord::Retired(since_s),
            },
        });
        let path = self.folder.join(LIST);
        let mut text = serde_json::to_vec_pretty(&ListRecord { keys: keys.collect() })
            .map_err(|error| SigningError::Read { path: path.clone(), source: error.into() })?;
        text.push(b'\n');
        Ok(durable::write_file(&path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { unix_s: 1_795_000_000, steady_s: 7 };

    fn domain() -> Domain {
        Domain::parse("example.org").expect("valid")
    }

    fn told(ring: &Ring) -> Vec<(String, Phase)> {
        ring.keys.iter().map(|key| (key.selector.clone(), key.phase)).collect()
    }

    #[test]
    fn both_kinds_are_made_at_first_and_found_again() {
        let state = tempfile::tempdir().expect("a folder");
        let ring = Ring::open(state.path(), &domain(), NOW).expect("made");
        let signs = Phase::Signs { since_s: 7 };
        assert_eq!(told(&ring), [("20261118-rsa".to_owned(), signs), ("20261118-ed25519".to_owned(), signs)]);
        let again = Ring::open(state.path(), &domain(), Moment { unix_s: 0, steady_s: 99 }).expect("read");
        assert_eq!(told(&again), told(&ring));
        let records = |ring: &Ring| ring.keys.iter().map(|key| key.key.record().expect("public")).collect::<Vec<_>>();
        assert_eq!(records(&again), records(&ring));
        assert_eq!(ring.keys[0].record_name(&domain()), "20261118-rsa._domainkey.example.org");
    }

    #[test]
    fn a_new_key_takes_over_and_the_old_one_stays_until_forgotten() {
        let state = tempfile::tempdir().expect("a folder");
        let mut ring = Ring::open(state.path(), &domain(), NOW).expect("made");
        ring.make(Algorithm::RsaSha256, Phase::Waiting, NOW).expect("made");
        assert_eq!(ring.keys[2].selector, "20261118-2-rsa");
        let signing = |ring: &Ring| ring.signing().map(|key| key.selector.clone()).collect::<Vec<_>>();
        assert_eq!(signing(&ring), ["20261118-rsa", "20261118-ed25519"], "the new one waits");
        ring.put_in_use(2, Moment { steady_s: 8, ..NOW }).expect("written");
        assert_eq!(signing(&ring), ["20261118-ed25519", "20261118-2-rsa"]);
        let again = Ring::open(state.path(), &domain(), NOW).expect("read");
        assert_eq!(again.keys[0].phase, Phase::Retired { since_s: 8 });
        ring.forget(&["20261118-rsa".to_owned()]).expect("forgotten");
        assert_eq!(told(&Ring::open(state.path(), &domain(), NOW).expect("read")), told(&ring));
        let folder = state.path().join(FOLDER).join("example.org");
        assert!(!folder.join("20261118-rsa.pem").exists() && folder.join("20261118-2-rsa.pem").exists());
    }

    #[test]
    fn keys_are_bounded_and_a_torn_list_is_no_list() {
        let state = tempfile::tempdir().expect("a folder");
        let mut ring = Ring::open(state.path(), &domain(), NOW).expect("made");
        for _ in ring.keys.len()..KEYS_MAX {
            ring.make(Algorithm::Ed25519Sha256, Phase::Waiting, NOW).expect("made");
        }
        let over = ring.make(Algorithm::Ed25519Sha256, Phase::Waiting, NOW).expect_err("one too many");
        assert!(over.to_string().contains("example.org"), "{over}");
        let list = state.path().join(FOLDER).join("example.org").join(LIST);
        for text in ["", "{}", r#"{"keys":[{"selector":"../x","algorithm":"rsa-sha256","made":1,"phase":"waiting"}]}"#]
        {
            fs::write(&list, text).expect("written");
            let error = Ring::open(state.path(), &domain(), NOW).expect_err("no list");
            assert!(matches!(error, SigningError::Malformed { .. }), "{error}");
        }
    }
}
