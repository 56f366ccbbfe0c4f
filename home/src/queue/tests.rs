//! The queue's files through every crash, and what commands do to them. Fixtures of the other tests.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Notify, Recipient, Ret};
use serde_json::json;

use super::command::{Command, Filter, Which};
use super::entry::{MessageFacts, record};
use super::*;
use crate::message::Body;

pub const RECEIVED_UNIX_S: i64 = 1_795_176_000;
pub const TEXT: &[u8] = b"From: alice@example.org\r\nSubject: Hi\r\n\r\nHello\r\n";

pub fn settings() -> Settings {
    Settings::new("home.example.org", address("postmaster@example.org"))
}

pub fn address(text: &str) -> Address {
    Address::parse(text).expect("valid")
}

pub fn new_entry(n: u8, recipients: &[&str]) -> NewEntry {
    NewEntry {
        id: QueueId([n; 16]),
        trace: TraceId::from_random([n; 10]),
        envelope: Envelope {
            reverse_path: ReversePath::Address(address("alice@example.org")),
            recipients: recipients.iter().map(|text| Recipient::plain(address(text))).collect(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        login: Some("alice@example.org".into()),
        received_unix_s: RECEIVED_UNIX_S,
        held: None,
    }
}

pub fn entry(recipients: &[&str]) -> Entry {
    Entry::new(
        new_entry(7, recipients),
        MessageFacts { octets: 100, eight_bit: false, sha256: [9; 32] },
        RECEIVED_UNIX_S * 1000,
    )
}

pub fn message() -> Message {
    Message { front: bytes::Bytes::new(), body: Body::from(TEXT.to_vec()) }
}

pub fn clock() -> Clock {
    Clock::still(Duration::from_secs(u64::try_from(RECEIVED_UNIX_S).expect("positive")))
}

pub fn open(state: &Path) -> (Queue, Vec<SetAside>) {
    open_with(state, settings(), Routes::default(), clock())
}

pub fn database(state: &Path) -> Database {
    Database::open(state).expect("opened")
}

pub fn open_with(state: &Path, settings: Settings, routes: Routes, clock: Clock) -> (Queue, Vec<SetAside>) {
    Queue::open(state, database(state), settings, routes, clock).expect("opened")
}

/// A file that every system refuses to open, whoever asks: a link to itself stands in its place.
#[derive(Debug)]
pub struct Unreadable {
    path: std::path::PathBuf,
    kept: tempfile::TempDir,
}

impl Unreadable {
    pub fn make(path: std::path::PathBuf) -> Self {
        let kept = tempfile::tempdir().expect("a folder");
        fs::copy(&path, kept.path().join("file")).expect("copied");
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(&path, &path).expect("linked");
        Self { path, kept }
    }

    pub fn undo(self) {
        fs::remove_file(&self.path).expect("removed");
        fs::copy(self.kept.path().join("file"), &self.path).expect("copied");
    }
}

fn names(state: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(state.join("queue"))
        .expect("there")
        .map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

const ID: &str = "01010101010101010101010101010101";

/// What lies on disk when the machine stops between prepare and the rename of commit, or after it and before
/// the row.
fn stopped(message_name: &str) -> tempfile::TempDir {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    let prepared = queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared");
    let kept = tempfile::tempdir().expect("a folder");
    fs::create_dir(kept.path().join("queue")).expect("made");
    let from = state.path().join("queue").join(format!("{ID}.eml.new"));
    fs::copy(from, kept.path().join("queue").join(format!("{ID}.{message_name}"))).expect("copied");
    drop(prepared);
    assert_eq!(names(state.path()), Vec::<String>::new(), "a dropped one leaves nothing");
    kept
}

/// The same of a build that kept entries in files.
fn stopped_older(message_name: &str, record_name: &str) -> tempfile::TempDir {
    let state = tempfile::tempdir().expect("a folder");
    fs::create_dir(state.path().join("queue")).expect("made");
    let put = |name: &str, bytes: &[u8]| {
        fs::write(state.path().join("queue").join(format!("{ID}.{name}")), bytes).expect("written");
    };
    put(message_name, TEXT);
    put(record_name, &older_record(1));
    state
}

/// An entry's file as a build wrote it that kept entries in files.
fn older_record(n: u8) -> Vec<u8> {
    let new = new_entry(n, &["bob@example.com"]);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TEXT);
    let facts = MessageFacts {
        octets: TEXT.len() as u64,
        eight_bit: false,
        sha256: digest.as_ref().try_into().expect("32 octets"),
    };
    record::sealed(record::view(&Entry::new(new, facts, RECEIVED_UNIX_S * 1000)))
}

fn stopped_anyhow() -> Vec<(String, tempfile::TempDir)> {
    let mut all = Vec::new();
    for message in ["eml.new", "eml"] {
        all.push((message.to_owned(), stopped(message)));
        for record in ["json.new", "json"] {
            all.push((format!("{message} {record}"), stopped_older(message, record)));
        }
    }
    all
}

#[test]
fn whatever_a_crash_leaves_of_a_commit_is_settled_once() {
    for (case, state) in stopped_anyhow() {
        for start in 0..2 {
            let (queue, set_aside) = open(state.path());
            assert_eq!(set_aside, [], "{case}");
            for _ in 0..2 {
                assert!(queue.settle(QueueId([1; 16])).expect("settled"), "{case} {start}");
                assert_eq!(queue.waiting(), 1);
            }
            assert_eq!(names(state.path()), [format!("{ID}.eml")], "{case}");
            let bytes = fs::read(state.path().join("queue").join(format!("{ID}.eml"))).expect("there");
            assert!(bytes.starts_with(TEXT));
            let entry = queue.entries.entry(QueueId([1; 16])).expect("there");
            assert_eq!(entry.recipients[0].recipient.address, address("bob@example.com"));
        }
    }
}

#[test]
fn what_was_not_wholly_written_does_not_exist() {
    let nothing_is_there = |state: &Path, case: &str| {
        let (queue, set_aside) = open(state);
        assert_eq!(set_aside, []);
        assert!(!queue.settle(QueueId([1; 16])).expect("settled"), "{case}");
        assert_eq!((names(state), queue.waiting()), (Vec::new(), 0));
        // The same message may come again under the same name.
        queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
        assert_eq!(queue.waiting(), 1);
    };
    let whole = fs::read(stopped("eml.new").path().join("queue").join(format!("{ID}.eml.new"))).expect("there").len();
    for octets in 0..whole {
        // Every place is tried; the expensive look at few of them.
        if octets % 97 != 0 && octets + 20 < whole {
            continue;
        }
        let state = stopped("eml.new");
        let path = state.path().join("queue").join(format!("{ID}.eml.new"));
        let bytes = fs::read(&path).expect("there");
        fs::write(&path, &bytes[..octets]).expect("torn");
        nothing_is_there(state.path(), &format!("cut at {octets}"));
    }
    for torn in ["eml.new", "json.new"] {
        let state = stopped_older("eml.new", "json.new");
        let path = state.path().join("queue").join(format!("{ID}.{torn}"));
        let bytes = fs::read(&path).expect("there");
        fs::write(&path, &bytes[..10]).expect("torn");
        nothing_is_there(state.path(), torn);
    }
    let state = tempfile::tempdir().expect("a folder");
    assert!(!open(state.path()).0.settle(QueueId([1; 16])).expect("settled"));
}

#[test]
fn a_repeat_in_place_of_what_a_crash_left_is_taken() {
    let state = stopped("eml.new");
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    drop(queue);
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside.len()), (1, 0));
}

