//! Notices mail that goes to a domain less securely than is usual, or can't go for that reason, and tells the log and
//! whoever tells the owner. What is usual is learnt, and kept in a small file.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::demand::Floor;
use gatepost_protocol::mail::received::TraceId;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::kept::Kept;
use tokio::sync::broadcast;

use super::config::Settings;
use super::usual::{Heard, Level, OCTETS_MAX, Usual};

/// Name of the file in the state directory.
const FILE: &str = "usual-security";
/// It is written so long after something new: what a crash forgets is soon learnt again.
const GATHER: Duration = Duration::from_mins(1);
/// Kept for a listener that is slow; of more, the log tells.
const UNHEARD_MAX: usize = 64;

/// Mail to a domain that went less securely than usual, or waits rather than to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// The domain.
    pub domain: Domain,
    /// What is usual.
    pub usual: Level,
    /// How it went; `None`: it waits.
    pub had: Option<Level>,
}

/// Watches.
#[derive(Debug)]
pub struct Watch {
    kept: Kept,
    usual: Mutex<Usual>,
    clock: Clock,
    tell: broadcast::Sender<Downgrade>,
}

impl Watch {
    /// With what was learnt before, in this state directory. Blocking.
    pub fn open(state: &Path, clock: Clock) -> Self {
        let kept = Kept::new(state.join(FILE), GATHER, clock.clone());
        let usual = Mutex::new(read(&kept, clock.steady_ms()));
        Self { kept, usual, clock, tell: broadcast::Sender::new(UNHEARD_MAX) }
    }

    /// Each downgrade from now on.
    pub fn listen(&self) -> broadcast::Receiver<Downgrade> {
        self.tell.subscribe()
    }

    /// What is demanded of this domain's hosts: what the owner wrote, and what is usual if that is to be kept to. What the
    /// owner wrote for this very domain counts alone.
    pub fn floor(&self, settings: &Settings, domain: &Domain) -> Floor {
        match settings.floors.named(domain) {
            Some(floor) => floor,
            None if settings.hold_downgrades => settings.floors.of(domain).max(self.usual().of(domain).floor()),
            None => settings.floors.of(domain),
        }
    }

    /// A message was handed over to a host of this domain.
    pub fn had(&self, trace: TraceId, domain: &Domain, level: Level) {
        let heard = self.usual().had(domain, level, self.clock.steady_ms());
        if heard != Heard::Nothing {
            self.kept.note();
        }
        if let Heard::Lower(usual) = heard {
            tracing::warn!(%trace, hop = %domain, usual = usual.words(), had = level.words(), "sent less securely than usual");
            self.tell(domain, usual, Some(level));
        }
    }

    /// A message waits because no host of this domain is as secure as is demanded.
    pub fn held(&self, settings: &Settings, domain: &Domain) {
        let usual = self.usual().of(domain);
        if settings.hold_downgrades && settings.floors.named(domain).is_none() && usual > Level::Clear {
            self.tell(domain, usual, None);
        }
    }

    fn tell(&self, domain: &Domain, usual: Level, had: Option<Level>) {
        // Nobody listens, perhaps.
        let _ = self.tell.send(Downgrade { domain: domain.clone(), usual, had });
    }

    /// Writes down what is new, where it may block, until draining begins.
    pub async fn keep_up(self: std::sync::Arc<Self>, signal: gatepost_runtime::shutdown::Signal) {
        let watch = self.clone();
        self.kept.keep_up(signal, move || watch.keep()).await;
    }

    /// Writes down what is new. Blocking.
    pub fn keep(&self) {
        let text = || self.usual().write(self.clock.steady_ms());
        if let Err(error) = self.kept.write(text) {
            tracing::error!(%error, "how secure mail usually is can't be written down");
        }
    }

    fn usual(&self) -> MutexGuard<'_, Usual> {
        self.usual.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(kept: &Kept, now_ms: i64) -> Usual {
    let path = kept.path().display();
    let text = match kept.read(OCTETS_MAX) {
        Ok(None) => return Usual::default(),
        Ok(Some(text)) => text,
        Err(error) => {
            tracing::error!(%error, %path, "how secure mail usually is can't be read; it is learnt anew");
            return Usual::default();
        }
    };
    match Usual::read(&text, now_ms) {
        Ok((usual, damaged)) => {
            if damaged > 0 {
                tracing::warn!(damaged, %path, "some lines of how secure mail usually is make no sense");
            }
            usual
        }
        Err(error) => {
            tracing::error!(%error, %path, "how secure mail usually is can't be read; it is learnt anew");
            Usual::default()
        }
    }
}
