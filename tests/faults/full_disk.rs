//! No room left, at home or at the edge: senders are told to come back, nothing is lost.

use gatepost_tests::client::Client;
use gatepost_tests::client::load::{Load, Outcome};
use gatepost_tests::fault::small_disk::SmallDisk;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_exactly_once, load, started};

const BOB: &str = "bob@example.org";
const MEBIBYTE: u64 = 1024 * 1024;

#[test]
fn a_full_disk_at_home_defers_and_recovers() {
    let disk = SmallDisk::mount(24 * MEBIBYTE).expect("a small disk");
    let mut options = Options::story();
    options.home_state = Some(disk.path().join("home"));
    let pair = started(&options);
    assert_eq!(deliver(&pair, 1), 250);
    let filler = disk.fill().expect("filled");
    let code = deliver(&pair, 2);
    // The home says it has no room, or the edge seals: both are promises that can be kept.
    assert!(code == 452 || code == 451 || code == 250, "{code}");
    std::fs::remove_file(filler).expect("removed");
    let expected: &[u64] = if code == 250 { &[1, 2] } else { &[1] };
    observe::until_delivered(&pair.maildir(ALICE), expected);
    assert_eq!(deliver(&pair, 3), 250);
    let expected: &[u64] = if code == 250 { &[1, 2, 3] } else { &[1, 3] };
    observe::until_delivered(&pair.maildir(ALICE), expected);
}

#[test]
fn a_full_disk_at_the_edge_while_the_home_is_away_defers_and_recovers() {
    let disk = SmallDisk::mount(24 * MEBIBYTE).expect("a small disk");
    let mut options = Options::story().edge_set("limits.disk_reserve=1 MiB");
    options.edge_state = Some(disk.path().join("edge"));
    let mut pair = started(&options);
    pair.home.program.kill();
    pair.wait_until_down();
    assert_eq!(deliver(&pair, 1), 250);
    let filler = disk.fill().expect("filled");
    assert_eq!(deliver(&pair, 2), 452, "what can't be kept is not promised");
    std::fs::remove_file(filler).expect("removed");
    assert_eq!(deliver(&pair, 3), 250);
    pair.home.program.start().expect("started");
    observe::until_delivered(&pair.maildir(ALICE), &[1, 3]);
}

#[test]
fn a_full_spool_is_like_a_full_disk() {
    let mut pair = started(&Options::story().edge_set("limits.spool=200 KiB"));
    pair.home.program.kill();
    pair.wait_until_down();
    let mut taken = Vec::new();
    let mut refused = 0;
    for number in 1..=100 {
        match deliver(&pair, number) {
            250 => taken.push(number),
            452 => refused += 1,
            code => panic!("{code}"),
        }
    }
    assert!(!taken.is_empty() && refused > 0, "{} taken, {refused} refused", taken.len());
    pair.home.program.start().expect("started");
    observe::until_delivered(&pair.maildir(ALICE), &taken);
}

#[test]
fn a_full_disk_under_one_mailbox_defers_nobody_elses_mail() {
    let disk = SmallDisk::mount(MEBIBYTE).expect("a small disk");
    let mut options = Options::story().home_set("queue.retry=[\"200 ms\"]");
    options.accounts =
        [ALICE, BOB].map(|address| (address.to_owned(), "a password of some length".to_owned())).to_vec();
    let mut pair = started(&options);
    let mailbox = pair.maildir(BOB);
    std::fs::remove_dir_all(&mailbox).expect("removed");
    std::os::unix::fs::symlink(disk.path(), &mailbox).expect("linked");
    assert_eq!(deliver_to(&pair, 1, &[ALICE, BOB]), 250);
    let filler = disk.fill().expect("filled");
    assert_eq!(deliver_to(&pair, 2, &[ALICE, BOB]), 250, "Alice has room");
    assert_eq!(deliver_to(&pair, 3, &[BOB]), 452, "nobody has");
    observe::until_delivered(&pair.maildir(ALICE), &[1, 2]);
    let queue = pair.home.program.ask(&["queue", "list"]).expect("listed");
    assert!(queue.contains(BOB) && !queue.contains(ALICE), "{queue}");
    // What waits is durable.
    pair.home.program.kill();
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    std::fs::remove_file(filler).expect("removed");
    observe::until("nothing to wait any more", || pair.queued().ok(), |queued| *queued == Some(0));
    observe::until_delivered(&mailbox, &[1, 2]);
    observe::until_delivered(&pair.maildir(ALICE), &[1, 2]);
}

