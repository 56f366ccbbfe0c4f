//! kill -9 of either program, again and again, at whatever moment, under load.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_tests::client::Client;
use gatepost_tests::client::load::{Control, Outcome};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, expect_exactly_once, load, started};

/// Kills while a load runs: each time after so many more messages were accepted.
const KILLS: u64 = 12;
/// Odd, so that kills fall at ever other points of the hand-over.
const BETWEEN: u64 = 37;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Edge,
    Home,
    Both,
}

#[test]
fn the_home_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    sweep(Victim::Home);
}

#[test]
fn the_edge_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    sweep(Victim::Edge);
}

#[test]
fn both_killed_at_once_lose_nothing_and_double_nothing() {
    sweep(Victim::Both);
}

fn sweep(victim: Victim) {
    let mut pair = started(&Options::story());
    let control = Control::default();
    let load = load(&pair, 1, u64::MAX / 2);
    let outcome: Outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run_controlled(&control));
        for round in 1..=KILLS {
            let enough = round * BETWEEN;
            observe::until("messages to be accepted", || control.accepted(), |accepted| *accepted >= enough);
            kill(&mut pair, victim);
        }
        observe::until("more to be accepted", || control.accepted(), |accepted| *accepted >= (KILLS + 1) * BETWEEN);
        control.stop();
        running.join().expect("the load does not panic").expect("the load runs")
    });
    assert!(outcome.accepted.len() as u64 > KILLS * BETWEEN, "{} accepted", outcome.accepted.len());
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
fn submissions_to_the_world_survive_kills_of_the_home_and_go_out_once() {
    // The edge stays and can be asked, however long a restart takes here: nothing need be given up as unknowable.
    let (_pair, doubles) = submissions(&[Victim::Home], "10 min");
    assert_eq!(doubles, 0, "the edge knows what became of each attempt");
}

#[test]
fn submissions_to_the_world_survive_kills_of_the_edge_and_double_only_where_nobody_can_know() {
    let (pair, doubles) = submissions(&[Victim::Edge], "1 s");
    // RFC 1047: the final dot was sent, the reply was not seen. Each such retry is told.
    let told = pair.home.program.said().matches("may deliver twice").count();
    assert!(doubles <= told, "{doubles} doubles, {told} told");
}

#[test]
fn submissions_to_the_world_survive_kills_of_both() {
    let (pair, doubles) = submissions(&[Victim::Home, Victim::Edge, Victim::Both], "1 s");
    let told = pair.home.program.said().matches("may deliver twice").count();
    assert!(doubles <= told, "{doubles} doubles, {told} told");
}

/// Submits messages to the world while programs are killed in turn; all that were accepted must go out. An
/// attempt of which nothing is heard for `in_doubt` is made again. Gives how many went out more than once.
fn submissions(victims: &[Victim], in_doubt: &str) -> (Pair, usize) {
    let options = Options::story().home_set("queue.retry=[\"1 s\"]");
    let mut pair = started(&options.home_set(&format!("queue.in_doubt={in_doubt}")));
    let mut accepted = Vec::new();
    let clock = Clock::real();
    for number in 1..=24 {
        if submit(&pair, number) {
            accepted.push(number);
        }
        // At ever other points: right after the reply, and up to some milliseconds into the relay.
        let until = clock.now() + Duration::from_millis(number * 7 % 20);
        while clock.now() < until {
            std::hint::spin_loop();
        }
        let victim = victims[usize::try_from(number).expect("small") % victims.len()];
        kill(&mut pair, victim);
    }
    assert!(accepted.len() >= 20, "{accepted:?}");
    pair.wait_until_up();
    let sink = pair.sink.maildir().to_owned();
    observe::until_ok("every accepted message in the sink", || {
        let found = message::numbers(&sink)?;
        let missing: Vec<_> = accepted.iter().filter(|number| !found.contains(number)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    });
    observe::until_ok("the queue to be empty", || {
        let waiting = pair.queued()?;
        anyhow::ensure!(waiting == 0, "{waiting} wait");
        Ok(())
    });
    let found = message::numbers(&sink).expect("whole");
    let doubles = found.windows(2).filter(|two| two[0] == two[1]).count();
    (pair, doubles)
}

fn kill(pair: &mut Pair, victim: Victim) {
    if victim != Victim::Home {
        pair.edge_mut().program.kill();
        pair.edge_mut().program.start().expect("started");
    }
    if victim != Victim::Edge {
        pair.home.program.kill();
        pair.home.program.start().expect("started");
    }
}

/// Submits at home; false if it was not accepted (it was killed meanwhile).
fn submit(pair: &Pair, number: u64) -> bool {
    let attempt = || -> anyhow::Result<u16> {
        let alice = pair.account(ALICE);
        let tls = pair.tls()?;
        let mut client =
            observe::until_ok("the home to listen", || Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1"));
        anyhow::ensure!(client.login(ALICE, &alice.password)?.code == 235);
        let sent = message::numbered(number, ALICE, FRIEND, 2000);
        Ok(client.deliver(ALICE, &[FRIEND], &sent)?.code)
    };
    attempt().is_ok_and(|code| code == 250)
}
