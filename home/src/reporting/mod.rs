//! What we tell domains of mail in their name (aggregate reports of DMARC, RFC 9990): counted in memory as mail is
//! judged, written down each minute, sent once a day to those who ask. Nothing waits for it; a crash forgets a minute of
//! it.

pub mod config;
mod letter;
mod schedule;
mod sending;
mod store;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::report::judged::{self, Done};
use gatepost_protocol::mail::report::{DkimResult, Row, SpfResult};
use gatepost_protocol::mail::verdict::{Published, Verdict};
use gatepost_runtime::clock::Clock;
use tokio::sync::Notify;
use tracing::warn;

use self::config::Settings;
pub use self::sending::{KEY, Letter, Request};
use self::store::Store;
use crate::database::{Database, DatabaseError};

/// Kinds of messages counted in memory between two writings; more are written early, and beyond twice as many only
/// their number is kept.
const GATHERED_MAX: usize = 1024;
/// Rows of one write: mail gets its turn between them.
const WRITTEN_MAX: usize = 128;
/// Octets of a name that is kept.
const NAME_OCTETS_MAX: usize = 255;
/// Signatures of one message that are told.
const SIGNATURES_MAX: usize = 8;

/// Counts and reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reporting {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    hostname: String,
    settings: ArcSwap<Settings>,
    gathered: Mutex<Gathered>,
    /// Rings when much is gathered.
    full: Notify,
    clock: Clock,
}

/// What is not written down yet.
#[derive(Debug, Default)]
struct Gathered {
    counts: HashMap<Kind, u64>,
    /// Messages that found no room.
    missed: u64,
}

/// Messages that are one row of one report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    day: i64,
    published: Published,
    /// Its count is 0.
    row: Row,
}

/// A message that was judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Who brought it.
    pub client: IpAddr,
    /// The domain of MAIL FROM; empty for the null sender.
    pub sender: &'a str,
    /// What was found about it.
    pub verdict: &'a Verdict,
    /// It was refused for good; else it was taken.
    pub refused: bool,
    /// When.
    pub at_unix_s: i64,
}

impl Reporting {
    /// Over this database.
    pub fn new(database: Database, hostname: String, settings: Settings, clock: Clock) -> Self {
        let inner = Inner {
            store: Store::new(database),
            hostname,
            settings: ArcSwap::from_pointee(settings),
            gathered: Mutex::default(),
            full: Notify::new(),
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// From now on this is wanted.
    pub fn reload(&self, settings: Settings) {
        self.inner.settings.store(Arc::new(settings));
    }

    /// Counts a message, if its domain wants to hear of it. Never waits.
    pub fn note(&self, judged: Judged<'_>) {
        let settings = self.inner.settings.load();
        if !settings.dmarc_aggregate {
            return;
        }
        let now = self.inner.clock.unix_s();
        let Some(kind) = kind(judged, &settings.domains, now) else { return };
        let mut gathered = self.inner.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let room = gathered.counts.len() < 2 * GATHERED_MAX;
        match gathered.counts.get_mut(&kind) {
            Some(count) => *count += 1,
            None if room => {
                gathered.counts.insert(kind, 1);
            }
            None => gathered.missed += 1,
        }
        if gathered.counts.len() >= GATHERED_MAX {
            self.inner.full.notify_one();
        }
    }

    /// Writes down what was counted. Blocking.
    pub fn flush(&self) -> Result<(), DatabaseError> {
        let gathered = {
            let mut gathered = self.inner.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *gathered)
        };
        let mut missed = gathered.missed;
        let mut counts = gathered.counts.into_iter();
        loop {
            let some: Vec<(Kind, u64)> = counts.by_ref().take(WRITTEN_MAX).collect();
            if some.is_empty() {
                break;
            }
            missed += self.inner.store.add(some, &self.inner.hostname)?;
        }
        if missed > 0 {
            warn!(count = missed, "messages are missing in reports to their domains: too many different ones in a day");
        }
        Ok(())
    }
}

/// What a message counts as; `None` where nobody is to hear of it. What an edge says is bounded here.
fn kind(judged: Judged<'_>, ours: &[Domain], now_unix_s: i64) -> Option<Kind> {
    let Judged { client, sender, verdict, refused, at_unix_s } = judged;
    let evidence = verdict.evidence.as_deref()?;
    let published = evidence.dmarc.reported.as_deref()?;
    let done = match &verdict.junk {
        _ if refused => Done::Refused,
        Some(_) => Done::Junk,
        None => Done::Accepted,
    };
    let row = judged::row(client, sender, evidence, done, verdict.spared)?;
    let (domain, header_from) = (name(&published.domain)?, name(&row.header_from)?);
    if is_ours(&domain, ours) || is_ours(&header_from, ours) {
        return None;
    }
    let dkim = |one: DkimResult| DkimResult {
        domain: printable(&one.domain),
        selector: one.selector.as_deref().map(printable),
        found: one.found,
    };
    let spf = |one: SpfResult| SpfResult { domain: printable(&one.domain), ..one };
    Some(Kind {
        day: schedule::day(at_unix_s, now_unix_s),
        published: Published { domain, ..published.clone() },
        row: Row {
            count: 0,
            header_from,
            envelope_from: row.envelope_from.as_deref().map(printable),
            dkim_results: row.dkim_results.into_iter().take(SIGNATURES_MAX).map(dkim).collect(),
            spf_results: row.spf_results.into_iter().map(spf).collect(),
            ..row
        },
    })
}

/// A domain as the DNS has it; `None` if it is none.
fn name(text: &str) -> Option<String> {
    Domain::parse(text).ok().filter(|domain| domain.literal().is_none()).map(|domain| domain.as_str().to_lowercase())
}

fn is_ours(name: &str, ours: &[Domain]) -> bool {
    ours.iter().any(|own| name.strip_suffix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Fit for XML, a header field and a line of text.
fn printable(text: &str) -> String {
    text.chars().take(NAME_OCTETS_MAX).map(|letter| if letter.is_ascii_graphic() { letter } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
