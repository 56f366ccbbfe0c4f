//! The parts that outlive a signal to stop accepting: made from the config, and given each later one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::acme::names::NameStandings;
use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::alarm::Alarms;
use gatepost_runtime::authentication::Authenticator;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::dnssec::Validator;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::maildrop::Maildrop;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;

use super::chores;
use crate::admission::Admission;
use crate::alarm::{self, Postman};
use crate::bans::Bans;
use crate::config::paired::PairedFile;
use crate::config::{Config, EdgeLimits, HomeConfig, Origin};
use crate::handover::{Handover, Patience};
use crate::homes::Homes;
use crate::journal::Journals;
use crate::listeners::mail::Desks;
use crate::local::Local;
use crate::pairing::{self, Pairing};
use crate::relay::Sender;
use crate::relay::attempts::Attempts;
use crate::relay::policies::Policies;
use crate::session::Desk;
use crate::session::judging::Judging;
use crate::spool::{Spool, SpoolLimits};

/// The parts.
pub(super) struct Parts {
    pub(super) homes: Homes,
    pub(super) spool: Spool,
    pub(super) sender: Sender,
    pub(super) journals: Journals,
    pub(super) bans: Bans,
    pub(super) admission: Admission,
    pub(super) desks: Desks,
    alarms: Alarms,
    postman: Arc<Postman>,
    pub(super) local: Local,
    pub(super) resolver: Resolver,
    pub(super) validator: Validator,
    clock: Clock,
}

impl Parts {
    /// Opens everything. To be called inside the runtime.
    pub(super) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let homes = Homes::open(&config.state, &config.homes, clock.clone())?;
        let spool = Spool::open(&config.state, names(config), spool_limits(&config.limits), clock.clone())?;
        let journals = Journals::open(&config.state, names(config))?;
        let attempts = Attempts::open(&config.state, names(config), clock.clone())?;
        tokio::spawn(chores::sweep_daily(attempts.clone(), clock.clone()));
        tokio::spawn(chores::note_absence(homes.clone(), clock.clone()));
        let resolver = Resolver::new(&config.dns_servers);
        let validator = Validator::new(resolver.clone(), config.dns_anchors.clone(), clock.clone());
        let policies = Policies::open(&config.state, resolver.clone(), clock.clone());
        let sender = Sender::new(
            config.hostname.clone(),
            (resolver.clone(), validator.clone(), policies),
            attempts,
            clock.clone(),
            config.outbound_ipv6,
            homes.clone(),
            config.limits.relays_max,
        );
        let (alarms, letters) =
            Alarms::new("gatepost-edge", config.hostname.as_str(), config.alarm.clone(), clock.clone());
        let postman = Postman {
            hostname: config.hostname.clone(),
            resolver: resolver.clone(),
            ipv6: AtomicBool::new(config.outbound_ipv6),
            clock: clock.clone(),
        };
        let postman = Arc::new(postman);
        tokio::spawn(postman.clone().serve(letters));
        let local = Local::new(
            Maildrop::of(&config.state),
            (homes.clone(), spool.clone()),
            config.hostname.to_string(),
            config.local_mail.clone(),
            local_messages(&config.limits),
            clock.clone(),
        );
        let handover = handover(&spool, clock, &config.limits);
        let limits = session_limits(&config.limits);
        let bans = Bans::open(&config.state, homes.clone(), config.bans.clone(), clock.clone());
        let admission =
            Admission::open(&config.state, resolver.clone(), config.admission.clone(), &config.limits, clock.clone());
        let authenticator = Authenticator::new(resolver.clone());
        let judging = Judging::new(authenticator, config.hostname.to_string(), clock.clone());
        let name = config.hostname.clone();
        let others = (bans.clone(), admission.clone(), journals.clone());
        let desk = Desk::new(name, homes.clone(), handover, judging, others, clock.clone(), limits);
        let desks = Arc::new(ArcSwap::from_pointee(desk));
        Ok(Self {
            homes,
            spool,
            sender,
            journals,
            bans,
            admission,
            desks,
            local,
            alarms,
            postman,
            resolver,
            validator,
            clock: clock.clone(),
        })
    }

    /// Looks for what the owner should be told by another road, and writes down who is banned, until draining begins.
    pub(super) fn watch(&self, certificate: Standing, names: NameStandings, signal: Signal) {
        let (alarms, clock) = (self.alarms.clone(), self.clock.clone());
        tokio::spawn(self.bans.clone().keep_up(signal.clone()));
        tokio::spawn(self.admission.clone().keep_up(signal.clone()));
        tokio::spawn(self.sender.clone().keep_up(signal.clone()));
        tokio::spawn(alarm::watch(self.homes.clone(), self.spool.clone(), certificate, names, alarms, clock, signal));
    }

    /// From now on these are the homes: everything that is kept for each is opened before it is one. If this fails, who is a
    /// home has not changed. Blocking.
    pub(super) fn set_homes(&self, homes: &[HomeConfig]) -> anyhow::Result<()> {
        for home in homes {
            self.spool.add(&home.name)?;
            self.journals.add(&home.name)?;
            self.sender.add(&home.name)?;
        }
        Ok(self.homes.set(homes)?)
    }

    /// From now on this is the config: each part takes it whole, for what it begins next. If this fails, nothing has
    /// changed. Blocking.
    pub(super) fn reload(&self, pairing: &Pairing, old: &Config, new: &Config) -> anyhow::Result<()> {
        // Servers that stay keep the answers they gave.
        let changed = old.dns_servers != new.dns_servers;
        let resolver = if changed { Some(Resolver::new(&new.dns_servers)) } else { None };
        let apply = || self.set_homes(&new.homes).map_err(|error| format!("{error:#}"));
        pairing.reload(&new.homes, || check_paired(new).and_then(|()| apply())).map_err(anyhow::Error::msg)?;
        // Nothing fails from here on.
        if let Some(resolver) = resolver {
            self.resolver.follow(&resolver);
        }
        self.validator.reload(new.dns_anchors.clone());
        self.bans.reload(new.bans.clone());
        self.admission.reload(new.admission.clone(), &new.limits);
        self.spool.reload(spool_limits(&new.limits));
        self.sender.reload(new.outbound_ipv6, new.limits.relays_max);
        self.alarms.reload(new.alarm.clone());
        self.postman.ipv6.store(new.outbound_ipv6, Ordering::Relaxed);
        self.local.reload(new.local_mail.clone(), local_messages(&new.limits));
        let handover = handover(&self.spool, &self.clock, &new.limits);
        self.desks.store(Arc::new(self.desks.load().with(handover, session_limits(&new.limits))));
        Ok(())
    }
}

