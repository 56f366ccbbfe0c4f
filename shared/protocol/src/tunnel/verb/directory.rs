//! `Directory`: the home's snapshot; the edge stores it and answers with the version it now holds.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::access::{Access, AccessList, RULES_MAX, Rule};
use crate::mail::address::Domain;
use crate::mail::address_set::AddressSet;
use crate::mail::directory::{Directory, DomainPolicy, LoginVerifier, Room, ScramKeys, SrsVerifier};
use crate::mail::mta_sts::{self, Mode, StsPolicy};
use crate::mail::pattern::{DomainPattern, LocalPattern, PATTERNS_MAX, PatternError};
use crate::mail::policy::{HOSTS_MAX, Limit, Policies, Policy, SEALERS_MAX};
use crate::mail::services::{SUBMISSIONS_MAX, Service, Services};
use crate::mail::srs::{KEYS_MAX, SrsKey};
use crate::tunnel::wire::WireError;

/// [`Directory`] as it travels and is stored at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDirectory {
    version: u64,
    domains: Vec<(String, bool)>,
    addresses: WireAddresses,
    subaddress_separator: Option<char>,
    verifiers: Vec<WireVerifier>,
    seal_key: Vec<u8>,
    message_octets_max: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireVerifier {
    login: String,
    salt: Vec<u8>,
    iterations: u32,
    keys: Vec<([u8; 32], [u8; 32])>,
}

impl fmt::Debug for WireVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireVerifier({})", self.login)
    }
}

/// [`Directory`] as it travels and is stored since version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDirectory2 {
    base: WireDirectory,
    patterns: Vec<(String, String)>,
    tight: Vec<(String, u64, u64)>,
    srs: Option<WireSrs>,
    access: Vec<WireRule>,
    policies: Vec<WirePolicy>,
    hosts: Vec<String>,
    mta_sts: Option<WireSts>,
    services: WireServices,
}

/// What other hosts are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireSts {
    mode: WireMode,
    max_age_s: u32,
    hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireMode {
    None,
    Testing,
    Enforce,
}

/// What mail programs are told: hosts and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WireServices {
    imaps: Option<(String, u16)>,
    submissions: Vec<(String, u16)>,
}

/// One policy; that of all domains which have none of their own names none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct WirePolicy {
    domain: Option<String>,
    monitor: bool,
    spf_fail: WireLimit,
    dmarc_fail: WireLimit,
    unknown_sender: WireLimit,
    trusted_sealers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum WireLimit {
    Refuse,
    Junk,
    Accept,
}

/// A rule of the access list; a subject this side does not know is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct WireRule {
    subject: String,
    recipient: Option<String>,
    allow: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireSrs {
    keys: Vec<[u8; 32]>,
}

impl fmt::Debug for WireSrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireSrs")
    }
}

/// A sequence of strings on the wire; a set in little memory on both sides of it, without a copy between.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WireAddresses(AddressSet);

impl Serialize for WireAddresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for WireAddresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Addresses;
        impl<'de> Visitor<'de> for Addresses {
            type Value = AddressSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("addresses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut addresses: A) -> Result<AddressSet, A::Error> {
                let mut set = AddressSet::default();
                while addresses.next_element_seed(One(&mut set))?.is_some() {}
                Ok(set)
            }
        }
        deserializer.deserialize_seq(Addresses).map(Self)
    }
}

/// Takes one address into the set from where it lies.
struct One<'a>(&'a mut AddressSet);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address")
    }

    fn visit_str<E>(self, address: &str) -> Result<(), E> {
        self.0.insert(address);
        Ok(())
    }
}

/// A pattern that can't be used, and why: its addresses do not exist for who holds this directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusablePattern {
    /// Its domain.
    pub domain: String,
    /// Its expression.
    pub expression: String,
    /// What is wrong; `None`: it is one of too many.
    pub why: Option<PatternError>,
}

/// What of a directory can't be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unusable {
    /// Patterns.
    pub patterns: Vec<UnusablePattern>,
    /// Subjects of rules of the access list.
    pub rules: Vec<String>,
}

impl WireRule {
    fn read(&self) -> Option<Rule> {
        let recipient = match &self.recipient {
            Some(domain) => Some(Domain::parse(domain).ok()?),
            None => None,
        };
        let access = if self.allow { Access::Allow } else { Access::Refuse };
        Some(Rule { subject: self.subject.parse().ok()?, recipient, access })
    }
}

/// The edge's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryHeld {
    /// The version it now holds, durably.
    pub version: u64,
}

impl WireDirectory {
    /// The snapshot's version.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl WireDirectory2 {
    /// The snapshot's version.
    pub fn version(&self) -> u64 {
        self.base.version
    }

    /// What an edge of protocol version 1 is told.
    pub fn base(&self) -> &WireDirectory {
        &self.base
    }
}

