//! Builds the parts and wires them: only here are they all known.

mod alarms;
mod bans;
mod chores;
mod control;
pub mod doctor;
mod doors;
mod exchanges;
mod notices;
pub mod probe;
pub mod records;
mod reload;
pub mod reports;
mod shown;
mod spool;
mod store;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::acme::keeper::{self, Kept};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::changes::Change;
use gatepost_runtime::durable;
use gatepost_runtime::event::Events;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::program::{Signals, Told};
use gatepost_runtime::shutdown::{Shutdown, Signal};
use gatepost_runtime::steady;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::control::Desk;
use self::doors::Doors;
use self::notices::Notices;
pub use self::reload::ReloadError;
use self::reload::Reloader;
pub use self::store::Store;
use self::watching::Watching;
use crate::accounts::addresses::Leads;
use crate::config::Config;
use crate::edges::{Dialling, Edges};
use crate::router::spool::rounds::Nudges;
use crate::router::spool::{Fetcher, Turns};
use crate::router::streams::Server;
use crate::submission::Submission;

/// Where the node's key lies inside the state directory.
pub const IDENTITY: &str = "keys/identity.pem";
/// What runs may finish in this time once we are told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Then sessions with edges may take this long to say goodbye.
const LINKS_MAX: Duration = Duration::from_secs(5);
/// Bounces waiting to be delivered; the queue waits beyond them.
const BOUNCES_WAITING_MAX: usize = 16;
/// Loads the node's key, or makes it on first start. Blocking.
pub fn identity(state: &Path) -> anyhow::Result<Identity> {
    durable::create_directory(&state.join("keys"))?;
    Ok(Identity::load_or_create(&state.join(IDENTITY))?)
}

/// A running home.
pub struct Home {
    work: Arc<Shutdown>,
    links: Arc<Shutdown>,
    talk: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    watching: Watching,
    reloader: Arc<Reloader>,
    told: mpsc::Receiver<()>,
}

/// Serves until SIGTERM, SIGINT or `drain`, then drains; told so again, it ends at once. SIGHUP takes a changed config.
pub async fn run(config: Config, events: Option<Events>) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut home = Home::start(config, events, Clock::real()).await?;
    loop {
        let told = tokio::select! {
            told = signals.next() => told,
            _ = home.told.recv() => Told::End,
        };
        match told {
            Told::End => break,
            Told::Reload => {
                let reloader = Arc::clone(&home.reloader);
                // It logs what became of it.
                tokio::spawn(async move { reloader.reload().await.is_ok() });
            }
        }
    }
    tokio::select! {
        () = home.stop() => {}
        () = signals.end() => warn!("told to end again: what runs is dropped, nothing that was acknowledged is lost"),
    }
    Ok(())
}

