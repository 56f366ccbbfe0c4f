//! `home.toml`, in two stages: raw is exactly the file, with the place of every value; checked is what
//! the parts run on, each by its own table. Nothing is optional after the check but what may be absent.

pub mod changes;
pub mod edit;
mod names;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::policy::Policies;
use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::acme::keeper::Origin;
use gatepost_runtime::acme::settings as acme;
use gatepost_runtime::alarm;
use gatepost_runtime::certificate::CertificateFiles;
use gatepost_runtime::config::changes::ConfigFile;
use gatepost_runtime::config::{ConfigError, Placed, Size, Source};
use serde::Deserialize;

use crate::accounts;
use crate::accounts::caps::Cap;
use crate::delivery::config::{Keepers, RawDelivery};
use crate::doctor;
use crate::edges::EdgeSettings;
use crate::metrics;
use crate::policy;
use crate::publishing;
use crate::queue;
use crate::queue::next_hop::{Ourselves, RawRoute, Routes};
use crate::reporting;
use crate::submission::networks::Networks;
use crate::trace;

/// Where the file is looked for.
pub const PATH: &str = "/etc/gatepost/home.toml";
/// Where the state lies unless the config or `--state` says otherwise.
pub const STATE: &str = "/var/lib/gatepost-home";
/// Largest message that can be configured.
const MESSAGE_OCTETS_LIMIT: u64 = 1024 * 1024 * 1024;
/// Smallest message limit that can be configured (RFC 5321 §4.5.3.1.7).
const MESSAGE_OCTETS_FLOOR: u64 = 64 * 1024;

/// The file as written.
#[derive(Deserialize)]
#[expect(missing_debug_implementations, reason = "routes may hold passwords")]
#[serde(deny_unknown_fields)]
pub struct Raw {
    hostname: Placed<String>,
    domains: Placed<Vec<Placed<String>>>,
    postmaster: Placed<String>,
    state: Option<PathBuf>,
    subaddress_separator: Option<Placed<String>>,
    #[serde(default)]
    account_passwords_at_edge: bool,
    #[serde(default)]
    trusted_networks: Vec<Placed<String>>,
    #[serde(default)]
    trusted_senders: Vec<Placed<String>>,
    #[serde(default)]
    edge: Vec<RawEdge>,
    #[serde(default)]
    listen: RawListen,
    tls: Option<CertificateFiles>,
    acme: Option<Placed<acme::RawAcme>>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    dns: RawDns,
    #[serde(default)]
    delivery: RawDelivery,
    #[serde(default)]
    policy: policy::RawPolicy,
    #[serde(default)]
    alarm: alarm::RawAlarm,
    #[serde(default)]
    queue: queue::config::RawQueue,
    #[serde(default)]
    route: Vec<RawRoute>,
    #[serde(default)]
    trace: trace::RawTrace,
    #[serde(default)]
    metrics: metrics::RawMetrics,
    #[serde(default)]
    doctor: doctor::config::RawDoctor,
    #[serde(default)]
    reports: reporting::config::RawReports,
    #[serde(default)]
    mta_sts: publishing::RawMtaSts,
    #[serde(default)]
    autoconfig: publishing::RawAutoconfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdge {
    name: Placed<String>,
    address: Placed<String>,
    key: Placed<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    smtp: Option<Placed<String>>,
    submissions: Option<Placed<String>>,
    imaps: Option<Placed<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    message: Option<Placed<Size>>,
    account_recipients_per_hour: Option<Placed<u32>>,
    account_recipients_per_day: Option<Placed<u32>>,
    mailbox: Option<Placed<Size>>,
    submission_connections: Option<Placed<usize>>,
    submission_connections_per_address: Option<Placed<usize>>,
    imap_connections: Option<Placed<usize>>,
    imap_connections_per_address: Option<Placed<usize>>,
    smtp_connections: Option<Placed<usize>>,
    smtp_connections_per_address: Option<Placed<usize>>,
    trusted_recipients_per_hour: Option<Placed<usize>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDns {
    #[serde(default)]
    servers: Vec<Placed<String>>,
}

/// The one key some commands look at.
#[derive(Deserialize)]
struct OnlyState {
    state: Option<PathBuf>,
}

/// The checked config.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from.
    pub file: ConfigFile,
    /// Our name on the LAN: certificate, EHLO, Received.
    pub hostname: String,
    /// Domains served, the main one first.
    pub domains: Vec<Domain>,
    /// Who gets what nobody else should.
    pub postmaster: Address,
    /// The state directory.
    pub state: PathBuf,
    /// Separator of subaddresses.
    pub subaddress_separator: Option<char>,
    /// See [`accounts::Settings::account_passwords_at_edge`].
    pub account_passwords_at_edge: bool,
    /// Edges to dial. None: a home for its LAN only.
    pub edges: Vec<EdgeSettings>,
    /// Where submissions are taken; `None` if turned off.
    pub submissions: Option<SocketAddr>,
    /// Where mail is read; `None` if it is not, neither here nor by way of edges.
    pub imaps: Option<SocketAddr>,
    /// Relaying for the LAN; `None` if nobody is trusted, or the door is turned off.
    pub relay: Option<RelaySettings>,
    /// Recipients a trusted device, or a local user, may write to in an hour.
    pub trusted_recipients_per_hour_max: u32,
    /// Domains not ours that mail without a login may come from.
    pub trusted_senders: Vec<Domain>,
    /// Certificate of the owner's.
    pub tls: Option<CertificateFiles>,
    /// The CA that is asked for one.
    pub acme: Option<acme::Settings>,
    /// What an account may send that has no cap of its own.
    pub cap: Cap,
    /// Largest message, in octets.
    pub message_octets_max: u64,
    /// What a mailbox may hold, in octets, unless its account has a quota of its own.
    pub mailbox_octets_max: Option<u64>,
    /// Submission connections at once.
    pub submission_connections_max: usize,
    /// Submission connections at once from one address.
    pub submission_connections_per_address_max: usize,
    /// Connections of the LAN's mail clients at once.
    pub imap_connections_max: usize,
    /// The same from one address.
    pub imap_connections_per_address_max: usize,
    /// `[alarm]`.
    pub alarm: alarm::Settings,
    /// Resolvers; none means the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// Whom the doctor asks.
    pub doctor: doctor::config::Settings,
    /// `[delivery]`.
    pub keepers: Keepers,
    /// `[policy]`.
    pub policies: Policies,
    /// `[mta_sts]` and `[autoconfig]`.
    pub publishing: publishing::Settings,
    /// `[queue]`.
    pub queue: queue::config::Settings,
    /// `[[route]]`.
    pub routes: Routes,
    /// `[trace]`.
    pub trace: trace::Rules,
    /// `[reports]`.
    pub reports: reporting::config::Settings,
    /// Where Prometheus may ask; `None` if nobody may.
    pub metrics: Option<SocketAddr>,
    /// What is allowed and yet strange: told by `check` and at start.
    pub warnings: Vec<String>,
}

/// Relaying for devices of the LAN that can't log in: home:25.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// Where.
    pub address: SocketAddr,
    /// For whom; never empty.
    pub networks: Networks,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub connections_per_address_max: usize,
}

