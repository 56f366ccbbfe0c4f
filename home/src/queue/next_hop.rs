//! Where a recipient's mail goes next: the config's `[[route]]` tables, else the domain's mail hosts
//! by way of an edge. Pure.

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::secret::Secret;
use gatepost_runtime::attempt::Tls;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use serde::Deserialize;

/// One `[[route]]` as written.
#[derive(Clone, Deserialize)]
#[expect(missing_debug_implementations, reason = "may hold a password")]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// `example.com`, `*.example.com` or `*`.
    pub domain: Placed<String>,
    /// `host:port`.
    pub host: Placed<String>,
    /// Which TLS.
    pub tls: Option<Placed<String>>,
    /// Login at that host.
    pub login: Option<Placed<RawLogin>>,
    /// `edge` or `home`.
    pub via: Option<Placed<String>>,
}

/// `login = { user = "…", password = "…" }` or with `password_file`.
#[derive(Clone, Deserialize)]
#[expect(missing_debug_implementations, reason = "may hold a password")]
#[serde(deny_unknown_fields)]
pub struct RawLogin {
    /// Login name.
    pub user: String,
    /// The password itself.
    pub password: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<std::path::PathBuf>,
}

/// The routes, checked. The most specific wins.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    _todo: (),
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The mail hosts of this domain, by MX, through an edge.
    Domain(Domain),
    /// A host the owner named.
    Host(Host),
}

/// A host the owner named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Which TLS.
    pub tls: Tls,
    /// Login name and password.
    pub login: Option<(String, Secret)>,
    /// From where.
    pub via: Via,
}

/// Who connects to a named host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// An edge.
    Edge,
    /// The home itself.
    Home,
}

impl Routes {
    /// Checks the tables; reads password files.
    pub fn check(raw: Vec<RawRoute>, source: &Source) -> Result<Self, ConfigError> {
        let _ = (raw, source);
        todo!()
    }

    /// Where mail for this domain goes.
    pub fn hop(&self, domain: &Domain) -> Hop {
        let _ = domain;
        todo!()
    }
}
