//! `[reports]`: what others are told of mail in their name.

use gatepost_protocol::mail::address::Domain;
use serde::Deserialize;

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReports {
    #[serde(default)]
    dmarc_aggregate: bool,
}

/// What others are told, and in whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Each domain that asks for it hears once a day what came in its name.
    pub dmarc_aggregate: bool,
    /// Our own, the main one first: none of these is reported to.
    pub domains: Vec<Domain>,
}

impl RawReports {
    /// With the domains of this home.
    pub fn check(&self, domains: &[Domain]) -> Settings {
        Settings { dmarc_aggregate: self.dmarc_aggregate, domains: domains.to_vec() }
    }
}
