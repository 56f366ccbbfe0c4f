//! The tunnel is cut, or swallows everything, in the middle of things.

use gatepost_tests::client::Client;
use gatepost_tests::client::load::Control;
use gatepost_tests::fault::proxy::Mode;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_exactly_once, load, settled, started};

#[test]
fn a_tunnel_cut_in_the_middle_of_a_message_costs_nobody_a_retry() {
    let pair = started(&Options::story().tunnel_proxy());
    let proxy = pair.edge().proxy.as_ref().expect("a proxy");
    let sizes = [4096, 300_000, 3_000_000];
    let mut number = 0;
    for octets in sizes {
        for cut_at in [1, octets as u64 / 2, octets as u64 - 100] {
            number += 1;
            pair.wait_until_connected();
            proxy.cut_after(cut_at);
            let sent = message::numbered(number, STRANGER, ALICE, octets);
            let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
            let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
            assert_eq!(answer.code, 250, "{octets} octets cut at {cut_at}: {answer:?}");
        }
    }
    let all: Vec<u64> = (1..=number).collect();
    observe::until_delivered(&pair.maildir(ALICE), &all);
    settled(&pair);
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), all, "each once");
}

#[test]
fn a_tunnel_cut_again_and_again_under_load_loses_nothing_and_doubles_nothing() {
    let mut pair = started(&Options::story().tunnel_proxy());
    let control = Control::default();
    let load = load(&pair, 1, u64::MAX / 2);
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run_controlled(&control));
        for cut in 1..=20 {
            observe::until("messages to be accepted", || control.accepted(), |accepted| *accepted >= cut * 23);
            pair.edge().proxy.as_ref().expect("a proxy").cut();
        }
        control.stop();
        running.join().expect("the load does not panic").expect("the load runs")
    });
    assert!(outcome.refused.is_empty(), "a cut tunnel is no reason to refuse: {:?}", outcome.refused);
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
fn a_tunnel_that_swallows_everything_is_noticed_by_the_wait_for_an_answer() {
    let pair = started(&Options::story().tunnel_proxy().edge_set("limits.home_wait=1 s"));
    let proxy = pair.edge().proxy.as_ref().expect("a proxy");
    proxy.set(Mode::BlackHole);
    deliver(&pair, 1);
    proxy.set(Mode::Pass);
    proxy.cut();
    observe::until_delivered(&pair.maildir(ALICE), &[1]);
    settled(&pair);
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), [1]);
}

#[test]
fn what_can_not_be_dialled_is_dialled_until_it_can() {
    let pair = started(&Options::story().tunnel_proxy());
    let proxy = pair.edge().proxy.as_ref().expect("a proxy");
    proxy.set(Mode::Refuse);
    proxy.cut();
    pair.wait_until_down();
    deliver(&pair, 1);
    proxy.set(Mode::Pass);
    observe::until_delivered(&pair.maildir(ALICE), &[1]);
}

fn deliver(pair: &Pair, number: u64) {
    let sent = message::numbered(number, STRANGER, ALICE, 4096);
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}
