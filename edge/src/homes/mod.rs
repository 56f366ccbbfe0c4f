//! The paired homes and a handle to each: its domains, its directory, its live session. Who is
//! paired is handed in, at start and whenever it changes. What a home asks for leaves here as
//! [`Asked`]; nothing here knows who serves it.

pub mod directory;
pub mod link;
pub mod presence;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::{Refusal, VERSION_MAX};
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_protocol::tunnel::verb::relay::{AttemptRequest, Relay};
use gatepost_protocol::tunnel::verb::spool::SpoolRequest;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::DurableError;
use gatepost_runtime::tunnel::{Session, Stream, TunnelError};
use tokio::sync::watch;
use tracing::{info, warn};

use self::directory::Shelf;
use self::presence::Presence;
use crate::config::HomeConfig;

/// One paired home. It stays the same one while what is listed of it changes.
pub struct Home {
    name: String,
    listed: ArcSwap<Listed>,
    /// It is listed no more: nothing that is for it may be taken.
    removed: AtomicBool,
    shelf: Shelf,
    presence: Presence,
    live: RwLock<Option<Live>>,
    /// The tunnel's version of its last session; before the first, ours: a home is not older than its edge.
    speaks: AtomicU16,
}

/// What is listed of a home.
struct Listed {
    domains: Arc<[Domain]>,
    private_routes: bool,
    origin: String,
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
    /// What its owner wants to know.
    Admin(AdminRequest),
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub struct Homes(Arc<Inner>);

struct Inner {
    state: PathBuf,
    clock: Clock,
    book: ArcSwap<Book>,
    /// Held while the book is changed.
    changing: Mutex<()>,
    /// Changes when a home's directory has come, or homes have.
    learned: watch::Sender<u64>,
}

/// Who is who, at one moment.
#[derive(Default)]
struct Book {
    homes: Vec<Arc<Home>>,
    by_domain: HashMap<Domain, Arc<Home>>,
    by_key: HashMap<NodeKey, Arc<Home>>,
}

impl Homes {
    /// These homes, each with the directory it last sent. Blocking.
    pub fn open(state: &Path, configs: &[HomeConfig], clock: Clock) -> Result<Self, DurableError> {
        let inner = Inner {
            state: state.to_owned(),
            clock,
            book: ArcSwap::from_pointee(Book::default()),
            changing: Mutex::default(),
            learned: watch::Sender::new(0),
        };
        let homes = Self(Arc::new(inner));
        homes.set(configs)?;
        Ok(homes)
    }

    /// From now on these are the homes. One that stays keeps its session; one that has gone, or no
    /// longer has the key its session was made with, is told so and cut off. If this fails, who is
    /// a home has not changed. Blocking.
    pub fn set(&self, configs: &[HomeConfig]) -> Result<(), DurableError> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.0.book.load_full();
        let mut book = Book::default();
        let mut listed = Vec::new();
        for config in configs {
            let of_home = Arc::new(Listed::new(config, configs.len() == 1));
            let home = match old.homes.iter().find(|home| home.name == config.name) {
                Some(home) => home.clone(),
                None => Home::open(&self.0, &config.name, of_home.clone())?,
            };
            book.by_domain.extend(config.domains.iter().map(|domain| (domain.clone(), home.clone())));
            book.by_key.extend(config.keys.iter().map(|key| (*key, home.clone())));
            book.homes.push(home);
            listed.push(of_home);
        }
        for (home, listed) in book.homes.iter().zip(&listed) {
            if home.domains() != listed.domains {
                home.shelf.serve(&listed.domains)?;
            }
        }
        for (home, listed) in book.homes.iter().zip(listed) {
            home.listed.store(listed);
        }
        for home in &old.homes {
            let stays = book.homes.iter().any(|other| Arc::ptr_eq(home, other));
            home.removed.store(!stays, Ordering::SeqCst);
        }
        let book = Arc::new(book);
        self.0.book.store(book.clone());
        for home in old.homes.iter().chain(&book.homes) {
            home.cut_off_unless_in(&book);
        }
        self.note_learned();
        Ok(())
    }

    /// Forgets what a home of this name has said, if it is none (any more). Blocking.
    pub fn discard_directory(&self, name: &str) -> Result<(), DurableError> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.all().iter().any(|home| home.name == name) {
            return Ok(());
        }
        Shelf::discard(&self.0.state.join("directory"), name)
    }

    /// Writes down which homes have been away for how long; `last`: to the second. Blocking.
    pub fn keep_presence(&self, last: bool) {
        let now = self.0.clock.now();
        for home in self.all() {
            let kept = if last { home.presence.keep_all(now) } else { home.presence.keep(now) };
            if let Err(error) = kept {
                warn!(home = home.name(), %error, "how long the home has been away can't be noted");
            }
        }
    }

    /// Ends a home's session if its key is not listed for it.
    fn check(&self, home: &Home) {
        home.cut_off_unless_in(&self.0.book.load());
    }

    /// Every home, in the order they are listed.
    pub fn all(&self) -> Vec<Arc<Home>> {
        self.0.book.load().homes.clone()
    }

    /// Changes whenever a home has told its directory anew, and when homes come, change or go.
    pub fn learned(&self) -> watch::Receiver<u64> {
        self.0.learned.subscribe()
    }

    fn note_learned(&self) {
        self.0.learned.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Whose mail this domain's is.
    pub fn of_domain(&self, domain: &Domain) -> Option<Arc<Home>> {
        self.0.book.load().by_domain.get(domain).cloned()
    }

    /// Who shows this key.
    pub fn of_key(&self, key: NodeKey) -> Option<Arc<Home>> {
        self.0.book.load().by_key.get(&key).cloned()
    }
}

