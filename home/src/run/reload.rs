//! Taking a changed config while everything runs: read and checked as `check` does it, everything that can fail got
//! first, and only then put in force. One reload at a time.

use std::sync::Arc;

use anyhow::Context as _;
use gatepost_runtime::acme::keeper::Want;
use gatepost_runtime::alarm::Alarms;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::config::{self, ConfigError, changes::Change};
use gatepost_runtime::resolver::Resolver;
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::warn;

use super::Store;
use super::doors::{Doors, Open};
use crate::config::{Config, changes};
use crate::edges::Edges;
use crate::trace::Traces;

/// Why a config is not taken; the one before it stays in force.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file is no good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What it asks for can't be had.
    #[error("{0:#}")]
    Unable(#[from] anyhow::Error),
}

/// The parts that a config is given to.
pub(super) struct Parts {
    pub(super) store: Arc<Store>,
    pub(super) edges: Edges,
    pub(super) traces: Traces,
    pub(super) served: Served,
    pub(super) want: Want,
    pub(super) alarms: Alarms,
}

/// Puts configs in force.
pub(super) struct Reloader {
    parts: Arc<Parts>,
    force: Mutex<Force>,
}

/// What is in force.
struct Force {
    config: Config,
    doors: Doors,
}

impl Reloader {
    pub(super) fn new(parts: Parts, config: Config, doors: Doors) -> Self {
        Self { parts: Arc::new(parts), force: Mutex::new(Force { config, doors }) }
    }

    /// Where the doors are.
    pub(super) async fn open(&self) -> Open {
        self.force.lock().await.doors.open()
    }

    /// What is stored.
    pub(super) fn store(&self) -> &Store {
        &self.parts.store
    }

    /// The config in force.
    pub(super) async fn config(&self) -> Config {
        self.force.lock().await.config.clone()
    }

    /// Takes the file as it is now. Gives what is different, a line each.
    pub(super) async fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        let mut force = self.force.lock().await;
        let reloaded = self.try_reload(&mut force).await;
        config::changes::log(&reloaded);
        reloaded
    }

    async fn try_reload(&self, force: &mut Force) -> Result<Vec<Change>, ReloadError> {
        let (parts, old) = (Arc::clone(&self.parts), force.config.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut new = old.again()?;
            let mut changes = changes::changes(&old, &new);
            // What needs a restart stays as it is for everything that looks at the config in force.
            new.hostname.clone_from(&old.hostname);
            new.queue.hostname.clone_from(&old.queue.hostname);
            new.state.clone_from(&old.state);
            let certificate =
                new.certificate().read(&parts.served).map_err(|error| new.file.certificate_error(&error))?;
            if certificate.is_some() && old.tls == new.tls {
                changes.push(Change { what: "tls: another certificate".to_owned(), needs_restart: false });
            }
            Ok::<_, ConfigError>((old, new, changes, certificate))
        });
        let (old, new, changes, certificate) = read.await.context("reading the config failed inside")??;
        let plan = force.doors.plan(&new).map_err(anyhow::Error::from)?;
        let parts = Arc::clone(&self.parts);
        let taken = tokio::task::spawn_blocking(move || parts.reload(&old, &new).map(|()| new));
        let new = taken.await.context("taking the config failed inside; start the program again")??;
        // Nothing fails from here on.
        if let Some(certificate) = certificate {
            self.parts.served.serve(certificate);
        }
        self.parts.want.set(new.certificate());
        self.parts.edges.set(&new.edges);
        force.doors.carry_out(plan, &new);
        for warning in &new.warnings {
            warn!("{warning}");
        }
        force.config = new;
        Ok(changes)
    }
}

impl Parts {
    /// From now on this is the config: each part takes it whole, for what it begins next. If this fails, nothing has
    /// changed. Blocking.
    fn reload(&self, old: &Config, new: &Config) -> anyhow::Result<()> {
        // Servers that stay keep the answers they gave.
        let changed = old.dns_servers != new.dns_servers;
        let resolver = if changed { Some(Resolver::new(&new.dns_servers)) } else { None };
        let keys = self.store.signing.prepare(&new.domains).context("the keys that sign mail can't be had")?;
        let settings = new.accounts(self.store.seal_key.public().to_vec());
        self.store.accounts.refresh(Some(settings)).context("the accounts can't be read for the new config")?;
        // Nothing fails from here on.
        if let Some(resolver) = resolver {
            self.store.resolver.follow(&resolver);
        }
        self.store.signing.take(keys);
        self.traces.reload(new.trace);
        self.alarms.reload(new.alarm.clone());
        self.store.servers.reload(new.keepers.clone());
        self.store.reporting.reload(new.reports.clone());
        self.store.queue.reload(new.queue.clone(), new.routes.clone());
        Ok(())
    }
}
