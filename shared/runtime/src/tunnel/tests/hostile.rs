//! Peers that do what no peer of ours does.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::io::AsyncWrite as _;
use gatepost_protocol::tunnel::frame::{self, Frame, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::hello::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use super::*;
use crate::tunnel::connection::Side;

type Raw = yamux::Connection<Compat<DuplexStream>>;

pub(super) fn facts() -> SessionFacts {
    SessionFacts {
        peer: NodeKey::of_spki(b"home"),
        node: "home".into(),
        software: "none of ours".into(),
        address: "192.0.2.1:1".parse().expect("an address"),
        since_unix_s: 0,
        version: 1,
        group: String::new(),
    }
}

/// An accepting session whose other side is nothing yet.
fn unspoken(clock: &Clock) -> (Session, mpsc::Receiver<Incoming>, [DuplexStream; 3]) {
    let [(a, far_a), (b, far_b), (c, far_c)] = [0; 3].map(|_| tokio::io::duplex(64 * 1024));
    let (session, incoming) = Session::start([a, b, c], Side::Accepting, facts(), clock);
    (session, incoming, [far_a, far_b, far_c])
}

/// An accepting session whose other side is a bare multiplexer on each connection.
fn bare(clock: &Clock) -> (Session, mpsc::Receiver<Incoming>, [Raw; 3]) {
    let (session, incoming, far) = unspoken(clock);
    let raw = |io: DuplexStream| yamux::Connection::new(io.compat(), yamux::Config::default(), yamux::Mode::Client);
    (session, incoming, far.map(raw))
}

/// Opens a stream on a bare connection and writes bytes to it.
async fn open_with(raw: &mut Raw, bytes: &[u8]) -> yamux::Stream {
    let mut stream = poll_fn(|cx| raw.poll_new_outbound(cx)).await.expect("a stream");
    let mut written = 0;
    while written < bytes.len() {
        let piece = &bytes[written..];
        let write = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, piece));
        written += run(raw, write).await.expect("written");
    }
    stream
}

/// Drives a bare connection while something is awaited.
async fn run<F: Future>(raw: &mut Raw, future: F) -> F::Output {
    tokio::select! {
        biased;
        output = future => output,
        () = async { while let Some(Ok(_)) = poll_fn(|cx| raw.poll_next_inbound(cx)).await {} } => panic!("the connection ended"),
    }
}

fn record(request: &Request) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::put_record(&mut bytes, request, RECORD_OCTETS_MAX).expect("small");
    bytes
}

#[tokio::test]
async fn first_records_that_lie_or_do_not_belong_reset_only_their_stream() {
    let log = Log::capture();
    let (session, mut incoming, [mut control, mut mail, _splice]) = bare(&Clock::real());
    let lies: [(&[u8], &str); 5] = [
        (&[0xff, 0xff, 0xff, 0xff, 0], "a frame of 4294967295 octets is over the bound"),
        (&[0, 4, 0, 1, 0], "a frame of 262145 octets is over the bound of 262144"),
        (&[0, 0, 0, 1, 9, 0], "a frame of unknown kind 9"),
        (&[0, 0, 0, 1, 1, 0], "a frame out of order"),
        (&[0, 0, 0, 2, 0, 0xee, 0xee], "a record that can't be read"),
    ];
    for (bytes, why) in lies {
        let mut stream = open_with(&mut mail, bytes).await;
        assert!(run(&mut mail, soon(stream.next())).await.is_none(), "{why}");
        log.holds(why, 1).await;
    }
    // A verb of the mail connection on the control connection; a heartbeat where one beats already.
    let mut stream = open_with(&mut control, &record(&request(1))).await;
    assert!(run(&mut control, soon(stream.next())).await.is_none());
    log.holds("its verb belongs on the mail connection", 1).await;
    let _heartbeat = open_with(&mut control, &record(&Request::Heartbeat)).await;
    let mut second = open_with(&mut control, &record(&Request::Heartbeat)).await;
    run(&mut control, soon(async { while second.next().await.is_some() {} })).await;
    log.holds("a heartbeat that is not due", 1).await;

    let _good = open_with(&mut mail, &record(&request(2))).await;
    let served = run(&mut mail, soon(incoming.recv())).await.expect("an exchange");
    assert_eq!(served.request, request(2));
    assert!(session.is_alive());
}

