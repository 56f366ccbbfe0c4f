//! Messages from everywhere, through a real router, up to real mailboxes and a real queue.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use gatepost_protocol::mail::envelope::{BodyKind, Notify};
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferOpen};
use gatepost_protocol::tunnel::verb::inbound::Credential;
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireVerdict};

use gatepost_runtime::random;

use super::intake::{Brought, Gathered, Gathering, Taken};
use super::ledger::Ledger;
use super::*;
use crate::accounts::book::Quota;
use crate::accounts::caps::Cap;
use crate::accounts::password::Scope;
use crate::database::Database;
use crate::delivery::config::Keepers;
use crate::delivery::maildir::Maildirs;
use crate::message::Body;
use crate::queue::Queue;
use crate::queue::command::{Command, Which};
use crate::queue::tests as queued;
use crate::reporting::Reporting;

fn edge() -> NodeKey {
    NodeKey::from_bytes([5; 32])
}

const TEXT: &str = "From: alice@example.org\r\nTo: x\r\nSubject: Hi\r\n\r\nHello\r\n";

pub(super) struct House {
    pub router: Router,
    pub accounts: Accounts,
    pub queue: Queue,
    pub state: tempfile::TempDir,
}

fn house() -> House {
    House::at(tempfile::tempdir().expect("a folder"), Keepers::default(), &queued::clock())
}

impl House {
    pub fn at(state: tempfile::TempDir, keepers: Keepers, clock: &Clock) -> Self {
        let accounts = crate::accounts::tests::open(state.path());
        let (settings, direct) = (queued::settings(), crate::queue::next_hop::Routes::default());
        let database = Database::open(state.path()).expect("opened");
        let (queue, _) = Queue::open(state.path(), database.clone(), settings, direct, clock.clone()).expect("opened");
        let feedback = Feedback::new(database.clone(), clock.clone());
        let reports = crate::reporting::config::RawReports::default().check(&[]);
        let reporting = Reporting::new(database.clone(), "home.example.org".into(), reports, clock.clone());
        let ledger = Ledger::new(database);
        let maildirs = Maildirs::new(state.path(), "home.example.org", clock.clone());
        let promises = Arc::new(Promises::new(maildirs, ledger, queue.clone(), clock.clone()));
        promises.settle_all().expect("settled");
        let servers = Servers::of(keepers, clock.clone());
        let router = {
            let signing = Signing::open(state.path(), &[], clock.clone()).expect("no keys");
            Router::new(
                "home.example.org".into(),
                accounts.clone(),
                promises,
                servers,
                signing,
                (feedback, reporting),
                clock.clone(),
            )
        };
        Self { router, accounts, queue, state }
    }

    pub fn mail(&self, folder: &str) -> Vec<String> {
        let path: PathBuf = self.state.path().join("mail").join(folder).join("new");
        let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
        entries.map(|entry| std::fs::read_to_string(entry.expect("read").path()).expect("text")).collect()
    }

    fn counts(&self) -> [usize; 4] {
        let count = |folder| self.mail(folder).len();
        [count("example.org/alice"), count("example.org/bob"), count("example.org/alice/.Junk"), self.queue.waiting()]
    }
}

fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse(sender).expect("valid"),
        recipients: recipients.iter().map(|text| Recipient::plain(Address::parse(text).expect("valid"))).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

pub(super) fn arrival(origin: Origin, sender: &str, recipients: &[&str]) -> Arrival {
    Arrival {
        origin,
        trace: TraceId::from_random(random::bytes()),
        envelope: envelope(sender, recipients),
        message: Message { front: Bytes::new(), body: Body::from(TEXT.as_bytes().to_vec()) },
        received_unix_s: queued::RECEIVED_UNIX_S,
    }
}

pub(super) fn client() -> Client {
    Client { address: std::net::IpAddr::from([192, 0, 2, 1]), helo: "client".into() }
}

pub(super) fn world(n: u8, spooled: bool) -> Origin {
    Origin::World { edge: edge(), transfer: TransferId([n; 16]), spooled, client: client(), verdict: Arc::default() }
}

pub(super) fn account(n: u8, spooled: bool) -> Origin {
    Origin::Account { login: "alice@example.org".into(), edge: Some((edge(), TransferId([n; 16]))), spooled }
}

