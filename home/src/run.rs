//! Builds the parts and wires them: the only file that knows them all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::listen::DoorLimits;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::{Shutdown, Signal};
use gatepost_runtime::{control, durable};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::accounts::Accounts;
use crate::accounts::addresses::Leads;
use crate::administration;
use crate::config::Config;
use crate::database::Database;
use crate::delivery::maildir::Maildirs;
use crate::edges::{Connected, Dialling, Edges};
use crate::queue::{self, Bounce, Queue};
use crate::router::ledger::Ledger;
use crate::router::promise::Promises;
use crate::router::spool::{self, Fetcher};
use crate::router::streams::Server;
use crate::router::{Arrival, Origin, Router};
use crate::submission::Submission;
use crate::unseal::SealKey;

/// Where the node's key lies inside the state directory.
const IDENTITY: &str = "keys/identity.pem";
/// What runs may finish in this time once we are told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Bounces waiting to be delivered; the queue waits beyond them.
const BOUNCES_WAITING_MAX: usize = 16;
/// How often deliveries that could not be finished are tried again.
const FINISH_EVERY: Duration = Duration::from_secs(30);
/// How many of these rounds pass between two prunings of the ledger.
const PRUNE_ROUNDS: u32 = 120;

/// Loads the node's key, or makes it on first start. Blocking.
pub fn identity(state: &Path) -> anyhow::Result<Identity> {
    durable::create_directory(&state.join("keys"))?;
    Ok(Identity::load_or_create(&state.join(IDENTITY))?)
}

/// The parts that hold what is stored.
#[derive(Debug)]
pub struct Store {
    /// The accounts.
    pub accounts: Accounts,
    /// The promises, over mailboxes, ledger and queue.
    pub promises: Arc<Promises>,
    /// The outbound queue.
    pub queue: Queue,
    /// What opens sealed mail.
    pub seal_key: Arc<SealKey>,
    _lock: durable::StateLock,
}

impl Store {
    /// Opens everything in the state directory, alone, and settles what the last stop left open. Blocking.
    pub fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        durable::create_directory(&config.state)?;
        let lock = durable::StateLock::take(&config.state)?;
        let seal_key = Arc::new(SealKey::load_or_create(&config.state)?);
        let database = Database::open(&config.state)?;
        let settings = config.accounts(seal_key.public().to_vec());
        let accounts = Accounts::open(database.clone(), settings, clock.clone())?;
        let (queue, set_aside) = Queue::open(&config.state, config.queue.clone(), config.routes.clone(), clock.clone())
            .context(
                "the queue can't be read, and nothing starts without it; nothing of it is lost: make the file readable \
                 (disk, permissions, open files), or move it away, and start again",
            )?;
        for file in set_aside {
            error!(
                file = file.name,
                why = file.why,
                "a file of the queue can't be used; it is set aside in queue/damaged"
            );
        }
        let maildirs = Maildirs::new(&config.state, &config.hostname, clock.clone());
        let promises = Promises::new(maildirs, Ledger::new(database), queue.clone(), clock.clone());
        let (finished, forgotten) = promises.settle_all()?;
        if finished + forgotten > 0 {
            info!(finished, forgotten, "settled what the last stop left open");
        }
        Ok(Self { accounts, promises: Arc::new(promises), queue, seal_key, _lock: lock })
    }

    /// Performs what the owner asks for. Blocking; an error is a text for people.
    pub fn administer(&self, request: administration::Request) -> Result<Value, String> {
        administration::perform(&self.accounts, self.promises.maildirs(), request)
    }
}

/// A running home.
#[derive(Debug)]
pub struct Home {
    work: Shutdown,
    links: Shutdown,
    talk: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    submissions: Option<std::net::SocketAddr>,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let home = Home::start(config, Clock::real()).await?;
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
    /// Opens state and doors; everything runs when this returns.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
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

        let (work, work_signal) = Shutdown::new();
        let (links, dialling_signal) = Shutdown::new();
        let (talk, control_signal) = Shutdown::new();
        let router =
            Router::new(config.hostname.clone(), store.accounts.clone(), Arc::clone(&store.promises), clock.clone());
        let submissions =
            open_submissions(&config, &store, &router, served.clone(), &incoming, &clock, &work_signal).await?;

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
            clock: clock.clone(),
            signal: work_signal.clone(),
        };
        let fetcher = Fetcher {
            router: router.clone(),
            accounts: store.accounts.clone(),
            key: Arc::clone(&store.seal_key),
            state: config.state.clone().into(),
            incoming,
            signal: work_signal.clone(),
        };
        tokio::spawn(serve_edges(sessions, exchanges, fetcher));

        let (bounces, returning) = mpsc::channel(BOUNCES_WAITING_MAX);
        let resolver = Resolver::new(&config.dns_servers)?;
        tokio::spawn(store.queue.clone().run(edges.connected(), bounces, resolver, work_signal.clone()));
        tokio::spawn(deliver_bounces(returning, router, work_signal.clone()));
        tokio::spawn(maintain(Arc::clone(&store.promises), clock, work_signal));

        let state = config.state.clone();
        let desk = Arc::new(Desk { store, edges, served, key: identity.key().to_string(), submissions, config });
        let control = tokio::spawn(async move {
            control::serve(&state, control_signal, move |request| answer(Arc::clone(&desk), request)).await
        });
        Ok(Self { work, links, talk, control, submissions })
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
    }
}

