//! Files that are not what was written: set aside, told, and the rest goes on.

use std::fs;
use std::path::{Path, PathBuf};

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, FRIEND, STRANGER, started};

#[test]
fn a_damaged_spool_file_stops_no_other() {
    for damage in [Damage::Truncated, Damage::Flipped, Damage::Emptied] {
        let mut pair = started(&Options::story());
        pair.home.program.kill();
        pair.wait_until_down();
        let spool = pair.edge().program.state.clone();
        let mut before = files(&spool);
        let mut first = Vec::new();
        for number in 1..=4 {
            let sent = message::numbered(number, STRANGER, ALICE, 20_000);
            let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
            assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
            if number == 1 {
                let after = files(&spool);
                first = after.iter().filter(|file| !before.contains(file)).cloned().collect();
                before = after;
            }
        }
        let sealed = first.iter().max_by_key(|file| fs::metadata(file).map_or(0, |facts| facts.len()));
        damage.apply(sealed.expect("the first message lies in the spool"));
        pair.edge_mut().program.kill();
        pair.edge_mut().program.start().expect("started");
        pair.home.program.start().expect("started");
        observe::until_delivered(&pair.maildir(ALICE), &[2, 3, 4]);
        assert!(pair.edge_mut().program.is_running() && pair.home.program.is_running());
    }
}

#[test]
fn a_damaged_queue_entry_stops_no_other() {
    for damage in [Damage::Truncated, Damage::Flipped, Damage::Emptied] {
        let mut pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
        pair.sink.defer_all(true);
        let queue = pair.home.program.state.join("queue");
        let mut first = Vec::new();
        for number in 1..=4 {
            submit(&pair, number);
            if number == 1 {
                first = files(&queue);
            }
        }
        pair.home.program.kill();
        // What was written for a moment only is gone by now.
        first.retain(|file| file.exists());
        assert!(!first.is_empty(), "the queue lies in {}", queue.display());
        for file in &first {
            damage.apply(file);
        }
        pair.sink.defer_all(false);
        pair.home.program.start().expect("started");
        observe::until_delivered(pair.sink.maildir(), &[2, 3, 4]);
        assert!(pair.home.program.is_running());
        // It is met when its turn comes, which may be after the others'.
        let told = |said: &String| said.contains("damaged") || said.contains("set aside");
        observe::until("a word of the damaged one", || pair.home.program.said(), told);
    }
}

#[derive(Clone, Copy)]
enum Damage {
    Truncated,
    Flipped,
    Emptied,
}

impl Damage {
    fn apply(self, file: &Path) {
        let mut bytes = fs::read(file).expect("readable");
        match self {
            Self::Truncated => bytes.truncate(bytes.len() / 2),
            Self::Flipped => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x40;
            }
            Self::Emptied => bytes.clear(),
        }
        fs::write(file, bytes).expect("written");
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("known");
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn submit(pair: &Pair, number: u64) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    let sent = message::numbered(number, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
}
