//! Pairing by code, as the owner of both machines does it, and more homes behind the same edge.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use super::files::{self, HomeDoors, Node};
use super::options::{Options, Pairing};
use super::program::Program;
use super::{APP_PASSWORD, Pair};
use crate::observe;
use crate::world::authority::Authority;
use crate::world::ports;

/// A home beside the pair's own, behind the same first edge.
pub struct AnotherHome {
    /// The process.
    pub program: Program,
    /// 465 on its LAN.
    pub submissions: SocketAddr,
    /// What it serves.
    pub domain: String,
}

impl Pair {
    /// A code of this edge, which runs.
    pub fn code(&self, edge: usize) -> anyhow::Result<String> {
        let edge = &self.edges[edge];
        let address = edge.proxy.as_ref().map_or(edge.doors.tunnel, crate::fault::proxy::Proxy::address).to_string();
        let code = observe::until_ok("the edge to open a code", || edge.program.ask(&["pair", "--address", &address]));
        Ok(code.trim().to_owned())
    }

    /// Pairs the home with this edge, which runs.
    pub fn pair_by_code(&self, edge: usize) -> anyhow::Result<String> {
        let (code, name) = (self.code(edge)?, self.edges[edge].program.name.clone());
        self.home.program.ask(&["pair", &code, "--name", &name])
    }

    /// Writes the config of another home. It is neither paired nor started.
    pub fn another_home(&self, name: &str, domain: &str) -> anyhow::Result<AnotherHome> {
        let program = Program::new(name, &self.home.program.binary, self.directory(), None, &[]);
        let hostname = format!("{name}.{domain}");
        let certificate = Authority::new(&self.directory().join("tls").join(name))?.issue(&[&hostname, "127.0.0.1"])?;
        let options = Options { domains: vec![domain.to_owned()], pairing: Pairing::ByCode, ..Options::default() };
        let submissions = ports::free();
        let node = Node { hostname: &hostname, certificate: &certificate, dns: self.dns.address() };
        let doors = HomeDoors { submissions, imaps: ports::free(), relay: None };
        files::write_home(&program.config, &options, node, doors, &[], self.sink.address())?;
        Ok(AnotherHome { program, submissions, domain: domain.to_owned() })
    }
}

impl AnotherHome {
    /// Pairs it with the pair's first edge, gives it an account, starts it, and waits until the edge has it.
    pub fn join(&mut self, pair: &Pair, account: &str, password: &str) -> anyhow::Result<()> {
        self.program.ask(&["pair", &pair.code(0)?])?;
        self.program.ask_with(&["account", "add", account], &format!("{password}\n"))?;
        self.program.start()?;
        observe::until_ok("the edge to have the other home and its directory", || {
            let status = pair.edge().program.ask_json(&["status", "--json"])?;
            let homes = status["homes"].as_array().context("homes")?;
            let own = homes.iter().find(|home| home["domains"][0] == self.domain.as_str()).context("its home")?;
            anyhow::ensure!(own["connected"] == true && own["directory_version"].is_u64(), "{status:#}");
            Ok(())
        });
        Ok(())
    }

    /// An app password for an account, which can only submit.
    pub fn submission_password(&self, account: &str) -> anyhow::Result<String> {
        Ok(self.program.ask(&["app-password", "add", account, APP_PASSWORD])?.trim().to_owned())
    }

    /// The Maildir of an account.
    pub fn maildir(&self, account: &str) -> PathBuf {
        let (local, domain) = account.rsplit_once('@').unwrap_or((account, &self.domain));
        self.program.state.join("mail").join(domain).join(local)
    }
}
