//! What people type: listings for people and for programs, kind errors, exit codes.

use std::process::Output;

use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::{Program, said};
use serde_json::Value;

use super::{ALICE, BOB, pair};

fn asked(program: &Program, arguments: &[&str]) -> Output {
    program.cli(arguments).output().expect("it runs")
}

#[test]
fn every_listing_is_there_for_people_and_as_json() {
    let pair = pair();
    let home = &pair.home.program;
    let edge = &pair.edge().program;
    home.ask(&["alias", "add", "team@example.org", ALICE, BOB]).expect("an alias");
    for (program, listing, expected) in [
        (home, &["account", "list"][..], ALICE),
        (home, &["app-password", "list"], ALICE),
        (home, &["alias", "list"], "team@example.org"),
        (home, &["queue", "list"], ""),
        (home, &["spool", "list"], ""),
        (home, &["status"], "edge"),
        (edge, &["status"], "cottage"),
        (edge, &["spool", "list"], ""),
    ] {
        let text = program.ask(listing).expect("a listing");
        assert!(text.contains(expected), "{listing:?}: {text}");
        let json = program.ask_json(&[listing, &["--json"]].concat()).expect("JSON");
        assert!(json.to_string().contains(expected), "{listing:?}: {json:#}");
        assert!(!matches!(json, Value::Null), "{listing:?}");
    }
    for account in &pair.accounts {
        for listing in [&["account", "list", "--json"][..], &["app-password", "list", "--json"]] {
            let text = home.ask(listing).expect("a listing");
            let secret = text.contains(&account.password) || text.contains(&account.submission_password);
            assert!(!secret, "a listing shows a password: {text}");
        }
        let said = home.said() + &edge.said();
        assert!(!said.contains(&account.password), "a log shows a password");
        assert!(!said.contains(&account.submission_password), "a log shows a password");
    }
}

#[test]
fn exit_codes_and_words() {
    let mut pair = Pair::prepare(&Options::story()).expect("prepared");
    for program in [&pair.home.program, &pair.edge().program] {
        let output = asked(program, &["no-such-command"]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let output = asked(program, &["check"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let output = asked(program, &["status"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("not running"), "{}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
        let output = asked(program, &["key"]);
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("gp1"), "{}", said(&output));
    }
    // One state directory, one program.
    pair.home.program.start().expect("started");
    gatepost_tests::observe::until_ok("the home to run", || pair.home.program.ask(&["status"]));
    let output = asked(&pair.home.program, &["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    pair.edge_mut().program.start().expect("started");
    gatepost_tests::observe::until_ok("the edge to run", || pair.edge().program.ask(&["status"]));
    let output = asked(&pair.edge().program, &["run"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    // SIGTERM is the ordinary end.
    assert!(pair.home.program.stop().expect("ended").success());
    assert!(pair.edge_mut().program.stop().expect("ended").success());
}

#[test]
fn what_is_not_there_can_not_be_removed_and_what_is_there_not_added() {
    let pair = pair();
    let home = &pair.home.program;
    for command in [
        &["account", "remove", "nobody@example.org"][..],
        &["alias", "remove", "nobody@example.org"],
        &["app-password", "remove", ALICE, "no-such-name"],
        &["alias", "add", ALICE, BOB],
        &["queue", "show", "00000000000000000000000000000000"],
    ] {
        let output = asked(home, command);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", said(&output));
        assert!(output.stderr.len() > 20, "{command:?} says why: {}", said(&output));
    }
}
