//! `Directory`: the home's snapshot; the edge stores it and answers with the version it now holds.

use serde::{Deserialize, Serialize};

use crate::mail::address::Domain;
use crate::mail::directory::{Directory, DomainPattern, DomainPolicy, LoginVerifier, ScramKeys, SrsVerifier};
use crate::tunnel::wire::WireError;

/// [`Directory`] as it travels and is stored at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDirectory {
    version: u64,
    domains: Vec<(String, bool)>,
    addresses: Vec<String>,
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

impl std::fmt::Debug for WireVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WireVerifier({})", self.login)
    }
}

/// [`Directory`] as it travels and is stored since version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireDirectory2 {
    base: WireDirectory,
    patterns: Vec<(String, String)>,
    full: Vec<String>,
    srs: Option<WireSrs>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WireSrs {
    key: [u8; 32],
}

impl std::fmt::Debug for WireSrs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireSrs")
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
        Self { base, patterns: Vec::new(), full: Vec::new(), srs: None }
    }
}

impl From<&Directory> for WireDirectory2 {
    /// Sorted, so that equal directories have equal bytes; patterns keep their order.
    fn from(directory: &Directory) -> Self {
        let mut full: Vec<_> = directory.full.iter().cloned().collect();
        full.sort();
        Self {
            base: directory.into(),
            patterns: directory
                .patterns
                .iter()
                .map(|pattern| (pattern.domain.to_string(), pattern.expression.clone()))
                .collect(),
            full,
            srs: directory.srs.as_ref().map(|srs| WireSrs { key: srs.key }),
        }
    }
}

impl TryFrom<WireDirectory2> for Directory {
    type Error = WireError;

    fn try_from(wire: WireDirectory2) -> Result<Self, WireError> {
        let patterns = wire
            .patterns
            .into_iter()
            .map(|(domain, expression)| {
                Ok(DomainPattern { domain: Domain::parse(&domain).map_err(|_| WireError("domain"))?, expression })
            })
            .collect::<Result<_, WireError>>()?;
        Ok(Self {
            patterns,
            full: wire.full.into_iter().collect(),
            srs: wire.srs.map(|srs| SrsVerifier { key: srs.key }),
            ..wire.base.try_into()?
        })
    }
}

impl From<&Directory> for WireDirectory {
    /// Sorted, so that equal directories have equal bytes.
    fn from(directory: &Directory) -> Self {
        let mut domains: Vec<_> =
            directory.domains.iter().map(|(domain, policy)| (domain.to_string(), policy.catch_all)).collect();
        domains.sort();
        let mut addresses: Vec<_> = directory.addresses.iter().cloned().collect();
        addresses.sort();
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
            addresses,
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
            addresses: wire.addresses.into_iter().collect(),
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
            full: std::collections::HashSet::new(),
            srs: None,
        })
    }
}
