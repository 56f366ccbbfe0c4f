//! Sealed mail across restarts, and its way home.

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::spool::{SpoolEnd, SpoolRequest};

use crate::client::{Client, message};
use crate::edge::World;
use crate::home::{Home, answer};

const ALICE: &str = "alice@example.org";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_while_the_home_is_away_recipients_and_mail_are_known() {
    let mut world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    home.hang_up(&world).await;
    let first = message(2000);
    assert!(Client::connect(world.smtp()).await.deliver(ALICE, &first).await.starts_with("250 "));
    world.stop_edge().await;
    world.start_edge();
    let mut client = Client::connect(world.smtp()).await;
    client.say("MAIL FROM:<sender@world.example>").await;
    assert!(client.say("RCPT TO:<nobody@example.org>").await.starts_with("550 5.1.1 "));
    assert!(client.say("RCPT TO:<x@stolen.example>").await.starts_with("550 5.7.1 "));
    client.say("RSET").await;
    let second = message(3000);
    assert!(client.deliver(ALICE, &second).await.starts_with("250 "));
    home.reconnect(&world).await;
    let transfers: Vec<_> = home.list().await.entries.iter().map(|item| item.transfer).collect();
    assert_eq!(home.fetch(transfers[0]).await.body, first);
    assert_eq!(home.fetch(transfers[1]).await.body, second);
    home.acknowledge(transfers[0]).await;
    // A lost answer is asked for again.
    home.acknowledge(transfers[0]).await;
    world.stop_edge().await;
    world.start_edge();
    assert_eq!(world.sealed(), 1, "what was acknowledged is gone for good, the rest is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_mail_passes_a_fetch_that_nobody_reads() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    home.hang_up(&world).await;
    let large = message(5_000_000);
    assert!(Client::connect(world.smtp()).await.deliver(ALICE, &large).await.starts_with("250 "));
    home.reconnect(&world).await;
    let transfer = home.list().await.entries[0].transfer;
    let mut unread = home.session.open(&Request::Spool(SpoolRequest::Fetch(transfer))).await.expect("open");
    unread.flush().await.expect("sent");
    let smtp = world.smtp();
    let client = tokio::spawn(async move { Client::connect(smtp).await.deliver(ALICE, &message(1000)).await });
    let (_, stream) = home.take().await;
    answer(stream, &Reply::accepted("new")).await;
    assert!(client.await.expect("no panic").starts_with("250 "));
    drop(unread);
    assert_eq!(home.fetch(transfer).await.body, large);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_so() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let request = Request::Spool(SpoolRequest::Fetch(TransferId([9; 16])));
    assert_eq!(home.ask::<SpoolEnd>(&request).await.expect("answered"), SpoolEnd::Unknown);
    home.acknowledge(TransferId([9; 16])).await;
}
