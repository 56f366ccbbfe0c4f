//! The edge's config, in two stages: `Raw…` is exactly the file, [`Config`] is what the parts run
//! on: typed, defaults filled, relations checked. Each part gets its own table by value.

pub mod admission;
pub mod changes;
pub mod homes;
pub mod paired;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::network::Network;
use gatepost_protocol::tunnel::wire::RECIPIENTS_MAX;
use gatepost_runtime::acme::{keeper, settings as acme};
use gatepost_runtime::alarm;
use gatepost_runtime::certificate::CertificateFiles;
use gatepost_runtime::config::changes::ConfigFile;
use gatepost_runtime::config::{ConfigError, Placed, Size, Source, Span};
use gatepost_runtime::dnssec::Anchors;
use serde::Deserialize;

use self::admission::{AdmissionSettings, RawAdmission, RawDnsList};

pub use self::homes::{HomeConfig, Origin};
use self::homes::{RawHome, Roll, is_home_name};
use self::paired::PairedFile;

/// Where the config lies if `--config` does not say otherwise.
pub const CONFIG_PATH: &str = "/etc/gatepost/edge.toml";
/// Where state lies if neither `state` nor `--state` says otherwise.
pub const STATE_PATH: &str = "/var/lib/gatepost-edge";
/// Shortest and longest wait for the home's answer: a client waits ten minutes (RFC 5321 §4.5.3.2.6).
const HOME_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(9));
/// Shortest and longest time without a home after which nothing more is taken for it.
const HOME_AWAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24 * 3650));

/// Most that can be let in a minute.
const PER_MINUTE_MAX: usize = 1_000_000;
/// Networks that can be listed as never banned.
const NEVER_BANNED_MAX: usize = 1000;

/// What the edge runs on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from.
    pub file: ConfigFile,
    /// Our name in greetings, EHLO and Received fields.
    pub hostname: Domain,
    /// State directory.
    pub state: PathBuf,
    /// Where to listen.
    pub doors: Doors,
    /// Certificate files; self-signed without, as long as no CA has issued one.
    pub certificate: Option<CertificateFiles>,
    /// The CA that is asked for one.
    pub acme: Option<acme::Settings>,
    /// DNS servers; the system's if empty.
    pub dns_servers: Vec<SocketAddr>,
    /// Whose DNS signatures are believed.
    pub dns_anchors: Anchors,
    /// `[alarm]`.
    pub alarm: alarm::Settings,
    /// Who is never banned.
    pub bans: BanSettings,
    /// What is made of clients as such.
    pub admission: AdmissionSettings,
    /// Bounds.
    pub limits: EdgeLimits,
    /// Whether mail is sent out over IPv6.
    pub outbound_ipv6: bool,
    /// Whose the mail of this machine's own programs is; without, the only home's.
    pub local_mail: Option<String>,
    /// The homes, those of the file first, then those that were paired by code.
    pub homes: Vec<HomeConfig>,
    /// What is allowed and yet strange: told by `check` and at start.
    pub warnings: Vec<String>,
}

/// Where to listen; `None` is a door that stays shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// Mail from the world.
    pub smtp: Option<SocketAddr>,
    /// Mail from accounts.
    pub submissions: Option<SocketAddr>,
    /// Mail clients that read, carried to the home.
    pub imaps: Option<SocketAddr>,
    /// The homes.
    pub tunnel: Option<SocketAddr>,
    /// A CA's challenges; the web in the clear.
    pub http: Option<SocketAddr>,
    /// The web.
    pub https: Option<SocketAddr>,
}

/// `[bans]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BanSettings {
    /// Never banned.
    pub never: Vec<Network>,
    /// The machine's own addresses can be banned, too: for tests, whose clients have no others.
    pub loopback: bool,
}

/// Bounds the owner may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Largest message taken, as advertised by SIZE.
    pub message_octets_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// Connections at one door at once.
    pub connections_max: usize,
    /// Connections at one door at once from one address.
    pub connections_per_address_max: usize,
    /// How long the home may be silent before a message is sealed instead.
    pub home_wait_max: Duration,
    /// Sealed mail held for one home.
    pub spool_octets_max: u64,
    /// Disk left free by the spool.
    pub disk_reserve_octets: u64,
    /// Without its home for so long, the edge takes no more for it.
    pub home_away_max: Duration,
    /// Messages going out at once for one home.
    pub relays_max: usize,
    /// Messages of one local user in an hour.
    pub local_messages_per_hour_max: usize,
    /// Connections to 25 in a minute; to 80 and 443 in proportion.
    pub connections_per_minute: PerMinute,
    /// Messages that come by 25 in a minute.
    pub messages_per_minute: PerMinute,
}

