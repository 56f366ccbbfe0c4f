//! The doors of the config: opened, shut and moved together, or not at all.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::listen::door::{self, Door};
use gatepost_runtime::listen::{BindError, DoorLimits, Places};
use gatepost_runtime::maildrop::Maildrop;
use gatepost_runtime::pace::Pace;
use gatepost_runtime::shutdown::Shutdown;
use thiserror::Error;
use tracing::info;

use crate::config::{Config, RelaySettings};
use crate::imap::Imap;
use crate::pickup::{Counter, Pickup};
use crate::submission::{Submission, Trust};

/// Which setting asks for a place that can't be had.
#[derive(Debug, Error)]
#[error("{source} ([listen] {setting}; \"off\" turns it off)")]
pub struct DoorError {
    setting: &'static str,
    source: BindError,
}

/// All doors, and what is behind them.
pub(super) struct Doors {
    /// 465: who logs in.
    submissions: SubmissionDoor,
    /// 25: devices of trusted networks.
    relay: SubmissionDoor,
    /// 993: who reads.
    imaps: Door,
    imaps_places: Places,
    imap: Imap,
    pace: Arc<Pace>,
    work: Arc<Shutdown>,
}

/// Where they really are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) submissions: Option<SocketAddr>,
    pub(super) relay: Option<SocketAddr>,
    pub(super) imaps: Option<SocketAddr>,
}

/// What is to become of each. Dropped, nothing has happened.
pub(super) struct Plan {
    submissions: door::Plan,
    relay: door::Plan,
    imaps: door::Plan,
}

/// A door that takes submissions.
struct SubmissionDoor {
    door: Door,
    places: Places,
    // What sessions to come work with; replaced as a whole.
    behind: Arc<ArcSwap<Submission>>,
}

impl Doors {
    /// Opens those of the config, and the drop for local programs. `behind` is what all of them have in common.
    pub(super) fn open_all(
        config: &Config,
        behind: Submission,
        imap: Imap,
        work: Arc<Shutdown>,
    ) -> anyhow::Result<(Self, Counter)> {
        let mut doors = Self::new(config, behind.clone(), imap, work);
        let plan = doors.plan(config)?;
        doors.carry_out(plan, config);
        let pickup = Pickup {
            drop: Maildrop::of(&config.state),
            router: behind.router,
            accounts: behind.accounts,
            pace: Arc::clone(&doors.pace),
            incoming: behind.incoming,
            clock: behind.clock,
        };
        let letters = pickup.start(doors.work.signal()).context("the drop for local programs")?;
        Ok((doors, letters))
    }

    /// All shut.
    fn new(config: &Config, behind: Submission, imap: Imap, work: Arc<Shutdown>) -> Self {
        let pace = Arc::new(Pace::new(config.trusted_recipients_per_hour_max));
        let trust = Some(trust(config.relay.as_ref(), &pace));
        Self {
            submissions: SubmissionDoor::new(behind.clone(), submissions_places(config)),
            relay: SubmissionDoor::new(Submission { trust, ..behind }, relay_places(config.relay.as_ref())),
            imaps: Door::default(),
            imaps_places: Places::new(imaps_places(config)),
            imap,
            pace,
            work,
        }
    }

    /// Opens what will be needed.
    pub(super) fn plan(&self, config: &Config) -> Result<Plan, DoorError> {
        let failed = |setting| move |source| DoorError { setting, source };
        let relay = config.relay.as_ref().map(|relay| relay.address);
        Ok(Plan {
            submissions: self.submissions.door.plan(config.submissions).map_err(failed("submissions"))?,
            relay: self.relay.door.plan(relay).map_err(failed("smtp"))?,
            imaps: self.imaps.plan(config.imaps).map_err(failed("imaps"))?,
        })
    }

    /// Makes it so, with the bounds of this config.
    pub(super) fn carry_out(&mut self, plan: Plan, config: &Config) {
        self.pace.set_max(config.trusted_recipients_per_hour_max);
        let limits = session_limits(config);
        let trust = Some(trust(config.relay.as_ref(), &self.pace));
        self.submissions.carry_out(plan.submissions, submissions_places(config), limits, None, &self.work);
        self.relay.carry_out(plan.relay, relay_places(config.relay.as_ref()), limits, trust, &self.work);
        self.imaps_places.set_limits(imaps_places(config));
        self.imap.set_open(config.imaps.is_some());
        let (imap, places, signal) = (self.imap.clone(), self.imaps_places.clone(), self.work.signal());
        self.imaps.carry_out(plan.imaps, |listening| imap.run(listening, places, signal));
        let Open { submissions, relay, imaps } = self.open();
        info!(?submissions, ?relay, ?imaps, "listening");
    }

    /// Where they are.
    pub(super) fn open(&self) -> Open {
        Open {
            submissions: self.submissions.door.address(),
            relay: self.relay.door.address(),
            imaps: self.imaps.address(),
        }
    }
}

impl SubmissionDoor {
    fn new(behind: Submission, places: DoorLimits) -> Self {
        Self { door: Door::default(), places: Places::new(places), behind: Arc::new(ArcSwap::from_pointee(behind)) }
    }

    fn carry_out(
        &mut self,
        plan: door::Plan,
        places: DoorLimits,
        limits: Limits,
        trust: Option<Trust>,
        work: &Shutdown,
    ) {
        self.places.set_limits(places);
        self.behind.store(Arc::new(Submission { limits, trust, ..Submission::clone(&self.behind.load()) }));
        let (behind, places, signal) = (Arc::clone(&self.behind), self.places.clone(), work.signal());
        self.door.carry_out(plan, |listening| Submission::run(behind, listening, places, signal));
    }
}

/// Bounds of one session.
pub(super) fn session_limits(config: &Config) -> Limits {
    Limits { message_octets_max: config.message_octets_max, ..Limits::default() }
}

fn submissions_places(config: &Config) -> DoorLimits {
    DoorLimits {
        connections_max: config.submission_connections_max,
        connections_per_address_max: config.submission_connections_per_address_max,
    }
}

fn imaps_places(config: &Config) -> DoorLimits {
    DoorLimits {
        connections_max: config.imap_connections_max,
        connections_per_address_max: config.imap_connections_per_address_max,
    }
}

/// None for a door that is shut.
fn relay_places(relay: Option<&RelaySettings>) -> DoorLimits {
    DoorLimits {
        connections_max: relay.map_or(0, |relay| relay.connections_max),
        connections_per_address_max: relay.map_or(0, |relay| relay.connections_per_address_max),
    }
}

/// Nobody is trusted at a door that is shut: its last connections may still be on their way in.
fn trust(relay: Option<&RelaySettings>, pace: &Arc<Pace>) -> Trust {
    let networks = relay.map(|relay| relay.networks.clone()).unwrap_or_default();
    Trust { networks, pace: Arc::clone(pace) }
}