#[test]
fn a_queue_of_an_older_build_is_taken_over_whole() {
    let state = tempfile::tempdir().expect("a folder");
    fs::create_dir(state.path().join("queue")).expect("made");
    let path = |n: u8, suffix: &str| state.path().join("queue").join(format!("{}.{suffix}", QueueId([n; 16])));
    for n in 1..=3 {
        fs::write(path(n, "json"), older_record(n)).expect("written");
        fs::write(path(n, "eml"), TEXT).expect("written");
    }
    // The fourth is finished: its message is gone, it is remembered.
    let mut finished = entry(&["bob@example.com"]);
    (finished.id, finished.finished_unix_ms) = (QueueId([4; 16]), Some(RECEIVED_UNIX_S * 1000));
    fs::write(path(4, "json"), record::sealed(record::view(&finished))).expect("written");
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside), (3, Vec::new()));
    assert!(queue.has(QueueId([4; 16])));
    assert_eq!(names(state.path()).len(), 3, "only messages are left as files");
    drop(queue);
    // A crash may bring the files back that were removed last.
    fs::write(path(2, "json"), older_record(2)).expect("written");
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside), (3, Vec::new()));
    assert_eq!(names(state.path()).len(), 3);
}

#[test]
fn messages_that_the_database_does_not_know_are_held_and_not_lost() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    drop(queue);
    for name in ["home.db", "home.db-wal", "home.db-shm"] {
        let _ = fs::remove_file(state.path().join(name));
    }
    // One of an older build says nothing of who gets it.
    fs::write(state.path().join("queue").join(format!("{}.eml", QueueId([2; 16]))), TEXT).expect("written");
    let (queue, _) = open(state.path());
    assert_eq!(queue.waiting(), 0, "it may be settled yet");
    queue.entries.sweep_unfinished();
    let found = queue.entries.entry(QueueId([1; 16])).expect("there");
    assert!(found.held.as_ref().is_some_and(|why| why.contains("home.db")), "{:?}", found.held);
    assert_eq!(found.reverse_path.to_string(), "alice@example.org");
    assert_eq!(fs::read_dir(state.path().join("queue/damaged")).expect("there").count(), 1);
}

