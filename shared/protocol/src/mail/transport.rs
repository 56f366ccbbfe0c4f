//! How a message's way to the next host was protected: what vouched for the host, by whose policy, and what RFC 8460
//! counts of it. Facts only; who decides by them is elsewhere. Pure.

use std::fmt;
use std::net::IpAddr;

/// Sessions told of one attempt: as many as hosts are tried, and what was found out before the first.
pub const SESSIONS_MAX: usize = 16;
/// Policies told of one attempt: one of the domain, one a host.
pub const POLICIES_MAX: usize = 16;
/// Octets of all policies' texts and host patterns together.
pub const POLICY_OCTETS_MAX: usize = 16 * 1024;
/// Octets of one line of a policy, of a name, of a reason.
pub const TEXT_OCTETS_MAX: usize = 256;

/// Who vouched that a host is the one that was meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vouched {
    /// Nobody: no TLS, or any certificate.
    #[default]
    Nobody,
    /// A CA, for a name the owner wrote or asked to be verified.
    Pkix,
    /// A CA, for a name the domain's MTA-STS policy lists (RFC 8461).
    MtaSts,
    /// The domain's own TLSA records (RFC 7672).
    Dane,
}

impl Vouched {
    /// As log lines have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nothing",
            Self::Pkix => "pkix",
            Self::MtaSts => "mta-sts",
            Self::Dane => "dane",
        }
    }
}

impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which kind of policy a session was held to (RFC 8460 §4.2, `policy-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// The domain has neither.
    NoPolicyFound,
}

impl PolicyKind {
    /// As a report has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
            Self::NoPolicyFound => "no-policy-found",
        }
    }
}

/// A policy that applied to a domain's hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Which kind.
    pub kind: PolicyKind,
    /// Its text (`policy-string`): the lines of an MTA-STS policy, or a TLSA record each.
    pub text: Vec<String>,
    /// The hosts it names (`mx-host`), of an MTA-STS policy.
    pub hosts: Vec<String>,
}

impl Policy {
    /// That there is none.
    pub fn none() -> Self {
        Self { kind: PolicyKind::NoPolicyFound, text: Vec::new(), hosts: Vec::new() }
    }
}

/// What was wrong (RFC 8460 §4.3, `result-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// The host offers no STARTTLS.
    StartTlsNotSupported,
    /// The certificate is for another name.
    CertificateHostMismatch,
    /// It has expired.
    CertificateExpired,
    /// Nobody we trust vouches for it.
    CertificateNotTrusted,
    /// TLS failed for another reason.
    ValidationFailure,
    /// The TLSA records can't be used, or none matches.
    TlsaInvalid,
    /// The DNS's signatures are bogus.
    DnssecInvalid,
    /// DANE is required and there is none.
    DaneRequired,
    /// The MTA-STS policy can't be fetched.
    StsPolicyFetchError,
    /// It can't be understood, or lists none of the domain's hosts.
    StsPolicyInvalid,
    /// The web host that serves it can't prove its name.
    StsWebpkiInvalid,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::StartTlsNotSupported,
        Self::CertificateHostMismatch,
        Self::CertificateExpired,
        Self::CertificateNotTrusted,
        Self::ValidationFailure,
        Self::TlsaInvalid,
        Self::DnssecInvalid,
        Self::DaneRequired,
        Self::StsPolicyFetchError,
        Self::StsPolicyInvalid,
        Self::StsWebpkiInvalid,
    ];

    /// As a report has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::StartTlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

/// A failure and its words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What was wrong.
    pub kind: FailureKind,
    /// In somebody's words (`failure-reason-code`).
    pub reason: String,
}

/// One session with a host, or the finding that none could even be tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The policy it was held to: a place among those of its [`Sessions`].
    pub policy: usize,
    /// The host's name (`receiving-mx-hostname`); `None` of a failure before any host.
    pub host: Option<String>,
    /// Its address (`receiving-ip`).
    pub receiving_ip: Option<IpAddr>,
    /// Ours (`sending-mta-ip`).
    pub sending_ip: Option<IpAddr>,
    /// What was wrong; `None` of one that was as its policy wants it.
    pub failure: Option<Failure>,
}

/// The new sessions of one attempt at a domain's hosts; a connection used again is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    policies: Vec<Policy>,
    sessions: Vec<Session>,
}

