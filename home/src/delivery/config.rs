//! The `[delivery]` table: which server keeps the mailboxes of which domain, where it is not our own Maildirs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;

use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use serde::Deserialize;

/// Longest path of a local socket, in octets, with its end (`sockaddr_un`).
const SOCKET_PATH_OCTETS_MAX: usize = 107;

/// `[delivery]` as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDelivery {
    /// `unix:/path` or `host:port`; left out: Maildirs.
    pub lmtp: Option<Placed<String>>,
    /// Another choice for some domains: the same, or `maildir`.
    #[serde(default)]
    pub domains: BTreeMap<String, Placed<String>>,
}

/// A server that keeps mailboxes and speaks LMTP (RFC 2033).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// At a local socket.
    Local(PathBuf),
    /// At a host.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "unix:{}", path.display()),
            Self::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Who keeps which mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keepers {
    // `None`: Maildirs.
    default: Option<Server>,
    domains: HashMap<String, Option<Server>>,
}

impl Keepers {
    /// Checks the table. `served` are the domains of this home.
    pub fn check(raw: &RawDelivery, served: &[Domain], source: &Source) -> Result<Self, ConfigError> {
        let default = raw.lmtp.as_ref().map(|written| server(written, source)).transpose()?;
        let mut domains = HashMap::new();
        for (name, written) in &raw.domains {
            let domain = Domain::parse(name).ok().filter(|domain| served.contains(domain)).ok_or_else(|| {
                source.error(written, &format!("{name} is no domain of this home"), "one that stands under `domains`")
            })?;
            let keeper = if written.get_ref() == "maildir" { None } else { Some(server(written, source)?) };
            if domains.insert(domain.to_string(), keeper).is_some() {
                return Err(source.error(written, "this domain is listed twice", "each domain once"));
            }
        }
        Ok(Self { default, domains })
    }

    /// Every mailbox with this server.
    #[cfg(test)]
    pub fn everything_at(server: Server) -> Self {
        Self { default: Some(server), domains: HashMap::new() }
    }

    /// The mailboxes of one domain with this server.
    #[cfg(test)]
    pub fn domain_at(domain: &str, server: Server) -> Self {
        Self { default: None, domains: HashMap::from([(domain.to_owned(), Some(server))]) }
    }

    /// The server that keeps the mailbox of this lookup key; `None`: it is a Maildir of ours.
    pub fn of(&self, mailbox: &str) -> Option<&Server> {
        let domain = mailbox.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.domains.get(domain).unwrap_or(&self.default).as_ref()
    }

    /// Mailboxes are Maildirs of ours, but for those of domains that are listed.
    pub fn are_maildirs(&self) -> bool {
        self.default.is_none()
    }

    /// Every server, once.
    pub fn servers(&self) -> Vec<&Server> {
        let mut servers: Vec<&Server> = self.domains.values().flatten().chain(&self.default).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

fn server(written: &Placed<String>, source: &Source) -> Result<Server, ConfigError> {
    let right = "\"unix:/run/dovecot/lmtp\", or a host and a port such as \"192.168.1.5:24\"";
    let wrong = |what: &str| source.error(written, what, right);
    let text = written.get_ref();
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(wrong("the path of a local socket begins with a slash"));
        }
        if path.as_os_str().len() > SOCKET_PATH_OCTETS_MAX {
            return Err(wrong("no system takes so long a path for a local socket"));
        }
        return Ok(Server::Local(path));
    }
    let split = || {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
            None if host.parse::<std::net::Ipv4Addr>().is_ok() => host.to_owned(),
            None => Domain::parse(host).ok().filter(|domain| domain.literal().is_none())?.to_string(),
        };
        Some(Server::Host { host, port })
    };
    split().ok_or_else(|| wrong("not a server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Keepers, String> {
        #[derive(Deserialize)]
        struct File {
            delivery: RawDelivery,
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("home.toml");
        std::fs::write(&path, format!("[delivery]\n{toml}\n")).expect("written");
        let source = Source::read(&path).map_err(|error| error.to_string())?;
        let file: File = source.parse().map_err(|error| error.to_string())?;
        let served = ["example.org", "example.net"].map(|name| Domain::parse(name).expect("valid"));
        Keepers::check(&file.delivery, &served, &source).map_err(|error| error.to_string())
    }

    #[test]
    fn a_domain_may_have_a_keeper_of_its_own() {
        let keepers =
            check("lmtp = \"unix:/run/dovecot/lmtp\"\ndomains = { \"Example.NET\" = \"maildir\" }").expect("good");
        let of = |mailbox| keepers.of(mailbox).map(ToString::to_string);
        assert_eq!(of("alice@example.org").as_deref(), Some("unix:/run/dovecot/lmtp"));
        assert_eq!(of("alice@example.net"), None);
        let keepers = check("domains = { \"example.net\" = \"[::1]:24\" }").expect("good");
        assert_eq!(keepers.of("alice@example.org"), None);
        assert_eq!(keepers.of("alice@example.net").map(ToString::to_string).as_deref(), Some("[::1]:24"));
        assert_eq!(keepers.servers().len(), 1);
        assert_eq!(check("").expect("good"), Keepers::default());
    }

    #[test]
    fn what_is_no_server_is_refused_where_it_stands() {
        for (toml, says) in [
            ("lmtp = \"unix:run/lmtp\"", "begins with a slash"),
            ("lmtp = \"/run/lmtp\"", "not a server"),
            ("lmtp = \"dovecot\"", "not a server"),
            ("lmtp = \"dovecot:0\"", "not a server"),
            ("lmtp = \"maildir\"", "not a server"),
            ("domains = { \"example.com\" = \"maildir\" }", "no domain of this home"),
            ("domains = { \"example.net\" = \"mbox\" }", "not a server"),
            ("lmpt = \"unix:/run/lmtp\"", "lmtp"),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(says) && error.contains("home.toml:2"), "{toml}: {error}");
        }
        let long = check(&format!("lmtp = \"unix:/{}\"", "x".repeat(107))).expect_err("too long");
        assert!(long.contains("so long a path"), "{long}");
        check(&format!("lmtp = \"unix:/{}\"", "x".repeat(106))).expect("just short enough");
    }
}
