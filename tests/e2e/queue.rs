//! The outbound queue as its owner and senders see it: delays and successes told as asked, destinations that are
//! down left alone without harm to others, and commands that choose.

use std::net::TcpListener;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::world::message;
use serde_json::Value;

use super::{ALICE, BOB, expect_delivered, expect_in_sink, only_message, started};

#[test]
fn a_delay_is_told_once_to_who_may_hear_of_it() {
    let options = Options::story().home_set("queue.warn=1 s").home_set("queue.retry=[\"1 s\"]");
    let pair = started(&options);
    submit(&pair, 1, "", &[("defer@elsewhere.example", " NOTIFY=FAILURE"), ("defer2@elsewhere.example", "")]);
    let report = only_message(&pair, ALICE);
    for expected in [
        "Subject: Delayed: defer2@elsewhere.example",
        "You need do",
        "Action: delayed",
        "Status: 4.2.0",
        "Will-Retry-Until: ",
        "come back later",
        "Subject: number 1",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing in\n{report}");
    }
    assert!(!report.contains("Final-Recipient: rfc822; defer@"), "it asked not to hear of it:\n{report}");
    // Tried many more times, it is told no more.
    observe::until_ok("more attempts", || {
        let queue = pair.home.program.ask_json(&["queue", "list", "--json"])?;
        let attempts = queue["messages"][0]["recipients"][1]["attempts"].as_u64();
        anyhow::ensure!(attempts >= Some(4), "{queue:#}");
        Ok(())
    });
    only_message(&pair, ALICE);
}

#[test]
fn success_is_told_where_nobody_else_tells_it() {
    let pair = started(&Options::story());
    let wants = " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Friend@elsewhere.example";
    submit(&pair, 1, " RET=HDRS ENVID=QQ314159", &[("friend@elsewhere.example", wants)]);
    let report = only_message(&pair, ALICE);
    for expected in [
        "Subject: Sent on: friend@elsewhere.example",
        "Action: relayed",
        "Status: 2.",
        "Original-Envelope-Id: QQ314159",
        "Original-Recipient: rfc822;Friend@elsewhere.example",
    ] {
        assert!(report.contains(expected), "{expected:?} is missing in\n{report}");
    }
    expect_in_sink(&pair, &[1]);
}

#[test]
fn a_delivery_to_a_mailbox_here_is_told_to_an_account_that_asks() {
    let pair = started(&Options::story());
    submit(&pair, 1, "", &[(BOB, " NOTIFY=SUCCESS")]);
    expect_delivered(&pair, BOB, &[1]);
    let report = only_message(&pair, ALICE);
    assert!(report.contains("Action: delivered") && report.contains("Subject: Delivered: bob@example.org"), "{report}");
}

#[test]
fn a_destination_that_is_down_costs_a_handful_of_attempts_and_delays_nobody() {
    // Bound and never listened at: every connection is refused, and nobody else takes the port.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = closed.local_addr().expect("bound");
    drop(closed);
    let mut options = Options::story().home_set("queue.retry=[\"1 s\"]");
    options.outbound = Outbound::Routes(vec![("dead.example".to_owned(), dead.to_string())]);
    let pair = started(&options);
    for number in 1..=40 {
        submit(&pair, number, "", &[("x@dead.example", "")]);
    }
    let list = |words: &[&str]| -> Value {
        pair.home.program.ask_json(&[&["queue", "list", "--json"], words].concat()).expect("listed")
    };
    let queue = observe::until(
        "the destination to be left alone",
        || list(&[]),
        |queue| queue["destinations"][0]["left_alone_s"].is_number(),
    );
    let tried = queue["messages"].as_array().expect("a list").iter();
    let tried = tried.filter(|message| message["recipients"][0]["attempts"].as_u64() > Some(0)).count();
    assert!((1..=12).contains(&tried), "{tried} of 40 were tried");
    assert_eq!(queue["total"], 40);
    // Meanwhile a friend is reached at once.
    submit(&pair, 100, "", &[("friend@elsewhere.example", "")]);
    expect_in_sink(&pair, &[100]);
    // The owner sees why, and what to do.
    let id = queue["messages"][39]["id"].as_str().expect("an id").to_owned();
    let shown = pair.home.program.ask(&["queue", "show", &id]).expect("shown");
    assert!(shown.contains("what it means: The domain's mail hosts can't be reached now."), "{shown}");
    // What is chosen is changed, the rest is not.
    let ask = |words: &[&str]| pair.home.program.ask(&[&["queue"], words].concat()).expect("done");
    assert_eq!(ask(&["hold", "--domain", "dead.example"]), "40 messages\n");
    assert_eq!(list(&[])["held"], 40);
    assert_eq!(ask(&["release", &id[..8]]), "1 message\n");
    assert_eq!(ask(&["drop", "--to", "nobody@dead.example"]), "0 messages\n");
    assert_eq!(ask(&["drop", "--from", ALICE, "--domain", "dead.example"]), "40 messages\n");
    assert_eq!(ask(&["list"]), "The queue is empty.\n");
}

/// Submits a numbered message at home; each recipient with its parameters.
fn submit(pair: &Pair, number: u64, parameters: &str, to: &[(&str, &str)]) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    client.say(&format!("MAIL FROM:<{ALICE}>{parameters}"), 250).expect("MAIL");
    for (recipient, parameters) in to {
        client.say(&format!("RCPT TO:<{recipient}>{parameters}"), 250).expect("RCPT");
    }
    client.say("DATA", 354).expect("DATA");
    client.send(&message::stuffed(&message::numbered(number, ALICE, to[0].0, 500))).expect("sent");
    client.expect(250).expect("taken");
}
