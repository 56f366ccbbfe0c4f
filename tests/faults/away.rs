//! The home is away while many write: all of it waits, sealed, and comes when the home is back, beside
//! the mail of that moment.

use std::time::Duration;

use gatepost_tests::client::load::{Control, PerConnection};
use gatepost_tests::observe;
use gatepost_tests::pair::options::Options;

use super::{expect_exactly_once, load, started};

#[test]
fn two_hundred_senders_at_once_are_all_taken_while_the_home_is_away() {
    let options = Options::story().edge_set("limits.connections=300").edge_set("limits.connections_per_address=300");
    let mut pair = started(&options);
    pair.home.program.kill();
    pair.wait_until_down();
    let mut load = load(&pair, 1, 200);
    (load.sessions, load.per_connection) = (200, PerConnection::One);
    let outcome = load.run().expect("the load runs");
    assert_eq!((outcome.accepted.len(), outcome.refused.len()), (200, 0), "{:?}", outcome.refused);
    pair.home.program.start().expect("started");
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
#[ignore = "takes minutes; tests/run --long runs it"]
fn ten_thousand_sealed_messages_come_home_beside_the_mail_of_the_moment() {
    sealed_drain_beside_live_mail(10_000);
}

#[test]
fn sealed_messages_come_home_beside_the_mail_of_the_moment() {
    sealed_drain_beside_live_mail(500);
}

fn sealed_drain_beside_live_mail(sealed: u64) {
    let mut pair = started(&Options::story());
    pair.home.program.kill();
    pair.wait_until_down();
    let mut outcome = load(&pair, 1, sealed).run().expect("the load runs");
    assert_eq!(outcome.accepted.len() as u64, sealed, "{:?}", outcome.refused);
    assert_eq!(pair.spooled().expect("status"), sealed);
    let (control, live) = (Control::default(), load(&pair, sealed + 1, u64::MAX / 2));
    let arrived = std::thread::scope(|scope| {
        let running = scope.spawn(|| live.run_controlled(&control));
        pair.home.program.start().expect("started");
        observe::until_within(
            Duration::from_mins(5),
            "the spool to be drained",
            || pair.spooled().unwrap_or(u64::MAX),
            // What is sealed of the live mail before the home is back counts too.
            |left| *left == 0,
        );
        let so_far = control.accepted();
        observe::until("live mail to flow on", || control.accepted(), |accepted| *accepted > so_far + 50);
        control.stop();
        running.join().expect("the load does not panic").expect("the load runs")
    });
    assert!(arrived.refused.is_empty(), "{:?}", arrived.refused);
    outcome.accepted.extend(arrived.accepted);
    outcome.unknown.extend(arrived.unknown);
    expect_exactly_once(&mut pair, &outcome);
}