#[tokio::test]
async fn a_first_record_that_never_comes_whole_is_reset_in_time() {
    let log = Log::capture();
    let clock = Clock::still(Duration::ZERO);
    let (session, _incoming, [_control, mut mail, _splice]) = bare(&clock);
    let mut stream = open_with(&mut mail, &record(&request(1))[..4]).await;
    let turning = async {
        for _ in 0..10 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            clock.turn(Duration::from_secs(1));
        }
        std::future::pending::<()>().await;
    };
    let reset = async {
        tokio::select! { end = stream.next() => end.is_none(), () = turning => false }
    };
    assert!(run(&mut mail, soon(reset)).await);
    log.holds("its first record did not come in time", 1).await;
    assert!(session.is_alive());
}

/// A frame of the multiplexer as no library would send it.
fn multiplexer_frame(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    let octets = u32::try_from(body.len()).expect("small").to_be_bytes();
    [&[0, 0][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &octets, body].concat()
}

#[tokio::test]
async fn more_streams_than_allowed_are_reset_one_by_one() {
    const SYN: u16 = 1;
    let log = Log::capture();
    let (session, mut incoming, [_control, mut mail, _splice]) = unspoken(&Clock::real());
    let ids = (0..).map(|number| 2 * number + 1);
    for id in ids.take(STREAMS_MAX + 3) {
        mail.write_all(&multiplexer_frame(SYN, id, &record(&request(1)))).await.expect("written");
    }
    log.holds("more than 256 streams", 3).await;
    // Nobody took one so far, and every one of the others is there.
    for _ in 0..STREAMS_MAX {
        soon(incoming.recv()).await.expect("an exchange");
    }
    mail.write_all(&multiplexer_frame(SYN, 1001, &record(&request(3)))).await.expect("written");
    let served = soon(incoming.recv()).await.expect("an exchange");
    assert_eq!(served.request, request(3));
    assert!(session.is_alive());
}

#[tokio::test]
async fn garbage_for_frames_of_the_multiplexer_ends_the_session() {
    let (session, _incoming, [_control, _mail, mut splice]) = unspoken(&Clock::real());
    splice.write_all(&[0x55; 100]).await.expect("written");
    assert!(matches!(soon(session.ended()).await, TunnelError::Broken(_)));
}

#[tokio::test]
async fn garbage_for_tls_costs_nobody_else() {
    let log = Log::capture();
    let mut edge = Edge::start(|_| true, &Clock::real()).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[22, 3, 1, 255, 255]] {
        let mut tcp = TcpStream::connect(edge.address).await.expect("connected");
        tcp.write_all(garbage).await.expect("written");
        tcp.shutdown().await.expect("shut");
        let _ = soon(tcp.read_to_end(&mut Vec::new())).await;
    }
    log.holds("no tunnel: TLS handshake failed", 3).await;
    let home = dialled(&edge, &Identity::throwaway(), &Clock::real()).await;
    edge.session().await;
    home.expect("a session");
}

