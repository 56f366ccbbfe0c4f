//! Gathers what `report` shows: of what others told, and of whose addresses they told it.

use gatepost_runtime::clock::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Store;
use super::control::Desk;
use crate::feedback::store::{Reporter, SeenFailure, Wanted};
use crate::feedback::summary::{Counts, Edge, Source, Summary, Whose};

/// The key under which a request travels.
pub const KEY: &str = "report";
/// Reporters told.
const REPORTERS_MAX: usize = 200;
/// Reports of single messages told.
const FAILURES_MAX: usize = 200;
/// Seconds of a day.
const DAY_S: i64 = 24 * 3600;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Which reports.
    pub of: Kind,
    /// Of so many days.
    pub days: u32,
    /// About this domain; about all if none is named.
    pub domain: Option<String>,
}

/// Kinds of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Aggregate reports of DMARC.
    Dmarc,
    /// Reports of single messages.
    Failures,
    /// Reports of TLS with our hosts.
    Tls,
}

impl Desk {
    /// What others told.
    pub(super) async fn reports(&self, request: Request) -> Result<Value, String> {
        let config = self.reloader.config().await;
        let edges = match request.of {
            // Where they are is known without their telling.
            Kind::Dmarc => self.edge_facts(&config, &[]).await,
            Kind::Failures | Kind::Tls => Vec::new(),
        };
        let edges = edges.into_iter().map(|edge| Edge { name: edge.name, addresses: edge.addresses }).collect();
        let (store, now) = (std::sync::Arc::clone(&self.store), self.clock.unix_s());
        let told = tokio::task::spawn_blocking(move || alone(&store, edges, &request, now));
        told.await.map_err(|error| error.to_string())?
    }
}

/// What others told; these edges are ours. Blocking.
pub fn alone(store: &Store, edges: Vec<Edge>, request: &Request, now_unix_s: i64) -> Result<Value, String> {
    let since_unix_s = now_unix_s.saturating_sub(i64::from(request.days).saturating_mul(DAY_S));
    let domain = request.domain.as_ref().map(|domain| domain.to_lowercase());
    let wanted = Wanted { since_unix_s, domain };
    let told = match request.of {
        Kind::Dmarc => dmarc(store, edges, &wanted),
        Kind::Failures => store
            .feedback
            .store()
            .failures(&wanted, FAILURES_MAX)
            .map(|failures| json!({ "failures": failures.iter().map(failure).collect::<Vec<_>>() })),
        Kind::Tls => tls(store, &wanted),
    };
    told.map_err(|error| error.to_string())
}

fn dmarc(store: &Store, edges: Vec<Edge>, wanted: &Wanted) -> Result<Value, crate::database::DatabaseError> {
    let store = store.feedback.store();
    let mut summary = Summary::new(edges);
    store.read(wanted, |seen| summary.add(&seen))?;
    let reporters = store.reporters(wanted, REPORTERS_MAX)?;
    let mut told = counts(summary.all());
    let (sources, more) = summary.sources();
    told.insert("since".to_owned(), rfc3339(wanted.since_unix_s).into());
    told.insert("reports".to_owned(), reporters.iter().map(|reporter| reporter.reports).sum::<u64>().into());
    told.insert("reporters".to_owned(), reporters.iter().map(reporter).collect());
    told.insert("sources".to_owned(), sources.iter().map(|(network, one)| source(&network.to_string(), one)).collect());
    told.insert("more_sources".to_owned(), more.into());
    Ok(told.into())
}

