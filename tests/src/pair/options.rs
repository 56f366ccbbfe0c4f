//! What a pair is made of. The default is what `cargo pair` shows: one domain, one account, one edge,
//! all outbound mail to the embedded sink.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context as _;

use super::files::EdgePeer;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kept there if given; else thrown away at the end.
    pub state: Option<PathBuf>,
    /// Accounts to make: address and password.
    pub accounts: Vec<(String, String)>,
    /// Domains served; those of the accounts are added.
    pub domains: Vec<String>,
    /// More DNS records, zone-file syntax. Without any, every domain below `example`, `test`, `com`, `net` and `org`
    /// has a mail host; else those that have records exist, and no others.
    pub zone: String,
    /// Where outbound mail goes.
    pub outbound: Outbound,
    /// How many edges.
    pub edges: usize,
    /// Edges the home dials beside those of the pair.
    pub more_edges: Vec<EdgePeer>,
    /// `KEY=VALUE` to merge into each edge's config.
    pub edge_set: Vec<String>,
    /// `KEY=VALUE` to merge into the home's config.
    pub home_set: Vec<String>,
    /// Where edges and home have their certificates from.
    pub certificates: Certificates,
    /// How the two sides know each other.
    pub pairing: Pairing,
    /// Put a proxy that can cut and swallow between home and edge.
    pub tunnel_proxy: bool,
    /// Words put before the edge's command (a tracer).
    pub edge_wrapper: Vec<String>,
    /// Words put before the home's command (a tracer).
    pub home_wrapper: Vec<String>,
    /// A directory for the edge's state, such as a small file system of its own.
    pub edge_state: Option<PathBuf>,
    /// A directory for the home's state.
    pub home_state: Option<PathBuf>,
    /// The edge of an older build.
    pub older_edge: bool,
    /// The home of an older build.
    pub older_home: bool,
    /// A folder with the two programs; without one they are built.
    pub programs: Option<PathBuf>,
    /// Where everything listens.
    pub addresses: Addresses,
}

/// The addresses of a pair and its world; ports are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// DNS and sink.
    pub world: IpAddr,
    /// The edges.
    pub edge: IpAddr,
    /// The home.
    pub home: IpAddr,
}

impl Default for Addresses {
    fn default() -> Self {
        let here = Ipv4Addr::LOCALHOST.into();
        Self { world: here, edge: here, home: here }
    }
}

/// How the two sides know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Each config lists the other.
    ByHand,
    /// Each config is left without the other side, for [`super::Pair::pair_by_code`].
    ByCode,
}

/// Where edges and home have their certificates from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// Files of the pair's own CA.
    Files,
    /// What the settings say; without any, they are self-signed.
    AsSet,
}

/// Where outbound mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Everything to the embedded sink.
    Sink,
    /// These routes, as domain and `host:port`; the rest to the sink.
    Routes(Vec<(String, String)>),
    /// These routes, and that of [`super::tour::FRIEND`] to the sink; the rest by MX, as in the world.
    RoutesElseMx(Vec<(String, String)>),
    /// No route at all: by MX, as in the world.
    ByMx,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            state: None,
            accounts: Vec::new(),
            domains: Vec::new(),
            zone: String::new(),
            outbound: Outbound::Sink,
            edges: 1,
            more_edges: Vec::new(),
            edge_set: Vec::new(),
            home_set: Vec::new(),
            certificates: Certificates::Files,
            pairing: Pairing::ByHand,
            tunnel_proxy: false,
            edge_wrapper: Vec::new(),
            home_wrapper: Vec::new(),
            edge_state: None,
            home_state: None,
            older_edge: false,
            older_home: false,
            programs: None,
            addresses: Addresses::default(),
        }
    }
}

impl Options {
    /// Two accounts of `example.org`, alice and bob, who know their passwords: what most stories need.
    pub fn story() -> Self {
        Self {
            accounts: vec![
                ("alice@example.org".to_owned(), "wonderland is a quiet place".to_owned()),
                ("bob@example.org".to_owned(), "a bridge over the brook".to_owned()),
            ],
            ..Self::default()
        }
    }

    /// With this in the edge's config.
    pub fn edge_set(mut self, setting: &str) -> Self {
        self.edge_set.push(setting.to_owned());
        self
    }

    /// With this in the home's config.
    pub fn home_set(mut self, setting: &str) -> Self {
        self.home_set.push(setting.to_owned());
        self
    }

    /// To be paired by code.
    pub fn by_code(mut self) -> Self {
        self.pairing = Pairing::ByCode;
        self
    }

    /// With a proxy in the tunnel.
    pub fn tunnel_proxy(mut self) -> Self {
        self.tunnel_proxy = true;
        self
    }

    /// Whether the home is told to trust a network.
    pub fn trusts_somebody(&self) -> bool {
        self.home_set.iter().any(|setting| setting.starts_with("trusted_networks="))
    }

    /// Every domain that is served, each once, the first of them ours by name.
    pub fn all_domains(&self) -> Vec<String> {
        let mut domains = self.domains.clone();
        for (address, _) in &self.accounts {
            let domain = address.rsplit_once('@').map_or(address.as_str(), |(_, domain)| domain);
            if !domains.iter().any(|known| known.eq_ignore_ascii_case(domain)) {
                domains.push(domain.to_owned());
            }
        }
        if domains.is_empty() {
            domains.push("example.org".to_owned());
        }
        domains
    }
}

/// Merges `a.b.c=VALUE` into a table. VALUE is TOML, or else a string.
pub fn merge(table: &mut toml::Table, setting: &str) -> anyhow::Result<()> {
    let (path, value) = setting.split_once('=').with_context(|| format!("{setting:?} is no KEY=VALUE"))?;
    let value = value.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| value.into());
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().context("an empty key")?;
    let mut at = table;
    for key in keys {
        let entry = at.entry(key).or_insert_with(|| toml::Table::new().into());
        at = match entry {
            toml::Value::Table(table) => table,
            _ => anyhow::bail!("{key:?} in {setting:?} is no table"),
        };
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_numbers_lists_and_strings() {
        let mut table = toml::Table::new();
        merge(&mut table, "limits.connections=1000").unwrap();
        merge(&mut table, "queue.retry=[\"1 s\"]").unwrap();
        merge(&mut table, "queue.expire=3 s").unwrap();
        assert_eq!(table["limits"]["connections"].as_integer(), Some(1000));
        assert_eq!(table["queue"]["retry"][0].as_str(), Some("1 s"));
        assert_eq!(table["queue"]["expire"].as_str(), Some("3 s"));
        assert!(merge(&mut table, "limits").is_err());
    }
}