#[tokio::test]
async fn who_says_nothing_is_dropped_in_time() {
    let log = Log::capture();
    let clock = Clock::still(Duration::ZERO);
    let edge = Edge::start(|_| true, &clock).await;
    let mut tcp = TcpStream::connect(edge.address).await.expect("connected");
    let turning = async {
        loop {
            clock.turn(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    let dropped = async {
        tokio::select! { read = tcp.read_u8() => read, () = turning => Ok(0) }
    };
    soon(dropped).await.expect_err("closed without a word");
    log.holds("no tunnel: TLS handshake failed: it took too long", 1).await;
}

#[tokio::test]
async fn a_program_that_dies_ends_its_session_in_plain_words() {
    let mut edge = Edge::start(|_| true, &Clock::real()).await;
    let identity = Identity::throwaway();
    // A runtime of its own, so that all of it can go at once and without a word.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let (address, key) = (edge.address.to_string(), edge.key);
    let home = runtime.spawn(async move { dial(&identity, "home", &address, &[key], Clock::real()).await });
    let (theirs, _incoming) = edge.session().await;
    let home = soon(home).await.expect("no panic").expect("a session");
    runtime.shutdown_background();
    let reason = soon(theirs.ended()).await.to_string();
    // By chance: what it had not read yet makes its end a reset.
    let plain = ["the other side closed it", "Connection reset by peer (os error 104)", "Broken pipe (os error 32)"];
    assert!(plain.map(|why| format!("the connection broke: {why}")).contains(&reason), "{reason}");
    drop(home);
}

#[tokio::test]
async fn who_speaks_tls_but_not_ours_is_refused() {
    let log = Log::capture();
    let edge = Edge::start(|_| true, &Clock::real()).await;
    let identity = Identity::throwaway();
    let other = |change: fn(&mut rustls::ClientConfig)| {
        let mut config = (*identity.client_config()).clone();
        change(&mut config);
        Arc::new(config)
    };
    let strangers =
        [other(|config| config.alpn_protocols = vec![b"h2".to_vec()]), other(|config| config.alpn_protocols = vec![])];
    for config in strangers {
        let tcp = TcpStream::connect(edge.address).await.expect("connected");
        let name = rustls_pki_types::ServerName::IpAddress(edge.address.ip().into());
        if let Ok(mut tls) = soon(tokio_rustls::TlsConnector::from(config).connect(name, tcp)).await {
            let mut rest = Vec::new();
            let _ = soon(tls.read_to_end(&mut rest)).await;
            assert_eq!(rest, b"", "nothing is said to a stranger");
        }
    }
    log.holds("no tunnel: TLS handshake failed", 2).await;
    log.holds("does not speak gatepost/1", 1).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_its_own_stream_only() {
    let clock = Clock::still(Duration::ZERO);
    let (_edge, (home, _), (theirs, mut incoming)) = pair(&clock).await;
    let mut stuck = home.open(&request(1)).await.expect("open");
    stuck.flush().await.expect("sent");
    let unread = soon(incoming.recv()).await.expect("an exchange");
    // Goes on until the window is used up, then waits; nothing is held beyond window and queue.
    let mut sent = 0u64;
    loop {
        let piece = Bytes::from(vec![1; 16 * 1024]);
        let sending = async {
            stuck.send_data(piece).await?;
            stuck.flush().await
        };
        match tokio::time::timeout(Duration::from_millis(300), sending).await {
            Ok(done) => done.expect("alive"),
            Err(_) => break,
        }
        sent += 16 * 1024;
        assert!(sent < 1024 * 1024, "no end to what is taken from a sender nobody reads");
    }
    assert!(sent >= 128 * 1024, "the window lets something through: {sent}");

    // Others on the same connection go on, and so does the heartbeat.
    for number in 2..10 {
        let mut stream = home.open(&request(number)).await.expect("open");
        stream.end_sending().await.expect("sent");
        let mut served = soon(incoming.recv()).await.expect("an exchange");
        served.stream.send(&u32::from(number)).await.expect("queued");
        served.stream.finish().await;
        assert_eq!(soon(stream.record::<u32>()).await, Ok(u32::from(number)));
    }
    assert!(home.is_alive() && theirs.is_alive());
    drop(unread);
    let broken = soon(async {
        loop {
            if let Err(error) = stuck.flush().await {
                return error;
            }
            stuck.send_data(Bytes::from_static(b"x")).await.expect("queued");
        }
    });
    assert_eq!(broken.await, StreamError::Broken("reset by the other side".into()));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_at_all_is_given_up() {
    let clock = Clock::still(Duration::ZERO);
    let (session, _incoming, [_control, mut mail, _splice]) = bare(&clock);
    let _heartbeat = open_with(&mut mail, &record(&Request::Heartbeat)).await;
    // From here on nobody polls the other end: our writes fill the pipe and stay.
    let mut streams = Vec::new();
    for number in 0..20 {
        let mut stream = session.open(&request(number)).await.expect("open");
        let sending = async {
            for _ in 0..100 {
                stream.send_data(Bytes::from(vec![1; 64 * 1024])).await?;
            }
            Ok::<_, StreamError>(())
        };
        assert!(tokio::time::timeout(Duration::from_millis(20), sending).await.is_err(), "bounded by its window");
        streams.push(stream);
    }
    clock.turn(Duration::from_mins(1));
    assert_eq!(soon(session.ended()).await, TunnelError::Silent);
    for mut stream in streams {
        assert_eq!(soon(stream.flush()).await, Err(StreamError::Broken(TunnelError::Silent.to_string())));
    }
}

#[tokio::test]
async fn dropping_a_stream_resets_it() {
    let (_edge, (home, _), (_theirs, mut incoming)) = pair(&Clock::real()).await;
    let mut stream = home.open(&request(1)).await.expect("open");
    stream.send_data(Bytes::from_static(b"half a mess")).await.expect("queued");
    stream.flush().await.expect("sent");
    let mut served = soon(incoming.recv()).await.expect("an exchange");
    assert_eq!(served.role, Role::Mail);
    drop(stream);
    assert_eq!(soon(served.stream.frame()).await, Ok(Frame::Data(Bytes::from_static(b"half a mess"))));
    assert_eq!(soon(served.stream.frame()).await, Err(StreamError::Broken("reset by the other side".into())));
}
