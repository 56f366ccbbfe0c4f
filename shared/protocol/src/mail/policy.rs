//! What the owner wants done with mail of the world, for each domain. The table that goes by it is the edge's.

use std::collections::HashMap;
use std::sync::Arc;

use super::address::Domain;

/// Sealers one policy may trust.
pub const SEALERS_MAX: usize = 64;
/// Names under which the edges of one home may write results.
pub const HOSTS_MAX: usize = 64;

/// How far the owner goes at most with what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// To refusing it.
    #[default]
    Refuse,
    /// To Junk.
    Junk,
    /// Nothing is done.
    Accept,
}

impl Limit {
    /// As it is written in a config.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Junk => "junk",
            Self::Accept => "accept",
        }
    }

    /// Reads it.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Refuse, Self::Junk, Self::Accept].into_iter().find(|limit| limit.word() == word)
    }
}

/// What is done with mail for one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Everything is noted and nothing is done.
    pub monitor: bool,
    /// Where SPF fails and neither DMARC nor a signature says more.
    pub spf_fail: Limit,
    /// Where DMARC fails and its domain asks for something.
    pub dmarc_fail: Limit,
    /// Where the sender's domain does not exist, or takes no mail.
    pub unknown_sender: Limit,
    /// Whose ARC seals are believed, in lower case; what is below a name counts too.
    pub trusted_sealers: Vec<String>,
}

/// The policies of one home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Of every domain that has none of its own.
    pub base: Arc<Policy>,
    /// Of these.
    pub domains: HashMap<Domain, Arc<Policy>>,
}

impl Policies {
    /// That of mail for this domain.
    pub fn of(&self, domain: &Domain) -> &Arc<Policy> {
        self.domains.get(domain).unwrap_or(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_written() {
        for limit in [Limit::Refuse, Limit::Junk, Limit::Accept] {
            assert_eq!(Limit::parse(limit.word()), Some(limit));
        }
        assert_eq!(Limit::parse("Refuse"), None);
    }

    #[test]
    fn a_domain_has_its_own_policy_or_that_of_all() {
        let domain = |name| Domain::parse(name).expect("valid");
        let own = Arc::new(Policy { monitor: true, ..Policy::default() });
        let policies = Policies { domains: [(domain("a.example"), Arc::clone(&own))].into(), ..Policies::default() };
        assert_eq!(policies.of(&domain("a.example")), &own);
        assert_eq!(policies.of(&domain("b.example")), &policies.base);
    }
}
