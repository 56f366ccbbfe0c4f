//! sslyze, which scans TLS servers and knows Mozilla's profiles; and Postfix's `posttls-finger`, which looks at a mail host
//! as Postfix would before it sends there.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use super::{note, program, run};
use crate::pair::program::said;

/// Where `tests/install` puts it: it does not get along with the judges.
const SCANNER: &str = "/opt/gatepost-tests/scanner/bin/python3";

/// What it found.
#[derive(Clone, Debug, Deserialize)]
pub struct Scanned {
    /// What is against the intermediate profile, by name.
    pub wrong: serde_json::Map<String, serde_json::Value>,
    /// Versions of TLS that are spoken.
    pub versions: Vec<String>,
}

/// Scans a server of this name, with STARTTLS of SMTP or without.
pub fn scan(server: SocketAddr, name: &str, starttls: bool, ca: &Path) -> anyhow::Result<Scanned> {
    note("sslyze");
    anyhow::ensure!(Path::new(SCANNER).exists(), "{SCANNER} is missing; tests/install installs it");
    let mut command = Command::new(SCANNER);
    command.args(["-W", "ignore", "-c", include_str!("sslyze.py"), name]);
    command.args([server.ip().to_string(), server.port().to_string()]);
    let told = run(command.arg(if starttls { "smtp" } else { "tls" }).arg(ca))?;
    serde_json::from_str(&told).with_context(|| told.clone())
}

/// What Postfix says of a mail host that has to prove that it is `name`.
pub fn postfix_looks_at(server: SocketAddr, name: &str, ca: &Path) -> anyhow::Result<String> {
    note("postfix");
    let output = Command::new(program("posttls-finger"))
        .args(["-c", "-l", "secure", "-L", "summary", "-F"])
        .arg(ca)
        .arg(format!("[{}]:{}", server.ip(), server.port()))
        .arg(name)
        .stdin(Stdio::null())
        .output()?;
    Ok(said(&output))
}
