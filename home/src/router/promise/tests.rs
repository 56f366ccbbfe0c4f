//! A stop after each step, a start, a repeat: every copy is there exactly once.

use std::path::Path;

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::transfer::TransferId;

use super::*;
use crate::database::Database;
use crate::queue::QueueId;
use crate::queue::tests as queued;

const MAILBOXES: [&str; 2] = ["alice@example.org", "bob@example.org"];

/// What a message needs, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Nothing,
    Intent,
    Write,
    FirstRename,
    EveryRename,
    Sync,
    Queue,
    Settle,
}

const STEPS: [Step; 8] = [
    Step::Nothing,
    Step::Intent,
    Step::Write,
    Step::FirstRename,
    Step::EveryRename,
    Step::Sync,
    Step::Queue,
    Step::Settle,
];

fn open(state: &Path) -> Promises {
    let (queue, _) = queued::open(state);
    let maildirs = Maildirs::new(state, "home.example.org", queued::clock());
    Promises::new(maildirs, Ledger::new(Database::open(state).expect("opened")), queue, queued::clock())
}

fn hand_over() -> HandOver {
    HandOver::our_own(TransferId([7; 16]))
}

/// The same hand-over brought once more: names are chosen anew each time.
fn work(promises: &Promises, mailboxes: &[&str], queue: Option<u8>) -> Work {
    let message = queued::message();
    let copy = |mailbox: &&str| {
        let fields = format!("Delivered-To: {mailbox}\r\n").into_bytes();
        let octets = message.octets() + fields.len() as u64;
        let place = promises.maildirs().place(Folder::inbox(mailbox), octets);
        let recipient = gatepost_protocol::mail::address::Address::parse(mailbox).expect("valid");
        PlacedCopy { place, fields, to: LocalCopy { mailbox: (*mailbox).to_owned(), recipient } }
    };
    Work {
        hand_over: hand_over(),
        trace: TraceId::from_random([1; 10]),
        copies: mailboxes.iter().map(copy).collect(),
        queued: queue.map(|n| queued::new_entry(n, &["carol@example.com"])),
        queued_fields: Vec::new(),
        handings: Vec::new(),
        held: (mailboxes.len() + usize::from(queue.is_some()) > 1)
            .then(|| queued::new_entry(queue.unwrap_or_default() + 100, &[])),
        refusal: Refusal::Tell,
        message: message.clone(),
    }
}

/// Goes through the steps up to `last` as [`Promises::keep`] does, then stops dead.
fn stop_after(state: &Path, last: Step, mailboxes: &[&str], queue: Option<u8>) {
    let promises = open(state);
    let mut work = work(&promises, mailboxes, queue);
    let plan = work.plan();
    let mut row = None;
    if last >= Step::Intent {
        let begun = promises.ledger.begin(work.hand_over, work.trace, &plan, 0).wait().expect("noted");
        let Begun::New(id) = begun else { panic!("known before it came") };
        row = Some(id);
    }
    if last < Step::Write {
        return;
    }
    let Written { drafts, prepared, .. } = promises.write(&mut work).expect("written");
    drafts.into_iter().for_each(Draft::release);
    let renames = match last {
        Step::Write => 0,
        Step::FirstRename => 1,
        _ => plan.places.len(),
    };
    for place in plan.places.iter().take(renames) {
        promises.maildirs.deliver(place).expect("renamed");
    }
    if last >= Step::Sync {
        promises.sync(&plan).expect("synced");
    }
    match prepared {
        Some(prepared) if last >= Step::Queue => prepared.commit().expect("committed"),
        // A stop leaves the files where they are.
        prepared => std::mem::forget(prepared),
    }
    if last >= Step::Settle {
        promises.ledger.settle(row.expect("noted")).wait().expect("noted");
    }
}

