//! Programs of the home's own machine: the sendmail command as cron, PHP, scripts and `mail` call it, also while
//! the home does not run.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::program::said;
use gatepost_tests::peers::{self, local};
use gatepost_tests::world::message;

use super::{ALICE, BOB, expect_delivered, expect_in_sink, fields, only_message, pair, values};

const FRIEND: &str = "friend@elsewhere.example";

/// Runs `gatepost-home send` with these words and this on stdin.
fn send(pair: &Pair, words: &[&str], text: &[u8]) -> Output {
    let mut command = pair.home.program.cli(&["send"]);
    command.args(words);
    local::fed(command, text).expect("it runs")
}

fn sent(pair: &Pair, words: &[&str], text: &[u8]) {
    let output = send(pair, words, text);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
}

fn drop_of(pair: &Pair) -> PathBuf {
    pair.home.program.state.join("drop")
}

/// Letters that wait.
fn waiting(pair: &Pair) -> Vec<PathBuf> {
    let entries = fs::read_dir(drop_of(pair)).expect("the drop").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|is| is != "tmp")).collect()
}

#[test]
fn crons_mail_to_root_comes_to_the_postmaster() {
    let pair = pair();
    // As vixie cron does it: LF line ends, bare names.
    let text = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@pi> backup\nContent-Type: text/plain; \
                charset=UTF-8\nX-Cron-Env: <SHELL=/bin/sh>\n\ndone: 1\n.hidden\n";
    sent(&pair, &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"], text.as_bytes());
    // While the home runs, its answer is the command's: no waiting.
    let stored = only_message(&pair, ALICE);
    let header = fields(&stored);
    assert_eq!(values(&header, "From"), ["\"Cron Daemon\" <root@example.org>"]);
    assert_eq!(values(&header, "To"), ["<root@example.org>"]);
    assert_eq!((values(&header, "Date").len(), values(&header, "Message-ID").len()), (1, 1), "{header:?}");
    assert!(stored.ends_with("\n\ndone: 1\n.hidden\n"), "{stored}");
    assert!(waiting(&pair).iter().all(|path| path.ends_with("damaged")), "{:?}", waiting(&pair));
}

#[test]
fn mail_to_a_local_name_goes_where_its_alias_says() {
    let pair = pair();
    pair.home.program.ask(&["alias", "add", "root", BOB]).expect("an alias");
    sent(&pair, &["-i", "root"], b"To: root\nSubject: to bob\n\nHi\n");
    expect_only(&pair, BOB, 1);
    expect_only(&pair, ALICE, 0);
}

#[test]
fn php_and_scripts_name_their_recipients_in_the_header() {
    let pair = pair();
    let numbered = String::from_utf8(message::numbered(1, "www-data@example.org", FRIEND, 2000)).expect("text");
    let text = format!("Bcc: {BOB}\n{}", numbered.replace("\r\n", "\n"));
    sent(&pair, &["-t", "-i", "-f", "www-data"], text.as_bytes());
    expect_in_sink(&pair, &[1]);
    expect_delivered(&pair, BOB, &[1]);
    let envelopes = pair.sink.envelopes().expect("readable");
    assert_eq!(
        (envelopes[0].sender.as_str(), &envelopes[0].recipients[..]),
        ("www-data@example.org", &[FRIEND.to_owned()][..])
    );
    let out = String::from_utf8(pair.sink.message(&envelopes[0]).expect("readable")).expect("text");
    assert!(!out.contains(BOB), "a blind copy is blind: {out}");
}

#[test]
fn a_dot_alone_ends_the_text_unless_it_is_told_not_to() {
    let pair = pair();
    sent(&pair, &["-f", ALICE, "bob"], b"Subject: one\n\nfirst\n.\nRCPT TO:<x@y.z>\n");
    let stored = only_message(&pair, BOB);
    assert!(stored.ends_with("\n\nfirst\n"), "{stored}");
    sent(&pair, &["-oi", "-f", ALICE, "alice"], b"no header at all\n.\nlast, without an end");
    let stored = only_message(&pair, ALICE);
    assert!(stored.ends_with("\n\nno header at all\n.\nlast, without an end\n"), "{stored}");
}

#[test]
fn exit_codes_say_what_callers_ask() {
    let pair = pair();
    let text = b"Subject: x\n\nHi\n";
    for (words, code, says) in [
        (&[][..], 64, "no recipients"),
        (&["-t"], 64, "no recipients"),
        (&["-bd"], 64, "not offered"),
        (&["-Z", "alice"], 64, "unknown flag"),
        (&["a b c"], 65, "no address"),
        (&["nobody@example.org"], 67, "550 5.1.1"),
        (&["-f", "stranger@example.com", "alice"], 77, "trusted_senders"),
        (&["--help"], 0, ""),
        (&["-q"], 0, ""),
        (&["-bi"], 0, ""),
        (&["-bp"], 0, ""),
        (&["-v", "alice"], 0, ""),
    ] {
        let output = send(&pair, words, text);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{words:?}: {}", said(&output));
    }
    let nowhere = tempfile::tempdir().expect("a directory");
    let output = send(&pair, &["--state", &nowhere.path().join("none").display().to_string(), "alice"], text);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    // What was refused is not sent later.
    expect_only(&pair, ALICE, 1);
}

fn expect_only(pair: &Pair, address: &str, count: usize) {
    assert_eq!(message::files(&pair.maildir(address)).len(), count);
}

#[test]
fn mail_left_while_the_home_is_down_is_taken_once_when_it_is_back() {
    let mut pair = pair();
    pair.home.program.stop().expect("stopped");
    let text = |number| message::numbered(number, ALICE, BOB, 3000);
    sent(&pair, &["-i", "-f", ALICE, "bob", FRIEND], &text(1));
    // Nobody can say so yet: who does not exist comes back to the sender.
    sent(&pair, &["-i", "-f", ALICE, "nobody@example.org", "bob"], &text(2));
    let copies: Vec<(PathBuf, Vec<u8>)> = waiting(&pair)
        .into_iter()
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).expect("readable")))
        .collect();
    assert_eq!(copies.len(), 2);
    pair.home.program.start().expect("started");
    expect_delivered(&pair, BOB, &[1, 2]);
    let report = only_message(&pair, ALICE);
    assert!(report.contains("Final-Recipient: rfc822; nobody@example.org"), "{report}");
    expect_in_sink(&pair, &[1]);
    // A crash between taking and removing: the same letters lie there again, and are known.
    for (path, bytes) in &copies {
        observe::until("the letter to be gone", || path.exists(), |there| !there);
        let draft = path.with_extension("tmp");
        fs::write(&draft, bytes).expect("written");
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o640)).expect("set");
        rustix::fs::rename(&draft, path).expect("left again");
    }
    for (path, _) in &copies {
        observe::until("the letter to be gone again", || path.exists(), |there| !there);
    }
    expect_delivered(&pair, BOB, &[1, 2]);
    expect_in_sink(&pair, &[1]);
    expect_only(&pair, ALICE, 1);
}

