//! dkimpy, somebody else's reading of DKIM and ARC: says which signatures of a message hold.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use super::{JUDGES, note};
use crate::pair::program::said;

/// What it found.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    /// Each DKIM signature, the topmost first.
    pub dkim: Vec<Signature>,
    /// `cv` of the ARC chain: `none`, `pass`, `fail`.
    pub arc: String,
    /// ARC sets.
    pub sets: usize,
    /// What it says of the chain.
    pub why: String,
}

/// One DKIM signature.
#[derive(Clone, Debug, Deserialize)]
pub struct Signature {
    /// It holds.
    pub good: bool,
    /// Why not.
    pub why: Option<String>,
    /// d=
    pub domain: String,
    /// s=
    pub selector: String,
    /// a=
    pub algorithm: String,
}

/// Judges a message by the keys this name server knows.
pub fn judge(message: &[u8], dns: SocketAddr) -> anyhow::Result<Judged> {
    note("dkimpy");
    let mut child = Command::new(JUDGES)
        .args(["-c", include_str!("dkimpy.py")])
        .args([dns.ip().to_string(), dns.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{JUDGES} is missing; tests/install installs it"))?;
    // It reads all before it says anything.
    child.stdin.take().context("no stdin")?.write_all(message)?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "dkimpy: {}", said(&output));
    Ok(serde_json::from_slice(&output.stdout)?)
}
