//! What TLS is demanded of a domain's hosts, and what was had of them: by signed TLSA records and MTA-STS policies, asked
//! for here, weighed by `protocol/mail/demand`. What can't be proven though it should be is never taken for absent.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::dane::{Applies, Tlsa};
use gatepost_protocol::mail::demand::{self, Demand, Floor};
use gatepost_protocol::mail::mta_sts::others;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::{Failure, FailureKind, Policy, PolicyKind, Sessions, Vouched};
use gatepost_protocol::smtp::client as smtp;
use gatepost_protocol::smtp::client::Stage;
use gatepost_runtime::attempt::{Attempt, Believed, Dane, Finding, Tls};
use gatepost_runtime::dnssec::{Proven, Unproven, Validator};
use gatepost_runtime::resolver::{ExchangersAnswer, Resolver};

use super::exchangers;
use super::policies::Policies;

/// Asks what is to be known before mail goes to a domain.
#[derive(Debug)]
pub(super) struct Security {
    validator: Validator,
    pub(super) policies: Policies,
}

/// What is known of a domain, whatever its hosts.
#[derive(Clone, Debug)]
pub(super) struct Known {
    domain: Domain,
    /// Its MX records are signed, or it has none and is its own host: TLSA records of its hosts count.
    secure: bool,
    policy: Option<(String, Arc<others::Policy>)>,
    floor: Floor,
    /// What was wrong before any host was tried.
    failure: Option<Failure>,
}

/// What one host is held to.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// For reports.
    policy: Policy,
    /// Which TLS it must speak.
    pub(super) tls: Tls,
    /// Whose word counts for its certificate.
    pub(super) believed: Believed,
    /// What was wrong.
    pub(super) finding: Finding,
    /// What is wrong already, though it gets the message.
    noted: Option<Failure>,
}

/// A domain that gets nothing now: the reply, and what a report says of it.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) reply: Reply,
    pub(super) sessions: Sessions,
}

impl Security {
    pub(super) fn new(validator: Validator, policies: Policies) -> Self {
        Self { validator, policies }
    }

    /// The MX records of a domain, and what is known of it.
    pub(super) async fn exchangers(
        &self,
        resolver: &Resolver,
        domain: &Domain,
        floor: Floor,
    ) -> Result<(ExchangersAnswer, Known), Unknown> {
        let (answer, secure) = if self.validator.is_usable().await {
            match self.validator.exchangers(domain).await {
                // Of one that has none, its own addresses say whether it is signed.
                Ok(Proven::Secure(answer) | Proven::Insecure(answer @ ExchangersAnswer::None)) => (answer, true),
                Ok(Proven::Insecure(answer)) => (answer, false),
                Err(unproven) => return Err(unknown(&unproven)),
            }
        } else {
            let failed = |reply| Unknown { reply, sessions: Sessions::default() };
            let answer = resolver.exchangers(domain).await;
            (answer.map_err(|error| failed(Reply::dns_failed(&error.to_string())))?, false)
        };
        let found = match &answer {
            ExchangersAnswer::NoSuchDomain => super::policies::Found::default(),
            ExchangersAnswer::None | ExchangersAnswer::Found(_) => self.policies.of(domain).await,
        };
        let known = Known { domain: domain.clone(), secure, policy: found.policy, floor, failure: found.failure };
        Ok((answer, known))
    }

    /// What this host of the domain is held to. An error is why it gets nothing, noted as a session.
    pub(super) async fn held(
        &self,
        known: &Known,
        host: &str,
        ipv6: bool,
        sessions: &mut Sessions,
    ) -> Result<Held, Reply> {
        let (records, base) = match self.records(known, host, ipv6).await {
            Ok(found) => found,
            Err(unproven) => {
                if let Some(failure) = failure_of(&unproven) {
                    sessions.note(&known.policy(), Some(host), (None, None), Some(failure));
                }
                return Err(reply_of(&unproven));
            }
        };
        let applies = Applies::of(&records);
        let policy = if records.is_empty() { known.policy() } else { of_records(&records) };
        let held =
            |tls, believed| Held { policy: policy.clone(), tls, believed, finding: Finding::default(), noted: None };
        let sts = known.policy.as_ref().map(|(_, policy)| policy.as_ref());
        Ok(match demand::of_host(host, &applies, sts, known.floor) {
            Demand::Nothing => held(Tls::Opportunistic, Believed::ByTls),
            Demand::Note => {
                let listed = sts.is_none_or(|policy| policy.lists(host));
                let reason = || format!("the policy does not list {host}");
                let failure = || Failure { kind: FailureKind::ValidationFailure, reason: reason() };
                let noted = (!listed).then(failure);
                Held { noted, ..held(Tls::Opportunistic, Believed::Noted) }
            }
            Demand::Encryption => {
                let reason = "none of the TLSA records can be used".to_owned();
                let unusable = applies == Applies::Encryption;
                let noted = unusable.then_some(Failure { kind: FailureKind::TlsaInvalid, reason });
                Held { noted, ..held(Tls::StartTls, Believed::Anybody) }
            }
            Demand::Authority(Vouched::MtaSts) => held(Tls::StartTls, Believed::MtaSts),
            Demand::Authority(_) => held(Tls::StartTls, Believed::ByAuthority),
            Demand::Records(records) => {
                // RFC 7672 §3.2.2: what the host is called, and whose mail it takes.
                let names = vec![base.clone(), host.to_owned(), known.domain.to_string()];
                held(Tls::StartTls, Believed::Dane(Arc::new(Dane { named: records, base, names })))
            }
            Demand::Never(failure) => {
                let reply = Reply::tls_failed(&failure.reason);
                sessions.note(&policy, Some(host), (None, None), Some(failure));
                return Err(reply);
            }
        })
    }