impl From<WireDirectory> for WireDirectory2 {
    fn from(base: WireDirectory) -> Self {
        let (patterns, tight, access) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            base,
            patterns,
            tight,
            srs: None,
            access,
            policies: Vec::new(),
            hosts: Vec::new(),
            mta_sts: None,
            services: WireServices::default(),
        }
    }
}

impl From<&Directory> for WireDirectory2 {
    /// Sorted, so that equal directories have equal bytes; patterns keep their order.
    fn from(directory: &Directory) -> Self {
        let mut tight: Vec<_> =
            directory.tight.iter().map(|(key, room)| (key.clone(), room.left, room.whole)).collect();
        tight.sort();
        let rule = |rule: &Rule| WireRule {
            subject: rule.subject.to_string(),
            recipient: rule.recipient.as_ref().map(ToString::to_string),
            allow: rule.access == Access::Allow,
        };
        let mut access: Vec<_> = directory.access.rules().iter().map(rule).collect();
        access.sort();
        let Policies { base, domains } = &directory.policies;
        let mut policies = vec![WirePolicy::new(None, base)];
        policies.extend(domains.iter().map(|(domain, policy)| WirePolicy::new(Some(domain), policy)));
        policies.sort();
        Self {
            base: directory.into(),
            patterns: directory
                .patterns
                .iter()
                .map(|pattern| (pattern.domain.to_string(), pattern.pattern.as_str().to_owned()))
                .collect(),
            tight,
            srs: directory.srs.as_ref().map(|srs| WireSrs { keys: srs.keys.iter().map(|key| *key.expose()).collect() }),
            access,
            policies,
            hosts: directory.hosts.clone(),
            mta_sts: directory.mta_sts.as_ref().map(Into::into),
            services: (&directory.services).into(),
        }
    }
}

impl WirePolicy {
    fn new(domain: Option<&Domain>, policy: &Policy) -> Self {
        let Policy { monitor, spf_fail, dmarc_fail, unknown_sender, trusted_sealers } = policy;
        Self {
            domain: domain.map(ToString::to_string),
            monitor: *monitor,
            spf_fail: (*spf_fail).into(),
            dmarc_fail: (*dmarc_fail).into(),
            unknown_sender: (*unknown_sender).into(),
            trusted_sealers: trusted_sealers.clone(),
        }
    }
}

impl From<WirePolicy> for Policy {
    fn from(wire: WirePolicy) -> Self {
        Self {
            monitor: wire.monitor,
            spf_fail: wire.spf_fail.into(),
            dmarc_fail: wire.dmarc_fail.into(),
            unknown_sender: wire.unknown_sender.into(),
            trusted_sealers: wire.trusted_sealers.into_iter().take(SEALERS_MAX).collect(),
        }
    }
}

impl From<&StsPolicy> for WireSts {
    fn from(policy: &StsPolicy) -> Self {
        let mode = match policy.mode() {
            Mode::None => WireMode::None,
            Mode::Testing => WireMode::Testing,
            Mode::Enforce => WireMode::Enforce,
        };
        let hosts = policy.hosts().iter().map(ToString::to_string).collect();
        Self { mode, max_age_s: policy.max_age_s(), hosts }
    }
}

impl WireSts {
    fn read(self) -> Result<Option<StsPolicy>, WireError> {
        let mode = match self.mode {
            WireMode::None => Mode::None,
            WireMode::Testing => Mode::Testing,
            WireMode::Enforce => Mode::Enforce,
        };
        let hosts = self.hosts.iter().take(mta_sts::HOSTS_MAX).map(|host| named(host)).collect::<Result<_, _>>()?;
        Ok(StsPolicy::new(mode, self.max_age_s, hosts))
    }
}

impl From<&Services> for WireServices {
    fn from(services: &Services) -> Self {
        let wire = |service: &Service| (service.host.to_string(), service.port);
        Self { imaps: services.imaps.as_ref().map(wire), submissions: services.submissions.iter().map(wire).collect() }
    }
}

impl WireServices {
    fn read(self) -> Result<Services, WireError> {
        let service = |(host, port): (String, u16)| Ok::<_, WireError>(Service { host: named(&host)?, port });
        Ok(Services {
            imaps: self.imaps.map(service).transpose()?,
            submissions: self.submissions.into_iter().take(SUBMISSIONS_MAX).map(service).collect::<Result<_, _>>()?,
        })
    }
}

/// The name of a host.
fn named(host: &str) -> Result<Domain, WireError> {
    Domain::parse(host).ok().filter(|host| host.literal().is_none()).ok_or(WireError("host"))
}

impl From<Limit> for WireLimit {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Refuse => Self::Refuse,
            Limit::Junk => Self::Junk,
            Limit::Accept => Self::Accept,
        }
    }
}

