//! The table: what is done with a message, from what was found about it and what is wanted. Pure, and the only place
//! that decides it.

use std::fmt;
use std::net::IpAddr;

use gatepost_protocol::mail::address::is_at_or_below;
use gatepost_protocol::mail::policy::{Limit, Policy};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::{Asked, Evidence, Found, Override, SenderDomain};

use super::access::Allowed;

/// What is done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It goes to the inbox.
    Accept,
    /// It goes to Junk, for this reason.
    Junk(String),
    /// Not now: something could not be asked, and it would have mattered.
    Defer(Reply),
    /// No.
    Refuse(Reply),
}

/// What is done, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is done.
    pub judgement: Judgement,
    /// What would be done else, and why it is not.
    pub spared: Option<(Override, Judgement)>,
}

/// What is known beside the evidence.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was found.
    pub evidence: &'a Evidence,
    /// Who brought it.
    pub client: IpAddr,
    /// Addresses in From.
    pub from: &'a [String],
    /// From names a domain of the home it is for.
    pub from_ours: bool,
    /// Our own resolver does not answer: what could not be asked is nobody else's fault.
    pub deaf: bool,
    /// The host name in List-Id, in lower case.
    pub list: Option<&'a str>,
    /// What the owner's access list says.
    pub allowed: Allowed,
    /// What speaks against the client as such, if it is enough for Junk.
    pub suspect: Option<&'a str>,
}

impl Judgement {
    /// How hard it is on who sends.
    fn rank(&self) -> u8 {
        match self {
            Self::Accept => 0,
            Self::Junk(_) => 1,
            Self::Defer(_) => 2,
            Self::Refuse(_) => 3,
        }
    }

    /// In a word, for the log and the metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accept => "accepted",
            Self::Junk(_) => "junk",
            Self::Defer(_) => "deferred",
            Self::Refuse(_) => "refused",
        }
    }
}

impl fmt::Display for Judgement {
    /// For people: what it comes to, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("taken"),
            Self::Junk(why) => write!(f, "Junk: {why}"),
            Self::Defer(reply) | Self::Refuse(reply) => reply.fmt(f),
        }
    }
}

impl From<Judgement> for Decision {
    fn from(judgement: Judgement) -> Self {
        Self { judgement, spared: None }
    }
}

impl Decision {
    /// Less than what would be done else.
    fn sparing(judgement: Judgement, why: Override, instead_of: Judgement) -> Self {
        Self { judgement, spared: Some((why, instead_of)) }
    }

    /// The harder one; of two alike the first.
    fn or_harder(self, other: Self) -> Self {
        let hardness = |decision: &Self| (decision.judgement.rank(), decision.spared.is_some());
        if hardness(&other) > hardness(&self) { other } else { self }
    }

    /// Spared for this reason, down to what `judgement` makes of what would be done.
    fn spare(self, why: Override, judgement: impl FnOnce(&Judgement) -> Option<Judgement>) -> Self {
        match judgement(&self.judgement) {
            Some(gentler) => Self::sparing(gentler, why, self.judgement),
            None => self,
        }
    }
}

/// Judges.
pub fn judge(case: &Case<'_>, policy: &Policy) -> Decision {
    let decision = match unusable(case.from) {
        Some(why) => Judgement::Refuse(Reply::from_unusable(why)).into(),
        None => by_authentication(case, policy).or_harder(by_sender(case, policy)).or_harder(by_client(case)),
    };
    let decision = decision.spare(Override::AccessList, |found| match (case.allowed, found) {
        (Allowed::No, _) | (_, Judgement::Accept) | (Allowed::Sender, Judgement::Junk(_)) => None,
        // Who is connected is certain; who wrote is not, and Junk keeps what is forged from passing for what is allowed.
        (Allowed::Client, _) | (Allowed::Sender, Judgement::Defer(_)) => Some(Judgement::Accept),
        (Allowed::Sender, Judgement::Refuse(reply)) => {
            Some(Judgement::Junk(format!("its sender is allowed, else: {}", reply.text())))
        }
    });
    decision
        .spare(Override::Monitor, |found| (policy.monitor && *found != Judgement::Accept).then_some(Judgement::Accept))
}

/// What is done with a message that was put off for long enough.
pub fn at_last(case: &Case<'_>) -> Judgement {
    if case.from_ours { unproven(case) } else { Judgement::Accept }
}