impl Config {
    /// Reads and checks a file. `state` overrides the file's own.
    pub fn read(path: &Path, state: Option<&Path>) -> Result<Self, ConfigError> {
        Self::of(&Source::read(path)?, ConfigFile::new(path, state))
    }

    /// Checks a text as if it stood in the file.
    pub fn check_text(path: &Path, text: &str) -> Result<(), ConfigError> {
        Self::of(&Source::from_text(&path.display().to_string(), text), ConfigFile::new(path, None)).map(drop)
    }

    fn of(source: &Source, file: ConfigFile) -> Result<Self, ConfigError> {
        let raw: Raw = source.parse()?;
        let mut config = check(raw, source, file)?;
        if let Some(state) = &config.file.state {
            config.state.clone_from(state);
        }
        Ok(config)
    }

    /// Reads the same file again, the same way.
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::read(&self.file.path, self.file.state.as_deref())
    }

    /// The state directory alone, for commands that need no more; the file need not be there yet.
    pub fn state_path(path: &Path, state: Option<&Path>) -> Result<PathBuf, ConfigError> {
        if let Some(state) = state {
            return Ok(state.to_owned());
        }
        if !path.exists() {
            return Ok(STATE.into());
        }
        let only: OnlyState = Source::read(path)?.parse()?;
        Ok(only.state.unwrap_or_else(|| STATE.into()))
    }

    /// What the accounts need of it.
    pub fn accounts(&self, seal_key: Vec<u8>) -> accounts::Settings {
        accounts::Settings {
            domains: self.domains.clone(),
            postmaster: self.postmaster.clone(),
            subaddress_separator: self.subaddress_separator,
            account_passwords_at_edge: self.account_passwords_at_edge,
            message_octets_max: self.message_octets_max,
            cap: self.cap,
            mailbox_octets_max: self.mailbox_octets_max,
            local_hosts: self.local_hosts(),
            trusted_senders: self.trusted_senders.clone(),
            policies: self.policies.clone(),
            hosts: self.own_hosts(),
            edges: self.edges.iter().map(|edge| (edge.name.clone(), names::dialled(edge))).collect(),
            imaps_host: self.imaps_host(),
            publishing: self.publishing.clone(),
            seal_key,
        }
    }
}