impl Sessions {
    /// Notes one, within the bounds; beyond them the first stay.
    pub fn note(
        &mut self,
        policy: &Policy,
        host: Option<&str>,
        (receiving_ip, sending_ip): (Option<IpAddr>, Option<IpAddr>),
        failure: Option<Failure>,
    ) {
        if self.sessions.len() >= SESSIONS_MAX {
            return;
        }
        let used = self.policies.iter().map(octets).sum::<usize>();
        let policy = fitted(policy, POLICY_OCTETS_MAX.saturating_sub(used));
        let known = self.policies.iter().position(|known| *known == policy);
        let place = known.unwrap_or(self.policies.len());
        if known.is_none() {
            if place >= POLICIES_MAX {
                return;
            }
            self.policies.push(policy);
        }
        let failure = failure.map(|Failure { kind, reason }| Failure { kind, reason: cut(&reason) });
        self.sessions.push(Session { policy: place, host: host.map(cut), receiving_ip, sending_ip, failure });
    }

    /// True if there was none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Each with its policy.
    pub fn each(&self) -> impl Iterator<Item = (&Policy, &Session)> {
        self.sessions.iter().filter_map(|session| Some((self.policies.get(session.policy)?, session)))
    }
}

/// Within the room that is left: lines that do not fit go from the end on.
fn fitted(policy: &Policy, mut room: usize) -> Policy {
    let mut taken = |lines: &[String]| {
        let fits = |line: &String| {
            let rest = room.checked_sub(line.len());
            room = rest.unwrap_or(0);
            rest.is_some()
        };
        lines.iter().map(|line| cut(line)).take_while(fits).collect()
    };
    Policy { kind: policy.kind, text: taken(&policy.text), hosts: taken(&policy.hosts) }
}

fn octets(policy: &Policy) -> usize {
    policy.text.iter().chain(&policy.hosts).map(String::len).sum()
}

/// Printable and bounded: hosts and records are other people's words.
fn cut(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    text.truncate(text.floor_char_boundary(TEXT_OCTETS_MAX));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(text: &[&str]) -> Policy {
        Policy { kind: PolicyKind::Sts, text: text.iter().map(|&line| line.to_owned()).collect(), hosts: Vec::new() }
    }

    #[test]
    fn a_policy_is_told_once_for_all_its_sessions() {
        let mut sessions = Sessions::default();
        sessions.note(&policy(&["version: STSv1"]), Some("a"), (None, None), None);
        let failure = Failure { kind: FailureKind::CertificateExpired, reason: "it has\r\nexpired".into() };
        sessions.note(&policy(&["version: STSv1"]), Some("b"), (None, None), Some(failure));
        sessions.note(&Policy::none(), None, (None, None), None);
        assert_eq!(sessions.policies.len(), 2);
        let told: Vec<_> = sessions.each().collect();
        assert_eq!((told[1].0.kind, told[1].1.host.as_deref()), (PolicyKind::Sts, Some("b")));
        assert_eq!(told[1].1.failure.as_ref().map(|failure| failure.reason.as_str()), Some("it has??expired"));
        assert_eq!(told[2].0.kind, PolicyKind::NoPolicyFound);
    }

    #[test]
    fn every_failure_has_its_word() {
        let words: std::collections::HashSet<_> = FailureKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), FailureKind::ALL.len());
    }

    proptest! {
        #[test]
        fn whatever_is_noted_stays_within_the_bounds(
            noted in proptest::collection::vec((proptest::collection::vec("\\PC{0,900}", 0..40), "\\PC{0,900}"), 0..40)
        ) {
            let mut sessions = Sessions::default();
            for (text, host) in &noted {
                let policy = Policy { kind: PolicyKind::Tlsa, text: text.clone(), hosts: Vec::new() };
                sessions.note(&policy, Some(host), (None, None), None);
            }
            prop_assert!(sessions.sessions.len() <= SESSIONS_MAX && sessions.policies.len() <= POLICIES_MAX);
            prop_assert!(sessions.policies.iter().map(octets).sum::<usize>() <= POLICY_OCTETS_MAX);
            prop_assert_eq!(sessions.each().count(), noted.len().min(SESSIONS_MAX));
        }
    }
}
