//! Signing of mail that leaves: DKIM for our own, ARC for what goes on. Every domain has its own keys, which nobody
//! outside this folder sees; an edge never does. Needs no DNS: only a change of keys asks there.

mod fields;
pub mod key;
pub mod ring;
pub mod rotation;
pub mod schedule;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::DurableError;
use thiserror::Error;

pub use self::fields::{Purpose, Signed};
use self::ring::{Moment, Ring};

/// Why something can't be signed, or a key not be had.
#[derive(Debug, Error)]
pub enum SigningError {
    /// A key can't be kept.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A key can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file holds something else.
    #[error(
        "{} holds no key of this home: restore it from a backup, or remove its folder; then new keys are made, and their \
         records (gatepost-home dns) must be published",
        path.display()
    )]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// Too many keys.
    #[error("{domain} has too many keys; publish those that wait (gatepost-home dkim list)")]
    TooMany {
        /// Whose.
        domain: String,
    },
    /// The message can't be read.
    #[error("the message can't be read: {0}")]
    Message(#[from] io::Error),
    /// The crypto library would not.
    #[error("can't {what}: the crypto library failed")]
    Crypto {
        /// What was asked of it.
        what: &'static str,
    },
}

/// The keys of all domains, by domain.
type Rings = BTreeMap<Domain, Arc<Ring>>;

/// Signs. Cheap to clone.
#[derive(Clone)]
pub struct Signing {
    inner: Arc<Inner>,
}

struct Inner {
    state: PathBuf,
    clock: Clock,
    rings: ArcSwap<Rings>,
    // Held while keys change: one change at a time.
    changing: Mutex<()>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signing")
    }
}

/// Keys of domains of another config, to be put in force.
#[derive(Debug)]
pub struct Prepared(Rings);

impl Signing {
    /// Opens the keys of these domains; makes what is missing. Blocking.
    pub fn open(state: &Path, domains: &[Domain], clock: Clock) -> Result<Self, SigningError> {
        let inner = Inner { state: state.to_owned(), clock, rings: ArcSwap::default(), changing: Mutex::default() };
        let signing = Self { inner: Arc::new(inner) };
        let Prepared(rings) = signing.prepare(domains)?;
        signing.inner.rings.store(Arc::new(rings));
        Ok(signing)
    }

    /// Gets the keys of these domains ready, and changes nothing yet. Blocking.
    pub fn prepare(&self, domains: &[Domain]) -> Result<Prepared, SigningError> {
        let _changing = self.inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let known = self.inner.rings.load();
        let mut rings = Rings::new();
        for domain in domains {
            let ring = match known.get(domain) {
                Some(ring) => Arc::clone(ring),
                None => Arc::new(Ring::open(&self.inner.state, domain, now)?),
            };
            rings.insert(domain.clone(), ring);
        }
        Ok(Prepared(rings))
    }

    /// From now on these domains sign.
    pub fn take(&self, Prepared(mut rings): Prepared) {
        let _changing = self.inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // What changed since they were prepared counts.
        for (domain, ring) in self.inner.rings.load().iter() {
            if let Some(prepared) = rings.get_mut(domain) {
                *prepared = Arc::clone(ring);
            }
        }
        self.inner.rings.store(Arc::new(rings));
    }

    /// The keys that sign for a domain: its own, or those of the domain of ours it is below.
    fn ring_of(&self, domain: &Domain) -> Option<Arc<Ring>> {
        let rings = self.inner.rings.load();
        let mut name = domain.as_str();
        loop {
            if let Some(ring) = rings.get(name) {
                return Some(Arc::clone(ring));
            }
            name = name.split_once('.')?.1;
        }
    }

    fn now(&self) -> Moment {
        let clock = &self.inner.clock;
        Moment { unix_s: clock.latest_s(), steady_s: clock.steady_s() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{Body, Message};

    fn domain(name: &str) -> Domain {
        Domain::parse(name).expect("valid")
    }

    #[test]
    fn another_config_is_taken_whole_and_keeps_the_keys_of_domains_that_stay() {
        let state = tempfile::tempdir().expect("a folder");
        let clock = Clock::still(Duration::from_secs(1_795_000_000));
        let signing = Signing::open(state.path(), &[domain("example.org")], clock).expect("opened");
        let prepared = signing.prepare(&[domain("example.org"), domain("example.net")]).expect("got");
        let names = || signing.rings().iter().map(|ring| ring.domain.to_string()).collect::<Vec<_>>();
        assert_eq!(names(), ["example.org"], "nothing changes before it is taken");
        // A key that is made meanwhile is not lost.
        signing.begin(&rotation::Request::Rotate { domain: None }).expect("made");
        signing.take(prepared);
        assert_eq!(names(), ["example.net", "example.org"]);
        assert_eq!(signing.waiting().len(), 2);
        signing.take(signing.prepare(&[domain("example.net")]).expect("got"));
        assert_eq!(names(), ["example.net"]);
        signing.take(signing.prepare(&[domain("example.org")]).expect("got"));
        assert_eq!(signing.waiting().len(), 2, "its keys lay where they were");
    }

    #[test]
    fn the_keys_of_the_nearest_domain_above_sign() {
        let state = tempfile::tempdir().expect("a folder");
        let domains = [domain("example.org"), domain("lists.example.org")];
        let signing = Signing::open(state.path(), &domains, Clock::real()).expect("opened");
        let signer = |from: &str| {
            let text = format!("From: {from}\r\n\r\nhello\r\n");
            let message = Message { front: bytes::Bytes::new(), body: Body::from(text.into_bytes()) };
            signing.fields(&message, &Purpose::Ours).expect("read").map(|signed| signed.domain.to_string())
        };
        for (from, by) in [
            ("a@example.org", Some("example.org")),
            ("Alice <a@EXAMPLE.ORG>", Some("example.org")),
            ("a@nas.example.org", Some("example.org")),
            ("a@x.lists.example.org", Some("lists.example.org")),
            ("a@badexample.org", None),
            ("a@org", None),
            ("a@other.example, b@example.org", Some("example.org")),
            ("friends: a@example.org;", Some("example.org")),
            ("nobody", None),
            ("", None),
        ] {
            assert_eq!(signer(from).as_deref(), by, "{from}");
        }
    }
}
