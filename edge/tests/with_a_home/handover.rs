//! The promise behind 250, with a home that is there, away, silent, or breaks off.

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::wire::WireVerdict;
use gatepost_runtime::tunnel::TunnelError;

use crate::client::{Client, message};
use crate::edge::{World, until};
use crate::home::{Home, answer, body};

const ALICE: &str = "alice@example.org";
const PATIENT: &str = "60 s";
const IMPATIENT: &str = "300 ms";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_through_and_the_homes_reply_is_the_clients() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    for octets in [0, 4096, 64 * 1024, 64 * 1024 + 1, 1_000_000] {
        let sent = message(octets);
        let expected = sent.clone();
        let smtp = world.smtp();
        let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &sent).await });
        let (message, stream) = home.take().await;
        assert_eq!(message.body, expected);
        let front = String::from_utf8(message.seal.front.clone()).expect("text");
        assert!(front.contains("Received: from client.example ([127.0.0.1])\r\n\tby mail.example.org with ESMTP"));
        assert!(front.contains("for <alice@example.org>"), "{front}");
        assert_eq!(message.seal.verdict, WireVerdict::from(&Verdict { hops: 1, ..Verdict::default() }));
        answer(stream, &Reply::accepted("the home's words")).await;
        assert_eq!(client.await.expect("no panic"), "250 2.0.0 Accepted as the home's words");
    }
    assert_eq!(world.sealed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_home_is_the_clients_reply() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    let smtp = world.smtp();
    let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &message(100)).await });
    let (_, stream) = home.take().await;
    answer(stream, &Reply::malformed_message("not today")).await;
    assert_eq!(client.await.expect("no panic"), "554 5.6.0 not today");
    assert_eq!(world.sealed(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_home_gets_the_message_sealed_under_the_same_transfer_id() {
    let world = World::start(IMPATIENT);
    let mut home = Home::connect(&world).await;
    for octets in [1000, 200_000] {
        let sent = message(octets);
        let expected = sent.clone();
        let smtp = world.smtp();
        let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &sent).await });
        let (through, _stream) = home.take().await;
        assert!(client.await.expect("no panic").starts_with("250 2.0.0 Accepted as "));
        let listing = home.list().await;
        assert_eq!(listing.entries.iter().map(|item| item.transfer).collect::<Vec<_>>(), [through.transfer()]);
        let sealed = home.fetch(through.transfer()).await;
        assert_eq!((&sealed.request, &sealed.body), (&through.request, &expected));
        assert_eq!(sealed.seal, through.seal);
        home.acknowledge(through.transfer()).await;
        assert_eq!(world.sealed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_breaks_in_mid_message_costs_no_retry() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    for octets in [100_000, 400_000] {
        let sent = message(octets);
        let mut client = Client::connect(world.smtp()).await;
        client.begin(ALICE).await;
        client.send(&sent[..sent.len() * 3 / 4]).await;
        let through = home.next().await;
        home.session.close(TunnelError::Closed);
        world.until_connected(false).await;
        client.send(&sent[sent.len() * 3 / 4..]).await;
        assert!(client.say(".").await.starts_with("250 "));
        assert_eq!(world.sealed(), 1);
        home.reconnect(&world).await;
        let transfer = home.list().await.entries[0].transfer;
        let sealed = home.fetch(transfer).await;
        assert_eq!(sealed.request, through.request, "the same envelope under the same transfer id");
        assert_eq!(sealed.body, sent);
        home.acknowledge(transfer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_breaks_before_the_answer_costs_no_retry() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    let smtp = world.smtp();
    let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &message(5000)).await });
    let (through, stream) = home.take().await;
    home.session.close(TunnelError::Closed);
    drop(stream);
    assert!(client.await.expect("no panic").starts_with("250 "));
    home.reconnect(&world).await;
    assert_eq!(home.list().await.entries[0].transfer, through.transfer());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_home_is_away_nothing_readable_touches_the_disk() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    home.hang_up(&world).await;
    let (small, large) = (message(3000), message(700_000));
    let mut client = Client::connect(world.smtp()).await;
    for sent in [&small, &large] {
        assert!(client.deliver(ALICE, sent).await.starts_with("250 "));
    }
    assert_eq!(world.sealed(), 2);
    for (path, contents) in world.files() {
        for words in [&b"secret plaintext"[..], b"sender@world.example", b"Subject"] {
            let found = contents.windows(words.len()).any(|window| window == words);
            assert!(!found, "{} holds {}", path.display(), String::from_utf8_lossy(words));
        }
    }
    home.reconnect(&world).await;
    let transfers: Vec<_> = home.list().await.entries.iter().map(|item| item.transfer).collect();
    assert_eq!(home.fetch(transfers[0]).await.body, small, "oldest first");
    assert_eq!(home.fetch(transfers[1]).await.body, large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_defers_and_a_connected_home_does_not_need_it() {
    let world = World::start_with(PATIENT, "spool = \"250 KiB\"");
    let mut home = Home::connect(&world).await;
    let large = message(400_000);
    let (smtp, sent) = (world.smtp(), large.clone());
    let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &sent).await });
    let (through, stream) = home.take().await;
    assert_eq!(through.body, large);
    answer(stream, &Reply::accepted("through")).await;
    assert!(client.await.expect("no panic").starts_with("250 "));

    home.hang_up(&world).await;
    let mut client = Client::connect(world.smtp()).await;
    let reply = client.deliver(ALICE, &large).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(world.sealed(), 0);
    assert!(client.deliver(ALICE, &message(230_000)).await.starts_with("250 "), "what was refused takes no room");
    let reply = client.deliver(ALICE, &message(100_000)).await;
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    assert_eq!(world.sealed(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_reads_nothing_is_silent_too() {
    let world = World::start(IMPATIENT);
    let mut home = Home::connect(&world).await;
    let large = message(3_000_000);
    let (smtp, sent) = (world.smtp(), large.clone());
    let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &sent).await });
    let through = home.next().await;
    assert!(client.await.expect("no panic").starts_with("250 "));
    let listing = home.list().await;
    assert_eq!(listing.total, 1);
    let sealed = home.fetch(listing.entries[0].transfer).await;
    assert_eq!((sealed.request, sealed.body), (through.request, large));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_leaves_nothing_behind() {
    let world = World::start(PATIENT);
    let mut home = Home::connect(&world).await;
    let sent = message(400_000);
    let mut client = Client::connect(world.smtp()).await;
    client.begin(ALICE).await;
    client.send(&sent).await;
    let mut through = home.next().await;
    assert!(matches!(through.request, Request::Inbound(_)));
    drop(client);
    assert!(body(&mut through.stream).await.is_err(), "a message without its end is no message");
    assert_eq!(world.sealed(), 0);
    until(|| world.files().iter().all(|(path, _)| path.extension().is_none_or(|ending| ending != "tmp"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_home_was_ever_there_clients_are_asked_to_come_back() {
    let world = World::start(PATIENT);
    let mut client = Client::connect(world.smtp()).await;
    client.say("MAIL FROM:<sender@world.example>").await;
    assert!(client.say("RCPT TO:<alice@example.org>").await.starts_with("450 "));
    assert!(client.say("RCPT TO:<alice@elsewhere.example>").await.starts_with("550 5.7.1 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_goes_in_circles_is_refused_and_aborted() {
    let world = World::start(PATIENT);
    let _home = Home::connect(&world).await;
    let mut client = Client::connect(world.smtp()).await;
    let reply = client.deliver(ALICE, "Received: hop\r\n".repeat(101).as_bytes()).await;
    assert!(reply.starts_with("554 5.4.6 "), "{reply}");
    assert_eq!(world.sealed(), 0);
}
