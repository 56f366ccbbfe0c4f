//! Mailboxes that another server keeps: a real Dovecot takes the mail by LMTP and serves it by IMAP.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::clients;
use gatepost_tests::peers::dovecot::Keeper;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, fields, started, values};

const QUICK: [&str; 1] = ["queue.retry=[\"200 ms\"]"];

fn kept_by(keeper: &Keeper) -> Pair {
    let options = QUICK.iter().fold(Options::story().home_set(&keeper.setting()), |options, set| options.home_set(set));
    started(&options)
}

fn send(pair: &Pair, number: u64, recipients: &[&str], octets: usize) -> u16 {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, recipients[0], octets);
    client.deliver(STRANGER, recipients, &sent).expect("answered").code
}

fn expect_kept(keeper: &Keeper, user: &str, numbers: &[u64]) {
    observe::until_delivered(&keeper.maildir(user), numbers);
}

fn status(pair: &Pair) -> String {
    pair.home.program.ask(&["status"]).expect("a status")
}

#[test]
fn what_the_edge_answers_250_can_be_read_by_dovecots_imap() {
    let keeper = Keeper::start(&[(ALICE, None), (BOB, None)]).expect("Dovecot");
    let pair = kept_by(&keeper);
    assert_eq!(send(&pair, 1, &[ALICE, BOB], 4000), 250, "{}", keeper.said());
    assert_eq!(message::numbers(&keeper.maildir(ALICE)).expect("whole"), [1], "it was there before the reply");
    expect_kept(&keeper, BOB, &[1]);
    assert!(message::files(&pair.maildir(ALICE)).is_empty(), "and nowhere else");
    let read = clients::imap_messages(keeper.imap, ALICE).expect("imaplib reads it");
    let header = String::from_utf8_lossy(&read[0]).replace("\r\n", "\n");
    let fields = fields(&header);
    let received = values(&fields, "Received");
    assert!(received[0].contains("with LMTP") && received[1].contains("by mail.example.org"), "{received:?}");
    assert_eq!(values(&fields, "Return-Path"), [format!("<{STRANGER}>")], "{header}");
    assert!(status(&pair).contains(&format!("kept by unix:{}", keeper.lmtp.display())), "{}", status(&pair));
}

#[test]
fn a_full_mailbox_refuses_in_session_and_costs_the_other_recipient_nothing() {
    let keeper = Keeper::start(&[(ALICE, None), (BOB, Some("6k"))]).expect("Dovecot");
    let pair = kept_by(&keeper);
    assert_eq!(send(&pair, 1, &[BOB], 1000), 250, "{}", keeper.said());
    assert_eq!(send(&pair, 2, &[BOB], 20_000), 552, "{}", keeper.said());
    assert_eq!(send(&pair, 3, &[ALICE, BOB], 20_000), 250, "{}", keeper.said());
    expect_kept(&keeper, ALICE, &[3]);
    expect_kept(&keeper, BOB, &[1]);
    let queue = || pair.home.program.ask(&["queue", "list"]).expect("listed");
    observe::until("it to wait for room", queue, |queue| queue.contains(BOB) && queue.contains("5.2.2"));
}

#[test]
fn who_dovecot_does_not_know_is_refused_in_its_words() {
    let keeper = Keeper::start(&[(ALICE, None)]).expect("Dovecot");
    let pair = kept_by(&keeper);
    assert_eq!(send(&pair, 1, &[BOB], 1000), 550, "{}", keeper.said());
    assert_eq!(send(&pair, 2, &[ALICE, BOB], 1000), 250, "{}", keeper.said());
    // Alice is the postmaster: what was promised to Bob and has no mailbox is hers to see.
    expect_kept(&keeper, ALICE, &[2, 2]);
    observe::until("the log to tell of it", || pair.home.program.said(), |told| told.contains("the postmaster has it"));
}

#[test]
fn while_dovecot_is_down_mail_is_taken_and_waits_even_through_a_restart() {
    let mut keeper = Keeper::start(&[(ALICE, None), (BOB, None)]).expect("Dovecot");
    let mut pair = kept_by(&keeper);
    keeper.stop();
    for number in 1..=5 {
        assert_eq!(send(&pair, number, &[ALICE, BOB], 3000), 250, "{}", keeper.said());
    }
    let shown = status(&pair);
    assert!(shown.contains("in trouble since") && shown.contains("5 message(s) wait for delivery"), "{shown}");
    pair.home.program.kill();
    pair.home.program.start().expect("started");
    keeper.resume().expect("Dovecot");
    expect_kept(&keeper, ALICE, &[1, 2, 3, 4, 5]);
    expect_kept(&keeper, BOB, &[1, 2, 3, 4, 5]);
    observe::until("the queue to be empty", || pair.queued().ok(), |queued| *queued == Some(0));
    pair.wait_until_up();
    assert_eq!(send(&pair, 6, &[ALICE], 3000), 250);
}

#[test]
fn what_was_sealed_while_the_home_was_away_goes_to_dovecot_too() {
    let keeper = Keeper::start(&[(ALICE, None), (BOB, None)]).expect("Dovecot");
    let mut pair = kept_by(&keeper);
    pair.home.program.kill();
    pair.wait_until_down();
    assert_eq!(send(&pair, 1, &[ALICE, BOB], 300_000), 250);
    pair.home.program.start().expect("started");
    expect_kept(&keeper, ALICE, &[1]);
    expect_kept(&keeper, BOB, &[1]);
}
