//! Keys decide who talks to whom, and each refusal is one clear line on both sides.

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::Program;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_delivered, pair};

/// Replaces a text in a config that must hold it.
fn edit(program: &Program, from: &str, to: &str) {
    let text = std::fs::read_to_string(&program.config).expect("readable");
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(&program.config, text.replace(from, to)).expect("written");
}

fn key(program: &Program) -> String {
    program.ask(&["key"]).expect("a key").trim().to_owned()
}

/// The key of somebody else.
fn strange_key(pair: &Pair) -> String {
    let mut program = Program::new("strange", &pair.edge().program.binary, pair.directory(), None, &[]);
    program.config.clone_from(&pair.edge().program.config);
    key(&program)
}

fn expect_said(program: &Program, words: &[&str]) {
    let what = format!("{} to say {words:?} in one line", program.name);
    observe::until(
        &what,
        || program.said(),
        |said| said.lines().any(|line| words.iter().all(|word| line.contains(word))),
    );
}

#[test]
fn an_edge_with_another_key_than_the_home_expects_is_refused() {
    let mut pair = Pair::prepare(&Options::story()).expect("prepared");
    let (own, strange) = (key(&pair.edge().program), strange_key(&pair));
    edit(&pair.home.program, &own, &strange);
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    expect_said(&pair.home.program, &["wrong key", &strange, &own]);
    expect_said(&pair.edge().program, &["wrong key", &strange, &own]);
    // Corrected, it connects.
    pair.home.program.kill();
    edit(&pair.home.program, &strange, &own);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
}

#[test]
fn a_home_the_edge_does_not_know_is_refused() {
    let mut pair = Pair::prepare(&Options::story()).expect("prepared");
    let (own, strange) = (key(&pair.home.program), strange_key(&pair));
    edit(&pair.edge().program, &own, &strange);
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    expect_said(&pair.edge().program, &["not paired", &own]);
    expect_said(&pair.home.program, &["not paired"]);
    assert!(pair.home.program.ask(&["status"]).expect("status").contains("not connected"));
}

#[test]
fn the_newest_session_wins_and_the_older_is_told() {
    let pair = pair();
    // The same home once more, as after a restore from a backup while the old one still runs.
    let copy = pair.directory().join("home-copy");
    copy_directory(&pair.home.program.state, &copy);
    let mut newer = Program::new("newer", &pair.home.program.binary, pair.directory(), Some(&copy), &[]);
    let config = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    let doors = [pair.home.submissions, pair.home.imaps].map(|door| format!("\"{door}\""));
    assert!(doors.iter().all(|door| config.contains(door)), "{config}");
    let shut = doors.iter().fold(config, |config, door| config.replace(door, "\"off\""));
    std::fs::write(&newer.config, shut).expect("written");
    newer.start().expect("started");
    let words = "replaced by a newer session; if this happens again and again, two homes have the same key";
    expect_said(&pair.home.program, &[words]);
    expect_said(&pair.edge().program, &["home disconnected", "home=\"cottage\"", words]);
    newer.kill();
}

#[test]
fn with_two_edges_mail_comes_by_either_and_goes_by_the_one_that_is_up() {
    let mut options = Options::story().home_set("queue.retry=[\"1 s\"]");
    options.edges = 2;
    let mut pair = super::started(&options);
    for (number, edge) in [(1, 0), (2, 1)] {
        let mut client = gatepost_tests::client::Client::greeted(pair.edges[edge].doors.smtp).expect("greeted");
        let sent = message::numbered(number, STRANGER, ALICE, 1000);
        assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
    }
    expect_delivered(&pair, ALICE, &[1, 2]);
    pair.edge_mut().program.kill();
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let door = pair.edges[1].doors.submissions;
    let mut client = gatepost_tests::client::Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let sent = message::numbered(3, ALICE, "friend@elsewhere.example", 1000);
    assert_eq!(client.deliver(ALICE, &["friend@elsewhere.example"], &sent).expect("answered").code, 250);
    super::expect_in_sink(&pair, &[3]);
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("known");
        if kind.is_dir() {
            copy_directory(&path, &target);
        } else if kind.is_file() {
            match std::fs::copy(&path, &target) {
                // The home runs on: a temporary file may have got its name since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
}