#[tokio::test]
async fn a_delivery_here_is_told_to_an_account_that_asks_and_to_nobody_else() {
    let wants = Notify::On { success: true, failure: false, delay: false };
    for (case, origin, sender, notify, told) in [
        ("an account asks", account(1, false), "alice@example.org", wants, 1),
        ("it does not", account(1, false), "alice@example.org", Notify::Unspecified, 0),
        ("never", account(1, false), "alice@example.org", Notify::Never, 0),
        ("nobody asks", account(1, false), "", wants, 0),
        ("the world asks", world(1, false), "x@example.com", wants, 0),
        ("in our name", world(1, false), "alice@example.org", wants, 0),
    ] {
        let house = house();
        let mut message = arrival(origin, sender, &["bob@example.org"]);
        message.envelope.recipients[0].notify = notify;
        // A repeat is told of once.
        for _ in 0..2 {
            assert_eq!(house.router.accept(message.clone()).await.code(), 250, "{case}");
        }
        assert_eq!(house.counts(), [told, 1, 0, 0], "{case}");
        if told > 0 {
            let report = house.mail("example.org/alice").remove(0);
            for part in ["Return-Path: <>", "Action: delivered", "Final-Recipient: rfc822; bob@example.org"] {
                assert!(report.contains(part), "{part} in {report}");
            }
        }
    }
}

#[tokio::test]
async fn each_message_finds_its_place() {
    for (case, origin, sender, recipients, code, counts) in [
        ("inbound", world(1, false), "x@example.com", &["alice@example.org"][..], 250, [1, 0, 0, 0]),
        ("to two", world(1, false), "x@example.com", &["alice+a@example.org", "bob@example.org"], 250, [1, 1, 0, 0]),
        ("a bounce of the world", world(1, false), "", &["bob@example.org"], 250, [0, 1, 0, 0]),
        ("nobody", world(1, false), "x@example.com", &["nobody@example.org"], 550, [0, 0, 0, 0]),
        ("elsewhere", world(1, false), "x@example.com", &["x@example.net"], 550, [0, 0, 0, 0]),
        ("one of two", world(1, false), "x@example.com", &["nobody@example.org", "bob@example.org"], 250, [1, 1, 0, 0]),
        ("spooled, nobody", world(1, true), "x@example.com", &["nobody@example.org"], 250, [1, 0, 0, 0]),
        ("spooled, elsewhere", world(1, true), "x@example.com", &["x@example.net"], 250, [1, 0, 0, 0]),
        (
            "submission",
            account(1, false),
            "alice@example.org",
            &["bob@example.org", "x@example.com"],
            250,
            [0, 1, 0, 1],
        ),
        ("to nobody", account(1, false), "alice@example.org", &["nobody@example.org", "x@example.com"], 550, [0; 4]),
        ("under another's name", account(1, false), "bob@example.org", &["x@example.com"], 550, [0; 4]),
        ("from nobody", account(1, false), "", &["x@example.com"], 250, [0, 0, 0, 1]),
        // The account is told, in its own mailbox.
        ("spooled, under another's name", account(1, true), "bob@example.org", &["x@example.com"], 250, [1, 0, 0, 0]),
    ] {
        let house = house();
        let reply = house.router.accept(arrival(origin, sender, recipients)).await;
        assert_eq!((reply.code(), house.counts()), (code, counts), "{case}: {reply}");
    }
}

#[tokio::test]
async fn the_same_hand_over_is_kept_once_however_often_and_at_once_it_comes() {
    let house = house();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (router, spooled) = (house.router.clone(), n % 2 == 0);
        running.spawn(async move {
            let brought = arrival(world(1, spooled), "x@example.com", &["alice@example.org", "bob@example.org"]);
            router.accept(brought).await.code()
        });
    }
    while let Some(code) = running.join_next().await {
        assert_eq!(code.expect("no panic"), 250);
    }
    assert_eq!(house.counts(), [1, 1, 0, 0]);
    let other_edge = Origin::World {
        edge: NodeKey::from_bytes([6; 32]),
        transfer: TransferId([1; 16]),
        spooled: false,
        client: client(),
        verdict: Arc::default(),
    };
    house.router.accept(arrival(other_edge, "x@example.com", &["bob@example.org"])).await;
    assert_eq!(house.counts(), [1, 2, 0, 0], "another edge's transfer is another one");
}

