//! The two real programs on loopback, with a world around them, in one throwaway directory. Used by
//! `cargo pair`, by every end-to-end story, and by whoever measures.
//!
//! Ports are chosen before anything starts and stay, so a program that was killed comes back where it was.
//! The pair restarts nothing by itself.

pub mod build;
pub mod code;
pub mod facts;
pub mod files;
pub mod options;
pub mod program;
pub mod tour;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost_runtime::random;
use serde_json::Value;

use self::build::Binaries;
use self::facts::{AccountFacts, EdgeFacts, Facts, HomeFacts, SinkFacts};
use self::files::{EdgeDoors, EdgePeer, HomeDoors, Node};
use self::options::{Options, Pairing};
use self::program::Program;
use crate::fault::proxy::Proxy;
use crate::observe;
use crate::world::authority::{self, Authority, Issued};
use crate::world::dns::Dns;
use crate::world::ports;
use crate::world::sink::Sink;

/// Name of the app password each account gets.
pub const APP_PASSWORD: &str = "pair";

/// Names of edges: the first, the second…
fn edge_name(index: usize) -> String {
    if index == 0 { "edge".to_owned() } else { format!("edge{}", index + 1) }
}

/// One edge of a pair.
pub struct Edge {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub doors: EdgeDoors,
    /// The proxy between the home and it, if one was asked for.
    pub proxy: Option<Proxy>,
}

/// The home of a pair.
pub struct Home {
    /// The process.
    pub program: Program,
    /// 465 on the LAN.
    pub submissions: SocketAddr,
    /// 993 on the LAN.
    pub imaps: SocketAddr,
    /// 25 on the LAN: open only if a network is trusted.
    pub relay: Option<SocketAddr>,
}

/// A running pair. Dropping it kills both programs and removes its directory, unless it was given one.
pub struct Pair {
    /// The edges, the first of them the one most stories speak of.
    pub edges: Vec<Edge>,
    /// The home.
    pub home: Home,
    /// Who can log in.
    pub accounts: Vec<AccountFacts>,
    /// Where outbound mail ends.
    pub sink: Sink,
    /// The embedded DNS.
    pub dns: Dns,
    /// The certificate every client trusts.
    pub ca: PathBuf,
    /// The edge's name, in its certificate too.
    pub edge_hostname: String,
    /// The home's name, in its certificate too.
    pub home_hostname: String,
    directory: PathBuf,
    runtime: tokio::runtime::Runtime,
    // Last: removed after everything that uses it has ended.
    _temporary: Option<tempfile::TempDir>,
}