fn tls(store: &Store, wanted: &Wanted) -> Result<Value, crate::database::DatabaseError> {
    let store = store.feedback.tls();
    let sessions = store.sessions(wanted)?.into_iter().map(|seen| {
        json!({
            "domain": seen.domain,
            "policy": seen.policy.word(),
            "good": seen.good,
            "bad": seen.bad,
            "reports": seen.reports,
            "reporters": seen.reporters,
            "left_out": seen.left_out,
        })
    });
    let failures = store.failures(wanted, FAILURES_MAX)?.into_iter().map(|seen| {
        json!({
            "domain": seen.domain,
            "kind": seen.kind,
            "meaning": tls_meaning(&seen.kind),
            "host": seen.host,
            "count": seen.count,
            "reporters": seen.reporters,
            "reason": seen.reason,
            "last": rfc3339(seen.last_unix_s),
        })
    });
    let (sessions, failures): (Vec<_>, Vec<_>) = (sessions.collect(), failures.collect());
    Ok(json!({ "since": rfc3339(wanted.since_unix_s), "sessions": sessions, "failures": failures }))
}

/// What a kind of failure (RFC 8460 §4.3) means for whoever runs the host, and what to do.
fn tls_meaning(kind: &str) -> &'static str {
    match kind {
        "starttls-not-supported" => "STARTTLS was not offered: does something between there and the edge take it out?",
        "certificate-host-mismatch" => "the certificate is not for the name in your MX record",
        "certificate-expired" => {
            "the certificate had ended: gatepost-home status says what keeps it from being renewed"
        }
        "certificate-not-trusted" => "nobody they trust vouches for the certificate",
        "validation-failure" => "TLS failed in a way they do not name",
        "tlsa-invalid" => "no TLSA record fits the certificate: gatepost-home dns prints the right ones",
        "dnssec-invalid" => "the signatures of the DNS zone did not hold: ask whoever runs it",
        "dane-required" => "they want DANE, and there are no usable TLSA records",
        "sts-policy-fetch-error" => "the MTA-STS policy could not be fetched: is port 443 of the edge open?",
        "sts-policy-invalid" => "the MTA-STS policy was no good",
        "sts-webpki-invalid" => "the certificate of the host that serves the MTA-STS policy was no good",
        _ => "",
    }
}

fn reporter(reporter: &Reporter) -> Value {
    json!({
        "domain": reporter.domain,
        "organisation": reporter.organisation,
        "reports": reporter.reports,
        "begin": rfc3339(reporter.begin_unix_s),
        "end": rfc3339(reporter.end_unix_s),
        "rows_left_out": reporter.left_out,
    })
}

fn source(network: &str, source: &Source) -> Value {
    let mut told = counts(&source.counts);
    told.insert("network".to_owned(), network.into());
    told.insert("whose".to_owned(), source.whose.word().into());
    told.insert("told".to_owned(), source.whose.told().into());
    if let Whose::Edge(name) = &source.whose {
        told.insert("edge".to_owned(), name.as_str().into());
    }
    told.insert("addresses".to_owned(), source.addresses.iter().map(ToString::to_string).collect());
    for (name, names) in [("reporters", &source.reporters), ("from", &source.from), ("signers", &source.signers)] {
        told.insert(name.to_owned(), names.iter().map(String::as_str).collect());
    }
    told.into()
}

fn counts(counts: &Counts) -> Map<String, Value> {
    let Counts { messages, passed, dkim, spf, done, reasons } = counts;
    let done: Map<_, _> = done.iter().map(|(done, count)| (done.word().to_owned(), (*count).into())).collect();
    let reasons: Map<_, _> = reasons.iter().map(|(reason, count)| ((*reason).to_owned(), (*count).into())).collect();
    [
        ("messages", (*messages).into()),
        ("passed", (*passed).into()),
        ("dkim", (*dkim).into()),
        ("spf", (*spf).into()),
        ("done", done.into()),
        ("overrides", reasons.into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn failure(seen: &SeenFailure) -> Value {
    let failure = &seen.failure;
    json!({
        "reporter": seen.reporter,
        "domain": seen.domain,
        "received": rfc3339(seen.received_unix_s),
        "kind": failure.kind,
        "failed": failure.failed,
        "source": failure.source.map(|source| source.to_string()),
        "envelope_from": failure.envelope_from,
        "header_from": failure.header_from,
        "delivery": failure.delivery,
        "aligned": failure.aligned,
        "incidents": failure.incidents,
    })
}
