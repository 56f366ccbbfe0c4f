//! Messages for mailboxes that a scripted server keeps, in every mood of its, through a real router and queue.

use std::time::Duration;

use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Shutdown;
use tokio::sync::{mpsc, watch};

use crate::delivery::config::Keepers;
use crate::delivery::lmtp::Servers;
use crate::delivery::lmtp::tests::{LmtpServer, Mood};
use crate::queue::tests as queued;
use crate::queue::{Bounce, Errand};
use crate::router::Origin;
use crate::router::tests::{House, account, arrival, client, world};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const GONE: &str = "gone@example.org";
const FULL: &str = "full@example.org";
const LATER: &str = "later@example.org";
const STRANDED: Errand = Errand::Stranded { is_junk: false };
const RECLAIMED: Errand = Errand::Reclaimed { is_junk: false };
const MARK: &str = "X-Spam-Flag: YES\n";

struct Story {
    house: House,
    lmtp: LmtpServer,
    folder: tempfile::TempDir,
    clock: gatepost_runtime::clock::Clock,
    /// How far the clock is turned while nothing happens.
    pace: Duration,
}

fn story(mood: Mood) -> Story {
    let folder = tempfile::tempdir().expect("a folder");
    let lmtp = LmtpServer::start(folder.path(), mood);
    let clock = queued::clock();
    let house = House::at(tempfile::tempdir().expect("a folder"), lmtp.keepers(), &clock);
    for address in [GONE, FULL, LATER] {
        house.accounts.add_account(address, None).expect("made");
    }
    Story { house, lmtp, folder, clock, pace: Duration::from_mins(1) }
}

impl Story {
    async fn send(&self, origin: Origin, recipients: &[&str]) -> u16 {
        let sender = if matches!(origin, Origin::Account { .. }) { ALICE } else { "x@example.com" };
        self.house.router.accept(arrival(origin, sender, recipients)).await.code()
    }

    /// Stops and starts: what is only in memory is gone.
    fn restarted(self, keepers: Keepers) -> Self {
        let Self { house: House { router, accounts, queue, state }, lmtp, folder, clock, pace } = self;
        drop((router, accounts, queue));
        Self { house: House::at(state, keepers, &clock), lmtp, folder, clock, pace }
    }

    /// Runs the queue, its events served, until it is empty; gives the bounces and whatever else it had to tell.
    async fn drain(&self, keepers: Keepers) -> Vec<Errand> {
        let (sender, mut events) = mpsc::channel::<Bounce>(1);
        let (_edges, connected) = watch::channel(Vec::new());
        let (shutdown, signal) = Shutdown::new();
        let servers = Servers::of(keepers, self.clock.clone());
        let resolver = Resolver::new(&[]);
        let running = tokio::spawn(self.house.queue.clone().run(connected, sender, resolver, servers, signal));
        let mut errands = Vec::new();
        let emptied = async {
            while self.house.queue.waiting() > 0 {
                let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(5), events.recv()).await else {
                    self.clock.turn(self.pace);
                    continue;
                };
                let origin = match event.errand {
                    Errand::Report => Origin::Bounce { transfer: event.id },
                    Errand::Stranded { is_junk } => Origin::Returned { transfer: event.id, stranded: true, is_junk },
                    Errand::Reclaimed { is_junk } => Origin::Returned { transfer: event.id, stranded: false, is_junk },
                };
                errands.push(event.errand.clone());
                let returned = crate::router::Arrival {
                    origin,
                    trace: event.trace,
                    envelope: event.envelope,
                    message: event.message,
                    received_unix_s: event.made_unix_s,
                };
                let _ = event.accepted.send(self.house.router.accept(returned).await);
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), emptied).await.is_ok();
        assert!(came, "the queue never empties: {:?}", self.house.queue);
        shutdown.end();
        let _ = running.await;
        errands
    }
}