#[test]
fn what_is_no_letter_is_set_aside_and_harms_nobody() {
    let pair = pair();
    let folder = drop_of(&pair);
    let name = |digit: &str| folder.join(format!("{}.mail", digit.repeat(32)));
    // A link to a secret, garbage, and a head that asks for more than may be.
    symlink(pair.home.program.state.join("keys/identity.pem"), name("1")).expect("linked");
    let leave = |path: &Path, bytes: &[u8]| {
        fs::write(path.with_extension("tmp"), bytes).expect("written");
        rustix::fs::rename(path.with_extension("tmp"), path).expect("left");
    };
    leave(&name("2"), b"garbage");
    // Bare line ends that would be another message at another host.
    let head = format!(r#"{{"version":1,"sender":"{ALICE}","recipients":["{FRIEND}"]}}"#);
    leave(&name("3"), format!("{head}\nSubject: x\r\n\r\nHi\n.\nMAIL FROM:<>\r\n").as_bytes());
    for digit in ["1", "2"] {
        let aside = folder.join("damaged").join(format!("{}.mail", digit.repeat(32)));
        observe::until("it to be set aside", || fs::symlink_metadata(&aside).is_ok(), |there| *there);
    }
    let report = only_message(&pair, ALICE);
    assert!(report.contains("bare CR or LF"), "{report}");
    sent(&pair, &["-f", ALICE, "bob"], b"Subject: still here\n\nHi\n");
    expect_only(&pair, BOB, 1);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}

#[test]
fn called_sendmail_it_is_sendmail() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    let link = |name: &str| {
        let path = scratch.path().join(name);
        symlink(&pair.home.program.binary, &path).expect("linked");
        let mut command = Command::new(path);
        command.arg("--config").arg(&pair.home.program.config).arg("--state").arg(&pair.home.program.state);
        command
    };
    let mut sendmail = link("sendmail");
    sendmail.args(["-i", "-f", ALICE, "bob"]);
    let output = local::fed(sendmail, &message::numbered(1, ALICE, BOB, 900)).expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    expect_delivered(&pair, BOB, &[1]);
    let queue = link("mailq").output().expect("it runs");
    assert!(said(&queue).contains("The queue is empty"), "{}", said(&queue));
    assert!(link("newaliases").output().expect("it runs").status.success());
}

