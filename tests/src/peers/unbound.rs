//! An Unbound of our own: the resolver between the edge and a world of zones.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::program;
use crate::observe;
use crate::world::ports;

/// Runs until dropped.
pub struct Unbound {
    /// Where it listens.
    pub address: SocketAddr,
    base: tempfile::TempDir,
    daemon: Child,
}

impl Unbound {
    /// Asks this server for the root and these zones below it, and validates by these anchors.
    pub fn validating(server: SocketAddr, zones: &[&str], anchors: &Path) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-unbound-").tempdir()?;
        let b = base.path();
        let address = ports::free();
        let config = b.join("unbound.conf");
        let stub =
            |zone: &&str| format!("stub-zone:\n name: \"{zone}\"\n stub-addr: {}@{}\n", server.ip(), server.port());
        let stubs: String = [&"."].into_iter().chain(zones).map(stub).collect();
        let text = format!(
            "server:\n directory: \"{b}\"\n username: \"\"\n chroot: \"\"\n pidfile: \"{b}/pid\"\n interface: {ip}@{port}\n use-syslog: no\n \
             do-not-query-localhost: no\n do-ip6: no\n num-threads: 1\n val-log-level: 2\n cache-max-negative-ttl: 1\n harden-algo-downgrade: no\n\
             module-config: \"validator iterator\"\n trust-anchor-file: \"{anchors}\"\nremote-control:\n control-enable: no\n{stubs}",
            b = b.display(),
            anchors = anchors.display(),
            ip = address.ip(),
            port = address.port(),
        );
        fs::write(&config, text)?;
        let log = fs::File::create(b.join("log"))?;
        let daemon = Command::new(program("unbound"))
            .args(["-d", "-p", "-c"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start Unbound")?;
        let unbound = Self { address, base, daemon };
        let said = || fs::read_to_string(unbound.base.path().join("log")).unwrap_or_default();
        observe::until_ok("Unbound to listen", || TcpStream::connect(address).map(drop).with_context(said));
        Ok(unbound)
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