/// How much may come in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerMinute {
    /// From one network: /24 of IPv4, /64 of IPv6.
    pub network: usize,
    /// From all.
    pub all: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    hostname: Placed<String>,
    state: Option<PathBuf>,
    #[serde(default)]
    listen: RawListen,
    tls: Option<CertificateFiles>,
    acme: Option<Placed<acme::RawAcme>>,
    #[serde(default)]
    dns: RawDns,
    #[serde(default)]
    alarm: alarm::RawAlarm,
    #[serde(default)]
    bans: RawBans,
    #[serde(default)]
    admission: RawAdmission,
    #[serde(default)]
    dnslist: Vec<RawDnsList>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    outbound_ipv6: bool,
    local_mail: Option<Placed<String>>,
    #[serde(default)]
    home: Vec<RawHome>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    smtp: Option<Placed<String>>,
    submissions: Option<Placed<String>>,
    imaps: Option<Placed<String>>,
    tunnel: Option<Placed<String>>,
    http: Option<Placed<String>>,
    https: Option<Placed<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDns {
    #[serde(default)]
    servers: Vec<Placed<String>>,
    trust_anchors: Option<Placed<PathBuf>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBans {
    #[serde(default)]
    never: Vec<Placed<String>>,
    #[serde(default)]
    loopback: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    message: Option<Placed<Size>>,
    recipients: Option<Placed<u64>>,
    connections: Option<Placed<u64>>,
    connections_per_address: Option<Placed<u64>>,
    home_wait: Option<Placed<Span>>,
    spool: Option<Placed<Size>>,
    disk_reserve: Option<Placed<Size>>,
    home_away: Option<Placed<Span>>,
    relays: Option<Placed<u64>>,
    local_messages_per_hour: Option<Placed<u64>>,
    connections_per_minute: Option<Placed<u64>>,
    connections_per_minute_per_network: Option<Placed<u64>>,
    messages_per_minute: Option<Placed<u64>>,
    messages_per_minute_per_network: Option<Placed<u64>>,
}

/// Only where state lies: all that `key` needs, so that it works before the rest is filled in.
#[derive(Deserialize)]
struct OnlyState {
    state: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a file. `state` overrides the file's.
    pub fn load(path: &Path, state: Option<&Path>) -> Result<Self, ConfigError> {
        let file = ConfigFile::new(path, state);
        let source = Source::read(path)?;
        let raw: Raw = source.parse()?;
        let hostname = Domain::parse(raw.hostname.get_ref()).ok().filter(|name| name.literal().is_none());
        let hostname = hostname.ok_or_else(|| {
            source.error(
                &raw.hostname,
                "not a host name",
                "the name the world knows this host by, such as \"mail.example.org\"",
            )
        })?;
        let acme = acme::Settings::check(raw.acme.as_ref(), raw.tls.as_ref(), true, &source)?;
        // Whoever has files may have a web server of their own as well.
        let web = |standard| if acme.is_some() { standard } else { "off" };
        let doors = Doors {
            smtp: door(&source, raw.listen.smtp.as_ref(), "[::]:25")?,
            submissions: door(&source, raw.listen.submissions.as_ref(), "[::]:465")?,
            imaps: door(&source, raw.listen.imaps.as_ref(), "[::]:993")?,
            tunnel: door(&source, raw.listen.tunnel.as_ref(), "[::]:10025")?,
            http: door(&source, raw.listen.http.as_ref(), web("[::]:80"))?,
            https: door(&source, raw.listen.https.as_ref(), web("[::]:443"))?,
        };
        let dns_servers = raw.dns.servers.iter().map(|server| {
            server.get_ref().parse().map_err(|_| {
                source.error(server, "not an address and port", "such as \"192.0.2.53:53\" or \"[2001:db8::53]:53\"")
            })
        });
        let state = state.map(Path::to_owned).or(raw.state).unwrap_or_else(|| STATE_PATH.into());
        let homes = homes(&source, &raw.home, &state)?;
        let mut warnings = Vec::new();
        if homes.is_empty() {
            warnings
                .push("no home is paired with this edge: it takes no mail; pair one with: gatepost-edge pair".into());
        }
        let own = |address: &Address| homes.iter().any(|home| home.domains.contains(address.domain()));
        let alarm = alarm::Settings::check(&raw.alarm, own, &source)?;
        let local_mail = local_mail(&source, raw.local_mail.as_ref(), &homes, &mut warnings)?;
        Ok(Self {
            file,
            hostname,
            state,
            alarm,
            doors,
            certificate: raw.tls,
            acme,
            dns_servers: dns_servers.collect::<Result<_, _>>()?,
            dns_anchors: anchors(&source, raw.dns.trust_anchors.as_ref())?,
            bans: raw.bans.check(&source)?,
            admission: raw.admission.check(&raw.dnslist, &source)?,
            limits: raw.limits.check(&source)?,
            outbound_ipv6: raw.outbound_ipv6,
            local_mail,
            homes,
            warnings,
        })
    }

    /// Where the certificate comes from.
    pub fn certificate(&self) -> keeper::Origin<'_> {
        keeper::Origin {
            files: self.certificate.as_ref(),
            acme: self.acme.as_ref(),
            hostname: self.hostname.as_str(),
            state: &self.state,
        }
    }

    /// Reads the same file again, the same way.
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::load(&self.file.path, self.file.state.as_deref())
    }

    /// Where state lies, by a file that may not be complete yet, or not be there at all.
    pub fn state_path(path: &Path, state: Option<&Path>) -> Result<PathBuf, ConfigError> {
        if let Some(state) = state {
            return Ok(state.to_owned());
        }
        if !path.exists() {
            return Ok(STATE_PATH.into());
        }
        let only: OnlyState = Source::read(path)?.parse()?;
        Ok(only.state.unwrap_or_else(|| STATE_PATH.into()))
    }
}

