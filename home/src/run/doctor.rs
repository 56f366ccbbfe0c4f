//! Gathers what the doctor judges by: what the home knows, what its edges find when they try things out, and a message
//! of each domain, signed as its mail is.

use std::time::Duration;

use futures_util::future::join_all;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_protocol::tunnel::verb::examination::{Door, ECHO_OCTETS_MAX, Examination, Examined};
use gatepost_runtime::clock::mail_date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Desk;
use super::records;
use crate::doctor::config::Settings;
use crate::doctor::{EdgeFacts, Facts, Key, Signed};
use crate::message::{Body, Message};
use crate::signing::Purpose;

/// The key under which a request travels.
pub const KEY: &str = "doctor";
/// An edge may try things out for so long.
const EXAMINATION_MAX: Duration = Duration::from_secs(30);
/// An echo may take so long.
const ECHO_MAX: Duration = Duration::from_secs(20);
/// Echoes under way at once, and in all.
const ECHOES_AT_ONCE: usize = 4;
const ECHOES: usize = 3;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// DNS lists to be asked by the edges.
    pub lists: Vec<String>,
    /// Domains whose mail hosts the edges should reach.
    pub reaches: Vec<String>,
}

impl From<&Settings> for Request {
    fn from(settings: &Settings) -> Self {
        Self { lists: settings.lists.clone(), reaches: settings.reaches.clone() }
    }
}

impl Desk {
    /// Everything the doctor judges by that only the running home knows.
    pub(super) async fn doctor(self: std::sync::Arc<Self>, request: Request) -> Result<Value, String> {
        let domains = self.reloader.config().await.domains.clone();
        let told = self.edges.ask(AdminRequest::Status, &self.clock).await;
        let known = self.records(&records::Request { domain: None, tested: false }, &told).await?;
        let mut edges: Vec<EdgeFacts> = Vec::with_capacity(known.edges.len());
        for edge in known.edges {
            let host = edge.host.map(|host| host.to_string());
            edges.push(EdgeFacts { name: edge.name, host, addresses: edge.addresses, ..EdgeFacts::default() });
        }
        self.examine(&mut edges, &request).await;
        self.knock(&mut edges, domains.first().map_or("invalid", |domain| domain.as_str())).await;
        for edge in &mut edges {
            edge.octets_per_s = self.throughput(&edge.name).await;
        }
        let desk = std::sync::Arc::clone(&self);
        let signed = tokio::task::spawn_blocking(move || desk.sign_some()).await.map_err(|error| error.to_string())?;
        let keys = known.keys.into_iter().map(|key| Key { name: key.name, phase: key.phase }).collect();
        let facts = Facts { status: self.status_with(told).await, records: known.records, keys, edges, signed };
        serde_json::to_value(facts).map_err(|error| error.to_string())
    }

    /// What each edge finds, tried by itself.
    async fn examine(&self, edges: &mut [EdgeFacts], request: &Request) {
        let asked = |edge: &EdgeFacts| Examination {
            mail_to: request.reaches.clone(),
            lists: request.lists.clone(),
            addresses: edge.addresses.clone(),
            ..Examination::default()
        };
        let answers = join_all(edges.iter().map(|edge| self.ask(&edge.name, asked(edge)))).await;
        for (edge, answer) in edges.iter_mut().zip(answers) {
            let Some((examined, ahead_ms)) = answer else { continue };
            edge.examined = Some(examined);
            edge.ahead_ms = ahead_ms;
        }
    }

    /// What each edge meets at the doors of all: nobody in `ours` is where a stranger's mail would go.
    async fn knock(&self, edges: &mut [EdgeFacts], ours: &str) {
        let mut doors: Vec<Door> = Vec::new();
        for edge in &*edges {
            if let (Some(host), Some(Ok(Examined { smtp_port: Some(port), .. }))) = (&edge.host, &edge.examined) {
                let door = Door { host: host.clone(), port: *port };
                if !doors.contains(&door) {
                    doors.push(door);
                }
            }
        }
        // RFC 2606: it is nobody's, so that a relay that would take it has nowhere to bring it.
        let elsewhere = format!("doctor@{ours}.invalid");
        let asked = || Examination { doors: doors.clone(), elsewhere: elsewhere.clone(), ..Examination::default() };
        let answers = join_all(edges.iter().map(|edge| self.ask(&edge.name, asked()))).await;
        for (edge, answer) in edges.iter_mut().zip(answers) {
            if let (Some(Ok(examined)), Some((Ok(met), _))) = (&mut edge.examined, answer) {
                (examined.doors, examined.relayed) = (met.doors, met.relayed);
            }
        }
    }

    /// Its answer, and its date minus ours in milliseconds; none if it is not connected.
    async fn ask(&self, name: &str, examination: Examination) -> Option<(Result<Examined, String>, i64)> {
        let request = AdminRequest::Examine(Box::new(examination));
        let asked = self.edges.ask_edge(name, request, EXAMINATION_MAX, &self.clock).await?;
        let now = self.clock.unix_ms();
        let read = |text: String| serde_json::from_str::<Examined>(&text).map_err(|error| error.to_string());
        let examined = asked.and_then(read);
        let ahead_ms = examined.as_ref().map_or(0, |examined| {
            let connected = self.edges.connected().borrow().clone();
            let up = connected.iter().find(|up| up.name == name).and_then(|up| up.session.round_trip());
            let way_ms = up.map_or(0, |round_trip| i64::try_from(round_trip.as_millis() / 2).unwrap_or(0));
            examined.unix_ms + way_ms - now
        });
        Some((examined, ahead_ms))
    }

    /// Octets a second that pass each way, both at once.
    async fn throughput(&self, name: &str) -> Option<u64> {
        let began = self.clock.now();
        let back = u32::try_from(ECHO_OCTETS_MAX).unwrap_or(u32::MAX);
        let echo = || AdminRequest::Echo { there: vec![b'='; ECHO_OCTETS_MAX], back };
        for _ in 0..ECHOES {
            let echoes = (0..ECHOES_AT_ONCE).map(|_| self.edges.ask_edge(name, echo(), ECHO_MAX, &self.clock));
            if join_all(echoes).await.iter().any(|answer| !matches!(answer, Some(Ok(_)))) {
                return None;
            }
        }
        let took_ms = self.clock.now().saturating_duration_since(began).as_millis().max(1);
        u64::try_from((ECHOES * ECHOES_AT_ONCE * ECHO_OCTETS_MAX) as u128 * 1000 / took_ms).ok()
    }

    /// A message of each domain that is never sent. Blocking.
    fn sign_some(&self) -> Vec<Signed> {
        let mut all = Vec::new();
        for ring in self.store.signing.rings() {
            let domain = ring.domain.to_string();
            let text = format!(
                "From: <postmaster@{domain}>\r\nTo: <postmaster@{domain}>\r\nSubject: a look at what receivers see\r\n\
                 Date: {}\r\nMessage-ID: <doctor@{domain}>\r\n\r\nThis is never sent.\r\n",
                mail_date(self.clock.unix_s())
            );
            let message = Message { front: bytes::Bytes::new(), body: Body::from(text.clone().into_bytes()) };
            let fields = match self.store.signing.fields(&message, &Purpose::Ours) {
                Ok(signed) => signed.map(|signed| signed.fields).unwrap_or_default(),
                Err(error) => {
                    tracing::warn!(%error, domain, "a message for the doctor can't be signed");
                    Vec::new()
                }
            };
            all.push(Signed { domain, text: String::from_utf8_lossy(&fields).into_owned() + &text });
        }
        all
    }
}
