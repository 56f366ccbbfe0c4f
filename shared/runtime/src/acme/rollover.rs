//! New keys in the place of those that TLSA records pin (RFC 7671 §8.1): made when the owner asks, used once the DNS has
//! shown their records long enough for everybody to have forgotten the state before.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::folder::{Folder, KeptNext};
use super::keeper::Wanted;
use super::lineage::Lineage;
use super::{AcmeError, blocking, keys};
use crate::clock::Clock;
use crate::resolver::Resolver;

/// Where a keeper is told to change its keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rollover {
    pub(super) state: PathBuf,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) nudge: Arc<Notify>,
    pub(super) clock: Clock,
}

impl Rollover {
    /// Makes keys that are to follow, unless they wait already. Gives what their TLSA records have to say.
    pub async fn begin(&self) -> Result<Vec<String>, String> {
        let wanted = self.wanted.borrow().clone();
        let Wanted::Issued(lineages) = wanted else {
            return Err(
                "the keys are not made here: only those of certificates that a CA issues (acme) are changed".to_owned()
            );
        };
        let (state, made_at) = (self.state.clone(), self.clock.unix_s());
        let begun = tokio::task::spawn_blocking(move || {
            lineages
                .iter()
                .map(|lineage| begun(lineage, &lineage.folder(&state), made_at))
                .collect::<Result<Vec<_>, _>>()
        });
        let told = begun.await.map_err(|error| error.to_string())?.map_err(|error: AcmeError| error.to_string())?;
        info!(tlsa = told.join(", "), "new keys wait for their records in the DNS");
        self.nudge.notify_one();
        Ok(told)
    }
}

fn begun(lineage: &Lineage, folder: &Folder, made_at: i64) -> Result<String, AcmeError> {
    if let Some(waiting) = folder.next()? {
        return keys::tlsa(&waiting.key);
    }
    let next = KeptNext { key: keys::make(lineage.kind)?, made_at, shown_since: None };
    folder.keep_next(Some(&next))?;
    keys::tlsa(&next.key)
}

/// Where a key that is to follow stands.
#[derive(Clone, Debug)]
pub(super) struct Following {
    /// What its record has to say.
    pub(super) tlsa: String,
    /// The key, once it may be used.
    pub(super) ready: Option<KeptNext>,
    /// Since when the DNS shows it.
    pub(super) shown_since: Option<i64>,
}

/// Looks where the key that is to follow stands, `current` being the one in use. A host without any TLSA record pins
/// nothing, and need not wait.
pub(super) async fn look(
    lineage: &Lineage,
    folder: &Folder,
    current: Option<&str>,
    resolver: &Resolver,
    now: i64,
) -> Option<Following> {
    let reading = folder.clone();
    let next = match blocking(move || reading.next()).await {
        Ok(next) => next?,
        Err(error) => {
            warn!(%error, "the key that is to follow can't be read");
            return None;
        }
    };
    if current == Some(next.key.as_str()) {
        keep(folder, None).await;
        return None;
    }
    let tlsa = keys::tlsa(&next.key).ok()?;
    let host = lineage.names.first()?;
    let records = resolver.written(&format!("_25._tcp.{host}"), "TLSA").await;
    let shown_since = match records {
        // Nothing is known: nothing changes.
        Err(_) => next.shown_since,
        Ok(records) if records.is_empty() => {
            return Some(Following { tlsa, ready: Some(next), shown_since: None });
        }
        Ok(records) if records.iter().any(|record| is_same(record, &tlsa)) => next.shown_since.or(Some(now)),
        Ok(_) => None,
    };
    let next = KeptNext { shown_since, ..next.clone() };
    // A date that was wrong counts from now on.
    let since = shown_since.map(|since| since.min(now));
    keep(folder, Some(&next)).await;
    let long_enough = i64::try_from(lineage.settings.rollover.as_secs()).unwrap_or(i64::MAX);
    let ready = since.is_some_and(|since| now.saturating_sub(since) >= long_enough).then_some(next);
    Some(Following { tlsa, ready, shown_since })
}

async fn keep(folder: &Folder, next: Option<&KeptNext>) {
    let (folder, next) = (folder.clone(), next.cloned());
    let kept = blocking(move || if folder.next()? == next { Ok(()) } else { folder.keep_next(next.as_ref()) });
    if let Err(error) = kept.await {
        warn!(%error, "how long the DNS shows a new key can't be kept");
    }
}

/// The same record, however its digest is broken up.
fn is_same(written: &str, tlsa: &str) -> bool {
    let solid = |text: &str| text.split_whitespace().collect::<String>().to_ascii_lowercase();
    solid(written) == solid(tlsa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_however_it_is_written() {
        assert!(is_same("3 1 1 ABCD EF01", "3 1 1 abcdef01"));
        assert!(!is_same("3 1 1 abcdef02", "3 1 1 abcdef01"));
        assert!(!is_same("2 1 1 abcdef01", "3 1 1 abcdef01"));
    }
}
