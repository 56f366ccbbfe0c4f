//! `OpenDKIM` and `OpenDMARC`, which judge mail for a Postfix. They ask the name server of the system.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::program;
use crate::observe;
use crate::world::ports;

/// No client of a test has this address: both would let pass what comes from loopback.
const NOBODY: &str = "192.0.2.1\n";

/// One of them. Runs until dropped.
#[derive(Debug)]
pub struct Milter {
    /// Where it listens.
    pub address: SocketAddr,
    base: tempfile::TempDir,
    daemon: Child,
}

impl Milter {
    /// `OpenDKIM`, which verifies every signature and writes what it found under this name.
    pub fn opendkim(authserv_id: &str) -> anyhow::Result<Self> {
        let config = "Mode v\nSyslog no\nAlwaysAddARHeader yes\nNameservers 127.0.0.1\nInternalHosts refile:NOBODY\n";
        Self::start("opendkim", &["-f", "-x"], config, authserv_id)
    }

    /// `OpenDMARC`, which asks for SPF itself, believes what `OpenDKIM` wrote, and refuses what the sender's domain wants
    /// refused.
    pub fn opendmarc(authserv_id: &str) -> anyhow::Result<Self> {
        Self::opendmarc_that(authserv_id, "SPFIgnoreResults true")
    }

    /// The same beside a program that checks SPF: what that wrote is believed.
    pub fn opendmarc_beside_spf(authserv_id: &str) -> anyhow::Result<Self> {
        Self::opendmarc_that(authserv_id, "SPFIgnoreResults false")
    }

    fn opendmarc_that(authserv_id: &str, spf: &str) -> anyhow::Result<Self> {
        let config = format!(
            "TrustedAuthservIDs {authserv_id}\nSyslog false\nSPFSelfValidate true\n{spf}\n\
             RejectFailures true\nIgnoreHosts NOBODY\nPublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat\n"
        );
        Self::start("opendmarc", &["-f", "-c"], &config, authserv_id)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    fn start(name: &str, words: &[&str], config: &str, authserv_id: &str) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix(&format!("gatepost-{name}-")).tempdir()?;
        let address = ports::free();
        let (file, nobody) = (base.path().join("conf"), base.path().join("nobody"));
        fs::write(&nobody, NOBODY)?;
        let socket = format!("inet:{}@{}", address.port(), address.ip());
        let config = config.replace("NOBODY", &nobody.display().to_string());
        fs::write(&file, format!("{config}AuthservID {authserv_id}\nSocket {socket}\n"))?;
        let log = fs::File::create(base.path().join("log"))?;
        let daemon = Command::new(program(name))
            .args(words)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        let milter = Self { address, base, daemon };
        let said = || fs::read_to_string(milter.base.path().join("log")).unwrap_or_default();
        observe::until_ok(&format!("{name} to listen"), || TcpStream::connect(address).map(drop).with_context(said));
        Ok(milter)
    }
}

impl Drop for Milter {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