/// The root's keys, and those of a file besides.
fn anchors(source: &Source, written: Option<&Placed<PathBuf>>) -> Result<Anchors, ConfigError> {
    let Some(written) = written else { return Ok(Anchors::default()) };
    Anchors::with_file(written.get_ref()).map_err(|error| {
        let remedy = "a file of DNSKEY records, a line each, as a zone file has them";
        source.error(written, &format!("{}: {error}", written.get_ref().display()), remedy)
    })
}

/// A home of this name need not be there: one that was paired by code may come back.
fn local_mail(
    source: &Source,
    written: Option<&Placed<String>>,
    homes: &[HomeConfig],
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let Some(written) = written else { return Ok(None) };
    let name = written.get_ref();
    if !is_home_name(name) {
        return Err(source.error(written, "not a name of a home", "that of one of the homes, such as \"cottage\""));
    }
    if homes.iter().all(|home| home.name != *name) {
        warnings
            .push(format!("local_mail: no home is called {name:?}, so mail of this machine's programs goes nowhere"));
    }
    Ok(Some(name.clone()))
}

/// Those of the file and those paired by code, which may not claim the same.
fn homes(source: &Source, raw: &[RawHome], state: &Path) -> Result<Vec<HomeConfig>, ConfigError> {
    let mut roll = Roll::default();
    roll.list(source, raw)?;
    if let Some(paired) = PairedFile::source(state)? {
        roll.list_paired(&paired)?;
    }
    Ok(roll.homes())
}

impl RawBans {
    fn check(&self, source: &Source) -> Result<BanSettings, ConfigError> {
        if let Some(one_too_many) = self.never.get(NEVER_BANNED_MAX) {
            return Err(source.error(one_too_many, "too many networks", "at most 1000; name them by a wider prefix"));
        }
        let never = self.never.iter().map(|written| {
            let parsed = written.get_ref().parse::<Network>();
            parsed.map_err(|right| source.error(written, "not a network", &right.to_string()))
        });
        Ok(BanSettings { never: never.collect::<Result<_, _>>()?, loopback: self.loopback })
    }
}

