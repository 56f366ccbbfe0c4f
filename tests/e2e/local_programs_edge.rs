//! Programs of the rented server itself, cron and root: their mail goes to the postmaster at home, sealed before it
//! touches the disk, whether the edge runs or not.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::program::said;
use gatepost_tests::peers::local;
use gatepost_tests::world::message;

use super::{ALICE, BOB, expect_delivered, fields, only_message, pair, values};

fn send(pair: &Pair, words: &[&str], text: &[u8]) -> Output {
    let mut command = pair.edge().program.cli(&["send"]);
    command.args(words);
    local::fed(command, text).expect("it runs")
}

fn sent(pair: &Pair, words: &[&str], text: &[u8]) {
    let output = send(pair, words, text);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
}

/// Waits until the edge tells its programs whom to seal to.
fn wait_for_notice(pair: &Pair) {
    let notice = pair.edge().program.state.join("drop/homes");
    observe::until(
        "the home's key in the notice",
        || fs::read_to_string(&notice).unwrap_or_default(),
        |text| text.contains("\"cottage\""),
    );
}

fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(everything_below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn the_servers_own_mail_comes_to_the_postmaster_whoever_it_is_for() {
    let mut pair = pair();
    wait_for_notice(&pair);
    // What is sealed is fetched every half minute, or at once by a home that comes back.
    pair.home.program.stop().expect("stopped");
    let text = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@vps> apt\n\n3 updates\n.more\n";
    sent(&pair, &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root", "admin@elsewhere.example"], text.as_bytes());
    observe::until("it in the spool", || pair.spooled().expect("told"), |count| *count == 1);
    pair.home.program.start().expect("started");
    let stored = only_message(&pair, ALICE);
    let header = fields(&stored);
    assert_eq!(values(&header, "X-Original-To"), ["postmaster@example.org", "root", "admin@elsewhere.example"]);
    assert_eq!((values(&header, "Date").len(), values(&header, "Message-ID").len()), (1, 1), "{header:?}");
    assert!(stored.ends_with("\n\n3 updates\n.more\n"), "{stored}");
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}

#[test]
fn words_that_are_no_text_are_refused_on_both_machines() {
    let pair = pair();
    wait_for_notice(&pair);
    for program in [&pair.edge().program, &pair.home.program] {
        let mut command = program.cli(&["send"]);
        command.arg("-i").arg(OsString::from_vec(b"r\xffot".to_vec()));
        let output = local::fed(command, b"Subject: x\n\nHi\n").expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains("is not UTF-8"), "{}", said(&output));
    }
}

#[test]
fn while_the_edge_is_down_its_mail_waits_sealed_and_comes_once() {
    let mut pair = pair();
    wait_for_notice(&pair);
    pair.edge_mut().program.stop().expect("stopped");
    let sent_text = message::numbered(1, ALICE, BOB, 200_000);
    sent(&pair, &["-i", "root"], &sent_text);
    // Nobody who takes the disk reads it.
    let secret = &sent_text[sent_text.len() - 100..sent_text.len() - 60];
    for file in everything_below(&pair.edge().program.state) {
        let bytes = fs::read(&file).expect("readable");
        assert!(!bytes.windows(secret.len()).any(|found| found == secret), "{} holds it", file.display());
    }
    let letters = |pair: &Pair| -> Vec<PathBuf> {
        let all = everything_below(&pair.edge().program.state.join("drop"));
        all.into_iter().filter(|path| path.extension().is_some_and(|is| is == "mail")).collect()
    };
    let [letter] = letters(&pair).try_into().expect("one letter");
    let bytes = fs::read(&letter).expect("readable");
    pair.edge_mut().program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1]);
    observe::until("the letter to be gone", || letters(&pair), Vec::is_empty);
    // A crash between taking and removing: it lies there again, and the home knows it.
    pair.home.program.stop().expect("stopped");
    fs::write(letter.with_extension("tmp"), bytes).expect("written");
    rustix::fs::rename(letter.with_extension("tmp"), &letter).expect("left again");
    observe::until("it in the spool again", || pair.spooled().expect("told"), |count| *count == 1);
    pair.home.program.start().expect("started");
    observe::until("the spool to be empty", || pair.spooled().expect("told"), |count| *count == 0);
    expect_delivered(&pair, ALICE, &[1]);
}

#[test]
fn what_can_not_be_sealed_is_not_kept() {
    let mut pair = pair();
    wait_for_notice(&pair);
    let text = b"Subject: x\n\nHi\n";
    for (words, code, says) in [
        (&[][..], 64, "no recipients"),
        (&["-Z"], 64, "unknown flag"),
        (&["--home", "cabin", "root"], 78, "cabin"),
        (&["-bs"], 69, "not offered"),
        (&["-f", "a b", "root"], 65, "a b"),
        (&["--help"], 0, "postmaster"),
        (&["-bp"], 0, ""),
        (&["-q"], 0, ""),
    ] {
        let output = send(&pair, words, text);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{words:?}: {}", said(&output));
    }
    // Without a key of the home's there is nothing to seal to, and so nothing is kept.
    pair.edge_mut().program.stop().expect("stopped");
    let drop = pair.edge().program.state.join("drop");
    fs::remove_file(drop.join("homes")).expect("removed");
    let output = send(&pair, &["root"], text);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(everything_below(&drop).is_empty());
    // Garbage is set aside, and harms nobody.
    let name = "1".repeat(32);
    fs::write(drop.join(format!("{name}.mail")), "garbage").expect("written");
    pair.edge_mut().program.start().expect("started");
    let aside = drop.join("damaged").join(format!("{name}.mail"));
    observe::until("it to be set aside", || aside.exists(), |there| *there);
    assert_eq!(pair.spooled().expect("told"), 0);
}

#[test]
fn one_user_sends_no_flood() {
    let mut pair =
        super::started(&gatepost_tests::pair::options::Options::story().edge_set("limits.local_messages_per_hour=2"));
    wait_for_notice(&pair);
    pair.home.program.stop().expect("stopped");
    for number in 1..=3 {
        sent(&pair, &["-i", "root"], &message::numbered(number, ALICE, ALICE, 900));
    }
    observe::until(
        "the third to wait",
        || pair.edge().program.said(),
        |log| log.contains("has sent enough for an hour"),
    );
    observe::until("the others in the spool", || pair.spooled().expect("told"), |count| *count == 2);
}
