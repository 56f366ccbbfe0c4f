//! The DNS with proof: the same servers as [`Resolver`]'s, asked for signatures, which are checked here from the root's
//! keys down, so that no server need be believed. What can't be proven is never told as if it were not there.
//!
//! Made at the first question. Where the servers do not pass signatures on, [`Validator::is_usable`] says so once, loudly.

mod standing;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::dane::{RECORDS_MAX as TLSA_MAX, Tlsa};
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::ParseError;
use hickory_proto::serialize::txt::trust_anchor::{Entry, Parser};
use hickory_resolver::net::{DnsError, NetError};
use thiserror::Error;

pub use self::standing::Shown;
use self::standing::{Standing, Trial, Use};
use crate::clock::Clock;
use crate::resolver::{CouldNotTell, Exchanger, ExchangersAnswer, Resolver};

/// Octets of a file of anchors.
const ANCHORS_OCTETS_MAX: u64 = 64 * 1024;
/// Records taken of one answer.
const RECORDS_MAX: usize = 64;

/// Whose keys are believed: the root's, and those of a file besides.
#[derive(Clone)]
pub struct Anchors {
    keys: Arc<TrustAnchors>,
    /// Whose records are asked for to try the servers.
    zone: Name,
    /// What the file said, to tell one from another.
    text: String,
}

impl PartialEq for Anchors {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Anchors {}

impl std::fmt::Debug for Anchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anchors").field("zone", &self.zone.to_ascii()).finish_non_exhaustive()
    }
}

/// Why a file of anchors is none.
#[derive(Debug, Error)]
pub enum AnchorsError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is no list of keys.
    #[error("it is no list of DNSKEY records: {0}")]
    Parse(#[from] ParseError),
    /// It is far too long.
    #[error("it is longer than 64 KiB")]
    TooLong,
}

impl Default for Anchors {
    fn default() -> Self {
        Self { keys: Arc::new(TrustAnchors::default()), zone: Name::root(), text: String::new() }
    }
}

impl Anchors {
    /// The root's, and those of this file (a DNSKEY record a line) besides. Blocking.
    pub fn with_file(path: &Path) -> Result<Self, AnchorsError> {
        if fs::metadata(path)?.len() > ANCHORS_OCTETS_MAX {
            return Err(AnchorsError::TooLong);
        }
        let text = fs::read_to_string(path)?;
        let mut keys = TrustAnchors::default();
        for entry in Parser::new(text.as_str()).parse()? {
            if let Entry::DNSKEY(record) = entry {
                keys.insert_with_name(record.data().public_key(), LowerName::new(record.name()));
            }
        }
        Ok(Self { keys: Arc::new(keys), zone: Name::root(), text })
    }
}

/// An answer, and whether it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven<T> {
    /// Signed, down from a key we believe.
    Secure(T),
    /// It is proven that nobody signs it.
    Insecure(T),
}

impl<T> Proven<T> {
    /// The answer.
    pub fn into_inner(self) -> T {
        match self {
            Self::Secure(answer) | Self::Insecure(answer) => answer,
        }
    }

    /// True if it is signed.
    pub fn is_secure(&self) -> bool {
        matches!(self, Self::Secure(_))
    }
}

/// Why there is no answer: never a reason to go on as if there were none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unproven {
    /// What was said can't be proven: forged, expired, or cut short on the way.
    #[error("the DNS signatures of {name} do not prove what was answered")]
    Bogus {
        /// What was asked.
        name: String,
    },
    /// Nothing was said.
    #[error(transparent)]
    CouldNotTell(#[from] CouldNotTell),
}

/// Addresses of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Where it is.
    pub ips: Vec<IpAddr>,
    /// The name at the end of its aliases, if it is one (RFC 7672 §2.2.2).
    pub expanded: Option<String>,
    /// Every alias on the way is signed, whatever the addresses are.
    pub alias_is_secure: bool,
}

/// Asks with proof. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Validator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolver: Resolver,
    anchors: ArcSwap<Anchors>,
    clock: Clock,
    /// With the servers of this configuration.
    standing: Mutex<(u64, Standing)>,
    /// One tries at a time.
    trying: tokio::sync::Mutex<()>,
}

