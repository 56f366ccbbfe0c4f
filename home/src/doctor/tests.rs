//! Findings that need a machine nobody has at hand, and bounds.

use gatepost_protocol::tunnel::verb::examination::Tried;
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;

fn edge(name: &str, host: &str) -> EdgeFacts {
    let examined =
        Examined { smtp_port: Some(25), submissions_port: Some(465), unix_ms: NOW * 1000, ..Examined::default() };
    EdgeFacts {
        name: name.to_owned(),
        host: Some(host.to_owned()),
        examined: Some(Ok(examined)),
        ..EdgeFacts::default()
    }
}

fn facts(edges: Vec<EdgeFacts>) -> Facts {
    let connected: Vec<Value> = edges
        .iter()
        .map(|edge| json!({ "name": edge.name, "connected": true, "round_trip_ms": 12.3, "report": { "software": "1.0.0" } }))
        .collect();
    Facts { status: json!({ "version": "1.0.0", "edges": connected, "troubles": [] }), edges, ..Facts::default() }
}

fn marked(facts: &Facts, of: &str, check: &str) -> (Mark, String) {
    let all = findings(facts, &Answers::default(), NOW);
    let found = all.iter().find(|finding| finding.of == of && finding.check == check);
    let found = found.unwrap_or_else(|| panic!("{check} of {of} in {all:?}"));
    (found.mark, found.found.clone())
}

fn examined(edge: &mut EdgeFacts) -> &mut Examined {
    edge.examined.as_mut().expect("examined").as_mut().expect("well")
}

#[test]
fn clocks_that_differ_are_told() {
    for (ahead_ms, mark) in [
        (0, Mark::Good),
        (-5_000, Mark::Good),
        (5_001, Mark::Unsure),
        (-60_000, Mark::Unsure),
        (60_001, Mark::Bad),
        (-90_000, Mark::Bad),
    ] {
        let facts = facts(vec![EdgeFacts { ahead_ms, ..edge("vps1", "mx1.example.org") }]);
        assert_eq!(marked(&facts, "vps1", "clock").0, mark, "{ahead_ms}");
    }
}

#[test]
fn the_door_is_judged_by_another_edge_or_by_who_came() {
    let (mut one, two) = (edge("vps1", "mx1.example.org"), edge("vps2", "mx2.example.net"));
    let at = |facts: &Facts| marked(facts, "vps1", "port-25-in").0;
    assert_eq!(at(&facts(vec![one.clone(), two.clone()])), Mark::Unsure, "nobody knows");
    examined(&mut one).outside_unix_s = Some(NOW - 3600);
    assert_eq!(at(&facts(vec![one.clone()])), Mark::Good);
    examined(&mut one).outside_unix_s = Some(NOW - 8 * 24 * 3600);
    assert_eq!(at(&facts(vec![one.clone()])), Mark::Unsure, "long ago");
    let seen = |good: bool| {
        let mut two = two.clone();
        let what = "mx1.example.org:25".to_owned();
        examined(&mut two).doors = vec![Tried { what, good, told: "220 hello".to_owned() }];
        at(&facts(vec![one.clone(), two]))
    };
    assert_eq!((seen(true), seen(false)), (Mark::Good, Mark::Bad));
    // Its own word is none.
    let mut alone = one.clone();
    examined(&mut alone).doors = vec![Tried { what: "mx1.example.org:25".to_owned(), good: true, told: String::new() }];
    assert_eq!(at(&facts(vec![alone])), Mark::Unsure);
}

#[test]
fn a_slow_line_and_an_old_edge_are_told() {
    let slow = facts(vec![EdgeFacts { octets_per_s: Some(49_999), ..edge("vps1", "mx1.example.org") }]);
    assert_eq!(
        marked(&slow, "vps1", "tunnel"),
        (Mark::Unsure, "connected, 12 ms there and back, 49 kB/s each way".into())
    );
    let mut old = facts(vec![EdgeFacts { examined: Some(Err("too old".into())), ..edge("vps1", "mx1.example.org") }]);
    old.status["edges"][0]["report"]["software"] = "0.9.0".into();
    assert_eq!(marked(&old, "vps1", "version").0, Mark::Unsure);
    assert_eq!(marked(&old, "vps1", "examined"), (Mark::Unsure, "it tried nothing out: too old".into()));
}

#[test]
fn what_the_status_says_is_a_finding() {
    let mut facts = facts(vec![]);
    facts.status["troubles"] = json!([
        { "rank": 0, "what": "the disk is full: mail can't be stored", "remedy": "make room" },
        { "rank": 5, "what": "the certificate is self-signed", "remedy": "name yours" },
    ]);
    assert_eq!(marked(&facts, "this home", "edges").0, Mark::Bad);
    let all = findings(&facts, &Answers::default(), NOW);
    let marks: Vec<Mark> = all.iter().filter(|one| one.check == "status").map(|one| one.mark).collect();
    assert_eq!(marks, [Mark::Bad, Mark::Unsure]);
}

#[test]
fn a_policy_that_is_announced_otherwise_than_served_is_told() {
    let name = "_mta-sts.example.org".to_owned();
    let record = Record {
        domain: "example.org".to_owned(),
        name: name.clone(),
        kind: "TXT".to_owned(),
        value: Some("v=STSv1; id=abc1;".to_owned()),
        state: crate::records::State::Publish,
        note: None,
    };
    let facts = Facts { records: vec![record], ..facts(vec![]) };
    for (told, mark) in [
        (&["v=STSv1; id=abc1;", "something else"][..], Some(Mark::Good)),
        (&["v=STSv1; id=abc0;"], Some(Mark::Bad)),
        (&["v=STSv1; id=abc1", "v=STSv1; id=abc1"], Some(Mark::Bad)),
        (&[], None),
    ] {
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        let answers = Answers { dns: [((name.clone(), "TXT"), Ok(told))].into(), ..Answers::default() };
        let all = findings(&facts, &answers, NOW);
        let found = all.iter().find(|finding| finding.check == "mta-sts");
        assert_eq!(found.map(|finding| finding.mark), mark, "{all:?}");
    }
}
