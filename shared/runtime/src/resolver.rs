//! DNS answers as types, *none* kept apart from *could not tell*. Answers are not authenticated.
//!
//! The resolver is made at the first question, so that a program that asks nothing holds nothing. The system's
//! is made anew when its file changes: at home that is written by whatever network came up last, maybe after us.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use gatepost_protocol::mail::address::Domain;
use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::system_conf;
use thiserror::Error;

use crate::random;

/// Whom this machine asks.
const SYSTEM: &str = "/etc/resolv.conf";
/// One try at one server.
const TRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tries, over all servers.
const TRIES_MAX: usize = 2;
/// Answers kept: strangers choose how long theirs are, up to 64 KiB each.
const CACHED_ANSWERS_MAX: u64 = 512;
/// *None* and *no such domain* are believed at most this long: people wait for what they just mended.
const NEGATIVE_KEPT_MAX: Duration = Duration::from_mins(10);
/// MX or address records taken of one answer.
const RECORDS_MAX: usize = 64;
/// Records of any kind taken of one answer: some names have many texts.
const TEXTS_MAX: usize = 512;

/// The DNS could not tell (time-out, SERVFAIL): try again later.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("DNS could not tell {name}: {why}")]
pub struct CouldNotTell {
    /// What was asked.
    pub name: String,
    /// The resolver's words.
    pub why: String,
}

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// Lower is tried first.
    pub preference: u16,
    /// Host name without the trailing dot; empty for a null MX.
    pub host: String,
}

/// MX look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangersAnswer {
    /// These, unsorted.
    Found(Vec<Exchanger>),
    /// The domain exists and has none: its own address is its exchanger (RFC 5321 §5.1).
    None,
    /// No such domain.
    NoSuchDomain,
}

/// Asks the DNS. Cheap to clone; the clones follow a change of servers together.
#[derive(Clone, Debug)]
pub struct Resolver(Arc<ArcSwap<Lazy>>);

#[derive(Debug)]
struct Lazy {
    source: Source,
    resolver: OnceLock<Result<TokioResolver, String>>,
    /// The same servers, asked for signatures, which it checks.
    validating: ArcSwapOption<TokioResolver>,
    /// Tells these servers from those before and after.
    generation: u64,
}

/// Where the name servers come from.
#[derive(Debug)]
enum Source {
    /// A file like the system's, and as it was.
    File { path: PathBuf, stamp: Option<Stamp> },
    /// Somebody named them.
    Named(Vec<SocketAddr>),
}

/// What tells a file from the one it was: when it was written, and its octets.
type Stamp = (SystemTime, u64);

/// An answer before it is understood.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Records of the kind that was asked for, at least one.
    Found(Vec<RData>),
    /// The name exists and has none of that kind.
    None,
    /// It does not exist.
    NoSuchDomain,
}

impl Resolver {
    /// With the system's resolvers, or these (UDP, and TCP for long answers).
    pub fn new(servers: &[SocketAddr]) -> Self {
        match servers {
            [] => Self::of_file(PathBuf::from(SYSTEM)),
            servers => Self::from(Source::Named(servers.to_vec())),
        }
    }

    fn of_file(path: PathBuf) -> Self {
        Self::from(Source::of_file(path))
    }

