//! The disk fails: writes and syncs that answer EIO. Nobody hears 250 for what is not durable, nobody is lost
//! who heard it, and when the disk is well again so are we.

use gatepost_tests::client::Client;
use gatepost_tests::fault::crash_point::CrashPoint;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, STRANGER, settled, started};

/// The calls a message becomes durable by, each failing so often.
const CALLS: [(&str, usize); 5] = [("fdatasync", 2), ("fsync", 2), ("/^rename", 3), ("pwrite64", 3), ("openat", 3)];
/// Messages sent while one call fails.
const EACH: u64 = 8;

#[test]
fn a_home_whose_disk_fails_promises_nothing_it_can_not_keep() {
    let mut pair = started(&Options::story());
    let mut accepted = Vec::new();
    let mut number = 0;
    for (call, nth) in CALLS {
        let failing = CrashPoint::fail(pair.home.program.pid().expect("it runs"), call, "EIO", nth).expect("armed");
        for _ in 0..EACH {
            number += 1;
            if deliver(&pair, number) == 250 {
                accepted.push(number);
            }
        }
        drop(failing);
        assert!(pair.home.program.is_running(), "a disk that fails {call} is no reason to die");
    }
    assert!((accepted.len() as u64) < number, "the disk failed and nobody noticed");
    number += 1;
    observe::until("the home to take mail again", || deliver(&pair, number), |code| *code == 250);
    pair.home.program.kill();
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    settled(&pair);
    exactly_once(&pair.maildir(ALICE), &accepted);
}

#[test]
fn an_edge_whose_disk_fails_while_the_home_is_away_promises_nothing_it_can_not_keep() {
    let mut pair = started(&Options::story());
    pair.home.program.kill();
    pair.wait_until_down();
    let mut accepted = Vec::new();
    let mut number = 0;
    for (call, nth) in CALLS {
        let pid = pair.edge().program.pid().expect("it runs");
        let failing = CrashPoint::fail(pid, call, "EIO", nth).expect("armed");
        for _ in 0..EACH {
            number += 1;
            match deliver(&pair, number) {
                250 => accepted.push(number),
                400..=499 | 0 => {}
                code => panic!("{code} while {call} fails"),
            }
        }
        drop(failing);
        assert!(pair.edge_mut().program.is_running(), "a disk that fails {call} is no reason to die");
    }
    assert!((accepted.len() as u64) < number, "the disk failed and nobody noticed");
    number += 1;
    observe::until("the edge to take mail again", || deliver(&pair, number), |code| *code == 250);
    pair.edge_mut().program.kill();
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    settled(&pair);
    exactly_once(&pair.maildir(ALICE), &accepted);
}

#[test]
fn a_queue_on_a_disk_that_fails_sends_what_was_accepted() {
    // The edge stays and knows what became of each attempt: none need be given up as unknowable.
    let mut pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
    let mut accepted = Vec::new();
    let mut number = 0;
    for (call, nth) in CALLS {
        let failing = CrashPoint::fail(pair.home.program.pid().expect("it runs"), call, "EIO", nth).expect("armed");
        for _ in 0..EACH {
            number += 1;
            if submit(&pair, number) == 250 {
                accepted.push(number);
            }
        }
        drop(failing);
        assert!(pair.home.program.is_running(), "a disk that fails {call} is no reason to die");
    }
    assert!((accepted.len() as u64) < number, "the disk failed and nobody noticed");
    observe::until_ok("the queue to be empty", || {
        let waiting = pair.queued()?;
        anyhow::ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    });
    exactly_once(pair.sink.maildir(), &accepted);
}

/// All of these are there, and none twice. What was not accepted may be there: its reply was lost.
fn exactly_once(maildir: &std::path::Path, accepted: &[u64]) {
    let found = observe::until_ok("every accepted message", || {
        let found = message::numbers(maildir)?;
        let missing: Vec<_> = accepted.iter().filter(|number| !found.contains(number)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(found)
    });
    let twice: Vec<_> = found.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(twice.is_empty(), "delivered twice: {twice:?}");
}

/// The reply that settles it; 0 if the connection broke.
fn deliver(pair: &Pair, number: u64) -> u16 {
    let attempt = || -> anyhow::Result<u16> {
        let mut client = Client::greeted(pair.edge().doors.smtp)?;
        Ok(client.deliver(STRANGER, &[ALICE], &message::numbered(number, STRANGER, ALICE, 4096))?.code)
    };
    attempt().unwrap_or(0)
}

fn submit(pair: &Pair, number: u64) -> u16 {
    let attempt = || -> anyhow::Result<u16> {
        let tls = pair.tls()?;
        let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1")?;
        let code = client.login(ALICE, &pair.account(ALICE).password)?.code;
        anyhow::ensure!(code == 235, "{code}");
        Ok(client.deliver(ALICE, &[FRIEND], &message::numbered(number, ALICE, FRIEND, 2000))?.code)
    };
    attempt().unwrap_or(0)
}
