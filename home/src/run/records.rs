//! Gathers what the DNS records of the domains depend on: of the keys, of the edges that are connected, of the DNS.

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Store;
use super::control::{DNS_WAIT_MAX, Desk};
use crate::accounts::snapshot::Published;
use crate::config::Config;
use crate::edges::EdgeSettings;
use crate::edges::ask::Answer;
use crate::records::issuance::Issuance;
use crate::records::{self, EdgeFacts, Facts, HomeFacts, KeyFacts, KeyPhase, Pin, Record};
use crate::signing::schedule::Phase;

/// The key under which a request travels.
pub const KEY: &str = "dns";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Of this domain; of all if none is named.
    pub domain: Option<String>,
    /// As it should be once mail has passed for a while.
    pub tested: bool,
}

/// The records, and what they follow from.
pub(super) struct Known {
    pub(super) edges: Vec<EdgeFacts>,
    pub(super) keys: Vec<KeyFacts>,
    pub(super) records: Vec<Record>,
}

impl Desk {
    /// The records, by all that is known now.
    pub(super) async fn dns(&self, request: Request) -> Result<Value, String> {
        let told = self.edges.ask(AdminRequest::Status, &self.clock).await;
        let known = self.records(&request, &told).await?;
        Ok(json!({ "records": known.records }))
    }

    /// What is known, with what the edges told of themselves.
    pub(super) async fn records(&self, request: &Request, told: &[Answer]) -> Result<Known, String> {
        let config = self.reloader.config().await;
        let edges = self.edge_facts(&config, told).await;
        let home = HomeFacts { host: host_name(&config.hostname), issuance: Issuance::of_status(&self.acme.json()) };
        list(&self.store, &config, (home, edges), request)
    }

    /// What is known of the edges of the config, with what they told of themselves.
    pub(super) async fn edge_facts(&self, config: &Config, told: &[Answer]) -> Vec<EdgeFacts> {
        let connected = self.edges.connected().borrow().clone();
        let mut edges = Vec::with_capacity(config.edges.len());
        for edge in &config.edges {
            let told = told.iter().find(|(name, _)| *name == edge.name).and_then(|(_, told)| told.as_deref().ok());
            let status: Value = told.and_then(|told| serde_json::from_str(told).ok()).unwrap_or_default();
            let up = connected.iter().find(|up| up.name == edge.name);
            // One that is older calls itself by its host name in the session as well.
            let host = status["hostname"].as_str().or_else(|| up.map(|up| up.session.facts().node.as_str()));
            let asked = tokio::time::timeout(DNS_WAIT_MAX, self.store.resolver.addresses(host_of(edge), true));
            let mut facts = EdgeFacts {
                name: edge.name.clone(),
                host: host.and_then(host_name),
                addresses: asked.await.ok().and_then(Result::ok).unwrap_or_default(),
                submissions: status["submissions"].as_bool(),
                issuance: Issuance::of_status(&status["acme"]),
                pins: Pin::of_status(&status["tlsa"]),
                elsewhere: elsewhere(&status["names"]),
            };
            if let Some(up) = up {
                let address = up.session.facts().address.ip().to_canonical();
                if !facts.addresses.contains(&address) {
                    facts.addresses.push(address);
                }
            }
            edges.push(facts);
        }
        edges
    }
}

/// The records, by what is known while no home runs: nothing of the edges.
pub fn alone(store: &Store, config: &Config, request: &Request) -> Result<Value, String> {
    let unknown = |edge: &EdgeSettings| EdgeFacts { name: edge.name.clone(), ..EdgeFacts::default() };
    let edges = config.edges.iter().map(unknown).collect();
    let known = list(store, config, (HomeFacts::default(), edges), request)?;
    Ok(json!({ "records": known.records }))
}

fn list(
    store: &Store,
    config: &Config,
    (home, edges): (HomeFacts, Vec<EdgeFacts>),
    request: &Request,
) -> Result<Known, String> {
    let domains = match &request.domain {
        None => config.domains.clone(),
        Some(wanted) => vec![one_of(config, wanted)?],
    };
    let mut keys = Vec::new();
    for ring in store.signing.rings() {
        for key in &ring.keys {
            keys.push(KeyFacts {
                domain: ring.domain.clone(),
                name: key.record_name(&ring.domain),
                text: key.key.record().map_err(|error| error.to_string())?,
                phase: match key.phase {
                    Phase::Waiting => KeyPhase::Waiting,
                    Phase::Signs { .. } => KeyPhase::Signs,
                    Phase::Retired { .. } => KeyPhase::Retired,
                },
            });
        }
    }
    let leaves_elsewhere = !config.routes.is_empty();
    let Published { mta_sts, services } = store.accounts.published();
    let facts = Facts { edges, home, keys, leaves_elsewhere, tested: request.tested, mta_sts, services };
    let records = domains.iter().flat_map(|domain| records::of_domain(&facts, domain)).collect();
    Ok(Known { edges: facts.edges, keys: facts.keys, records })
}

fn one_of(config: &Config, wanted: &str) -> Result<Domain, String> {
    let found = Domain::parse(wanted).ok().filter(|domain| config.domains.contains(domain));
    found.ok_or_else(|| {
        let domains: Vec<_> = config.domains.iter().map(Domain::as_str).collect();
        format!(
            "{wanted} is no domain of this home ({}); for one that neither sends nor receives mail, add --parked",
            domains.join(", ")
        )
    })
}

/// A name that can stand in a record.
fn host_name(name: &str) -> Option<Domain> {
    Domain::parse(name).ok().filter(|domain| domain.literal().is_none() && domain.as_str().contains('.'))
}

/// Names an edge does not see lead to it.
fn elsewhere(names: &Value) -> Vec<String> {
    let names = names.as_array().map_or(&[][..], Vec::as_slice);
    let elsewhere = names.iter().filter(|named| named["leads_here"] == false);
    elsewhere.filter_map(|named| named["name"].as_str().map(str::to_owned)).collect()
}

/// Where it is dialled, without the port.
fn host_of(edge: &EdgeSettings) -> &str {
    edge.address.rsplit_once(':').map_or(edge.address.as_str(), |(host, _)| host)
}
