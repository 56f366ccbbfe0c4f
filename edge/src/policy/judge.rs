//! The table: what is done with a message, from what was found about it and what is wanted. Pure, and the only place
//! that decides it.

use std::net::IpAddr;

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::{Asked, Evidence, Found};

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

/// What the owner wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Everything is noted and nothing is done.
    pub monitor: bool,
    /// Whose ARC seals are believed, in lower case.
    pub trusted_sealers: Vec<String>,
}

/// Judges. What would have been done while only monitoring is in the second place.
pub fn judge(case: &Case<'_>, rules: &Rules) -> (Judgement, Option<Judgement>) {
    let judgement = match (by_table(case, rules), case.suspect) {
        (Judgement::Accept, Some(why)) => Judgement::Junk(why.to_owned()),
        (judgement, _) => judgement,
    };
    match judgement {
        Judgement::Accept => (Judgement::Accept, None),
        // Who is connected is certain; who wrote is not, and Junk keeps what is forged from passing for what is allowed.
        other if case.allowed == Allowed::Client => (Judgement::Accept, Some(other)),
        Judgement::Refuse(reply) if case.allowed == Allowed::Sender && !rules.monitor => {
            (Judgement::Junk(format!("its sender is allowed, else: {}", reply.text())), None)
        }
        other @ Judgement::Defer(_) if case.allowed == Allowed::Sender => (Judgement::Accept, Some(other)),
        other if rules.monitor => (Judgement::Accept, Some(other)),
        other => (other, None),
    }
}

