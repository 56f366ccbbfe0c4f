//! The edges of the config: each is dialled for ever by a task of its own, told the directory, and
//! handed to the queue while it is up. What edges ask of the home leaves as an event: `edges` knows
//! nobody who serves it.

mod ask;
mod dial;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::directory::WireDirectory2;
use gatepost_runtime::clock::{Clock, rfc3339};
use gatepost_runtime::identity::Identity;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Incoming;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

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
#[expect(missing_debug_implementations, reason = "a session does not print")]
pub struct Edges {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Vec<EdgeSettings>,
    // In the order of the config, whoever connects first.
    connected: watch::Sender<Vec<ConnectedEdge>>,
    facts: Mutex<Vec<Facts>>,
}

/// What a dialling task needs.
#[derive(Clone)]
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
    pub signal: Signal,
}

impl Edges {
    /// Starts dialling. New sessions come out of the receiver.
    pub fn start(settings: Vec<EdgeSettings>, dialling: &Dialling) -> (Self, mpsc::Receiver<Connected>) {
        let facts = Mutex::new(vec![Facts::default(); settings.len()]);
        let inner = Arc::new(Inner { settings, connected: watch::Sender::new(Vec::new()), facts });
        let (sessions, receiver) = mpsc::channel(SESSIONS_WAITING_MAX);
        for index in 0..inner.settings.len() {
            tokio::spawn(dial::keep(Arc::clone(&inner), index, dialling.clone(), sessions.clone()));
        }
        (Self { inner }, receiver)
    }

    /// The edges connected now, in the order of the config; changes at each connect and loss.
    pub fn connected(&self) -> crate::queue::Edges {
        self.inner.connected.subscribe()
    }

    /// The name of the edge with this key.
    pub fn name_of(&self, key: NodeKey) -> Option<&str> {
        self.inner.settings.iter().find(|edge| edge.keys.contains(&key)).map(|edge| edge.name.as_str())
    }

    /// For `status`: one object an edge.
    pub fn status(&self, now: Instant) -> Value {
        let connected = self.inner.connected.borrow();
        let facts = self.inner.facts();
        let edges = self.inner.settings.iter().zip(facts.iter()).map(|(edge, facts)| {
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
    fn facts(&self) -> std::sync::MutexGuard<'_, Vec<Facts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_connected(&self, index: usize, edge: ConnectedEdge) {
        self.connected.send_modify(|connected| {
            connected.retain(|other| other.name != edge.name);
            let rank = |edge: &ConnectedEdge| self.settings.iter().position(|settings| settings.name == edge.name);
            let at = connected.partition_point(|other| rank(other) < Some(index));
            connected.insert(at, edge);
        });
        self.facts()[index].last_error = None;
    }

    fn set_lost(&self, index: usize, why: String) {
        self.connected.send_modify(|connected| connected.retain(|edge| edge.name != self.settings[index].name));
        self.facts()[index].last_error = Some(why);
    }
}
