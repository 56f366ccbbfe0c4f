//! Who gets what at home: aliases, subaddresses, catch-all, and mail between accounts, which never leaves.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, expect_delivered, fields, only_message, pair, values};

#[test]
fn mail_between_accounts_never_leaves() {
    let pair = pair();
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    for (number, server, password) in
        [(1, pair.edge().doors.submissions, &alice.submission_password), (2, pair.home.submissions, &alice.password)]
    {
        let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
        assert_eq!(client.login(ALICE, password).expect("answered").code, 235);
        let sent = message::numbered(number, ALICE, BOB, 2000);
        assert_eq!(client.deliver(ALICE, &[BOB], &sent).expect("answered").code, 250);
    }
    // Durable before 250: no waiting.
    assert_eq!(message::numbers(&pair.maildir(BOB)).expect("whole"), [1, 2]);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
    // An address of ours that does not exist is refused in the session, not bounced later.
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    client.say(&format!("MAIL FROM:<{ALICE}>"), 250).expect("MAIL");
    client.say("RCPT TO:<nobody@example.org>", 550).expect("refused");
}

#[test]
fn a_message_to_both_worlds_is_split() {
    let pair = pair();
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    let sent = message::numbered(1, ALICE, BOB, 2000);
    let reply = client.deliver(ALICE, &[BOB, "friend@elsewhere.example"], &sent).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
    expect_delivered(&pair, BOB, &[1]);
    super::expect_in_sink(&pair, &[1]);
}

#[test]
fn a_subaddress_reaches_its_account_and_is_still_told() {
    let pair = pair();
    from_the_world(&pair, 1, &["alice+shop@example.org"]);
    let stored = only_message(&pair, ALICE);
    let fields = fields(&stored);
    assert_eq!(values(&fields, "Delivered-To"), [ALICE]);
    assert_eq!(values(&fields, "X-Original-To"), ["alice+shop@example.org"]);
}

#[test]
fn an_alias_reaches_all_it_names_and_each_once() {
    let pair = pair();
    pair.home.program.ask(&["alias", "add", "team@example.org", ALICE, BOB]).expect("an alias");
    wait_for_recipient(&pair, "team@example.org");
    from_the_world(&pair, 1, &["team@example.org"]);
    expect_delivered(&pair, ALICE, &[1]);
    expect_delivered(&pair, BOB, &[1]);
    from_the_world(&pair, 2, &["team@example.org", ALICE]);
    expect_delivered(&pair, BOB, &[1, 2]);
    let mut alice = message::numbers(&pair.maildir(ALICE)).expect("whole");
    alice.dedup();
    assert_eq!(alice, [1, 2]);
}

#[test]
fn an_alias_leads_to_somebody_here_or_elsewhere_but_not_to_nobody() {
    let pair = pair();
    let add = |target| pair.home.program.ask(&["alias", "add", "list@example.org", target]);
    let error = add("nobody@example.org").expect_err("refused");
    assert!(format!("{error:#}").contains("no account or alias"), "{error:#}");
    add("friend@elsewhere.example").expect("an alias");
}

#[test]
fn a_catch_all_takes_what_nobody_else_does() {
    let pair = pair();
    pair.home.program.ask(&["alias", "add", "@example.org", BOB]).expect("a catch-all");
    wait_for_recipient(&pair, "whatever@example.org");
    from_the_world(&pair, 1, &["whatever@example.org"]);
    from_the_world(&pair, 2, &[ALICE]);
    expect_delivered(&pair, BOB, &[1]);
    expect_delivered(&pair, ALICE, &[2]);
}

#[test]
fn a_new_account_gets_mail_and_a_removed_one_does_not() {
    let pair = pair();
    super::add_account(&pair, "carol@example.org", "a password of hers");
    wait_for_recipient(&pair, "carol@example.org");
    from_the_world(&pair, 1, &["carol@example.org"]);
    pair.home.program.ask(&["account", "remove", "carol@example.org"]).expect("removed");
    observe::until("the edge to refuse her", || rcpt(&pair, "carol@example.org"), |code| *code == 550);
}

/// A change at home reaches the edge's directory soon.
fn wait_for_recipient(pair: &Pair, address: &str) {
    observe::until(&format!("the edge to know {address}"), || rcpt(pair, address), |code| *code == 250);
}

fn rcpt(pair: &Pair, address: &str) -> u16 {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.ask(&format!("RCPT TO:<{address}>")).expect("answered").code
}

fn from_the_world(pair: &Pair, number: u64, to: &[&str]) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, to[0], 1000);
    let answer = client.deliver(STRANGER, to, &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}