#[test]
fn what_was_committed_survives_and_what_was_finished_is_not_raised_again() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    let before = queue.entries.entry(QueueId([1; 16])).expect("there");
    drop(queue);
    let (queue, _) = open(state.path());
    assert_eq!(queue.entries.entry(QueueId([1; 16])), Some(before));
    queue.command(Command::Drop(Which::One(ID.into()))).expect("dropped");
    assert_eq!((queue.waiting(), names(state.path())), (0, Vec::new()));
    assert!(queue.settle(QueueId([1; 16])).expect("settled"));
    drop(queue);
    // The crash brings the message back.
    fs::write(state.path().join("queue").join(format!("{ID}.eml")), TEXT).expect("written");
    let clock = clock();
    let (queue, set_aside) = open_with(state.path(), settings(), Routes::default(), clock.clone());
    assert_eq!((queue.waiting(), set_aside.len(), names(state.path())), (0, 0, Vec::new()));
    assert!(queue.settle(QueueId([1; 16])).expect("settled"));
    assert_eq!(queue.waiting(), 0);
    // A day later nobody asks any more.
    queue.entries.sweep();
    assert!(queue.settle(QueueId([1; 16])).expect("settled"));
    clock.turn(Duration::from_hours(25));
    queue.entries.sweep();
    assert!(!queue.settle(QueueId([1; 16])).expect("settled"));
    assert_eq!(names(state.path()), Vec::<String>::new());
}

#[test]
fn what_nobody_asks_for_is_swept_when_the_queue_runs() {
    let state = stopped("eml.new");
    let (queue, _) = open(state.path());
    let other = queue.prepare(new_entry(2, &["bob@example.com"]), &message()).expect("prepared");
    queue.entries.sweep_unfinished();
    assert_eq!(names(state.path()).len(), 1, "only what lay there at the start is swept");
    other.commit().expect("committed");
    assert_eq!(queue.waiting(), 1);
}

