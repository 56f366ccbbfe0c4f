//! Where a recipient's mail goes next: the config's `[[route]]` tables, else the domain's mail hosts
//! by way of an edge. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gatepost_protocol::mail::address::{Address, AddressError, Domain};
use gatepost_protocol::secret::Secret;
use gatepost_runtime::attempt::Tls;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::ready::Lane;

/// Largest password file read, in octets.
const PASSWORD_FILE_OCTETS_MAX: u64 = 4096;

/// One `[[route]]` as written.
#[derive(Clone, Deserialize)]
#[expect(missing_debug_implementations, reason = "may hold a password")]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// `example.com`, `*.example.com` or `*`.
    pub domain: Option<Placed<String>>,
    /// One address, in place of a domain.
    pub address: Option<Placed<String>>,
    /// `host:port`.
    pub host: Placed<String>,
    /// Which TLS.
    pub tls: Option<Placed<String>>,
    /// Login at that host.
    pub login: Option<Placed<RawLogin>>,
    /// `edge` or `home`.
    pub via: Option<Placed<String>>,
    /// A file of certificates (PEM) that vouch for the host's, besides those the system trusts.
    pub ca: Option<Placed<PathBuf>>,
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
    pub password_file: Option<PathBuf>,
}

/// Where mail would come back to us: hosts and ports of our own doors, and of our edges'.
#[derive(Clone, Debug, Default)]
pub struct Ourselves(pub Vec<(String, u16)>);

impl Ourselves {
    fn are(&self, host: &str, port: u16) -> bool {
        self.0.iter().any(|(name, door)| *door == port && name.eq_ignore_ascii_case(host))
    }
}

/// The routes, checked. The most specific wins: an address's own, then its domain's, then the nearest
/// `*.parent`, then `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    // By lookup key, within the domains that have such routes.
    addresses: HashMap<Domain, HashMap<String, Host>>,
    domains: HashMap<Domain, Host>,
    // Subdomains of the key, at any depth.
    parents: HashMap<Domain, Host>,
    all: Option<Host>,
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
    /// Certificates (DER) that vouch for the host's, besides those the system trusts.
    pub roots: Vec<Vec<u8>>,
}

/// Who connects to a named host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The home itself.
    Home,
    /// An edge.
    Edge,
}

impl Routes {
    /// True if everything goes where the DNS says.
    pub fn is_empty(&self) -> bool {
        let Self { addresses, domains, parents, all } = self;
        addresses.is_empty() && domains.is_empty() && parents.is_empty() && all.is_none()
    }

    /// Checks the tables; reads password files.
    pub fn check(raw: Vec<RawRoute>, ourselves: &Ourselves, source: &Source) -> Result<Self, ConfigError> {
        let mut routes = Self::default();
        for raw in raw {
            let (written, pattern) = Pattern::check(&raw, source)?;
            let to = raw.host.clone();
            let host = Host::check(raw, source)?;
            if ourselves.are(&host.host, host.port) {
                return Err(source.error(
                    &to,
                    "that is this home, or its edge: the mail would come back",
                    "the next host on the way to the recipient, such as \"smtp.example.net:587\"",
                ));
            }
            let twice = match pattern {
                Pattern::Address(address) => {
                    let of_domain = routes.addresses.entry(address.domain().clone()).or_default();
                    of_domain.insert(address.lookup_key(), host).is_some()
                }
                Pattern::Domain(domain) => routes.domains.insert(domain, host).is_some(),
                Pattern::Parent(domain) => routes.parents.insert(domain, host).is_some(),
                Pattern::All => routes.all.replace(host).is_some(),
            };
            if twice {
                return Err(source.error(&written, "there is another route for this", "one route for each"));
            }
        }
        Ok(routes)
    }

    /// Everything to one host.
    #[cfg(test)]
    pub fn everything_to(host: Host) -> Self {
        Self { all: Some(host), ..Self::default() }
    }

    /// Where mail for this address goes.
    pub fn hop(&self, address: &Address) -> Hop {
        let of_domain = self.addresses.get(address.domain());
        match of_domain.and_then(|routes| routes.get(&address.lookup_key())) {
            Some(host) => Hop::Host(host.clone()),
            None => self.hop_of_domain(address.domain()),
        }
    }

    /// True if there are routes for single addresses of this domain.
    pub fn is_by_address(&self, domain: &Domain) -> bool {
        self.addresses.contains_key(domain)
    }

    /// Every host that is named.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let of_addresses = self.addresses.values().flat_map(HashMap::values);
        of_addresses.chain(self.domains.values()).chain(self.parents.values()).chain(&self.all)
    }

    /// Where mail for this domain goes, but for addresses with a route of their own.
    pub fn hop_of_domain(&self, domain: &Domain) -> Hop {
        let parent = || {
            let mut rest = domain.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(host) = Domain::parse(parent).ok().and_then(|parent| self.parents.get(&parent)) {
                    return Some(host);
                }
                rest = parent;
            }
            None
        };
        let host = self.domains.get(domain);
        let host = if self.parents.is_empty() { host } else { host.or_else(parent) };
        host.or(self.all.as_ref()).map_or_else(|| Hop::Domain(domain.clone()), |host| Hop::Host(host.clone()))
    }
}

