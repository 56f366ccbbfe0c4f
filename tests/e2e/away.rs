//! The home is away: the edge takes mail, sealed, and hands it over when the home is back.

use std::path::Path;

use gatepost_tests::client::Client;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use rustix::process::Signal;

use super::{ALICE, STRANGER, expect_delivered, pair, started};

#[test]
fn mail_taken_while_the_home_is_away_is_delivered_when_it_is_back() {
    let mut pair = pair();
    pair.home.program.kill();
    pair.wait_until_down();
    for number in 1..=5 {
        deliver(&pair, number, 4096);
    }
    assert_eq!(pair.spooled().expect("status"), 5);
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1, 2, 3, 4, 5]);
    // New mail goes straight through again.
    pair.wait_until_up();
    deliver(&pair, 6, 1000);
    expect_delivered(&pair, ALICE, &[1, 2, 3, 4, 5, 6]);
}

#[test]
fn the_edges_disk_never_holds_a_message_in_the_clear() {
    let mut pair = pair();
    let secret = "the combination is 7-41-23";
    deliver_text(&pair, 1, secret);
    pair.home.program.kill();
    pair.wait_until_down();
    deliver_text(&pair, 2, secret);
    // Large ones are sealed to a file as they arrive.
    deliver(&pair, 3, 5_000_000);
    let state = pair.edge().program.state.clone();
    let mut looked_at = 0;
    for_each_file(&state, &mut |path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        looked_at += bytes.len();
        for words in [secret, "Subject: number", "X-Test-Number"] {
            let found = bytes.windows(words.len()).any(|window| window == words.as_bytes());
            assert!(!found, "{} holds {words:?} in the clear", path.display());
        }
    });
    assert!(looked_at > 5_000_000, "the sealed mail lies below {}: {looked_at} octets", state.display());
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1, 2, 3]);
}

#[test]
fn an_edge_restarted_while_the_home_is_away_still_knows_its_recipients() {
    let mut pair = pair();
    pair.home.program.kill();
    pair.edge_mut().program.kill();
    pair.edge_mut().program.start().expect("started");
    let mut client = greeted(&pair);
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    let answer = client.say("RCPT TO:<nobody@example.org>", 550).expect("refused");
    assert!(answer.text().starts_with("5.1.1"), "{answer:?}");
    drop(client);
    deliver(&pair, 1, 1000);
    // And again: what was sealed survives too.
    pair.edge_mut().program.kill();
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1]);
}

#[test]
fn an_edge_that_never_met_its_home_asks_senders_to_come_back() {
    let mut pair = Pair::prepare(&Options::story()).expect("prepared");
    pair.edge_mut().program.start().expect("started");
    let mut client = greeted(&pair);
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    let answer = client.ask(&format!("RCPT TO:<{ALICE}>")).expect("answered");
    assert_eq!(answer.code, 450, "{answer:?}");
}

#[test]
fn a_silent_home_costs_the_sender_nothing_and_the_recipient_gets_one_copy() {
    let pair = started(&Options::story().edge_set("limits.home_wait=1 s"));
    pair.home.program.signal(Signal::STOP).expect("stopped");
    deliver(&pair, 1, 4096);
    pair.home.program.signal(Signal::CONT).expect("running again");
    deliver(&pair, 2, 4096);
    expect_delivered(&pair, ALICE, &[1, 2]);
    // The sealed copy of the first is pulled and recognised: wait until nothing is spooled, then count again.
    gatepost_tests::observe::until_ok("the spool to be empty", || {
        let spooled = pair.spooled()?;
        anyhow::ensure!(spooled == 0, "{spooled} messages");
        Ok(())
    });
    expect_delivered(&pair, ALICE, &[1, 2]);
}

/// An edge that was just started may not listen yet.
fn greeted(pair: &Pair) -> Client {
    gatepost_tests::observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp))
}

fn deliver(pair: &Pair, number: u64, octets: usize) {
    let sent = message::numbered(number, STRANGER, ALICE, octets);
    let answer = greeted(pair).deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

fn deliver_text(pair: &Pair, number: u64, text: &str) {
    let sent = message::with_body(number, STRANGER, ALICE, format!("{text}\r\n").as_bytes());
    let answer = greeted(pair).deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

fn for_each_file(directory: &Path, look: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() { for_each_file(&path, look) } else { look(&path) }
    }
}
