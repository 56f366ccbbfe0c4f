//! New keys in the place of old ones: made by command or when it is time, in use once the DNS shows their records,
//! forgotten when nothing needs them any more.

use std::sync::{Arc, PoisonError};

use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::clock::rfc3339;
use gatepost_runtime::resolver::Resolver;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::ring::{ALGORITHMS, Ring};
use super::schedule::{self, Due, Phase};
use super::{Signing, SigningError};

/// The key under which a request travels.
pub const KEY: &str = "dkim";

/// Records looked for at once.
const LOOKS_MAX: usize = 16;

/// What the owner asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The keys of a domain, or all.
    List {
        /// Whose.
        domain: Option<String>,
    },
    /// New keys for a domain, or all; each waits for its record.
    Rotate {
        /// Whose.
        domain: Option<String>,
    },
}

/// A key that waits for its record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    domain: Domain,
    selector: String,
    name: String,
    record: String,
}

impl Signing {
    /// Does what needs no DNS of it. Blocking; an error is a text for people.
    pub fn begin(&self, request: &Request) -> Result<(), String> {
        match request {
            Request::List { domain } => self.named(domain.as_deref()).map(|_| ()),
            Request::Rotate { domain } => {
                for domain in self.named(domain.as_deref())? {
                    self.follow(&domain).map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }

    /// The answer: where every key stands.
    pub fn list(&self, request: &Request) -> Result<Value, String> {
        let (Request::List { domain } | Request::Rotate { domain }) = request;
        let domains = self.named(domain.as_deref())?;
        let ahead_s = self.inner.clock.date_ahead_ms().div_euclid(1000);
        let mut keys = Vec::new();
        for ring in self.rings().into_iter().filter(|ring| domains.contains(&ring.domain)) {
            for key in &ring.keys {
                let since = match key.phase {
                    Phase::Waiting => None,
                    Phase::Signs { since_s } | Phase::Retired { since_s } => Some(rfc3339(since_s + ahead_s)),
                };
                keys.push(json!({
                    "domain": ring.domain.as_str(),
                    "selector": key.selector,
                    "algorithm": key.key.algorithm().word(),
                    "state": key.phase.word(),
                    "made": rfc3339(key.made_unix_s),
                    "since": since,
                    "name": key.record_name(&ring.domain),
                    "record": key.key.record().map_err(|error| error.to_string())?,
                }));
            }
        }
        Ok(json!({ "keys": keys }))
    }

    /// Names of the records that keys wait for.
    pub fn waiting(&self) -> Vec<String> {
        self.waiting_keys().into_iter().map(|waiting| waiting.name).collect()
    }

    /// The keys of every domain of the config.
    pub fn rings(&self) -> Vec<Arc<Ring>> {
        self.inner.rings.load().values().cloned().collect()
    }

    /// Makes what is due, and forgets what is. Gives whether keys wait. Blocking.
    pub fn tend(&self) -> Result<bool, SigningError> {
        let now_s = self.now().steady_s;
        for ring in self.rings() {
            let keys: Vec<_> = ring.keys.iter().map(|key| (key.key.algorithm(), key.phase)).collect();
            let mut gone = Vec::new();
            for due in schedule::due(&keys, now_s) {
                match due {
                    Due::Make(algorithm) => {
                        self.change(&ring.domain, |ring, now| ring.make(algorithm, Phase::Waiting, now))?;
                        warn!(
                            domain = %ring.domain, algorithm = algorithm.word(),
                            "it is time for another key: publish its record (gatepost-home dkim list)"
                        );
                    }
                    Due::Forget(place) => gone.extend(ring.keys.get(place).map(|key| key.selector.clone())),
                    Due::Look(_) => {}
                }
            }
            if !gone.is_empty() {
                self.change(&ring.domain, |ring, _| ring.forget(&gone))?;
                for selector in gone {
                    info!(domain = %ring.domain, selector, "an old key is removed; its record is needed no more");
                }
            }
        }
        Ok(!self.waiting_keys().is_empty())
    }

    /// Asks the DNS for the records that keys wait for; a key whose record is there signs from now on.
    pub async fn look(&self, resolver: &Resolver) {
        let mut asked = JoinSet::new();
        for waiting in self.waiting_keys() {
            if asked.len() >= LOOKS_MAX {
                asked.join_next().await;
            }
            let (signing, resolver) = (self.clone(), resolver.clone());
            asked.spawn(async move { signing.look_for(waiting, &resolver).await });
        }
        while asked.join_next().await.is_some() {}
    }

    async fn look_for(self, waiting: Waiting, resolver: &Resolver) {
        let Waiting { domain, selector, name, record } = waiting;
        match resolver.texts(&name).await {
            Ok(texts) if is_published(&texts, &record) => {
                let taken = tokio::task::spawn_blocking(move || self.put_in_use(&domain, &selector));
                match taken.await {
                    Ok(Ok(())) => info!(name, "the DNS shows the record of a new key: it signs from now on"),
                    Ok(Err(error)) => error!(name, %error, "a new key can't be put in use"),
                    Err(error) => error!(name, %error, "a new key can't be put in use"),
                }
            }
            Ok(texts) if texts.is_empty() => {}
            Ok(_) => warn!(name, "the DNS shows another record than the one of the key that waits for it"),
            Err(error) => warn!(name, %error, "a new key waits, and its record can't be looked for"),
        }
    }

    fn put_in_use(&self, domain: &Domain, selector: &str) -> Result<(), SigningError> {
        self.change(domain, |ring, now| {
            let found = ring.keys.iter().position(|key| key.selector == selector && key.phase == Phase::Waiting);
            found.map_or(Ok(()), |place| ring.put_in_use(place, now))
        })
    }

    /// A key of each kind that is to follow the one that signs; not where one waits already.
    fn follow(&self, domain: &Domain) -> Result<(), SigningError> {
        self.change(domain, |ring, now| {
            for algorithm in ALGORITHMS {
                let waits = ring.keys.iter().any(|key| key.key.algorithm() == algorithm && key.phase == Phase::Waiting);
                if !waits {
                    ring.make(algorithm, Phase::Waiting, now)?;
                }
            }
            Ok(())
        })
    }

    /// Changes a domain's keys: on the disk first, then for everybody.
    fn change(
        &self,
        domain: &Domain,
        change: impl FnOnce(&mut Ring, super::Moment) -> Result<(), SigningError>,
    ) -> Result<(), SigningError> {
        let _changing = self.inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rings = super::Rings::clone(&self.inner.rings.load());
        let Some(ring) = rings.get_mut(domain) else { return Ok(()) };
        change(Arc::make_mut(ring), self.now())?;
        self.inner.rings.store(Arc::new(rings));
        Ok(())
    }

    fn waiting_keys(&self) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        for ring in self.rings() {
            for key in ring.keys.iter().filter(|key| key.phase == Phase::Waiting) {
                let Ok(record) = key.key.record() else { continue };
                let name = key.record_name(&ring.domain);
                waiting.push(Waiting { domain: ring.domain.clone(), selector: key.selector.clone(), name, record });
            }
        }
        waiting
    }

    fn named(&self, domain: Option<&str>) -> Result<Vec<Domain>, String> {
        let rings = self.inner.rings.load();
        let Some(domain) = domain else { return Ok(rings.keys().cloned().collect()) };
        let all = || rings.keys().map(Domain::as_str).collect::<Vec<_>>().join(", ");
        match Domain::parse(domain) {
            Ok(domain) if rings.contains_key(&domain) => Ok(vec![domain]),
            _ => Err(format!("{domain} is no domain of this home; those are: {}", all())),
        }
    }
}

/// Whether this is the one record at its name, with the same key; people write the other tags in their own way.
fn is_published(texts: &[String], record: &str) -> bool {
    let [found] = texts else { return false };
    let tag = |text: &str, name: &str| -> Option<String> {
        let value = text.split(';').find_map(|part| part.trim().strip_prefix(name)?.trim_start().strip_prefix('='));
        value.map(|value| value.chars().filter(|letter| !letter.is_whitespace()).collect())
    };
    let kind = |text: &str| tag(text, "k").unwrap_or_else(|| "rsa".to_owned());
    tag(found, "p").is_some() && tag(found, "p") == tag(record, "p") && kind(found) == kind(record)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatepost_protocol::mail::signature::Algorithm;
    use gatepost_runtime::clock::Clock;

    use super::*;

    #[test]
    fn a_record_counts_by_its_key() {
        let record = "v=DKIM1; k=rsa; p=MIIB+/aZ";
        for (texts, published) in [
            (&[record][..], true),
            (&["v=DKIM1;p=MIIB +/aZ; k=rsa;"], true),
            (&["p=MIIB+/aZ"], true),
            (&["v=DKIM1; k=ed25519; p=MIIB+/aZ"], false),
            (&["v=DKIM1; k=rsa; p=MIIB"], false),
            (&["v=DKIM1; k=rsa; p="], false),
            (&["v=spf1 -all"], false),
            (&[], false),
            // Which of two a verifier takes is its own affair (RFC 6376 §3.6.2.2).
            (&[record, "v=DKIM1; p=other"], false),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(is_published(&texts, record), published, "{texts:?}");
        }
    }

    #[test]
    fn keys_follow_each_other_by_themselves_but_never_sign_before_they_are_seen() {
        let state = tempfile::tempdir().expect("a folder");
        let clock = Clock::still(Duration::from_secs(1_795_000_000));
        let domain = Domain::parse("example.org").expect("valid");
        let signing = Signing::open(state.path(), std::slice::from_ref(&domain), clock.clone()).expect("opened");
        let signs = || -> Vec<String> { signing.rings()[0].signing().map(|key| key.selector.clone()).collect() };
        let turn = |seconds: i64| clock.turn(Duration::from_secs(u64::try_from(seconds).expect("positive")));
        assert!(!signing.tend().expect("tended"));
        turn(schedule::SIGNS_S);
        assert!(signing.tend().expect("tended"), "new ones wait");
        let first = ["20261118-rsa", "20261118-ed25519"];
        assert_eq!(signs(), first);
        turn(schedule::SIGNS_S);
        assert!(signing.tend().expect("tended"));
        assert_eq!(
            (signs(), signing.waiting().len()),
            (first.map(str::to_owned).to_vec(), 2),
            "for as long as it takes"
        );
        for waiting in signing.waiting_keys() {
            signing.put_in_use(&waiting.domain, &waiting.selector).expect("in use");
        }
        assert_eq!(signs(), ["20270517-rsa", "20270517-ed25519"]);
        let count = || signing.rings()[0].keys.len();
        turn(schedule::KEPT_S - 1);
        assert!(!signing.tend().expect("tended"));
        assert_eq!(count(), 4, "the old ones are still published");
        turn(1);
        signing.tend().expect("tended");
        assert_eq!(count(), 2);
    }

    #[test]
    fn to_rotate_twice_makes_keys_once() {
        let state = tempfile::tempdir().expect("a folder");
        let domains = ["example.org", "example.net"].map(|name| Domain::parse(name).expect("valid"));
        let signing = Signing::open(state.path(), &domains, Clock::real()).expect("opened");
        let rotate = Request::Rotate { domain: Some("example.net".to_owned()) };
        for _ in 0..2 {
            signing.begin(&rotate).expect("made");
            assert_eq!(signing.waiting().len(), 2);
        }
        let listed = signing.list(&rotate).expect("listed");
        let states: Vec<_> = listed["keys"].as_array().expect("keys").iter().map(|key| key["state"].clone()).collect();
        assert_eq!(states, ["signs", "signs", "waiting", "waiting"]);
        let strange = signing.begin(&Request::Rotate { domain: Some("other.example".to_owned()) });
        assert!(strange.expect_err("not ours").contains("example.net, example.org"));
        let other = signing.rings()[1].keys.iter().filter(|key| key.key.algorithm() == Algorithm::RsaSha256).count();
        assert_eq!(other, 1);
    }
}
