//! The DNS records that the domains of this home need, by what is known of its edges and keys. Pure. Nothing is made
//! up: what is not known is said to be so, and stands in no record.

pub mod issuance;
mod web;
pub mod written;

use std::collections::BTreeSet;
use std::net::IpAddr;

use gatepost_protocol::mail::address::{Domain, is_at_or_below};
use gatepost_protocol::mail::mta_sts::StsPolicy;
use gatepost_protocol::mail::services::Services;
use gatepost_protocol::network::{is_public, reversed};
use serde::{Deserialize, Serialize};

use self::issuance::Issuance;

/// Who gets reports about a domain's mail: this local part there, which every domain has (RFC 5321 §4.5.1).
pub const REPORTS_TO: &str = "postmaster";
/// Between the preferences of two mail hosts there is room for another.
const PREFERENCE_STEP: usize = 10;
/// Keys of one edge that are told.
const PINS_MAX: usize = 8;
/// Services of mail that nobody offers here (RFC 6186 §3.4).
const NOT_OFFERED: [&str; 4] = ["_imap", "_pop3s", "_pop3", "_submission"];

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The edges, in the order of the config.
    pub edges: Vec<EdgeFacts>,
    /// This home.
    pub home: HomeFacts,
    /// Keys that sign.
    pub keys: Vec<KeyFacts>,
    /// Some mail leaves by other hosts than the edges.
    pub leaves_elsewhere: bool,
    /// Mail has passed for a while: others may be told to refuse what fails.
    pub tested: bool,
    /// The policy that the edges serve.
    pub mta_sts: Option<StsPolicy>,
    /// Where mail programs find their servers.
    pub services: Services,
}

/// What is known of the home itself.
#[derive(Clone, Debug, Default)]
pub struct HomeFacts {
    /// The name in its certificate.
    pub host: Option<Domain>,
    /// Whom it asks for that.
    pub issuance: Option<Issuance>,
}

/// What is known of one edge.
#[derive(Clone, Debug, Default)]
pub struct EdgeFacts {
    /// Its name in the config.
    pub name: String,
    /// Its host name, as it says itself.
    pub host: Option<Domain>,
    /// Its addresses, as the home reaches it.
    pub addresses: Vec<IpAddr>,
    /// Whether accounts may send by it.
    pub submissions: Option<bool>,
    /// Whom it asks for its certificate.
    pub issuance: Option<Issuance>,
    /// The keys of its certificate.
    pub pins: Vec<Pin>,
    /// Names that should lead to it, and do not as far as it sees: no certificate is ordered for them.
    pub elsewhere: Vec<String>,
}

/// A key that others can be told to expect (RFC 7672).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What its TLSA record says.
    pub record: String,
    /// It is to follow the one in use.
    pub is_next: bool,
    /// It stays when the certificate is renewed, as far as the edge decides that.
    pub is_kept: bool,
}

impl Pin {
    /// What an edge tells of its keys.
    pub fn of_status(told: &serde_json::Value) -> Vec<Self> {
        let pins = told.as_array().into_iter().flatten().take(PINS_MAX).filter_map(|told| {
            let record = told["record"].as_str()?;
            let digest = record.strip_prefix("3 1 1 ")?;
            let is_good = digest.len() == 64 && digest.bytes().all(|octet| octet.is_ascii_hexdigit());
            let (is_next, is_kept) = (told["phase"] == "next", told["kept"] == true);
            is_good.then(|| Self { record: record.to_owned(), is_next, is_kept })
        });
        pins.collect()
    }

    fn note(&self) -> &'static str {
        match (self.is_next, self.is_kept) {
            (true, _) => "of the key that is to follow, which waits for this record",
            (false, true) => {
                "counts only where the zone is signed (DNSSEC); the key stays when the certificate is renewed"
            }
            (false, false) => {
                "counts only where the zone is signed (DNSSEC); leave it out unless whatever renews the edge's files keeps the key"
            }
        }
    }
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// Whose.
    pub domain: Domain,
    /// Name of its record.
    pub name: String,
    /// Text of its record.
    pub text: String,
    /// Where it stands.
    pub phase: KeyPhase,
}

/// Where a key that signs mail stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPhase {
    /// It waits for its record.
    Waiting,
    /// It signs.
    Signs,
    /// It signed, and mail that is under way needs its record.
    Retired,
}

impl KeyPhase {
    /// What is said of its record.
    fn note(self) -> &'static str {
        match self {
            Self::Waiting => "of a new key, which waits for it",
            Self::Signs => "of a key that signs now",
            Self::Retired => "of an old key, for mail that is under way; it goes a week after it signed last",
        }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The domain it belongs to.
    pub domain: String,
    /// Its name, without the last dot.
    pub name: String,
    /// `MX`, `TXT`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says, as a zone file has it; the whole text of a TXT record. None while it is not known.
    pub value: Option<String>,
    /// What is to be done about it.
    pub state: State,
    /// More about it, for people.
    pub note: Option<String>,
}

/// What is to be done about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// To be published in the zone.
    Publish,
    /// To be asked of whoever rents out the server.
    AskProvider,
    /// Something it needs is not known.
    NotKnown,
    /// This version has no use for it.
    Later,
}