#[tokio::test]
async fn what_the_server_says_is_what_the_sender_hears_and_what_was_promised_is_kept() {
    // Origin, recipients, reply, copies with the server at once, entries held.
    for (case, origin, recipients, code, stored, held) in [
        ("stored", world(1, false), &[ALICE, BOB][..], 250, 2, 0),
        ("nobody there", world(1, false), &[GONE], 550, 0, 0),
        ("no room", world(1, false), &[FULL], 552, 0, 0),
        ("all refused", world(1, false), &[GONE, FULL], 550, 0, 0),
        ("one of two", world(1, false), &[ALICE, FULL], 250, 1, 1),
        ("not yet", world(1, false), &[LATER], 250, 0, 1),
        ("refused and not yet", world(1, false), &[GONE, LATER], 250, 0, 1),
        ("spooled, nobody there", world(1, true), &[GONE], 250, 0, 1),
        ("spooled, no room", world(1, true), &[FULL], 250, 0, 1),
        ("submitted", account(1, false), &[BOB], 250, 1, 0),
        ("submitted, no room", account(1, false), &[FULL], 552, 0, 0),
        ("submitted, one of two", account(1, false), &[BOB, FULL], 250, 1, 1),
        ("submitted, elsewhere too", account(1, false), &[FULL, "x@example.com"], 250, 0, 2),
    ] {
        let story = story(Mood::Good);
        let came = story.send(origin, recipients).await;
        let stored_now = story.lmtp.stored().len();
        assert_eq!((came, stored_now, story.house.queue.waiting()), (code, stored, held), "{case}");
    }
}

#[tokio::test]
async fn an_unhappy_server_costs_nobody_a_message() {
    for mood in [Mood::Closed, Mood::DiesInData, Mood::DiesAfterDot, Mood::AnswersOne, Mood::Garbage] {
        let story = story(mood);
        assert_eq!(story.send(world(1, false), &[ALICE, BOB]).await, 250, "{mood:?}");
        assert_eq!(story.house.queue.waiting_local(), 1, "{mood:?}");
        let before = [ALICE, BOB].map(|name| story.lmtp.count(name));
        story.lmtp.set(Mood::Good);
        let keepers = story.lmtp.keepers();
        // Neither does a stop of ours.
        let story = story.restarted(keepers.clone());
        assert_eq!(story.drain(keepers).await, []);
        let after = [ALICE, BOB].map(|name| story.lmtp.count(name));
        for (before, after) in before.iter().zip(after) {
            // Twice only where it was stored and never said so.
            let told = mood == Mood::AnswersOne && *before == 1;
            assert_eq!(after, if told { 1 } else { before + 1 }, "{mood:?}");
        }
    }
}

#[tokio::test]
async fn a_hanging_up_server_gets_the_same_hand_over_once() {
    let story = story(Mood::DiesAfterDot);
    for spooled in [false, true, true] {
        assert_eq!(story.send(world(1, spooled), &[ALICE]).await, 250);
    }
    assert_eq!((story.lmtp.stored().len(), story.house.queue.waiting()), (1, 1));
}

#[tokio::test]
async fn what_strangers_sent_and_the_server_refuses_later_goes_to_the_postmaster() {
    let story = story(Mood::Closed);
    assert_eq!(story.send(world(1, false), &[GONE, BOB]).await, 250);
    story.lmtp.set(Mood::Good);
    assert_eq!(story.drain(story.lmtp.keepers()).await, [STRANDED]);
    assert_eq!((story.lmtp.count(BOB), story.lmtp.count(ALICE), story.lmtp.count(GONE)), (1, 1, 0));
    let stored = story.lmtp.stored();
    let stranded = stored.iter().find(|stored| stored.recipient == ALICE).expect("the postmaster's");
    assert!(stranded.text.starts_with("X-Undelivered-To: gone@example.org\n\t(550 5.1.1 nobody)\n"), "{stranded:?}");
}

#[tokio::test]
async fn a_full_mailbox_gets_what_was_promised_once_it_has_room_or_the_postmaster_does() {
    let story = Story { pace: Duration::from_hours(6), ..story(Mood::Good) };
    assert_eq!(story.send(world(1, true), &[FULL]).await, 250);
    assert_eq!(story.drain(story.lmtp.keepers()).await, [STRANDED], "after five days of trying");
    assert_eq!(story.lmtp.count(ALICE), 1);
    assert!(story.clock.unix_s() - queued::RECEIVED_UNIX_S >= 5 * 24 * 3600);
}

#[tokio::test]
async fn an_account_is_told_what_was_refused() {
    let story = story(Mood::Good);
    assert_eq!(story.send(account(1, false), &[BOB, GONE]).await, 250);
    assert_eq!(story.drain(story.lmtp.keepers()).await, [Errand::Report]);
    let stored = story.lmtp.stored();
    let report = stored.iter().find(|stored| stored.recipient == ALICE).expect("the report");
    assert!(report.text.contains("gone@example.org") && report.text.contains("550 5.1.1 nobody"), "{report:?}");
}

