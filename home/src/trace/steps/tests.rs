use serde_json::Value;

use super::*;

fn step(what: &str, facts: &[(&str, &str)]) -> Kept {
    Kept {
        at_unix_ms: 0,
        machine: "home".to_owned(),
        trace: None,
        what: what.to_owned(),
        facts: facts.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect(),
    }
}

#[test]
fn each_step_is_one_sentence() {
    let from =
        [("sender", "a@b.example"), ("recipient", "c@d.example"), ("client", "192.0.2.1"), ("helo", "mx.b.example")];
    let with = |more: &[(&'static str, &'static str)]| [&from[..], more].concat();
    let tls = ("tls", "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768");
    for (what, facts, told) in [
        (
            "answered",
            with(&[tls, ("octets", "5000"), ("reply", "250 2.0.0 Accepted"), ("took_ms", "1234")]),
            "took a message of <a@b.example> for c@d.example from mx.b.example [192.0.2.1] over TLSv1.3 \
             TLS_AES_256_GCM_SHA384 X25519MLKEM768, 5000 octets, and answered 250 2.0.0 Accepted (1.2 s)",
        ),
        (
            "answered",
            with(&[
                ("spf", "fail"),
                ("dkim", "pass by lists.example"),
                ("dmarc", "fail"),
                ("done", "junk"),
                ("why", "the list passed it on"),
                ("spared", "list, else 550 5.7.26 no"),
                ("reply", "250 2.0.0 Accepted"),
            ]),
            "took a message of <a@b.example> for c@d.example from mx.b.example [192.0.2.1], found SPF fail, DKIM pass by \
             lists.example, DMARC fail; into Junk with it (the list passed it on); no more than that for this reason: \
             list, else 550 5.7.26 no, and answered 250 2.0.0 Accepted",
        ),
        (
            "sender refused",
            with(&[("size", "5000"), ("reply", "452 4.3.1 No room")]),
            "refused it from mx.b.example [192.0.2.1] at its announced size, 5000 octets: 452 4.3.1 No room",
        ),
        (
            "recipient refused",
            with(&[("reply", "550 5.1.1 No such mailbox")]),
            "refused the recipient c@d.example from mx.b.example [192.0.2.1]: 550 5.1.1 No such mailbox",
        ),
        (
            "sealed",
            vec![("why", "the home is away")],
            "sealed it to the home's key and kept it, because the home is away",
        ),
        (
            "fetched",
            vec![("edge", "vps1"), ("waited_s", "180")],
            "fetched it from vps1, where it had been sealed for 3 min",
        ),
        (
            "accepted",
            vec![("mailboxes", "alice@x.example bob@x.example/Junk"), ("queued", "0"), ("octets", "7")],
            "delivered it to alice@x.example's inbox, bob@x.example's Junk, 7 octets",
        ),
        (
            "accepted",
            vec![("mailboxes", "alice@x.example"), ("queued", "2")],
            "delivered it to alice@x.example's inbox and took it to be sent to 2 recipients elsewhere",
        ),
        (
            "delivered",
            vec![("recipient", "alice@x.example"), ("remote", "unix:/run/lmtp"), ("reply", "250 2.0.0 Saved")],
            "delivered it for alice@x.example to unix:/run/lmtp, which said 250 2.0.0 Saved",
        ),
        (
            "not taken by the server of the mailbox",
            vec![("recipient", "alice@x.example"), ("remote", "unix:/run/lmtp"), ("reply", "452 4.2.2 Full")],
            "could not deliver it for alice@x.example to unix:/run/lmtp, which said 452 4.2.2 Full",
        ),
        (
            "sent",
            vec![
                ("recipient", "f@e.example"),
                ("remote", "mx.e.example [192.0.2.9]:25"),
                tls,
                ("edge", "vps1"),
                ("tries", "2"),
                ("reply", "250 ok"),
                ("took_ms", "15"),
            ],
            "handed it for f@e.example to mx.e.example [192.0.2.9]:25 over TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768, \
             which said 250 ok; through vps1; attempt 2 (15 ms)",
        ),
        (
            "deferred",
            vec![("recipient", "f@e.example"), ("reply", "451 4.7.1 Come back")],
            "could not yet hand it over for f@e.example: 451 4.7.1 Come back",
        ),
        (
            "given up: its time is over",
            vec![("recipient", "f@e.example"), ("reply", "550 5.4.7 Given up after 5 days of trying")],
            "gave up on f@e.example: 550 5.4.7 Given up after 5 days of trying",
        ),
        ("refused", vec![("reply", "550 no")], "refused it: 550 no"),
        ("something new", vec![("of", "an edge")], "something new (of an edge)"),
    ] {
        assert_eq!(sentence(&step(what, &facts)), told);
    }
}

#[test]
fn a_line_without_its_facts_is_still_a_sentence() {
    let sources = include_str!("../steps.rs");
    let mut count = 0;
    for line in sources.lines().filter_map(|line| line.trim().strip_prefix('"')) {
        let Some((what, rest)) = line.split_once('"') else { continue };
        if !rest.contains("=>") {
            continue;
        }
        count += 1;
        let told = sentence(&step(what, &[]));
        assert!(!told.is_empty() && !told.contains("  "), "{what}: {told}");
    }
    assert!(count > 30, "{count}");
}

#[test]
fn lengths_of_time_read_well() {
    for (ms, text) in [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_999, "59.9 s"),
        (60_000, "1 min"),
        (3_600_000, "1 h 0 min"),
        (172_800_000, "2 days"),
    ] {
        assert_eq!(span(ms), text);
    }
}

#[test]
fn who_was_never_spoken_to_said_nothing() {
    let reply = ("reply", "451 4.4.3 DNS could not tell");
    let told = |what, facts: &[(&str, &str)]| sentence(&step(what, facts));
    assert_eq!(
        told("relayed", &[("hop", "b.example"), reply]),
        "found no host of b.example to send it to: 451 4.4.3 DNS could not tell"
    );
    let recipient = ("recipient", "a@b.example");
    assert_eq!(
        told("deferred", &[recipient, ("edge", "vps1"), reply]),
        "could not yet hand it over for a@b.example: 451 4.4.3 DNS could not tell; through vps1"
    );
    assert_eq!(told("refused", &[recipient, reply]), "a@b.example was given up: 451 4.4.3 DNS could not tell");
}
