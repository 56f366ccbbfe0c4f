//! A server of mailboxes that dies, hangs, lies, is gone, and a home that dies while it delivers there: what was
//! answered 250 is stored, and twice only where the log says that nobody can know (RFC 1047).

use std::path::Path;

use gatepost_runtime::durable;
use gatepost_tests::client::Client;
use gatepost_tests::client::load::{Control, Load};
use gatepost_tests::fault::lying_lmtp::{LyingLmtp, Mood};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::dovecot::Keeper;
use gatepost_tests::world::message;

use super::steps::{Victim, sweep};
use super::{ALICE, STRANGER, load, settled, started};

const BOB: &str = "bob@example.org";
/// A reply line far beyond what a server may send (RFC 5321 §4.5.3.1.5: 512 octets).
const ENDLESS: &[u8] = &[b'2'; 64 * 1024];
const NONSENSE: &[u8] = b"bananas\r\n\0\xff\r\n250\r\n";

fn keeper() -> Keeper {
    Keeper::start(&[(ALICE, None)]).expect("Dovecot")
}

fn kept_by(setting: &str) -> Pair {
    let mut options = Options::story().home_set(setting).home_set("queue.retry=[\"200 ms\"]");
    options.accounts =
        [ALICE, BOB].map(|address| (address.to_owned(), "a password of some length".to_owned())).to_vec();
    started(&options.edge_set("limits.home_wait=3 s"))
}

/// What the sender of a message of this many octets hears.
fn code(pair: &Pair, number: u64, recipients: &[&str], octets: usize) -> u16 {
    let attempt = || -> anyhow::Result<u16> {
        let mut client = Client::greeted(pair.edge().doors.smtp)?;
        Ok(client.deliver(STRANGER, recipients, &message::numbered(number, STRANGER, ALICE, octets))?.code)
    };
    attempt().unwrap_or(0)
}

fn send(pair: &Pair, number: u64) -> bool {
    code(pair, number, &[ALICE], 4096) == 250
}

/// Everything accepted is stored, and no more of it twice than was told.
fn expect_kept(pair: &mut Pair, maildir: &Path, accepted: &[u64]) {
    pair.wait_until_up();
    settled(pair);
    observe::until_ok("nothing to wait any more", || {
        let queued = pair.home.program.ask(&["queue", "list"])?;
        anyhow::ensure!(pair.queued()? == 0, "{}", queued.lines().take(5).collect::<Vec<_>>().join("\n"));
        Ok(())
    });
    observe::until_ok("every accepted message", || {
        let found = message::numbers(maildir)?;
        let missing: Vec<&u64> = accepted.iter().filter(|number| !found.contains(number)).collect();
        anyhow::ensure!(missing.is_empty(), "missing: {missing:?}");
        Ok(())
    });
    let found = message::numbers(maildir).expect("every body whole");
    let mut doubles: Vec<u64> = found.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
    doubles.dedup();
    let said = pair.home.program.said();
    let untold: Vec<String> = doubles.iter().filter_map(|number| untold(&said, *number)).collect();
    assert!(untold.is_empty(), "came twice, and nobody was told: {}", untold.join("\n"));
}

/// What the home said of this message, if it said nowhere that it may come twice.
fn untold(said: &str, number: u64) -> Option<String> {
    let names = format!("<{number}.");
    let trace_of = |line: &str| line.split_once("trace=")?.1.split_whitespace().next().map(str::to_owned);
    let traces: Vec<String> = said.lines().filter(|line| line.contains(&names)).filter_map(trace_of).collect();
    let lines: Vec<&str> =
        said.lines().filter(|line| trace_of(line).is_some_and(|trace| traces.contains(&trace))).collect();
    let told = lines.iter().any(|line| line.contains("may deliver twice"));
    (!told).then(|| format!("number {number}:\n{}", lines.join("\n")))
}

#[test]
#[ignore = "takes about a minute; tests/run --long runs it"]
fn a_home_killed_at_each_step_of_a_delivery_by_lmtp_loses_nothing_and_tells_each_doubt() {
    let keeper = keeper();
    let mut pair = kept_by(&keeper.setting());
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Home, |pair, number| {
        // The edge stands behind it: whatever happens at home, the sender hears 250.
        assert!(send(pair, number), "number {number} was not taken");
        accepted.push(number);
    });
    assert!(reached.len() > 2, "{reached:?}");
    expect_kept(&mut pair, &keeper.maildir(ALICE), &accepted);
}

#[test]
#[ignore = "takes about a minute; tests/run --long runs it"]
fn a_home_killed_at_each_step_while_mail_waits_for_a_server_that_is_down_keeps_all_of_it() {
    let mut keeper = keeper();
    let mut pair = kept_by(&keeper.setting());
    keeper.stop();
    let mut accepted = Vec::new();
    let reached = sweep(&mut pair, Victim::Home, |pair, number| {
        assert!(send(pair, number), "number {number} was not taken");
        accepted.push(number);
    });
    for call in ["openat", "fdatasync", "rename"] {
        assert!(reached.iter().any(|step| step.contains(call)), "no kill at {call}: {reached:?}");
    }
    keeper.resume().expect("Dovecot");
    expect_kept(&mut pair, &keeper.maildir(ALICE), &accepted);
}

