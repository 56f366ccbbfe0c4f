//! Builds the parts and wires them: the only file that knows them all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::listen::DoorLimits;
use gatepost_runtime::shutdown::{Shutdown, Signal};
use gatepost_runtime::tunnel::TunnelError;
use gatepost_runtime::{control, durable, resolver};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::handover::Handover;
use crate::homes::{Ask, Asked, Homes, link};
use crate::listeners::mail::SessionCount;
use crate::listeners::{self, mail};
use crate::relay::Sender;
use crate::relay::attempts::Attempts;
use crate::session::{Desk, Door};
use crate::spool::{Spool, SpoolLimits};
use crate::status::{Doors, Status};

/// Name of the key file in the state directory.
pub const IDENTITY: &str = "identity.pem";
/// What runs may finish in this time once we are told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Time between looks for attempts nobody asks for any more.
const SWEEP_EVERY: Duration = Duration::from_hours(24);
/// Requests of homes waiting to be taken up; a home's next one waits beyond them.
const ASKED_WAITING_MAX: usize = 32;

/// Loads the node's key, or makes it on first start. Blocking.
pub fn identity(state: &Path) -> anyhow::Result<Identity> {
    durable::create_directory(state)?;
    Ok(Identity::load_or_create(&state.join(IDENTITY))?)
}

/// The parts that outlive a signal to stop accepting.
struct Parts {
    homes: Homes,
    spool: Spool,
    sender: Sender,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    status: Arc<Status>,
    shutdown: Shutdown,
    control_shutdown: Shutdown,
    control: JoinHandle<std::io::Result<()>>,
    gate: JoinHandle<()>,
    _lock: durable::StateLock,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let edge = Edge::start(config, &Clock::real())?;
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
    /// Opens state and doors; everything runs when this returns. To be called inside the runtime.
    pub fn start(config: Config, clock: &Clock) -> anyhow::Result<Self> {
        durable::create_directory(&config.state)?;
        let lock = durable::StateLock::take(&config.state)?;
        let identity = Arc::new(identity(&config.state)?);
        let certificate = Served::new(config.certificate.as_ref(), config.hostname.as_str())?;
        let parts = Parts::open(&config, clock)?;
        info!(key = %identity.key(), hostname = %config.hostname, state = %config.state.display(), "edge starts");

        let (shutdown, draining) = Shutdown::new();
        let (asked, requests) = mpsc::channel(ASKED_WAITING_MAX);
        let node = config.hostname.as_str();
        let (acceptor, gate) = link::gate(&parts.homes, identity.clone(), node, asked, clock.clone());
        let gate = tokio::spawn(gate);
        tokio::spawn(serve_homes(requests, parts.spool.clone(), parts.sender.clone(), draining.clone()));

        let mut doors = Doors::default();
        if let Some(address) = config.doors.tunnel {
            let (listener, address) = listeners::open(address)?;
            doors.tunnel = Some(address);
            tokio::spawn(listeners::tunnel::serve(listener, acceptor, draining.clone()));
        }
        let counts = [SessionCount::default(), SessionCount::default()];
        let desk = Arc::new(desk(&config, &parts, clock));
        let limits = DoorLimits {
            connections_max: config.limits.connections_max,
            connections_per_address_max: config.limits.connections_per_address_max,
        };
        for (door, address, open, count) in [
            (Door::Smtp, config.doors.smtp, &mut doors.smtp, &counts[0]),
            (Door::Submissions, config.doors.submissions, &mut doors.submissions, &counts[1]),
        ] {
            let Some(address) = address else { continue };
            let (listener, address) = listeners::open(address)?;
            *open = Some(address);
            if door == Door::Smtp {
                parts.sender.own_door(address);
            }
            let (desk, certificate, count) = (desk.clone(), certificate.clone(), count.clone());
            tokio::spawn(mail::serve(door, listener, limits, desk, certificate, count, draining.clone()));
        }
        info!(smtp = ?doors.smtp, submissions = ?doors.submissions, tunnel = ?doors.tunnel, "listening");

        let [smtp, submissions] = counts;
        let status = Arc::new(Status {
            hostname: config.hostname,
            key: identity.key(),
            self_signed: certificate.is_self_signed(),
            doors,
            homes: parts.homes,
            spool: parts.spool,
            smtp,
            submissions,
        });
        // Answers while the rest drains.
        let (control_shutdown, control_signal) = Shutdown::new();
        let shown = status.clone();
        let control = tokio::spawn(async move {
            control::serve(&config.state, control_signal, move |request| std::future::ready(answer(&shown, &request)))
                .await
        });
        Ok(Self { status, shutdown, control_shutdown, control, gate, _lock: lock })
    }