impl RawLimits {
    fn check(&self, source: &Source) -> Result<EdgeLimits, ConfigError> {
        let mebibyte = 1024 * 1024;
        let home_wait = span(source, self.home_wait.as_ref(), HOME_WAIT, Duration::from_mins(1), || {
            "between \"100 ms\" and \"9 min\": a client waits ten".to_owned()
        })?;
        let home_away = span(source, self.home_away.as_ref(), HOME_AWAY, Duration::from_hours(24 * 30), || {
            "between \"1 s\" and \"3650 d\"".to_owned()
        })?;
        Ok(EdgeLimits {
            message_octets_max: size(source, self.message.as_ref(), (1024, 1024 * mebibyte), 50 * mebibyte)?,
            recipients_max: count(source, self.recipients.as_ref(), RECIPIENTS_MAX, RECIPIENTS_MAX)?,
            connections_max: count(source, self.connections.as_ref(), 10_000, 500)?,
            connections_per_address_max: count(source, self.connections_per_address.as_ref(), 10_000, 20)?,
            home_wait_max: home_wait,
            spool_octets_max: size(source, self.spool.as_ref(), (0, u64::MAX), 10 * 1024 * mebibyte)?,
            home_away_max: home_away,
            disk_reserve_octets: size(source, self.disk_reserve.as_ref(), (0, u64::MAX), 500 * mebibyte)?,
            relays_max: count(source, self.relays.as_ref(), 200, 50)?,
            local_messages_per_hour_max: count(source, self.local_messages_per_hour.as_ref(), 10_000, 100)?,
            connections_per_minute: PerMinute {
                network: count(source, self.connections_per_minute_per_network.as_ref(), PER_MINUTE_MAX, 120)?,
                all: count(source, self.connections_per_minute.as_ref(), PER_MINUTE_MAX, 3000)?,
            },
            messages_per_minute: PerMinute {
                network: count(source, self.messages_per_minute_per_network.as_ref(), PER_MINUTE_MAX, 300)?,
                all: count(source, self.messages_per_minute.as_ref(), PER_MINUTE_MAX, 3000)?,
            },
        })
    }
}

fn door(source: &Source, value: Option<&Placed<String>>, default: &str) -> Result<Option<SocketAddr>, ConfigError> {
    let text = value.map_or(default, |value| value.get_ref().as_str());
    if text == "off" {
        return Ok(None);
    }
    match (text.parse(), value) {
        (Ok(address), _) => Ok(Some(address)),
        (Err(_), Some(value)) => {
            let remedy = format!("an address and port such as {default:?}, or \"off\"");
            Err(source.error(value, "not an address and port", &remedy))
        }
        (Err(error), None) => unreachable!("the default {default} is an address: {error}"),
    }
}

fn size(source: &Source, value: Option<&Placed<Size>>, range: (u64, u64), default: u64) -> Result<u64, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    let octets = value.get_ref().0;
    if octets < range.0 || octets > range.1 {
        let remedy = format!("between {} and {} octets", range.0, range.1);
        return Err(source.error(value, "out of range", &remedy));
    }
    Ok(octets)
}

fn span(
    source: &Source,
    value: Option<&Placed<Span>>,
    range: (Duration, Duration),
    default: Duration,
    remedy: impl FnOnce() -> String,
) -> Result<Duration, ConfigError> {
    match value {
        None => Ok(default),
        Some(value) if value.get_ref().0 < range.0 || value.get_ref().0 > range.1 => {
            Err(source.error(value, "out of range", &remedy()))
        }
        Some(value) => Ok(value.get_ref().0),
    }
}

fn count(source: &Source, value: Option<&Placed<u64>>, max: usize, default: usize) -> Result<usize, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match usize::try_from(*value.get_ref()) {
        Ok(count) if count >= 1 && count <= max => Ok(count),
        _ => Err(source.error(value, "out of range", &format!("between 1 and {max}"))),
    }
}

