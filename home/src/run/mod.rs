//! Builds the parts and wires them: only here are they all known.

mod chores;
mod control;
mod doors;
mod exchanges;
mod shown;
mod store;
mod watching;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable;
use gatepost_runtime::event::Events;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::shutdown::Shutdown;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::control::Desk;
use self::doors::{Doors, Lan};
pub use self::store::Store;
use self::watching::Watching;
use crate::accounts::addresses::Leads;
use crate::config::Config;
use crate::edges::{Dialling, Edges};
use crate::router::spool::Fetcher;
use crate::router::streams::Server;

/// Where the node's key lies inside the state directory.
pub const IDENTITY: &str = "keys/identity.pem";
/// What runs may finish in this time once we are told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Bounces waiting to be delivered; the queue waits beyond them.
const BOUNCES_WAITING_MAX: usize = 16;
/// Loads the node's key, or makes it on first start. Blocking.
pub fn identity(state: &Path) -> anyhow::Result<Identity> {
    durable::create_directory(&state.join("keys"))?;
    Ok(Identity::load_or_create(&state.join(IDENTITY))?)
}

/// A running home.
#[derive(Debug)]
pub struct Home {
    work: Shutdown,
    links: Shutdown,
    talk: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    watching: Watching,
    submissions: Option<std::net::SocketAddr>,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config, events: Option<Events>) -> anyhow::Result<()> {
    let home = Home::start(config, events, Clock::real()).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    home.stop().await;
    Ok(())
}

impl Home {
    /// Opens state and doors; everything runs when this returns. `events` are what the program says of itself,
    /// kept for `trace`.
    pub async fn start(config: Config, events: Option<Events>, clock: Clock) -> anyhow::Result<Self> {
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let opening = {
            let clock = clock.clone();
            tokio::task::spawn_blocking(move || Store::open(&config, &clock).map(|store| (store, config)))
        };
        let (store, config) = opening.await??;
        let store = Arc::new(store);
        if store.accounts.lead(&config.postmaster) == Leads::Nowhere {
            warn!(postmaster = %config.postmaster, "the postmaster has no account yet; make it, or nobody reads its mail");
        }
        let identity = Arc::new(identity(&config.state)?);
        let incoming: Arc<Path> = config.state.join("incoming").into();
        durable::create_directory(&incoming)?;
        let served = Served::new(config.tls.as_ref(), &config.hostname)?;
        if served.is_self_signed() {
            warn!("no certificate is configured in [tls]: serving a self-signed one, which no client can verify");
        }
        info!(key = %identity.key(), hostname = config.hostname, state = %config.state.display(), "home starts");

        let watching = Watching::start(&config, events, &clock)?;
        let (work, work_signal) = Shutdown::new();
        let (links, dialling_signal) = Shutdown::new();
        let (talk, control_signal) = Shutdown::new();
        let router = store.router(&config.hostname, &clock);
        let lan = Lan {
            config: &config,
            store: &store,
            router: &router,
            served: &served,
            incoming: &incoming,
            clock: &clock,
            signal: &work_signal,
        };
        let Doors { submissions, relay, letters } = lan.open().await?;

        let dialling = Dialling {
            identity: Arc::clone(&identity),
            node: config.hostname.clone(),
            directory: store.accounts.directory(),
            clock: clock.clone(),
            signal: dialling_signal,
        };
        let (edges, sessions) = Edges::start(config.edges.clone(), &dialling);
        let exchanges = Server {
            router: router.clone(),
            accounts: store.accounts.clone(),
            incoming: Arc::clone(&incoming),
            traces: watching.traces.clone(),
            clock: clock.clone(),
            signal: work_signal.clone(),
        };
        let fetcher = Fetcher {
            router: router.clone(),
            accounts: store.accounts.clone(),
            key: Arc::clone(&store.seal_key),
            state: config.state.clone().into(),
            incoming,
            clock: clock.clone(),
            signal: work_signal.clone(),
        };
        tokio::spawn(exchanges::serve_edges(sessions, exchanges, fetcher));

        let (bounces, returning) = mpsc::channel(BOUNCES_WAITING_MAX);
        let (resolver, servers) = (store.resolver.clone(), store.servers.clone());
        tokio::spawn(store.queue.clone().run(edges.connected(), bounces, resolver, servers, work_signal.clone()));
        tokio::spawn(exchanges::deliver_bounces(returning, router, work_signal.clone()));
        tokio::spawn(chores::maintain(Arc::clone(&store.promises), clock.clone(), work_signal));

        let state = config.state.clone();
        let desk = Arc::new(Desk {
            store,
            edges,
            traces: watching.traces.clone(),
            counts: Arc::clone(&watching.counts),
            started_unix_s: clock.unix_s(),
            clock,
            served,
            key: identity.key().to_string(),
            submissions,
            relay,
            letters,
            config,
        });
        shown::open_metrics(&desk, watching.signal()).await?;
        let control = tokio::spawn(async move {
            gatepost_runtime::control::serve(&state, control_signal, move |request| {
                control::answer(Arc::clone(&desk), request)
            })
            .await
        });
        Ok(Self { work, links, talk, control, watching, submissions })
    }

    /// Where submissions are taken.
    pub fn submissions(&self) -> Option<std::net::SocketAddr> {
        self.submissions
    }

    /// Takes nothing new, lets what runs finish for a while, then ends.
    pub async fn stop(self) {
        info!("draining: nothing new is taken, what runs may finish");
        self.work.drain();
        if timeout(DRAIN_MAX, self.work.idle()).await.is_err() {
            warn!("some work did not finish in time and is dropped; whoever brought it tries again");
        }
        self.work.end();
        self.links.drain();
        self.links.end();
        if timeout(DRAIN_MAX, self.links.idle()).await.is_err() {
            warn!("an edge did not let go of its session");
        }
        self.talk.end();
        if let Ok(Err(error)) = self.control.await {
            error!(%error, "the control socket failed");
        }
        info!("home ends");
        self.watching.end().await;
    }
}
