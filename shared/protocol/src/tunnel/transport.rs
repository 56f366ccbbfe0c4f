//! How a message's way was protected, as it travels home and lies in the journal of attempts: the twins of
//! `mail/transport`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::mail::transport::{Failure, FailureKind, Policy, PolicyKind, Sessions, Vouched};

/// [`Vouched`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireVouched {
    /// Nobody.
    #[default]
    Nobody,
    /// A CA.
    Pkix,
    /// A CA, by the domain's MTA-STS policy.
    MtaSts,
    /// The domain's TLSA records.
    Dane,
}

impl From<Vouched> for WireVouched {
    fn from(vouched: Vouched) -> Self {
        match vouched {
            Vouched::Nobody => Self::Nobody,
            Vouched::Pkix => Self::Pkix,
            Vouched::MtaSts => Self::MtaSts,
            Vouched::Dane => Self::Dane,
        }
    }
}

impl From<WireVouched> for Vouched {
    fn from(wire: WireVouched) -> Self {
        match wire {
            WireVouched::Nobody => Self::Nobody,
            WireVouched::Pkix => Self::Pkix,
            WireVouched::MtaSts => Self::MtaSts,
            WireVouched::Dane => Self::Dane,
        }
    }
}

/// [`Sessions`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireSessions(Vec<WireSession>);

/// One session; its policy stands with the first that was held to it, the others name that one's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireSession {
    policy: WirePolicyRef,
    host: Option<String>,
    receiving_ip: Option<IpAddr>,
    sending_ip: Option<IpAddr>,
    failure: Option<(WireFailureKind, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WirePolicyRef {
    Is { kind: WirePolicyKind, text: Vec<String>, hosts: Vec<String> },
    AsOf(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WirePolicyKind {
    Tlsa,
    Sts,
    NoPolicyFound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireFailureKind {
    StartTlsNotSupported,
    CertificateHostMismatch,
    CertificateExpired,
    CertificateNotTrusted,
    ValidationFailure,
    TlsaInvalid,
    DnssecInvalid,
    DaneRequired,
    StsPolicyFetchError,
    StsPolicyInvalid,
    StsWebpkiInvalid,
}

impl From<&Sessions> for WireSessions {
    fn from(sessions: &Sessions) -> Self {
        let mut first: Vec<(usize, u8)> = Vec::new();
        let told = sessions.each().zip(0..).map(|((policy, session), place)| {
            let said = first.iter().find(|(known, _)| *known == session.policy);
            let policy = if let Some((_, at)) = said {
                WirePolicyRef::AsOf(*at)
            } else {
                first.push((session.policy, place));
                let Policy { kind, text, hosts } = policy.clone();
                WirePolicyRef::Is { kind: kind.into(), text, hosts }
            };
            WireSession {
                policy,
                host: session.host.clone(),
                receiving_ip: session.receiving_ip,
                sending_ip: session.sending_ip,
                failure: session.failure.as_ref().map(|failure| (failure.kind.into(), failure.reason.clone())),
            }
        });
        Self(told.collect())
    }
}

impl From<&WireSessions> for Sessions {
    /// Whatever arrives becomes bounded and printable; a session that names no policy goes.
    fn from(wire: &WireSessions) -> Self {
        let mut sessions = Self::default();
        for told in &wire.0 {
            let policy = match &told.policy {
                WirePolicyRef::AsOf(place) => wire.0.get(usize::from(*place)).map(|session| &session.policy),
                is @ WirePolicyRef::Is { .. } => Some(is),
            };
            let Some(WirePolicyRef::Is { kind, text, hosts }) = policy else { continue };
            let policy = Policy { kind: (*kind).into(), text: text.clone(), hosts: hosts.clone() };
            let failure = told.failure.as_ref();
            let failure = failure.map(|(kind, reason)| Failure { kind: (*kind).into(), reason: reason.clone() });
            sessions.note(&policy, told.host.as_deref(), (told.receiving_ip, told.sending_ip), failure);
        }
        sessions
    }
}

impl From<PolicyKind> for WirePolicyKind {
    fn from(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::Tlsa => Self::Tlsa,
            PolicyKind::Sts => Self::Sts,
            PolicyKind::NoPolicyFound => Self::NoPolicyFound,
        }
    }
}

impl From<WirePolicyKind> for PolicyKind {
    fn from(wire: WirePolicyKind) -> Self {
        match wire {
            WirePolicyKind::Tlsa => Self::Tlsa,
            WirePolicyKind::Sts => Self::Sts,
            WirePolicyKind::NoPolicyFound => Self::NoPolicyFound,
        }
    }
}

impl From<FailureKind> for WireFailureKind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::StartTlsNotSupported => Self::StartTlsNotSupported,
            FailureKind::CertificateHostMismatch => Self::CertificateHostMismatch,
            FailureKind::CertificateExpired => Self::CertificateExpired,
            FailureKind::CertificateNotTrusted => Self::CertificateNotTrusted,
            FailureKind::ValidationFailure => Self::ValidationFailure,
            FailureKind::TlsaInvalid => Self::TlsaInvalid,
            FailureKind::DnssecInvalid => Self::DnssecInvalid,
            FailureKind::DaneRequired => Self::DaneRequired,
            FailureKind::StsPolicyFetchError => Self::StsPolicyFetchError,
            FailureKind::StsPolicyInvalid => Self::StsPolicyInvalid,
            FailureKind::StsWebpkiInvalid => Self::StsWebpkiInvalid,
        }
    }
}