#[test]
#[ignore = "takes about a minute; tests/run --long runs it"]
fn a_dovecot_stopped_again_and_again_under_load_costs_no_message() {
    let mut keeper = keeper();
    let mut pair = kept_by(&keeper.setting());
    let control = Control::default();
    let load = Load { sessions: 3, ..load(&pair, 1, u64::MAX / 2) };
    let outcome = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run_controlled(&control));
        for _ in 1..=4 {
            let more = |enough: u64| {
                let so_far = control.accepted();
                observe::until("more to be accepted", || control.accepted(), |now| *now >= so_far + enough);
            };
            more(40);
            keeper.stop();
            // Nobody waits for it: mail is taken all the while.
            more(40);
            keeper.resume().expect("Dovecot");
        }
        control.stop();
        running.join().expect("the load does not panic").expect("the load runs")
    });
    assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
    expect_kept(&mut pair, &keeper.maildir(ALICE), &outcome.accepted.iter().copied().collect::<Vec<_>>());
}

#[test]
fn a_socket_that_is_gone_is_waited_for() {
    let keeper = keeper();
    let mut pair = kept_by(&keeper.setting());
    assert!(send(&pair, 1));
    let aside = keeper.lmtp.with_extension("aside");
    durable::rename(&keeper.lmtp, &aside).expect("moved");
    // The connection that is kept still stands; without it there is no way.
    pair.home.program.kill();
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    assert!(send(&pair, 2));
    let status = pair.home.program.ask(&["status"]).expect("a status");
    assert!(status.contains("in trouble") && status.contains("1 message(s) wait for delivery"), "{status}");
    durable::rename(&aside, &keeper.lmtp).expect("moved back");
    expect_kept(&mut pair, &keeper.maildir(ALICE), &[1, 2]);
}

#[test]
fn a_server_that_dies_in_mid_data_has_stored_nothing_and_gets_all_of_it_later() {
    let server = LyingLmtp::start(Mood::DiesInData(20)).expect("a server");
    let mut pair = kept_by(&server.setting());
    // So long that the final dot is never sent: nothing is in doubt.
    assert_eq!(code(&pair, 1, &[ALICE, BOB], 4 << 20), 250, "it is kept here, whatever becomes of the server");
    assert!(server.lies() > 0);
    server.set(Mood::Good);
    for recipient in [ALICE, BOB] {
        expect_kept(&mut pair, &server.maildir(recipient), &[1]);
        assert_eq!(message::numbers(&server.maildir(recipient)).expect("whole"), [1], "once");
    }
}

#[test]
fn a_server_that_answers_for_one_and_dies_costs_the_other_nothing() {
    let server = LyingLmtp::start(Mood::AnswersOne).expect("a server");
    let mut pair = kept_by(&server.setting());
    assert_eq!(code(&pair, 1, &[ALICE, BOB], 4096), 250);
    server.set(Mood::Good);
    expect_kept(&mut pair, &server.maildir(BOB), &[1]);
    assert_eq!(message::numbers(&server.maildir(ALICE)).expect("whole"), [1], "who has it gets it once");
}

#[test]
fn a_server_that_hangs_after_the_dot_keeps_no_sender_waiting_and_loses_nothing() {
    let server = LyingLmtp::start(Mood::Hangs).expect("a server");
    let mut pair = kept_by(&server.setting());
    // The edge waits for its home for a while, and then promises it itself.
    assert_eq!(code(&pair, 1, &[ALICE, BOB], 4096), 250);
    assert_eq!(server.lies(), 1);
    server.set(Mood::Good);
    for recipient in [ALICE, BOB] {
        expect_kept(&mut pair, &server.maildir(recipient), &[1]);
    }
}

/// The server lies once; the sender hears 250 all the same, and everything arrives.
fn lies_once(lie: Mood) {
    let server = LyingLmtp::start(lie).expect("a server");
    let mut pair = kept_by(&server.setting());
    assert_eq!(code(&pair, 1, &[ALICE, BOB], 4096), 250);
    assert!(server.lies() > 0);
    server.set(Mood::Good);
    assert_eq!(code(&pair, 2, &[ALICE, BOB], 4096), 250);
    for recipient in [ALICE, BOB] {
        expect_kept(&mut pair, &server.maildir(recipient), &[1, 2]);
    }
}

#[test]
fn nonsense_for_a_greeting_is_a_server_in_trouble() {
    lies_once(Mood::Greets(NONSENSE));
}

#[test]
fn an_endless_greeting_is_a_server_in_trouble() {
    lies_once(Mood::Greets(ENDLESS));
}

#[test]
fn nonsense_after_the_dot_is_a_doubt_and_told() {
    lies_once(Mood::Says(NONSENSE));
}

#[test]
fn an_endless_line_after_the_dot_is_a_doubt_and_told() {
    lies_once(Mood::Says(ENDLESS));
}

#[test]
fn a_farewell_after_the_dot_is_a_doubt_and_told() {
    lies_once(Mood::Says(b"421 4.3.2 shutting down\r\n"));
}
