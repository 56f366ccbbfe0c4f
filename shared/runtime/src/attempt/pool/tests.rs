//! The pool with real sockets: hosts that answer by a script, by a clock that is turned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::smtp::client::reuse::ReuseLimits;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::tests::{config, is_accepted, send};
use super::super::{Attempt, Believed, Finding, Target, Tls};
use super::*;

/// A host that takes all mail; says each line it hears, with the number of its connection.
struct Host {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<(usize, String)>,
    opened: Arc<AtomicUsize>,
}

async fn host() -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (says, heard) = mpsc::unbounded_channel();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::spawn(converse(stream, number, says.clone()));
        }
    });
    Host { address, heard, opened }
}

async fn converse(stream: TcpStream, number: usize, says: mpsc::UnboundedSender<(usize, String)>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx\r\n").await.ok()?;
    let mut in_message = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            says.send((number, "end".to_owned())).ok()?;
            return None;
        }
        let line = line.trim_end();
        in_message &= line != ".";
        if in_message {
            continue;
        }
        says.send((number, line.to_owned())).ok()?;
        let reply = match line {
            "DATA" => "354 go\r\n",
            "QUIT" => "221 bye\r\n",
            _ => "250 fine\r\n",
        };
        in_message = line == "DATA";
        stream.write_all(reply.as_bytes()).await.ok()?;
    }
}