impl From<WireLimit> for Limit {
    fn from(limit: WireLimit) -> Self {
        match limit {
            WireLimit::Refuse => Self::Refuse,
            WireLimit::Junk => Self::Junk,
            WireLimit::Accept => Self::Accept,
        }
    }
}

impl WireDirectory2 {
    /// The same under another version.
    #[must_use]
    pub fn with_version(mut self, version: u64) -> Self {
        self.base.version = version;
        self
    }

    /// How many patterns it holds, which an edge of protocol version 1 is not told.
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    /// How many rules of the access list it holds, which an edge of protocol version 1 is not told.
    pub fn rules(&self) -> usize {
        self.access.len()
    }

    /// As the noun; and what had to be left out of it.
    pub fn into_directory(self) -> Result<(Directory, Unusable), WireError> {
        let (mut patterns, mut unusable) = (Vec::new(), Unusable::default());
        for (domain, expression) in self.patterns {
            let parsed = Domain::parse(&domain).map_err(|_| WireError("domain"))?;
            if patterns.len() == PATTERNS_MAX {
                unusable.patterns.push(UnusablePattern { domain, expression, why: None });
                continue;
            }
            match LocalPattern::parse(&expression) {
                Ok(pattern) => patterns.push(DomainPattern { domain: parsed, pattern }),
                Err(why) => unusable.patterns.push(UnusablePattern { domain, expression, why: Some(why) }),
            }
        }
        let mut rules = Vec::new();
        for rule in self.access {
            match rule.read() {
                Some(rule) if rules.len() < RULES_MAX => rules.push(rule),
                _ => unusable.rules.push(rule.subject),
            }
        }
        let mut policies = Policies::default();
        for mut policy in self.policies {
            match policy.domain.take() {
                None => policies.base = Arc::new(policy.into()),
                Some(domain) => {
                    let domain = Domain::parse(&domain).map_err(|_| WireError("domain"))?;
                    policies.domains.insert(domain, Arc::new(policy.into()));
                }
            }
        }
        let keys = |srs: WireSrs| srs.keys.into_iter().take(KEYS_MAX).map(SrsKey::new).collect();
        let directory = Directory {
            patterns,
            tight: self.tight.into_iter().map(|(key, left, whole)| (key, Room { left, whole })).collect(),
            srs: self.srs.map(|srs| SrsVerifier { keys: keys(srs) }),
            access: AccessList::new(rules),
            policies,
            hosts: self.hosts.into_iter().take(HOSTS_MAX).collect(),
            mta_sts: self.mta_sts.map(WireSts::read).transpose()?.flatten(),
            services: self.services.read()?,
            ..self.base.try_into()?
        };
        Ok((directory, unusable))
    }
}

impl From<&Directory> for WireDirectory {
    /// Sorted, so that equal directories have equal bytes.
    fn from(directory: &Directory) -> Self {
        let mut domains: Vec<_> =
            directory.domains.iter().map(|(domain, policy)| (domain.to_string(), policy.catch_all)).collect();
        domains.sort();
        let mut verifiers: Vec<_> = directory
            .verifiers
            .iter()
            .map(|(login, verifier)| WireVerifier {
                login: login.clone(),
                salt: verifier.salt.clone(),
                iterations: verifier.iterations,
                keys: verifier.keys.iter().map(|keys| (keys.stored, keys.server)).collect(),
            })
            .collect();
        verifiers.sort_by(|a, b| a.login.cmp(&b.login));
        Self {
            version: directory.version,
            domains,
            addresses: WireAddresses(directory.addresses.sorted()),
            subaddress_separator: directory.subaddress_separator,
            verifiers,
            seal_key: directory.seal_key.clone(),
            message_octets_max: directory.message_octets_max,
        }
    }
}

impl TryFrom<WireDirectory> for Directory {
    type Error = WireError;

    fn try_from(wire: WireDirectory) -> Result<Self, WireError> {
        Ok(Self {
            version: wire.version,
            domains: wire
                .domains
                .into_iter()
                .map(|(name, catch_all)| {
                    Ok((Domain::parse(&name).map_err(|_| WireError("domain"))?, DomainPolicy { catch_all }))
                })
                .collect::<Result<_, WireError>>()?,
            addresses: wire.addresses.0,
            subaddress_separator: wire.subaddress_separator,
            verifiers: wire
                .verifiers
                .into_iter()
                .map(|verifier| {
                    let keys = verifier.keys.into_iter().map(|(stored, server)| ScramKeys { stored, server }).collect();
                    (verifier.login, LoginVerifier { salt: verifier.salt, iterations: verifier.iterations, keys })
                })
                .collect(),
            seal_key: wire.seal_key,
            message_octets_max: wire.message_octets_max,
            patterns: Vec::new(),
            tight: std::collections::HashMap::new(),
            srs: None,
            access: AccessList::default(),
            policies: Policies::default(),
            hosts: Vec::new(),
            mta_sts: None,
            services: Services::default(),
        })
    }
}