#[test]
fn damaged_files_are_set_aside_and_the_rest_goes_on() {
    let state = tempfile::tempdir().expect("a folder");
    fs::create_dir(state.path().join("queue")).expect("made");
    let path = |n: u8, suffix: &str| state.path().join("queue").join(format!("{}.{suffix}", QueueId([n; 16])));
    for n in 1..=5 {
        fs::write(path(n, "json"), older_record(n)).expect("written");
        fs::write(path(n, "eml"), TEXT).expect("written");
    }
    // One letter of a recipient changed: only the checksum can tell.
    let text = fs::read_to_string(path(1, "json")).expect("there");
    fs::write(path(1, "json"), text.replace("bob@example.com", "rob@example.com")).expect("written");
    fs::write(path(2, "json"), b"{}").expect("written");
    fs::write(path(3, "eml"), b"shorter").expect("written");
    fs::remove_file(path(4, "eml")).expect("removed");
    fs::write(state.path().join("queue").join("notes.txt"), b"?").expect("written");
    let (queue, set_aside) = open(state.path());
    assert_eq!(queue.waiting(), 1);
    assert!(queue.entries.entry(QueueId([5; 16])).is_some());
    let mut reported: Vec<&str> = set_aside.iter().map(|file| &file.name[..2]).collect();
    reported.sort_unstable();
    assert_eq!(reported, ["01", "01", "02", "02", "03", "03", "04", "no"]);
    assert!(set_aside.iter().any(|file| file.why.contains("checksum")), "{set_aside:?}");
    assert_eq!(fs::read_dir(state.path().join("queue/damaged")).expect("there").count(), 8, "nothing is thrown away");
    drop(queue);
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside.len()), (1, 0));
}

#[test]
fn a_row_that_is_damaged_or_has_lost_its_message_is_set_aside() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    for n in 1..=3 {
        queue.prepare(new_entry(n, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    }
    drop(queue);
    let change = database(state.path()).write(|connection| {
        connection.execute(
            "UPDATE queue SET record = CAST(replace(CAST(record AS TEXT), 'bob@', 'rob@') AS BLOB) WHERE row = 1",
            [],
        )
    });
    assert_eq!(change.wait().expect("written"), 1);
    fs::remove_file(state.path().join("queue").join(format!("{}.eml", QueueId([2; 16])))).expect("removed");
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside.len()), (2, 1));
    assert!(set_aside[0].why.contains("gone"), "{set_aside:?}");
    // That a row is damaged shows once it is read.
    assert!(queue.entries.entry(QueueId([1; 16])).is_none());
    assert_eq!(queue.waiting(), 1);
    assert_eq!(fs::read_dir(state.path().join("queue/damaged")).expect("there").count(), 3, "two texts, one message");
}

#[test]
fn a_file_that_can_not_be_read_stops_the_start_and_stays_where_it_is() {
    for suffix in ["json", "eml"] {
        let state = stopped_older("eml", "json");
        let away = Unreadable::make(state.path().join("queue").join(format!("{ID}.{suffix}")));
        let failed = Queue::open(state.path(), database(state.path()), settings(), Routes::default(), clock())
            .expect_err("can't be read");
        assert!(failed.to_string().contains(&format!("{ID}.{suffix}")), "{failed}");
        away.undo();
        let (queue, set_aside) = open(state.path());
        assert_eq!((queue.waiting(), set_aside.len()), (1, 0), "{suffix}");
    }
}

#[test]
fn what_can_not_be_read_while_it_is_settled_is_not_removed() {
    for (state, suffix) in [
        (stopped_older("eml.new", "json.new"), "json.new"),
        (stopped_older("eml.new", "json.new"), "eml.new"),
        (stopped("eml.new"), "eml.new"),
        (stopped("eml"), "eml"),
    ] {
        let (queue, _) = open(state.path());
        let away = Unreadable::make(state.path().join("queue").join(format!("{ID}.{suffix}")));
        queue.settle(QueueId([1; 16])).expect_err("can't be read");
        away.undo();
        assert!(queue.settle(QueueId([1; 16])).expect("settled"), "{suffix}");
        assert_eq!(queue.waiting(), 1);
    }
}

