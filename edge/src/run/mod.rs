//! Builds the parts and wires them: only here are they all known.

mod chores;
mod control;
mod doors;
mod parts;
mod requests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable;
use gatepost_runtime::event::Events;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::shutdown::Shutdown;
use gatepost_runtime::tunnel::TunnelError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::parts::Parts;
use crate::config::Config;
use crate::homes::link;
use crate::journal;
use crate::listeners::mail::SessionCount;
use crate::relay::Sender;
use crate::status::Status;

/// Name of the key file in the state directory.
pub const IDENTITY: &str = "identity.pem";
/// What runs may finish in this time once we are told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// What was said last may be written down in this time.
const KEEP_MAX: Duration = Duration::from_secs(5);
/// Requests of homes waiting to be taken up; a home's next one waits beyond them.
const ASKED_WAITING_MAX: usize = 32;

/// Loads the node's key, or makes it on first start. Blocking.
pub fn identity(state: &Path) -> anyhow::Result<Identity> {
    durable::create_directory(state)?;
    Ok(Identity::load_or_create(&state.join(IDENTITY))?)
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    status: Arc<Status>,
    sender: Sender,
    shutdown: Shutdown,
    control_shutdown: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    gate: JoinHandle<()>,
    journal: JoinHandle<()>,
    journal_shutdown: Shutdown,
    _lock: durable::StateLock,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config, events: Option<Events>) -> anyhow::Result<()> {
    let edge = Edge::start(config, events, &Clock::real())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    edge.stop().await;
    Ok(())
}

impl Edge {
    /// Opens state and doors; everything runs when this returns. `events` are what the program says of itself,
    /// kept for its homes. To be called inside the runtime.
    pub fn start(config: Config, events: Option<Events>, clock: &Clock) -> anyhow::Result<Self> {
        durable::create_directory(&config.state)?;
        let lock = durable::StateLock::take(&config.state)?;
        let identity = Arc::new(identity(&config.state)?);
        let certificate = Served::new(config.certificate.as_ref(), config.hostname.as_str())?;
        let parts = Parts::open(&config, clock)?;
        for warning in &config.warnings {
            warn!("{warning}");
        }
        info!(key = %identity.key(), hostname = %config.hostname, state = %config.state.display(), "edge starts");

        let (journal_shutdown, journal_signal) = Shutdown::new();
        let journals = parts.journals.clone();
        let keeping = clock.clone();
        let journal = tokio::spawn(async move {
            if let Some(events) = events {
                journal::keep(events, journals, keeping, journal_signal).await;
            }
        });
        let (shutdown, draining) = Shutdown::new();
        let (asked, requests) = mpsc::channel(ASKED_WAITING_MAX);
        let node = config.hostname.as_str();
        let (acceptor, gate) =
            link::gate(&parts.homes, identity.clone(), node, asked, parts.journals.clone(), clock.clone());
        let pairing = parts::pairing(&config, &parts, &identity, clock);
        let visit = pairing.clone();
        let acceptor = acceptor.with_pairing(Arc::new(move |visitor| visit.serve(visitor)));
        let gate = tokio::spawn(gate);

        let counts = [SessionCount::default(), SessionCount::default()];
        let desk = Arc::new(parts::desk(&config, &parts, clock));
        let doors = doors::open(&config, acceptor, &desk, &certificate, &counts, &draining)?;
        if let Some(address) = doors.smtp {
            parts.sender.own_door(address);
        }

        let [smtp, submissions] = counts;
        let (spool, sender) = (parts.spool.clone(), parts.sender.clone());
        let status = Arc::new(Status {
            hostname: config.hostname,
            key: identity.key(),
            self_signed: certificate.is_self_signed(),
            doors,
            homes: parts.homes,
            spool: parts.spool,
            smtp,
            submissions,
            journals: parts.journals,
            started_unix_s: clock.unix_s(),
            draining: AtomicBool::new(false),
            clock: clock.clone(),
        });
        tokio::spawn(requests::serve_homes(requests, spool, sender, status.clone(), draining));
        // Answers while the rest drains.
        let (control_shutdown, control_signal) = Shutdown::new();
        let shown = status.clone();
        let control = tokio::spawn(async move {
            gatepost_runtime::control::serve(&config.state, control_signal, move |request| {
                control::answer(shown.clone(), pairing.clone(), request)
            })
            .await
        });
        Ok(Self {
            status,
            sender: parts.sender,
            shutdown,
            control_shutdown,
            control,
            gate,
            journal,
            journal_shutdown,
            _lock: lock,
        })
    }

    /// What it is doing.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Takes no new mail, lets what runs finish for a while, then ends.
    pub async fn stop(self) {
        info!("draining: no new mail is taken, what runs may finish");
        self.status.draining.store(true, Ordering::Relaxed);
        self.shutdown.drain();
        if timeout(DRAIN_MAX, self.shutdown.idle()).await.is_err() {
            warn!("some sessions did not finish in time and are dropped; their clients try again");
        }
        self.sender.close().await;
        self.shutdown.end();
        self.control_shutdown.end();
        self.gate.abort();
        for home in self.status.homes.all() {
            if let Some(session) = home.session() {
                session.close(TunnelError::Closed);
            }
        }
        if let Ok(Err(error)) = self.control.await {
            error!(%error, "the control socket failed");
        }
        info!("edge ends");
        // The last words are kept, too; a disk that hangs does not hold the program.
        self.journal_shutdown.end();
        let _ = timeout(KEEP_MAX, self.journal).await;
    }
}
