//! Who is not let in, and what both sides are told of it: one clear line each.

use gatepost_protocol::tunnel::frame::{self, HEADER_OCTETS};
use gatepost_protocol::tunnel::hello::{Hello, HelloAck, Opening, Refusal, Role, VERSION_MAX, VERSION_MIN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::tunnel::greeting;
use crate::tunnel::transport;

fn versions_hello(versions: (u16, u16), session: [u8; 16], role: Role) -> Opening {
    Opening::Hello(Hello {
        versions,
        software: "gatepost of the future".into(),
        node: "home".into(),
        session,
        role,
        features: vec!["telepathy".into()],
    })
}

/// A TLS connection to the edge on which nothing was said yet.
async fn raw(edge: &Edge, identity: &Identity) -> transport::Tls {
    let tcp = TcpStream::connect(edge.address).await.expect("connected");
    transport::secure_dialled(tcp, identity.client_config(), &Clock::real()).await.expect("secured").io
}

async fn say(io: &mut transport::Tls, opening: &Opening) {
    let mut bytes = bytes::BytesMut::new();
    frame::put_record(&mut bytes, opening, 4096).expect("small");
    io.write_all(&bytes).await.expect("written");
    io.flush().await.expect("written");
}

async fn answer(io: &mut transport::Tls) -> HelloAck {
    let mut bytes = bytes::BytesMut::zeroed(HEADER_OCTETS);
    soon(io.read_exact(&mut bytes)).await.expect("an answer");
    let octets = frame::announced(&bytes, 4096).expect("small");
    bytes.resize(HEADER_OCTETS + octets, 0);
    soon(io.read_exact(&mut bytes[HEADER_OCTETS..])).await.expect("an answer");
    frame::take(&mut bytes, 4096).expect("a frame").expect("whole").record().expect("an acknowledgement")
}

#[tokio::test]
async fn a_home_that_is_not_paired_is_told_so() {
    let log = Log::capture();
    let edge = Edge::start(|_| false, &Clock::real()).await;
    let identity = Identity::throwaway();
    let error = dialled(&edge, &identity, &Clock::real()).await.expect_err("refused");
    let refusal = Refusal::NotPaired { got: *identity.key().as_bytes() };
    assert_eq!(error, TunnelError::Refused(refusal));
    let line = format!("not paired: the edge does not list the home key {}", identity.key());
    assert_eq!(error.to_string(), line);
    let lines = log.holds(&format!("no tunnel: {line}"), 1).await;
    assert!(lines[0].contains("peer=127.0.0.1:"), "the edge says who: {lines:?}");
    assert!(lines[0].trim_start().starts_with("WARN"), "{lines:?}");
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn an_edge_with_another_key_is_told_so_and_hears_nothing_else() {
    let log = Log::capture();
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let expected = [Identity::throwaway().key(), Identity::throwaway().key()];
    let error = dialled_at(edge.address, &Identity::throwaway(), &expected, &Clock::real()).await.expect_err("refused");
    let refusal =
        Refusal::WrongKey { expected: expected.map(|key| *key.as_bytes()).to_vec(), got: *edge.key.as_bytes() };
    assert_eq!(error, TunnelError::Refused(refusal));
    let line = format!("wrong key: expected {} or {}, got {}", expected[0], expected[1], edge.key);
    assert_eq!(error.to_string(), line);
    log.holds(&format!("no tunnel: {line}"), 1).await;
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
}

#[tokio::test]
async fn a_home_of_an_unknown_version_is_told_so() {
    let log = Log::capture();
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let mut io = raw(&edge, &Identity::throwaway()).await;
    let yours = (VERSION_MAX + 1, VERSION_MAX + 2);
    say(&mut io, &versions_hello(yours, [1; 16], Role::Control)).await;
    let refusal = Refusal::NoCommonVersion { mine: (VERSION_MIN, VERSION_MAX), yours };
    assert_eq!(answer(&mut io).await, HelloAck::Refused(refusal));
    let spoken = format!("this side speaks {VERSION_MIN} to {VERSION_MAX}, the other {} to {}", yours.0, yours.1);
    log.holds(&format!("{spoken}; upgrade gatepost on this side"), 1).await;
}

#[tokio::test]
async fn an_edge_of_an_unknown_version_is_reported_from_our_side() {
    let identity = Arc::new(Identity::throwaway());
    let key = identity.key();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let mut io = transport::secure_accepted(tcp, &identity, &Clock::real()).await.expect("secured").io;
        greeting::hear_hello(&mut io, &Clock::real()).await.expect("a hello");
        let refusal = Refusal::NoCommonVersion { mine: (4, 5), yours: (1, 1) };
        greeting::refuse(&mut io, &refusal, &Clock::real()).await;
        transport::linger(io, &Clock::real()).await;
    });
    let error = dialled_at(address, &Identity::throwaway(), &[key], &Clock::real()).await.expect_err("refused");
    assert_eq!(error, TunnelError::Refused(Refusal::NoCommonVersion { mine: (1, 1), yours: (4, 5) }));
    let words = error.to_string();
    assert!(words.ends_with("this side speaks 1 to 1, the other 4 to 5; upgrade gatepost on this side"), "{words}");
}

