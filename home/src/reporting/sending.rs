//! Sends reports that are due: asks the DNS who wants them, hands the message over, and closes the report. Between the
//! two a crash may come: the same message comes again then under the same name, and is known.

use std::time::Duration;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::authentication::Authenticator;
use gatepost_runtime::authentication::reporting::{self, Destination};
use gatepost_runtime::clock::rfc3339;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::letter::{self, Name, Reporter};
use super::store::Report;
use super::{Reporting, schedule};

/// The key under which a request travels.
pub const KEY: &str = "reporting";
/// How often what was counted is written down, and what is due is looked for.
const ROUND: Duration = Duration::from_mins(1);
/// The DNS may take so long over one report.
const DNS_WAIT_MAX: Duration = Duration::from_secs(30);
/// The router may take so long over one report.
const ANSWER_MAX: Duration = Duration::from_mins(5);

/// A message for whoever sends messages.
#[derive(Debug)]
pub struct Letter {
    /// Names it: the same one has the same name.
    pub id: TransferId,
    /// Its trace id.
    pub trace: TraceId,
    /// Who sends it, who gets it.
    pub envelope: Envelope,
    /// The whole message.
    pub message: Vec<u8>,
    /// When it was made.
    pub made_unix_s: i64,
    /// What became of it.
    pub accepted: oneshot::Sender<Reply>,
}

/// What the owner wants to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The reports of the last days, and those that are being counted.
    List,
    /// What the reports to this domain say so far that are not sent.
    Show {
        /// Which.
        domain: String,
    },
}

impl Reporting {
    /// Writes down and sends until draining begins.
    pub async fn run(self, resolver: Resolver, letters: mpsc::Sender<Letter>, mut signal: Signal) {
        let asker = Authenticator::new(resolver);
        loop {
            self.write_down().await;
            tokio::select! {
                () = self.send_due(&asker, &letters) => {}
                () = signal.draining() => return,
            }
            tokio::select! {
                () = self.inner.clock.sleep(ROUND) => {}
                () = self.inner.full.notified() => {}
                () = signal.draining() => return,
            }
        }
    }

    /// Writes down what was counted; what can't be written is lost, and said.
    pub async fn write_down(&self) {
        let reporting = self.clone();
        if let Ok(Err(error)) = spawn_blocking(move || reporting.flush()).await {
            warn!(%error, "what is to be reported to domains can't be written down, and is missing in their reports");
        }
    }

    async fn send_due(&self, asker: &Authenticator, letters: &mpsc::Sender<Letter>) {
        let reporting = self.clone();
        let found = spawn_blocking(move || {
            let now = reporting.inner.clock.unix_s();
            let unsent = reporting.inner.store.prune(schedule::oldest_day(now))?;
            if unsent > 0 {
                warn!(count = unsent, "reports to domains could not be sent for a week, and are dropped");
            }
            let is_wanted = reporting.inner.settings.load().dmarc_aggregate;
            if is_wanted { reporting.inner.store.due(now) } else { Ok(Vec::new()) }
        });
        match found.await {
            Ok(Ok(due)) => {
                for report in due {
                    self.send(report, asker, letters).await;
                }
            }
            Ok(Err(error)) => warn!(%error, "reports to domains can't be read"),
            Err(error) => error!(%error, "a chore failed; this is a bug"),
        }
    }

