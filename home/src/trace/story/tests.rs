use serde_json::json;

use super::*;

fn step(at_unix_ms: i64, machine: &str, what: &str, facts: &[(&str, &str)]) -> Kept {
    Kept {
        at_unix_ms,
        machine: machine.to_owned(),
        trace: Some("abc".to_owned()),
        what: what.to_owned(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect(),
    }
}

#[test]
fn what_is_sealed_waits_until_the_home_has_it() {
    // Fetched, and then not kept, for want of room: it waits there still.
    let fetched = [step(0, "vps1", "sealed", &[]), step(1, HOME, "fetched", &[]), step(2, HOME, "not accepted", &[])];
    assert!(fate(&fetched, None, 5)[0].starts_with("sealed at vps1"));
    let mut steps = vec![
        step(0, "vps1", "sealed", &[("why", "the home is away")]),
        step(1, "vps1", "answered", &[("reply", "250 2.0.0 Accepted")]),
    ];
    assert_eq!(fate(&steps, None, 180_000), ["sealed at vps1 for 3 min: it comes when the home is connected"]);
    steps.push(step(200_000, HOME, "fetched", &[("edge", "vps1"), ("waited_s", "200")]));
    steps.push(step(200_001, HOME, "accepted", &[("mailboxes", "alice@x.example bob@x.example/Junk")]));
    let delivered = ["delivered to alice@x.example's inbox", "delivered to bob@x.example's Junk"];
    assert_eq!(fate(&steps, None, 300_000), delivered);
    // An edge that lies about having delivered delivers nothing.
    let lie = [step(0, "vps1", "sealed", &[]), step(1, "vps1", "accepted", &[("mailboxes", "alice@x.example")])];
    assert!(fate(&lie, None, 0)[0].starts_with("sealed at vps1"));
}

#[test]
fn a_seal_that_was_delivered_already_does_not_wait() {
    let steps = [
        step(0, HOME, "accepted", &[("mailboxes", "alice@x.example")]),
        step(1, "vps1", "sealed", &[("why", "the home is silent")]),
        step(2, HOME, "already here: the same hand-over again", &[]),
    ];
    assert_eq!(fate(&steps, None, 5), ["delivered to alice@x.example's inbox"]);
}

#[test]
fn the_queue_knows_best_what_waits() {
    let steps = [
        step(0, HOME, "accepted", &[("queued", "3")]),
        step(0, HOME, "queued", &[("queue", "01")]),
        step(1, HOME, "sent", &[("recipient", "a@x"), ("queue", "01"), ("remote", "mx"), ("reply", "250 ok")]),
        step(1, HOME, "deferred", &[("recipient", "b@x"), ("queue", "01"), ("reply", "451 later")]),
        step(1, HOME, "refused", &[("recipient", "c@x"), ("queue", "01"), ("reply", "550 never")]),
    ];
    assert!(is_queued(&steps));
    let entry = json!({
        "next": "12:05", "held": null,
        "recipients": [
            { "address": "a@x", "state": "delivered" },
            { "address": "b@x", "state": "waiting", "last": "451 later" },
            { "address": "c@x", "state": "failed" },
        ],
    });
    let known = [
        "sent to a@x: mx said 250 ok",
        "waiting in the queue for b@x: next attempt 12:05, because 451 later",
        "not delivered to c@x: 550 never",
    ];
    assert_eq!(fate(&steps, Some(&entry), 5), known);
    let held = json!({ "held": "by hand", "recipients": [{ "address": "b@x", "state": "waiting" }] });
    assert!(fate(&steps, Some(&held), 5).contains(&"held in the queue for b@x (by hand)".to_owned()));
    assert!(fate(&steps, None, 5).contains(&"not sent to b@x yet, because 451 later".to_owned()));
    let mut done = steps.to_vec();
    done.push(step(2, HOME, "done, leaves the queue", &[]));
    assert!(!is_queued(&done));
}

#[test]
fn what_was_broken_off_is_said_to_be() {
    let steps = [step(0, "vps1", "broken off before its end", &[("octets", "5")])];
    assert_eq!(fate(&steps, None, 5), ["not taken: whoever sent it broke off, and tries again"]);
}

#[test]
fn what_was_given_up_does_not_wait_any_more() {
    let expired = "550 5.4.7 Given up after 5 days of trying";
    let steps = [
        step(0, HOME, "queued", &[("queue", "01")]),
        step(1, HOME, "deferred", &[("recipient", "b@x"), ("queue", "01"), ("reply", "451 later")]),
        step(1, HOME, "given up: its time is over", &[("recipient", "b@x"), ("queue", "01"), ("reply", expired)]),
        step(2, HOME, "done, leaves the queue", &[]),
    ];
    assert_eq!(fate(&steps, None, 5), [format!("not delivered to b@x: {expired}")]);
}

#[test]
fn what_was_not_taken_says_what_its_sender_heard() {
    for (what, reply, told) in [
        ("recipient refused", "550 5.1.1 nobody", "refused; its sender was told: 550 5.1.1 nobody"),
        ("sender refused", "452 4.3.1 no room", "not taken; its sender tries again: 452 4.3.1 no room"),
        ("answered", "451 4.3.0 later", "not taken; its sender tries again: 451 4.3.0 later"),
        ("answered", "250 ok", "taken; what became of it at home is not known here (any more)"),
    ] {
        assert_eq!(fate(&[step(0, "vps1", what, &[("reply", reply)])], None, 0), [told]);
    }
}

#[test]
fn a_story_is_a_line_a_step_with_its_machine() {
    let steps = [
        step(0, "vps1", "answered", &[("sender", "a@b"), ("recipient", "c@d"), ("reply", "250 ok")]),
        step(1, HOME, "accepted", &[("mailboxes", "c@d")]),
    ];
    let text = told("abc", &steps, &fate(&steps, None, 2));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "abc  <a@b> to c@d");
    assert!(lines[1].starts_with("  1970-01-01T00:00:00.000Z  vps1  took a message"), "{text}");
    assert!(lines[2].starts_with("  1970-01-01T00:00:00.001Z  home  delivered it"), "{text}");
    assert_eq!(lines[3], "  => delivered to c@d's inbox");
}
