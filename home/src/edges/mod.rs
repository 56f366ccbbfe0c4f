//! The edges of the config: each is dialled for ever by a task of its own, told the directory, and
//! handed to the queue while it is up. What edges ask of the home leaves as an event: `edges` knows
//! nobody who serves it.

pub mod ask;
mod dial;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::directory::WireDirectory2;
use gatepost_runtime::clock::{Clock, rfc3339};
use gatepost_runtime::identity::Identity;
use gatepost_runtime::shutdown::Shutdown;
use gatepost_runtime::tunnel::{Incoming, TunnelError};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use crate::queue::ConnectedEdge;

/// Sessions that may wait for their server. One per edge is alive at a time.
const SESSIONS_WAITING_MAX: usize = 16;

/// One `[[edge]]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSettings {
    /// Its name, for people.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Keys it may show: one, or two while it is changed.
    pub keys: Vec<NodeKey>,
}

/// A session that was just made, and what comes in on it: to be served until it ends.
#[expect(missing_debug_implementations, reason = "a session does not print")]
pub struct Connected {
    /// Which edge.
    pub edge: ConnectedEdge,
    /// Exchanges the edge begins.
    pub incoming: mpsc::Receiver<Incoming>,
}

/// What is known of one edge, for `status`.
#[derive(Clone, Debug, Default)]
struct Facts {
    last_error: Option<String>,
    directory_held: Option<u64>,
}

/// The edges. Cheap to clone.
#[derive(Clone)]
pub struct Edges {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Edges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

struct Inner {
    // In the order of the config.
    listed: Mutex<Vec<Arc<Listed>>>,
    // In the same order, whoever connects first.
    connected: watch::Sender<Vec<ConnectedEdge>>,
    dialling: Dialling,
    sessions: mpsc::Sender<Connected>,
}

/// One edge, for as long as it is listed at its address.
struct Listed {
    name: String,
    address: String,
    keys: RwLock<Vec<NodeKey>>,
    facts: Mutex<Facts>,
    // Its keys are others than before: worth another try at once.
    changed: Notify,
    // Ended, its session ends and it is dialled no more.
    dialled: Shutdown,
}

/// What dialling needs.
#[expect(missing_debug_implementations, reason = "an identity does not print")]
pub struct Dialling {
    /// Our key pair.
    pub identity: Arc<Identity>,
    /// Our name, for people.
    pub node: String,
    /// What edges are told.
    pub directory: watch::Receiver<Arc<WireDirectory2>>,
    /// Time.
    pub clock: Clock,
    /// When to stop.
    pub links: Arc<Shutdown>,
}

impl Edges {
    /// Starts dialling. New sessions come out of the receiver.
    pub fn start(settings: &[EdgeSettings], dialling: Dialling) -> (Self, mpsc::Receiver<Connected>) {
        let (sessions, receiver) = mpsc::channel(SESSIONS_WAITING_MAX);
        let (listed, connected) = (Mutex::default(), watch::Sender::new(Vec::new()));
        let edges = Self { inner: Arc::new(Inner { listed, connected, dialling, sessions }) };
        edges.set(settings);
        (edges, receiver)
    }

    /// From now on these are the edges. One that stays keeps its session if its address is the same and its key still
    /// listed; others end theirs, and new ones are dialled. To be called inside the runtime.
    pub fn set(&self, settings: &[EdgeSettings]) {
        let mut listed = self.inner.listed();
        let mut gone = std::mem::take(&mut *listed);
        for edge in settings {
            let same = |old: &Arc<Listed>| old.name == edge.name && old.address == edge.address;
            listed.push(match gone.iter().position(same) {
                Some(place) => {
                    let stays = gone.swap_remove(place);
                    let before = std::mem::replace(
                        &mut *stays.keys.write().unwrap_or_else(PoisonError::into_inner),
                        edge.keys.clone(),
                    );
                    if before != edge.keys {
                        stays.changed.notify_one();
                    }
                    stays
                }
                None => self.dial(edge),
            });
        }
        drop(listed);
        for old in gone {
            old.dialled.end();
            self.inner.forget(&old);
        }
        self.inner.connected.send_modify(|connected| {
            let listed = self.inner.listed();
            let rank = |edge: &ConnectedEdge| listed.iter().position(|listed| listed.name == edge.name);
            connected.sort_by_key(rank);
            for edge in connected.iter() {
                if !listed.iter().any(|listed| listed.name == edge.name && listed.has(edge.key)) {
                    edge.session.close(TunnelError::Closed);
                }
            }
        });
    }

