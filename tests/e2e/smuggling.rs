//! One message stays one message, whatever stands where its end could be: a sample of what the machine's own tests try
//! in full, through the real doors in one piece and in pieces, and out again through a real Postfix.

use std::net::SocketAddr;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::peers::ServerOptions;
use gatepost_tests::peers::postfix::Postfix;
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, started};

/// What looks like the end of a message to somebody.
const ENDS: [&[u8]; 16] = [
    b"\n.\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\r\n.\r\n\x00",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\x00\n",
    b"\x00\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\n.x\r\n",
    b"\r\n..\r\n",
    b"x.\r\n",
    b"\r\n. \r\n",
];

/// A message with this where its end could be, and another one behind it.
fn wire(number: usize, from: &str, end: &[u8], smuggled_to: &str) -> Vec<u8> {
    let header = format!("From: <{from}>\r\nSubject: case {number}\r\n\r\ntext");
    let smuggled = format!(
        "MAIL FROM:<{from}>\r\nRCPT TO:<{smuggled_to}>\r\nDATA\r\nFrom: <{from}>\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"
    );
    [header.as_bytes(), end, smuggled.as_bytes()].concat()
}

/// Where the only true end is.
fn true_end(wire: &[u8]) -> usize {
    wire.windows(5).position(|five| five == b"\r\n.\r\n").expect("it is there") + 5
}

/// Sends every case, each in a session of its own; gives how many were taken.
fn battery(open: &dyn Fn() -> Client, from: &str, to: &str, smuggled_to: &str) -> usize {
    let mut taken = 0;
    for (number, end) in ENDS.iter().enumerate() {
        for pieces in [1, 3] {
            let wire = wire(number, from, end, smuggled_to);
            let mut client = open();
            client.begin(from, &[to]).expect("begun");
            let whole = &wire[..true_end(&wire)];
            // Split so that a segment ends within what looks like an end.
            let at = wire.windows(end.len()).position(|found| found == *end).expect("there") + end.len() / 2;
            if pieces == 1 {
                client.send(whole).expect("sent");
            } else {
                // Segments of their own: the socket delays nothing.
                for part in [&whole[..at], &whole[at..=at], &whole[at + 1..]] {
                    client.send(part).expect("sent");
                }
            }
            let answer = client.answer().expect("answered");
            assert!(answer.code == 250 || answer.code == 550, "{}: {answer:?}", end.escape_ascii());
            taken += usize::from(answer.code == 250);
            // Nothing else was heard: the next reply is that to QUIT.
            client.say("QUIT", 221).unwrap_or_else(|error| panic!("{}: {error:#}", end.escape_ascii()));
        }
    }
    taken
}

fn subjects(files: &[std::path::PathBuf]) -> Vec<String> {
    let subject = |file: &std::path::PathBuf| {
        let text = std::fs::read(file).expect("readable");
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().trim().to_owned()
    };
    files.iter().map(subject).collect()
}

/// Each of these came once for each way it was sent, and nothing that was smuggled.
fn expect_whole(files: &[std::path::PathBuf], taken: usize) {
    let subjects = subjects(files);
    assert_eq!(subjects.len(), taken, "{subjects:?}");
    assert!(subjects.iter().all(|subject| subject.starts_with("case ")), "{subjects:?}");
}

/// The only ends that are text, and so taken: dots that are stuffed, or not alone.
const TEXT: usize = 4;

#[test]
fn nothing_splits_at_the_edges_25() {
    let pair = started(&Options::story());
    for tls in [false, true] {
        let open = || {
            let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
            if tls {
                client.start_tls(&pair.tls().expect("a CA"), "127.0.0.1").expect("TLS");
            }
            client
        };
        assert_eq!(battery(&open, STRANGER, ALICE, BOB), 2 * TEXT);
    }
    expect_whole(&message::files(&pair.maildir(ALICE)), 2 * 2 * TEXT);
    assert!(message::files(&pair.maildir(BOB)).is_empty());
}

/// At the doors whose mail goes out; and a real Postfix, told to read as leniently as it can, is where it goes.
#[test]
fn nothing_splits_on_its_way_out_by_a_postfix() {
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(scratch.path()).expect("a CA");
    let certificate = authority.issue(&["mx.world.example", "127.0.0.1"]).expect("a certificate");
    let postfix = Postfix::start(&ServerOptions {
        hostname: "mx.world.example",
        domain: "world.example",
        routes: &[],
        certificate: &certificate,
        ca: &authority.certificate(),
    })
    .expect("Postfix starts");
    let mut options = Options::story().home_set("trusted_networks=[\"127.0.0.1\"]");
    options.outbound = Outbound::Routes(vec![("world.example".to_owned(), postfix.smtp.to_string())]);
    let pair = started(&options);
    let to = "user@world.example";
    let smuggled_to = "postmaster@world.example";
    let mut taken = 0;
    for door in [pair.edge().doors.submissions, pair.home.submissions] {
        let open = || account(&pair, door);
        taken += battery(&open, ALICE, to, smuggled_to);
    }
    let open = || Client::greeted(pair.home.relay.expect("home:25")).expect("greeted");
    taken += battery(&open, ALICE, to, smuggled_to);
    assert_eq!(taken, 3 * 2 * TEXT);
    let files = observe::until("all at Postfix", || message::files(&postfix.maildir()), |files| files.len() >= taken);
    expect_whole(&files, taken);
    // The last reply may still be on its way from the edge.
    observe::until("the queue to be empty", || pair.queued().ok(), |queued| *queued == Some(0));
}

fn account(pair: &Pair, door: SocketAddr) -> Client {
    let mut client = Client::greeted_tls(door, &pair.tls().expect("a CA"), "127.0.0.1").expect("greeted");
    let password = &pair.account(ALICE).submission_password;
    assert_eq!(client.login(ALICE, password).expect("answered").code, 235);
    client
}

/// What a hurried client pipelines behind a refused message is heard as commands, and as nothing else.
#[test]
fn what_is_pipelined_behind_a_message_is_heard_in_order() {
    let pair = started(&Options::story());
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.begin(STRANGER, &[ALICE]).expect("begun");
    let behind =
        format!("MAIL FROM:<{STRANGER}>\r\nRCPT TO:<victim@other.example>\r\nRCPT TO:<{BOB}>\r\nRSET\r\nQUIT\r\n");
    client.send(&[b"Subject: x\r\n\r\na\n.\nb\r\n.\r\n", behind.as_bytes()].concat()).expect("sent");
    for code in [550, 250, 550, 250, 250, 221] {
        client.expect(code).expect("in order");
    }
    assert!(message::files(&pair.maildir(ALICE)).is_empty() && message::files(&pair.maildir(BOB)).is_empty());
}