impl fmt::Display for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |door: Option<SocketAddr>| door.map_or_else(|| "off".to_owned(), |address| address.to_string());
        write!(f, "smtp {}, submissions {}, imaps {}", text(self.smtp), text(self.submissions), text(self.imaps))?;
        write!(f, ", tunnel {}", text(self.tunnel))?;
        write!(f, ", http {}, https {}", text(self.http), text(self.https))
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::pairing::NodeKey;

    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("edge.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(&path, None).map_err(|error| error.to_string())
    }

    fn key(seed: &str) -> String {
        NodeKey::of_spki(seed.as_bytes()).to_string()
    }

    fn whole(extra: &str) -> String {
        format!(
            "hostname = \"mail.example.org\"\n{extra}\n[[home]]\nname = \"cottage\"\nkey = \"{}\"\n\
             domains = [\"example.org\", \"example.net\"]\n",
            key("a")
        )
    }

    #[test]
    fn the_shortest_whole_file() {
        let config = load(&whole("")).expect("good");
        assert_eq!(config.hostname.as_str(), "mail.example.org");
        assert_eq!(config.state, Path::new(STATE_PATH));
        assert_eq!(
            config.doors.to_string(),
            "smtp [::]:25, submissions [::]:465, imaps [::]:993, tunnel [::]:10025, http off, https off"
        );
        assert_eq!(config.limits.message_octets_max, 50 * 1024 * 1024);
        assert_eq!(config.limits.home_wait_max, Duration::from_mins(1));
        assert_eq!(config.homes[0].domains.len(), 2);
        assert!(!config.outbound_ipv6);
    }

    #[test]
    fn every_setting() {
        let config = load(&whole(
            "state = \"/tmp/x\"\noutbound_ipv6 = true\n[listen]\nsmtp = \"127.0.0.1:0\"\nsubmissions = \"off\"\n\
             [dns]\nservers = [\"127.0.0.1:5353\"]\n[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n\
             [limits]\nmessage = \"1 MiB\"\nrecipients = 10\nconnections = 5\nconnections_per_address = 2\n\
             home_wait = \"2 s\"\nspool = \"1 GiB\"\ndisk_reserve = \"1 MiB\"\nrelays = 3\nhome_away = \"2 d\"\n",
        ))
        .expect("good");
        assert_eq!(config.state, Path::new("/tmp/x"));
        assert_eq!(config.doors.submissions, None);
        assert_eq!(config.doors.smtp, "127.0.0.1:0".parse().ok());
        assert_eq!(config.limits.recipients_max, 10);
        assert_eq!(config.limits.home_wait_max, Duration::from_secs(2));
        assert_eq!(config.limits.relays_max, 3);
        assert_eq!(config.limits.home_away_max, Duration::from_hours(48));
        assert_eq!(config.dns_servers.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let two = |second_name: &str, second_key: &str, second_domain: &str| {
            format!(
                "{}[[home]]\nname = \"{second_name}\"\nkey = \"{second_key}\"\ndomains = [\"{second_domain}\"]\n",
                whole("")
            )
        };
        for (text, line, words) in [
            (two("cottage", &key("b"), "example.com"), "8", "two homes have this name"),
            (two("cabin", &key("a"), "example.com"), "9", "listed twice"),
            (two("cabin", &key("b"), "EXAMPLE.org"), "10", "a domain belongs to one home"),
            (two("../etc", &key("b"), "example.com"), "8", "not a name for a home"),
            (two("cabin", "gp1oops", "example.com"), "9", "checksum"),
            (whole("acme = { email = \"you\" }"), "2", "the CA may write to"),
            (
                whole("acme = { email = \"you@example.org\" }\ntls = { certificate = \"c\", key = \"k\" }"),
                "2",
                "not from both",
            ),
            (whole("[listen]\nsmtp = \"25\""), "3", "not an address and port"),
            (whole("[limits]\nrecipients = 0"), "3", "out of range"),
            (whole("[limits]\nrecipients = 1001"), "3", "between 1 and 1000"),
            (whole("[limits]\nhome_wait = \"1 h\""), "3", "out of range"),
            (whole("[limits]\nhome_away = \"0 s\""), "3", "out of range"),
            (whole("hostnam = \"x\""), "2", "hostname"),
            (whole("[limits]\nmesage = \"1 MiB\""), "3", "message"),
        ] {
            let error = load(&text).expect_err(words);
            assert!(error.contains(&format!("edge.toml:{line}")), "{error}\nfor line {line} of\n{text}");
            assert!(error.contains(words), "{error}\nlacks {words}");
        }
    }

    #[test]
    fn an_edge_that_waits_for_its_first_home_is_good_and_says_so() {
        let config = load("hostname = \"mail.example.org\"\n").expect("good");
        assert!(config.homes.is_empty());
        assert!(config.warnings[0].contains("gatepost-edge pair"), "{:?}", config.warnings);
        assert!(load(&whole("")).expect("good").warnings.is_empty());
    }

    #[test]
    fn the_state_is_found_before_the_file_is_complete() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("edge.toml");
        assert_eq!(Config::state_path(&path, None).expect("default"), Path::new(STATE_PATH));
        std::fs::write(&path, "state = \"/tmp/y\"\nhostname = \"x\"\n").expect("written");
        assert_eq!(Config::state_path(&path, None).expect("read"), Path::new("/tmp/y"));
        assert_eq!(Config::state_path(&path, Some(Path::new("/z"))).expect("given"), Path::new("/z"));
    }
}
