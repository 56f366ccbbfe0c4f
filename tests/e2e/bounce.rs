//! What can't be delivered comes back as a proper report (RFC 3464), and only to accounts of ours.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use gatepost_tests::world::webhook::Webhook;

use super::{ALICE, expect_in_sink, fields, only_message, pair, started, values};

#[test]
fn a_permanent_refusal_comes_back_as_a_report() {
    let pair = pair();
    submit(&pair, "", &["refuse-me@elsewhere.example", "friend@elsewhere.example"]);
    let report = only_message(&pair, ALICE);
    let fields = fields(&report);
    assert_eq!(values(&fields, "Return-Path"), ["<>"], "a report is from nobody");
    let kind = values(&fields, "Content-Type")[0].replace('"', "");
    assert!(kind.starts_with("multipart/report") && kind.contains("report-type=delivery-status"), "{kind}");
    assert_eq!(values(&fields, "Auto-Submitted"), ["auto-replied"], "{fields:?}");
    for expected in [
        "message/delivery-status",
        &format!("Reporting-MTA: dns; {}", pair.home_hostname),
        "Final-Recipient: rfc822; refuse-me@elsewhere.example",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550",
        "Subject: number 1",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing in\n{report}");
    }
    assert!(!report.contains("friend@elsewhere.example\n") || !report.contains("Final-Recipient: rfc822; friend"));
    expect_in_sink(&pair, &[1]);
}

#[test]
fn a_refusal_of_the_message_itself_comes_back_too() {
    let pair = pair();
    submit(&pair, "", &["reject@elsewhere.example"]);
    let report = only_message(&pair, ALICE);
    assert!(report.contains("Status: 5.6.0"), "{report}");
}

#[test]
fn what_can_not_be_delivered_in_time_expires() {
    let pair = started(&Options::story().home_set("queue.expire=2 s").home_set("queue.retry=[\"1 s\"]"));
    submit(&pair, "", &["defer@elsewhere.example"]);
    let report = only_message(&pair, ALICE);
    assert!(report.contains("Action: failed"), "{report}");
    assert!(report.contains("Status: 4.") || report.contains("Status: 5.4.7"), "{report}");
    observe::until_ok("the queue to be empty", || {
        let queue = pair.home.program.ask(&["queue", "list", "--json"])?;
        anyhow::ensure!(!queue.contains("defer@"), "{queue}");
        Ok(())
    });
}

#[test]
fn the_owner_hears_of_what_expired_and_an_alarm_that_expires_raises_none() {
    let webhook = Webhook::start().expect("a webhook");
    let options = Options::story()
        .home_set("queue.expire=2 s")
        .home_set("queue.retry=[\"1 s\"]")
        .home_set("alarm.address=defer-owner@another.example")
        .home_set(&format!("alarm.webhook={}", webhook.url()));
    let pair = started(&options);
    submit(&pair, "", &["defer@elsewhere.example"]);
    let posted = webhook.next().expect("posted");
    assert!(posted.contains("\"alarm\":\"queue-expired\"") && posted.contains("\"about\":\"elsewhere.example\""));
    for part in [ALICE, "defer@elsewhere.example", "Given up after 2 seconds", "Its sender is told."] {
        assert!(posted.contains(part), "{part} is missing in {posted}");
    }
    let story = |about: &str| pair.home.program.ask(&["trace", about]);
    let told = story("defer@elsewhere.example").expect("its story");
    for part in ["gave up on defer@elsewhere.example", "=> not delivered to defer@elsewhere.example: 550 5.4.7"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    // The letter about it is deferred as well, and given up.
    observe::until_ok("the end of the letter", || {
        let told = story("defer-owner@another.example")?;
        anyhow::ensure!(told.contains("gave up on defer-owner@another.example"), "{told}");
        Ok(())
    });
    submit(&pair, " NOTIFY=NEVER", &["defer@third.example"]);
    let posted = webhook.next().expect("posted");
    assert!(posted.contains("\"about\":\"third.example\"") && posted.contains("wished to hear nothing"), "{posted}");
}

#[test]
fn who_wants_no_report_gets_none() {
    let pair = pair();
    submit(&pair, " NOTIFY=NEVER", &["refuse-me@elsewhere.example"]);
    submit(&pair, "", &["refuse-me-too@elsewhere.example"]);
    // The second one's report is the only one: the first was settled before it.
    let report = only_message(&pair, ALICE);
    assert!(report.contains("refuse-me-too@elsewhere.example"), "{report}");
}

fn submit(pair: &Pair, parameters: &str, to: &[&str]) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    client.say(&format!("MAIL FROM:<{ALICE}>"), 250).expect("MAIL");
    for recipient in to {
        client.say(&format!("RCPT TO:<{recipient}>{parameters}"), 250).expect("RCPT");
    }
    client.say("DATA", 354).expect("DATA");
    client.send(&message::stuffed(&message::numbered(1, ALICE, to[0], 500))).expect("sent");
    client.expect(250).expect("taken");
}
