//! Opening the doors of the config.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::listen::{self, DoorLimits};
use gatepost_runtime::maildrop::Maildrop;
use gatepost_runtime::shutdown::Signal;
use tokio::net::TcpListener;
use tracing::info;

use super::Store;
use crate::config::Config;
use crate::pickup::{Counter, Pickup};
use crate::router::Router;
use crate::submission::pace::Pace;
use crate::submission::{Submission, Trust};

/// What the doors on the LAN are opened with.
pub(super) struct Lan<'a> {
    pub(super) config: &'a Config,
    pub(super) store: &'a Store,
    pub(super) router: &'a Router,
    pub(super) served: &'a Served,
    pub(super) incoming: &'a Path,
    pub(super) clock: &'a Clock,
    pub(super) signal: &'a Signal,
}

/// Where mail of the LAN comes in.
pub(super) struct Doors {
    /// 465.
    pub(super) submissions: Option<SocketAddr>,
    /// 25.
    pub(super) relay: Option<SocketAddr>,
    /// The drop for local programs.
    pub(super) letters: Counter,
}

impl Lan<'_> {
    /// Opens them all.
    pub(super) async fn open(&self) -> anyhow::Result<Doors> {
        let pace = Arc::new(Pace::new(self.config.trusted_recipients_per_hour_max));
        let (submissions, relay) = (self.open_submissions().await?, self.open_relay(&pace)?);
        let pickup = Pickup {
            drop: Maildrop::of(&self.config.state),
            router: self.router.clone(),
            accounts: self.store.accounts.clone(),
            pace,
            incoming: self.incoming.into(),
            clock: self.clock.clone(),
        };
        let letters = pickup.start(self.signal.clone()).context("the drop for local programs")?;
        Ok(Doors { submissions, relay, letters })
    }

    /// Opens 465 and serves it. Tells where it is, if it is not turned off.
    async fn open_submissions(&self) -> anyhow::Result<Option<SocketAddr>> {
        let config = self.config;
        let Some(address) = config.submissions else { return Ok(None) };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("can't listen for submissions at {address} ([listen] submissions; \"off\" turns it off)")
        })?;
        let address = listener.local_addr()?;
        let limits = DoorLimits {
            connections_max: config.submission_connections_max,
            connections_per_address_max: config.submission_connections_per_address_max,
        };
        info!(%address, "listening for submissions");
        tokio::spawn(Arc::new(self.door(limits, None)).run(listener, self.signal.clone()));
        Ok(Some(address))
    }

    /// Opens 25 for devices of trusted networks; not unless somebody is trusted.
    fn open_relay(&self, pace: &Arc<Pace>) -> anyhow::Result<Option<SocketAddr>> {
        let Some(relay) = &self.config.relay else { return Ok(None) };
        let listener = listen::bind(relay.address)
            .context("the door for trusted networks ([listen] smtp; \"off\" turns it off)")?;
        let address = listener.local_addr()?;
        let limits = DoorLimits {
            connections_max: relay.connections_max,
            connections_per_address_max: relay.connections_per_address_max,
        };
        let trust = Trust { networks: relay.networks.clone(), pace: Arc::clone(pace) };
        info!(%address, "listening for devices of trusted networks");
        tokio::spawn(Arc::new(self.door(limits, Some(trust))).run(listener, self.signal.clone()));
        Ok(Some(address))
    }

    fn door(&self, door: DoorLimits, trust: Option<Trust>) -> Submission {
        Submission {
            hostname: self.config.hostname.clone(),
            limits: Limits { message_octets_max: self.config.message_octets_max, ..Limits::default() },
            door,
            accounts: self.store.accounts.clone(),
            router: self.router.clone(),
            served: self.served.clone(),
            trust,
            incoming: self.incoming.into(),
            clock: self.clock.clone(),
        }
    }
}