impl Listed {
    /// `alone`: there is no other home.
    fn new(config: &HomeConfig, alone: bool) -> Self {
        Self {
            domains: config.domains.clone().into(),
            // A home alone is the owner's own; one of several may be a guest's.
            private_routes: config.private_routes.unwrap_or(alone),
            origin: config.origin.to_string(),
        }
    }
}

impl Home {
    fn open(inner: &Inner, name: &str, listed: Arc<Listed>) -> Result<Arc<Self>, DurableError> {
        Ok(Arc::new(Self {
            name: name.to_owned(),
            shelf: Shelf::open(&inner.state.join("directory"), name, &listed.domains)?,
            presence: Presence::open(&inner.state.join("presence"), name, inner.clock.now())?,
            listed: ArcSwap::new(listed),
            removed: AtomicBool::new(false),
            live: RwLock::new(None),
            speaks: AtomicU16::new(VERSION_MAX),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tunnel's version it spoke last: what is sealed for it is told in it.
    pub fn speaks(&self) -> u16 {
        self.speaks.load(Ordering::Relaxed)
    }

    /// The domains it may serve, never empty.
    pub fn domains(&self) -> Arc<[Domain]> {
        self.listed.load().domains.clone()
    }

    /// True if this domain is one of its own.
    pub fn serves(&self, domain: &Domain) -> bool {
        self.listed.load().domains.contains(domain)
    }

    /// Whether its routes may lead to addresses that are not public.
    pub fn private_routes(&self) -> bool {
        self.listed.load().private_routes
    }

    /// True once it is listed no more: what began for it must not be taken.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// How long it has been away; nothing while it is connected.
    pub fn away(&self, now: Instant) -> Duration {
        self.presence.away(now)
    }

    /// Where it is listed, for people.
    pub fn origin(&self) -> String {
        self.listed.load().origin.clone()
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
        self.speaks.store(session.facts().version, Ordering::Relaxed);
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.presence.come();
        live.replace(Live { number, session }).map(|old| old.session)
    }

    fn disconnect(&self, number: u64, now: Instant) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.take_if(|live| live.number == number).is_some() {
            self.presence.leave(now);
        }
    }
}

impl Home {
    fn cut_off_unless_in(&self, book: &Book) {
        let Some(session) = self.session() else { return };
        let key = session.facts().peer;
        if book.by_key.get(&key).is_none_or(|home| home.name != self.name) {
            info!(home = self.name, %key, "this home's key is no longer listed: its session ends");
            session.close(TunnelError::Refused(Refusal::NotPaired { got: *key.as_bytes() }));
        }
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({})", self.name)
    }
}

impl std::fmt::Debug for Homes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.book.load().homes).finish()
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
            Self::Admin(_) => "Admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn config(name: &str, seed: &str, domain: &str, private_routes: Option<bool>) -> HomeConfig {
        HomeConfig {
            name: name.into(),
            keys: vec![NodeKey::of_spki(seed.as_bytes())],
            domains: vec![Domain::parse(domain).expect("valid")],
            private_routes,
            origin: Origin::Paired,
        }
    }

    #[test]
    fn only_a_home_alone_reaches_private_addresses_unasked() {
        let state = tempfile::tempdir().expect("a directory");
        let homes = Homes::open(state.path(), &[], Clock::real()).expect("opened");
        let cabin = config("cabin", "b", "a.example", None);
        for (first, second, expected) in [
            (None, None, &[true][..]),
            (None, Some(&cabin), &[false, false]),
            (Some(true), Some(&cabin), &[true, false]),
            (Some(false), None, &[false]),
        ] {
            let configs: Vec<_> =
                [config("cottage", "a", "example.org", first)].into_iter().chain(second.cloned()).collect();
            homes.set(&configs).expect("read");
            let routes: Vec<_> = homes.all().iter().map(|home| home.private_routes()).collect();
            assert_eq!(routes, expected);
        }
    }

    #[test]
    fn homes_come_change_and_go_while_the_edge_runs() {
        let state = tempfile::tempdir().expect("a directory");
        let homes =
            Homes::open(state.path(), &[config("cottage", "a", "example.org", None)], Clock::real()).expect("opened");
        let cottage = homes.all().remove(0);
        let domain = |name| Domain::parse(name).expect("valid");
        homes
            .set(&[config("cottage", "b", "example.net", None), config("cabin", "c", "a.example", None)])
            .expect("set");
        assert!(Arc::ptr_eq(&cottage, &homes.of_key(NodeKey::of_spki(b"b")).expect("listed")), "it stays the same one");
        assert!(cottage.serves(&domain("example.net")) && !cottage.serves(&domain("example.org")));
        assert!(homes.of_domain(&domain("example.org")).is_none());
        assert!(homes.of_key(NodeKey::of_spki(b"a")).is_none());
        assert_eq!(homes.of_domain(&domain("a.example")).expect("listed").name(), "cabin");
        homes.set(&[]).expect("set");
        assert!(cottage.is_removed());
        assert!(homes.all().is_empty() && homes.of_domain(&domain("example.net")).is_none());
    }
}