async fn open_submissions(
    config: &Config,
    store: &Store,
    router: &Router,
    served: Served,
    incoming: &Path,
    clock: &Clock,
    signal: &Signal,
) -> anyhow::Result<Option<std::net::SocketAddr>> {
    let Some(address) = config.submissions else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("can't listen for submissions at {address} ([listen] submissions; \"off\" turns it off)")
    })?;
    let address = listener.local_addr()?;
    let submission = Submission {
        hostname: config.hostname.clone(),
        limits: Limits { message_octets_max: config.message_octets_max, ..Limits::default() },
        door: DoorLimits {
            connections_max: config.submission_connections_max,
            connections_per_address_max: config.submission_connections_per_address_max,
        },
        accounts: store.accounts.clone(),
        router: router.clone(),
        served,
        incoming: incoming.into(),
        clock: clock.clone(),
    };
    info!(%address, "listening for submissions");
    tokio::spawn(Arc::new(submission).run(listener, signal.clone()));
    Ok(Some(address))
}

/// Each new session gets its server, and its spool is fetched.
async fn serve_edges(mut sessions: mpsc::Receiver<Connected>, server: Server, fetcher: Fetcher) {
    let mut signal = server.signal.clone();
    loop {
        let connected = tokio::select! {
            connected = sessions.recv() => connected,
            () = signal.draining() => return,
        };
        let Some(connected) = connected else { return };
        tokio::spawn(fetcher.clone().run(connected.edge.clone()));
        tokio::spawn(server.clone().serve(connected));
    }
}

/// Bounces come out of the queue and go in again like any other message.
async fn deliver_bounces(mut bounces: mpsc::Receiver<Bounce>, router: Router, signal: Signal) {
    while let Some(bounce) = bounces.recv().await {
        let arrival = Arrival {
            origin: Origin::Bounce { transfer: bounce.id },
            trace: bounce.trace,
            envelope: bounce.envelope,
            message: bounce.message,
            received_unix_s: bounce.made_unix_s,
        };
        // Who asked may have stopped; the same bounce comes again then.
        let _ = bounce.accepted.send(router.accept(arrival).await);
    }
    drop(signal);
}

/// Finishes what could not be finished at first; forgets old outcomes; clears old leftovers once.
async fn maintain(promises: Arc<Promises>, clock: Clock, mut signal: Signal) {
    let mut round = 0u32;
    loop {
        let (promises, now) = (Arc::clone(&promises), clock.unix_s());
        let chores = tokio::task::spawn_blocking(move || {
            if round == 0 {
                let swept = promises.maildirs().sweep();
                if swept > 0 {
                    info!(swept, "removed old leftovers from mailboxes' tmp/");
                }
            }
            promises.finish_unfinished();
            if round.is_multiple_of(PRUNE_ROUNDS)
                && let Err(error) = promises.ledger().prune(now)
            {
                warn!(%error, "old outcomes could not be forgotten");
            }
        });
        if let Err(error) = chores.await {
            error!(%error, "a chore failed; this is a bug");
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(FINISH_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

/// What the control socket answers from.
struct Desk {
    store: Arc<Store>,
    edges: Edges,
    served: Served,
    key: String,
    submissions: Option<std::net::SocketAddr>,
    config: Config,
}

async fn answer(desk: Arc<Desk>, mut request: Value) -> Result<Value, String> {
    if let Some(queue) = request.get_mut("queue") {
        return desk.store.queue.control(queue.take()).await;
    }
    if let Some(request) = request.get_mut(administration::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        let performed = tokio::task::spawn_blocking(move || desk.store.administer(request));
        return performed.await.map_err(|error| error.to_string())?;
    }
    match request.get("command").and_then(Value::as_str) {
        Some("status") => Ok(desk.status()),
        Some("spool-list") => Ok(desk.spool().await),
        _ => Err("the running home does not know this command; is it another version?".to_owned()),
    }
}

impl Desk {
    fn status(&self) -> Value {
        let domains: Vec<&str> =
            self.config.domains.iter().map(gatepost_protocol::mail::address::Domain::as_str).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": self.config.hostname,
            "key": self.key,
            "domains": domains,
            "accounts": self.store.accounts.book().accounts.len(),
            "directory_version": self.store.accounts.directory().borrow().version(),
            "submissions": self.submissions.map(|address| address.to_string()),
            "certificate_self_signed": self.served.is_self_signed(),
            "edges": self.edges.status(),
            "queue": {
                "messages": self.store.queue.waiting(),
                "damaged": files(&self.config.state.join(queue::DAMAGED)),
            },
            "damaged": files(&self.config.state.join(spool::DAMAGED)),
        })
    }

    async fn spool(&self) -> Value {
        let connected = self.edges.connected().borrow().clone();
        let mut edges = Vec::new();
        for settings in &self.config.edges {
            let listed = match connected.iter().find(|edge| edge.name == settings.name) {
                Some(edge) => spool::list(edge).await.map_err(|error| error.to_string()),
                None => Err("not connected".to_owned()),
            };
            edges.push(match listed {
                Ok(listing) => {
                    let entries = listing.entries.iter().map(|item| {
                        json!({
                            "transfer": item.transfer.to_string(),
                            "octets": item.octets,
                            "sealed": gatepost_runtime::clock::rfc3339(item.sealed_unix_s),
                        })
                    });
                    json!({
                        "edge": settings.name, "messages": listing.total, "octets": listing.total_octets,
                        "entries": entries.collect::<Vec<_>>(), "error": null,
                    })
                }
                Err(error) => json!({ "edge": settings.name, "error": error }),
            });
        }
        json!({ "edges": edges, "damaged": files(&self.config.state.join(spool::DAMAGED)) })
    }
}

/// What was set aside in a folder: the names, sorted.
fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
