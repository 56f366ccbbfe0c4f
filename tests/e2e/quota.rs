//! What a mailbox may hold: refused while the sender listens, known to the edge at RCPT, and taken again as soon as
//! its owner has made room.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, expect_delivered, pair};

fn send(pair: &Pair, number: u64, recipients: &[&str], octets: usize) -> u16 {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, recipients[0], octets);
    client.deliver(STRANGER, recipients, &sent).expect("answered").code
}

fn set_quota(pair: &Pair, size: &str) -> String {
    pair.home.program.ask(&["account", "quota", BOB, size]).expect("set")
}

fn at_rcpt(pair: &Pair, recipient: &str) -> String {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    let answer = client.ask(&format!("RCPT TO:<{recipient}>")).expect("answered");
    format!("{} {}", answer.code, answer.text())
}

fn until_at_rcpt(pair: &Pair, recipient: &str, begins: &str) {
    observe::until("the edge's word at RCPT", || at_rcpt(pair, recipient), |said| said.starts_with(begins));
}

#[test]
fn a_full_mailbox_is_refused_at_rcpt_until_there_is_room_and_postmaster_never_is() {
    let pair = pair();
    assert!(set_quota(&pair, "20 KiB").contains("of 20 KiB"), "{}", set_quota(&pair, "20 KiB"));
    assert_eq!(send(&pair, 1, &[BOB], 15_000), 250);
    assert_eq!(send(&pair, 2, &[BOB], 15_000), 452, "it does not fit now");
    assert_eq!(send(&pair, 3, &[BOB], 30_000), 552, "it never will");
    assert_eq!(send(&pair, 4, &[BOB, ALICE], 15_000), 250, "one recipient with room is enough");
    expect_delivered(&pair, BOB, &[1, 4]);
    until_at_rcpt(&pair, BOB, "452 4.2.2");
    assert!(at_rcpt(&pair, "bob+x@example.org").starts_with("452 4.2.2"));
    assert!(at_rcpt(&pair, ALICE).starts_with("250"));
    assert!(at_rcpt(&pair, "postmaster@example.org").starts_with("250"));
    let listed = pair.home.program.ask(&["account", "list"]).expect("listed");
    assert!(listed.contains("20 KiB"), "{listed}");
    for file in message::files(&pair.maildir(BOB)) {
        std::fs::remove_file(file).expect("removed");
    }
    until_at_rcpt(&pair, BOB, "250");
    assert_eq!(send(&pair, 5, &[BOB], 15_000), 250);
}

#[test]
fn what_is_announced_as_larger_than_a_mailbox_has_room_for_is_refused_at_rcpt_also_while_the_home_is_away() {
    let mut pair = pair();
    set_quota(&pair, "40 KiB");
    assert_eq!(send(&pair, 1, &[BOB], 15_000), 250);
    let announced = |pair: &Pair, octets: u64| {
        let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
        client.ask(&format!("MAIL FROM:<{STRANGER}> SIZE={octets}")).expect("answered");
        let answer = client.ask(&format!("RCPT TO:<{BOB}>")).expect("answered");
        format!("{} {}", answer.code, answer.text())
    };
    let known = |reply: &String| reply.starts_with("452 4.2.2");
    observe::until("the edge to know", || announced(&pair, 35_000), known);
    pair.home.program.kill();
    pair.wait_until_down();
    for (octets, says) in [(20_000, "250"), (35_000, "452 4.2.2"), (50_000, "552 5.2.2")] {
        let said = announced(&pair, octets);
        assert!(said.starts_with(says), "{octets}: {said}");
    }
    let shown = pair.home.program.ask(&["account", "show", BOB]).expect("shown, also while nothing runs");
    assert!(shown.contains("of 40 KiB") && shown.contains("only sends mail"), "{shown}");
    for secret in [&pair.account(BOB).password, &pair.account(BOB).submission_password] {
        assert!(!shown.contains(secret), "{shown}");
    }
    pair.home.program.start().expect("started");
}

#[test]
fn what_was_sealed_for_a_mailbox_that_is_full_by_then_is_stored_all_the_same() {
    let mut pair = pair();
    assert_eq!(send(&pair, 1, &[BOB], 15_000), 250);
    pair.home.program.kill();
    pair.wait_until_down();
    assert_eq!(send(&pair, 2, &[BOB], 15_000), 250);
    set_quota(&pair, "1 KiB");
    pair.home.program.start().expect("started");
    expect_delivered(&pair, BOB, &[1, 2]);
    until_at_rcpt(&pair, BOB, "452 4.2.2");
    set_quota(&pair, "none");
    until_at_rcpt(&pair, BOB, "250");
}
