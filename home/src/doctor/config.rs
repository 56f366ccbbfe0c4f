//! `[doctor]`: whom it asks.

use std::net::SocketAddr;

use gatepost_runtime::config::{ConfigError, Placed};
use serde::Deserialize;

/// Resolvers that anybody may ask, and that know nothing of this home's network.
const SERVERS: [&str; 2] = ["9.9.9.10:53", "1.1.1.1:53"];
/// DNS lists that many receivers heed.
const LISTS: [&str; 4] = ["zen.spamhaus.org", "bl.spamcop.net", "psbl.surriel.com", "b.barracudacentral.org"];
/// Domains whose mail hosts answer everybody at port 25.
const REACHES: [&str; 3] = ["gmail.com", "outlook.com", "gmx.net"];

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDoctor {
    #[serde(default)]
    servers: Vec<Placed<String>>,
    lists: Option<Vec<String>>,
    reaches: Option<Vec<String>>,
}

/// Whom the doctor asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// DNS servers that see what the world sees.
    pub servers: Vec<SocketAddr>,
    /// DNS lists.
    pub lists: Vec<String>,
    /// Domains of which one mail host at least must be reached from an edge.
    pub reaches: Vec<String>,
}

impl RawDoctor {
    /// Checks it; `server` reads the address of a DNS server.
    pub fn check(
        self,
        server: impl Fn(&Placed<String>) -> Result<SocketAddr, ConfigError>,
    ) -> Result<Settings, ConfigError> {
        let given = self.servers.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        let known = || SERVERS.iter().filter_map(|server| server.parse().ok()).collect();
        let names = |given: Option<Vec<String>>, known: &[&str]| {
            given.unwrap_or_else(|| known.iter().map(|&name| name.to_owned()).collect())
        };
        Ok(Settings {
            servers: if given.is_empty() { known() } else { given },
            lists: names(self.lists, &LISTS),
            reaches: names(self.reaches, &REACHES),
        })
    }
}