/// A host of edges.
struct Host<'a> {
    name: &'a Domain,
    addresses: Vec<IpAddr>,
    submissions: Option<bool>,
    issuances: Vec<Issuance>,
    pins: Vec<Pin>,
}

struct Making {
    domain: String,
    records: Vec<Record>,
}

impl Making {
    fn new(domain: &Domain) -> Self {
        Self { domain: domain.to_string(), records: Vec::new() }
    }

    fn add(&mut self, name: &str, kind: &str, value: impl Into<String>) -> &mut Record {
        self.push(name, kind, Some(value.into()), State::Publish, None)
    }

    fn unknown(&mut self, name: &str, kind: &str, why: &str) {
        self.push(name, kind, None, State::NotKnown, Some(why.to_owned()));
    }

    fn later(&mut self, name: &str, kind: &str, why: &str) {
        self.push(name, kind, None, State::Later, Some(why.to_owned()));
    }

    fn push(
        &mut self,
        name: &str,
        kind: &str,
        value: Option<String>,
        state: State,
        note: Option<String>,
    ) -> &mut Record {
        let at = self.records.len();
        let (domain, name, kind) = (self.domain.clone(), name.to_owned(), kind.to_owned());
        self.records.push(Record { domain, name, kind, value, state, note });
        &mut self.records[at]
    }
}

/// All records of one domain of this home.
pub fn of_domain(facts: &Facts, domain: &Domain) -> Vec<Record> {
    let mut making = Making::new(domain);
    let name = domain.as_str();
    mail_hosts(&mut making, facts, name);
    hosts(&mut making, facts, domain);
    senders(&mut making, facts, name);
    for key in facts.keys.iter().filter(|key| key.domain == *domain) {
        making.add(&key.name, "TXT", &key.text).note = Some(key.phase.note().to_owned());
    }
    let policy = if facts.tested { "reject" } else { "none" };
    let dmarc =
        making.add(&format!("_dmarc.{name}"), "TXT", format!("v=DMARC1; p={policy}; rua=mailto:{REPORTS_TO}@{name}"));
    if !facts.tested {
        dmarc.note = Some("only watches; see --tested".to_owned());
    }
    making.add(&format!("_smtp._tls.{name}"), "TXT", format!("v=TLSRPTv1; rua=mailto:{REPORTS_TO}@{name}"));
    services(&mut making, facts, name);
    web::records(&mut making, facts, name);
    certificates(&mut making, facts, domain);
    making.records
}

/// All records of a domain that neither sends nor receives mail.
pub fn of_parked(domain: &Domain) -> Vec<Record> {
    let mut making = Making::new(domain);
    let name = domain.as_str();
    making.add(name, "MX", "0 .").note = Some("it takes no mail".to_owned());
    making.add(name, "TXT", "v=spf1 -all").note = Some("it sends none".to_owned());
    making.add(&format!("*._domainkey.{name}"), "TXT", "v=DKIM1; p=").note = Some("it signs none".to_owned());
    making.add(&format!("_dmarc.{name}"), "TXT", "v=DMARC1; p=reject; adkim=s; aspf=s");
    making.records
}

/// Each host once, however many edges answer to its name.
fn known_hosts(facts: &Facts) -> Vec<Host<'_>> {
    let mut hosts: Vec<Host<'_>> = Vec::new();
    for edge in &facts.edges {
        let Some(name) = &edge.host else { continue };
        match hosts.iter_mut().find(|host| host.name == name) {
            Some(host) => {
                let new = edge.addresses.iter().filter(|address| !host.addresses.contains(address));
                let new: Vec<_> = new.copied().collect();
                host.addresses.extend(new);
                host.submissions = host.submissions.or(edge.submissions);
                host.issuances.extend(edge.issuance.clone());
                host.pins.extend(edge.pins.clone());
            }
            None => hosts.push(Host {
                name,
                addresses: edge.addresses.clone(),
                submissions: edge.submissions,
                issuances: edge.issuance.iter().cloned().collect(),
                pins: edge.pins.clone(),
            }),
        }
    }
    hosts
}

/// Edges of which something is not known, named.
fn without(facts: &Facts, is_missing: impl Fn(&EdgeFacts) -> bool, what: &str) -> Option<String> {
    let names: Vec<_> = facts.edges.iter().filter(|edge| is_missing(edge)).map(|edge| edge.name.as_str()).collect();
    if facts.edges.is_empty() {
        return Some("this home has no edge".to_owned());
    }
    (!names.is_empty()).then(|| format!("{what} of {} is not known: connect it and ask again", names.join(", ")))
}

fn mail_hosts(making: &mut Making, facts: &Facts, domain: &str) {
    for (nth, host) in known_hosts(facts).iter().enumerate() {
        making.add(domain, "MX", format!("{} {}.", (nth + 1) * PREFERENCE_STEP, host.name));
    }
    if let Some(why) = without(facts, |edge| edge.host.is_none(), "the host name") {
        making.unknown(domain, "MX", &why);
    }
}

