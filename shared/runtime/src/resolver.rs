//! DNS answers as types, *none* kept apart from *could not tell*.

use std::net::{IpAddr, SocketAddr};

use gatepost_protocol::mail::address::Domain;
use thiserror::Error;

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

/// Asks the DNS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    _todo: (),
}

impl Resolver {
    /// With the system's resolvers, or these.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, CouldNotTell> {
        let _ = servers;
        todo!()
    }

    /// MX records.
    pub async fn exchangers(&self, domain: &Domain) -> Result<ExchangersAnswer, CouldNotTell> {
        let _ = domain;
        todo!()
    }

    /// A and (if `ipv6`) AAAA records; empty if there are none.
    pub async fn addresses(&self, host: &str, ipv6: bool) -> Result<Vec<IpAddr>, CouldNotTell> {
        let _ = (host, ipv6);
        todo!()
    }
}
