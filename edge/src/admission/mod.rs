//! What is found out about a client as such, from the moment it connects on: what the DNS lists say of it. Who sends
//! what is for `policy` and `session/judging`. Clients of private networks are nobody's business, and never asked about.

mod health;
mod lists;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_protocol::mail::dns_list::Standing;
use gatepost_protocol::network::Network;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::resolver::Resolver;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;

use self::lists::Lists;
use crate::config::admission::AdmissionSettings;

/// From the moment of connection on, answers are waited for so long.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(5);

/// Who finds out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ArcSwap<AdmissionSettings>,
    lists: Lists,
    clock: Clock,
}

/// A client that has come, and what is being found out about it.
#[derive(Debug, Default)]
pub struct Arrival {
    /// None: nothing is asked.
    asking: Option<Asking>,
}

/// Dropped, it asks no further.
#[derive(Debug)]
struct Asking {
    told: watch::Receiver<Option<Arc<Standing>>>,
    task: JoinHandle<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Admission {
    /// By these settings.
    pub fn new(resolver: Resolver, settings: AdmissionSettings, clock: Clock) -> Self {
        let lists = Lists::new(resolver, &settings.lists, clock.clone());
        Self(Arc::new(Inner { settings: ArcSwap::from_pointee(settings), lists, clock }))
    }

    /// From now on these settings.
    pub fn reload(&self, settings: AdmissionSettings) {
        self.0.lists.reload(&settings.lists);
        self.0.settings.store(Arc::new(settings));
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<AdmissionSettings> {
        self.0.settings.load_full()
    }

    /// Begins to ask about who has just connected to 25.
    pub fn begin(&self, client: IpAddr) -> Arrival {
        if self.0.lists.is_empty() || !self.is_stranger(client) {
            return Arrival { asking: None };
        }
        let (tell, told) = watch::channel(None);
        let inner = Arc::clone(&self.0);
        let until = inner.clock.now() + ANSWERS_WAIT_MAX;
        let task = tokio::spawn(async move {
            let standing = inner.lists.ask(client, until).await;
            if !standing.hits.is_empty() {
                debug!(%client, lists = standing.brief(), "listed");
            }
            tell.send_replace(Some(Arc::new(standing)));
        });
        Arrival { asking: Some(Asking { told, task }) }
    }

    /// For `status`.
    pub fn json(&self) -> Value {
        self.0.lists.json()
    }

    fn is_stranger(&self, client: IpAddr) -> bool {
        let network = Network::of_client(client);
        !network.is_private() || network.is_loopback() && self.0.settings.load().loopback
    }
}

impl Arrival {
    /// What the lists say, once all have answered or time is up; none if nothing is asked.
    pub async fn standing(&mut self) -> Option<Arc<Standing>> {
        let told = &mut self.asking.as_mut()?.told;
        // An error: whoever asks has failed, and says nothing.
        told.wait_for(Option::is_some).await.ok()?.clone()
    }
}