#[tokio::test]
async fn a_newer_minor_version_with_unknown_features_is_welcome() {
    let mut edge = Edge::start(|_| true, &Clock::real()).await;
    let identity = Identity::throwaway();
    let mut connections = Vec::new();
    for role in Role::ALL {
        let mut io = raw(&edge, &identity).await;
        say(&mut io, &versions_hello((VERSION_MAX, VERSION_MAX + 1), [1; 16], role)).await;
        assert!(matches!(answer(&mut io).await, HelloAck::Accepted { version: VERSION_MAX, .. }));
        connections.push(io);
    }
    let (session, _) = edge.session().await;
    assert_eq!(session.facts().version, VERSION_MAX);
    assert_eq!(session.facts().peer, identity.key());
    assert_eq!(session.facts().software, "gatepost of the future");
    assert_eq!(session.facts().group, "X25519MLKEM768");
}

#[tokio::test]
async fn a_hello_that_lies_about_its_length_is_refused_unread() {
    let log = Log::capture();
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let mut io = raw(&edge, &Identity::throwaway()).await;
    io.write_all(&[0xff, 0xff, 0xff, 0xff, 0]).await.expect("written");
    io.flush().await.expect("written");
    assert_eq!(answer(&mut io).await, HelloAck::Refused(Refusal::Malformed));
    let mut io = raw(&edge, &Identity::throwaway()).await;
    io.write_all(&[0, 0, 0, 3, 0, 9, 9, 9]).await.expect("written");
    io.flush().await.expect("written");
    assert_eq!(answer(&mut io).await, HelloAck::Refused(Refusal::Malformed));
    log.holds("no tunnel: the other side's hello can't be read", 1).await;
}

#[tokio::test]
async fn the_newest_whole_session_wins_and_the_old_one_is_told() {
    let mut edge = Edge::start(|_| true, &Clock::real()).await;
    let identity = Identity::throwaway();
    let (old, _incoming) = dialled(&edge, &identity, &Clock::real()).await.expect("a session");
    let (old_edge, _incoming) = edge.session().await;
    // Another home is not in the way.
    let (other, _incoming) = dialled(&edge, &Identity::throwaway(), &Clock::real()).await.expect("a session");
    let (_other_edge, _incoming) = edge.session().await;

    // Parts of a session replace nobody.
    let mut part = raw(&edge, &identity).await;
    say(&mut part, &versions_hello((1, 1), [7; 16], Role::Control)).await;
    assert!(matches!(answer(&mut part).await, HelloAck::Accepted { .. }));
    assert!(old_edge.is_alive());

    let (new, _incoming) = dialled(&edge, &identity, &Clock::real()).await.expect("a session");
    let (new_edge, _incoming) = edge.session().await;
    let replaced = TunnelError::Refused(Refusal::Replaced);
    assert_eq!(soon(old.ended()).await, replaced);
    assert_eq!(soon(old_edge.ended()).await, replaced);
    assert!(new.is_alive() && new_edge.is_alive() && other.is_alive());
    assert_eq!(
        soon(old.open(&request(1))).await.map(|_| ()).expect_err("ended"),
        StreamError::Broken(replaced.to_string())
    );
    assert!(replaced.to_string().starts_with("replaced by a newer session; "), "{replaced}");
}