fn count(state: &Path, mailbox: &str, part: &str) -> usize {
    let folder = state.join("mail").join(Folder::inbox(mailbox).as_str()).join(part);
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn every_copy_is_there_once_whatever_step_was_the_last() {
    for (mailboxes, queue) in
        [(&MAILBOXES[..], Some(1)), (&MAILBOXES[..], None), (&MAILBOXES[..1], None), (&MAILBOXES[..0], Some(1))]
    {
        for last in STEPS {
            let case = format!("{last:?}, {} mailboxes, queue {queue:?}", mailboxes.len());
            let state = tempfile::tempdir().expect("a folder");
            stop_after(state.path(), last, mailboxes, queue);
            let promises = open(state.path());
            promises.settle_all().expect("settled");
            // The edge heard nothing, so it brings the message again.
            let again = work(&promises, mailboxes, queue.map(|n| n + 1));
            promises.keep(again).expect("kept");
            for mailbox in mailboxes {
                assert_eq!(count(state.path(), mailbox, "new"), 1, "{case}: {mailbox}");
                assert_eq!(count(state.path(), mailbox, "tmp"), 0, "{case}: {mailbox}");
            }
            assert_eq!(promises.queue.waiting(), usize::from(queue.is_some()), "{case}");
        }
    }
}

#[test]
fn what_was_seen_before_a_stop_is_finished_by_the_start_alone() {
    for (last, promised) in
        [(Step::Write, false), (Step::FirstRename, true), (Step::EveryRename, true), (Step::Queue, true)]
    {
        let state = tempfile::tempdir().expect("a folder");
        stop_after(state.path(), last, &MAILBOXES, Some(1));
        let promises = open(state.path());
        assert_eq!(
            promises.settle_all().expect("settled"),
            (usize::from(promised), usize::from(!promised)),
            "{last:?}"
        );
        let count = |mailbox| count(state.path(), mailbox, "new");
        assert_eq!(MAILBOXES.map(count), [usize::from(promised); 2], "{last:?}");
        assert_eq!(promises.queue.waiting(), usize::from(promised), "{last:?}");
    }
}

#[test]
fn a_copy_that_was_read_before_the_start_is_not_delivered_again() {
    let state = tempfile::tempdir().expect("a folder");
    stop_after(state.path(), Step::EveryRename, &MAILBOXES[..1], None);
    let folder = state.path().join("mail").join(Folder::inbox(MAILBOXES[0]).as_str());
    let name = std::fs::read_dir(folder.join("new")).expect("read").next().expect("one").expect("read").file_name();
    let read = format!("{}:2,S", name.to_string_lossy());
    gatepost_runtime::durable::rename(&folder.join("new").join(&name), &folder.join("cur").join(read)).expect("moved");
    let promises = open(state.path());
    promises.settle_all().expect("settled");
    assert_eq!(
        promises.keep(work(&promises, &MAILBOXES[..1], None)).ok(),
        Some(Kept::Before(TraceId::from_random([1; 10])))
    );
    assert_eq!(count(state.path(), MAILBOXES[0], "new"), 0);
}

/// A file where a mailbox should be.
fn instead_of(state: &Path, mailbox: &str) -> std::path::PathBuf {
    let folder = state.join("mail").join(Folder::inbox(mailbox).as_str());
    std::fs::create_dir_all(folder.parent().expect("a parent")).expect("made");
    std::fs::write(&folder, "in the way").expect("written");
    folder
}

#[test]
fn what_can_not_be_written_anywhere_leaves_nothing_and_is_taken_later() {
    for mailboxes in [&MAILBOXES[..], &MAILBOXES[..1]] {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        let in_the_way = MAILBOXES.map(|mailbox| instead_of(state.path(), mailbox));
        promises.keep(work(&promises, mailboxes, None)).expect_err("files are in the way");
        assert_eq!(promises.queue.waiting(), 0);
        // Nor does it keep the home from starting.
        let promises = open(state.path());
        promises.settle_all().expect("settled");
        for folder in &in_the_way {
            std::fs::remove_file(folder).expect("removed");
        }
        assert_eq!(promises.keep(work(&promises, mailboxes, None)).ok(), Some(Kept::Now(Vec::new())));
        assert!(mailboxes.iter().all(|mailbox| count(state.path(), mailbox, "new") == 1));
    }
}

#[test]
fn a_copy_that_can_not_be_written_is_held_while_the_others_are_delivered() {
    for (mailboxes, queue) in [(&MAILBOXES[..], Some(1)), (&MAILBOXES[..], None), (&MAILBOXES[1..], Some(1))] {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        instead_of(state.path(), MAILBOXES[1]);
        let kept = promises.keep(work(&promises, mailboxes, queue)).ok();
        assert_eq!(kept, Some(Kept::Now(vec![MAILBOXES[1].to_owned()])));
        drop(promises);
        let promises = open(state.path());
        promises.settle_all().expect("settled");
        let again = promises.keep(work(&promises, mailboxes, queue.map(|n| n + 1)));
        assert!(matches!(again, Ok(Kept::Before(_))), "{again:?}");
        assert_eq!(count(state.path(), MAILBOXES[0], "new"), mailboxes.len() - 1);
        assert_eq!(promises.queue.waiting(), 1 + usize::from(queue.is_some()));
        assert_eq!(promises.queue.waiting_local(), 1);
    }
}

#[test]
fn what_can_not_be_held_either_is_not_taken() {
    let state = tempfile::tempdir().expect("a folder");
    let promises = open(state.path());
    instead_of(state.path(), MAILBOXES[1]);
    let in_the_way = state.path().join("queue").join(format!("{}.eml", QueueId([100; 16])));
    std::fs::create_dir(&in_the_way).expect("made");
    promises.keep(work(&promises, &MAILBOXES, None)).expect_err("the queue can't hold it");
    for part in ["new", "tmp"] {
        assert_eq!(count(state.path(), MAILBOXES[0], part), 0, "nothing was promised, nothing is left in {part}");
    }
    std::fs::remove_dir(in_the_way).expect("removed");
    let again = promises.keep(work(&promises, &MAILBOXES, None)).ok();
    assert_eq!(again, Some(Kept::Now(vec![MAILBOXES[1].to_owned()])));
    assert_eq!((count(state.path(), MAILBOXES[0], "new"), promises.queue.waiting()), (1, 1));
}

#[test]
fn every_copy_is_there_or_held_once_whatever_step_was_the_last_while_one_can_not_be_written() {
    // Written; planned without it; held; the other seen.
    for last in 0..4 {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        instead_of(state.path(), MAILBOXES[1]);
        let mut work = work(&promises, &MAILBOXES, None);
        let mut plan = work.plan();
        let begun = promises.ledger.begin(work.hand_over, work.trace, &plan, 0).wait().expect("noted");
        let Begun::New(id) = begun else { panic!("known before it came") };
        let Written { drafts, unwritten, .. } = promises.write(&mut work).expect("one is written");
        if last >= 1 {
            promises.plan_without(&unwritten, id, &mut plan, &work).expect("noted");
        }
        drafts.into_iter().for_each(Draft::release);
        if last >= 2 {
            let known = Known { id, trace: work.trace, plan: Some(plan.clone()) };
            assert!(matches!(promises.hand_over(&known, &plan, work, unwritten), Ok(None)));
        }
        if last >= 3 {
            promises.maildirs.deliver(&plan.places[0]).expect("renamed");
        }
        drop(promises);
        let promises = open(state.path());
        promises.settle_all().expect("settled");
        promises.keep(self::work(&promises, &MAILBOXES, None)).expect("kept");
        assert_eq!(count(state.path(), MAILBOXES[0], "new"), 1, "step {last}");
        assert_eq!(promises.queue.waiting(), 1, "step {last}");
    }
}

#[test]
fn copies_that_can_not_be_delivered_follow_the_others_under_the_same_250() {
    for (broken, whole) in [(1, 0), (0, 1)] {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        for mailbox in MAILBOXES {
            promises.maildirs.ensure(&Folder::inbox(mailbox)).expect("made");
        }
        let new = state.path().join("mail").join(Folder::inbox(MAILBOXES[broken]).as_str()).join("new");
        std::fs::remove_dir(&new).expect("removed");
        assert_eq!(promises.keep(work(&promises, &MAILBOXES, Some(1))).ok(), Some(Kept::Now(Vec::new())));
        assert_eq!(count(state.path(), MAILBOXES[whole], "new"), 1);
        assert_eq!(promises.queue.waiting(), 1);
        // Neither does the home forget it when it stops first.
        let promises = if broken == 0 { open(state.path()) } else { promises };
        std::fs::create_dir(&new).expect("made");
        promises.settle_all().expect("settled");
        promises.finish_unfinished();
        assert_eq!(MAILBOXES.map(|mailbox| count(state.path(), mailbox, "new")), [1, 1]);
        assert_eq!(promises.queue.waiting(), 1);
        let again = promises.keep(work(&promises, &MAILBOXES, Some(2)));
        assert!(matches!(again, Ok(Kept::Before(_))));
        assert_eq!(promises.queue.waiting(), 1);
    }
}

/// Keeps an entry from being committed.
fn in_the_way(state: &Path) -> std::path::PathBuf {
    let path = state.join("queue").join(format!("{}.eml", QueueId([1; 16])));
    std::fs::create_dir(&path).expect("made");
    path
}

#[test]
fn what_can_not_be_queued_follows_the_mailboxes_under_the_same_250() {
    for restart in [false, true] {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        let folder = in_the_way(state.path());
        assert_eq!(promises.keep(work(&promises, &MAILBOXES, Some(1))).ok(), Some(Kept::Now(Vec::new())));
        assert_eq!(MAILBOXES.map(|mailbox| count(state.path(), mailbox, "new")), [1, 1]);
        assert_eq!(promises.queue.waiting(), 0);
        std::fs::remove_dir(folder).expect("removed");
        let promises = if restart { open(state.path()) } else { promises };
        promises.settle_all().expect("settled");
        promises.finish_unfinished();
        assert_eq!(promises.queue.waiting(), 1, "restart {restart}");
    }
}

#[test]
fn what_only_goes_to_the_queue_and_can_not_leaves_nothing() {
    let state = tempfile::tempdir().expect("a folder");
    let promises = open(state.path());
    let folder = in_the_way(state.path());
    promises.keep(work(&promises, &[], Some(1))).expect_err("a folder is in the way");
    std::fs::remove_dir(&folder).expect("removed");
    promises.finish_unfinished();
    assert_eq!(promises.queue.waiting(), 0);
    assert_eq!(promises.keep(work(&promises, &[], Some(2))).ok(), Some(Kept::Now(Vec::new())));
    assert_eq!(promises.queue.waiting(), 1);
}

#[test]
fn nothing_is_seen_before_the_names_of_the_rest_are_durable() {
    let state = tempfile::tempdir().expect("a folder");
    let promises = open(state.path());
    let mut work = work(&promises, &MAILBOXES, Some(1));
    let plan = work.plan();
    let Written { drafts, prepared, .. } = promises.write(&mut work).expect("written");
    let away = state.path().join("away");
    gatepost_runtime::durable::rename(&state.path().join("queue"), &away).expect("moved");
    promises.release(&plan, drafts).expect_err("the queue's folder can't be synced");
    drop(prepared);
}

#[test]
fn what_is_queued_tells_that_a_message_was_kept_even_if_its_copies_are_read_and_gone() {
    let state = tempfile::tempdir().expect("a folder");
    stop_after(state.path(), Step::Queue, &MAILBOXES, Some(1));
    for mailbox in MAILBOXES {
        let new = state.path().join("mail").join(Folder::inbox(mailbox).as_str()).join("new");
        let name = std::fs::read_dir(&new).expect("read").next().expect("one").expect("read").path();
        std::fs::remove_file(name).expect("removed");
    }
    let promises = open(state.path());
    assert_eq!(promises.settle_all().expect("settled"), (1, 0));
    let again = promises.keep(work(&promises, &MAILBOXES, Some(2)));
    assert!(matches!(again, Ok(Kept::Before(_))), "{again:?}");
    assert_eq!(MAILBOXES.map(|mailbox| count(state.path(), mailbox, "new")), [0, 0]);
    assert_eq!(promises.queue.waiting(), 1);
}

#[test]
fn the_plan_names_exactly_what_is_kept() {
    let state = tempfile::tempdir().expect("a folder");
    let promises = open(state.path());
    let work = work(&promises, &MAILBOXES, Some(1));
    let plan = work.plan();
    promises.keep(work).expect("kept");
    for place in &plan.places {
        assert_eq!(promises.maildirs.find(place).expect("looked"), Found::Delivered);
    }
    assert_eq!(plan.queue, Some(QueueId([1; 16])));
    drop(promises);
    assert_eq!(open(state.path()).ledger.open_intents().expect("read"), [], "settled by then");
}

#[test]
fn what_a_server_did_not_take_waits_even_if_a_stop_came_before_it_was_wholly_held() {
    for is_repeated in [false, true] {
        let state = tempfile::tempdir().expect("a folder");
        let promises = open(state.path());
        let entry = queued::new_entry(100, &MAILBOXES[..1]);
        let id = entry.id;
        let plan = Plan { handed: Some(HandedOver::Open(id)), ..Plan::default() };
        promises.ledger.begin(hand_over(), TraceId::from_random([1; 10]), &plan, 0).wait().expect("noted");
        let answer = Answer::certain(Outcome::Deferred(Reply::local_error()));
        let left = Left { answer, is_junk: false };
        let prepared = promises.queue.prepare_local(entry, &[left], &queued::message()).expect("written");
        // A stop leaves the files where they are.
        std::mem::forget(prepared);
        drop(promises);
        let promises = open(state.path());
        assert_eq!(promises.settle_all().expect("settled"), (1, 0));
        if is_repeated {
            let again = promises.keep(work(&promises, &MAILBOXES[..1], None));
            assert!(matches!(again, Ok(Kept::Before(_))), "{again:?}");
        }
        assert_eq!((promises.queue.waiting(), promises.queue.waiting_local()), (1, 1));
        assert_eq!(count(state.path(), MAILBOXES[0], "new"), 0);
    }
}