impl Config {
    /// Where the certificate comes from.
    pub fn certificate(&self) -> Origin<'_> {
        Origin { files: self.tls.as_ref(), acme: self.acme.as_ref(), hostname: &self.hostname, state: &self.state }
    }
}

fn check(raw: Raw, source: &Source, file: ConfigFile) -> Result<Config, ConfigError> {
    let acme = acme::Settings::check(raw.acme.as_ref(), raw.tls.as_ref(), false, source)?;
    let mut warnings = Vec::new();
    let hostname = host_name(&raw.hostname, source)?;
    let domains = domains(&raw.domains, source)?;
    let postmaster = postmaster(&raw.postmaster, &domains, source)?;
    let edges = edges(&raw.edge, source)?;
    if edges.is_empty() {
        warnings.push(
            "no [[edge]]: this home takes mail from its LAN only, and sends only by [[route]] with via = \"home\""
                .into(),
        );
    }
    let submissions = match &raw.listen.submissions {
        None => Some(SocketAddr::from(([0u16; 8], 465))),
        Some(written) => listener(written, source)?,
    };
    let imaps = match &raw.listen.imaps {
        None => Some(SocketAddr::from(([0u16; 8], 993))),
        Some(written) => listener(written, source)?,
    };
    let relay = relay(&raw, source, &mut warnings)?;
    let keepers = Keepers::check(&raw.delivery, &domains, source)?;
    let policies = policy::check(&raw.policy, &domains, source)?;
    warnings.extend(policy::warning(&policies));
    let doors: Vec<SocketAddr> = submissions.into_iter().chain(relay.as_ref().map(|relay| relay.address)).collect();
    let routes = Routes::check(raw.route, &ourselves(&hostname, &doors, &edges), source)?;
    let mut queue = queue::config::Settings::check(raw.queue, &hostname, postmaster.clone(), source)?;
    queue.own_doors = doors;
    let alarm = alarm::Settings::check(&raw.alarm, |address| domains.contains(address.domain()), source)?;
    Ok(Config {
        file,
        reports: raw.reports.check(&domains),
        domains,
        postmaster,
        state: raw.state.unwrap_or_else(|| STATE.into()),
        subaddress_separator: separator(raw.subaddress_separator.as_ref(), source)?,
        account_passwords_at_edge: raw.account_passwords_at_edge,
        edges,
        submissions,
        imaps,
        relay,
        trusted_recipients_per_hour_max: u32::try_from(count(
            raw.limits.trusted_recipients_per_hour.as_ref(),
            500,
            source,
        )?)
        .unwrap_or(u32::MAX),
        trusted_senders: host_names(&raw.trusted_senders, source)?,
        tls: raw.tls,
        acme,
        cap: cap(&raw.limits, source)?,
        message_octets_max: message_octets(raw.limits.message.as_ref(), source)?,
        mailbox_octets_max: raw.limits.mailbox.as_ref().map(|written| mailbox_octets(written, source)).transpose()?,
        submission_connections_max: count(raw.limits.submission_connections.as_ref(), 200, source)?,
        submission_connections_per_address_max: count(
            raw.limits.submission_connections_per_address.as_ref(),
            20,
            source,
        )?,
        imap_connections_max: count(raw.limits.imap_connections.as_ref(), 500, source)?,
        imap_connections_per_address_max: count(raw.limits.imap_connections_per_address.as_ref(), 60, source)?,
        doctor: raw.doctor.check(|server| dns_server(server, source))?,
        dns_servers: raw.dns.servers.iter().map(|server| dns_server(server, source)).collect::<Result<_, _>>()?,
        keepers,
        policies,
        publishing: publishing::check(&raw.mta_sts, &raw.autoconfig, source)?,
        alarm,
        queue,
        routes,
        trace: trace::Rules::check(&raw.trace, source)?,
        metrics: raw.metrics.check(source)?,
        hostname,
        warnings,
    })
}