    /// What it is doing.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Takes no new mail, lets what runs finish for a while, then ends.
    pub async fn stop(self) {
        info!("draining: no new mail is taken, what runs may finish");
        self.shutdown.drain();
        if timeout(DRAIN_MAX, self.shutdown.idle()).await.is_err() {
            warn!("some sessions did not finish in time and are dropped; their clients try again");
        }
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
    }
}

fn desk(config: &Config, parts: &Parts, clock: &Clock) -> Desk {
    let handover = Handover::new(parts.spool.clone(), clock.clone(), config.limits.home_wait_max);
    let limits = Limits {
        message_octets_max: config.limits.message_octets_max,
        recipients_max: config.limits.recipients_max,
        ..Limits::default()
    };
    Desk::new(config.hostname.clone(), parts.homes.clone(), handover, clock.clone(), limits)
}

impl Parts {
    fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let names = || config.homes.iter().map(|home| home.name.as_str());
        let homes = Homes::open(&config.state, &config.homes)?;
        let limits = SpoolLimits {
            home_octets_max: config.limits.spool_octets_max,
            disk_reserve_octets: config.limits.disk_reserve_octets,
        };
        let spool = Spool::open(&config.state, names(), limits, clock.clone())?;
        let attempts = Attempts::open(&config.state, names())?;
        tokio::spawn(sweep_daily(attempts.clone(), clock.clone()));
        let sender = Sender::new(
            config.hostname.clone(),
            resolver::Resolver::new(&config.dns_servers)?,
            attempts,
            clock.clone(),
            config.outbound_ipv6,
            homes.clone(),
            config.limits.relays_max,
        );
        Ok(Self { homes, spool, sender })
    }
}

/// Forgets attempts no home will ask for any more, at start and every day.
async fn sweep_daily(attempts: Attempts, clock: Clock) {
    loop {
        let (swept, unix) = (attempts.clone(), clock.unix());
        let forgotten = tokio::task::spawn_blocking(move || swept.sweep(unix)).await.unwrap_or(0);
        if forgotten > 0 {
            info!(forgotten, "forgot attempts no home has asked for in a month");
        }
        clock.sleep(SWEEP_EVERY).await;
    }
}

/// Gives each request of a home to the part that serves it. The tasks hold the signal, so that a
/// drain waits for mail that is on its way out.
async fn serve_homes(mut requests: mpsc::Receiver<Asked>, spool: Spool, sender: Sender, mut signal: Signal) {
    loop {
        let asked = tokio::select! {
            asked = requests.recv() => asked,
            () = signal.draining() => return,
        };
        let Some(Asked { home, what, stream }) = asked else { return };
        let (spool, sender, held) = (spool.clone(), sender.clone(), signal.clone());
        tokio::spawn(async move {
            match what {
                Ask::Relay(relay) => sender.relay(home, *relay, stream).await,
                Ask::Attempt(request) => sender.attempt(home, request, stream).await,
                Ask::Spool(request) => crate::spool::serve::serve(spool, home.name().to_owned(), request, stream).await,
            }
            drop(held);
        });
    }
}

fn answer(status: &Status, request: &serde_json::Value) -> Result<serde_json::Value, String> {
    match request.get("command").and_then(serde_json::Value::as_str) {
        Some("status") => Ok(status.json()),
        Some("spool-list") => Ok(status.spool_json()),
        _ => Err("the running edge does not know this command; is it another version?".into()),
    }
}
