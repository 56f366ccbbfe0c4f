//! What travels over a session.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::{Directory, DomainPolicy};
use gatepost_protocol::tunnel::frame::Frame;
use gatepost_protocol::tunnel::hello::Role;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd};
use gatepost_protocol::tunnel::wire::WireVerdict;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;
use crate::tunnel::connection::Side;

#[tokio::test]
async fn a_request_and_its_data_arrive_and_the_answer_comes_back() {
    let (_edge, (home, _), (_, mut incoming)) = pair(&Clock::real()).await;
    let mut stream = home.open(&request(1)).await.expect("open");
    stream.send_data(Bytes::from_static(b"hello")).await.expect("queued");
    stream.send(&7u32).await.expect("queued");
    stream.end_sending().await.expect("sent");

    let mut served = soon(incoming.recv()).await.expect("an exchange");
    assert_eq!((served.role, &served.request), (Role::Mail, &request(1)));
    assert_eq!(served.stream.frame().await, Ok(Frame::Data(Bytes::from_static(b"hello"))));
    assert_eq!(served.stream.record::<u32>().await, Ok(7));
    assert_eq!(served.stream.frame().await, Err(StreamError::Ended));
    served.stream.send(&8u32).await.expect("queued");
    served.stream.finish().await;

    assert_eq!(soon(stream.record::<u32>()).await, Ok(8));
    assert_eq!(soon(stream.frame()).await, Err(StreamError::Ended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_arrive_as_they_were_sent() {
    const OCTETS: usize = 50 * 1024 * 1024;
    let (_edge, (_home, mut incoming), (edge, _)) = pair(&Clock::real()).await;
    let sender = tokio::spawn(async move {
        let mut stream = edge.open(&request(1)).await.expect("open");
        let mut tally = Tally::default();
        let mut sent = 0;
        while sent < OCTETS {
            // Odd sizes, and contents that differ from place to place.
            let octets = (OCTETS - sent).min(1 + sent % 100_003);
            let piece: Vec<u8> = (0..octets).map(|at| u8::try_from((sent + at) % 251).expect("small")).collect();
            tally.add(&piece);
            stream.send_data(Bytes::from(piece)).await.expect("sent");
            sent += octets;
        }
        let end = TransferEnd::Whole(tally.seal(WireVerdict::default(), Vec::new()));
        stream.send(&end).await.expect("queued");
        stream.end_sending().await.expect("sent");
        stream.record::<u64>().await.expect("an answer")
    });
    let mut served = soon(incoming.recv()).await.expect("an exchange");
    let mut tally = Tally::default();
    let seal = loop {
        match soon(served.stream.frame()).await.expect("a frame") {
            Frame::Data(data) => tally.add(&data),
            record @ Frame::Record(_) => match record.record().expect("an end") {
                TransferEnd::Whole(seal) => break seal,
                TransferEnd::Judged(..) | TransferEnd::Abort => panic!("neither judged nor broken off"),
            },
        }
    };
    assert_eq!(seal.octets, OCTETS as u64);
    assert_eq!(tally.check(&seal), Ok(()));
    served.stream.send(&seal.octets).await.expect("queued");
    served.stream.finish().await;
    assert_eq!(soon(sender).await.expect("no panic"), OCTETS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_exchanges_at_once_do_not_mix() {
    let (_edge, (_home, mut incoming), (edge, _)) = pair(&Clock::real()).await;
    tokio::spawn(async move {
        while let Some(mut served) = incoming.recv().await {
            tokio::spawn(async move {
                // Echoes everything back behind the request's own number.
                let Request::Spool(SpoolRequest::Fetch(id)) = served.request else { panic!("nobody asks that") };
                served.stream.send(&id.0[0]).await.expect("queued");
                while let Ok(Frame::Data(data)) = served.stream.frame().await {
                    served.stream.send_data(data).await.expect("sent");
                }
                served.stream.finish().await;
            });
        }
    });
    let exchanges: Vec<_> = (0..64u8)
        .map(|number| {
            let edge = edge.clone();
            tokio::spawn(async move {
                let mut stream = edge.open(&request(number)).await.expect("open");
                for _ in 0..20 {
                    stream.send_data(Bytes::from(vec![number; 4096])).await.expect("sent");
                }
                stream.end_sending().await.expect("sent");
                assert_eq!(stream.record::<u8>().await, Ok(number));
                let mut octets = 0;
                while let Ok(Frame::Data(data)) = stream.frame().await {
                    assert!(data.iter().all(|&octet| octet == number));
                    octets += data.len();
                }
                assert_eq!(octets, 20 * 4096);
            })
        })
        .collect();
    for exchange in exchanges {
        soon(exchange).await.expect("no panic");
    }
}

#[tokio::test]
async fn a_whole_directory_fits_and_only_a_directory_may_be_that_big() {
    let (_edge, (home, _), (theirs, mut incoming)) = pair(&Clock::real()).await;
    let directory = Directory {
        version: 3,
        domains: [(Domain::parse("example.org").expect("valid"), DomainPolicy::default())].into(),
        addresses: (0..100_000).map(|number| format!("somebody.{number}@example.org")).collect(),
        subaddress_separator: None,
        verifiers: std::collections::HashMap::new(),
        seal_key: vec![0; 1216],
        message_octets_max: 1,
        patterns: Vec::new(),
        tight: std::collections::HashMap::new(),
        srs: None,
        access: gatepost_protocol::mail::access::AccessList::default(),
        policies: gatepost_protocol::mail::policy::Policies::default(),
        hosts: Vec::new(),
        mta_sts: None,
        services: gatepost_protocol::mail::services::Services::default(),
    };
    let request = Request::Directory(Box::new((&directory).into()));
    let mut stream = home.open(&request).await.expect("open");
    let sending = async { stream.end_sending().await.expect("sent") };
    let (served, ()) = tokio::join!(soon(incoming.recv()), soon(sending));
    let served = served.expect("an exchange");
    assert_eq!((served.role, &served.request), (Role::Control, &request));
    // The edge has none to send, and a home would not take it.
    let mut stream = theirs.open(&request).await.expect("open");
    let refused = async {
        let _ = stream.flush().await;
        stream.frame().await
    };
    assert_eq!(soon(refused).await, Err(StreamError::Broken("reset by the other side".into())));
    // Past the largest there can be.
    let over = Directory { seal_key: vec![0; 16 * 1024 * 1024], ..directory };
    let over = home.open(&Request::Directory(Box::new((&over).into()))).await.map(|_| ());
    assert!(matches!(over, Err(StreamError::Frame(FrameError::TooBig { .. }))));
}

#[tokio::test]
async fn opening_waits_while_too_many_are_open() {
    let (_edge, (home, _), (_theirs, _incoming)) = pair(&Clock::real()).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        // The heartbeats are on the same connections, so one fewer of ours may be on control; mail has its own.
        match tokio::time::timeout(Duration::from_millis(200), home.open(&request(1))).await {
            Ok(stream) => open.push(stream.expect("open")),
            Err(_) => break,
        }
    }
    assert_eq!(open.len(), STREAMS_MAX - 1, "one is the heartbeat's");
    let waiting = tokio::spawn({
        let home = home.clone();
        async move { home.open(&request(2)).await.map(|_| ()) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    open.pop();
    assert_eq!(soon(waiting).await.expect("no panic"), Ok(()));
}

/// Counts what is written to it, write by write.
struct Counting {
    io: tokio::io::DuplexStream,
    writes: Arc<Mutex<Vec<usize>>>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.lock().expect("no panic").push(from.len());
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_small_message_leaves_by_one_write_and_its_answer_by_another() {
    let clock = Clock::still(Duration::ZERO);
    let logs = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
    let mut ends = (Vec::new(), Vec::new());
    for _ in Role::ALL {
        let (near, far) = tokio::io::duplex(1024 * 1024);
        ends.0.push(Counting { io: near, writes: Arc::clone(&logs[0]) });
        ends.1.push(Counting { io: far, writes: Arc::clone(&logs[1]) });
    }
    let three = |ends: Vec<Counting>| <[Counting; 3]>::try_from(ends).ok().expect("three");
    let (edge, _incoming) = Session::start(three(ends.0), Side::Accepting, hostile::facts(), &clock);
    let (_home, mut incoming) = Session::start(three(ends.1), Side::Dialling, hostile::facts(), &clock);
    let exchange = async |incoming: &mut mpsc::Receiver<Incoming>| {
        let mut stream = edge.open(&request(1)).await.expect("open");
        stream.send_data(Bytes::from(vec![1; 4096])).await.expect("queued");
        stream.send(&9u64).await.expect("queued");
        stream.end_sending().await.expect("sent");
        let mut served = soon(incoming.recv()).await.expect("an exchange");
        while let Ok(Frame::Data(_)) = soon(served.stream.frame()).await {}
        served.stream.send(&7u32).await.expect("queued");
        served.stream.finish().await;
        assert_eq!(soon(stream.record::<u32>()).await, Ok(7));
    };
    // The first one comes with the heartbeats' beginning and the multiplexer's own measuring.
    exchange(&mut incoming).await;
    soon(async {
        while edge.round_trip().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    for writes in &logs {
        writes.lock().expect("no panic").clear();
    }
    exchange(&mut incoming).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let writes = logs.map(|writes| writes.lock().expect("no panic").clone());
    assert!(matches!(writes[0][..], [4096..=4200]), "the edge wrote {:?}", writes[0]);
    assert!(matches!(writes[1][..], [1..=60]), "the home wrote {:?}", writes[1]);
}