#[test]
fn a_life_in_the_queue_begins_when_the_home_queues_it_whatever_the_edge_says() {
    for edges_unix_s in [0, RECEIVED_UNIX_S - 7 * 86_400, RECEIVED_UNIX_S + 7 * 86_400] {
        let state = tempfile::tempdir().expect("a folder");
        let (queue, _) = open(state.path());
        let new = NewEntry { received_unix_s: edges_unix_s, ..new_entry(1, &["bob@example.com"]) };
        queue.prepare(new, &message()).expect("prepared").commit().expect("committed");
        drop(queue);
        let (queue, _) = open(state.path());
        let entry = queue.entries.entry(QueueId([1; 16])).expect("there");
        let now = RECEIVED_UNIX_S * 1000;
        assert_eq!(schedule::ready(&entry, now), [0], "due at once");
        let schedule = &queue.entries.rules().schedule;
        let expire = i64::try_from(schedule.expire.as_millis()).expect("small");
        assert_eq!(schedule.expires_unix_ms(&entry), now + expire);
        assert_eq!(entry.received_unix_ms, edges_unix_s * 1000);
    }
}

#[test]
fn a_full_queue_takes_no_more() {
    let state = tempfile::tempdir().expect("a folder");
    let full = Settings { messages_max: 1, ..settings() };
    let (queue, _) = open_with(state.path(), full, Routes::default(), clock());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    let error = queue.prepare(new_entry(2, &["bob@example.com"]), &message()).expect_err("full");
    assert!(error.is_full());
}

#[test]
fn every_value_survives_the_disk_in_a_form_that_never_changes() {
    let mut new = new_entry(1, &["bob@example.com", "carol@example.net", "dave@example.net"]);
    new.envelope.recipients[0].notify = Notify::On { success: false, failure: true, delay: true };
    new.envelope.recipients[1].notify = Notify::Never;
    new.envelope.recipients[1].orcpt = Some("rfc822;c@example.net".into());
    new.envelope.ret = Some(Ret::Headers);
    new.envelope.envid = Some("x".into());
    let mut entry =
        Entry::new(new, MessageFacts { octets: 3, eight_bit: true, sha256: [0xab; 32] }, RECEIVED_UNIX_S * 1000 + 1500);
    let last = entry::Final {
        reply: Reply::unknown_recipient(),
        remote: Some("mx.example.net [192.0.2.1]:25".into()),
        at_unix_ms: 1_795_176_000_123,
    };
    entry.recipients[1].state = entry::State::Failed { last: last.clone(), told: false };
    entry.recipients[2].state = entry::State::Delivered { last, told: true };
    entry.attempts.push(entry::OpenAttempt {
        id: gatepost_protocol::tunnel::verb::relay::AttemptId([3; 16]),
        place: entry::Place::Edge { key: NodeKey::of_spki(b"edge"), name: "vps1".into() },
        since_unix_ms: 1_795_176_000_001,
        recipients: vec![0],
        lost_unix_ms: Some(1_795_176_000_002),
        ask_unix_ms: Some(0),
    });
    entry.bounce = Some(entry::OpenBounce {
        about: entry::About::Failure,
        id: TransferId([4; 16]),
        trace: TraceId::from_random([5; 10]),
        made_unix_s: 1_795_176_001,
        recipients: vec![1],
        attempts: 2,
        next_unix_ms: 1_795_176_002_000,
    });
    entry.held = Some("by hand".into());
    let bytes = record::encode(&entry);
    assert_eq!(record::decode(&bytes).expect("whole"), entry);
    let text = String::from_utf8(bytes).expect("text");
    assert_eq!(
        text,
        include_str!("entry/row.json").trim_end(),
        "what lies on disk must stay readable to a newer build"
    );
    let mut junk = entry.clone();
    junk.recipients[0].is_junk = true;
    assert_eq!(record::decode(&record::encode(&junk)).expect("whole"), junk);
    let in_a_file = record::decode_file(include_bytes!("entry/record.json")).expect("whole");
    assert_eq!(in_a_file, entry, "and so what an older build wrote");
    let older = record::decode_file(include_bytes!("entry/record_without_queued.json")).expect("whole");
    assert_eq!(older.queued_unix_ms, older.received_unix_ms);
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed() {
    let entry = entry(&["bob@example.com"]);
    let bytes = record::sealed(record::view(&entry));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        match record::decode_file(&flipped) {
            Err(_) => {}
            // White space between values says nothing.
            Ok(read) => assert_eq!(read, entry, "at {at}"),
        }
    }
}