#[test]
fn smtp_on_stdin_is_the_same_smtp() {
    let pair = pair();
    let mut dialog =
        b"EHLO localhost\r\nMAIL FROM:<root>\r\nRCPT TO:<bob>\r\nRCPT TO:<friend@elsewhere.example>\r\nDATA\r\n"
            .to_vec();
    dialog.extend(message::stuffed(&message::numbered(1, "root@example.org", FRIEND, 900)));
    dialog.extend(
        b"MAIL FROM:<x@example.com>\r\nRCPT TO:<bob>\r\nDATA\r\nFrom: x@example.com\r\n\r\nHi\r\n.\r\nQUIT\r\n",
    );
    // One command at a time: those that end a pipeline must be its last.
    let output = local::dialog(pair.home.program.cli(&["send", "-bs"]), &dialog).expect("it runs");
    let codes: Vec<&str> =
        output.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect();
    assert_eq!(codes, ["220", "250", "250", "250", "250", "354", "250", "250", "250", "354", "550", "221"], "{output}");
    expect_delivered(&pair, BOB, &[1]);
    expect_in_sink(&pair, &[1]);
}

#[test]
fn mailx_sends_through_it() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    let sendmail = local::sendmail_script(scratch.path(), &pair.home.program).expect("a script");
    let output = local::mailx(&sendmail, &["-s", "disk nearly full", "root", FRIEND], b"90%\n").expect("mailx runs");
    assert!(output.status.success(), "{}", said(&output));
    let stored = observe::until("the mail", || message::files(&pair.maildir(ALICE)), |files| files.len() == 1);
    let text = fs::read_to_string(&stored[0]).expect("readable");
    assert!(text.contains("Subject: disk nearly full") && text.contains("\r\n\r\n90%"), "{text}");
    observe::until("it at the friend's", || pair.sink.envelopes().expect("readable"), |all| all.len() == 1);
}

/// The drop's modes are what keeps users apart: another user may leave mail, and can neither list nor read it.
#[test]
fn another_user_may_leave_mail_and_read_none() {
    let pair = pair();
    local::let_in(&pair.home.program.state, pair.directory(), &drop_of(&pair)).expect("modes as in the README");
    let binary = local::copy_for_others(&pair.home.program.binary).expect("a copy");
    let mut command = local::as_nobody(&binary.path().join("gatepost-home"));
    command.args(["--config", "/nonexistent", "--state"]).arg(&pair.home.program.state);
    command.args(["send", "-f", "www-data", "bob"]);
    let output = local::fed(command, b"Subject: from nobody\n\nHi\n").expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    observe::until("the mail", || message::files(&pair.maildir(BOB)), |files| files.len() == 1);
    for looks in [
        vec!["ls".to_owned(), drop_of(&pair).display().to_string()],
        vec!["cat".to_owned(), pair.home.program.state.join("home.db").display().to_string()],
    ] {
        let mut command = local::as_nobody(&peers::program(&looks[0]));
        let output = peers::output(command.args(&looks[1..])).expect("it runs");
        assert!(!output.status.success(), "{looks:?}: {}", said(&output));
    }
}