    fn dial(&self, edge: &EdgeSettings) -> Arc<Listed> {
        let (dialled, stop) = Shutdown::new();
        let listed = Arc::new(Listed {
            name: edge.name.clone(),
            address: edge.address.clone(),
            keys: RwLock::new(edge.keys.clone()),
            facts: Mutex::default(),
            changed: Notify::new(),
            dialled,
        });
        let kept = dial::keep(Arc::clone(&self.inner), Arc::clone(&listed), stop, self.inner.dialling.links.signal());
        tokio::spawn(kept);
        listed
    }

    /// Their names, in the order of the config.
    pub fn names(&self) -> Vec<String> {
        self.inner.listed().iter().map(|edge| edge.name.clone()).collect()
    }

    /// The edges connected now, in the order of the config; changes at each connect and loss.
    pub fn connected(&self) -> crate::queue::Edges {
        self.inner.connected.subscribe()
    }

    /// For `status`: one object an edge.
    pub fn status(&self, now: Instant) -> Value {
        let connected = self.inner.connected.borrow().clone();
        let listed = self.inner.listed();
        let edges = listed.iter().map(|edge| {
            let facts = edge.facts();
            let up = connected.iter().find(|up| up.name == edge.name);
            let session = up.map(|up| {
                let session = up.session.facts();
                json!({
                    "address": session.address.to_string(),
                    "node": session.node,
                    "software": session.software,
                    "since": rfc3339(session.since_unix_s),
                    "key": session.peer.to_string(),
                    "key_exchange": session.group,
                    "protocol": session.version,
                    "round_trip_ms": up.session.round_trip().map(|time| time.as_secs_f64() * 1000.0),
                    "heard_s_ago": now.saturating_duration_since(up.session.heard()).as_secs_f64(),
                })
            });
            json!({
                "name": edge.name,
                "address": edge.address,
                "connected": up.is_some(),
                "session": session,
                "directory_held": facts.directory_held,
                "last_error": facts.last_error,
            })
        });
        Value::Array(edges.collect())
    }
}

impl Inner {
    fn listed(&self) -> MutexGuard<'_, Vec<Arc<Listed>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is up, if it is still listed and by this key.
    fn set_connected(&self, listed: &Arc<Listed>, edge: ConnectedEdge) -> bool {
        let mut taken = false;
        self.connected.send_modify(|connected| {
            let all = self.listed();
            let rank = |name: &str| all.iter().position(|listed| listed.name == name);
            let place = all.iter().position(|other| Arc::ptr_eq(other, listed));
            if place.is_some() && listed.has(edge.key) {
                connected.retain(|other| other.name != edge.name);
                let at = connected.partition_point(|other| rank(&other.name) < place);
                connected.insert(at, edge);
                taken = true;
            }
        });
        if taken {
            listed.facts().last_error = None;
        }
        taken
    }

    fn set_lost(&self, listed: &Arc<Listed>, why: String) {
        self.forget(listed);
        listed.facts().last_error = Some(why);
    }

    /// Its session is over. Another edge of that name may have taken its place.
    fn forget(&self, listed: &Arc<Listed>) {
        let replaced = self.listed().iter().any(|other| other.name == listed.name && !Arc::ptr_eq(other, listed));
        self.connected.send_modify(|connected| {
            connected.retain(|edge| edge.name != listed.name || (replaced && edge.session.is_alive()));
        });
    }
}

impl Listed {
    fn has(&self, key: NodeKey) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }

    fn keys(&self) -> Vec<NodeKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