fn relay(raw: &Raw, source: &Source, warnings: &mut Vec<String>) -> Result<Option<RelaySettings>, ConfigError> {
    let (networks, strange) = Networks::check(&raw.trusted_networks, source)?;
    warnings.extend(strange);
    let address = match &raw.listen.smtp {
        None => Some(SocketAddr::from(([0u16; 8], 25))),
        Some(written) => listener(written, source)?,
    };
    let connections_max = count(raw.limits.smtp_connections.as_ref(), 100, source)?;
    let connections_per_address_max = count(raw.limits.smtp_connections_per_address.as_ref(), 10, source)?;
    if networks.is_empty() {
        if raw.listen.smtp.is_some() && address.is_some() {
            warnings.push("listen.smtp: nobody may send there, so it stays shut; name the networks of your devices in trusted_networks".into());
        }
        return Ok(None);
    }
    Ok(address.map(|address| RelaySettings { address, networks, connections_max, connections_per_address_max }))
}

fn host_names(written: &[Placed<String>], source: &Source) -> Result<Vec<Domain>, ConfigError> {
    let parse = |written: &Placed<String>| match Domain::parse(written.get_ref()) {
        Ok(domain) if domain.literal().is_none() => Ok(domain),
        _ => Err(source.error(written, "not a domain name", "a name such as \"nas.lan\"")),
    };
    written.iter().map(parse).collect()
}

fn host_name(written: &Placed<String>, source: &Source) -> Result<String, ConfigError> {
    match Domain::parse(written.get_ref()) {
        Ok(domain) if domain.literal().is_none() => Ok(domain.to_string()),
        _ => Err(source.error(written, "not a host name", "a name such as \"home.example.org\"")),
    }
}

fn domains(written: &Placed<Vec<Placed<String>>>, source: &Source) -> Result<Vec<Domain>, ConfigError> {
    let mut domains = Vec::new();
    for written in written.get_ref() {
        let domain = match Domain::parse(written.get_ref()) {
            Ok(domain) if domain.literal().is_none() => domain,
            _ => return Err(source.error(written, "not a domain name", "a name such as \"example.org\"")),
        };
        if domains.contains(&domain) {
            return Err(source.error(written, "this domain is listed twice", "each domain once"));
        }
        domains.push(domain);
    }
    if domains.is_empty() {
        return Err(source.error(written, "no domain", "the domains whose mail comes here, such as [\"example.org\"]"));
    }
    Ok(domains)
}

fn postmaster(written: &Placed<String>, domains: &[Domain], source: &Source) -> Result<Address, ConfigError> {
    let right = format!("an address at {}", domains.iter().map(Domain::as_str).collect::<Vec<_>>().join(" or "));
    let address =
        Address::parse(written.get_ref()).map_err(|error| source.error(written, &error.to_string(), &right))?;
    if domains.contains(address.domain()) {
        Ok(address)
    } else {
        Err(source.error(written, "the postmaster's mailbox must be in a domain of this home", &right))
    }
}

fn edges(written: &[RawEdge], source: &Source) -> Result<Vec<EdgeSettings>, ConfigError> {
    let mut edges: Vec<EdgeSettings> = Vec::new();
    for edge in written {
        let name = edge.name.get_ref();
        if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err(source.error(&edge.name, "not a name for an edge", "letters, digits, - _ and . (64 at most)"));
        }
        if edges.iter().any(|other| other.name == *name) {
            return Err(source.error(&edge.name, "two edges have this name", "a name of its own for each"));
        }
        check_dial_address(&edge.address, source)?;
        let texts: &[String] = match edge.key.get_ref() {
            OneOrMany::One(text) => std::slice::from_ref(text),
            OneOrMany::Many(texts) => texts,
        };
        let keys: Vec<NodeKey> =
            texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|error| {
                source.error(&edge.key, &format!("{error}"), "the key printed by: gatepost-edge key")
            })?;
        if keys.is_empty() {
            return Err(source.error(&edge.key, "no key", "the key printed by: gatepost-edge key"));
        }
        if edges.iter().any(|other| other.keys.iter().any(|key| keys.contains(key))) {
            return Err(source.error(&edge.key, "two edges have this key", "each edge's own key"));
        }
        edges.push(EdgeSettings { name: name.clone(), address: edge.address.get_ref().clone(), keys });
    }
    Ok(edges)
}

fn check_dial_address(written: &Placed<String>, source: &Source) -> Result<(), ConfigError> {
    let right = "a name or address and a port, such as \"mail.example.org:10025\"";
    if written.get_ref().parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let parts = written.get_ref().rsplit_once(':');
    let good = parts.is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok_and(|port| port > 0)
            && (Domain::parse(host).is_ok_and(|domain| domain.literal().is_none()))
    });
    if good { Ok(()) } else { Err(source.error(written, "not an address to dial", right)) }
}

