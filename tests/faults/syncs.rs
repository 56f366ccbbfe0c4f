//! Every sync comes before its 250 on the wire, watched from outside by strace, on each path of a message.

use std::path::PathBuf;

use anyhow::Context as _;
use gatepost_tests::client::Client;
use gatepost_tests::fault::strace::{self, Call};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, STRANGER, started};

struct Watched {
    pair: Pair,
    edge_log: PathBuf,
    home_log: PathBuf,
    _scratch: tempfile::TempDir,
}

fn watched() -> Watched {
    let scratch = tempfile::tempdir().expect("a directory");
    let (edge_log, home_log) = (scratch.path().join("edge.strace"), scratch.path().join("home.strace"));
    let mut options = Options::story().home_set("queue.retry=[\"1 s\"]");
    options.edge_wrapper = strace::wrapper(&edge_log);
    options.home_wrapper = strace::wrapper(&home_log);
    Watched { pair: started(&options), edge_log, home_log, _scratch: scratch }
}

/// Calls since the start of a message's data.
fn since(log: &PathBuf, began: f64) -> Vec<Call> {
    strace::read(log).expect("a log").into_iter().filter(|call| call.began >= began).collect()
}

/// The same, and the write that carried the reply: the last one to the client's port. The tracer writes
/// its log a little later than things happen.
fn up_to_reply(log: &PathBuf, port: u16, began: f64) -> (Vec<Call>, Call) {
    observe::until_ok("the reply among the traced calls", || {
        let calls = since(log, began);
        let reply = calls.iter().rfind(|call| call.sends_to(port)).cloned();
        let count = calls.len();
        Ok((calls, reply.with_context(|| format!("{count} calls, none to port {port}"))?))
    })
}

fn now() -> f64 {
    gatepost_runtime::clock::Clock::real().unix().as_secs_f64()
}

/// Sends a message and gives the client's port and the moment its data began.
fn send(client: &mut Client, number: u64, from: &str, to: &str) -> (u16, f64) {
    client.begin(from, &[to]).expect("begun");
    let began = now();
    client.send(&message::stuffed(&message::numbered(number, from, to, 4096))).expect("sent");
    client.expect(250).expect("taken");
    (client.local_port(), began)
}

/// At least one sync of a file whose path holds `part`, all such finished before `reply` began.
fn expect_synced(calls: &[Call], part: &str, reply: &Call) {
    let syncs: Vec<&Call> = calls.iter().filter(|call| call.is_sync() && call.names(part)).collect();
    let before: Vec<&&Call> = syncs.iter().filter(|call| call.ended <= reply.began).collect();
    assert!(!before.is_empty(), "nothing with {part:?} was synced before {reply:?}; calls:\n{calls:#?}");
}

#[test]
fn inbound_is_in_the_maildir_before_its_250() {
    let watched = watched();
    let mut client = Client::greeted(watched.pair.edge().doors.smtp).expect("greeted");
    let (port, began) = send(&mut client, 1, STRANGER, ALICE);
    let (_, reply) = up_to_reply(&watched.edge_log, port, began);
    assert!(reply.names("250 2"), "{reply:?}");
    // The sync of the names comes last; when it is in the log, so is all that came before it.
    let calls = observe::until(
        "the home's syncs",
        || since(&watched.home_log, began),
        |calls| calls.iter().any(|call| call.is_sync() && call.names("/new>")),
    );
    // The file by its name in tmp, the names by their directory.
    expect_synced(&calls, "/tmp/", &reply);
    expect_synced(&calls, "/new>", &reply);
    let renamed = calls.iter().find(|call| call.name.starts_with("rename") && call.names("/new"));
    let renamed = renamed.expect("a rename into new");
    let file = calls.iter().find(|call| call.is_sync() && call.names("/tmp/")).expect("checked above");
    let names = calls.iter().rfind(|call| call.is_sync() && call.names("/new>") && call.ended <= reply.began);
    assert!(file.ended <= renamed.began, "renamed before it was synced: {file:?} {renamed:?}");
    assert!(names.expect("checked above").began >= renamed.ended, "the directory was synced before the rename");
    // And the intent before the rename.
    let intent = calls.iter().find(|call| call.is_sync() && call.names("home.db"));
    assert!(intent.is_some_and(|intent| intent.ended <= renamed.began), "no intent before the rename: {calls:#?}");
}

#[test]
fn a_sealed_message_is_in_the_spool_before_its_250() {
    let mut watched = watched();
    watched.pair.home.program.kill();
    watched.pair.wait_until_down();
    let mut client = Client::greeted(watched.pair.edge().doors.smtp).expect("greeted");
    let (port, began) = send(&mut client, 1, STRANGER, ALICE);
    let (calls, reply) = up_to_reply(&watched.edge_log, port, began);
    assert!(reply.names("250 2"), "{reply:?}");
    let syncs = calls.iter().filter(|call| call.is_sync() && call.names("spool") && call.ended <= reply.began).count();
    assert!(syncs >= 2, "the file and its directory: {calls:#?}");
    let late = calls.iter().find(|call| call.is_sync() && call.ended > reply.began && call.began < reply.began);
    assert!(late.is_none(), "a sync was still under way: {late:?}");
}

#[test]
fn a_submission_is_in_the_queue_before_its_250_at_either_door() {
    let watched = watched();
    let pair = &watched.pair;
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    for (server, password, log) in [
        (pair.home.submissions, &alice.password, &watched.home_log),
        (pair.edge().doors.submissions, &alice.submission_password, &watched.edge_log),
    ] {
        let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
        assert_eq!(client.login(ALICE, password).expect("answered").code, 235);
        let (port, began) = send(&mut client, 1, ALICE, FRIEND);
        let (_, reply) = up_to_reply(log, port, began);
        let calls = observe::until(
            "the home's syncs",
            || since(&watched.home_log, began),
            |calls| calls.iter().any(|call| call.is_sync() && call.names("/queue>")),
        );
        expect_synced(&calls, "/queue/", &reply);
        expect_synced(&calls, "/queue>", &reply);
    }
}

#[test]
fn an_attempt_is_noted_before_its_final_dot_and_its_reply_after() {
    let watched = watched();
    let pair = &watched.pair;
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    let (_, began) = send(&mut client, 1, ALICE, FRIEND);
    observe::until_delivered(pair.sink.maildir(), &[1]);
    let (calls, last) = up_to_reply(&watched.edge_log, pair.sink.address().port(), began);
    let noted = calls.iter().find(|call| call.is_sync() && call.names("attempts")).expect("waited for");
    // The last write to the sink is QUIT or the final dot; either way the note was durable before it.
    assert!(noted.ended <= last.began, "{noted:?} {last:?}");
}