/// Many who write at once while the home is away: whoever hears 250 finds it there, nobody else. Gives the pair, the
/// home still away.
fn crowd(options: Options) -> (Pair, Outcome) {
    let mut pair = started(&options.edge_set("limits.connections_per_address=200"));
    pair.home.program.kill();
    pair.wait_until_down();
    let load = Load { sessions: 40, octets: 16 * 1024, ..load(&pair, 1, 600) };
    let outcome = load.run().expect("the load runs");
    assert!(!outcome.accepted.is_empty() && !outcome.refused.is_empty(), "the bound was not reached: {outcome:?}");
    for (number, reply) in &outcome.refused {
        assert!(reply.starts_with("452 4.3.1"), "number {number}: {reply}");
    }
    assert_eq!(pair.spooled().expect("status"), outcome.accepted.len() as u64);
    (pair, outcome)
}

#[test]
fn a_crowd_at_the_spools_quota_is_promised_no_more_than_there_is_room_for() {
    let quota = 4 * MEBIBYTE;
    let (mut pair, outcome) = crowd(Options::story().edge_set("limits.spool=4 MiB"));
    let status = pair.edge().program.ask_json(&["status", "--json"]).expect("status");
    let octets = status["homes"][0]["spool"]["octets"].as_u64().expect("octets");
    assert!(octets <= quota && octets > quota - 256 * 1024, "{octets}: neither beyond it nor far from it");
    pair.home.program.start().expect("started");
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
fn a_crowd_at_the_disks_reserve_is_promised_no_more_than_there_is_room_for() {
    let disk = SmallDisk::mount(24 * MEBIBYTE).expect("a small disk");
    let mut options = Options::story().edge_set("limits.disk_reserve=20 MiB");
    options.edge_state = Some(disk.path().join("edge"));
    let (mut pair, outcome) = crowd(options);
    let free = gatepost_runtime::durable::free_octets(disk.path()).expect("measured");
    // What is no mail, such as the journal of events, is beside it.
    assert!(free > 19 * MEBIBYTE, "{free} octets are left");
    pair.home.program.start().expect("started");
    expect_exactly_once(&mut pair, &outcome);
}

#[test]
fn what_is_announced_as_larger_than_the_room_left_is_refused_at_mail() {
    let mut pair = started(&Options::story().edge_set("limits.spool=200 KiB"));
    pair.home.program.kill();
    pair.wait_until_down();
    let door = pair.edge().doors.smtp;
    let at_mail = |size: u64| {
        let mut client = Client::greeted(door).expect("greeted");
        let answer = client.ask(&format!("MAIL FROM:<{STRANGER}> SIZE={size}")).expect("answered");
        format!("{} {}", answer.code, answer.text())
    };
    assert!(at_mail(100 * 1024).starts_with("250"));
    assert!(at_mail(300 * 1024).starts_with("452 4.3.1"), "{}", at_mail(300 * 1024));
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    assert!(at_mail(300 * 1024).starts_with("250"), "the home has room");
}

/// The first reply that settles it.
fn deliver(pair: &Pair, number: u64) -> u16 {
    deliver_to(pair, number, &[ALICE])
}

fn deliver_to(pair: &Pair, number: u64, recipients: &[&str]) -> u16 {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let mut commands = vec![format!("MAIL FROM:<{STRANGER}>")];
    commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
    commands.push("DATA".to_owned());
    for command in commands {
        let answer = client.ask(&command).expect("answered");
        if answer.code >= 400 {
            return answer.code;
        }
    }
    client.send(&message::stuffed(&message::numbered(number, STRANGER, ALICE, 20_000))).expect("sent");
    client.answer().expect("answered").code
}