/// Hosts and ports at which mail comes back to us, as far as the config tells.
fn ourselves(hostname: &str, doors: &[SocketAddr], edges: &[EdgeSettings]) -> Ourselves {
    let mut ours = Vec::new();
    for door in doors {
        ours.push((hostname.to_owned(), door.port()));
        if door.ip().is_unspecified() {
            ours.extend(["localhost", "127.0.0.1", "::1"].map(|name| (name.to_owned(), door.port())));
        } else {
            ours.push((door.ip().to_string(), door.port()));
        }
    }
    for edge in edges {
        let Some((host, _)) = edge.address.rsplit_once(':') else { continue };
        ours.extend([25, 465].map(|port| (host.trim_matches(['[', ']']).to_owned(), port)));
    }
    Ourselves(ours)
}

fn listener(written: &Placed<String>, source: &Source) -> Result<Option<SocketAddr>, ConfigError> {
    if written.get_ref() == "off" {
        return Ok(None);
    }
    // A port alone is a port of every address.
    let port = written.get_ref().strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = port {
        return Ok(Some(SocketAddr::from(([0u16; 8], port))));
    }
    written.get_ref().parse().map(Some).map_err(|_| {
        source.error(written, "not an address to listen at", "such as \"[::]:465\" or \"192.168.1.2:465\"; or \"off\"")
    })
}

fn dns_server(written: &Placed<String>, source: &Source) -> Result<SocketAddr, ConfigError> {
    let text = written.get_ref();
    text.parse()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| source.error(written, "not a resolver's address", "such as \"192.168.1.1\" or \"[::1]:5353\""))
}

fn separator(written: Option<&Placed<String>>, source: &Source) -> Result<Option<char>, ConfigError> {
    let Some(written) = written else { return Ok(Some('+')) };
    let mut characters = written.get_ref().chars();
    match (characters.next(), characters.next()) {
        (None, _) => Ok(None),
        (Some(separator), None) if "+-_.=#".contains(separator) => Ok(Some(separator)),
        _ => Err(source.error(written, "not a separator of subaddresses", "one of + - _ . = #, or \"\" for none")),
    }
}

fn message_octets(written: Option<&Placed<Size>>, source: &Source) -> Result<u64, ConfigError> {
    let Some(written) = written else { return Ok(50 * 1024 * 1024) };
    let octets = written.get_ref().0;
    if (MESSAGE_OCTETS_FLOOR..=MESSAGE_OCTETS_LIMIT).contains(&octets) {
        Ok(octets)
    } else {
        Err(source.error(written, "out of range", "a size from \"64 KiB\" to \"1 GiB\""))
    }
}

fn cap(limits: &RawLimits, source: &Source) -> Result<Cap, ConfigError> {
    let count = |written: Option<&Placed<u32>>, default| match written {
        None => Ok(default),
        Some(written) if (1..=1_000_000).contains(written.get_ref()) => Ok(*written.get_ref()),
        Some(written) => Err(source.error(written, "out of range", "a number of recipients from 1 to 1000000")),
    };
    let cap = Cap {
        hourly: count(limits.account_recipients_per_hour.as_ref(), 500)?,
        daily: count(limits.account_recipients_per_day.as_ref(), 2000)?,
    };
    match &limits.account_recipients_per_day {
        Some(written) if cap.daily < cap.hourly => {
            Err(source.error(written, "a day's recipients are fewer than an hour's", "at least as many as for an hour"))
        }
        _ => Ok(Cap { daily: cap.daily.max(cap.hourly), ..cap }),
    }
}

fn mailbox_octets(written: &Placed<Size>, source: &Source) -> Result<u64, ConfigError> {
    match written.get_ref().0 {
        octets @ MESSAGE_OCTETS_FLOOR.. => Ok(octets),
        _ => Err(source.error(
            written,
            "a mailbox must hold at least a message",
            "a size from \"64 KiB\", or no such line",
        )),
    }
}

fn count(written: Option<&Placed<usize>>, default: usize, source: &Source) -> Result<usize, ConfigError> {
    let Some(written) = written else { return Ok(default) };
    if (1..=10_000).contains(written.get_ref()) {
        Ok(*written.get_ref())
    } else {
        Err(source.error(written, "out of range", "a number from 1 to 10000"))
    }
}

#[cfg(test)]
mod tests;