fn by_table(case: &Case<'_>, rules: &Rules) -> Judgement {
    let Evidence { dmarc, spf_mail, dkim, .. } = case.evidence;
    if let Some(why) = unusable(case.from) {
        return Judgement::Refuse(Reply::from_unusable(why));
    }
    if dmarc.found == Found::Pass {
        return Judgement::Accept;
    }
    let refused = || Judgement::Refuse(Reply::dmarc_refused(&dmarc.from));
    match (dmarc.found, dmarc.asked) {
        // Whoever names ourselves has to show it; until that can be asked it is not for the inbox.
        (Found::TempError, _) if case.from_ours && case.deaf => {
            Judgement::Junk(format!("it says that it is from {}, and nobody could be asked", domain_of(case)))
        }
        (Found::TempError, _) if case.from_ours => Judgement::Defer(Reply::sender_unsure(&domain_of(case))),
        _ if case.from_ours => {
            forwarded(case, rules).unwrap_or_else(|| Judgement::Refuse(Reply::own_domain_forged(&domain_of(case))))
        }
        // What was found in spite of it counts; what was not is let go.
        (Found::TempError, _) if case.deaf => Judgement::Accept,
        (Found::TempError, asked) if !dmarc.published || asked != Asked::None => {
            Judgement::Defer(Reply::sender_unsure(&dmarc.from))
        }
        (Found::Fail, Asked::Reject) => forwarded(case, rules).unwrap_or_else(refused),
        (Found::Fail, Asked::Quarantine) => Judgement::Junk(format!("DMARC fails, and {} asks for Junk", dmarc.from)),
        // A domain that publishes a policy is judged by it alone.
        _ if dmarc.published => Judgement::Accept,
        _ if dkim.iter().any(|one| one.found == Found::Pass) => Judgement::Accept,
        _ => match spf_mail.found {
            Found::Fail => Judgement::Refuse(Reply::spf_refused(&spf_mail.domain, &case.client.to_string())),
            Found::TempError if case.deaf => Judgement::Accept,
            Found::TempError => Judgement::Defer(Reply::sender_unsure(&spf_mail.domain)),
            _ => Judgement::Accept,
        },
    }
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
fn forwarded(case: &Case<'_>, rules: &Rules) -> Option<Judgement> {
    let Evidence { arc, dkim, .. } = case.evidence;
    if let Some(list) = case.list
        && let Some(own) = dkim.iter().find(|one| one.found == Found::Pass && is_within(list, &one.domain))
    {
        return Some(Judgement::Junk(format!(
            "DMARC fails, but the list {list} passed it on, signed by {}",
            own.domain
        )));
    }
    let sealer = arc.sealers.first().filter(|_| arc.found == Found::Pass)?;
    let trusted = rules.trusted_sealers.iter().any(|trusted| is_within(&sealer.to_lowercase(), trusted));
    trusted.then(|| Judgement::Junk(format!("DMARC fails, but {sealer}, which is trusted, passed it on")))
}

/// True if `name` is `domain` or below it.
fn is_within(name: &str, domain: &str) -> bool {
    let domain = domain.to_lowercase();
    name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::verdict::{Arc, Dkim, Dmarc, Spf};

    use super::*;

    fn signed(domain: &str, found: Found) -> Dkim {
        Dkim { found, domain: domain.to_owned(), ..Dkim::default() }
    }

    fn evidence(dmarc: Found, asked: Asked) -> Evidence {
        let published = !matches!(dmarc, Found::None);
        let dmarc = Dmarc { found: dmarc, asked, published, from: "a.example".to_owned(), ..Dmarc::default() };
        Evidence { dmarc, ..Evidence::default() }
    }

    fn judged(evidence: &Evidence, change: impl FnOnce(&mut Case<'_>)) -> Judgement {
        let from = ["x@a.example".to_owned()];
        let mut case = Case {
            evidence,
            client: IpAddr::from([192, 0, 2, 1]),
            from: &from,
            from_ours: false,
            deaf: false,
            list: None,
            allowed: Allowed::No,
            suspect: None,
        };
        change(&mut case);
        let rules = Rules { trusted_sealers: vec!["sealer.example".into()], ..Rules::default() };
        judge(&case, &rules).0
    }

    fn junked(judgement: &Judgement) -> bool {
        matches!(judgement, Judgement::Junk(_))
    }

    #[test]
    fn dmarc_decides_where_it_is_published() {
        let as_it_is = |found, asked| judged(&evidence(found, asked), |_| {});
        let refused = Judgement::Refuse(Reply::dmarc_refused("a.example"));
        assert_eq!(as_it_is(Found::Pass, Asked::Reject), Judgement::Accept);
        assert_eq!(as_it_is(Found::Fail, Asked::Reject), refused);
        assert!(junked(&as_it_is(Found::Fail, Asked::Quarantine)));
        assert_eq!(as_it_is(Found::Fail, Asked::None), Judgement::Accept);
        let spf = Spf { found: Found::Fail, domain: "a.example".into() };
        let failing = Evidence { spf_mail: spf, ..evidence(Found::Fail, Asked::None) };
        assert_eq!(judged(&failing, |_| {}), Judgement::Accept, "SPF is DMARC's to judge");
    }

    #[test]
    fn without_dmarc_spf_refuses_unless_a_signature_speaks_for_it() {
        let spf = |found| Spf { found, domain: "b.example".into() };
        for (found, refused) in [
            (Found::Fail, true),
            (Found::SoftFail, false),
            (Found::Neutral, false),
            (Found::None, false),
            (Found::PermError, false),
            (Found::Pass, false),
        ] {
            let found = Evidence { spf_mail: spf(found), ..evidence(Found::None, Asked::None) };
            assert_eq!(matches!(judged(&found, |_| {}), Judgement::Refuse(_)), refused, "{found:?}");
            let vouched = Evidence { dkim: vec![signed("c.example", Found::Pass)], ..found };
            assert_eq!(judged(&vouched, |_| {}), Judgement::Accept);
        }
    }

    #[test]
    fn what_could_not_be_asked_defers_only_where_it_matters() {
        let unsure = |dmarc: Dmarc| Evidence { dmarc, ..evidence(Found::TempError, Asked::None) };
        let base = evidence(Found::TempError, Asked::None).dmarc;
        let deferred = |evidence: &Evidence| matches!(judged(evidence, |_| {}), Judgement::Defer(_));
        assert!(deferred(&unsure(Dmarc { published: false, ..base.clone() })));
        assert!(deferred(&unsure(Dmarc { asked: Asked::Reject, ..base.clone() })));
        assert!(!deferred(&unsure(Dmarc { asked: Asked::None, ..base.clone() })), "nothing would have been done");
        let spf = Evidence {
            spf_mail: Spf { found: Found::TempError, domain: "b.example".into() },
            ..evidence(Found::None, Asked::None)
        };
        assert!(deferred(&spf));
        let signed = Evidence { dkim: vec![signed("c.example", Found::Pass)], ..spf };
        assert!(!deferred(&signed));
    }

    #[test]
    fn a_dead_resolver_of_ours_refuses_and_defers_nobody() {
        let mut dead = evidence(Found::TempError, Asked::None);
        dead.dmarc.published = false;
        dead.reverse.found = Found::TempError;
        dead.spf_mail.found = Found::TempError;
        dead.spf_helo.found = Found::TempError;
        assert_eq!(judged(&dead, |case| case.deaf = true), Judgement::Accept);
        assert!(matches!(judged(&dead, |_| {}), Judgement::Defer(_)), "only theirs is dead");
        dead.dmarc.found = Found::None;
        assert_eq!(judged(&dead, |case| case.deaf = true), Judgement::Accept);
    }

    #[test]
    fn who_names_us_shows_it_or_waits_or_goes_to_junk() {
        let unsure = evidence(Found::TempError, Asked::None);
        assert!(matches!(judged(&unsure, |case| case.from_ours = true), Judgement::Defer(_)));
        assert!(junked(&judged(&unsure, |case| (case.from_ours, case.deaf) = (true, true))));
        let failed = evidence(Found::Fail, Asked::None);
        assert!(matches!(judged(&failed, |case| case.from_ours = true), Judgement::Refuse(_)));
    }

    #[test]
    fn lists_and_trusted_sealers_turn_a_refusal_into_junk() {
        let list = Evidence {
            dkim: vec![signed("lists.example", Found::Pass), signed("a.example", Found::Fail)],
            ..evidence(Found::Fail, Asked::Reject)
        };
        assert!(junked(&judged(&list, |case| case.list = Some("dev.lists.example"))));
        assert!(!junked(&judged(&list, |_| {})), "no List-Id");
        assert!(!junked(&judged(&list, |case| case.list = Some("dev.evil-lists.example"))));
        let arc = |found, sealer: &str| Evidence {
            arc: Arc { found, sealers: vec![sealer.to_owned()], why: None },
            ..evidence(Found::Fail, Asked::Reject)
        };
        assert!(junked(&judged(&arc(Found::Pass, "mx.Sealer.example"), |_| {})));
        assert!(!junked(&judged(&arc(Found::Fail, "sealer.example"), |_| {})));
        assert!(!junked(&judged(&arc(Found::Pass, "unsealer.example"), |_| {})));
    }

    #[test]
    fn our_own_domain_from_outside_needs_more_than_no_policy() {
        let none = evidence(Found::None, Asked::None);
        let refused = judged(&none, |case| case.from_ours = true);
        assert_eq!(refused, Judgement::Refuse(Reply::own_domain_forged("a.example")));
        let pass = evidence(Found::Pass, Asked::Reject);
        assert_eq!(judged(&pass, |case| case.from_ours = true), Judgement::Accept);
        let list = Evidence { dkim: vec![signed("lists.example", Found::Pass)], ..none };
        assert!(junked(&judged(&list, |case| (case.from_ours, case.list) = (true, Some("x.lists.example")))));
    }

    #[test]
    fn from_names_one_domain() {
        let found = evidence(Found::None, Asked::None);
        let with = |from: &[&str]| {
            let from: Vec<String> = from.iter().map(|&from| from.to_owned()).collect();
            let client = IpAddr::from([192, 0, 2, 1]);
            let case = Case {
                evidence: &found,
                client,
                from: &from,
                from_ours: false,
                deaf: false,
                list: None,
                allowed: Allowed::No,
                suspect: None,
            };
            judge(&case, &Rules::default()).0
        };
        assert_eq!(with(&["a@b.example", "c@b.example"]), Judgement::Accept);
        for from in [&[][..], &["a@b.example", "a@c.example"], &["nobody"]] {
            assert!(matches!(with(from), Judgement::Refuse(_)), "{from:?}");
        }
    }

    #[test]
    fn monitoring_does_nothing_and_says_what_it_would_have_done() {
        let found = evidence(Found::Fail, Asked::Reject);
        let from = ["x@a.example".to_owned()];
        let client = IpAddr::from([192, 0, 2, 1]);
        let case = Case {
            evidence: &found,
            client,
            from: &from,
            from_ours: false,
            deaf: false,
            list: None,
            allowed: Allowed::No,
            suspect: None,
        };
        let rules = Rules { monitor: true, ..Rules::default() };
        let would = Judgement::Refuse(Reply::dmarc_refused("a.example"));
        assert_eq!(judge(&case, &rules), (Judgement::Accept, Some(would)));
    }

    #[test]
    fn whom_the_owner_allows_is_not_refused() {
        let found = evidence(Found::Fail, Asked::Reject);
        let refused = Reply::dmarc_refused("a.example");
        assert_eq!(judged(&found, |case| case.allowed = Allowed::Client), Judgement::Accept);
        let junk = Judgement::Junk(format!("its sender is allowed, else: {}", refused.text()));
        assert_eq!(judged(&found, |case| case.allowed = Allowed::Sender), junk);
        let quarantined = evidence(Found::Fail, Asked::Quarantine);
        assert!(junked(&judged(&quarantined, |case| case.allowed = Allowed::Sender)));
        assert_eq!(judged(&quarantined, |case| case.allowed = Allowed::Client), Judgement::Accept);
        let unsure = evidence(Found::TempError, Asked::Reject);
        assert!(matches!(judged(&unsure, |_| {}), Judgement::Defer(_)));
        assert_eq!(judged(&unsure, |case| case.allowed = Allowed::Sender), Judgement::Accept);
    }

    #[test]
    fn what_a_suspect_brings_goes_to_junk_unless_it_is_refused_anyway() {
        let passed = evidence(Found::Pass, Asked::Reject);
        let why = Judgement::Junk("list.example lists 192.0.2.1".into());
        let suspect = Some("list.example lists 192.0.2.1");
        assert_eq!(judged(&passed, |case| case.suspect = suspect), why);
        let refused = Judgement::Refuse(Reply::dmarc_refused("a.example"));
        assert_eq!(judged(&evidence(Found::Fail, Asked::Reject), |case| case.suspect = suspect), refused);
        let allowed = |case: &mut Case<'_>| (case.suspect, case.allowed) = (suspect, Allowed::Client);
        assert_eq!(judged(&passed, allowed), Judgement::Accept);
        let anybody = |case: &mut Case<'_>| (case.suspect, case.allowed) = (suspect, Allowed::Sender);
        assert_eq!(judged(&passed, anybody), why, "anybody can write that");
        let from = ["x@a.example".to_owned()];
        let client = IpAddr::from([192, 0, 2, 1]);
        let (from_ours, deaf, list, allowed) = (false, false, None, Allowed::No);
        let case = Case { evidence: &passed, client, from: &from, from_ours, deaf, list, allowed, suspect };
        let rules = Rules { monitor: true, ..Rules::default() };
        assert_eq!(judge(&case, &rules), (Judgement::Accept, Some(why)));
    }
}
