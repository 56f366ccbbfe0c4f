//! The last snapshot of one home, on disk and in memory, so that the edge answers for it while it
//! is away, across restarts too. A home speaks for its own domains only: what else its snapshot
//! holds is left out when it is read, so that a change of the config counts at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::pattern::PATTERNS_MAX;
use gatepost_protocol::tunnel::verb::directory::{WireDirectory, WireDirectory2};
use gatepost_runtime::durable::{self, DurableError};
use thiserror::Error;
use tracing::error;

/// First octet of the file: how the rest is encoded. 1 held a [`WireDirectory`].
const FILE_VERSION: u8 = 2;
/// PBKDF2 rounds of a verifier beyond which it is left out: a login must not cost seconds.
const ITERATIONS_MAX: u32 = 1_000_000;

/// Where one home's snapshot is kept.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
    held: RwLock<Held>,
    /// Held while the file or the domains change: whoever only looks something up never waits for the disk.
    changing: Mutex<()>,
}

/// What is in use, and the domains it is cut down to.
#[derive(Debug)]
struct Held {
    domains: Arc<[Domain]>,
    directory: Option<Arc<Directory>>,
}

/// Why a snapshot was not taken.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// It holds something that is no domain name.
    #[error("the snapshot can't be read: {0}")]
    Malformed(String),
    /// It could not be kept.
    #[error(transparent)]
    Disk(#[from] DurableError),
}

impl Shelf {
    /// Opens `folder/name`. A file that can't be read is reported and left alone: the home sends
    /// its snapshot anew when it connects. Blocking.
    pub fn open(folder: &Path, name: &str, domains: &[Domain]) -> Result<Self, DurableError> {
        durable::create_directory(folder)?;
        let path = folder.join(name);
        let directory = read(&path, domains)?.map(Arc::new);
        let held = RwLock::new(Held { domains: domains.into(), directory });
        Ok(Self { path, held, changing: Mutex::default() })
    }

    /// From now on these domains count. Blocking.
    pub fn serve(&self, domains: &Arc<[Domain]>) -> Result<(), DurableError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = read(&self.path, domains)?.map(Arc::new);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Held { domains: domains.clone(), directory };
        Ok(())
    }

    /// Forgets the kept snapshot of a home that is gone. Blocking.
    pub fn discard(folder: &Path, name: &str) -> Result<(), DurableError> {
        durable::remove(&folder.join(name))
    }

    /// The snapshot in use.
    pub fn directory(&self) -> Option<Arc<Directory>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).directory.clone()
    }

    /// Takes a new snapshot: durable when this returns. Blocking.
    pub fn put(&self, wire: WireDirectory2) -> Result<u64, ShelfError> {
        let mut bytes = vec![FILE_VERSION];
        bytes = postcard::to_extend(&wire, bytes).map_err(|error| ShelfError::Malformed(error.to_string()))?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let domains = self.held.read().unwrap_or_else(PoisonError::into_inner).domains.clone();
        let directory = admit(wire, &domains)?;
        let version = directory.version;
        durable::write_file(&self.path, &bytes)?;
        self.held.write().unwrap_or_else(PoisonError::into_inner).directory = Some(Arc::new(directory));
        Ok(version)
    }
}

/// What the file at `path` holds for these domains. One that can't be understood is reported and left alone.
fn read(path: &Path, domains: &[Domain]) -> Result<Option<Directory>, DurableError> {
    match std::fs::read(path) {
        Ok(bytes) => match decode(&bytes).and_then(|wire| admit(wire, domains)) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) => {
                error!(path = %path.display(), %error, "the home's directory can't be read; waiting for the home");
                Ok(None)
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DurableError { action: "read", path: path.to_owned(), source }),
    }
}

fn decode(bytes: &[u8]) -> Result<WireDirectory2, ShelfError> {
    let malformed = |error: postcard::Error| ShelfError::Malformed(error.to_string());
    match bytes.split_first() {
        Some((&FILE_VERSION, body)) => postcard::from_bytes(body).map_err(malformed),
        Some((&1, body)) => postcard::from_bytes::<WireDirectory>(body).map(Into::into).map_err(malformed),
        Some((version, _)) => Err(ShelfError::Malformed(format!("its version {version} is not known"))),
        None => Err(ShelfError::Malformed("it is empty".into())),
    }
}