impl From<WireFailureKind> for FailureKind {
    fn from(wire: WireFailureKind) -> Self {
        match wire {
            WireFailureKind::StartTlsNotSupported => Self::StartTlsNotSupported,
            WireFailureKind::CertificateHostMismatch => Self::CertificateHostMismatch,
            WireFailureKind::CertificateExpired => Self::CertificateExpired,
            WireFailureKind::CertificateNotTrusted => Self::CertificateNotTrusted,
            WireFailureKind::ValidationFailure => Self::ValidationFailure,
            WireFailureKind::TlsaInvalid => Self::TlsaInvalid,
            WireFailureKind::DnssecInvalid => Self::DnssecInvalid,
            WireFailureKind::DaneRequired => Self::DaneRequired,
            WireFailureKind::StsPolicyFetchError => Self::StsPolicyFetchError,
            WireFailureKind::StsPolicyInvalid => Self::StsPolicyInvalid,
            WireFailureKind::StsWebpkiInvalid => Self::StsWebpkiInvalid,
        }
    }
}

/// For tests of what carries them.
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_kind() -> impl Strategy<Value = PolicyKind> {
        prop_oneof![Just(PolicyKind::Tlsa), Just(PolicyKind::Sts), Just(PolicyKind::NoPolicyFound)]
    }

    proptest! {
        #[test]
        fn sessions_survive_the_border(noted in proptest::collection::vec(
            (any_kind(), 0..3_u8, any::<Option<IpAddr>>(), proptest::option::of((0..11_usize, "[a-z ]{0,20}"))), 0..20)
        ) {
            let mut sessions = Sessions::default();
            for (kind, line, ip, failure) in noted {
                let policy = Policy { kind, text: vec![format!("line {line}")], hosts: vec!["mx".to_owned()] };
                let failure = failure.map(|(kind, reason)| Failure { kind: FailureKind::ALL[kind], reason });
                sessions.note(&policy, Some("mx.example"), (ip, None), failure);
            }
            prop_assert_eq!(Sessions::from(&WireSessions::from(&sessions)), sessions);
        }

        #[test]
        fn whatever_arrives_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(wire) = postcard::from_bytes::<WireSessions>(&bytes) {
                let _ = Sessions::from(&wire);
            }
        }
    }

    #[test]
    fn a_session_that_names_no_policy_goes() {
        let at = |policy| WireSession { policy, host: None, receiving_ip: None, sending_ip: None, failure: None };
        let wire = WireSessions(vec![at(WirePolicyRef::AsOf(0)), at(WirePolicyRef::AsOf(9))]);
        assert!(Sessions::from(&wire).is_empty());
    }

    #[test]
    fn who_vouched_survives_the_border() {
        for vouched in [Vouched::Nobody, Vouched::Pkix, Vouched::MtaSts, Vouched::Dane] {
            assert_eq!(Vouched::from(WireVouched::from(vouched)), vouched);
        }
    }
}
