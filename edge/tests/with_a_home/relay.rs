//! `Relay` and `Attempt`, to a mail host that is played here.

use std::net::SocketAddr;

use bytes::Bytes;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{
    AttemptId, AttemptRequest, AttemptState, Relay, RelayDone, RelayFacts, RelayStep, WireHop, WireHopTls,
};
use gatepost_protocol::tunnel::wire::{WireOutcome, WireVerdict};
use gatepost_runtime::tunnel::Stream;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admission::envelope;
use crate::client::message;
use crate::edge::{WAIT_MAX, World};
use crate::home::Home;
use crate::relay_by_mx::hosts_dns;

const ATTEMPT: AttemptId = AttemptId([3; 16]);

/// A mail host for one connection: refuses `bad@`, takes the rest. Gives what it got between DATA
/// and the dot, or `None` if no dot came.
async fn host() -> (SocketAddr, oneshot::Receiver<Option<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (got, result) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let _ = got.send(converse(stream).await);
    });
    (address, result)
}

async fn converse(stream: TcpStream) -> Option<Vec<u8>> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx.world.example\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let reply = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => "250-mx.world.example\r\n250 PIPELINING\r\n",
            "RCPT" if line.contains("bad@") => "550 5.1.1 no bad people here\r\n",
            "DATA" => "354 go ahead\r\n",
            _ => "250 2.0.0 fine\r\n",
        };
        stream.write_all(reply.as_bytes()).await.ok()?;
        if reply.starts_with("354") {
            break;
        }
    }
    let mut body = Vec::new();
    loop {
        let start = body.len();
        if stream.read_until(b'\n', &mut body).await.ok()? == 0 {
            return None;
        }
        if &body[start..] == b".\r\n" {
            body.truncate(start);
            stream.write_all(b"250 2.0.0 taken as 42\r\n").await.ok()?;
            return Some(body);
        }
    }
}

async fn begin(home: &Home, address: SocketAddr, to: &[&str]) -> Stream {
    begin_as(ATTEMPT, home, address, to).await
}

async fn begin_as(attempt: AttemptId, home: &Home, address: SocketAddr, to: &[&str]) -> Stream {
    let hop = WireHop::Host { host: address.ip().to_string(), port: address.port(), tls: WireHopTls::Off, login: None };
    begin_hop(attempt, home, hop, to).await
}

async fn begin_hop(attempt: AttemptId, home: &Home, hop: WireHop, to: &[&str]) -> Stream {
    let request = Request::Relay(Box::new(Relay {
        attempt,
        trace: [1; 10],
        envelope: envelope("alice@example.org", to),
        octets: 1000,
        eight_bit: false,
        hop,
    }));
    let mut stream = home.session.open(&request).await.expect("open");
    stream.flush().await.expect("sent");
    stream
}

async fn send(stream: &mut Stream, body: &[u8], tally: Tally) {
    assert_eq!(stream.record::<RelayStep>().await.expect("a step"), RelayStep::Ready);
    stream.send_data(Bytes::copy_from_slice(body)).await.expect("sent");
    let end = TransferEnd::Whole(tally.seal(WireVerdict::default(), Vec::new()));
    stream.send(&end).await.expect("sent");
    stream.flush().await.expect("sent");
}

fn tally(body: &[u8]) -> Tally {
    let mut tally = Tally::default();
    tally.add(body);
    tally
}

async fn state(home: &Home) -> AttemptState {
    state_of(ATTEMPT, home).await
}

