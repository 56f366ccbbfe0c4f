//! An account submits: every mechanism on both doors, with foreign programs where they know it; whose
//! name may be used; what is completed and what is kept out.

use std::process::Output;

use gatepost_tests::client::{Client, scram};
use gatepost_tests::observe;
use gatepost_tests::pair::program::said;
use gatepost_tests::pair::{APP_PASSWORD, Pair};
use gatepost_tests::peers::clients::{self, Submission};
use gatepost_tests::peers::{mutt, openssl};
use gatepost_tests::world::message;

use super::{ALICE, BOB, expect_in_sink, fields, pair, values};

const FRIEND: &str = "friend@elsewhere.example";

/// The two doors: where, and the password that may be typed there by any mechanism.
fn doors(pair: &Pair) -> [(std::net::SocketAddr, String); 2] {
    let alice = pair.account(ALICE);
    [
        (pair.edge().doors.submissions, alice.submission_password.clone()),
        (pair.home.submissions, alice.password.clone()),
    ]
}

#[test]
fn foreign_clients_submit_at_both_doors_by_every_mechanism_they_know() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut number = 0;
    let mut numbers = Vec::new();
    for (server, password) in doors(&pair) {
        for client in [
            "swaks PLAIN",
            "swaks LOGIN",
            "msmtp plain",
            "msmtp login",
            "msmtp scram-sha-256",
            "curl",
            "python",
            "scram-plus",
        ] {
            number += 1;
            numbers.push(number);
            let message = message::numbered(number, ALICE, FRIEND, 2000);
            let submission = Submission {
                server,
                ca: &pair.ca,
                login: ALICE,
                password: &password,
                from: ALICE,
                to: FRIEND,
                message: &message,
                scratch: scratch.path(),
            };
            submit(client, submission);
        }
    }
    expect_in_sink(&pair, &numbers);
}

fn submit(client: &str, submission: Submission<'_>) {
    let at = submission.server;
    let check = |output: anyhow::Result<Output>| {
        let output = output.expect("it runs");
        assert!(output.status.success(), "{client} at {at}: {}", said(&output));
    };
    match client.split_once(' ').unwrap_or((client, "")) {
        ("swaks", mechanism) => check(clients::swaks(submission, mechanism)),
        ("msmtp", mechanism) => check(clients::msmtp(submission, mechanism)),
        ("curl", _) => check(clients::curl(submission)),
        ("python", _) => drop(clients::python(submission).expect("python submits")),
        _ => drop(openssl::scram_plus(submission).expect("SCRAM-SHA-256-PLUS submits")),
    }
}

#[test]
fn mutt_submits_at_both_doors() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    for (server, password) in doors(&pair) {
        mutt::submit(server, &pair.ca, ALICE, &password, FRIEND, "from mutt", scratch.path()).expect("mutt submits");
    }
    let envelopes = observe::until("two messages", || pair.sink.envelopes().expect("readable"), |all| all.len() == 2);
    assert!(
        envelopes.iter().all(|envelope| envelope.sender == ALICE && envelope.recipients == [FRIEND]),
        "{envelopes:?}"
    );
}

#[test]
fn the_doors_offer_what_they_do() {
    let pair = pair();
    for (server, _) in doors(&pair) {
        let mut client = Client::connect(server).expect("connected");
        client.secure(&pair.tls().expect("a CA"), "127.0.0.1").expect("TLS");
        client.expect(220).expect("greeted");
        let offered = client.say("EHLO laptop.example", 250).expect("EHLO").lines;
        let auth = offered.iter().find(|line| line.starts_with("AUTH ")).expect("AUTH is offered");
        for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"] {
            assert!(auth.split(' ').any(|word| word == mechanism), "{auth}");
        }
        assert!(offered.iter().any(|line| line == "DSN"), "{offered:?}");
        assert!(!offered.iter().any(|line| line == "STARTTLS"), "{offered:?}");
        client.say(&format!("MAIL FROM:<{ALICE}>"), 530).expect("nothing without a login");
    }
}