#[test]
fn commands_change_what_they_name() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    for n in [1, 2] {
        queue.prepare(new_entry(n, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    }
    let one = || Which::One("0101".into());
    let held = |queue: &Queue| {
        let list = queue.command(Command::List { which: Which::All, skip: 0, limit: 100 }).expect("listed");
        let messages = list["messages"].as_array().expect("a list").clone();
        messages.iter().map(|message| message["held"].clone()).collect::<Vec<_>>()
    };
    queue.command(Command::Hold(one())).expect("held");
    assert_eq!(held(&queue), [json!("by hand"), json!(null)]);
    drop(queue);
    let (queue, _) = open(state.path());
    assert_eq!(held(&queue), [json!("by hand"), json!(null)], "durably");
    assert!(queue.command(Command::Flush(one())).expect_err("held").contains("release"));
    let retried = queue.command(Command::Flush(Which::All)).expect("those that are not held");
    assert_eq!((&retried["changed"], &retried["unchanged"]), (&json!(1), &json!(1)), "{retried}");
    assert_eq!(retried["ids"], json!(["02020202020202020202020202020202"]));
    queue.command(Command::Release(Which::All)).expect("released");
    assert_eq!(held(&queue), [json!(null), json!(null)]);
    let shown = queue.command(Command::Show { id: TraceId::from_random([2; 10]).to_string() }).expect("by trace id");
    assert_eq!(shown["id"], "02020202020202020202020202020202");
    assert!(queue.command(Command::Show { id: "ffff".into() }).expect_err("none").contains("no message"));
    queue.command(Command::Drop(Which::All)).expect("dropped");
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn commands_choose_by_sender_recipient_and_domain() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open(state.path());
    for (n, to) in [(1, "bob@example.com"), (2, "carol@Example.com"), (3, "bob@example.net")] {
        let mut new = new_entry(n, &[to]);
        if n == 3 {
            new.envelope.reverse_path = ReversePath::Null;
        }
        queue.prepare(new, &message()).expect("prepared").commit().expect("committed");
    }
    let some = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (Filter { to: some("BOB@example.com"), ..Filter::default() }, 1),
        (Filter { to: some("example.com"), ..Filter::default() }, 0),
        (Filter { domain: some("EXAMPLE.com"), ..Filter::default() }, 2),
        (Filter { from: some("alice@example.org"), ..Filter::default() }, 2),
        (Filter { from: some(""), ..Filter::default() }, 1),
        (Filter { from: some("alice@example.org"), domain: some("example.net"), ..Filter::default() }, 0),
    ] {
        let which = Which::Those(filter);
        let listed = queue.command(Command::List { which: which.clone(), skip: 0, limit: 10 }).expect("listed");
        assert_eq!(listed["fitting"], json!(expected), "{which:?}");
        assert_eq!(listed["total"], json!(3));
        let held = queue.command(Command::Hold(which)).expect("held");
        assert_eq!(held["changed"], json!(expected));
        queue.command(Command::Release(Which::All)).expect("released");
    }
}

proptest::proptest! {
    #[test]
    fn garbage_is_no_record(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        proptest::prop_assert!(record::decode(&bytes).is_err() && record::decode_file(&bytes).is_err());
    }

    #[test]
    fn a_record_of_any_contents_is_refused_or_whole(
        attempts in proptest::collection::vec(0usize..4, 0..3),
        time in ".{0,24}",
        sender in "[ -~]{0,20}",
    ) {
        // Well sealed, but not by us: the checksum fits, the values are anything.
        let mut value = record::view(&entry(&["bob@example.com"]));
        value["received"] = json!(time);
        value["sender"] = json!(sender);
        value["attempts"] = json!([{ "id": ID, "edge": null, "since": time, "lost": null, "recipients": attempts }]);
        if let Ok(read) = record::decode_file(&record::sealed(value)) {
            proptest::prop_assert!(attempts.iter().all(|place| *place < read.recipients.len()));
        }
    }
}
