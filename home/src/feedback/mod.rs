//! What those who get our mail tell us about it: reports that come to the address our DMARC records name, read after
//! their sender heard 250, one at a time and off the async threads. The message itself is delivered like any other,
//! whatever becomes of this. Only reports about our own domains count, from senders whose mail proves who they are:
//! what a report says of its author proves nothing.

mod proof;
pub mod store;
pub mod summary;
pub mod tls;

use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::report::reading::{self, Report};
use gatepost_protocol::mail::report::tls::PolicySeen;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_runtime::clock::Clock;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use self::proof::Proof;
use self::store::{Kept, Store};
use crate::database::{Database, DatabaseError};
use crate::message::Message;
use crate::records::REPORTS_TO;

/// Messages that wait to be read; of those beyond, what they report does not count.
const WAITING_MAX: usize = 64;

/// Reads reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feedback {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    tls: tls::Store,
    clock: Clock,
    waiting: Arc<Semaphore>,
    turn: Semaphore,
}

/// A message that may carry a report.
#[derive(Debug)]
pub struct Offer {
    trace: TraceId,
    message: Message,
    verdict: Arc<Verdict>,
    ours: Vec<Domain>,
}

impl Feedback {
    /// Keeps what it reads in this database.
    pub fn new(database: Database, clock: Clock) -> Self {
        let (waiting, turn) = (Arc::new(Semaphore::new(WAITING_MAX)), Semaphore::new(1));
        let (store, tls) = (Store::new(database.clone()), tls::Store::new(database));
        Self { inner: Arc::new(Inner { store, tls, clock, waiting, turn }) }
    }

    /// What was read.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What was read of TLS.
    pub fn tls(&self) -> &tls::Store {
        &self.inner.tls
    }

    /// Reads it on this runtime when its turn comes. Never waits: what can't be read now is delivered all the same.
    pub fn offer(&self, offer: Offer, runtime: &Handle) {
        let Ok(place) = Arc::clone(&self.inner.waiting).try_acquire_owned() else {
            warn!(trace = %offer.trace, "too many reports at once: this one is not read");
            return;
        };
        let inner = Arc::clone(&self.inner);
        runtime.spawn(async move {
            // Nobody closes it.
            let turn = inner.turn.acquire().await;
            let reader = Arc::clone(&inner);
            if let Err(error) = tokio::task::spawn_blocking(move || reader.read(&offer)).await {
                error!(%error, "reading a report failed; this is a bug");
            }
            drop((turn, place));
        });
    }
}

impl Offer {
    /// Of a message that goes to where reports about these domains are sent; `None` of any other.
    pub fn of(
        envelope: &Envelope,
        (message, trace): (&Message, TraceId),
        verdict: &Arc<Verdict>,
        ours: &[Domain],
    ) -> Option<Self> {
        let is_for_reports = |address: &Address| {
            address.local().as_str().eq_ignore_ascii_case(REPORTS_TO) && ours.contains(address.domain())
        };
        let is_offered = envelope.recipients.iter().any(|recipient| is_for_reports(&recipient.address))
            && message.octets() <= reading::MESSAGE_OCTETS_MAX;
        is_offered.then(|| Self { trace, message: message.clone(), verdict: Arc::clone(verdict), ours: ours.to_vec() })
    }

    /// Whether a name is one of ours, or below one.
    fn is_ours(&self, name: &str) -> bool {
        self.ours.iter().any(|domain| is_within(name, domain.as_str()))
    }
}

/// Whether a name is this domain, or below it.
fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

impl Inner {
    fn read(&self, offer: &Offer) {
        let trace = offer.trace;
        let report = match whole(&offer.message).map(|message| reading::read(&message)) {
            Ok(Ok(Some(report))) => report,
            Ok(Ok(None)) => return,
            Ok(Err(why)) => return info!(%trace, %why, "what looks like a report can't be read"),
            Err(error) => return warn!(%trace, %error, "a report can't be read"),
        };
        let about = match &report {
            Report::Aggregate { report, .. } => report.published.domain.clone(),
            Report::Failure(failure) => failure.about().unwrap_or_default().to_owned(),
            // Of several domains, ours count.
            Report::Tls(report) => {
                let domains = || report.policies.iter().map(|seen| seen.domain.as_str());
                domains().find(|domain| offer.is_ours(domain)).or(domains().next()).unwrap_or_default().to_owned()
            }
        };
        let reporter = match Proof::of(&offer.verdict) {
            Proof::From(reporter) => reporter,
            Proof::None(why) => return info!(%trace, domain = about, why, "a report does not count"),
        };
        if !offer.is_ours(&about) {
            return info!(%trace, domain = about, reporter, why = "it is about a domain that is not ours", "a report does not count");
        }
        let now = (self.clock.unix_s(), self.clock.steady_s());
        let is_news = |kept: Result<Kept, DatabaseError>| match kept {
            Ok(Kept::Now) => true,
            Ok(Kept::Before) => {
                info!(%trace, domain = about, reporter, why = "it came before", "a report does not count");
                false
            }
            Err(error) => {
                error!(%trace, domain = about, reporter, %error, "a report can't be kept");
                false
            }
        };
        match report {
            Report::Aggregate { report, left_out } => {
                let (rows, messages) = (report.rows.len(), report.rows.iter().map(|row| row.count).sum::<u64>());
                if is_news(self.store.keep_aggregate(&reporter, *report, left_out, now)) {
                    info!(%trace, domain = about, reporter, messages, rows, left_out, "read a DMARC report");
                }
            }
            Report::Tls(mut report) => {
                report.policies.retain(|seen| offer.is_ours(&seen.domain));
                let sum = |of: fn(&PolicySeen) -> u64| report.policies.iter().map(of).fold(0, u64::saturating_add);
                let (good, bad, left_out) = (sum(|seen| seen.good), sum(|seen| seen.bad), report.left_out);
                if is_news(self.tls.keep(&reporter, *report, now)) {
                    info!(%trace, domain = about, reporter, good, bad, left_out, "read a report of TLS");
                }
            }
            Report::Failure(failure) => {
                let kind = failure.kind.clone();
                if is_news(self.store.keep_failure(&reporter, &about, *failure, now)) {
                    info!(%trace, domain = about, reporter, kind, "read a report of a single message");
                }
            }
        }
    }
}

/// The whole message, bounded by who offered it.
fn whole(message: &Message) -> std::io::Result<Vec<u8>> {
    let mut bytes = message.front.to_vec();
    for chunk in message.body.chunks() {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