#[tokio::test]
async fn a_refused_message_that_was_sealed_meanwhile_is_kept_by_the_postmaster() {
    let house = house();
    let refused = house.router.accept(arrival(world(1, false), "x@example.com", &["nobody@example.org"])).await;
    assert_eq!(refused.code(), 550);
    let spooled = house.router.accept(arrival(world(1, true), "x@example.com", &["nobody@example.org"])).await;
    assert_eq!((spooled.code(), house.counts()), (250, [1, 0, 0, 0]));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_or_junk() {
    let house = house();
    let mut settings = crate::accounts::tests::settings();
    settings.message_octets_max = 10;
    house.accounts.refresh(Some(settings)).expect("read");
    let send = |origin| house.router.accept(arrival(origin, "alice@example.org", &["alice@example.org"]));
    assert_eq!(send(world(1, false)).await.code(), 552);
    assert_eq!(send(account(2, false)).await.code(), 552);
    assert_eq!(house.counts(), [0; 4]);
    assert_eq!(send(world(3, true)).await.code(), 250);
    assert_eq!(house.counts(), [0, 0, 1, 0]);
}

#[test]
fn what_leads_to_too_many_mailboxes_is_refused_or_the_postmaster_hears_of_it() {
    let house = house();
    let mut addresses = house.accounts.book().addresses.clone();
    let crowd: Vec<String> = (0..=COPIES_MAX).map(|n| format!("m{n:05}@example.org")).collect();
    addresses.mailboxes.extend(crowd.iter().cloned());
    addresses.aliases.insert("crowd@example.org".into(), crowd.into_iter().map(Arc::from).collect());
    addresses.aliases.insert("one@example.org".into(), ["m00000@example.org".into()].into());
    let sort = |names: &[&str]| {
        let list = envelope("", names).recipients;
        recipients::sort(&addresses, &list)
    };
    let sorted = sort(&["crowd@example.org", "one@example.org", "bob@example.org"]);
    assert_eq!(sorted.local.len(), COPIES_MAX);
    let beyond: Vec<String> = sorted.beyond.iter().map(|recipient| recipient.address.to_string()).collect();
    assert_eq!(beyond, ["crowd@example.org", "bob@example.org"], "one has its copy already");
    assert_eq!(
        house
            .router
            .inner
            .place_from_world(sort(&["crowd@example.org"]), Undone::default(), false)
            .err()
            .map(|reply| reply.code()),
        Some(554)
    );
    let kept = house.router.inner.place_from_world(sorted, Undone::default(), true).expect("can't be refused any more");
    assert_eq!(kept.inbox.len(), COPIES_MAX + 1);
    assert_eq!(kept.inbox.last().map(|copy| copy.mailbox.as_str()), Some("alice@example.org"));
}

#[tokio::test]
async fn what_an_edge_puts_in_front_does_not_count_against_the_limit() {
    let house = house();
    let mut settings = crate::accounts::tests::settings();
    settings.message_octets_max = TEXT.len() as u64;
    house.accounts.refresh(Some(settings)).expect("read");
    for origin in [world(1, false), world(2, true), account(3, false)] {
        let mut brought = arrival(origin, "alice@example.org", &["alice@example.org"]);
        brought.message.front = Bytes::from_static(b"Received: from the edge\r\n");
        let reply = house.router.accept(brought).await;
        assert_eq!(reply.code(), 250, "{reply}");
    }
    assert_eq!(house.counts(), [3, 0, 0, 0]);
}

#[tokio::test]
async fn delivery_says_from_whom_and_to_whom() {
    let house = house();
    house.accounts.add_alias("team@example.org", &["bob@example.org".into()]).expect("made");
    let mut brought = arrival(world(1, false), "x@example.com", &["team+a@example.org", "alice@example.org"]);
    brought.message.front = Bytes::from_static(b"Received: from the edge\r\n");
    house.router.accept(brought).await;
    let [alice] = &house.mail("example.org/alice")[..] else { panic!("one message") };
    let start = "Return-Path: <x@example.com>\r\nDelivered-To: alice@example.org\r\nReceived: from the edge\r\n";
    assert!(alice.starts_with(start), "{alice}");
    assert!(alice.ends_with(TEXT), "the message itself is not touched");
    let [bob] = &house.mail("example.org/bob")[..] else { panic!("one message") };
    let start =
        "Return-Path: <x@example.com>\r\nDelivered-To: bob@example.org\r\nX-Original-To: team+a@example.org\r\n";
    assert!(bob.starts_with(start), "{bob}");
}

#[tokio::test]
async fn a_refused_spooled_submission_is_reported_once_with_its_reason() {
    let house = house();
    for _ in 0..2 {
        let brought = arrival(account(1, true), "bob@example.org", &["x@example.com"]);
        assert_eq!(house.router.accept(brought).await.code(), 250);
    }
    let [report] = &house.mail("example.org/alice")[..] else { panic!("one report") };
    for part in ["Return-Path: <>", "bob@example.org does not belong to this login", "x@example.com", "Subject: Hi"] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[tokio::test]
async fn recipients_are_checked_as_they_are_named() {
    let house = house();
    for (address, good) in
        [("bob@example.org", true), ("bob+x@example.org", true), ("x@example.com", true), ("nobody@example.org", false)]
    {
        let address = Address::parse(address).expect("valid");
        assert_eq!(house.router.check_recipient(&address).await.is_ok(), good, "{address}");
    }
}

fn brought(n: u8, credential: Option<Credential>) -> Brought {
    let open = TransferOpen {
        transfer: TransferId([n; 16]),
        trace: [n; 10],
        envelope: WireEnvelope::from(&envelope("alice@example.org", &["x@example.com"])),
        client: WireClient {
            address: std::net::IpAddr::from([192, 0, 2, 1]),
            helo: "client".into(),
            with: "ESMTPSA".into(),
            tls: None,
        },
        received_unix_s: queued::RECEIVED_UNIX_S,
    };
    Brought { open, credential }
}

fn whole() -> (Message, Verdict) {
    (message(), Verdict::default())
}

fn message() -> Message {
    Message { front: Bytes::new(), body: Body::from(TEXT.as_bytes().to_vec()) }
}

#[tokio::test]
async fn a_lying_edge_gets_nothing_queued() {
    let house = house();
    for (n, lie) in [
        Credential::Grant([9; 16]),
        Credential::Password { login: "alice@example.org".into(), password: b"guess".to_vec() },
        Credential::Password { login: "mallory@example.com".into(), password: b"guess".to_vec() },
    ]
    .into_iter()
    .enumerate()
    {
        let n = u8::try_from(n).expect("small");
        let live =
            intake::take_live(&house.router, &house.accounts, edge(), brought(n, Some(lie.clone())), whole()).await;
        assert!(!live.expect("well formed").is_positive());
        let spooled =
            intake::take_spooled(&house.router, &house.accounts, edge(), brought(n + 10, Some(lie)), whole()).await;
        assert!(matches!(spooled, Ok(Taken::Answered(_) | Taken::Nobodys)));
        assert_eq!(house.queue.waiting(), 0);
    }
    // Only the owner of the account that was named heard of it, once.
    assert_eq!(house.counts(), [1, 0, 0, 0]);
}

#[tokio::test]
async fn what_a_login_proved_is_sent_live_and_from_the_spool() {
    let house = house();
    let secret = house.accounts.add_app_password("alice@example.org", "phone", Scope::Submission).expect("made");
    let password = house.accounts.book().accounts["alice@example.org"].passwords[1].id;
    let grant = |edge| {
        house.accounts.grants().issue([1; 16], edge, "alice@example.org".into(), password, queued::clock().now());
    };
    let live = |n| {
        let brought = brought(n, Some(Credential::Grant([1; 16])));
        intake::take_live(&house.router, &house.accounts, edge(), brought, whole())
    };
    grant(NodeKey::from_bytes([6; 32]));
    assert_eq!(live(1).await.expect("well formed").code(), 451, "a grant for another edge");
    grant(edge());
    assert_eq!(live(1).await.expect("well formed").code(), 250);
    let sealed = Credential::Password { login: "alice@example.org".into(), password: secret.expose().to_vec() };
    let spooled = intake::take_spooled(&house.router, &house.accounts, edge(), brought(2, Some(sealed)), whole()).await;
    assert!(matches!(spooled, Ok(Taken::Answered(reply)) if reply.is_positive()));
    assert_eq!(house.queue.waiting(), 2);
}

#[tokio::test]
async fn what_arrives_is_what_was_sent_or_nothing() {
    let incoming = tempfile::tempdir().expect("a folder");
    let incoming: Arc<Path> = incoming.path().into();
    let mut tally = Tally::default();
    tally.add(TEXT.as_bytes());
    let seal = tally.seal(WireVerdict::default(), b"X-Front: 1\r\n".to_vec());
    let gather = async |text: &'static str, octets_max: u64, end: TransferEnd| {
        let mut gathering = Gathering::new(Arc::clone(&incoming), octets_max);
        gathering.add(Bytes::from_static(text.as_bytes())).await.expect("taken");
        gathering.end(end).await
    };
    let whole = || TransferEnd::Whole(seal.clone());
    let Ok(Gathered::Whole(message, _)) = gather(TEXT, 1000, whole()).await else { panic!("whole") };
    assert_eq!(message.octets(), (TEXT.len() + 12) as u64);
    let exactly = TEXT.len() as u64;
    assert!(matches!(gather(TEXT, exactly, whole()).await, Ok(Gathered::Whole(..))));
    assert!(matches!(gather(TEXT, exactly - 1, whole()).await, Ok(Gathered::TooBig)));
    assert!(matches!(gather(TEXT, 1000, TransferEnd::Abort).await, Ok(Gathered::Aborted)));
    assert!(gather("something else", 1000, whole()).await.is_err());
}

#[tokio::test]
async fn what_comes_back_is_refused_or_the_postmasters_and_never_vanishes() {
    let text = |fields: &str| format!("{fields}Subject: Hi\r\n\r\nHello\r\n");
    let bob = "Delivered-To: Bob@example.org\r\n";
    let stranger = "Delivered-To: someone@example.com\r\nDelivered-To: alice@example.org\r\n";
    let hops = "Received: x\r\n".repeat(101);
    for (case, fields, spooled, recipients, code, counts) in [
        ("comes back", bob, false, &["bob@example.org"][..], 554, [0, 0, 0, 0]),
        ("comes back by a subaddress", bob, false, &["bob+x@example.org"], 554, [0, 0, 0, 0]),
        ("one of two comes back", bob, false, &["bob@example.org", "alice@example.org"], 250, [1, 0, 0, 0]),
        ("others' past is nothing to us", stranger, false, &["bob@example.org"], 250, [0, 1, 0, 0]),
        ("comes back from the spool", bob, true, &["bob@example.org"], 250, [1, 0, 0, 0]),
        ("the postmaster's own, from the spool", stranger, true, &["alice@example.org"], 250, [1, 0, 0, 0]),
        ("endless", &hops, false, &["bob@example.org"], 554, [0, 0, 0, 0]),
        ("endless, from the spool", &hops, true, &["bob@example.org"], 250, [1, 0, 0, 0]),
        ("a forward that came back", "Delivered-To: away@example.org\r\n", false, &["away@example.org"], 554, [0; 4]),
        (
            "a forward that came back, spooled",
            "Delivered-To: away@example.org\r\n",
            true,
            &["away@example.org"],
            250,
            [1, 0, 0, 0],
        ),
        ("a forward", "", false, &["away@example.org"], 250, [0, 0, 0, 1]),
    ] {
        let house = house();
        house.accounts.add_alias("away@example.org", &["x@example.com".into()]).expect("made");
        let mut brought = arrival(world(1, spooled), "x@example.net", recipients);
        brought.message.body = Body::from(text(fields).into_bytes());
        let reply = house.router.accept(brought).await;
        assert_eq!((reply.code(), house.counts()), (code, counts), "{case}: {reply}");
    }
}

#[tokio::test]
async fn an_account_over_its_cap_is_told_and_what_waited_at_an_edge_is_held() {
    let house = house();
    house.accounts.set_cap("alice@example.org", Some(Cap { hourly: 3, daily: 3 })).expect("set");
    let elsewhere = ["a@example.com", "b@example.com"];
    let sent = |origin, recipients: &[&str]| house.router.accept(arrival(origin, "alice@example.org", recipients));
    assert_eq!(sent(account(1, false), &elsewhere).await.code(), 250);
    let again = sent(account(1, false), &elsewhere).await;
    assert_eq!(again.code(), 250, "the same again counts once: {again}");
    let over = sent(account(2, false), &elsewhere).await;
    assert_eq!(over.code(), 450, "{over}");
    assert!(over.to_string().contains("3 recipients in an hour"), "{over}");
    assert_eq!(sent(account(3, false), &["bob@example.org"]).await.code(), 250, "whoever is here does not count");
    assert_eq!(sent(account(4, true), &elsewhere).await.code(), 250, "it was promised at the edge");
    let list = Command::List { which: Which::All, skip: 0, limit: 10 };
    let queue = house.queue.command(list).expect("listed");
    let held: Vec<_> = queue["messages"].as_array().expect("a list").iter().map(|one| one["held"].clone()).collect();
    assert_eq!(held.iter().filter(|held| held.is_null()).count(), 1, "{held:?}");
    assert_eq!(
        held.iter().filter(|held| held.as_str().is_some_and(|why| why.contains("alice"))).count(),
        1,
        "{held:?}"
    );
    assert_eq!(sent(account(5, false), &["c@example.com"]).await.code(), 250, "what was refused was not counted");
}

#[tokio::test]
async fn a_full_mailbox_is_told_while_the_sender_listens_and_stored_once_it_was_promised() {
    let octets = TEXT.len() as u64;
    for (case, quota, origin, recipients, code, counts) in [
        ("room", 200, world(1, false), &["bob@example.org"][..], 250, [0, 2, 0, 0]),
        ("no room", 150, world(1, false), &["bob@example.org"], 452, [0, 1, 0, 0]),
        ("never", octets - 1, world(1, false), &["bob@example.org"], 552, [0, 1, 0, 0]),
        ("another has room", octets, world(1, false), &["bob@example.org", "alice@example.org"], 250, [1, 2, 0, 0]),
        ("promised", octets, world(1, true), &["bob@example.org"], 250, [0, 2, 0, 0]),
        ("postmaster", octets, world(1, false), &["postmaster@example.org"], 250, [1, 1, 0, 0]),
        ("submitted", octets, account(1, false), &["bob@example.org"], 552, [0, 1, 0, 0]),
        ("submitted, promised", octets, account(1, true), &["bob@example.org"], 250, [0, 2, 0, 0]),
        (
            "submitted, elsewhere too",
            octets,
            account(1, false),
            &["bob@example.org", "x@example.com"],
            250,
            [0, 2, 0, 1],
        ),
    ] {
        let house = house();
        let first = house.router.accept(arrival(world(9, false), "x@example.com", &["bob@example.org"])).await;
        assert_eq!(first.code(), 250);
        house.accounts.set_quota("bob@example.org", Some(Quota::Octets(quota))).expect("set");
        if case == "postmaster" {
            house.accounts.set_quota("alice@example.org", Some(Quota::Octets(1))).expect("set");
        }
        let sender = if matches!(origin, Origin::Account { .. }) { "alice@example.org" } else { "x@example.com" };
        let reply = house.router.accept(arrival(origin, sender, recipients)).await;
        assert_eq!((reply.code(), house.counts()), (code, counts), "{case}: {reply}");
    }
}

#[tokio::test]
async fn who_makes_room_gets_mail_again_at_once() {
    let house = house();
    let send = |n| house.router.accept(arrival(world(n, false), "x@example.com", &["bob@example.org"]));
    house.accounts.set_quota("bob@example.org", Some(Quota::Octets(150))).expect("set");
    assert_eq!((send(1).await.code(), send(2).await.code()), (250, 452));
    let new = house.state.path().join("mail/example.org/bob/new");
    for file in std::fs::read_dir(new).expect("read") {
        std::fs::remove_file(file.expect("read").path()).expect("removed");
    }
    assert_eq!(send(3).await.code(), 250);
}
