//! Builds the parts and wires them: only here are they all known.

mod chores;
mod control;
mod doors;
mod parts;
mod reload;
mod requests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use gatepost_runtime::acme::keeper::{self, Kept};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::changes::Change;
use gatepost_runtime::durable;
use gatepost_runtime::event::Events;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::program::{Signals, Told};
use gatepost_runtime::shutdown::Shutdown;
use gatepost_runtime::steady;
use gatepost_runtime::tunnel::TunnelError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use self::doors::{Behind, Doors, When};
use self::parts::Parts;
pub use self::reload::ReloadError;
use self::reload::Reloader;
use crate::config::Config;
use crate::examination::Examiner;
use crate::homes::link;
use crate::journal;
use crate::listeners::mail::SessionCount;
use crate::relay::Sender;
use crate::splice::Splicer;
use crate::status::Status;
use crate::web::{self, Site};

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
pub struct Edge {
    status: Arc<Status>,
    sender: Sender,
    reloader: Arc<Reloader>,
    work: Arc<Shutdown>,
    talk: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    gate: JoinHandle<()>,
    journal: JoinHandle<()>,
    journal_shutdown: Shutdown,
    _lock: durable::StateLock,
}

/// Serves until SIGTERM or SIGINT, then drains; told so again, it ends at once. SIGHUP takes a changed config.
pub async fn run(config: Config, events: Option<Events>) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let edge = Edge::start(config, events, &Clock::real())?;
    while signals.next().await == Told::Reload {
        let reloader = edge.reloader.clone();
        // It logs what became of it.
        tokio::spawn(async move { reloader.reload().await.is_ok() });
    }
    tokio::select! {
        () = edge.stop() => {}
        () = signals.end() => warn!("told to end again: what runs is dropped, nothing that was acknowledged is lost"),
    }
    Ok(())
}

impl Edge {
    /// Opens state and doors; everything runs when this returns. `events` are what the program says of itself,
    /// kept for its homes. To be called inside the runtime.
    pub fn start(config: Config, events: Option<Events>, clock: &Clock) -> anyhow::Result<Self> {
        durable::create_directory(&config.state)?;
        let lock = durable::StateLock::take(&config.state)?;
        let clock = &steady::resume(&config.state, clock);
        let identity = Arc::new(identity(&config.state)?);
        let parts = Arc::new(Parts::open(&config, clock)?);
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
        let (work, draining) = Shutdown::new();
        let work = Arc::new(work);
        let (asked, requests) = mpsc::channel(ASKED_WAITING_MAX);
        let node = config.hostname.as_str();
        let (acceptor, gate) =
            link::gate(&parts.homes, identity.clone(), node, asked, parts.journals.clone(), clock.clone());
        let pairing = parts::pairing(&config, &parts, &identity, clock);
        let visit = pairing.clone();
        let acceptor = acceptor.with_pairing(Arc::new(move |visitor| visit.serve(visitor)));
        let gate = tokio::spawn(gate);

        let Kept { served: certificate, challenges, standing: acme, want, names, rollover } =
            keeper::start(config.certificate(), parts.resolver.clone(), clock.clone(), draining.clone())?;
        let behind = Behind {
            site: Site::new(challenges.clone(), parts.homes.clone(), &config.limits, clock.clone()),
            desks: parts.desks.clone(),
            certificate: certificate.clone(),
            acceptor: Arc::new(acceptor),
            smtp_count: SessionCount::default(),
            submissions_count: SessionCount::default(),
            splicer: Splicer::new(parts.homes.clone(), parts.bans.clone(), clock.clone()),
            imaps_count: SessionCount::default(),
            work: work.clone(),
        };
        let (smtp, submissions) = (behind.smtp_count.clone(), behind.submissions_count.clone());
        let imaps = behind.imaps_count.clone();
        let mut doors = Doors::new(&config.limits, behind);
        let plan = doors.plan(&config.doors, When::AtStart)?;
        let open = doors.carry_out(plan, &config.limits);
        parts.local.start(work.signal()).context("the drop for local programs")?;
        let sender = parts.sender.clone();
        sender.own_doors(open.smtp, open.submissions);

        let names_stand = names.standings().clone();
        parts.watch(acme.clone(), names_stand.clone(), draining.clone());
        tokio::spawn(web::names::follow(parts.homes.clone(), names));
        tokio::spawn(steady::go_on(config.state.as_path().into(), clock.clone(), draining.clone()));
        let status = Arc::new(Status {
            hostname: config.hostname.clone(),
            key: identity.key(),
            certificate: certificate.clone(),
            acme,
            names: names_stand,
            rollover,
            doors: Mutex::new(open),
            homes: parts.homes.clone(),
            spool: parts.spool.clone(),
            smtp,
            submissions,
            imaps,
            validator: parts.validator.clone(),
            journals: parts.journals.clone(),
            bans: parts.bans.clone(),
            admission: parts.admission.clone(),
            started_unix_s: clock.unix_s(),
            draining: AtomicBool::new(false),
            clock: clock.clone(),
        });
        let (spool, relaying) = (parts.spool.clone(), parts.sender.clone());
        let examiner = Examiner::new(status.clone(), parts.resolver.clone());
        let desk = requests::Desk { status: status.clone(), examiner, challenges };
        tokio::spawn(requests::serve_homes(requests, spool, relaying, desk, draining));
        let state = config.state.clone();
        let reloader =
            Arc::new(Reloader::new(parts, pairing.clone(), (certificate, want), status.clone(), config, doors));
        tokio::spawn(reloader.clone().open_doors(clock.clone(), work.signal()));
        // Answers while the rest drains.
        let (talk, control_signal) = Shutdown::new();
        let desk = Arc::new(control::Desk { status: status.clone(), pairing, reloader: reloader.clone() });
        let control = tokio::spawn(async move {
            let answer = move |request| control::answer(desk.clone(), request);
            gatepost_runtime::control::serve(&state, control_signal, answer).await
        });
        Ok(Self { status, sender, reloader, work, talk, control, gate, journal, journal_shutdown, _lock: lock })
    }

    /// What it is doing.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Takes the config file as it is now; tells what is different. A bad one changes nothing.
    pub async fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        self.reloader.reload().await
    }

    /// Takes no new mail, lets what runs finish for a while, then ends.
    pub async fn stop(self) {
        info!("draining: no new mail is taken, what runs may finish");
        self.status.draining.store(true, Ordering::Relaxed);
        self.work.drain();
        if timeout(DRAIN_MAX, self.work.idle()).await.is_err() {
            warn!("some sessions did not finish in time and are dropped; their clients try again");
        }
        self.sender.close().await;
        self.work.end();
        self.talk.end();
        self.gate.abort();
        let homes = self.status.homes.clone();
        for home in homes.all() {
            if let Some(session) = home.session() {
                session.close(TunnelError::Closed);
            }
        }
        let (bans, admission) = (self.status.bans.clone(), self.status.admission.clone());
        let sender = self.sender.clone();
        let last_words = move || {
            homes.keep_presence(true);
            bans.keep_or_say();
            admission.keep();
            sender.keep();
        };
        if tokio::task::spawn_blocking(last_words).await.is_err() {
            error!("noting which homes are away, and who is banned, failed; this is a bug");
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

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("status", &self.status).finish_non_exhaustive()
    }
}