async fn state_of(attempt: AttemptId, home: &Home) -> AttemptState {
    home.ask(&Request::Attempt(AttemptRequest::State(attempt))).await.expect("answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipients_reply_comes_back_verbatim_and_is_kept_until_it_is_forgotten() {
    let mut world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let (address, got) = host().await;
    let body = message(300_000);
    let mut stream = begin(&home, address, &["good@world.example", "bad@world.example"]).await;
    send(&mut stream, &body, tally(&body)).await;
    let RelayStep::Ended(done, facts) = stream.record().await.expect("an end") else { panic!("not the end") };
    check(&done, address);
    assert_eq!(facts, RelayFacts { exchanger: Some("127.0.0.0/24".into()), ..RelayFacts::default() });
    assert_eq!(got.await.expect("told"), Some(body));
    assert_eq!(state(&home).await, AttemptState::EndedWith(done.clone(), facts.clone()));

    world.stop_edge().await;
    world.start_edge();
    home.reconnect(&world).await;
    assert_eq!(state(&home).await, AttemptState::EndedWith(done, facts));
    let forget = Request::Attempt(AttemptRequest::Forget(ATTEMPT));
    assert_eq!(home.ask::<AttemptState>(&forget).await.expect("answered"), AttemptState::Unknown);
    assert_eq!(state(&home).await, AttemptState::Unknown);
}

fn check(done: &RelayDone, address: SocketAddr) {
    let [WireOutcome::Accepted(accepted), WireOutcome::Refused(refused)] = done.outcomes.as_slice() else {
        panic!("{done:?}")
    };
    assert_eq!(Reply::from(accepted.clone()).to_string(), "250 2.0.0 taken as 42");
    assert_eq!(Reply::from(refused.clone()).to_string(), "550 5.1.1 no bad people here");
    assert!(done.remote.as_ref().is_some_and(|remote| remote.ends_with(&format!(":{}", address.port()))), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_what_was_sent_gets_no_dot() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let (address, got) = host().await;
    let mut stream = begin(&home, address, &["good@world.example"]).await;
    send(&mut stream, b"Subject: changed on the way\r\n", tally(b"Subject: what it was\r\n")).await;
    assert!(stream.record::<RelayStep>().await.is_err());
    assert_eq!(got.await.expect("told"), None);
    assert_eq!(state(&home).await, AttemptState::Unknown, "it may be tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_breaks_in_mid_message_sends_no_dot() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let (address, got) = host().await;
    let mut stream = begin(&home, address, &["good@world.example"]).await;
    assert_eq!(stream.record::<RelayStep>().await.expect("a step"), RelayStep::Ready);
    stream.send_data(Bytes::from_static(b"Subject: half\r\n")).await.expect("sent");
    stream.flush().await.expect("sent");
    assert_eq!(state(&home).await, AttemptState::Running);
    home.hang_up(&world).await;
    assert_eq!(got.await.expect("told"), None);
    home.reconnect(&world).await;
    assert_eq!(state(&home).await, AttemptState::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_defers() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let mut stream = begin(&home, nobody, &["good@world.example"]).await;
    let RelayStep::Ended(done, _) = stream.record().await.expect("a step") else { panic!("nobody is there") };
    assert!(matches!(done.outcomes.as_slice(), [WireOutcome::Deferred(_)]), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_host_that_refuses_at_the_greeting_only_defers() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"554 5.7.1 not from there\r\n").await.expect("said");
        let _ = BufReader::new(stream).read_line(&mut String::new()).await;
    });
    let mut stream = begin(&home, address, &["good@world.example"]).await;
    let RelayStep::Ended(done, _) = stream.record().await.expect("a step") else { panic!("it refused") };
    let [WireOutcome::Deferred(reply)] = done.outcomes.as_slice() else { panic!("{done:?}") };
    assert_eq!(Reply::from(reply.clone()).to_string(), "554 5.7.1 not from there");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_messages_wait_and_none_outlives_its_session() {
    let world = World::start_with("60 s", "relays = 1\n");
    let mut home = Home::connect(&world).await;
    // Takes connections and never greets.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let ids = [1, 2, 3, 4, 5, 6].map(|id| AttemptId([id; 16]));
    let mut streams = JoinSet::new();
    for id in ids {
        let mut stream = begin_as(id, &home, address, &["good@world.example"]).await;
        streams.spawn(async move { stream.record::<RelayStep>().await });
    }
    let first = timeout(WAIT_MAX, streams.join_next()).await.expect("in time").expect("one").expect("no panic");
    let Ok(RelayStep::Ended(done, _)) = first else { panic!("one goes out, four wait: {first:?}") };
    let [WireOutcome::Deferred(reply)] = done.outcomes.as_slice() else { panic!("{done:?}") };
    assert_eq!(Reply::from(reply.clone()), Reply::too_many_relays());

    home.hang_up(&world).await;
    home.reconnect(&world).await;
    let all_gone = async {
        for id in ids {
            while state_of(id, &home).await != AttemptState::Unknown {}
        }
    };
    timeout(WAIT_MAX, all_gone).await.expect("what nobody waits for is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_never_answer_keep_no_other_message_from_going_out() {
    let world = World::start_with("60 s", "relays = 1\n");
    let home = Home::connect(&world).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut waiting = Vec::new();
    for id in [4, 5, 6, 7] {
        let address = silent.local_addr().expect("an address");
        waiting.push(begin_as(AttemptId([id; 16]), &home, address, &["good@world.example"]).await);
    }
    let (address, got) = host().await;
    let body = message(1000);
    let mut stream = begin(&home, address, &["good@world.example"]).await;
    send(&mut stream, &body, tally(&body)).await;
    let RelayStep::Ended(done, _) = stream.record().await.expect("an end") else { panic!("not the end") };
    assert!(matches!(done.outcomes.as_slice(), [WireOutcome::Accepted(_)]), "{done:?}");
    assert_eq!(got.await.expect("told"), Some(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_to_our_own_door_is_refused_as_a_loop() {
    let world = World::start("60 s");
    let home = Home::connect(&world).await;
    for (number, door) in [(31, world.smtp()), (32, world.submissions())] {
        let mut stream = begin_as(AttemptId([number; 16]), &home, door, &["good@world.example"]).await;
        let RelayStep::Ended(done, _) = stream.record().await.expect("a step") else { panic!("it was connected") };
        let [WireOutcome::Refused(reply)] = done.outcomes.as_slice() else { panic!("{door}: {done:?}") };
        assert_eq!(Reply::from(reply.clone()), Reply::loops_back("127.0.0.1", "mail.example.org"));
        let told = Reply::from(reply.clone()).to_string();
        assert!(told.starts_with("554 5.4.6 Mail for 127.0.0.1 loops back to myself"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_host_with_two_families_is_reached_over_the_one_that_answers() {
    // Nothing listens on this port of ::1.
    let (address, got) = host().await;
    let dns = hosts_dns(&["127.0.0.1", "::1"]).await;
    let world = World::start_asking_with(dns, "60 s", "", "outbound_ipv6 = true\n");
    let home = Home::connect(&world).await;
    let hop = WireHop::Host { host: "both.example".into(), port: address.port(), tls: WireHopTls::Off, login: None };
    let body = message(1000);
    let mut stream = begin_hop(ATTEMPT, &home, hop, &["good@world.example"]).await;
    send(&mut stream, &body, tally(&body)).await;
    let RelayStep::Ended(done, _) = stream.record().await.expect("an end") else { panic!("not the end") };
    assert!(done.remote.is_some_and(|remote| remote.contains("[127.0.0.1]")));
    assert_eq!(got.await.expect("told"), Some(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_comes_first_where_it_is_on_and_last_where_it_is_off() {
    for (settings, wanted) in [("outbound_ipv6 = true\n", "[::1]"), ("", "[127.0.0.1]")] {
        // One port, both families.
        let (four, six) = loop {
            let four = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = four.local_addr().expect("an address").port();
            if let Ok(six) = TcpListener::bind(("::1", port)).await {
                break (four, six);
            }
        };
        let port = four.local_addr().expect("an address").port();
        for listener in [four, six] {
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.expect("a connection");
                converse(stream).await
            });
        }
        let world = World::start_asking_with(hosts_dns(&["127.0.0.1", "::1"]).await, "60 s", "", settings);
        let home = Home::connect(&world).await;
        let hop = WireHop::Host { host: "both.example".into(), port, tls: WireHopTls::Off, login: None };
        let body = message(1000);
        let mut stream = begin_hop(ATTEMPT, &home, hop, &["good@world.example"]).await;
        send(&mut stream, &body, tally(&body)).await;
        let RelayStep::Ended(done, _) = stream.record().await.expect("an end") else { panic!("not the end") };
        assert!(done.remote.as_ref().is_some_and(|remote| remote.contains(wanted)), "{settings:?}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_route_does_not_lead_into_the_edges_own_network() {
    let key = NodeKey::of_spki(b"cabin");
    let cabin = format!("[[home]]\nname = \"cabin\"\nkey = \"{key}\"\ndomains = [\"cabin.example\"]\n");
    let world = World::start_with("60 s", &cabin);
    let home = Home::connect(&world).await;
    let (address, _) = host().await;
    let mut stream = begin(&home, address, &["good@world.example"]).await;
    let RelayStep::Ended(done, _) = stream.record().await.expect("a step") else { panic!("it was connected") };
    let [WireOutcome::Refused(reply)] = done.outcomes.as_slice() else { panic!("{done:?}") };
    assert_eq!(Reply::from(reply.clone()), Reply::private_route("127.0.0.1"));
}
