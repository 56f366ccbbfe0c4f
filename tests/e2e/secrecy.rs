//! What is logged, traced and counted holds no password and no word of a message's text, however busy it was.

use std::fs;
use std::path::Path;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::{message, ports};

use super::{ALICE, STRANGER, expect_delivered, expect_in_sink, started};

const MARK: &str = "the-combination-is-7-41-23";

#[test]
fn no_password_and_no_word_of_a_text_is_logged_traced_or_counted() {
    let metrics = ports::free();
    let options = Options::story().home_set(&format!("metrics.listen=\"{metrics}\"")).home_set("queue.retry=[\"1 s\"]");
    let mut pair = started(&options);
    let alice = pair.account(ALICE).clone();
    let tls = pair.tls().expect("a CA");
    let wrong = "a-wrong-password-typed-by-mistake";
    let text = |number, from: &str, to: &str| message::with_body(number, from, to, format!("{MARK}\r\n").as_bytes());

    // From the world: taken, refused, sealed.
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    assert_eq!(client.deliver(STRANGER, &[ALICE], &text(1, STRANGER, ALICE)).expect("answered").code, 250);
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.say("RCPT TO:<nobody@example.org>", 550).expect("refused");
    drop(client);
    // From the account, at both doors; with wrong passwords, too.
    for (door, password, number) in
        [(pair.home.submissions, &alice.password, 2), (pair.edge().doors.submissions, &alice.submission_password, 3)]
    {
        let mut client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
        assert_eq!(client.login(ALICE, wrong).expect("answered").code, 535);
        assert_eq!(client.login(ALICE, password).expect("answered").code, 235);
        let sent = text(number, ALICE, "friend@elsewhere.example");
        assert_eq!(client.deliver(ALICE, &["friend@elsewhere.example"], &sent).expect("answered").code, 250);
    }
    // A mailbox's password at the edge is refused there.
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 535);
    drop(client);
    expect_in_sink(&pair, &[2, 3]);
    let mut stream = std::net::TcpStream::connect(metrics).expect("connected");
    std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\n\r\n").expect("asked");
    let page = std::io::read_to_string(stream).expect("a page");
    pair.home.program.kill();
    pair.wait_until_down();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    assert_eq!(client.deliver(STRANGER, &[ALICE], &text(4, STRANGER, ALICE)).expect("answered").code, 250);
    let kept_at_edge = observe::until(
        "the edge's journal to hold what it sealed",
        || everything_in(&pair.edge().program.state.join("events")),
        |kept| kept.windows(6).any(|window| window == b"sealed"),
    );
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1, 4]);
    let told = observe::until(
        "the last story",
        || pair.home.program.ask(&["trace", "example"]).expect("trace"),
        |told| told.contains("fetched it from edge") && told.matches("answered 250").count() >= 3,
    );
    let status = pair.home.program.ask(&["status", "--json"]).expect("status");

    let state = &pair.home.program.state;
    let places: Vec<(&str, Vec<u8>)> = vec![
        ("the edge's log", pair.edge().program.said().into_bytes()),
        ("the home's log", pair.home.program.said().into_bytes()),
        ("the edge's journal", kept_at_edge),
        ("trace.db", fs::read(state.join("trace.db")).expect("readable")),
        ("trace.db's log", fs::read(state.join("trace.db-wal")).unwrap_or_default()),
        ("trace", told.into_bytes()),
        ("status", status.into_bytes()),
        ("the metrics", page.into_bytes()),
    ];
    for (place, bytes) in &places {
        assert!(bytes.len() > 100 || *place == "trace.db's log", "{place} was looked at");
        for secret in [MARK, wrong, &alice.password, &alice.submission_password, "Subject: "] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{place} holds {secret:?}");
        }
    }
    // The log does tell of all this.
    assert!(String::from_utf8_lossy(&places[0].1).contains("login failed"));
}

fn everything_in(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        all.extend(if path.is_dir() { everything_in(&path) } else { fs::read(path).unwrap_or_default() });
    }
    all
}
