//! What OpenSSL sees of a server, and SCRAM-SHA-256-PLUS with somebody else's TLS: no common mail client binds to TLS 1.3 channels yet, so
//! a Python script does, over `openssl s_client`, which exports the binding.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::clients::Submission;
use super::program;
use crate::pair::program::said;

/// Submits; gives the reply to the end of the message.
pub fn scram_plus(submission: Submission<'_>) -> anyhow::Result<String> {
    let mut child = Command::new(program("python3"))
        .args(["-c", include_str!("scram_plus.py")])
        .arg(program("openssl"))
        .arg(submission.server.to_string())
        .arg(submission.ca)
        .args([submission.login, submission.password, submission.from, submission.to])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(submission.message)?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "SCRAM-SHA-256-PLUS: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The public key of the certificate that a server shows to a client with these options, as text.
pub fn public_key(server: SocketAddr, name: &str, ca: &Path, how: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program("openssl"));
    command.args(["s_client", "-connect", &server.to_string(), "-servername", name, "-CAfile"]).arg(ca).args(how);
    let shown = command.stdin(Stdio::null()).output()?;
    let from = String::from_utf8_lossy(&shown.stdout).into_owned();
    let begin = from.find("-----BEGIN CERTIFICATE").with_context(|| said(&shown))?;
    let mut child = Command::new(program("openssl"))
        .args(["x509", "-noout", "-text"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(&from.as_bytes()[begin..])?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
