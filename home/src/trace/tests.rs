use std::fs;
use std::path::Path;

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::verb::events::WireEvent;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::event::{Event, LOST};

use super::Rules;
use super::keeper::Traces;
use super::store::{FILE, Reader, Store};
use super::story::mentions;

const NOW: i64 = 1_795_176_000_000;

fn own(at_unix_ms: i64, number: u8, sender: &str) -> Event {
    let facts = vec![("sender", sender.to_owned()), ("reply", "250 for carol".to_owned())];
    Event { at_unix_ms, trace: Some(TraceId::from_random([number; 10])), what: "accepted".to_owned(), facts }
}

fn told(number: u64, recipient: &str) -> WireEvent {
    let facts = vec![("recipient".to_owned(), recipient.to_owned())];
    WireEvent { number, at_unix_ms: NOW, trace: Some([1; 10]), what: "answered".to_owned(), facts, refused: None }
}

fn keep(state: &Path, work: impl FnOnce(&Store)) -> Reader {
    let store = Store::open(state).unwrap();
    store.begin().unwrap();
    work(&store);
    store.commit().unwrap();
    Reader::open(state).unwrap().unwrap()
}

fn found(reader: &Reader, part: &str) -> usize {
    reader.find(part, 0, 10, |kept| mentions(kept, part)).unwrap().len()
}

#[test]
fn messages_are_found_by_any_part_of_who_they_concern_and_by_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let reader = keep(state.path(), |store| {
        store.keep(&[own(NOW, 1, "Alice@example.org"), own(NOW + 1, 2, "o\"dd_%@example.org")]).unwrap();
    });
    for (part, count) in [
        ("alice", 1),
        ("ALICE@EXAMPLE", 1),
        ("example.org", 2),
        ("o\"dd", 1),
        ("_%@", 1),
        ("%", 1),
        ("a_ice", 0),
        ("carol", 0),
        ("sender", 0),
        (&TraceId::from_random([2; 10]).to_string(), 1),
    ] {
        assert_eq!(found(&reader, part), count, "{part}");
    }
    assert_eq!(reader.find("example", NOW + 1, 10, |_| true).unwrap().len(), 1, "since then");
    let newest = reader.find("example", 0, 1, |_| true).unwrap();
    assert_eq!(newest, [TraceId::from_random([2; 10]).to_string()], "the newest first");
}

#[test]
fn what_an_edge_tells_twice_is_kept_once_and_a_gap_is_told() {
    let state = tempfile::tempdir().unwrap();
    let journal = [7; 16];
    let reader = keep(state.path(), |store| {
        assert_eq!(store.last("vps1", journal).unwrap(), 0);
        assert_eq!(store.keep_told("vps1", journal, &[told(1, "a"), told(2, "b")], NOW).unwrap(), 2);
        assert_eq!(store.keep_told("vps1", journal, &[told(2, "b"), told(6, "c")], NOW).unwrap(), 6);
        assert_eq!(store.last("vps1", journal).unwrap(), 6);
        assert_eq!(store.last("vps2", journal).unwrap(), 0, "another edge's numbers are its own");
        assert_eq!(store.last("vps1", [8; 16]).unwrap(), 0);
    });
    assert_eq!(reader.of(&TraceId::from_random([1; 10]).to_string()).unwrap().len(), 3);
    let around = reader.around(0, 10).unwrap();
    assert_eq!(around.len(), 1);
    assert_eq!((around[0].what.as_str(), around[0].fact("count")), (LOST, Some("3")));
}

#[test]
fn an_edges_words_are_bounded_and_its_clock_is_not_trusted() {
    let state = tempfile::tempdir().unwrap();
    let mut event = told(1, "a");
    event.at_unix_ms = i64::MAX;
    event.what = "\u{1b}[2J".repeat(1000);
    event.facts = (0..1000).map(|n| (format!("f{n}"), "x\r\n".repeat(10_000))).collect();
    let reader = keep(state.path(), |store| {
        store.keep_told("vps1", [7; 16], &[event], NOW).unwrap();
    });
    let kept = &reader.of(&TraceId::from_random([1; 10]).to_string()).unwrap()[0];
    assert_eq!(kept.at_unix_ms, NOW);
    assert!(kept.what.len() < 300 && !kept.what.contains('\u{1b}'));
    assert!(kept.facts.len() < 50 && kept.fact("f1").unwrap().len() <= 512);
    assert!(!kept.fact("f1").unwrap().contains('\n'));
}

#[test]
fn the_oldest_goes_by_age_and_by_size() {
    let state = tempfile::tempdir().unwrap();
    let rules = Rules { keep: std::time::Duration::from_secs(10), octets_max: u64::MAX };
    let reader = keep(state.path(), |store| {
        store.keep(&[own(NOW - 10_001, 1, "old"), own(NOW - 10_000, 2, "new")]).unwrap();
        while store.prune(rules, NOW).unwrap() {}
    });
    assert_eq!((found(&reader, "old"), found(&reader, "new")), (0, 1));
    let small = Rules { octets_max: 1024 * 1024, ..rules };
    keep(state.path(), |store| {
        for _ in 0..20 {
            let many: Vec<Event> = (0..1000).map(|_| own(NOW, 3, &"x".repeat(200))).collect();
            store.keep(&many).unwrap();
            while store.prune(small, NOW).unwrap() {
                if store.octets().unwrap() <= small.octets_max {
                    break;
                }
            }
        }
        assert!(store.octets().unwrap() < 2 * small.octets_max, "{}", store.octets().unwrap());
    });
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_events_are_kept_all_the_same() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join(FILE), b"this is no database, and it is long enough to be looked at").unwrap();
    let (traces, _collector) = Traces::start(state.path().to_owned(), Rules::default(), Clock::real()).unwrap();
    assert_eq!(traces.keep_told("vps1", [7; 16], vec![told(1, "alice@example.org")]).await, Some(1));
    let reader = Reader::open(state.path()).unwrap().unwrap();
    assert_eq!(found(&reader, "alice"), 1);
    assert!(state.path().join("trace.db.damaged").exists());
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_no_event_of_an_edge() {
    let state = tempfile::tempdir().unwrap();
    let nowhere = state.path().join("not/there");
    let (traces, _collector) = Traces::start(nowhere.clone(), Rules::default(), Clock::real()).unwrap();
    assert_eq!(traces.keep_told("vps1", [7; 16], vec![told(1, "a")]).await, None, "the edge keeps it");
    fs::create_dir_all(&nowhere).unwrap();
    assert_eq!(traces.keep_told("vps1", [7; 16], vec![told(1, "a")]).await, Some(1));
}