impl Validator {
    /// By the servers of this resolver.
    pub fn new(resolver: Resolver, anchors: Anchors, clock: Clock) -> Self {
        let (anchors, standing) = (ArcSwap::from_pointee(anchors), Mutex::default());
        Self(Arc::new(Inner { resolver, anchors, clock, standing, trying: tokio::sync::Mutex::default() }))
    }

    /// Believes these keys from now on.
    pub fn reload(&self, anchors: Anchors) {
        if **self.0.anchors.load() != anchors {
            self.0.anchors.store(Arc::new(anchors));
            self.0.resolver.forget_validating();
        }
    }

    /// Whether proof can be had by these servers; tries them if nobody has. `false`: they do not pass signatures on.
    pub async fn is_usable(&self) -> bool {
        loop {
            let how = self.standing().1.how(self.0.clock.now());
            match how {
                Use::Validate => return true,
                Use::Without => return false,
                Use::Try => {}
            }
            let trying = self.0.trying.lock().await;
            if self.standing().1.how(self.0.clock.now()) != Use::Try {
                continue;
            }
            let silent = self.find_out().await == Trial::Silent;
            drop(trying);
            if silent {
                // Whatever is asked next fails of itself.
                return true;
            }
        }
    }

    /// What is known of the servers.
    pub fn shown(&self) -> Shown {
        self.standing().1.shown()
    }

    /// MX records. That a domain has none is told without saying whether it is signed.
    pub async fn exchangers(&self, domain: &Domain) -> Result<Proven<ExchangersAnswer>, Unproven> {
        let answer = match self.ask(domain.as_str(), RecordType::MX).await? {
            Asked::NoSuchDomain => return Ok(Proven::Insecure(ExchangersAnswer::NoSuchDomain)),
            Asked::None => return Ok(Proven::Insecure(ExchangersAnswer::None)),
            Asked::Records(records) => records,
        };
        let exchanger = |record: &Record| match &record.data {
            RData::MX(mx) => {
                let host = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                Some(Exchanger { preference: mx.preference, host })
            }
            _ => None,
        };
        let found = answer.iter().filter_map(exchanger).take(RECORDS_MAX).collect();
        Ok(proven(&answer, ExchangersAnswer::Found(found)))
    }

    /// A and (if `ipv6`) AAAA records; secure only if both are, and there is one.
    pub async fn addresses(&self, host: &str, ipv6: bool) -> Result<Proven<Addresses>, Unproven> {
        let other = async { if ipv6 { self.ask(host, RecordType::AAAA).await } else { Ok(Asked::None) } };
        let (v4, v6) = tokio::join!(self.ask(host, RecordType::A), other);
        let mut found = Addresses { alias_is_secure: true, ..Addresses::default() };
        let mut secure = true;
        for answer in [v4?, v6?] {
            let Asked::Records(records) = answer else { continue };
            for record in records.iter().take(RECORDS_MAX) {
                match &record.data {
                    RData::A(a) => found.ips.push(a.0.into()),
                    RData::AAAA(aaaa) => found.ips.push(aaaa.0.into()),
                    RData::CNAME(_) => {
                        found.alias_is_secure &= record.proof == Proof::Secure;
                        continue;
                    }
                    _ => continue,
                }
                secure &= record.proof == Proof::Secure;
                let name = record.name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                if name != host.trim_end_matches('.').to_ascii_lowercase() {
                    found.expanded = Some(name);
                }
            }
        }
        Ok(if secure && found.alias_is_secure && !found.ips.is_empty() {
            Proven::Secure(found)
        } else {
            Proven::Insecure(found)
        })
    }

    /// TLSA records of the mail host of this name, if they are signed; unsigned ones are none (RFC 7672 §2.2).
    pub async fn tlsa(&self, host: &str, port: u16) -> Result<Vec<Tlsa>, Unproven> {
        let Asked::Records(records) = self.ask(&format!("_{port}._tcp.{host}"), RecordType::TLSA).await? else {
            return Ok(Vec::new());
        };
        if !records.iter().all(|record| record.proof == Proof::Secure) {
            return Ok(Vec::new());
        }
        let tlsa = |record: &Record| match &record.data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        };
        Ok(records.iter().filter_map(tlsa).take(TLSA_MAX).collect())
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Asked, Unproven> {
        let answer = self.ask_once(name, kind).await;
        if matches!(answer, Err(Unproven::Bogus { .. })) && self.standing().1.is_doubtful(self.0.clock.now()) {
            let _trying = self.0.trying.lock().await;
            if self.standing().1.is_doubtful(self.0.clock.now()) {
                self.find_out().await;
            }
        }
        answer
    }