#[test]
fn our_own_scram_client_agrees_and_a_binding_of_another_channel_is_refused() {
    let pair = pair();
    let tls = pair.tls().expect("a CA");
    for (server, password) in doors(&pair) {
        for plus in [false, true] {
            let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
            let answer = scram::login(&mut client, ALICE, &password, plus).expect("answered");
            assert_eq!(answer.code, 235, "plus {plus} at {server}: {answer:?}");
        }
        let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
        let answer = scram::login_bound(&mut client, ALICE, &password, Some(&[7; 32])).expect("answered");
        assert_eq!(answer.code, 535, "{answer:?}");
        let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
        let answer = scram::login(&mut client, ALICE, "not the password", false).expect("answered");
        assert_eq!(answer.code, 535, "{answer:?}");
    }
}

#[test]
fn what_a_password_can_do_depends_on_where_it_is_typed() {
    let pair = pair();
    let tls = pair.tls().expect("a CA");
    let alice = pair.account(ALICE);
    let edge = pair.edge().doors.submissions;
    let login = |server, password: &str| {
        let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
        client.login(ALICE, password).expect("answered")
    };
    // A password that opens the mailbox must not be shown to the edge: refused, with the remedy.
    let answer = login(edge, &alice.password);
    assert_eq!(answer.code, 535, "{answer:?}");
    assert!(answer.text().contains("app password"), "the remedy is missing: {answer:?}");
    // By SCRAM it is not shown.
    let mut client = Client::greeted_tls(edge, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(scram::login(&mut client, ALICE, &alice.password, true).expect("answered").code, 235);
    assert_eq!(login(edge, &alice.submission_password).code, 235);
    assert_eq!(login(pair.home.submissions, &alice.password).code, 235);
    assert_eq!(login(pair.home.submissions, &alice.submission_password).code, 235);
    for server in [edge, pair.home.submissions] {
        assert_eq!(login(server, "guessed").code, 535);
    }
}

#[test]
fn guessing_is_bounded() {
    let pair = pair();
    for (server, _) in doors(&pair) {
        let mut client = Client::greeted_tls(server, &pair.tls().expect("a CA"), "127.0.0.1").expect("greeted");
        let mut refused = 0;
        while let Ok(answer) = client.login(ALICE, "guess") {
            assert!(answer.code == 535 || answer.code == 421, "{answer:?}");
            refused += 1;
            assert!(refused <= 10, "the session never ends");
        }
        assert!(refused >= 1);
    }
}

#[test]
fn nobody_writes_in_anothers_name() {
    let pair = pair();
    for (server, password) in doors(&pair) {
        let mut client = logged_in(&pair, server, &password);
        // At MAIL where it can be known, else at the end.
        let mut answer = client.ask(&format!("MAIL FROM:<{BOB}>")).expect("answered");
        if answer.code == 250 {
            client.say(&format!("RCPT TO:<{FRIEND}>"), 250).expect("RCPT");
            client.say("DATA", 354).expect("DATA");
            client.send(&message::stuffed(&message::numbered(3, ALICE, FRIEND, 500))).expect("sent");
            answer = client.answer().expect("answered");
        }
        assert!((550..=553).contains(&answer.code), "envelope at {server}: {answer:?}");
        let forged = message::numbered(1, BOB, FRIEND, 500);
        let answer = client.deliver(ALICE, &[FRIEND], &forged).expect("answered");
        assert!((550..=554).contains(&answer.code), "From at {server}: {answer:?}");
        // A subaddress of one's own is one's own.
        let sent = message::numbered(2, "alice+shop@example.org", FRIEND, 500);
        let answer = client.deliver("alice+shop@example.org", &[FRIEND], &sent).expect("answered");
        assert_eq!(answer.code, 250, "{answer:?}");
    }
    expect_in_sink(&pair, &[2, 2]);
}

#[test]
fn bcc_and_private_addresses_are_kept_out_and_what_is_missing_is_added() {
    let pair = pair();
    for (server, password) in doors(&pair) {
        let before = pair.sink.envelopes().expect("readable").len();
        let mut client = logged_in(&pair, server, &password);
        let bare = format!(
            "From: Alice <{ALICE}>\r\nTo: {FRIEND}\r\nBcc: hidden@elsewhere.example\r\nSubject: x\r\n\r\nhello\r\n"
        );
        let to = [FRIEND, "hidden@elsewhere.example"];
        assert_eq!(client.deliver(ALICE, &to, bare.as_bytes()).expect("answered").code, 250);
        let envelopes = observe::until(
            "both recipients in the sink",
            || pair.sink.envelopes().expect("readable"),
            |all| all[before..].iter().map(|envelope| envelope.recipients.len()).sum::<usize>() == 2,
        );
        let stored = pair.sink.message(&envelopes[before]).expect("readable");
        let stored = String::from_utf8_lossy(&stored).replace("\r\n", "\n");
        let fields = fields(&stored);
        assert!(!stored.contains("hidden@elsewhere.example"), "{stored}");
        assert_eq!(values(&fields, "Date").len(), 1, "{fields:?}");
        assert_eq!(values(&fields, "Message-ID").len(), 1, "{fields:?}");
        let received = values(&fields, "Received");
        assert!(!received.is_empty(), "{fields:?}");
        // The client sat on 127.0.0.1 and called itself client.example.
        assert!(
            !received.iter().any(|field| field.contains("client.example") || field.contains("127.0.0.1")),
            "{received:?}"
        );
    }
}

#[test]
fn lines_over_998_octets_never_go_out() {
    let pair = pair();
    for (server, password) in doors(&pair) {
        let before = pair.sink.envelopes().expect("readable").len();
        let mut client = logged_in(&pair, server, &password);
        let long = format!("From: {ALICE}\r\nTo: {FRIEND}\r\nSubject: long\r\n\r\n{}\r\n", "a".repeat(3000));
        let answer = client.deliver(ALICE, &[FRIEND], long.as_bytes()).expect("answered");
        if answer.code != 250 {
            assert!((550..=554).contains(&answer.code) || answer.code == 500, "{answer:?}");
            continue;
        }
        let envelopes = observe::until(
            "the message in the sink",
            || pair.sink.envelopes().expect("readable"),
            |all| all.len() > before,
        );
        let stored = pair.sink.message(&envelopes[before]).expect("readable");
        let longest = stored.split(|&octet| octet == b'\n').map(<[u8]>::len).max().unwrap_or(0);
        assert!(longest <= 999, "a line of {longest} octets went out");
    }
}

#[test]
fn a_submission_while_the_home_is_away_goes_out_when_it_is_back() {
    let mut pair = pair();
    let alice = pair.account(ALICE).clone();
    let server = pair.edge().doors.submissions;
    let tls = pair.tls().expect("a CA");
    pair.home.program.kill();
    pair.wait_until_down();
    let mut client = logged_in(&pair, server, &alice.submission_password);
    let sent = message::numbered(1, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
    drop(client);
    // And by SCRAM, whose transcript is sealed with the message.
    let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
    let answer = scram::login(&mut client, ALICE, &alice.submission_password, true).expect("answered");
    assert_eq!(answer.code, 235, "{answer:?}");
    let sent = message::numbered(2, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
    // Any other login has to wait for the home.
    let mut client = Client::greeted_tls(server, &tls, "127.0.0.1").expect("greeted");
    let answer = client.login(ALICE, &alice.password).expect("answered");
    assert_eq!(answer.code, 454, "{answer:?}");
    assert!(pair.sink.envelopes().expect("readable").is_empty(), "nothing goes out without the home");
    pair.home.program.start().expect("started");
    expect_in_sink(&pair, &[1, 2]);
}

#[test]
fn a_revoked_app_password_is_worth_nothing() {
    let mut pair = pair();
    let alice = pair.account(ALICE).clone();
    pair.home.program.kill();
    pair.wait_until_down();
    let mut client = logged_in(&pair, pair.edge().doors.submissions, &alice.submission_password);
    let sent = message::numbered(1, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
    // Revoked before the home sees what was submitted with it: not sent, and Alice is told.
    revoke(&pair, ALICE);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    observe::until("the edge to refuse it", || try_login(&pair, &alice.submission_password), |code| *code == 535);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}

fn try_login(pair: &Pair, password: &str) -> u16 {
    let server = pair.edge().doors.submissions;
    let mut client = Client::greeted_tls(server, &pair.tls().expect("a CA"), "127.0.0.1").expect("greeted");
    client.login(ALICE, password).expect("answered").code
}

fn revoke(pair: &Pair, address: &str) {
    pair.home.program.ask(&["app-password", "remove", address, APP_PASSWORD]).expect("revoked");
}

fn logged_in(pair: &Pair, server: std::net::SocketAddr, password: &str) -> Client {
    let mut client = Client::greeted_tls(server, &pair.tls().expect("a CA"), "127.0.0.1").expect("greeted");
    let answer = client.login(ALICE, password).expect("answered");
    assert_eq!(answer.code, 235, "{answer:?}");
    client
}
