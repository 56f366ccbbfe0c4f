//! checkdmarc, which tells the owner of a domain what is wrong with its records.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::{note, python, run};

/// All it says of a domain, by this name server; of one that is said to have no mail if `parked`.
pub fn check(domain: &str, parked: bool, dns: SocketAddr) -> anyhow::Result<Value> {
    note("checkdmarc");
    let mut command = Command::new(python());
    command.args(["-c", include_str!("checkdmarc.py")]).args([dns.ip().to_string(), dns.port().to_string()]);
    Ok(serde_json::from_str(&run(command.args([domain, if parked { "parked" } else { "mail" }]))?)?)
}
