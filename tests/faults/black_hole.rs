//! The line to the home swallows packets: no connection is closed, nobody is told anything. The home is
//! behind a router that masquerades, in a network namespace of its own.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_tests::client::Client;
use gatepost_tests::client::load::Control;
use gatepost_tests::fault::network::Network;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, STRANGER, expect_exactly_once, load, settled, started};

#[test]
fn a_home_behind_a_router_that_lets_nothing_in_sends_and_receives() {
    let network = Network::new().expect("a network");
    let pair = started(&network.place(Options::story()));
    deliver(&pair, 1, 4096);
    observe::until_delivered(&pair.maildir(ALICE), &[1]);
    submit(&pair, 2);
    observe::until_delivered(pair.sink.maildir(), &[2]);
    assert!(!network.home_is_reachable(pair.home.submissions.port()), "the router lets somebody in");
}

#[test]
fn ten_seconds_without_a_packet_under_load_lose_nothing_and_double_nothing() {
    swallowed_under_load(Duration::from_secs(10), "limits.home_wait=3 s");
}

#[test]
#[ignore = "takes three minutes; tests/run --long runs it"]
fn two_minutes_without_a_packet_under_load_lose_nothing_and_double_nothing() {
    swallowed_under_load(Duration::from_mins(2), "limits.home_wait=10 s");
}

/// Messages flow in while every packet to and from the home vanishes for so long.
fn swallowed_under_load(length: Duration, wait: &str) {
    let network = Network::new().expect("a network");
    let mut pair = started(&network.place(Options::story().edge_set(wait)));
    let (control, clock) = (Control::default(), Clock::real());
    let load = load(&pair, 1, 1000);
    let mut outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run_controlled(&control));
        observe::until("messages to be accepted", || control.accepted(), |accepted| *accepted >= 50);
        network.swallow().expect("swallowed");
        let end = clock.now() + length;
        let limit = length + observe::PATIENCE;
        observe::until_within(limit, "the line to come back", || clock.now(), |now| *now >= end);
        network.restore().expect("restored");
        running.join().expect("the load does not panic").expect("the load runs")
    });
    let after = super::load(&pair, 1001, 100).run().expect("the load runs");
    outcome.accepted.extend(after.accepted);
    outcome.refused.extend(after.refused);
    assert!(outcome.refused.is_empty(), "a lost line is no reason to refuse: {:?}", outcome.refused);
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
#[ignore = "takes two minutes; tests/run --long runs it"]
fn a_message_that_outlives_its_line_is_kept_while_both_sides_are_restarted() {
    let network = Network::new().expect("a network");
    let mut pair = started(&network.place(Options::story()));
    let clock = Clock::real();
    let sent = message::stuffed(&message::numbered(1, STRANGER, ALICE, 3_000_000));
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.say(&format!("RCPT TO:<{ALICE}>"), 250).expect("RCPT");
    client.say("DATA", 354).expect("DATA");
    let (first, rest) = sent.split_at(sent.len() / 2);
    client.send(first).expect("sent");
    network.swallow().expect("swallowed");
    // Past the time after which a silent tunnel counts as dead.
    let dead = clock.now() + Duration::from_secs(70);
    observe::until_within(Duration::from_mins(3), "a minute of silence", || clock.now(), |now| *now >= dead);
    client.send(rest).expect("sent");
    assert_eq!(client.answer().expect("answered").code, 250, "sealed");
    assert_eq!(pair.spooled().expect("status"), 1);
    pair.edge_mut().program.kill();
    pair.home.program.kill();
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp));
    deliver(&pair, 2, 4096);
    network.restore().expect("restored");
    observe::until_delivered(&pair.maildir(ALICE), &[1, 2]);
    settled(&pair);
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), [1, 2], "each once");
}

#[test]
#[ignore = "takes more than a minute; tests/run --long runs it"]
fn a_router_that_forgets_every_connection_costs_no_message() {
    let network = Network::new().expect("a network");
    let pair = started(&network.place(Options::story().edge_set("limits.home_wait=2 s")));
    deliver(&pair, 1, 4096);
    network.forget_connections().expect("forgotten");
    deliver(&pair, 2, 4096);
    observe::until_within(
        3 * observe::PATIENCE,
        "all messages",
        || message::numbers(&pair.maildir(ALICE)).ok(),
        |found| found.as_deref() == Some(&[1, 2]),
    );
    // Only now is the home surely back, which alone knows whose password is right.
    submit(&pair, 3);
    observe::until_delivered(pair.sink.maildir(), &[3]);
}

fn deliver(pair: &Pair, number: u64, octets: usize) {
    let sent = message::numbered(number, STRANGER, ALICE, octets);
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

fn submit(pair: &Pair, number: u64) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let sent = message::numbered(number, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
}