#[tokio::test]
async fn what_even_the_postmasters_mailbox_refuses_lies_in_a_maildir_here() {
    let story = story(Mood::Good);
    let mut settings = crate::accounts::tests::settings();
    settings.postmaster = queued::address(GONE);
    story.house.accounts.refresh(Some(settings)).expect("read");
    assert_eq!(story.send(world(1, true), &[GONE]).await, 250);
    assert_eq!(story.drain(story.lmtp.keepers()).await, [STRANDED]);
    let [kept] = &story.house.mail("example.org/gone")[..] else { panic!("one message") };
    assert!(kept.contains("X-Undelivered-To: gone@example.org"), "{kept}");
}

#[tokio::test]
async fn what_waits_for_a_server_that_is_not_asked_any_more_goes_into_maildirs() {
    let story = story(Mood::Closed);
    assert_eq!(story.send(world(1, false), &[ALICE, BOB]).await, 250);
    let story = story.restarted(Keepers::default());
    assert_eq!(story.drain(Keepers::default()).await, [RECLAIMED]);
    assert_eq!((story.house.mail("example.org/alice").len(), story.house.mail("example.org/bob").len()), (1, 1));
}

/// The same as of an edge that says it belongs in Junk.
fn junk(origin: Origin) -> Origin {
    let Origin::World { edge, transfer, spooled, client, .. } = origin else { panic!("of the world") };
    let verdict = Verdict { junk: Some("forged".to_owned()), ..Verdict::default() };
    Origin::World { edge, transfer, spooled, client, verdict: std::sync::Arc::new(verdict) }
}

#[tokio::test]
async fn what_belongs_in_junk_lies_there_also_if_it_had_to_wait_for_its_maildir() {
    let story = story(Mood::Good).restarted(Keepers::default());
    let folder = instead_of_bobs(&story);
    assert_eq!(story.send(junk(world(1, false)), &[ALICE, BOB]).await, 250);
    let story = story.restarted(Keepers::default());
    std::fs::remove_file(folder).expect("mended");
    assert_eq!(story.drain(Keepers::default()).await, [Errand::Reclaimed { is_junk: true }]);
    for mailbox in ["alice", "bob"] {
        let lies = |folder: &str| story.house.mail(&format!("example.org/{mailbox}{folder}")).len();
        assert_eq!((lies(""), lies("/.Junk")), (0, 1), "{mailbox}");
    }
}

#[tokio::test]
async fn a_server_hears_what_belongs_in_junk_also_if_it_was_down_when_it_came() {
    let story = story(Mood::Closed);
    assert_eq!(story.send(junk(world(1, false)), &[ALICE, BOB]).await, 250);
    assert_eq!(story.send(world(2, false), &[ALICE]).await, 250);
    let keepers = story.lmtp.keepers();
    let story = story.restarted(keepers);
    story.lmtp.set(Mood::Good);
    assert_eq!(story.drain(story.lmtp.keepers()).await, []);
    let marked = |address: &str| {
        let stored = story.lmtp.stored();
        let of_it: Vec<_> = stored.into_iter().filter(|stored| stored.recipient == address).collect();
        (of_it.len(), of_it.iter().filter(|stored| stored.text.starts_with(MARK)).count())
    };
    assert_eq!((marked(ALICE), marked(BOB)), ((2, 1), (1, 1)));
}

#[tokio::test]
async fn junk_that_no_mailbox_takes_lies_in_the_postmasters_junk() {
    let story = story(Mood::Closed);
    assert_eq!(story.send(junk(world(1, false)), &[GONE, BOB]).await, 250);
    story.lmtp.set(Mood::Good);
    assert_eq!(story.drain(story.lmtp.keepers()).await, [Errand::Stranded { is_junk: true }]);
    let stored = story.lmtp.stored();
    let stranded = stored.iter().find(|stored| stored.recipient == ALICE).expect("the postmaster's");
    assert!(stranded.text.starts_with(&format!("{MARK}X-Undelivered-To: gone@example.org")), "{stranded:?}");
}

#[tokio::test]
async fn a_disk_that_holds_nothing_promises_nothing() {
    let story = story(Mood::Closed);
    let queue = story.house.state.path().join("queue");
    std::fs::remove_dir_all(&queue).expect("removed");
    std::fs::write(&queue, "in the way").expect("written");
    assert_eq!(story.send(world(1, false), &[ALICE]).await, 451);
    std::fs::remove_file(&queue).expect("removed");
    std::fs::create_dir(&queue).expect("made");
    assert_eq!(story.send(world(1, false), &[ALICE]).await, 250);
    assert_eq!(story.house.queue.waiting(), 1);
    drop(story.folder);
}