    async fn send(&self, report: Report, asker: &Authenticator, letters: &mpsc::Sender<Letter>) {
        let domain = report.published.domain.clone();
        let destinations = match self.inner.clock.timeout(DNS_WAIT_MAX, asker.destinations(&domain)).await {
            Some(Ok(destinations)) => destinations,
            Some(Err(error)) => return self.put_off(&report, &error.to_string()).await,
            None => return self.put_off(&report, "the DNS takes too long").await,
        };
        let (made, reporting) = (report.clone(), self.clone());
        let letter = match spawn_blocking(move || reporting.letter(&made, &destinations)).await {
            Ok(Ok(Some(letter))) => letter,
            Ok(Ok(None)) => return self.close(&report, "nobody takes it".to_owned()).await,
            Ok(Err(error)) => return self.put_off(&report, &error.to_string()).await,
            Err(error) => return self.put_off(&report, &error.to_string()).await,
        };
        let (letter, answer) = letter;
        let (trace, to) = (letter.trace, letter.envelope.recipients.clone());
        let to = to.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" ");
        let reply = match letters.send(letter).await {
            Ok(()) => match self.inner.clock.timeout(ANSWER_MAX, answer).await {
                Some(Ok(reply)) => reply,
                Some(Err(_)) | None => Reply::local_error(),
            },
            Err(_) => Reply::local_error(),
        };
        match reply.class() {
            Class::Done => {
                let day = rfc3339(schedule::start_unix_s(report.day));
                info!(
                    %trace, domain, day = &day[..10], messages = report.messages, recipient = to,
                    "report on mail in a domain's name queued"
                );
                self.close(&report, format!("sent to {to}")).await;
            }
            Class::Permanent => self.close(&report, format!("refused here: {reply}")).await,
            Class::Temporary | Class::Continue => self.put_off(&report, &reply.to_string()).await,
        }
    }

    /// The message and where its answer comes; `None` if nobody may have it. Blocking.
    pub(super) fn letter(
        &self,
        report: &Report,
        destinations: &[Destination],
    ) -> anyhow::Result<Option<(Letter, oneshot::Receiver<Reply>)>> {
        let settings = self.inner.settings.load();
        let Some(domain) = settings.domains.first() else { return Ok(None) };
        let reporter = Reporter { hostname: &self.inner.hostname, domain: domain.as_str() };
        let aggregate = letter::aggregate(report, self.inner.store.rows(report.id)?, reporter);
        let now = self.inner.clock.unix_s();
        let mut to: Vec<(Address, Option<u64>)> =
            destinations.iter().filter_map(|one| Some((Address::parse(&one.address).ok()?, one.octets_max))).collect();
        // Who takes less than it has hears nothing, and the others have a message without them.
        let message = loop {
            if to.is_empty() || aggregate.rows.is_empty() {
                return Ok(None);
            }
            let names: Vec<String> = to.iter().map(|(address, _)| address.to_string()).collect();
            let message = letter::message(report, &aggregate, reporter, &names, now)?;
            let before = to.len();
            to.retain(|(_, octets_max)| octets_max.is_none_or(|most| message.len() as u64 <= most));
            if to.len() == before {
                break message;
            }
        };
        let name = Name::of(report, reporter);
        let (accepted, answer) = oneshot::channel();
        let letter = Letter {
            id: TransferId(name.transfer()),
            trace: TraceId::from_random(name.trace()),
            envelope: Envelope {
                // Nobody is told if it can't be delivered: no mail about mail about mail.
                reverse_path: ReversePath::Null,
                recipients: to.into_iter().map(|(address, _)| Recipient::plain(address)).collect(),
                body: BodyKind::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            message,
            made_unix_s: now,
            accepted,
        };
        Ok(Some((letter, answer)))
    }

    async fn close(&self, report: &Report, outcome: String) {
        let (reporting, id) = (self.clone(), report.id);
        let closed =
            spawn_blocking(move || reporting.inner.store.close(id, outcome, reporting.inner.clock.unix_s())).await;
        if let Ok(Err(error)) = closed {
            warn!(domain = report.published.domain, %error, "that a report is done can't be noted; it is known if it comes again");
        }
    }

    async fn put_off(&self, report: &Report, why: &str) {
        warn!(domain = report.published.domain, why, "a report to a domain can't be sent now");
        let (reporting, id) = (self.clone(), report.id);
        let put_off = spawn_blocking(move || {
            reporting.inner.store.put_off(id, reporting.inner.clock.unix_s() + schedule::AGAIN_S)
        });
        if let Ok(Err(error)) = put_off.await {
            warn!(domain = report.published.domain, %error, "that a report waits can't be noted");
        }
    }

    /// Answers the owner, what was counted just now included. Blocking; an error is a text for people.
    pub fn answer(&self, request: &Request) -> Result<Value, String> {
        self.flush().map_err(|error| error.to_string())?;
        let reports = self.inner.store.list().map_err(|error| error.to_string())?;
        let settings = self.inner.settings.load();
        let is_on = settings.dmarc_aggregate;
        match request {
            Request::List => {
                let listed: Vec<Value> = reports.iter().map(shown).collect();
                Ok(json!({ "dmarc_aggregate": is_on, "reports": listed }))
            }
            Request::Show { domain } => {
                let ours = settings.domains.first().map_or("", |domain| domain.as_str());
                let reporter = Reporter { hostname: &self.inner.hostname, domain: ours };
                let mut texts = Vec::new();
                let wanted = domain.to_lowercase();
                for report in reports.iter().filter(|one| one.closed.is_none() && one.published.domain == wanted) {
                    let rows = self.inner.store.rows(report.id).map_err(|error| error.to_string())?;
                    texts.push(reporting::xml(&letter::aggregate(report, rows, reporter)));
                }
                Ok(json!({ "reports": texts }))
            }
        }
    }
}

fn shown(report: &Report) -> Value {
    let Report { id: _, day, published, due_unix_s, messages, rows, missed, closed } = report;
    json!({
        "day": &rfc3339(schedule::start_unix_s(*day))[..10],
        "domain": published.domain,
        "messages": messages,
        "rows": rows,
        "missed": missed,
        "due": if closed.is_none() { Some(rfc3339(*due_unix_s)) } else { None },
        "closed": closed.as_ref().map(|(at, _)| rfc3339(*at)),
        "outcome": closed.as_ref().map(|(_, outcome)| outcome),
    })
}