impl Hop {
    /// The lane of this hop's work.
    pub fn lane(&self) -> Lane {
        let via = match self {
            Self::Domain(_) => Via::Edge,
            Self::Host(host) => host.via,
        };
        Lane::Hop { via, to: self.to_string().into() }
    }
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "{domain}"),
            Self::Host(host) if host.host.contains(':') => write!(f, "[{}]:{}", host.host, host.port),
            Self::Host(host) => write!(f, "{}:{}", host.host, host.port),
        }
    }
}

/// Whose mail a route is for.
enum Pattern {
    Address(Address),
    Domain(Domain),
    Parent(Domain),
    All,
}

impl Pattern {
    fn check(raw: &RawRoute, source: &Source) -> Result<(Placed<String>, Self), ConfigError> {
        let (written, pattern) = match (&raw.domain, &raw.address) {
            (Some(domain), None) => (domain, Self::of_domain(domain.get_ref())),
            (None, Some(address)) => (address, Address::parse(address.get_ref()).map(Self::Address)),
            (None, None) | (Some(_), Some(_)) => {
                return Err(source.error(
                    raw.address.as_ref().unwrap_or(&raw.host),
                    "a route is for a domain or for an address",
                    "either domain = \"example.com\" (or \"*.example.com\", or \"*\") or address = \"bob@example.com\"",
                ));
            }
        };
        let pattern = pattern.map_err(|error| {
            source.error(written, &error.to_string(), "example.com, *.example.com, *, or an address")
        })?;
        Ok((written.clone(), pattern))
    }

    fn of_domain(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::All),
            Some(parent) => Domain::parse(parent).map(Self::Parent),
            None => Domain::parse(text).map(Self::Domain),
        }
    }
}