/// The edges' own names, where they lie in this domain.
fn hosts(making: &mut Making, facts: &Facts, domain: &Domain) {
    for host in known_hosts(facts) {
        let name = host.name.as_str();
        if !is_at_or_below(name, domain.as_str()) {
            continue;
        }
        if host.addresses.is_empty() {
            making.unknown(name, "A", "its address is not known: connect the edge and ask again");
            continue;
        }
        for address in &host.addresses {
            let note = (!is_public(*address)).then(|| format!("{address} is no address the world can reach"));
            making.add(name, address_type(*address), address.to_string()).note = note;
        }
        // Bounces have no other sender than the name in EHLO (RFC 7208 §2.4).
        if host.name != domain {
            making.add(name, "TXT", "v=spf1 a -all").note = Some("for reports, which have no sender".to_owned());
        }
        for pin in &host.pins {
            let note = Some(pin.note().to_owned());
            making.add(&format!("_25._tcp.{name}"), "TLSA", pin.record.clone()).note = note;
        }
        for address in &host.addresses {
            let note = format!("ask whoever rents you the server to let {address} point back to {name}");
            making.push(&reverse_name(*address), "PTR", Some(format!("{name}.")), State::AskProvider, Some(note));
        }
    }
}

/// The home's own name leads to the edges, which carry the CA's questions to it; and who may issue for each host.
fn certificates(making: &mut Making, facts: &Facts, domain: &Domain) {
    let hosts = known_hosts(facts);
    for host in &hosts {
        if is_at_or_below(host.name.as_str(), domain.as_str()) {
            issuance::caa(making, host.name.as_str(), &host.issuances);
        }
    }
    let (Some(home), Some(issuance)) = (&facts.home.host, &facts.home.issuance) else { return };
    let name = home.as_str();
    if !is_at_or_below(name, domain.as_str()) || hosts.iter().any(|host| host.name == home) {
        return;
    }
    let addresses: BTreeSet<IpAddr> = facts.edges.iter().flat_map(|edge| edge.addresses.iter().copied()).collect();
    for address in &addresses {
        let note = "of an edge, which carries what the CA asks to your home".to_owned();
        making.add(name, address_type(*address), address.to_string()).note = Some(note);
    }
    if addresses.is_empty() {
        making.unknown(name, "A", "no edge's address is known: connect one and ask again");
    }
    issuance::caa(making, name, std::slice::from_ref(issuance));
}

fn senders(making: &mut Making, facts: &Facts, domain: &str) {
    if let Some(why) = without(facts, |edge| edge.addresses.is_empty(), "the address") {
        return making.unknown(domain, "TXT (SPF)", &why);
    }
    let addresses: BTreeSet<IpAddr> = facts.edges.iter().flat_map(|edge| edge.addresses.iter().copied()).collect();
    let mut text = "v=spf1".to_owned();
    for address in &addresses {
        let mechanism = if address.is_ipv4() { " ip4:" } else { " ip6:" };
        text.push_str(mechanism);
        text.push_str(&address.to_string());
    }
    text.push_str(if facts.tested { " -all" } else { " ~all" });
    let mut notes = Vec::new();
    if facts.leaves_elsewhere {
        notes.push("some mail leaves by a [[route]]: add what that host's owner tells you (include:…)");
    }
    if !facts.tested {
        notes.push("careful; see --tested");
    }
    making.add(domain, "TXT", text).note = (!notes.is_empty()).then(|| notes.join("; "));
}

/// Where mail programs find their servers (RFC 6186, RFC 8314 §5.1).
fn services(making: &mut Making, facts: &Facts, domain: &str) {
    let hosts = known_hosts(facts);
    let name = format!("_submissions._tcp.{domain}");
    let open: Vec<_> = hosts.iter().filter(|host| host.submissions == Some(true)).collect();
    for (nth, host) in open.iter().enumerate() {
        making.add(&name, "SRV", format!("{nth} 1 465 {}.", host.name));
    }
    if open.is_empty() {
        match without(facts, |edge| edge.host.is_none() || edge.submissions.is_none(), "whether port 465 is open") {
            Some(why) if !facts.edges.is_empty() => making.unknown(&name, "SRV", &why),
            _ => making.add(&name, "SRV", "0 0 0 .").note = Some("not offered".to_owned()),
        }
    }
    let imaps = format!("_imaps._tcp.{domain}");
    match &facts.services.imaps {
        Some(service) => drop(making.add(&imaps, "SRV", format!("0 1 {} {}.", service.port, service.host))),
        None => making.add(&imaps, "SRV", "0 0 0 .").note = Some("not offered".to_owned()),
    }
    for service in NOT_OFFERED {
        making.add(&format!("{service}._tcp.{domain}"), "SRV", "0 0 0 .").note = Some("not offered".to_owned());
    }
}

/// What people look for, and why it is not here.
/// The type of the record an address stands in.
pub fn address_type(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

/// The name whose PTR record is an address's (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reverse_name(address: IpAddr) -> String {
    format!("{}.{}", reversed(address), if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" })
}

#[cfg(test)]
mod tests;
