//! What a home may not do.

use std::io::ErrorKind;

use gatepost_edge::listeners::tunnel::LIMITS;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::hello::Refusal;
use gatepost_protocol::tunnel::transfer::{TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::authenticate::{AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::inbound::{Handed, Inbound};
use gatepost_protocol::tunnel::verb::relay::{AttemptId, Relay, RelayStep, WireHop};
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireOutcome};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::tunnel::{self, TunnelError};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::edge::{WAIT_MAX, World};
use crate::home::Home;

pub fn envelope(from: &str, to: &[&str]) -> WireEnvelope {
    let recipient = |to: &&str| Recipient::plain(Address::parse(to).expect("valid"));
    WireEnvelope::from(&Envelope {
        reverse_path: ReversePath::parse(from).expect("valid"),
        recipients: to.iter().map(recipient).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_of_the_edge_are_not_the_homes() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let client = WireClient { address: [127, 0, 0, 1].into(), helo: "x".into(), with: "SMTP".into(), tls: None };
    let open = TransferOpen {
        transfer: TransferId([1; 16]),
        trace: [1; 10],
        envelope: envelope("", &["alice@example.org"]),
        client,
        received_unix_s: 0,
    };
    let inbound = Request::Inbound(Box::new(Inbound { open }));
    assert!(home.ask::<Handed>(&inbound).await.is_err());
    let authenticate = Request::Authenticate(Authenticate {
        mechanism: "PLAIN".into(),
        initial: None,
        exporter: None,
        client: [127, 0, 0, 1].into(),
    });
    assert!(home.ask::<AuthStep>(&authenticate).await.is_err());
    assert_eq!(home.list().await.total, 0, "the session lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_sends_as_its_own_domains_only() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let relay = Request::Relay(Box::new(Relay {
        attempt: AttemptId([1; 16]),
        trace: [1; 10],
        envelope: envelope("bob@stolen.example", &["x@world.example", "y@world.example"]),
        octets: 10,
        eight_bit: false,
        hop: WireHop::Domain("world.example".into()),
    }));
    let RelayStep::Ended(done, _) = home.ask(&relay).await.expect("answered") else { panic!("sent as somebody else") };
    assert_eq!(done.outcomes.len(), 2);
    let WireOutcome::Refused(reply) = done.outcomes[0].clone() else { panic!("{done:?}") };
    assert_eq!(Reply::from(reply), Reply::sender_not_of_home("bob@stolen.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_paired_is_told_so() {
    let world = World::start("60 s");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stranger = Identity::load_or_create(&directory.path().join("key.pem")).expect("an identity");
    let address = world.tunnel().to_string();
    let keys = [world.edge_key()];
    let dialled = Box::pin(tunnel::dial(&stranger, "stranger", &address, &keys, Clock::real())).await;
    match dialled.map(|_| ()) {
        Err(TunnelError::Refused(Refusal::NotPaired { got })) => assert_eq!(&got, stranger.key().as_bytes()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_holds_few_places_before_it_is_known_and_none_by_its_sessions() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    world.until_connected(true).await;
    assert_eq!(home.list().await.total, 0, "its session is whole and counts no more");
    // Who says nothing is held until the handshake's time is up; who is one too many is closed before.
    let mut strangers = Vec::new();
    for _ in 0..=LIMITS.connections_per_address_max {
        strangers.push(TcpStream::connect(world.tunnel()).await.expect("connected"));
    }
    let mut last = strangers.pop().expect("one too many");
    let _ = timeout(WAIT_MAX, last.read(&mut [0])).await.expect("turned away");
    for stranger in strangers {
        let held = stranger.try_read(&mut [0]);
        assert!(held.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{held:?}");
    }
}