impl Host {
    fn check(raw: RawRoute, source: &Source) -> Result<Self, ConfigError> {
        let (host, port) = split(raw.host.get_ref()).ok_or_else(|| {
            source.error(&raw.host, "not a host and its port", "\"smtp.example.net:587\", or \"[2001:db8::1]:25\"")
        })?;
        let tls = match raw.tls.as_ref().map(|tls| (tls, tls.get_ref().as_str())) {
            None | Some((_, "opportunistic")) => Tls::Opportunistic,
            Some((_, "starttls")) => Tls::StartTls,
            Some((_, "implicit")) => Tls::Implicit,
            Some((_, "off")) => Tls::Off,
            Some((tls, _)) => {
                return Err(source.error(
                    tls,
                    "no such kind of TLS",
                    "\"opportunistic\", \"starttls\", \"implicit\" or \"off\"",
                ));
            }
        };
        let via = match raw.via.as_ref().map(|via| (via, via.get_ref().as_str())) {
            None | Some((_, "edge")) => Via::Edge,
            Some((_, "home")) => Via::Home,
            Some((via, _)) => return Err(source.error(via, "nobody else can connect", "\"edge\" or \"home\"")),
        };
        let login = match raw.login {
            Some(login) if matches!(tls, Tls::Opportunistic | Tls::Off) => {
                return Err(source.error(
                    &login,
                    "the password could be read on the way",
                    "tls = \"starttls\" or tls = \"implicit\" beside it",
                ));
            }
            Some(login) => Some(password(&login, source)?),
            None => None,
        };
        let roots = match &raw.ca {
            None => Vec::new(),
            Some(ca) if matches!(tls, Tls::Opportunistic | Tls::Off) => {
                return Err(source.error(
                    ca,
                    "without TLS that is verified nobody asks for it",
                    "tls = \"starttls\" or tls = \"implicit\" beside it",
                ));
            }
            Some(ca) if via == Via::Edge => {
                return Err(source.error(
                    ca,
                    "an edge verifies by what its own system trusts",
                    "via = \"home\" beside it",
                ));
            }
            Some(ca) => certificates(ca.get_ref()).map_err(|error| {
                let path = ca.get_ref().display();
                source.error(ca, &format!("{path} can't be used: {error}"), "a file with certificates in PEM")
            })?,
        };
        Ok(Self { host, port, tls, login, via, roots })
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let certificates: Vec<Vec<u8>> = certificates
        .map(|found| found.map(|certificate| certificate.as_ref().to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(certificates) }
}

/// `host:port`, `[IPv6]:port`.
fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    if let Some(inner) = host.strip_prefix('[') {
        let ip: IpAddr = inner.strip_suffix(']')?.parse().ok()?;
        return Some((ip.to_string(), port));
    }
    let is_name = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || Domain::parse(host).is_ok();
    is_name.then(|| (host.to_owned(), port))
}

fn password(login: &Placed<RawLogin>, source: &Source) -> Result<(String, Secret), ConfigError> {
    let remedy = "user = \"…\" and either password = \"…\" or password_file = \"/path\"";
    let raw = login.get_ref();
    let secret = match (&raw.password, &raw.password_file) {
        (Some(password), None) => Secret::from(password.as_str()),
        (None, Some(path)) => read_password(path).map_err(|error| {
            source.error(
                login,
                &format!("{} can't be read: {error}", path.display()),
                "a file whose first line is the password",
            )
        })?,
        _ => return Err(source.error(login, "a login needs one password", remedy)),
    };
    if raw.user.is_empty() || secret.expose().is_empty() {
        return Err(source.error(login, "a login needs a name and a password", remedy));
    }
    Ok((raw.user.clone(), secret))
}

fn read_password(path: &Path) -> std::io::Result<Secret> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PASSWORD_FILE_OCTETS_MAX).read_to_end(&mut bytes)?;
    if let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        bytes[end..].fill(0);
        bytes.truncate(end);
    }
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(toml: &str) -> Result<Routes, String> {
        #[derive(Deserialize)]
        struct File {
            route: Vec<RawRoute>,
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("home.toml");
        std::fs::write(&path, toml).expect("written");
        let source = Source::read(&path).map_err(|error| error.to_string())?;
        let file: File = source.parse().map_err(|error| error.to_string())?;
        Routes::check(file.route, &Ourselves::default(), &source).map_err(|error| error.to_string())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = routes(
            r#"
            [[route]]
            domain = "*"
            host = "all.example:25"
            [[route]]
            domain = "*.example.com"
            host = "parent.example:25"
            [[route]]
            domain = "*.deep.example.com"
            host = "deep.example:25"
            [[route]]
            domain = "example.com"
            host = "own.example:2525"
            via = "home"
            tls = "off"
            "#,
        )
        .expect("valid");
        for (domain, hop) in [
            ("example.com", "own.example:2525"),
            ("a.example.com", "parent.example:25"),
            ("b.a.example.com", "parent.example:25"),
            ("x.deep.example.com", "deep.example:25"),
            ("y.x.deep.example.com", "deep.example:25"),
            ("deep.example.com", "parent.example:25"),
            ("example.net", "all.example:25"),
        ] {
            let domain = Domain::parse(domain).expect("valid");
            assert_eq!(routes.hop_of_domain(&domain).to_string(), hop, "{domain}");
        }
        let Hop::Host(host) = routes.hop_of_domain(&Domain::parse("example.com").expect("valid")) else {
            panic!("a host")
        };
        assert_eq!((host.via, host.tls), (Via::Home, Tls::Off));
    }

    #[test]
    fn without_a_route_the_domains_own_hosts_are_next() {
        let domain = Domain::parse("example.com").expect("valid");
        assert_eq!(Routes::default().hop_of_domain(&domain), Hop::Domain(domain.clone()));
        assert_eq!(
            Routes::default().hop_of_domain(&domain).lane(),
            Lane::Hop { via: Via::Edge, to: "example.com".into() }
        );
    }

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("a.example:25", Some(("a.example", 25))),
            ("192.0.2.1:2525", Some(("192.0.2.1", 2525))),
            ("[2001:db8::1]:25", Some(("2001:db8::1", 25))),
            ("localhost:25", Some(("localhost", 25))),
            ("2001:db8::1", None),
            ("a.example", None),
            ("a.example:0", None),
            ("a.example:65536", None),
            (":25", None),
            ("a b:25", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_where_it_stands() {
        for (toml, words) in [
            ("[[route]]\ndomain = \"*\"\nhost = \"x\"", "not a host and its port"),
            ("[[route]]\ndomain = \"a b\"\nhost = \"x.example:25\"", "not a valid name"),
            ("[[route]]\ndomain = \"*\"\nhost = \"x.example:25\"\ntls = \"ssl\"", "no such kind of TLS"),
            ("[[route]]\ndomain = \"*\"\nhost = \"x.example:25\"\nvia = \"moon\"", "nobody else"),
            (
                "[[route]]\ndomain = \"*\"\nhost = \"x.example:25\"\nlogin = { user = \"u\", password = \"p\" }",
                "could be read on the way",
            ),
            (
                "[[route]]\ndomain = \"*\"\nhost = \"x.example:25\"\ntls = \"implicit\"\nlogin = { user = \"u\" }",
                "needs one password",
            ),
            (
                "[[route]]\ndomain = \"*\"\nhost = \"x.example:25\"\n[[route]]\ndomain = \"*\"\nhost = \"y.example:25\"",
                "another route",
            ),
        ] {
            let error = routes(toml).expect_err(toml);
            assert!(error.contains(words) && error.contains("home.toml"), "{toml}: {error}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("password");
        std::fs::write(&path, "open sesame\r\nsecond\n").expect("written");
        assert_eq!(read_password(&path).expect("read"), Secret::from("open sesame"));
    }
}
