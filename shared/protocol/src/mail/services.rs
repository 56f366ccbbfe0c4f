//! Where mail programs find the servers of a home's accounts. Nothing stands in here that is not served.

use super::address::Domain;

/// Hosts that take submissions.
pub const SUBMISSIONS_MAX: usize = 8;

/// A server, TLS from the first octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its host: the name in its certificate.
    pub host: Domain,
    /// Its port.
    pub port: u16,
}

/// The servers of one home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Where accounts read their mail.
    pub imaps: Option<Service>,
    /// Where they send theirs, the first choice first; [`SUBMISSIONS_MAX`] at most.
    pub submissions: Vec<Service>,
}

impl Services {
    /// What a mail program needs at least: one to read by, and one to send by.
    pub fn whole(&self) -> Option<(&Service, &[Service])> {
        let imaps = self.imaps.as_ref()?;
        (!self.submissions.is_empty()).then_some((imaps, self.submissions.as_slice()))
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
