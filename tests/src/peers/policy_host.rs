//! Web hosts of MTA-STS policies, by Python's own web server under TLS: what each answers can be changed while it runs.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::program;
use crate::observe;
use crate::world::authority::Issued;

/// Runs until dropped.
pub struct PolicyHost {
    folder: tempfile::TempDir,
    server: Child,
}

impl PolicyHost {
    /// At port 443 of this address, with this certificate.
    pub fn start(address: &str, issued: &Issued) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("gatepost-policies-").tempdir()?;
        let server = Command::new(program("python3"))
            .args(["-c", include_str!("policy_host.py")])
            .args([folder.path(), issued.certificate.as_path(), issued.key.as_path()])
            .arg(address)
            .stdin(Stdio::null())
            .spawn()
            .context("can't start Python")?;
        let host = Self { folder, server };
        observe::until_ok("the web host to listen", || Ok(TcpStream::connect((address, 443)).map(drop)?));
        Ok(host)
    }

    /// From now on answers so for this domain: a status (or `huge`, `endless`, `moved`, `html`) and a text.
    pub fn answer(&self, domain: &str, how: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.folder.path().join(domain), format!("{how}\n{text}"))?)
    }

    /// How often it was asked for this domain's policy.
    pub fn asked(&self, domain: &str) -> usize {
        let asked = fs::read_to_string(self.folder.path().join("asked")).unwrap_or_default();
        asked.lines().filter(|line| line.starts_with(&format!("mta-sts.{domain}/"))).count()
    }
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