/// Who sends it, as the table of SPF, DKIM, ARC and DMARC has it.
fn by_authentication(case: &Case<'_>, policy: &Policy) -> Decision {
    let Evidence { dmarc, spf_mail, dkim, .. } = case.evidence;
    if dmarc.found == Found::Pass {
        return Judgement::Accept.into();
    }
    let refused = || Judgement::Refuse(Reply::dmarc_refused(&dmarc.from));
    match (dmarc.found, dmarc.asked) {
        // Whoever names ourselves has to show it; until that can be asked it is not for the inbox.
        (Found::TempError, _) if case.from_ours && case.deaf => unproven(case).into(),
        (Found::TempError, _) if case.from_ours => Judgement::Defer(Reply::sender_unsure(&domain_of(case))).into(),
        _ if case.from_ours => forwarded(case, policy, Judgement::Refuse(Reply::own_domain_forged(&domain_of(case)))),
        // What was found in spite of it counts; what was not is let go.
        (Found::TempError, _) if case.deaf => Judgement::Accept.into(),
        (Found::TempError, asked) if !dmarc.published || asked != Asked::None => {
            limited(Judgement::Defer(Reply::sender_unsure(&dmarc.from)), policy.dmarc_fail)
        }
        (Found::Fail, Asked::Reject) => match policy.dmarc_fail {
            Limit::Refuse => forwarded(case, policy, refused()),
            limit => limited(refused(), limit),
        },
        (Found::Fail, Asked::Quarantine) => {
            let junk = Judgement::Junk(format!("DMARC fails, and {} asks for Junk", dmarc.from));
            limited(junk, policy.dmarc_fail)
        }
        // A domain that publishes a policy is judged by it alone.
        _ if dmarc.published => Judgement::Accept.into(),
        _ if dkim.iter().any(|one| one.found == Found::Pass) => Judgement::Accept.into(),
        _ => match spf_mail.found {
            Found::Fail => {
                let reply = Reply::spf_refused(&spf_mail.domain, &case.client.to_string());
                limited(Judgement::Refuse(reply), policy.spf_fail)
            }
            Found::TempError if case.deaf => Judgement::Accept.into(),
            Found::TempError => limited(Judgement::Defer(Reply::sender_unsure(&spf_mail.domain)), policy.spf_fail),
            _ => Judgement::Accept.into(),
        },
    }
}

/// Whether its sender could be answered.
fn by_sender(case: &Case<'_>, policy: &Policy) -> Decision {
    let Evidence { spf_mail, dmarc, sender, .. } = case.evidence;
    // SPF was asked of the same domain.
    let domain = &spf_mail.domain;
    match sender {
        SenderDomain::None | SenderDomain::Exists => Judgement::Accept.into(),
        SenderDomain::NullMx => limited(Judgement::Refuse(Reply::sender_takes_no_mail(domain)), policy.unknown_sender),
        SenderDomain::Unknown => limited(Judgement::Refuse(Reply::sender_unknown(domain)), policy.unknown_sender),
        // Something of it was found: so it exists.
        SenderDomain::TempError if case.deaf || dmarc.found == Found::Pass || spf_mail.found == Found::Pass => {
            Judgement::Accept.into()
        }
        SenderDomain::TempError => limited(Judgement::Defer(Reply::sender_unsure(domain)), policy.unknown_sender),
    }
}

/// What is known of who brought it.
fn by_client(case: &Case<'_>) -> Decision {
    case.suspect.map_or(Judgement::Accept, |why| Judgement::Junk(why.to_owned())).into()
}

/// As far as the owner goes. Who would not even be refused is not put off either.
fn limited(judgement: Judgement, limit: Limit) -> Decision {
    let gentler = match (limit, &judgement) {
        (_, Judgement::Accept) | (Limit::Refuse, _) | (Limit::Junk, Judgement::Junk(_)) => None,
        (Limit::Accept, _) | (Limit::Junk, Judgement::Defer(_)) => Some(Judgement::Accept),
        (Limit::Junk, Judgement::Refuse(reply)) => Some(Judgement::Junk(reply.text())),
    };
    match gentler {
        Some(gentler) => Decision::sparing(gentler, Override::Settings, judgement),
        None => judgement.into(),
    }
}

fn unproven(case: &Case<'_>) -> Judgement {
    Judgement::Junk(format!("it says that it is from {}, and nobody could be asked", domain_of(case)))
}

/// Why From is not what it has to be.
fn unusable(from: &[String]) -> Option<&'static str> {
    let mut domains = from.iter().map(|address| address.rsplit_once('@').map_or("", |(_, domain)| domain));
    match domains.next() {
        None | Some("") => Some("it names nobody"),
        Some(first) if domains.any(|other| other != first) => Some("it names several domains"),
        Some(_) => None,
    }
}

fn domain_of(case: &Case<'_>) -> String {
    case.from.first().and_then(|address| address.rsplit_once('@')).map_or_else(String::new, |(_, domain)| domain.into())
}

/// A list, or somebody we trust to tell, passed it on and broke what it was signed by: into Junk, with the reason.
/// Else what is due is done.
fn forwarded(case: &Case<'_>, policy: &Policy, due: Judgement) -> Decision {
    let Evidence { arc, dkim, .. } = case.evidence;
    if let Some(list) = case.list
        && let Some(own) = dkim.iter().find(|one| one.found == Found::Pass && is_at_or_below(list, &one.domain))
    {
        let why = format!("DMARC fails, but the list {list} passed it on, signed by {}", own.domain);
        return Decision::sparing(Judgement::Junk(why), Override::List, due);
    }
    let is_trusted = |sealer: &&String| policy.trusted_sealers.iter().any(|trusted| is_at_or_below(sealer, trusted));
    match arc.sealers.first().filter(|_| arc.found == Found::Pass).filter(is_trusted) {
        Some(sealer) => {
            let why = format!("DMARC fails, but {sealer}, which is trusted, passed it on");
            Decision::sparing(Judgement::Junk(why), Override::TrustedSealer, due)
        }
        None => due.into(),
    }
}

#[cfg(test)]
mod tests;