impl Pair {
    /// Builds, sets up, starts, and waits until mail can flow.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let mut pair = Self::prepare(options)?;
        for edge in &mut pair.edges {
            edge.program.start()?;
        }
        if options.pairing == Pairing::ByCode {
            for edge in 0..pair.edges.len() {
                pair.pair_by_code(edge)?;
            }
        }
        pair.home.program.start()?;
        pair.wait_until_up();
        pair.write_facts()?;
        Ok(pair)
    }

    /// Everything but starting the two programs.
    pub fn prepare(options: &Options) -> anyhow::Result<Self> {
        let mut binaries = match &options.programs {
            Some(folder) => Binaries::in_folder(folder),
            None => build::binaries()?,
        };
        if options.older_edge {
            binaries.edge = build::older_binaries()?.edge;
        }
        if options.older_home {
            binaries.home = build::older_binaries()?.home;
        }
        let temporary = match &options.state {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("gatepost-pair-").tempdir()?),
        };
        let directory = match (&options.state, &temporary) {
            (Some(state), _) => {
                fs::create_dir_all(state).with_context(|| format!("can't make {}", state.display()))?;
                fs::canonicalize(state)?
            }
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of them is made above"),
        };
        let earlier = Facts::read(&directory.join("pair.json"));
        let domain = options.all_domains().remove(0);
        let edge_hostname = format!("mail.{domain}");
        let home_hostname = format!("home.{domain}");
        let authority = Authority::new(&directory.join("tls"))?;
        let edge_certificate = authority.issue(&[&edge_hostname, "localhost", "127.0.0.1"])?;
        let home_certificate = authority.issue(&[&home_hostname, "localhost", "127.0.0.1"])?;
        let sink_certificate = authority.issue(&["sink.example", "localhost", "127.0.0.1"])?;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let records = records(options, &edge_hostname, &home_hostname);
        let at = options.addresses;
        let dns = runtime.block_on(Dns::start(free_at(at.world), &records))?;
        let tls = sink_certificate.server_config()?;
        let sink =
            runtime.block_on(Sink::start(free_at(at.world), "sink.example", &directory.join("sink"), Some(tls)))?;

        let home_program =
            Program::new("home", &binaries.home, &directory, options.home_state.as_deref(), &options.home_wrapper);
        let home_key = home_program.ask(&["key"])?.trim().to_owned();
        let mut edges = Vec::new();
        let mut peers = Vec::new();
        for index in 0..options.edges.max(1) {
            let name = edge_name(index);
            let state = options.edge_state.as_deref().filter(|_| index == 0);
            let program = Program::new(&name, &binaries.edge, &directory, state, &options.edge_wrapper);
            let free = || free_at(at.edge);
            let doors = EdgeDoors { smtp: free(), submissions: free(), imaps: free(), tunnel: free() };
            let proxy = if options.tunnel_proxy { Some(Proxy::start(doors.tunnel)?) } else { None };
            let node = Node { hostname: &edge_hostname, certificate: &edge_certificate, dns: dns.address() };
            files::write_edge(&program.config, options, node, doors, &home_key)?;
            peers.push(EdgePeer {
                name,
                address: proxy.as_ref().map_or(doors.tunnel, Proxy::address),
                key: program.ask(&["key"])?.trim().to_owned(),
            });
            edges.push(Edge { program, doors, proxy });
        }
        if options.pairing == Pairing::ByCode {
            peers.clear();
        }
        peers.extend(options.more_edges.iter().cloned());
        let submissions = free_at(at.home);
        let imaps = free_at(at.home);
        let relay = options.trusts_somebody().then(|| free_at(at.home));
        let node = Node { hostname: &home_hostname, certificate: &home_certificate, dns: dns.address() };
        let doors = HomeDoors { submissions, imaps, relay };
        files::write_home(&home_program.config, options, node, doors, &peers, sink.address())?;
        let mut pair = Self {
            edges,
            home: Home { program: home_program, submissions, imaps, relay },
            accounts: Vec::new(),
            sink,
            dns,
            ca: authority.certificate(),
            edge_hostname,
            home_hostname,
            directory,
            runtime,
            _temporary: temporary,
        };
        let known = earlier.map(|facts| facts.accounts).unwrap_or_default();
        for (address, password) in wanted_accounts(options, &domain) {
            let account = match known.iter().find(|account| account.address == address) {
                Some(account) => account.clone(),
                None => pair.make_account(&address, &password)?,
            };
            pair.accounts.push(account);
        }
        Ok(pair)
    }

    /// The first edge.
    pub fn edge(&self) -> &Edge {
        &self.edges[0]
    }

    /// The first edge, to kill or restart it.
    pub fn edge_mut(&mut self) -> &mut Edge {
        &mut self.edges[0]
    }

    /// The directory everything is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An account by its address.
    ///
    /// # Panics
    /// If there is none.
    pub fn account(&self, address: &str) -> &AccountFacts {
        self.accounts.iter().find(|account| account.address == address).expect("an account of this pair")
    }

    /// The Maildir of an account.
    pub fn maildir(&self, address: &str) -> PathBuf {
        PathBuf::from(&self.account(address).maildir)
    }

    /// A TLS client that trusts the private CA.
    pub fn tls(&self) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        authority::client_config(&self.ca)
    }

    /// Adds DNS records, zone-file syntax.
    pub fn add_records(&self, records: &str) -> anyhow::Result<()> {
        self.runtime.block_on(self.dns.add(records))
    }

    /// From now on the first edge asks this name server, and has forgotten what others answered.
    ///
    /// # Panics
    /// If it does not take its config.
    pub fn ask_dns_at(&self, server: SocketAddr) {
        let edge = &self.edge().program;
        let mut config: toml::Table =
            fs::read_to_string(&edge.config).expect("readable").parse().expect("a config is TOML");
        config["dns"]["servers"] = vec![server.to_string()].into();
        fs::write(&edge.config, config.to_string()).expect("writable");
        edge.ask(&["reload"]).expect("the config is taken");
    }

    /// Puts these in the place of all DNS records of that name and type.
    pub fn replace_records(&self, name: &str, kind: &str, values: &[&str]) -> anyhow::Result<()> {
        let mut records = String::new();
        for value in values {
            writeln!(records, "{name}. 0 IN {kind} {value}")?;
        }
        self.runtime.block_on(async {
            self.dns.remove(&format!("{name}."), kind).await?;
            self.dns.add(&records).await
        })
    }

    /// Starts another sink, with a Maildir of its own below the pair's directory; with STARTTLS if `tls`.
    pub fn another_sink(&self, name: &str, address: SocketAddr, tls: bool) -> anyhow::Result<Sink> {
        let config = if tls {
            let authority = Authority::new(&self.directory.join("tls").join(name))?;
            Some(authority.issue(&["sink.example", "localhost", "127.0.0.1"])?.server_config()?)
        } else {
            None
        };
        self.runtime.block_on(Sink::start(address, "sink.example", &self.directory.join(name), config))
    }

    /// The same with STARTTLS and this certificate.
    pub fn sink_with(&self, name: &str, address: SocketAddr, issued: &Issued) -> anyhow::Result<Sink> {
        let config = Some(issued.server_config()?);
        self.runtime.block_on(Sink::start(address, "sink.example", &self.directory.join(name), config))
    }

    /// Waits until every edge has a session with the home and its directory.
    ///
    /// # Panics
    /// If that takes longer than a minute, with what both say of themselves.
    pub fn wait_until_up(&mut self) {
        let what = "the tunnel to be up and the directory at the edge";
        let Self { edges, home, .. } = self;
        observe::until(
            what,
            || Standing::of(edges, home),
            |standing| {
                let interrupted = observe::is_interrupted();
                assert!(standing.all_run || interrupted, "a program has ended: {standing:#?}");
                standing.is_up()
            },
        );
    }

    /// Waits until the first edge has a session with the home.
    pub fn wait_until_connected(&self) {
        observe::until_ok("the edge to have a session with the home", || {
            let status = self.edges[0].program.ask_json(&["status", "--json"])?;
            anyhow::ensure!(edge_is_connected(&status), "{status:#}");
            Ok(())
        });
    }

    /// Whether the first edge has a session with the home.
    pub fn is_connected(&self) -> anyhow::Result<bool> {
        Ok(edge_is_connected(&self.edges[0].program.ask_json(&["status", "--json"])?))
    }

    /// Messages sealed at the first edge now.
    pub fn spooled(&self) -> anyhow::Result<u64> {
        let status = self.edges[0].program.ask_json(&["status", "--json"])?;
        status["homes"][0]["spool"]["messages"].as_u64().with_context(|| format!("no spool in {status:#}"))
    }

    /// Messages in the outbound queue now.
    pub fn queued(&self) -> anyhow::Result<usize> {
        let queue = self.home.program.ask_json(&["queue", "list", "--json"])?;
        // A home of the version before lists all it has, and no total.
        let listed = || queue["messages"].as_array().map(|messages| messages.len() as u64);
        let total = queue["total"].as_u64().or_else(listed).with_context(|| format!("no total in {queue:#}"))?;
        Ok(usize::try_from(total)?)
    }

    /// Waits until the edge knows that the home is away.
    pub fn wait_until_down(&self) {
        observe::until_ok("the edge to see that the home is away", || {
            let status = self.edges[0].program.ask_json(&["status", "--json"])?;
            anyhow::ensure!(!edge_is_connected(&status), "{status:#}");
            Ok(())
        });
    }

    /// What `pair.json` says.
    pub fn facts(&self) -> Facts {
        let mut edges = self.edges.iter().map(|edge| EdgeFacts {
            name: edge.program.name.clone(),
            smtp: Some(edge.doors.smtp.to_string()),
            submissions: Some(edge.doors.submissions.to_string()),
            imaps: Some(edge.doors.imaps.to_string()),
            http: None,
            tunnel: Some(edge.doors.tunnel.to_string()),
            pid: edge.program.pid(),
            command: words(&edge.program),
            config: edge.program.config.display().to_string(),
            state: edge.program.state.display().to_string(),
        });
        Facts {
            edge: edges.next().expect("a pair has an edge"),
            edges: edges.collect(),
            home: HomeFacts {
                submissions: Some(self.home.submissions.to_string()),
                imaps: Some(self.home.imaps.to_string()),
                relay: self.home.relay.map(|address| address.to_string()),
                web: None,
                pid: self.home.program.pid(),
                command: words(&self.home.program),
                config: self.home.program.config.display().to_string(),
                state: self.home.program.state.display().to_string(),
                maildir: self.home.program.state.join("mail").display().to_string(),
            },
            dns: self.dns.address().to_string(),
            ca: self.ca.display().to_string(),
            sink: SinkFacts {
                address: self.sink.address().to_string(),
                maildir: self.sink.maildir().display().to_string(),
            },
            accounts: self.accounts.clone(),
        }
    }

    /// Writes `pair.json`.
    pub fn write_facts(&self) -> anyhow::Result<()> {
        self.facts().write(&self.directory.join("pair.json"))
    }

    /// Makes an account with a password and a submission-only app password.
    pub fn make_account(&self, address: &str, password: &str) -> anyhow::Result<AccountFacts> {
        let home = &self.home.program;
        home.ask_with(&["account", "add", address], &format!("{password}\n"))?;
        let submission_password = home.ask(&["app-password", "add", address, APP_PASSWORD])?.trim().to_owned();
        let (local, domain) = address.rsplit_once('@').context("an account is named by its address")?;
        let maildir = home.state.join("mail").join(domain).join(local);
        Ok(AccountFacts {
            address: address.to_owned(),
            password: password.to_owned(),
            submission_password,
            maildir: maildir.display().to_string(),
        })
    }
}

