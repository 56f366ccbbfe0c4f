//! Faults: whatever breaks, a message that was answered 250 arrives exactly once, and one that was not is
//! refused or deferred by a proper reply.

mod away;
mod black_hole;
mod broken_disk;
mod certificates;
mod corrupt;
mod cut;
mod full_disk;
mod killed;
mod lmtp;
mod slow_peer;
mod steps;
mod syncs;

use gatepost_tests::client::load::{Load, OnFailure, Outcome, PerConnection};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

const ALICE: &str = "alice@example.org";
const STRANGER: &str = "stranger@world.example";
const FRIEND: &str = "friend@elsewhere.example";

fn started(options: &Options) -> Pair {
    Pair::start(options).expect("the pair starts")
}

/// Numbered messages from the world to Alice that go on whatever happens.
fn load(pair: &Pair, first: u64, messages: u64) -> Load {
    Load {
        address: pair.edge().doors.smtp,
        sessions: 8,
        first,
        messages,
        octets: 4096,
        from: STRANGER.to_owned(),
        to: ALICE.to_owned(),
        tls: None,
        per_connection: PerConnection::Many,
        on_failure: OnFailure::GoOn,
    }
}

/// Waits until every message that was answered 250 lies in the Maildir and nothing is on its way any
/// more; then none may be doubled, and none may be there that was refused.
fn expect_exactly_once(pair: &mut Pair, outcome: &Outcome) {
    pair.wait_until_up();
    let maildir = pair.maildir(ALICE);
    observe::until_ok("every accepted message", || {
        let found = message::numbers(&maildir)?;
        let missing: Vec<&u64> = outcome.accepted.iter().filter(|number| !found.contains(number)).collect();
        anyhow::ensure!(
            missing.is_empty(),
            "{} are missing, the first: {:?}",
            missing.len(),
            &missing[..missing.len().min(20)]
        );
        Ok(())
    });
    settled(pair);
    let found = message::numbers(&maildir).expect("every body whole");
    let twice: Vec<&u64> = found.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    assert!(twice.is_empty(), "delivered twice: {twice:?}");
    for number in &found {
        let known = outcome.accepted.contains(number) || outcome.unknown.contains(number);
        assert!(known, "number {number} was refused, and yet it is there: {:?}", outcome.refused);
    }
    for (number, reply) in &outcome.refused {
        let proper = reply.starts_with('4') || reply.starts_with('5') || reply.contains("connection broke");
        assert!(proper, "number {number}: {reply:?} is no refusal");
    }
}

/// Waits until nothing is spooled at the edge.
fn settled(pair: &Pair) {
    observe::until_ok("the spool to be empty", || {
        let waiting = pair.spooled()?;
        anyhow::ensure!(waiting == 0, "{waiting} messages");
        Ok(())
    });
}
