//! The parts that outlive a signal to stop accepting, made from the config.

use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::resolver;

use super::chores;
use crate::config::{Config, HomeConfig};
use crate::handover::Handover;
use crate::homes::Homes;
use crate::journal::Journals;
use crate::pairing::{self, Pairing};
use crate::relay::Sender;
use crate::relay::attempts::Attempts;
use crate::session::Desk;
use crate::spool::{Spool, SpoolLimits};

/// The parts that outlive a signal to stop accepting.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) homes: Homes,
    pub(super) spool: Spool,
    pub(super) sender: Sender,
    pub(super) journals: Journals,
}

impl Parts {
    pub(super) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let names = || config.homes.iter().map(|home| home.name.as_str());
        let homes = Homes::open(&config.state, &config.homes)?;
        let limits = SpoolLimits {
            home_octets_max: config.limits.spool_octets_max,
            disk_reserve_octets: config.limits.disk_reserve_octets,
        };
        let spool = Spool::open(&config.state, names(), limits, clock.clone())?;
        let journals = Journals::open(&config.state, names())?;
        let attempts = Attempts::open(&config.state, names(), clock.clone())?;
        tokio::spawn(chores::sweep_daily(attempts.clone(), clock.clone()));
        let sender = Sender::new(
            config.hostname.clone(),
            resolver::Resolver::new(&config.dns_servers)?,
            attempts,
            clock.clone(),
            config.outbound_ipv6,
            homes.clone(),
            config.limits.relays_max,
        );
        Ok(Self { homes, spool, sender, journals })
    }

    /// From now on these are the homes: everything that is kept for each is opened before it is one. Blocking.
    pub(super) fn set_homes(&self, homes: &[HomeConfig]) -> anyhow::Result<()> {
        for home in homes {
            self.spool.add(&home.name)?;
            self.journals.add(&home.name)?;
            self.sender.add(&home.name)?;
        }
        Ok(self.homes.set(homes)?)
    }
}

/// What every mail session works with.
pub(super) fn desk(config: &Config, parts: &Parts, clock: &Clock) -> Desk {
    let handover = Handover::new(parts.spool.clone(), clock.clone(), config.limits.home_wait_max);
    let limits = Limits {
        message_octets_max: config.limits.message_octets_max,
        recipients_max: config.limits.recipients_max,
        ..Limits::default()
    };
    Desk::new(config.hostname.clone(), parts.homes.clone(), handover, clock.clone(), limits)
}

/// Pairing by code.
pub(super) fn pairing(config: &Config, parts: &Parts, identity: &Identity, clock: &Clock) -> Pairing {
    let applied = parts.clone();
    let parts = pairing::Parts {
        state: config.state.clone(),
        node: config.hostname.clone(),
        key: identity.key(),
        identity: config.state.join(super::IDENTITY),
        homes: parts.homes.clone(),
        spool: parts.spool.clone(),
        apply: Box::new(move |homes| applied.set_homes(homes).map_err(|error| format!("{error:#}"))),
        clock: clock.clone(),
    };
    Pairing::new(parts, &config.homes)
}
