//! Messages one after another to one host: over one connection, and over a new one where the kept one is
//! no good any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{AttemptId, Relay, RelayDone, RelayFacts, RelayStep, WireHop, WireHopTls};
use gatepost_protocol::tunnel::wire::{WireOutcome, WireVerdict};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::admission::envelope;
use crate::edge::World;
use crate::home::Home;

/// What the host does about the second transaction of a connection.
#[derive(Clone, Copy, Debug)]
enum Second {
    Takes,
    /// Hangs up at MAIL.
    HangsUp,
    /// 421 to MAIL, and ends.
    IsFull,
    /// 421 to the final dot, and ends.
    IsFullAtTheDot,
    /// Takes the dot and hangs up without a word.
    VanishesAtTheDot,
}

/// A host that refuses `bad@` and says each line it hears, with the number of its connection.
struct Host {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<(usize, String)>,
}

async fn host(second: Second) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (says, heard) = mpsc::unbounded_channel();
    let opened = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = opened.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::spawn(converse(stream, number, second, says.clone()));
        }
    });
    Host { address, heard }
}

async fn converse(
    stream: TcpStream,
    number: usize,
    second: Second,
    says: mpsc::UnboundedSender<(usize, String)>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx.world.example\r\n").await.ok()?;
    let (mut mails, mut accepted, mut in_message) = (0, false, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if in_message && line != "." {
            continue;
        }
        says.send((number, line.to_owned())).ok()?;
        mails += u32::from(line.starts_with("MAIL"));
        let again = mails == 2 && number == 1;
        let reply = match (line.get(..4).unwrap_or(line), second) {
            ("MAIL", Second::HangsUp) | (".", Second::VanishesAtTheDot) if again => return None,
            ("MAIL", Second::IsFull) | (".", Second::IsFullAtTheDot) if again => {
                "421 4.7.0 enough for one connection\r\n"
            }
            ("EHLO", _) => "250-mx.world.example\r\n250-PIPELINING\r\n250 DSN\r\n",
            ("RCPT", _) if line.contains("bad@") => "550 5.1.1 no bad people here\r\n",
            ("RCPT", _) => "250 2.1.5 good\r\n",
            ("DATA", _) if !accepted => "554 5.5.1 to nobody\r\n",
            ("DATA", _) => "354 go ahead\r\n",
            _ => "250 2.0.0 fine\r\n",
        };
        accepted = reply.contains("2.1.5");
        in_message = reply.starts_with("354");
        stream.write_all(reply.as_bytes()).await.ok()?;
        if reply.starts_with("421") {
            return None;
        }
    }
}

impl Host {
    /// The number of the connection that the `count`th message's MAIL came over, and all lines until then.
    async fn lines_until_dots(&mut self, dots: usize) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let mut seen = 0;
        while seen < dots {
            let line = self.heard.recv().await.expect("it runs");
            seen += usize::from(line.1 == ".");
            lines.push(line);
        }
        lines
    }
}

async fn relay(home: &Home, number: u8, address: SocketAddr, to: &str) -> (RelayDone, RelayFacts) {
    let hop = WireHop::Host { host: address.ip().to_string(), port: address.port(), tls: WireHopTls::Off, login: None };
    let request = Request::Relay(Box::new(Relay {
        attempt: AttemptId([number; 16]),
        trace: [1; 10],
        envelope: envelope("alice@example.org", &[to]),
        octets: 11,
        eight_bit: false,
        hop,
    }));
    let mut stream = home.session.open(&request).await.expect("open");
    stream.flush().await.expect("sent");
    match stream.record().await.expect("a step") {
        RelayStep::Ready => {}
        RelayStep::Ended(done, facts) => return (done, facts),
        RelayStep::Done(done) => panic!("the first version's word: {done:?}"),
    }
    let body = b"Subject: x\r\n";
    stream.send_data(Bytes::from_static(body)).await.expect("sent");
    let mut tally = Tally::default();
    tally.add(body);
    let end = TransferEnd::Whole(tally.seal(WireVerdict::default(), Vec::new()));
    stream.send(&end).await.expect("sent");
    stream.flush().await.expect("sent");
    let RelayStep::Ended(done, facts) = stream.record().await.expect("an end") else { panic!("not the end") };
    (done, facts)
}

fn is_accepted(done: &RelayDone) -> bool {
    matches!(done.outcomes.as_slice(), [WireOutcome::Accepted(_)])
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_one_after_another_share_a_connection_and_the_home_is_told_so() {
    let mut world = World::start("60 s");
    let home = Home::connect(&world).await;
    let mut host = host(Second::Takes).await;
    let (done, facts) = relay(&home, 1, host.address, "good@world.example").await;
    assert!(is_accepted(&done), "{done:?}");
    assert_eq!((facts.reused, facts.dsn), (false, true));
    let (done, facts) = relay(&home, 2, host.address, "bad@world.example").await;
    assert!(matches!(done.outcomes.as_slice(), [WireOutcome::Refused(_)]), "{done:?}");
    assert!(facts.reused);
    let (done, facts) = relay(&home, 3, host.address, "good@world.example").await;
    assert!(is_accepted(&done), "{done:?}");
    assert!(facts.reused);
    let lines = host.lines_until_dots(2).await;
    assert!(lines.iter().all(|(number, _)| *number == 1), "{lines:?}");
    let verbs: Vec<&str> = lines.iter().map(|(_, line)| line.split([' ', ':']).next().unwrap_or_default()).collect();
    // No RSET after a message that went; one after a transaction that did not.
    let expected = ["EHLO", "MAIL", "RCPT", "DATA", ".", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "."];
    assert_eq!(verbs, expected);
    world.stop_edge().await;
    assert_eq!(host.heard.recv().await, Some((1, "QUIT".to_owned())), "what is kept is left politely");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_is_no_good_any_more_costs_no_message_its_turn() {
    for second in [Second::HangsUp, Second::IsFull] {
        let world = World::start("60 s");
        let home = Home::connect(&world).await;
        let mut host = host(second).await;
        assert!(is_accepted(&relay(&home, 1, host.address, "good@world.example").await.0));
        let (done, facts) = relay(&home, 2, host.address, "good@world.example").await;
        assert!(is_accepted(&done), "{second:?}: {done:?}");
        assert!(!facts.reused);
        let lines = host.lines_until_dots(2).await;
        let dots: Vec<usize> = lines.iter().filter(|(_, line)| line == ".").map(|(number, _)| *number).collect();
        assert_eq!(dots, [1, 2], "{second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_final_dot_nothing_is_made_again_by_the_edge() {
    for second in [Second::IsFullAtTheDot, Second::VanishesAtTheDot] {
        let world = World::start("60 s");
        let home = Home::connect(&world).await;
        let mut host = host(second).await;
        assert!(is_accepted(&relay(&home, 1, host.address, "good@world.example").await.0));
        let (done, facts) = relay(&home, 2, host.address, "good@world.example").await;
        assert!(matches!(done.outcomes.as_slice(), [WireOutcome::Deferred(_)]), "{second:?}: {done:?}");
        assert!(facts.reused);
        // The next one finds that connection gone.
        let (done, facts) = relay(&home, 3, host.address, "good@world.example").await;
        assert!(is_accepted(&done), "{second:?}: {done:?}");
        assert!(!facts.reused);
        let lines = host.lines_until_dots(3).await;
        let dots: Vec<usize> = lines.iter().filter(|(_, line)| line == ".").map(|(number, _)| *number).collect();
        assert_eq!(dots, [1, 1, 2], "{second:?}");
    }
}
