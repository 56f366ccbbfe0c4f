//! The two config files of a pair.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use toml::{Table, Value};

use super::options::{Certificates, Options, Outbound, Pairing, merge};
use super::tour::FRIEND;
use crate::world::authority::Issued;

/// Where an edge listens.
#[derive(Clone, Copy, Debug)]
pub struct EdgeDoors {
    /// Mail from the world.
    pub smtp: SocketAddr,
    /// Mail from accounts.
    pub submissions: SocketAddr,
    /// Mail clients that read.
    pub imaps: SocketAddr,
    /// The home.
    pub tunnel: SocketAddr,
}

/// Where the home listens.
#[derive(Clone, Copy, Debug)]
pub struct HomeDoors {
    /// 465 on the LAN.
    pub submissions: SocketAddr,
    /// 993 on the LAN.
    pub imaps: SocketAddr,
    /// 25 on the LAN; it opens only if a network is trusted.
    pub relay: Option<SocketAddr>,
}

/// An edge as the home knows it.
#[derive(Clone, Debug)]
pub struct EdgePeer {
    /// Its name.
    pub name: String,
    /// Where the home dials it.
    pub address: SocketAddr,
    /// Its key.
    pub key: String,
}

/// What both configs say in the same way.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Its name.
    pub hostname: &'a str,
    /// Its certificate.
    pub certificate: &'a Issued,
    /// The embedded DNS.
    pub dns: SocketAddr,
}

/// Writes an edge's config.
pub fn write_edge(
    path: &Path,
    options: &Options,
    node: Node<'_>,
    doors: EdgeDoors,
    home_key: &str,
) -> anyhow::Result<()> {
    let mut home = Table::new();
    home.insert("name".to_owned(), "cottage".into());
    home.insert("key".to_owned(), home_key.into());
    home.insert("domains".to_owned(), strings(&options.all_domains()));
    let mut listen = Table::new();
    listen.insert("smtp".to_owned(), doors.smtp.to_string().into());
    listen.insert("submissions".to_owned(), doors.submissions.to_string().into());
    // An older build knows no such door.
    if !options.older_edge {
        listen.insert("imaps".to_owned(), doors.imaps.to_string().into());
    }
    listen.insert("tunnel".to_owned(), doors.tunnel.to_string().into());
    let mut table = node.table(options);
    table.insert("listen".to_owned(), listen.into());
    if options.pairing == Pairing::ByHand {
        table.insert("home".to_owned(), Value::Array(vec![home.into()]));
    }
    for setting in &options.edge_set {
        merge(&mut table, setting)?;
    }
    Ok(fs::write(path, toml::to_string(&table)?)?)
}

/// Writes the home's config.
pub fn write_home(
    path: &Path,
    options: &Options,
    node: Node<'_>,
    doors: HomeDoors,
    edges: &[EdgePeer],
    sink: SocketAddr,
) -> anyhow::Result<()> {
    let edges = edges.iter().map(|edge| {
        let mut table = Table::new();
        table.insert("name".to_owned(), edge.name.clone().into());
        table.insert("address".to_owned(), edge.address.to_string().into());
        table.insert("key".to_owned(), edge.key.clone().into());
        Value::Table(table)
    });
    let routes: Vec<Value> = routes(&options.outbound, sink)
        .into_iter()
        .map(|(domain, host)| {
            let mut table = Table::new();
            table.insert("domain".to_owned(), domain.into());
            table.insert("host".to_owned(), host.into());
            Value::Table(table)
        })
        .collect();
    let mut listen = Table::new();
    listen.insert("submissions".to_owned(), doors.submissions.to_string().into());
    if !options.older_home {
        listen.insert("imaps".to_owned(), doors.imaps.to_string().into());
    }
    if let Some(relay) = doors.relay {
        listen.insert("smtp".to_owned(), relay.to_string().into());
    }
    let domains = options.all_domains();
    let postmaster =
        options.accounts.first().map_or_else(|| format!("postmaster@{}", domains[0]), |(address, _)| address.clone());
    let mut table = node.table(options);
    table.insert("domains".to_owned(), strings(&domains));
    table.insert("postmaster".to_owned(), postmaster.into());
    table.insert("listen".to_owned(), listen.into());
    let edges: Vec<_> = edges.collect();
    if !edges.is_empty() {
        table.insert("edge".to_owned(), Value::Array(edges));
    }
    if !routes.is_empty() {
        table.insert("route".to_owned(), Value::Array(routes));
    }
    for setting in &options.home_set {
        merge(&mut table, setting)?;
    }
    Ok(fs::write(path, toml::to_string(&table)?)?)
}

fn routes(outbound: &Outbound, sink: SocketAddr) -> Vec<(String, String)> {
    let all_to_sink = ("*".to_owned(), sink.to_string());
    match outbound {
        Outbound::Sink => vec![all_to_sink],
        Outbound::Routes(routes) => {
            let mut routes = routes.clone();
            if !routes.iter().any(|(domain, _)| domain == "*") {
                routes.push(all_to_sink);
            }
            routes
        }
        Outbound::RoutesElseMx(routes) => {
            let friends = FRIEND.rsplit_once('@').map(|(_, domain)| (domain.to_owned(), sink.to_string()));
            routes.iter().cloned().chain(friends).collect()
        }
        Outbound::ByMx => Vec::new(),
    }
}

impl Node<'_> {
    fn table(&self, options: &Options) -> Table {
        let mut tls = Table::new();
        tls.insert("certificate".to_owned(), self.certificate.certificate.display().to_string().into());
        tls.insert("key".to_owned(), self.certificate.key.display().to_string().into());
        let mut dns = Table::new();
        dns.insert("servers".to_owned(), strings(&[self.dns.to_string()]));
        let mut table = Table::new();
        table.insert("hostname".to_owned(), self.hostname.into());
        if options.certificates == Certificates::Files {
            table.insert("tls".to_owned(), tls.into());
        }
        table.insert("dns".to_owned(), dns.into());
        table
    }
}

fn strings(values: &[String]) -> Value {
    Value::Array(values.iter().map(|value| value.clone().into()).collect())
}
