//! The paired homes and a handle to each: its domains, its directory, its live session. Who is
//! paired comes from the config alone. What a home asks for leaves here as [`Asked`]; nothing here
//! knows who serves it.

pub mod directory;
pub mod link;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::relay::{AttemptRequest, Relay};
use gatepost_protocol::tunnel::verb::spool::SpoolRequest;
use gatepost_runtime::tunnel::{Session, Stream};

use self::directory::Shelf;
use crate::config::HomeConfig;

/// One paired home.
pub struct Home {
    name: String,
    domains: Vec<Domain>,
    private_routes: bool,
    shelf: Shelf,
    live: RwLock<Option<Live>>,
}

/// A session, numbered so that the end of an old one never ends a newer.
#[derive(Clone)]
struct Live {
    number: u64,
    session: Session,
}

/// What a home asks of this edge, admitted: the verb is one a home may use, on its own connection.
pub struct Asked {
    /// Who asks.
    pub home: Arc<Home>,
    /// What.
    pub what: Ask,
    /// The tunnel's version its session speaks: answers are told in it.
    pub version: u16,
    /// Where to answer.
    pub stream: Stream,
}

/// What is served outside this module.
#[derive(Debug)]
pub enum Ask {
    /// Send a message into the world.
    Relay(Box<Relay>),
    /// What became of an attempt.
    Attempt(AttemptRequest),
    /// Sealed mail.
    Spool(SpoolRequest),
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Homes(Arc<Inner>);

struct Inner {
    homes: Vec<Arc<Home>>,
    by_domain: HashMap<Domain, Arc<Home>>,
    by_key: HashMap<NodeKey, Arc<Home>>,
}

impl Homes {
    /// The homes of the config, each with the directory it last sent. Blocking.
    pub fn open(state: &Path, configs: &[HomeConfig]) -> Result<Self, gatepost_runtime::durable::DurableError> {
        let mut inner = Inner { homes: Vec::new(), by_domain: HashMap::new(), by_key: HashMap::new() };
        for config in configs {
            let shelf = Shelf::open(&state.join("directory"), &config.name, &config.domains)?;
            let home = Arc::new(Home {
                name: config.name.clone(),
                domains: config.domains.clone(),
                private_routes: config.private_routes,
                shelf,
                live: RwLock::new(None),
            });
            inner.by_domain.extend(config.domains.iter().map(|domain| (domain.clone(), home.clone())));
            inner.by_key.extend(config.keys.iter().map(|key| (*key, home.clone())));
            inner.homes.push(home);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Every home, in the config's order; never empty.
    pub fn all(&self) -> &[Arc<Home>] {
        &self.0.homes
    }

    /// Whose mail this domain's is.
    pub fn of_domain(&self, domain: &Domain) -> Option<&Arc<Home>> {
        self.0.by_domain.get(domain)
    }

    /// Who shows this key.
    pub fn of_key(&self, key: NodeKey) -> Option<&Arc<Home>> {
        self.0.by_key.get(&key)
    }
}

impl Home {
    /// Its name in the config.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The domains it may serve, never empty.
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// True if this domain is one of its own.
    pub fn serves(&self, domain: &Domain) -> bool {
        self.domains.contains(domain)
    }

    /// Whether its routes may lead to addresses that are not public.
    pub fn private_routes(&self) -> bool {
        self.private_routes
    }

    /// What it last told us, cut down to its own domains; `None` if it never did.
    pub fn directory(&self) -> Option<Arc<Directory>> {
        self.shelf.directory()
    }

    /// Its live session.
    pub fn session(&self) -> Option<Session> {
        self.live().map(|live| live.session)
    }

    /// Numbers the live session: a grant is good for the session that gave it only.
    pub fn session_number(&self) -> Option<u64> {
        self.live().map(|live| live.number)
    }

    fn live(&self) -> Option<Live> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().filter(|live| live.session.is_alive()).cloned()
    }

    fn connect(&self, number: u64, session: Session) -> Option<Session> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.replace(Live { number, session }).map(|old| old.session)
    }

    fn disconnect(&self, number: u64) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.take_if(|live| live.number == number);
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({})", self.name)
    }
}

impl std::fmt::Debug for Homes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asked({} by {})", self.what, self.home.name)
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Relay(_) => "Relay",
            Self::Attempt(_) => "Attempt",
            Self::Spool(_) => "Spool",
        })
    }
}
