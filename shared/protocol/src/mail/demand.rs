//! What is demanded of a mail host before it gets a message: by its domain's TLSA records (RFC 7672), by the domain's
//! MTA-STS policy (RFC 8461), by the owner's floor, else nothing. The one place where they are weighed. Pure.

use super::dane::{Applies, Named};
use super::mta_sts::{Mode, others};
use super::transport::{Failure, FailureKind, Vouched};

/// The least that mail to a domain must have, as its sender's owner wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Floor {
    /// What the domain itself asks for; else TLS where it is offered.
    #[default]
    None,
    /// TLS, with any certificate.
    Encrypt,
    /// TLS, with a certificate that somebody vouches for.
    Verify,
    /// TLS, by the domain's own TLSA records.
    Dane,
}

impl Floor {
    /// Each with its word.
    pub const ALL: [(&'static str, Self); 4] =
        [("none", Self::None), ("encrypt", Self::Encrypt), ("verify", Self::Verify), ("dane", Self::Dane)];

    /// By its word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == word).map(|(_, floor)| floor)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encrypt => "encrypt",
            Self::Verify => "verify",
            Self::Dane => "dane",
        }
    }
}

/// What is demanded of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// TLS if it is offered, with any certificate; else none.
    Nothing,
    /// The same, but what is wrong with it is noted.
    Note,
    /// TLS, with any certificate.
    Encryption,
    /// TLS, with a certificate for the host's name that a CA vouches for; whose wish it is.
    Authority(Vouched),
    /// TLS, with one of these certificates.
    Records(Named),
    /// It gets nothing.
    Never(Failure),
}

/// Weighs what is known of one host.
pub fn of_host(host: &str, records: &Applies, policy: Option<&others::Policy>, floor: Floor) -> Demand {
    // RFC 8461 §2: a policy never overrides DANE.
    if let Applies::Certificates(named) = records {
        return Demand::Records(named.clone());
    }
    if floor == Floor::Dane {
        let reason = match records {
            Applies::Encryption => "none of its TLSA records can be used",
            _ => "it has no signed TLSA record",
        };
        return never(FailureKind::DaneRequired, format!("DANE is demanded for this domain, and for {host} {reason}"));
    }
    if let Some(policy) = policy.filter(|policy| policy.mode == Mode::Enforce) {
        if !policy.lists(host) {
            return never(FailureKind::ValidationFailure, format!("The domain's MTA-STS policy does not list {host}"));
        }
        return Demand::Authority(Vouched::MtaSts);
    }
    match (floor, records) {
        (Floor::Verify | Floor::Dane, _) => Demand::Authority(Vouched::Pkix),
        (Floor::Encrypt, _) | (Floor::None, Applies::Encryption) => Demand::Encryption,
        (Floor::None, _) if policy.is_some_and(|policy| policy.mode == Mode::Testing) => Demand::Note,
        (Floor::None, _) => Demand::Nothing,
    }
}

fn never(kind: FailureKind, reason: String) -> Demand {
    Demand::Never(Failure { kind, reason })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::dane::Tlsa;
    use super::*;

    fn policy(mode: Mode) -> others::Policy {
        others::Policy { mode, hosts: vec!["mx.example".to_owned()], max_age: Duration::from_secs(1) }
    }

    fn certificates() -> Applies {
        Applies::of(&[Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0; 32] }])
    }

    #[test]
    fn dane_comes_before_everything_else() {
        for floor in Floor::ALL.map(|(_, floor)| floor) {
            for mode in [Mode::Enforce, Mode::Testing, Mode::None] {
                let demand = of_host("other.example", &certificates(), Some(&policy(mode)), floor);
                assert!(matches!(demand, Demand::Records(_)), "{floor:?} {mode:?}");
            }
        }
    }

    #[test]
    fn a_policy_that_enforces_demands_a_listed_host_and_a_ca() {
        let enforce = policy(Mode::Enforce);
        for records in [Applies::Nothing, Applies::Encryption] {
            for floor in [Floor::None, Floor::Encrypt, Floor::Verify] {
                let demand = of_host("mx.example", &records, Some(&enforce), floor);
                assert_eq!(demand, Demand::Authority(Vouched::MtaSts));
                assert!(matches!(of_host("other.example", &records, Some(&enforce), floor), Demand::Never(_)));
            }
        }
    }

    #[test]
    fn a_policy_that_tests_stops_nothing() {
        for host in ["mx.example", "other.example"] {
            let testing = policy(Mode::Testing);
            assert_eq!(of_host(host, &Applies::Nothing, Some(&testing), Floor::None), Demand::Note);
            assert_eq!(of_host(host, &Applies::Nothing, Some(&policy(Mode::None)), Floor::None), Demand::Nothing);
        }
    }

    #[test]
    fn the_owner_can_demand_more_than_the_domain_and_never_less() {
        let nothing = &Applies::Nothing;
        assert_eq!(of_host("mx.example", nothing, None, Floor::None), Demand::Nothing);
        assert_eq!(of_host("mx.example", nothing, None, Floor::Encrypt), Demand::Encryption);
        assert_eq!(of_host("mx.example", nothing, None, Floor::Verify), Demand::Authority(Vouched::Pkix));
        let testing = policy(Mode::Testing);
        let demand = of_host("mx.example", nothing, Some(&testing), Floor::Verify);
        assert_eq!(demand, Demand::Authority(Vouched::Pkix));
        for records in [Applies::Nothing, Applies::Encryption] {
            let Demand::Never(failure) = of_host("mx.example", &records, None, Floor::Dane) else { panic!("it goes") };
            assert_eq!(failure.kind, FailureKind::DaneRequired);
        }
        assert_eq!(of_host("mx.example", &Applies::Encryption, None, Floor::None), Demand::Encryption);
    }

    #[test]
    fn every_floor_is_found_by_its_word() {
        for (word, floor) in Floor::ALL {
            assert_eq!((Floor::of_word(word), floor.word()), (Some(floor), word));
        }
        assert_eq!(Floor::of_word("strict"), None);
    }
}