/// Asked while nobody is paired or unpaired: the config was read before that, and may have missed one.
fn check_paired(config: &Config) -> Result<(), String> {
    let now = PairedFile::read(&config.state).map_err(|error| error.to_string())?.homes;
    if config.homes.iter().filter(|home| home.origin == Origin::Paired).eq(&now) {
        Ok(())
    } else {
        Err("a home was paired or unpaired at this very moment; reload again".to_owned())
    }
}

fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.homes.iter().map(|home| home.name.as_str())
}

fn local_messages(limits: &EdgeLimits) -> u32 {
    u32::try_from(limits.local_messages_per_hour_max).unwrap_or(u32::MAX)
}

fn spool_limits(limits: &EdgeLimits) -> SpoolLimits {
    SpoolLimits { home_octets_max: limits.spool_octets_max, disk_reserve_octets: limits.disk_reserve_octets }
}

fn session_limits(limits: &EdgeLimits) -> Limits {
    Limits { message_octets_max: limits.message_octets_max, recipients_max: limits.recipients_max, ..Limits::default() }
}

fn handover(spool: &Spool, clock: &Clock, limits: &EdgeLimits) -> Handover {
    let patience = Patience { home_wait_max: limits.home_wait_max, home_away_max: limits.home_away_max };
    Handover::new(spool.clone(), clock.clone(), patience)
}

/// Pairing by code.
pub(super) fn pairing(config: &Config, parts: &Arc<Parts>, identity: &Identity, clock: &Clock) -> Pairing {
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
