//! `pair.json`: where everything is, for whoever drives a pair from outside. A listener that is not
//! built yet is `null`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// The first edge.
    pub edge: EdgeFacts,
    /// The others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<EdgeFacts>,
    /// The home.
    pub home: HomeFacts,
    /// The embedded DNS server, `host:port`.
    pub dns: String,
    /// The certificate every client trusts (PEM file).
    pub ca: String,
    /// Where outbound mail ends.
    pub sink: SinkFacts,
    /// Who can log in.
    pub accounts: Vec<AccountFacts>,
}

/// One edge. Addresses are `host:port`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EdgeFacts {
    /// Its name at home.
    pub name: String,
    /// 25.
    pub smtp: Option<String>,
    /// 465.
    pub submissions: Option<String>,
    /// 993.
    pub imaps: Option<String>,
    /// 80.
    pub http: Option<String>,
    /// Where the home dials.
    pub tunnel: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// What started it, and starts it again.
    pub command: Vec<String>,
    /// Config file.
    pub config: String,
    /// State directory.
    pub state: String,
}

/// The home. Addresses are `host:port`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HomeFacts {
    /// 465.
    pub submissions: Option<String>,
    /// 993.
    pub imaps: Option<String>,
    /// 25 on the LAN.
    pub relay: Option<String>,
    /// The web page.
    pub web: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// What started it, and starts it again.
    pub command: Vec<String>,
    /// Config file.
    pub config: String,
    /// State directory.
    pub state: String,
    /// Where all Maildirs are.
    pub maildir: String,
}

/// The sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkFacts {
    /// `host:port`.
    pub address: String,
    /// What it got, as a Maildir; envelopes beside it.
    pub maildir: String,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFacts {
    /// Address, which is the login name too.
    pub address: String,
    /// Full password.
    pub password: String,
    /// App password that can only submit.
    pub submission_password: String,
    /// Its Maildir.
    pub maildir: String,
}

impl Facts {
    /// Reads the file of an earlier run, if there is a good one.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes the file, readable by its owner only: it holds passwords.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        Ok(file.write_all(b"\n")?)
    }
}