    /// From the next question on this asks whom `other` asks, and so do its clones.
    pub fn follow(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// MX records.
    pub async fn exchangers(&self, domain: &Domain) -> Result<ExchangersAnswer, CouldNotTell> {
        Ok(match self.ask(domain.as_str(), RecordType::MX).await? {
            Answer::None => ExchangersAnswer::None,
            Answer::NoSuchDomain => ExchangersAnswer::NoSuchDomain,
            Answer::Found(records) => ExchangersAnswer::Found(
                records
                    .into_iter()
                    .filter_map(|record| match record {
                        RData::MX(mx) => {
                            let host = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                            Some(Exchanger { preference: mx.preference, host })
                        }
                        _ => None,
                    })
                    .collect(),
            ),
        })
    }

    /// A and (if `ipv6`) AAAA records; empty if there are none. An address as `host` is its own answer.
    pub async fn addresses(&self, host: &str, ipv6: bool) -> Result<Vec<IpAddr>, CouldNotTell> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let other = async { if ipv6 { self.addresses_of(host, RecordType::AAAA).await } else { Ok(Vec::new()) } };
        let (v4, v6) = tokio::join!(self.addresses_of(host, RecordType::A), other);
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                Ok(v4)
            }
            // One family that answers is enough to go on; an empty one is not.
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn addresses_of(&self, host: &str, kind: RecordType) -> Result<Vec<IpAddr>, CouldNotTell> {
        Ok(match self.ask(host, kind).await? {
            Answer::None | Answer::NoSuchDomain => Vec::new(),
            Answer::Found(records) => records
                .into_iter()
                .filter_map(|record| match record {
                    RData::A(a) => Some(a.0.into()),
                    RData::AAAA(aaaa) => Some(aaaa.0.into()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// Records of a type such as `MX`, each as a zone file has it, in lower case; empty if there are none.
    pub async fn written(&self, name: &str, kind: &str) -> Result<Vec<String>, CouldNotTell> {
        let could_not_tell = |why: String| CouldNotTell { name: name.to_owned(), why };
        let kind = kind.parse().map_err(|_| could_not_tell(format!("{kind} is no type of records")))?;
        Ok(match self.ask(name, kind).await? {
            Answer::None | Answer::NoSuchDomain => Vec::new(),
            Answer::Found(records) => records.iter().map(|record| record.to_string().to_lowercase()).collect(),
        })
    }

    /// Whether anybody answers at all: asks for a name that does not exist and that nobody can have remembered. Where
    /// not, what could not be told is no domain's fault.
    pub async fn answers(&self) -> bool {
        let label = format!("{:016x}", u64::from_ne_bytes(random::bytes()));
        self.ask(&label, RecordType::A).await.is_ok()
    }

    /// TXT records, the strings of each as one; empty if there are none.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, CouldNotTell> {
        Ok(match self.ask(name, RecordType::TXT).await? {
            Answer::None | Answer::NoSuchDomain => Vec::new(),
            Answer::Found(records) => records
                .into_iter()
                .filter_map(|record| match record {
                    RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
                    _ => None,
                })
                .collect(),
        })
    }

    /// What asks, for who understands answers by itself.
    pub(crate) fn hickory(&self) -> Result<TokioResolver, CouldNotTell> {
        let lazy = self.current();
        let made = lazy.resolver.get_or_init(|| lazy.make(None));
        made.clone().map_err(|why| CouldNotTell { name: "anything".to_owned(), why })
    }

    /// What asks the same servers and checks signatures by these keys. Made at the first question.
    pub(crate) fn validating(&self, anchors: &Arc<TrustAnchors>) -> Result<Arc<TokioResolver>, String> {
        let lazy = self.current();
        if let Some(made) = lazy.validating.load_full() {
            return Ok(made);
        }
        let made = Arc::new(lazy.make(Some(anchors))?);
        lazy.validating.store(Some(made.clone()));
        Ok(made)
    }

    /// The next question that wants proof is asked by other keys.
    pub(crate) fn forget_validating(&self) {
        self.current().validating.store(None);
    }

    /// Tells the servers that are asked now from those before and after.
    pub(crate) fn generation(&self) -> u64 {
        self.current().generation
    }

    /// As it is now: what the system says may have changed since the last question.
    fn current(&self) -> Arc<Lazy> {
        let lazy = self.0.load_full();
        let Source::File { path, stamp } = &lazy.source else { return lazy };
        if stamp_of(path) == *stamp {
            return lazy;
        }
        let new = Arc::new(Lazy::from(Source::of_file(path.clone())));
        // Whoever else saw it, or a reload, came first: theirs is as new.
        let before = self.0.compare_and_swap(&lazy, Arc::clone(&new));
        if Arc::ptr_eq(&before, &lazy) { new } else { Arc::clone(&before) }
    }

    /// Records of a name that others chose, whatever octets it is made of; one that can be no name does not exist.
    pub(crate) async fn records(&self, name: &str, kind: RecordType) -> Result<Answer, CouldNotTell> {
        let labels = name.trim_end_matches('.').split('.').map(str::as_bytes);
        let Ok(mut question) = Name::from_labels(labels) else { return Ok(Answer::NoSuchDomain) };
        question.set_fqdn(true);
        self.ask_for(question, kind, TEXTS_MAX).await
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Answer, CouldNotTell> {
        // The dot at the end: no search domain of this machine is ever tried.
        let question = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
        let question =
            question.map_err(|error| CouldNotTell { name: format!("{kind} of {name}"), why: error.to_string() })?;
        self.ask_for(question, kind, RECORDS_MAX).await
    }

    async fn ask_for(&self, question: Name, kind: RecordType, max: usize) -> Result<Answer, CouldNotTell> {
        let asked = question.to_ascii();
        let name = asked.trim_end_matches('.');
        let could_not_tell =
            |why: &dyn std::fmt::Display| CouldNotTell { name: format!("{kind} of {name}"), why: why.to_string() };
        let lazy = self.current();
        let resolver = lazy.resolver.get_or_init(|| lazy.make(None)).as_ref().map_err(|why| could_not_tell(why))?;
        match resolver.lookup(question, kind).await {
            Ok(found) => {
                // A CNAME on the way is among the answers and is none itself.
                let of_kind =
                    found.answers().iter().map(|record| &record.data).filter(|data| data.record_type() == kind);
                let records: Vec<_> = of_kind.take(max).cloned().collect();
                Ok(if records.is_empty() { Answer::None } else { Answer::Found(records) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(Answer::NoSuchDomain),
                ResponseCode::NoError => Ok(Answer::None),
                code => Err(could_not_tell(&code)),
            },
            Err(error) => Err(could_not_tell(&error)),
        }
    }
}

impl From<Source> for Resolver {
    fn from(source: Source) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Lazy::from(source))))
    }
}

impl From<Source> for Lazy {
    fn from(source: Source) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Self { source, resolver: OnceLock::new(), validating: ArcSwapOption::empty(), generation }
    }
}

impl Lazy {
    fn make(&self, anchors: Option<&Arc<TrustAnchors>>) -> Result<TokioResolver, String> {
        let (config, mut options) = self.source.read()?;
        options.timeout = TRY_WAIT_MAX;
        options.attempts = TRIES_MAX;
        options.try_tcp_on_error = true;
        options.case_randomization = true;
        options.cache_size = CACHED_ANSWERS_MAX;
        options.negative_max_ttl = Some(NEGATIVE_KEPT_MAX);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        if let Some(anchors) = anchors {
            // The names of aliases on the way are proven one by one; no file of this machine is.
            options.preserve_intermediates = true;
            options.use_hosts_file = ResolveHosts::Never;
            builder = builder.with_trust_anchor(anchors.clone());
        }
        builder
            .with_options(options)
            // Without one the library reads every certificate the system trusts, holds them all, and fails where there are
            // none; and no server is ever asked by TLS.
            .with_tls_config(no_tls().map_err(|error| error.to_string())?)
            .build()
            .map_err(|error| error.to_string())
    }
}

impl Source {
    fn of_file(path: PathBuf) -> Self {
        let stamp = stamp_of(&path);
        Self::File { path, stamp }
    }

    fn read(&self) -> Result<(ResolverConfig, ResolverOpts), String> {
        match self {
            Self::File { path, .. } => {
                let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let text = fs::read(path).map_err(|error| of_file(&error))?;
                system_conf::parse_resolv_conf(text).map_err(|error| of_file(&error))
            }
            Self::Named(servers) => {
                let servers = servers.iter().map(|server| name_server(*server)).collect();
                let mut options = ResolverOpts::default();
                options.use_hosts_file = ResolveHosts::Never;
                Ok((ResolverConfig::from_name_servers(servers), options))
            }
        }
    }
}

/// Trusts nobody, and remembers nothing.
fn no_tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn stamp_of(path: &std::path::Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    // One server's "no such name" is the answer; the next one would only be asked to disagree.
    NameServerConfig::new(server.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, AAAA, MX, TXT};
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows a few names of `example.org`.
    async fn resolver() -> Resolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let answer = answer(&Message::from_vec(&buffer[..length]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        Resolver::new(&[address])
    }

    fn answer(message: &Message) -> Message {
        let query = message.queries[0].clone();
        let mut answer = Message::response(message.metadata.id, message.metadata.op_code);
        answer.add_query(query.clone());
        let host = |text: &str| Name::from_ascii(text).unwrap();
        let name = query.name().to_ascii().to_lowercase();
        let found: Vec<RData> = match (name.as_str(), query.query_type()) {
            ("example.org.", RecordType::MX) => vec![
                RData::MX(MX::new(10, host("Mail.Example.org."))),
                RData::MX(MX::new(20, host("backup.example.org."))),
            ],
            ("null.example.org.", RecordType::MX) => vec![RData::MX(MX::new(0, Name::root()))],
            ("mail.example.org.", RecordType::A) => vec![RData::A(A("192.0.2.1".parse().unwrap()))],
            ("mail.example.org.", RecordType::AAAA) => vec![RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))],
            ("half.example.org.", RecordType::A) => vec![RData::A(A("192.0.2.2".parse().unwrap()))],
            ("half.example.org." | "broken.example.org.", _) => {
                answer.metadata.response_code = ResponseCode::ServFail;
                vec![]
            }
            ("text.example.org.", RecordType::TXT) => vec![
                RData::TXT(TXT::new(vec!["in two ".to_owned(), "parts".to_owned()])),
                RData::TXT(TXT::from_bytes(vec![b"\xff"])),
            ],
            ("none.example.org.", _) => vec![],
            _ => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                vec![]
            }
        };
        for data in found {
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        answer
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[tokio::test]
    async fn exchangers_are_found_with_their_preference() {
        let found = resolver().await.exchangers(&domain("example.org")).await.unwrap();
        let exchanger = |preference, host: &str| Exchanger { preference, host: host.to_owned() };
        assert_eq!(
            found,
            ExchangersAnswer::Found(vec![exchanger(10, "mail.example.org"), exchanger(20, "backup.example.org")])
        );
    }

    #[tokio::test]
    async fn a_null_mx_is_an_exchanger_without_a_name() {
        let found = resolver().await.exchangers(&domain("null.example.org")).await.unwrap();
        assert_eq!(found, ExchangersAnswer::Found(vec![Exchanger { preference: 0, host: String::new() }]));
    }

    #[tokio::test]
    async fn none_no_such_domain_and_could_not_tell_are_three_things() {
        let resolver = resolver().await;
        assert_eq!(resolver.exchangers(&domain("none.example.org")).await, Ok(ExchangersAnswer::None));
        assert_eq!(resolver.exchangers(&domain("gone.example.org")).await, Ok(ExchangersAnswer::NoSuchDomain));
        let error = resolver.exchangers(&domain("broken.example.org")).await.unwrap_err();
        assert!(error.to_string().starts_with("DNS could not tell MX of broken.example.org: "), "{error}");
    }

    #[tokio::test]
    async fn addresses_of_both_families_only_where_wanted() {
        let resolver = resolver().await;
        let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(resolver.addresses("mail.example.org", false).await.unwrap(), [v4]);
        assert_eq!(resolver.addresses("mail.example.org.", true).await.unwrap(), [v4, v6]);
        assert!(resolver.addresses("gone.example.org", true).await.unwrap().is_empty());
        assert!(resolver.addresses("broken.example.org", false).await.is_err());
    }

    #[tokio::test]
    async fn a_text_is_whole_whatever_its_octets() {
        let resolver = resolver().await;
        assert_eq!(resolver.texts("text.example.org").await.unwrap(), ["in two parts", "\u{fffd}"]);
        assert!(resolver.texts("none.example.org").await.unwrap().is_empty());
        assert!(resolver.texts("broken.example.org").await.is_err());
    }

    #[tokio::test]
    async fn one_family_that_answers_is_enough() {
        let found = resolver().await.addresses("half.example.org", true).await.unwrap();
        assert_eq!(found, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn an_address_needs_no_question() {
        let resolver = resolver().await;
        assert_eq!(resolver.addresses("192.0.2.9", false).await.unwrap(), ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            resolver.addresses("[2001:db8::9]", false).await.unwrap(),
            ["2001:db8::9".parse::<IpAddr>().unwrap()]
        );
        assert!(resolver.0.load().resolver.get().is_none(), "nothing was made for it");
    }

    #[tokio::test]
    async fn clones_follow_a_change_of_servers() {
        let nobody = Resolver::new(&["127.0.0.1:9".parse().unwrap()]);
        let clone = nobody.clone();
        nobody.follow(&resolver().await);
        assert_eq!(clone.exchangers(&domain("none.example.org")).await, Ok(ExchangersAnswer::None));
    }

    #[tokio::test]
    async fn a_network_that_comes_up_later_or_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let resolver = Resolver::of_file(file.clone());
        let error = resolver.addresses("mail.example.org", false).await.unwrap_err();
        assert!(error.why.contains("resolv.conf"), "{error}");
        let servers = || {
            let lazy = resolver.current();
            let (config, _) = lazy.source.read().unwrap();
            config.name_servers().iter().map(|server| server.ip.to_string()).collect::<Vec<_>>()
        };
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers(), ["192.0.2.1"]);
        let before = resolver.current();
        assert!(Arc::ptr_eq(&before, &resolver.current()), "as long as nothing changes, neither does it");
        fs::write(&file, "nameserver 192.0.2.1\nnameserver 2001:db8::1\n").unwrap();
        assert_eq!(servers(), ["192.0.2.1", "2001:db8::1"]);
    }

    #[tokio::test]
    async fn a_name_that_can_be_none_is_no_panic() {
        assert!(resolver().await.addresses("a..b", false).await.is_err());
    }
}