    /// Signed TLSA records of a host, and the name they are at (RFC 7672 §2.2.2).
    async fn records(&self, known: &Known, host: &str, ipv6: bool) -> Result<(Vec<Tlsa>, String), Unproven> {
        let none = || (Vec::new(), host.to_owned());
        if !known.secure || host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
            return Ok(none());
        }
        let found = self.validator.addresses(host, ipv6).await?;
        let is_secure = found.is_secure();
        let found = found.into_inner();
        if is_secure && let Some(expanded) = found.expanded {
            let records = self.validator.tlsa(&expanded, exchangers::PORT).await?;
            if !records.is_empty() {
                return Ok((records, expanded));
            }
        } else if !is_secure && (found.expanded.is_none() || !found.alias_is_secure) {
            return Ok(none());
        }
        Ok((self.validator.tlsa(host, exchangers::PORT).await?, host.to_owned()))
    }
}

impl Known {
    /// Of one whose mail comes to an address.
    pub(super) fn of_literal(domain: Domain, floor: Floor) -> Self {
        Self { domain, secure: false, policy: None, floor, failure: None }
    }

    /// What two messages must have in common to go over one connection; empty if nothing is held against a host.
    pub(super) fn key(&self) -> String {
        match (&self.policy, self.secure, self.floor) {
            (None, false, Floor::None) => String::new(),
            (policy, secure, floor) => {
                let id = policy.as_ref().map_or("", |(id, _)| id);
                format!("{} {secure} {} {id}", self.domain, floor.word())
            }
        }
    }

    /// What was wrong before any host was tried, as a session.
    pub(super) fn note(&self, sessions: &mut Sessions) {
        if let Some(failure) = &self.failure {
            let sts = Policy { kind: PolicyKind::Sts, ..self.policy() };
            sessions.note(&sts, None, (None, None), Some(failure.clone()));
        }
    }

    /// For reports: that of the domain, or none.
    fn policy(&self) -> Policy {
        self.policy.as_ref().map_or_else(Policy::none, |(_, policy)| Policy {
            kind: PolicyKind::Sts,
            text: policy.lines(),
            hosts: policy.hosts.clone(),
        })
    }
}

impl Held {
    /// The same, with nothing found yet.
    pub(super) fn afresh(&self) -> Self {
        Self { finding: Finding::default(), ..self.clone() }
    }

    /// Notes a session that came about.
    pub(super) fn had(&self, attempt: &Attempt, sessions: &mut Sessions) {
        let Some((host, address)) = attempt.host() else { return };
        let failure = match (attempt.tls(), self.finding.get()) {
            (Some(_), found) => found.or(self.noted.as_ref()).cloned(),
            (None, Some(found)) => Some(found.clone()),
            (None, None) => Some(without_tls(!attempt.offered().starttls)),
        };
        sessions.note(&self.policy, Some(host), (Some(address.ip()), attempt.own_address()), failure);
    }

    /// Notes one that failed, if it failed by TLS.
    pub(super) fn failed(&self, host: &str, address: IpAddr, failure: &smtp::Failure, sessions: &mut Sessions) {
        if failure.stage != Stage::Tls {
            return;
        }
        let found = match self.finding.get() {
            Some(found) => found.clone(),
            None if failure.reply == Reply::no_starttls() => without_tls(true),
            None => Failure { kind: FailureKind::ValidationFailure, reason: failure.reply.to_string() },
        };
        sessions.note(&self.policy, Some(host), (Some(address), None), Some(found));
    }
}

fn without_tls(unoffered: bool) -> Failure {
    let (kind, reason) = if unoffered {
        (FailureKind::StartTlsNotSupported, "the host does not offer STARTTLS")
    } else {
        (FailureKind::ValidationFailure, "the TLS handshake failed")
    };
    Failure { kind, reason: reason.to_owned() }
}

fn of_records(records: &[Tlsa]) -> Policy {
    Policy { kind: PolicyKind::Tlsa, text: records.iter().map(ToString::to_string).collect(), hosts: Vec::new() }
}

fn unknown(unproven: &Unproven) -> Unknown {
    let mut sessions = Sessions::default();
    if let Some(failure) = failure_of(unproven) {
        let tlsa = Policy { kind: PolicyKind::Tlsa, ..Policy::none() };
        sessions.note(&tlsa, None, (None, None), Some(failure));
    }
    Unknown { reply: reply_of(unproven), sessions }
}

fn failure_of(unproven: &Unproven) -> Option<Failure> {
    let bogus = matches!(unproven, Unproven::Bogus { .. });
    bogus.then(|| Failure { kind: FailureKind::DnssecInvalid, reason: unproven.to_string() })
}

fn reply_of(unproven: &Unproven) -> Reply {
    match unproven {
        Unproven::Bogus { .. } => Reply::not_proven(&unproven.to_string()),
        Unproven::CouldNotTell(error) => Reply::dns_failed(&error.to_string()),
    }
}