impl Host {
    async fn hears(&mut self, number: usize, wanted: &str) {
        loop {
            let (from, line) = self.heard.recv().await.unwrap();
            if (from, line.as_str()) == (number, wanted) {
                return;
            }
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    async fn connect(&self, clock: &Clock) -> Attempt {
        let target = Target {
            host: "mx.example.org".into(),
            address: self.address,
            tls: Tls::Off,
            roots: vec![],
            believed: Believed::ByTls,
            finding: Finding::default(),
            connect_wait_max: Duration::from_secs(10),
        };
        Attempt::connect(&target, config(), clock.clone()).await.unwrap()
    }
}

fn destination(owner: &str) -> Destination {
    Destination {
        owner: owner.into(),
        hosts: vec!["mx.example.org".into()],
        port: 25,
        tls: Tls::Off,
        demands: String::new(),
        roots: vec![],
        login: None,
        ipv6: false,
    }
}

/// Sends one message as the programs do; true if it went over a kept connection.
async fn message(pool: &Pool, host: &Host, clock: &Clock, to: Destination) -> bool {
    let mut place = pool.place(to).await.unwrap();
    let kept = place.kept();
    let reused = kept.is_some();
    let mut attempt = if let Some(attempt) = kept {
        attempt
    } else {
        place.opened();
        host.connect(clock).await
    };
    let outcomes: Vec<Outcome> = send(&mut attempt, b"Subject: 1\r\n\r\n", &["bob@example.org"]).await;
    assert!(is_accepted(&outcomes[0]), "{outcomes:?}");
    place.give_back(attempt);
    reused
}

#[tokio::test]
async fn the_next_message_goes_over_the_same_connection_and_nobody_elses() {
    let (mut host, clock) = (host().await, Clock::still(Duration::ZERO));
    let pool = Pool::new(ReuseLimits::default(), clock.clone());
    assert!(!message(&pool, &host, &clock, destination("cottage")).await);
    assert!(message(&pool, &host, &clock, destination("cottage")).await);
    assert!(!message(&pool, &host, &clock, destination("cabin")).await, "another home has its own");
    let other = [
        Destination { login: Some(("bob".into(), Secret::from("a"))), ..destination("cottage") },
        Destination { tls: Tls::StartTls, ..destination("cottage") },
        Destination { demands: String::new(), roots: vec![vec![1]], ..destination("cottage") },
        Destination { port: 26, ..destination("cottage") },
        Destination { ipv6: true, ..destination("cottage") },
        Destination { hosts: vec!["mx.example.net".into()], ..destination("cottage") },
    ];
    for other in other {
        assert!(pool.place(other.clone()).await.unwrap().kept.is_none(), "{other:?}");
    }
    // Straight to MAIL: the transaction before ended well.
    for wanted in ["MAIL FROM:<alice@example.net>", ".", "MAIL FROM:<alice@example.net>"] {
        host.hears(1, wanted).await;
    }
    pool.close().await;
    host.hears(1, "QUIT").await;
    assert_eq!((pool.kept(), host.opened()), (0, 2));
}

#[tokio::test]
async fn a_login_with_another_password_is_another_destination() {
    let as_bob =
        |password: &str| Destination { login: Some(("bob".into(), Secret::from(password))), ..destination("cottage") };
    let (host, clock) = (host().await, Clock::still(Duration::ZERO));
    let pool = Pool::new(ReuseLimits::default(), clock.clone());
    assert!(!message(&pool, &host, &clock, as_bob("old")).await);
    assert!(!message(&pool, &host, &clock, as_bob("new")).await);
    assert!(message(&pool, &host, &clock, as_bob("old")).await);
}

#[tokio::test]
async fn one_that_rests_too_long_is_told_goodbye() {
    let (mut host, clock) = (host().await, Clock::still(Duration::ZERO));
    let pool = Pool::new(ReuseLimits::default(), clock.clone());
    message(&pool, &host, &clock, destination("cottage")).await;
    host.hears(1, ".").await;
    clock.turn(ReuseLimits::default().idle_max);
    host.hears(1, "QUIT").await;
    host.hears(1, "end").await;
    assert_eq!(pool.kept(), 0);
    assert!(!message(&pool, &host, &clock, destination("cottage")).await);
}

#[tokio::test]
async fn one_that_carried_enough_is_told_goodbye() {
    let (mut host, clock) = (host().await, Clock::real());
    let pool = Pool::new(ReuseLimits { messages_max: 3, ..ReuseLimits::default() }, clock.clone());
    let mut reused = Vec::new();
    for _ in 0..4 {
        reused.push(message(&pool, &host, &clock, destination("cottage")).await);
    }
    assert_eq!(reused, [false, true, true, false]);
    host.hears(1, "QUIT").await;
}

#[tokio::test]
async fn one_that_the_host_closed_is_noticed_before_it_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clock = Clock::real();
    let pool = Pool::new(ReuseLimits::default(), clock.clone());
    let (says, mut heard) = mpsc::unbounded_channel();
    let (_, unused) = mpsc::unbounded_channel();
    let host = Host { address, heard: unused, opened: Arc::default() };
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        converse(stream, 1, says).await
    });
    message(&pool, &host, &clock, destination("cottage")).await;
    while heard.recv().await.unwrap().1 != "." {}
    served.abort();
    let mut place = pool.place(destination("cottage")).await.unwrap();
    let mut kept = place.kept.take();
    while kept.as_mut().is_some_and(|(attempt, _)| attempt.is_open()) {
        tokio::task::yield_now().await;
    }
    place.kept = kept;
    assert!(place.kept().is_none());
}

#[tokio::test]
async fn who_waits_takes_a_freed_connection_and_whoever_gives_up_costs_nobody_a_turn() {
    let (host, clock) = (host().await, Clock::real());
    let pool =
        Pool::new(ReuseLimits { per_key_max: 1, waiting_per_key_max: 2, ..ReuseLimits::default() }, clock.clone());
    let mut first = pool.place(destination("cottage")).await.unwrap();
    let attempt = host.connect(&clock).await;
    first.opened();
    let mut gives_up = Box::pin(pool.place(destination("cottage")));
    let mut waits = Box::pin(pool.place(destination("cottage")));
    assert!(futures_util::poll!(&mut gives_up).is_pending());
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert!(pool.place(destination("cottage")).await.is_none(), "as many wait as may");
    assert!(pool.place(destination("cabin")).await.is_some(), "others are not concerned");
    first.give_back(attempt);
    // The turn had come to it when it gave up.
    drop(gives_up);
    let mut second = waits.await.unwrap();
    assert!(second.kept().is_some());
    drop(second);
    assert!(pool.place(destination("cottage")).await.is_some());
    assert_eq!(host.opened(), 1);
}
