//! Every row of the table.

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
    decided(evidence, &Policy::default(), change).judgement
}

/// A message about which there is nothing to say.
fn plain<'a>(evidence: &'a Evidence, from: &'a [String]) -> Case<'a> {
    Case {
        evidence,
        client: IpAddr::from([192, 0, 2, 1]),
        from,
        from_ours: false,
        deaf: false,
        list: None,
        allowed: Allowed::No,
        suspect: None,
    }
}

fn decided(evidence: &Evidence, policy: &Policy, change: impl FnOnce(&mut Case<'_>)) -> Decision {
    let from = ["x@a.example".to_owned()];
    let mut case = plain(evidence, &from);
    change(&mut case);
    let policy = Policy { trusted_sealers: vec!["sealer.example".into()], ..policy.clone() };
    judge(&case, &policy)
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
    let decision = decided(&list, &Policy::default(), |case| case.list = Some("dev.lists.example"));
    assert!(junked(&decision.judgement));
    let refused = Judgement::Refuse(Reply::dmarc_refused("a.example"));
    assert_eq!(decision.spared, Some((Override::List, refused)));
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
        judge(&plain(&found, &from), &Policy::default()).judgement
    };
    assert_eq!(with(&["a@b.example", "c@b.example"]), Judgement::Accept);
    for from in [&[][..], &["a@b.example", "a@c.example"], &["nobody"]] {
        assert!(matches!(with(from), Judgement::Refuse(_)), "{from:?}");
    }
}

#[test]
fn monitoring_does_nothing_and_says_what_it_would_have_done() {
    let monitor = Policy { monitor: true, ..Policy::default() };
    let would = Judgement::Refuse(Reply::dmarc_refused("a.example"));
    let decision = decided(&evidence(Found::Fail, Asked::Reject), &monitor, |_| {});
    assert_eq!(decision, Decision::sparing(Judgement::Accept, Override::Monitor, would));
    let good = decided(&evidence(Found::Pass, Asked::Reject), &monitor, |_| {});
    assert_eq!(good, Judgement::Accept.into(), "there was nothing to spare it");
    for mut found in [evidence(Found::TempError, Asked::Reject), evidence(Found::Pass, Asked::None)] {
        found.sender = SenderDomain::NullMx;
        assert_eq!(decided(&found, &monitor, |_| {}).judgement, Judgement::Accept, "{found:?}");
    }
}

#[test]
fn whom_the_owner_allows_is_not_refused() {
    let found = evidence(Found::Fail, Asked::Reject);
    let refused = Reply::dmarc_refused("a.example");
    assert_eq!(judged(&found, |case| case.allowed = Allowed::Client), Judgement::Accept);
    let junk = Judgement::Junk(format!("its sender is allowed, else: {}", refused.text()));
    let decision = decided(&found, &Policy::default(), |case| case.allowed = Allowed::Sender);
    assert_eq!(decision, Decision::sparing(junk, Override::AccessList, Judgement::Refuse(refused)));
    let quarantined = evidence(Found::Fail, Asked::Quarantine);
    assert!(junked(&judged(&quarantined, |case| case.allowed = Allowed::Sender)));
    assert_eq!(judged(&quarantined, |case| case.allowed = Allowed::Client), Judgement::Accept);
    let unsure = evidence(Found::TempError, Asked::Reject);
    assert!(matches!(judged(&unsure, |_| {}), Judgement::Defer(_)));
    assert_eq!(judged(&unsure, |case| case.allowed = Allowed::Sender), Judgement::Accept);
}

#[test]
fn no_further_than_the_owner_goes() {
    let spf = Spf { found: Found::Fail, domain: "b.example".into() };
    let spf = Evidence { spf_mail: spf, ..evidence(Found::None, Asked::None) };
    let sender = Evidence { sender: SenderDomain::Unknown, ..evidence(Found::Pass, Asked::None) };
    let (reject, quarantine) = (evidence(Found::Fail, Asked::Reject), evidence(Found::Fail, Asked::Quarantine));
    for (found, set) in [
        (&spf, (|policy, limit| policy.spf_fail = limit) as fn(&mut Policy, Limit)),
        (&sender, |policy, limit| policy.unknown_sender = limit),
        (&reject, |policy, limit| policy.dmarc_fail = limit),
        (&quarantine, |policy, limit| policy.dmarc_fail = limit),
    ] {
        let with = |limit| {
            let mut policy = Policy::default();
            set(&mut policy, limit);
            decided(found, &policy, |_| {})
        };
        let whole = with(Limit::Refuse);
        assert_ne!(whole.judgement, Judgement::Accept);
        let junk = with(Limit::Junk);
        assert!(junked(&junk.judgement), "{junk:?}");
        let spared = (Override::Settings, whole.judgement.clone());
        assert_eq!(junk.spared, (!junked(&whole.judgement)).then_some(spared.clone()));
        assert_eq!(with(Limit::Accept), Decision { judgement: Judgement::Accept, spared: Some(spared) });
    }
}

#[test]
fn a_sender_nobody_could_answer_is_refused_whatever_else_passes() {
    let spf = Spf { found: Found::None, domain: "b.example".into() };
    let with = |sender| Evidence { sender, spf_mail: spf.clone(), ..evidence(Found::Pass, Asked::Reject) };
    let refused = |sender| judged(&with(sender), |_| {});
    assert_eq!(refused(SenderDomain::NullMx), Judgement::Refuse(Reply::sender_takes_no_mail("b.example")));
    assert_eq!(refused(SenderDomain::Unknown), Judgement::Refuse(Reply::sender_unknown("b.example")));
    assert_eq!(refused(SenderDomain::None), Judgement::Accept);
    assert_eq!(refused(SenderDomain::TempError), Judgement::Accept, "DMARC passed");
    let unsure = Evidence { sender: SenderDomain::TempError, ..evidence(Found::None, Asked::None) };
    assert!(matches!(judged(&unsure, |_| {}), Judgement::Defer(_)));
    assert_eq!(judged(&unsure, |case| case.deaf = true), Judgement::Accept);
    // Of two reasons the one that is found out about From is told.
    let both = Evidence { sender: SenderDomain::Unknown, ..evidence(Found::Fail, Asked::Reject) };
    assert_eq!(judged(&both, |_| {}), Judgement::Refuse(Reply::dmarc_refused("a.example")));
}

#[test]
fn at_last_a_message_is_taken_but_not_as_our_own() {
    let found = evidence(Found::TempError, Asked::None);
    let from = ["x@a.example".to_owned()];
    let mut case = plain(&found, &from);
    assert_eq!(at_last(&case), Judgement::Accept);
    case.from_ours = true;
    assert!(junked(&at_last(&case)));
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
    let monitor = Policy { monitor: true, ..Policy::default() };
    let decision = decided(&passed, &monitor, |case| case.suspect = suspect);
    assert_eq!(decision, Decision::sparing(Judgement::Accept, Override::Monitor, why));
}