    async fn ask_once(&self, name: &str, kind: RecordType) -> Result<Asked, Unproven> {
        let could_not_tell =
            |why: &dyn std::fmt::Display| CouldNotTell { name: format!("{kind} of {name}"), why: why.to_string() };
        let question = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
        let question = question.map_err(|error| could_not_tell(&error))?;
        let resolver = self.0.resolver.validating(&self.0.anchors.load().keys).map_err(|why| could_not_tell(&why))?;
        let bogus = || Unproven::Bogus { name: format!("{kind} of {name}") };
        match resolver.lookup(question, kind).await {
            Ok(found) => {
                // Aliases and what was asked for; signatures stand beside them.
                let is_meant = |record: &&Record| [kind, RecordType::CNAME].contains(&record.record_type());
                let records: Vec<Record> = found.answers().iter().filter(is_meant).cloned().collect();
                if records.iter().any(|record| !matches!(record.proof, Proof::Secure | Proof::Insecure)) {
                    return Err(bogus());
                }
                let is_there = records.iter().any(|record| record.record_type() == kind);
                Ok(if is_there { Asked::Records(records) } else { Asked::None })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(Asked::NoSuchDomain),
                ResponseCode::NoError => Ok(Asked::None),
                code => Err(could_not_tell(&code).into()),
            },
            // With a proof that holds, it is an answer in another form.
            Err(NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. })) => {
                Ok(if response.metadata.response_code == ResponseCode::NXDomain {
                    Asked::NoSuchDomain
                } else {
                    Asked::None
                })
            }
            Err(NetError::Dns(DnsError::DnssecBogus | DnsError::Nsec { .. })) => Err(bogus()),
            Err(error) => Err(could_not_tell(&error).into()),
        }
    }

    /// Tries the servers by records that must be proven if anything is: an anchor's own.
    async fn find_out(&self) -> Trial {
        let zone = self.0.anchors.load().zone.to_ascii();
        let trial = match self.ask_once(&zone, RecordType::NS).await {
            Ok(Asked::Records(records)) if records.iter().all(|record| record.proof == Proof::Secure) => Trial::Proven,
            Ok(_) => Trial::Unproven("answers come without signatures".to_owned()),
            Err(Unproven::Bogus { .. }) => {
                Trial::Unproven("the root's signatures do not come through, or are not the root's".to_owned())
            }
            Err(Unproven::CouldNotTell(_)) => Trial::Silent,
        };
        let now = self.0.clock.now();
        let mut standing = self.standing();
        if standing.1.tried(trial.clone(), now) {
            match standing.1.shown() {
                Shown::Works => {
                    tracing::info!("the DNS servers pass signatures on: DANE is applied to mail that leaves");
                }
                Shown::Missing(why) => tracing::error!(
                    why,
                    "the DNS servers do not pass signatures (DNSSEC) on: mail leaves without DANE; use servers that do, \
                     such as a local unbound"
                ),
                Shown::Lost(why) => tracing::error!(
                    why,
                    "the DNS servers have stopped passing signatures (DNSSEC) on: mail waits until they do, or for an hour"
                ),
                Shown::Unknown => {}
            }
        }
        trial
    }

    /// With the servers as they are now: of others nothing is known yet.
    fn standing(&self) -> MutexGuard<'_, (u64, Standing)> {
        let generation = self.0.resolver.generation();
        let mut standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.0 != generation {
            *standing = (generation, Standing::default());
        }
        standing
    }
}

/// An answer before it is understood.
enum Asked {
    /// Aliases and records of the kind that was asked for, at least one of these; each proven one way or the other.
    Records(Vec<Record>),
    /// The name exists and has none of that kind.
    None,
    /// It does not exist.
    NoSuchDomain,
}

fn proven<T>(records: &[Record], answer: T) -> Proven<T> {
    let is_secure = records.iter().all(|record| record.proof == Proof::Secure);
    if is_secure { Proven::Secure(answer) } else { Proven::Insecure(answer) }
}
