//! kill -9 at each step of the hand-over and of the queue: as the program enters each kind of system call
//! that makes a message durable, visible, known or forgotten.

use gatepost_tests::client::Client;
use gatepost_tests::fault::crash_point::CrashPoint;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, STRANGER, started};

/// The calls that move a message on, and how often one thread makes them at most on its way.
const STEPS: &[(&str, usize)] = &[
    ("openat", 3),
    ("fdatasync", 2),
    ("fsync", 2),
    ("/^rename", 2),
    ("pwrite64", 2),
    ("/^writev|^sendto|^sendmsg", 2),
    ("/^unlink", 2),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Edge,
    Home,
}

impl Victim {
    fn pid(self, pair: &Pair) -> u32 {
        let program = match self {
            Self::Edge => &pair.edge().program,
            Self::Home => &pair.home.program,
        };
        program.pid().expect("it runs")
    }

    /// True if it was dead; it runs again afterwards.
    fn revive(self, pair: &mut Pair) -> bool {
        let program = match self {
            Self::Edge => &mut pair.edge_mut().program,
            Self::Home => &mut pair.home.program,
        };
        let died = !program.is_running();
        if died {
            program.kill();
            program.start().expect("started");
        }
        died
    }
}

/// Runs `story` with the victim killed at each step; gives the steps that were reached.
pub fn sweep(pair: &mut Pair, victim: Victim, mut story: impl FnMut(&mut Pair, u64)) -> Vec<String> {
    let mut reached = Vec::new();
    let mut number = 0;
    for (call, times) in STEPS {
        for nth in 1..=*times {
            number += 1;
            pair.wait_until_up();
            let crash = CrashPoint::arm(victim.pid(pair), call, nth).expect("armed");
            story(pair, number);
            drop(crash);
            if victim.revive(pair) {
                reached.push(format!("{call} {nth}"));
            }
        }
    }
    pair.wait_until_up();
    reached
}

/// Sends one message from the world; true if it was answered 250.
fn inbound(pair: &Pair, number: u64) -> bool {
    let attempt = || -> anyhow::Result<u16> {
        let mut client = Client::greeted(pair.edge().doors.smtp)?;
        let answer = client.deliver(STRANGER, &[ALICE], &message::numbered(number, STRANGER, ALICE, 4096))?;
        Ok(answer.code)
    };
    attempt().is_ok_and(|code| code == 250)
}

/// Submits one message for the world at home; true if it was answered 250.
fn submission(pair: &Pair, number: u64) -> bool {
    let attempt = || -> anyhow::Result<u16> {
        let password = &pair.account(ALICE).password;
        let mut client = Client::greeted_tls(pair.home.submissions, &pair.tls()?, "127.0.0.1")?;
        anyhow::ensure!(client.login(ALICE, password)?.code == 235);
        Ok(client.deliver(ALICE, &[FRIEND], &message::numbered(number, ALICE, FRIEND, 4096))?.code)
    };
    attempt().is_ok_and(|code| code == 250)
}

/// Every accepted number is there, none twice.
fn expect_once(maildir: &std::path::Path, accepted: &[u64]) {
    observe::until_ok("every accepted message", || {
        let found = message::numbers(maildir)?;
        let missing: Vec<&u64> = accepted.iter().filter(|number| !found.contains(number)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    });
    let found = message::numbers(maildir).expect("every body whole");
    assert!(found.windows(2).all(|two| two[0] != two[1]), "twice: {found:?}");
}

fn expect_reached(reached: &[String], calls: &[&str]) {
    for call in calls {
        assert!(reached.iter().any(|step| step.contains(call)), "no kill at {call}: {reached:?}");
    }
}

#[test]
fn a_home_killed_at_each_step_of_a_delivery_has_it_once() {
    let mut pair = started(&Options::story());
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Home, |pair, number| {
        // The edge stands behind it: whatever happens at home, the sender hears 250.
        assert!(inbound(pair, number), "number {number} was not taken");
        accepted.push(number);
    });
    expect_reached(&reached, &["openat", "fdatasync", "fsync", "rename", "pwrite64", "writev"]);
    super::settled(&pair);
    expect_once(&pair.maildir(ALICE), &accepted);
}

#[test]
fn an_edge_killed_at_each_step_of_sealing_and_of_handing_over_loses_and_doubles_nothing() {
    let mut pair = started(&Options::story());
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Edge, |pair, number| {
        pair.home.program.kill();
        // Down for the edge too, unless it died of noticing: then nothing is accepted.
        if observe::until(
            "the edge to notice or to die",
            || (pair.edge_mut().program.is_running(), pair.is_connected().ok()),
            |(runs, connected)| !runs || *connected == Some(false),
        )
        .0 && inbound(pair, number)
        {
            accepted.push(number);
        }
        // And now the spool goes home, past whatever steps are left.
        pair.home.program.start().expect("started");
        observe::until(
            "the spool to be empty, or the edge to be dead",
            || (pair.edge_mut().program.is_running(), pair.spooled().ok()),
            |(runs, spooled)| !runs || *spooled == Some(0),
        );
    });
    expect_reached(&reached, &["openat", "fdatasync", "fsync", "rename", "writev", "unlink"]);
    super::settled(&pair);
    expect_once(&pair.maildir(ALICE), &accepted);
}

#[test]
fn a_home_killed_at_each_step_of_its_queue_sends_what_it_accepted_once() {
    // The edge stays and knows what became of each attempt: none need be given up as unknowable.
    let mut pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Home, |pair, number| {
        if submission(pair, number) {
            accepted.push(number);
        }
        observe::until(
            "the queue to be empty, or the home to be dead",
            || (pair.home.program.is_running(), pair.queued().ok()),
            |(runs, queued)| !runs || *queued == Some(0),
        );
    });
    expect_reached(&reached, &["openat", "fdatasync", "fsync", "rename", "pwrite64", "writev", "unlink"]);
    observe::until("the queue to be empty", || pair.queued().ok(), |queued| *queued == Some(0));
    expect_once(pair.sink.maildir(), &accepted);
}

#[test]
fn an_edge_killed_at_each_step_of_a_relay_loses_nothing() {
    let mut pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]").home_set("queue.in_doubt=1 s"));
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Edge, |pair, number| {
        assert!(submission(pair, number), "the home takes number {number} whatever the edge does");
        accepted.push(number);
        observe::until(
            "the queue to be empty, or the edge to be dead",
            || (pair.edge_mut().program.is_running(), pair.queued().ok()),
            |(runs, queued)| !runs || *queued == Some(0),
        );
    });
    // The journal is made anew by the first record of a run (openat, fsync) and grows by the others.
    expect_reached(&reached, &["openat", "fdatasync", "writev"]);
    observe::until("the queue to be empty", || pair.queued().ok(), |queued| *queued == Some(0));
    let found = message::numbers(pair.sink.maildir()).expect("every body whole");
    assert!(accepted.iter().all(|number| found.contains(number)), "missing: {found:?}");
    // Killed between the final dot and the noted reply, nobody can tell (RFC 1047): a double is right then.
    let doubles = found.windows(2).filter(|two| two[0] == two[1]).count();
    assert!(doubles <= reached.len() / 2, "{doubles} doubles over {reached:?}");
}