/// What of a snapshot counts: nothing of a domain the config does not give this home.
fn admit(wire: WireDirectory2, domains: &[Domain]) -> Result<Directory, ShelfError> {
    let (mut directory, unusable) = wire.into_directory().map_err(|error| ShelfError::Malformed(error.to_string()))?;
    for subject in unusable.rules {
        error!(subject, "a rule of the home's access list can't be used here: this edge goes without it");
    }
    for pattern in unusable.patterns {
        let why = pattern.why.map_or_else(|| format!("it is one of more than {PATTERNS_MAX}"), |why| why.to_string());
        error!(
            domain = pattern.domain,
            expression = pattern.expression,
            why,
            "a pattern of the home's can't be used here: its addresses are refused"
        );
    }
    directory.domains.retain(|domain, _| domains.contains(domain));
    directory.addresses.retain(|key| in_domains(key, domains));
    directory.access.retain(|rule| rule.recipient.as_ref().is_none_or(|domain| domains.contains(domain)));
    directory.policies.domains.retain(|domain, _| domains.contains(domain));
    directory.patterns.retain(|pattern| domains.contains(&pattern.domain));
    directory.tight.retain(|key, _| in_domains(key, domains));
    directory.verifiers.retain(|login, verifier| {
        in_domains(login, domains) && verifier.iterations <= ITERATIONS_MAX && verifier.iterations > 0
    });
    Ok(directory)
}

fn in_domains(key: &str, domains: &[Domain]) -> bool {
    key.rsplit_once('@').is_some_and(|(_, name)| domains.iter().any(|domain| domain.as_str() == name))
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::access::AccessList;
    use gatepost_protocol::mail::address::Address;
    use gatepost_protocol::mail::directory::{DomainPolicy, Lookup};
    use gatepost_protocol::mail::policy::Policies;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).expect("valid")
    }

    fn snapshot(version: u64) -> WireDirectory2 {
        let domains = ["example.org", "stolen.example"].map(|name| (domain(name), DomainPolicy::default()));
        WireDirectory2::from(&Directory {
            version,
            domains: domains.into(),
            addresses: ["alice@example.org", "bob@stolen.example"].into(),
            subaddress_separator: Some('+'),
            verifiers: std::collections::HashMap::new(),
            seal_key: vec![1; 10],
            message_octets_max: 1000,
            patterns: Vec::new(),
            tight: std::collections::HashMap::new(),
            srs: None,
            access: AccessList::default(),
            policies: Policies::default(),
            hosts: Vec::new(),
            mta_sts: None,
            services: gatepost_protocol::mail::services::Services::default(),
        })
    }

    fn address(text: &str) -> Address {
        Address::parse(text).expect("valid")
    }

    #[test]
    fn a_snapshot_survives_a_restart_and_stays_within_its_domains() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let shelf = Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened");
        assert!(shelf.directory().is_none());
        assert_eq!(shelf.put(snapshot(7)).expect("kept"), 7);
        for shelf in [shelf, Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened")] {
            let directory = shelf.directory().expect("held");
            assert_eq!(directory.version, 7);
            assert_eq!(directory.lookup(&address("alice@example.org")), Lookup::Known);
            assert_eq!(directory.lookup(&address("bob@stolen.example")), Lookup::NotOurs);
            assert_eq!(directory.addresses.len(), 1);
        }
        let wider = [domain("example.org"), domain("stolen.example")];
        let wider = Shelf::open(folder.path(), "cottage", &wider).expect("opened").directory().expect("held");
        assert_eq!(wider.lookup(&address("bob@stolen.example")), Lookup::Known);
    }

    #[test]
    fn other_domains_count_at_once_without_hearing_from_the_home() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let shelf = Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened");
        shelf.put(snapshot(7)).expect("kept");
        let bob = address("bob@stolen.example");
        for (domains, expected) in
            [(&["example.org", "stolen.example"][..], Lookup::Known), (&["example.org"], Lookup::NotOurs)]
        {
            let domains: Vec<_> = domains.iter().map(|name| domain(name)).collect();
            shelf.serve(&domains.into()).expect("read");
            assert_eq!(shelf.directory().expect("held").lookup(&bob), expected);
            shelf.put(snapshot(8)).expect("kept");
            assert_eq!(shelf.directory().expect("held").lookup(&bob), expected, "for the next snapshot too");
        }
        Shelf::discard(folder.path(), "cottage").expect("removed");
        let again = Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened");
        assert!(again.directory().is_none());
    }

    #[test]
    fn what_an_older_edge_kept_is_read() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let bytes = postcard::to_extend(snapshot(7).base(), vec![1]).expect("encoded");
        std::fs::write(folder.path().join("cottage"), bytes).expect("written");
        let shelf = Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened");
        assert_eq!(shelf.directory().expect("held").version, 7);
    }

    #[test]
    fn a_torn_file_is_no_directory_and_no_obstacle() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        for bytes in [&b""[..], &[9, 1, 2], &[FILE_VERSION, 0xff, 0xff]] {
            std::fs::write(folder.path().join("cottage"), bytes).expect("written");
            let shelf = Shelf::open(folder.path(), "cottage", &[domain("example.org")]).expect("opened");
            assert!(shelf.directory().is_none());
            shelf.put(snapshot(1)).expect("kept");
            assert!(shelf.directory().is_some());
        }
    }
}
