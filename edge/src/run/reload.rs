//! Taking a changed config while everything runs: read and checked as `check` does it, everything that can fail got
//! first, and only then put in force. One reload at a time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gatepost_runtime::acme::keeper::Want;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::{self, ConfigError, changes::Change};
use gatepost_runtime::shutdown::Signal;
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::warn;

use super::doors::{Doors, When};
use super::parts::Parts;
use crate::config::{Config, Origin, changes};
use crate::pairing::Pairing;
use crate::status::{self, Status};

/// A door that could not be opened is tried again so often.
const DOORS_EVERY: Duration = Duration::from_secs(30);

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

/// Puts configs in force.
pub(super) struct Reloader {
    parts: Arc<Parts>,
    pairing: Pairing,
    certificate: Served,
    want: Want,
    status: Arc<Status>,
    force: Mutex<Force>,
}

/// What is in force.
struct Force {
    config: Config,
    doors: Doors,
}

impl Reloader {
    pub(super) fn new(
        parts: Arc<Parts>,
        pairing: Pairing,
        (certificate, want): (Served, Want),
        status: Arc<Status>,
        config: Config,
        doors: Doors,
    ) -> Self {
        Self { parts, pairing, certificate, want, status, force: Mutex::new(Force { config, doors }) }
    }

    /// Takes the file as it is now. Gives what is different, a line each.
    pub(super) async fn reload(&self) -> Result<Vec<Change>, ReloadError> {
        let mut force = self.force.lock().await;
        let reloaded = self.try_reload(&mut force).await;
        config::changes::log(&reloaded);
        reloaded
    }

    async fn try_reload(&self, force: &mut Force) -> Result<Vec<Change>, ReloadError> {
        let (served, mut old) = (self.certificate.clone(), force.config.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut new = old.again()?;
            // What was paired by code since then is in force already.
            old.homes.retain(|home| home.origin != Origin::Paired);
            old.homes.extend(new.homes.iter().filter(|home| home.origin == Origin::Paired).cloned());
            let mut changes = changes::changes(&old, &new);
            // What needs a restart stays as it is for everything that looks at the config in force.
            new.hostname.clone_from(&old.hostname);
            new.state.clone_from(&old.state);
            let certificate = new.certificate().read(&served).map_err(|error| new.file.certificate_error(&error))?;
            if certificate.is_some() && old.certificate == new.certificate {
                changes.push(Change { what: "tls: another certificate".to_owned(), needs_restart: false });
            }
            Ok::<_, ConfigError>((old, new, changes, certificate))
        });
        let (old, new, changes, certificate) = read.await.context("reading the config failed inside")??;
        let plan = force.doors.plan(&new.doors, When::AtReload).map_err(anyhow::Error::from)?;
        let (parts, pairing) = (self.parts.clone(), self.pairing.clone());
        let taken = tokio::task::spawn_blocking(move || parts.reload(&pairing, &old, &new).map(|()| new));
        let new = taken.await.context("taking the config failed inside; start the program again")??;
        // Nothing fails from here on.
        if let Some(certificate) = certificate {
            self.certificate.serve(certificate);
        }
        self.show(force.doors.carry_out(plan, &new.limits));
        self.want.set(new.certificate());
        for warning in &new.warnings {
            warn!("{warning}");
        }
        force.config = new;
        Ok(changes)
    }

    /// Tries again and again to open what could not be opened, until draining begins.
    pub(super) async fn open_doors(self: Arc<Self>, clock: Clock, mut signal: Signal) {
        loop {
            tokio::select! {
                () = clock.sleep(DOORS_EVERY) => {}
                () = signal.draining() => return,
            }
            let mut force = self.force.lock().await;
            let Force { config, doors } = &mut *force;
            if let Some(open) = doors.retry(&config.doors) {
                self.show(open);
            }
        }
    }

    /// Where the doors are is known to who asks, and to who sends between neighbours.
    fn show(&self, open: status::Doors) {
        self.parts.sender.own_doors(open.smtp, open.submissions);
        self.status.set_doors(open);
    }
}
