//! The world writes to an account: what is taken, what is refused, and by which reply.

use gatepost_tests::client::Client;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, expect_delivered, fields, only_message, pair, started, values};

#[test]
fn a_message_from_the_world_lies_in_the_maildir_when_the_edge_says_250() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.start_tls(&pair.tls().expect("a CA"), &pair.edge_hostname).expect("TLS");
    let sent = message::numbered(1, STRANGER, ALICE, 4096);
    let reply = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
    // No waiting: it was durable before the reply.
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), [1]);

    let stored = only_message(&pair, ALICE);
    let fields = fields(&stored);
    assert_eq!(values(&fields, "Return-Path"), [format!("<{STRANGER}>")]);
    assert_eq!(values(&fields, "Delivered-To"), [ALICE]);
    let received = values(&fields, "Received");
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(received[0].contains("client.example") && received[0].contains("127.0.0.1"), "{received:?}");
    assert!(received[0].contains(&format!("by {}", pair.edge_hostname)), "{received:?}");
    assert!(received[0].contains("with ESMTPS"), "{received:?}");
    let trace = reply.lines[0].split_whitespace().last().expect("a trace id").to_owned();
    assert!(received[0].contains(&trace), "the trace id {trace} of the reply stands in {received:?}");
}

#[test]
fn two_recipients_get_a_copy_each_and_a_session_carries_many_messages() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    for number in 1..=3 {
        let sent = message::numbered(number, STRANGER, ALICE, 1000);
        assert_eq!(client.deliver(STRANGER, &[ALICE, BOB], &sent).expect("answered").code, 250);
    }
    client.quit().expect("221");
    expect_delivered(&pair, ALICE, &[1, 2, 3]);
    expect_delivered(&pair, BOB, &[1, 2, 3]);
}

#[test]
fn the_door_offers_what_it_does_and_nothing_else() {
    let pair = pair();
    let mut client = Client::connect(pair.edge().doors.smtp).expect("connected");
    client.expect(220).expect("greeted");
    let offered = client.say("EHLO client.example", 250).expect("EHLO").lines[1..].to_vec();
    let names: Vec<&str> = offered.iter().filter_map(|line| line.split_whitespace().next()).collect();
    for expected in ["STARTTLS", "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"] {
        assert!(names.contains(&expected), "{expected} is missing in {offered:?}");
    }
    assert_eq!(names.len(), 6, "{offered:?}");
    assert!(offered.contains(&format!("SIZE {}", 50 * 1024 * 1024)), "{offered:?}");
    let answer = client.ask("VRFY alice").expect("answered");
    assert_eq!(answer.code, 252, "VRFY tells nothing: {answer:?}");
    // BDAT last: the octets it announces may be on their way, so it ends the session.
    for command in ["AUTH PLAIN AGEAYg==", "EXPN staff", "ETRN example.org", "BDAT 5 LAST"] {
        let answer = client.ask(command).expect("answered");
        assert!((500..=504).contains(&answer.code), "{command}: {answer:?}");
    }
    assert!(client.is_closed());
}

#[test]
fn who_does_not_exist_is_refused_at_rcpt() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    let answer = client.say("RCPT TO:<nobody@example.org>", 550).expect("refused");
    assert!(answer.text().starts_with("5.1.1"), "{answer:?}");
    let answer = client.say("RCPT TO:<someone@elsewhere.example>", 550).expect("no relay");
    assert!(answer.text().starts_with("5.7.1"), "{answer:?}");
    client.say("DATA", 503).expect("without a recipient there is nothing to send");
    client.say(&format!("RCPT TO:<{ALICE}>"), 503).ok();
}

#[test]
fn what_was_said_before_starttls_is_forgotten() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    // Plaintext behind STARTTLS in one packet: an injected command (CVE-2011-0411 and its kin).
    client.send(b"STARTTLS\r\nMAIL FROM:<injected@world.example>\r\n").expect("sent");
    let answer = client.answer().expect("answered");
    if answer.code == 220 {
        client.secure(&pair.tls().expect("a CA"), &pair.edge_hostname).expect("TLS");
        // Had the injected command survived, its reply would come now instead of the one to RCPT.
        client.say(&format!("RCPT TO:<{ALICE}>"), 503).expect("no transaction is open");
    } else {
        assert!(answer.code >= 500 || answer.code == 421, "{answer:?}");
    }
}

#[test]
fn a_bare_line_end_never_ends_or_starts_anything() {
    let pair = pair();
    let smuggled = "MAIL FROM:<admin@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n\
                    Subject: smuggled\r\n\r\nsmuggled\r\n.\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\n\n.\r\n", "\r\r\n.\r\n"] {
        let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
        client.begin(STRANGER, &[ALICE]).expect("begun");
        client.send(format!("Subject: outer\r\n\r\nouter{end}{smuggled}").as_bytes()).expect("sent");
        let answer = client.answer().expect("answered");
        assert!(answer.code >= 500, "{end:?} was answered {answer:?}");
        assert!(message::files(&pair.maildir(ALICE)).is_empty(), "{end:?} let something in");
    }
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.send(b"NOOP\nNOOP\r\n").expect("sent");
    assert!(client.answer().expect("answered").code >= 500, "a bare LF is no end of a command");
}