#[tokio::test]
async fn a_repeat_after_a_stop_before_the_answers_is_delivered() {
    let story = story(Mood::Good);
    let mut work = arrival(world(1, false), "x@example.com", &[ALICE]);
    work.origin = Origin::World {
        edge: gatepost_protocol::pairing::NodeKey::from_bytes([5; 32]),
        transfer: TransferId([1; 16]),
        spooled: false,
        client: client(),
        verdict: std::sync::Arc::default(),
    };
    // The row as a stop between the intent and the answers leaves it.
    let ledger = story.house.router.inner.promises.ledger().clone();
    let hand_over = crate::router::ledger::HandOver::from_edge(
        gatepost_protocol::pairing::NodeKey::from_bytes([5; 32]),
        TransferId([1; 16]),
    );
    let plan = crate::router::ledger::Plan {
        handed: Some(crate::router::ledger::HandedOver::Open(crate::queue::QueueId([9; 16]))),
        ..crate::router::ledger::Plan::default()
    };
    ledger.begin(hand_over, work.trace, &plan, 1).wait().expect("noted");
    let keepers = story.lmtp.keepers();
    let story = story.restarted(keepers);
    assert_eq!(story.house.router.inner.promises.ledger().open_intents().expect("read").len(), 1, "the doubt stays");
    assert_eq!(story.house.router.accept(work).await.code(), 250);
    assert_eq!(story.lmtp.count(ALICE), 1);
    assert_eq!(story.house.router.inner.promises.ledger().open_intents().expect("read"), []);
}

/// A file where Bob's Maildir should be.
fn instead_of_bobs(story: &Story) -> std::path::PathBuf {
    let folder = story.house.state.path().join("mail/example.org/bob");
    std::fs::create_dir_all(folder.parent().expect("a parent")).expect("made");
    std::fs::write(&folder, "in the way").expect("written");
    folder
}

#[tokio::test]
async fn one_broken_maildir_costs_the_others_nothing_and_gets_its_copy_once_it_is_mended() {
    for origin in [world(1, false), world(1, true), account(1, false)] {
        let story = story(Mood::Good).restarted(Keepers::default());
        let folder = instead_of_bobs(&story);
        assert_eq!(story.send(origin, &[ALICE, BOB]).await, 250);
        assert_eq!(story.house.mail("example.org/alice").len(), 1);
        assert_eq!((story.house.queue.waiting(), story.house.queue.waiting_local()), (1, 1));
        std::fs::remove_file(folder).expect("mended");
        assert_eq!(story.drain(Keepers::default()).await, [RECLAIMED]);
        assert_eq!(story.house.mail("example.org/bob").len(), 1);
        assert_eq!(story.house.mail("example.org/alice").len(), 1);
    }
}

#[tokio::test]
async fn what_a_maildir_never_takes_is_the_postmasters_in_the_end_and_nobody_is_bounced() {
    let mut story = story(Mood::Good).restarted(Keepers::default());
    story.pace = Duration::from_hours(6);
    instead_of_bobs(&story);
    assert_eq!(story.send(world(1, false), &[ALICE, BOB]).await, 250);
    let errands = story.drain(Keepers::default()).await;
    assert_eq!(errands.last(), Some(&STRANDED));
    assert!(errands.iter().all(|errand| *errand != Errand::Report), "{errands:?}");
    assert_eq!(story.house.mail("example.org/alice").len(), 2, "Alice is the postmaster, too");
}

#[tokio::test]
async fn a_broken_maildir_and_a_server_in_trouble_are_both_waited_for() {
    let story = story(Mood::Closed);
    let folder = instead_of_bobs(&story);
    let keepers = || {
        let alone = story.lmtp.server();
        Keepers::domain_at("example.net", alone)
    };
    let carol = "carol@example.net";
    let mut settings = (*story.house.accounts.settings()).clone();
    settings.domains.push(gatepost_protocol::mail::address::Domain::parse("example.net").expect("valid"));
    story.house.accounts.refresh(Some(settings)).expect("taken");
    story.house.accounts.add_account(carol, None).expect("made");
    story.house.router.inner.servers.reload(keepers());
    assert_eq!(story.send(world(1, false), &[carol, BOB]).await, 250);
    assert_eq!(story.house.queue.waiting_local(), 1, "one entry for both");
    std::fs::remove_file(folder).expect("mended");
    story.lmtp.set(Mood::Good);
    story.drain(keepers()).await;
    assert_eq!((story.lmtp.count(carol), story.house.mail("example.org/bob").len()), (1, 1));
}