#[tokio::test]
async fn the_reason_of_a_close_arrives_even_through_unread_bulk() {
    let (_edge, (home, _incoming), (theirs, _unread)) = pair(&Clock::real()).await;
    let mut bulk = home.open(&request(1)).await.expect("open");
    let flood = tokio::spawn(async move {
        loop {
            bulk.send_data(bytes::Bytes::from(vec![0; 64 * 1024])).await?;
        }
        #[expect(unreachable_code, reason = "names the type of the error")]
        Ok::<(), StreamError>(())
    });
    theirs.close(TunnelError::Refused(Refusal::Replaced));
    assert_eq!(soon(home.ended()).await, TunnelError::Refused(Refusal::Replaced));
    soon(flood).await.expect("no panic").expect_err("the stream ended with its session");
}

#[tokio::test]
async fn a_plain_close_ends_both_sides_and_loses_nothing_that_was_flushed() {
    let (_edge, (home, _incoming), (theirs, mut incoming)) = pair(&Clock::real()).await;
    let mut stream = home.open(&request(1)).await.expect("open");
    stream.send(&7u32).await.expect("queued");
    stream.flush().await.expect("sent");
    home.close(TunnelError::Closed);
    assert_eq!(home.ended().await, TunnelError::Closed);
    assert_eq!(soon(theirs.ended()).await, TunnelError::Broken("the other side closed it".into()));
    let mut served = soon(incoming.recv()).await.expect("an exchange");
    assert_eq!(soon(served.stream.record::<u32>()).await, Ok(7));
    assert!(matches!(soon(served.stream.frame()).await, Err(StreamError::Broken(_))));
    // The channel of exchanges closes with the session.
    assert!(soon(incoming.recv()).await.is_none());
}

#[tokio::test]
async fn a_session_that_never_becomes_whole_is_dropped_in_time() {
    let log = Log::capture();
    let clock = Clock::still(Duration::ZERO);
    let edge = Edge::start(|_| true, &clock).await;
    let mut io = raw(&edge, &Identity::throwaway()).await;
    say(&mut io, &versions_hello((1, 1), [1; 16], Role::Control)).await;
    assert!(matches!(answer(&mut io).await, HelloAck::Accepted { .. }));
    soon(async {
        while edge.acceptor.partial_sessions() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    clock.turn(Duration::from_secs(15));
    let mut rest = Vec::new();
    // Closed without a word of ours, with or without TLS's own.
    let _ = soon(io.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    assert_eq!(edge.acceptor.partial_sessions(), 0);
    log.holds("its three connections were not there in time", 1).await;
}

#[tokio::test]
async fn one_key_has_only_so_many_sessions_half_made() {
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let identity = Identity::throwaway();
    let mut kept = Vec::new();
    for number in 0..10 {
        let mut io = raw(&edge, &identity).await;
        say(&mut io, &versions_hello((1, 1), [number; 16], Role::Mail)).await;
        assert!(matches!(answer(&mut io).await, HelloAck::Accepted { .. }));
        kept.push(io);
    }
    // The first ones made room.
    let _ = soon(kept[0].read_to_end(&mut Vec::new())).await;
    assert_eq!(edge.acceptor.partial_sessions(), 4);
}

#[tokio::test]
async fn who_says_no_hello_is_dropped_in_time() {
    let log = Log::capture();
    let clock = Clock::still(Duration::ZERO);
    let edge = Edge::start(|_| true, &clock).await;
    let mut io = raw(&edge, &Identity::throwaway()).await;
    let dropped = async {
        let mut rest = Vec::new();
        let _ = io.read_to_end(&mut rest).await;
    };
    let turning = async {
        loop {
            clock.turn(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    soon(async {
        tokio::select! { () = dropped => {}, () = turning => {} }
    })
    .await;
    log.holds("the other side said no hello in time", 1).await;
}

#[tokio::test]
async fn sockets_send_at_once_and_give_up_after_a_minute() {
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let io = raw(&edge, &Identity::throwaway()).await;
    let tcp = io.get_ref().0.get_ref();
    assert!(tcp.nodelay().expect("an option"));
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(tcp).expect("an option"), 60_000);
}