#[test]
fn a_nul_is_refused_in_a_message_and_in_a_command() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::with_body(1, STRANGER, ALICE, b"a\0b\r\n\0.\r\n.\0\r\nthe end\r\n");
    let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 550, "a host that drops it could see a false end: {answer:?}");
    assert!(message::numbers(&pair.maildir(ALICE)).is_ok_and(|numbers| numbers.is_empty()));
    client.send(b"NO\0OP\r\n").expect("sent");
    assert!(client.answer().expect("answered").code >= 500, "nor is it part of a command");
}

#[test]
fn a_header_flood_and_an_endless_line_are_refused() {
    let pair = pair();
    let flood = [b"X-Flood: yes\r\n".repeat(100_000), b"\r\nbody\r\n".to_vec()].concat();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.deliver(STRANGER, &[ALICE], &flood).expect("answered");
    assert!((500..600).contains(&answer.code), "{answer:?}");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.send(&b"A".repeat(100_000)).ok();
    client.send(b"\r\n").ok();
    if let Ok(answer) = client.answer() {
        assert!(answer.code >= 500 || answer.code == 421, "an endless line: {answer:?}");
    }
    assert!(message::files(&pair.maildir(ALICE)).is_empty());
    deliver_one(&pair, 1);
}

#[test]
fn half_a_message_is_no_message() {
    let pair = pair();
    let whole = message::stuffed(&message::numbered(1, STRANGER, ALICE, 200_000));
    for part in [10, whole.len() / 2, whole.len() - 1] {
        let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
        client.begin(STRANGER, &[ALICE]).expect("begun");
        client.send(&whole[..part]).expect("sent");
        drop(client);
    }
    deliver_one(&pair, 2);
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), [2]);
}

#[test]
fn ten_thousand_recipients_meet_a_limit() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    let mut taken = 0;
    let mut refused = 0;
    for _ in 0..10_000 {
        match client.ask(&format!("RCPT TO:<{ALICE}>")) {
            Ok(answer) if answer.code == 250 => taken += 1,
            Ok(answer) if answer.code == 452 => refused += 1,
            Ok(answer) => assert_eq!(answer.code, 421, "{answer:?}"),
            // Enough errors end the session.
            Err(_) => break,
        }
    }
    assert!(taken >= 100, "RFC 5321 §4.5.3.1.8 asks for 100, {taken} were taken");
    assert!(taken <= 1000 && refused > 0, "{taken} taken, {refused} refused");
    deliver_one(&pair, 1);
}

#[test]
fn what_is_too_big_is_refused_before_and_after_it_was_sent() {
    let pair = started(&Options::story().edge_set("limits.message=100 KiB").home_set("limits.message=100 KiB"));
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.ask(&format!("MAIL FROM:<{STRANGER}> SIZE=200000")).expect("answered");
    assert_eq!(answer.code, 552, "{answer:?}");
    assert!(answer.text().starts_with("5.3.4"), "{answer:?}");
    let big = message::numbered(1, STRANGER, ALICE, 200_000);
    let answer = client.deliver(STRANGER, &[ALICE], &big).expect("answered");
    assert_eq!(answer.code, 552, "{answer:?}");
    assert!(message::files(&pair.maildir(ALICE)).is_empty());
    deliver_one(&pair, 2);
}

#[test]
fn twenty_megabytes_arrive_whole() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.start_tls(&pair.tls().expect("a CA"), &pair.edge_hostname).expect("TLS");
    let sent = message::numbered(1, STRANGER, ALICE, 20_000_000);
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
    assert_eq!(message::numbers(&pair.maildir(ALICE)).expect("whole"), [1]);
}

#[test]
fn garbage_instead_of_tls_hurts_nobody() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say("STARTTLS", 220).expect("ready");
    client.send(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]).expect("sent");
    client.send(&b"x".repeat(70_000)).ok();
    let mut client = Client::connect(pair.edge().doors.submissions).expect("connected");
    client.send(b"EHLO without.tls.example\r\n").expect("sent");
    let mut client = Client::connect(pair.home.submissions).expect("connected");
    client.send(&[0; 1000]).expect("sent");
    let mut client = Client::connect(pair.edge().doors.tunnel).expect("connected");
    client.send(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    deliver_one(&pair, 1);
}

#[test]
fn an_empty_reverse_path_postmaster_and_dots_are_ordinary() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let report = message::with_body(1, "mailer-daemon@world.example", ALICE, b".\r\n..\r\n.x\r\n");
    assert_eq!(client.deliver("", &[ALICE], &report).expect("answered").code, 250);
    assert_eq!(values(&fields(&only_message(&pair, ALICE)), "Return-Path"), ["<>"]);
    // RFC 5321 §4.5.1: with and without a domain; it is Alice here.
    for postmaster in ["postmaster", "Postmaster@example.org"] {
        let sent = message::numbered(2, STRANGER, postmaster, 500);
        assert_eq!(client.deliver(STRANGER, &[postmaster], &sent).expect("answered").code, 250, "{postmaster}");
    }
    expect_delivered(&pair, ALICE, &[1, 2, 2]);
}

fn deliver_one(pair: &gatepost_tests::pair::Pair, number: u64) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, ALICE, 1000);
    let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}