impl Home {
    /// Opens state and doors; everything runs when this returns. `events` are what the program says of itself,
    /// kept for `trace`.
    pub async fn start(config: Config, events: Option<Events>, clock: Clock) -> anyhow::Result<Self> {
        let (store, config, clock) = open_store(config, &clock).await?;
        let identity = Arc::new(identity(&config.state)?);
        let incoming: Arc<Path> = config.state.join("incoming").into();
        info!(key = %identity.key(), hostname = config.hostname, state = %config.state.display(), "home starts");

        let watching = Watching::start(&config, events, &clock)?;
        let (work, work_signal) = Shutdown::new();
        let (work, links) = (Arc::new(work), Arc::new(Shutdown::new().0));
        let Kept { served, challenges, standing: acme, want, .. } =
            keeper::start(config.certificate(), store.resolver.clone(), clock.clone(), work_signal.clone())?;
        let router = store.router(&config.hostname, &clock);
        let submission = Submission {
            hostname: config.hostname.clone(),
            limits: doors::session_limits(&config),
            accounts: store.accounts.clone(),
            router: router.clone(),
            served: served.clone(),
            trust: None,
            incoming: Arc::clone(&incoming),
            clock: clock.clone(),
        };
        let imap = store.imap(&config, &served, &clock);
        let (doors, letters) = Doors::open_all(&config, submission, imap.clone(), Arc::clone(&work))?;

        let dialling = Dialling {
            identity: Arc::clone(&identity),
            node: config.hostname.clone(),
            directory: store.accounts.directory(),
            clock: clock.clone(),
            links: Arc::clone(&links),
        };
        let (edges, sessions) = Edges::start(&config.edges, dialling);
        let exchanges = Server {
            imap,
            challenges,
            edges: edges.clone(),
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
            turns: Turns::default(),
            nudges: Nudges::default(),
            work: Arc::clone(&work),
        };
        tokio::spawn(exchanges::serve_edges(sessions, exchanges, fetcher.clone()));

        let (bounces, returning) = mpsc::channel(BOUNCES_WAITING_MAX);
        let alarms = alarms::start(&config, &store, &edges, acme.clone(), &clock, &work_signal);
        let (resolver, servers) = (store.resolver.clone(), store.servers.clone());
        tokio::spawn(store.queue.clone().run(edges.connected(), bounces, resolver, servers, work_signal.clone()));
        Notices::of(&config, &store, &router, &edges, &acme, &clock).start(&work_signal);
        exchanges::serve_ourselves(&store, returning, &router, &work_signal);
        chores::start(&store, &clock, &work_signal);
        tokio::spawn(steady::go_on(config.state.as_path().into(), clock.clone(), work_signal));

        let (state, hostname, prometheus) = (config.state.clone(), config.hostname.clone(), config.metrics);
        let parts = reload::Parts {
            store: Arc::clone(&store),
            edges: edges.clone(),
            traces: watching.traces.clone(),
            served: served.clone(),
            want,
            alarms,
        };
        let reloader = Arc::new(Reloader::new(parts, config, doors));
        let (talk, control_signal) = Shutdown::new();
        let (drain, told) = mpsc::channel(1);
        let desk = Arc::new(Desk {
            store,
            router,
            edges,
            traces: watching.traces.clone(),
            counts: Arc::clone(&watching.counts),
            started_unix_s: clock.unix_s(),
            clock,
            served,
            acme,
            key: identity.key().to_string(),
            letters,
            fetcher,
            hostname,
            state: state.clone(),
            reloader: Arc::clone(&reloader),
            drain,
        });
        shown::open_metrics(&desk, prometheus, watching.signal()).await?;
        let control = tokio::spawn(answer_commands(desk, state, control_signal));
        Ok(Self { work, links, talk, control, watching, reloader, told })
    }

    /// Where submissions are taken.
    pub async fn submissions(&self) -> Option<std::net::SocketAddr> {
        self.reloader.open().await.submissions
    }

    /// Where mail is read.
    pub async fn imaps(&self) -> Option<std::net::SocketAddr> {
        self.reloader.open().await.imaps
    }

    /// Takes the config file as it is now; tells what is different. A bad one changes nothing.
    pub async fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        self.reloader.reload().await
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
        if timeout(LINKS_MAX, self.links.idle()).await.is_err() {
            warn!("an edge did not let go of its session");
        }
        self.reloader.store().reporting.write_down().await;
        self.talk.end();
        if let Ok(Err(error)) = self.control.await {
            error!(%error, "the control socket failed");
        }
        info!("home ends");
        self.watching.end().await;
    }
}

async fn answer_commands(desk: Arc<Desk>, state: PathBuf, signal: Signal) -> std::io::Result<()> {
    let answer = move |request| control::answer(Arc::clone(&desk), request);
    gatepost_runtime::control::serve(&state, signal, answer).await
}

/// Off the async threads: a long queue takes its time.
async fn open_store(config: Config, clock: &Clock) -> anyhow::Result<(Arc<Store>, Config, Clock)> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let clock = clock.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let clock = steady::resume(&config.state, &clock);
        durable::create_directory(&config.state.join("incoming"))?;
        Store::open(&config, &clock).map(|store| (store, config, clock))
    });
    let (store, config, clock) = opening.await??;
    if store.accounts.lead(&config.postmaster) == Leads::Nowhere {
        warn!(postmaster = %config.postmaster, "the postmaster has no account yet; make it, or nobody reads its mail");
    }
    Ok((Arc::new(store), config, clock))
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Home")
    }
}
