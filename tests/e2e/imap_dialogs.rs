//! The dialogs in `tests/dialogs/*.imap`, the same with our server and with Dovecot. A difference stands in the script,
//! with the rule by which both may.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gatepost_tests::client::imap::{Answer, Imap};
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::dovecot::Dovecot;

use super::{ALICE, started};

/// Messages of each dialog's folder: name of the file in `cur`, and what is in it.
const MESSAGES: [(&str, &str); 3] = [
    (
        "1000000001.a.example:2,S",
        "Date: Mon, 2 Mar 2026 10:00:00 +0100\r\nFrom: Ann <ann@example.net>\r\nTo: bob@example.org, carol@example.org\r\n\
         Subject: first\r\nMessage-ID: <1@example.net>\r\n\r\nhello\r\n",
    ),
    ("1000000002.b.example:2,F", "From: ben@example.net\r\nSubject: two\r\n\r\nsecond\r\n"),
    (
        "1000000003.c.example:2,",
        "From: cleo@example.net\r\nSubject: third\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\u{fc}n \r\n\r\n--b\r\n\
         Content-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAABBBB\r\n--b--\r\n",
    ),
];

/// One dialog of a script.
struct Dialog {
    place: String,
    folder: String,
    exchanges: Vec<Exchange>,
}

/// A command and what must come; each line with the server it is for, if it is for one only.
struct Exchange {
    line: usize,
    command: String,
    expected: Vec<(Option<String>, String)>,
}

fn dialogs() -> Vec<Dialog> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs");
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(folder).expect("scripts").map(|entry| entry.expect("a script").path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|kind| kind == "imap"));
    scripts.sort();
    let mut dialogs = Vec::new();
    for script in scripts {
        let name = script.file_name().expect("a name").to_string_lossy().into_owned();
        for (number, line) in fs::read_to_string(&script).expect("readable").lines().enumerate() {
            read(&mut dialogs, &name, number + 1, line);
        }
    }
    dialogs
}

fn read(dialogs: &mut Vec<Dialog>, script: &str, number: usize, line: &str) {
    if line.is_empty() || line.starts_with('#') {
        return;
    }
    if let Some(name) = line.strip_prefix("== ") {
        let folder = format!("D{}", dialogs.len());
        dialogs.push(Dialog { place: format!("{script}: {name}"), folder, exchanges: Vec::new() });
        return;
    }
    let dialog = dialogs.last_mut().expect("a dialog begins with its name");
    let with_folder = |text: &str| text.replace("$F", &dialog.folder);
    if let Some(command) = line.strip_prefix("C: ") {
        let command = with_folder(command);
        dialog.exchanges.push(Exchange { line: number, command, expected: Vec::new() });
        return;
    }
    let (who, text) = line.strip_prefix('S').and_then(|rest| rest.split_once(": ")).expect("C: or S:");
    let only = who.strip_prefix('/').map(str::to_owned);
    let (text, rule) = text.split_once("   # ").map_or((text, None), |(text, rule)| (text, Some(rule)));
    assert!(
        only.as_deref() != Some("gatepost") || rule.is_some_and(|rule| rule.starts_with("RFC ")),
        "{script}:{number}: by which rule?"
    );
    let text = with_folder(text);
    dialog.exchanges.last_mut().expect("a command first").expected.push((only, text));
}

/// Whether a text fits a pattern in which `…` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(before) = last.replace(part) {
            let Some(at) = rest.find(before) else { return false };
            rest = &rest[at + before.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last: &str| rest.ends_with(last))
}

/// What of an exchange did not come as it must.
fn missing(server: &str, exchange: &Exchange, answer: &Answer) -> Vec<String> {
    let mut expected: Vec<&str> = Vec::new();
    for (only, text) in &exchange.expected {
        if only.as_deref().is_none_or(|only| only == server) {
            expected.push(text);
        }
    }
    let (end, untagged) = expected.split_last().expect("an end");
    let mut missing: Vec<String> = Vec::new();
    if !fits(&end.to_lowercase(), &answer.status.to_lowercase()) {
        missing.push(format!("{end} (and not {})", answer.status));
    }
    for wanted in untagged {
        // Names of types and of fields are the same in any case.
        if !answer.untagged.iter().any(|came| fits(&wanted.to_lowercase(), &came.to_lowercase())) {
            missing.push((*wanted).to_owned());
        }
    }
    missing
}

fn play(server: &str, dialogs: &[Dialog], connect: impl Fn() -> anyhow::Result<Imap>) -> String {
    let mut report = String::new();
    for dialog in dialogs {
        let mut imap = connect().expect("logged in");
        for exchange in &dialog.exchanges {
            let answer = imap.ask(&exchange.command).expect("answered");
            for missing in missing(server, exchange, &answer) {
                let (place, line, command) = (&dialog.place, exchange.line, &exchange.command);
                let _ = writeln!(
                    report,
                    "{server}: {place}, line {line}: {command}\n  wanted {missing}\n  came {:?}",
                    answer.untagged
                );
            }
        }
    }
    report
}

/// The folders of all dialogs, in this Maildir.
fn prepare(maildir: &Path, dialogs: &[Dialog]) {
    for part in ["tmp", "new", "cur"] {
        fs::create_dir_all(maildir.join(part)).expect("made");
    }
    for dialog in dialogs {
        let folder = maildir.join(format!(".{}", dialog.folder));
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(folder.join(part)).expect("made");
        }
        fs::write(folder.join("maildirfolder"), "").expect("written");
        for (name, text) in MESSAGES {
            fs::write(folder.join("cur").join(name), text).expect("written");
        }
    }
}

#[test]
fn dialogs_go_with_us_as_they_go_with_dovecot() {
    let dialogs = dialogs();
    let exchanges: usize = dialogs.iter().map(|dialog| dialog.exchanges.len()).sum();
    println!("{} dialogs, {exchanges} exchanges", dialogs.len());
    let pair = started(&Options::story());
    prepare(&pair.maildir(ALICE), &dialogs);
    let tls = pair.tls().expect("a CA");
    let ours = play("gatepost", &dialogs, || {
        let mut imap = Imap::connect(None, pair.home.imaps, Some(&tls))?;
        imap.expect(&format!("LOGIN {ALICE} \"{}\"", pair.account(ALICE).password))?;
        Ok(imap)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let maildir = folder.path().join("mail");
    prepare(&maildir, &dialogs);
    let dovecot = Dovecot::start(&maildir).expect("Dovecot");
    let theirs = play("dovecot", &dialogs, || {
        let mut imap = Imap::connect(None, dovecot.imap, None)?;
        imap.expect("LOGIN alice any")?;
        Ok(imap)
    });
    assert!(ours.is_empty() && theirs.is_empty(), "\n{ours}{theirs}");
}

#[test]
fn a_pattern_fits_what_it_says() {
    for (pattern, text, expected) in [
        ("OK…", "OK done", true),
        ("OK", "OK done", false),
        ("* 1 FETCH (…UID 1…", "* 1 FETCH (FLAGS () UID 1)", true),
        ("a…b…c", "a b", false),
        ("…", "", true),
        ("a…a", "a", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern}");
    }
}