/// What was seen of a starting pair.
#[derive(Debug)]
struct Standing {
    all_run: bool,
    edges: Vec<Value>,
    home: Value,
    last_words: Vec<String>,
}

impl Standing {
    fn of(edges: &mut [Edge], home: &mut Home) -> Self {
        let status = |program: &Program| {
            program.ask_json(&["status", "--json"]).unwrap_or_else(|error| Value::String(format!("{error:#}")))
        };
        let mut standing = Self {
            all_run: home.program.is_running() && edges.iter_mut().all(|edge| edge.program.is_running()),
            edges: edges.iter().map(|edge| status(&edge.program)).collect(),
            home: status(&home.program),
            last_words: Vec::new(),
        };
        if !standing.is_up() {
            standing.last_words = edges.iter().map(|edge| edge.program.last_words()).collect();
            standing.last_words.push(home.program.last_words());
        }
        standing
    }

    fn is_up(&self) -> bool {
        let at_home = self.home["edges"].as_array().map_or(&[][..], Vec::as_slice);
        let is_up_to_date = |edge: &&Value| edge["directory_held"] == self.home["directory_version"];
        let up_to_date = at_home.iter().filter(is_up_to_date).count();
        self.edges.iter().all(edge_is_connected) && up_to_date >= self.edges.len()
    }
}

