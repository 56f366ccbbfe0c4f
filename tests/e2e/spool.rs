//! What waits sealed at the edge: seen from home, fetched now, dropped for good; what is damaged holds up nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_delivered, pair};

#[test]
fn what_is_damaged_at_the_edge_is_listed_holds_up_nothing_and_can_be_dropped() {
    let mut pair = pair();
    pair.home.program.kill();
    pair.wait_until_down();
    for number in 1..=3 {
        deliver(&pair, number);
    }
    // A disk that lost a bit: the length still fits, so nobody knows before it is read.
    let oldest = sealed(&pair).remove(0);
    let mut bytes = fs::read(&oldest).expect("readable");
    bytes[100] ^= 1;
    fs::write(&oldest, bytes).expect("written");
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[2, 3]);
    let home = &pair.home.program;
    let listed = observe::until(
        "the damaged one to be listed",
        || home.ask_json(&["spool", "list", "--json"]).unwrap_or_default(),
        |list| list["edges"][0]["damaged_total"] == 1 && list["edges"][0]["messages"] == 0,
    );
    let id = listed["edges"][0]["damaged"][0]["transfer"].as_str().expect("named by its id").to_owned();
    let people = home.ask(&["spool", "list"]).expect("listed");
    assert!(people.contains(&format!("damaged at edge, set aside there: {id}")), "{people}");
    // Nobody is there to ask.
    let unasked = home.cli(&["spool", "drop", "edge", &id]).output().expect("it runs");
    assert_eq!(unasked.status.code(), Some(2));
    home.ask(&["spool", "drop", "edge", &id, "--yes"]).expect("dropped");
    let listed = home.ask_json(&["spool", "list", "--json"]).expect("listed");
    assert_eq!(listed["edges"][0]["damaged_total"], 0, "{listed:#}");
    let again = home.cli(&["spool", "drop", "edge", &id, "--yes"]).output().expect("it runs");
    assert_eq!(again.status.code(), Some(1));
    for program in [home, &pair.edge().program] {
        assert!(program.said().contains("dropped for good"), "{}", program.last_words());
    }
    assert!(home.ask(&["spool", "fetch"]).expect("fetched").contains("Nothing came."));
}

#[test]
fn a_fetch_waits_for_what_was_sealed_while_the_tunnel_stood() {
    let pair = super::started(&gatepost_tests::pair::options::Options::story().edge_set("limits.home_wait=1 s"));
    // A home that is too slow for a moment: the message is sealed although it is connected.
    pair.home.program.signal(rustix::process::Signal::STOP).expect("stopped");
    deliver(&pair, 1);
    deliver(&pair, 2);
    pair.home.program.signal(rustix::process::Signal::CONT).expect("running again");
    let fetched = pair.home.program.ask_json(&["spool", "fetch", "--json"]).expect("fetched");
    assert!(fetched["failed"].as_array().is_some_and(Vec::is_empty), "{fetched:#}");
    assert_eq!(pair.spooled().expect("status"), 0, "the command returns when nothing is left");
    expect_delivered(&pair, ALICE, &[1, 2]);
}

#[test]
fn what_is_sealed_while_the_tunnel_stands_comes_at_once_and_not_at_the_next_round() {
    let pair = super::started(&gatepost_tests::pair::options::Options::story().edge_set("limits.home_wait=1 s"));
    pair.home.program.signal(rustix::process::Signal::STOP).expect("stopped");
    deliver(&pair, 1);
    pair.home.program.signal(rustix::process::Signal::CONT).expect("running again");
    // Far less than the half minute after which every edge is asked.
    let spooled = || pair.spooled().ok();
    observe::until_within(Duration::from_secs(12), "the edge's word to be heard", spooled, |left| *left == Some(0));
    expect_delivered(&pair, ALICE, &[1]);
}

/// The sealed files, oldest first.
fn sealed(pair: &Pair) -> Vec<PathBuf> {
    let folder = pair.edge().program.state.join("spool/cottage");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("readable")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sealed"))
        .collect();
    files.sort();
    files
}

fn deliver(pair: &Pair, number: u64) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, ALICE, 3000);
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
}