fn edge_is_connected(status: &Value) -> bool {
    let home = &status["homes"][0];
    home["connected"] == true && home["directory_version"].is_u64()
}

/// A free port of this address.
fn free_at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, ports::free().port())
}

fn words(program: &Program) -> Vec<String> {
    program.command().into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn wanted_accounts(options: &Options, domain: &str) -> Vec<(String, String)> {
    if options.accounts.is_empty() {
        vec![(format!("alice@{domain}"), URL_SAFE_NO_PAD.encode(random::bytes::<15>()))]
    } else {
        options.accounts.clone()
    }
}

/// The world's DNS as the pair's owner would have set it up.
fn records(options: &Options, edge_hostname: &str, home_hostname: &str) -> String {
    let mut records = format!(
        "{edge_hostname}. 60 IN A 127.0.0.1\n{home_hostname}. 60 IN A 127.0.0.1\n\
         sink.example. 60 IN A 127.0.0.1\n1.0.0.127.in-addr.arpa. 60 IN PTR {edge_hostname}.\n"
    );
    for domain in options.all_domains() {
        let _ = writeln!(records, "{domain}. 60 IN MX 10 {edge_hostname}.");
    }
    if options.zone.is_empty() {
        // Whoever says nothing of the world means one in which others exist: nobody takes mail from a domain that does
        // not. Nothing is ever below `invalid` (RFC 6761 §6.4).
        for top in ["example", "test", "com", "net", "org"] {
            let _ = writeln!(records, "*.{top}. 60 IN MX 10 sink.example.");
        }
    }
    records.push_str(&options.zone);
    records
}
