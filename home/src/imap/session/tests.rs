use std::time::{Duration, Instant};

use gatepost_protocol::machine::{Machine as _, Output, TlsFacts};
use proptest::prelude::*;

use super::super::answer::Status;
use super::*;

/// A session and its owner, who logs everybody in and takes every message.
struct Pair {
    session: Session,
    now: Instant,
    said: String,
    events: Vec<String>,
    body: Vec<u8>,
    is_closed: bool,
}

impl Pair {
    fn new() -> Self {
        // No machine asks the time: any moment will do, and this test turns it.
        #[expect(clippy::disallowed_methods, reason = "some moment to begin with")]
        let now = Instant::now();
        let mut session = Session::new(now);
        session.secured(now, TlsFacts::default());
        let mut pair =
            Self { session, now, said: String::new(), events: Vec::new(), body: Vec::new(), is_closed: false };
        pair.drain();
        pair.said.clear();
        pair
    }

    fn logged_in() -> Self {
        let mut pair = Self::new();
        pair.hears("l LOGIN a b\r\n");
        pair.said.clear();
        pair
    }

    fn hears(&mut self, words: impl AsRef<[u8]>) -> String {
        self.session.bytes(self.now, words.as_ref());
        self.drain();
        std::mem::take(&mut self.said)
    }

    fn drain(&mut self) {
        for _ in 0..100_000 {
            match self.session.poll(self.now) {
                Output::Send(bytes) => self.said.push_str(&String::from_utf8_lossy(&bytes)),
                Output::Event(event) => self.answer(event),
                Output::Secure => panic!("TLS was there from the start"),
                Output::Wait { .. } => return,
                Output::Close => {
                    self.is_closed = true;
                    return;
                }
            }
        }
        panic!("it never waits");
    }

    fn answer(&mut self, event: Event) {
        let (session, now) = (&mut self.session, self.now);
        match event {
            Event::Auth { initial: Some(words), .. } | Event::AuthResponse(words) => {
                let answer = if words.expose().ends_with(b"wrong") {
                    AuthAnswer::Failure(Status::no_code("AUTHENTICATIONFAILED", "Wrong"))
                } else {
                    AuthAnswer::Success { login: "a".into(), last: None }
                };
                session.answer_auth(now, answer);
            }
            Event::Auth { initial: None, .. } => session.answer_auth(now, AuthAnswer::Challenge(Vec::new())),
            Event::Command(body) => {
                self.events.push(body.name().to_owned());
                if matches!(*body, CommandBody::Select { .. }) {
                    session.set_selected(true);
                }
                session.finish(now, &Status::ok(body.name()));
            }
            Event::Append(append) if append.octets > 1000 => {
                session.finish(now, &Status::no_code("TOOBIG", "Too much"));
            }
            Event::Append(append) => {
                self.events.push(format!("APPEND {}", append.octets));
                session.take_message(now);
            }
            Event::AppendBody(bytes) => self.body.extend_from_slice(&bytes),
            Event::AppendEnd => session.finish(now, &Status::ok("APPEND")),
            Event::AppendBrokenOff => self.events.push("broken off".to_owned()),
            Event::Idle => session.idle(now),
            Event::Done => session.finish(now, &Status::ok("IDLE")),
        }
    }

    fn later(&mut self, by: Duration) -> String {
        self.now += by;
        self.session.deadline(self.now);
        self.drain();
        std::mem::take(&mut self.said)
    }
}

#[test]
fn commands_are_done_one_after_another_however_they_are_cut() {
    let words =
        "1 CAPABILITY\r\n2 LOGIN {1}\r\na {1+}\r\nb\r\n3 NOOP\r\n4 SELECT INBOX\r\n5 FETCH 1 FLAGS\r\n6 LOGOUT\r\n";
    let whole = Pair::new().hears(words);
    for line in ["1 OK", "+ Ready", "2 OK [CAPABILITY ", "3 OK", "4 OK", "5 OK", "* BYE", "6 OK"] {
        assert!(whole.contains(line), "{line} is missing in {whole}");
    }
    let mut cut = Pair::new();
    let said: String = words.bytes().map(|octet| cut.hears([octet])).collect();
    assert_eq!(said, whole);
    assert!(cut.is_closed);
}

#[test]
fn nothing_is_had_without_a_login_nor_without_a_mailbox() {
    let mut pair = Pair::new();
    for command in ["SELECT INBOX", "LIST \"\" *", "IDLE", "FETCH 1 FLAGS"] {
        assert!(pair.hears(format!("a {command}\r\n")).starts_with("a NO"), "{command}");
    }
    assert!(pair.hears("a APPEND INBOX {10}\r\n").starts_with("+ "), "a literal like any other");
    assert!(pair.hears("0123456789\r\n").starts_with("a NO"));
    assert!(pair.events.is_empty());
    let mut pair = Pair::logged_in();
    for command in ["FETCH 1 FLAGS", "CLOSE", "EXPUNGE", "SEARCH ALL", "UID COPY 1 x"] {
        assert!(pair.hears(format!("a {command}\r\n")).starts_with("a BAD"), "{command}");
    }
    assert!(pair.events.is_empty() && pair.hears("a LOGIN a b\r\n").starts_with("a BAD"));
}

#[test]
fn wrong_logins_are_few_and_a_session_without_one_is_short() {
    let mut pair = Pair::new();
    for _ in 1..WRONG_LOGINS_MAX {
        assert!(pair.hears("a LOGIN a wrong\r\n").starts_with("a NO [AUTHENTICATIONFAILED]"));
    }
    assert!(pair.hears("a LOGIN a wrong\r\n").contains("* BYE") && pair.is_closed);
    let mut silent = Pair::new();
    assert!(silent.later(LOGIN_WAIT_MAX.saturating_sub(Duration::from_secs(1))).is_empty());
    assert!(silent.later(Duration::from_secs(1)).starts_with("* BYE") && silent.is_closed);
}

#[test]
fn a_login_by_turns_can_be_broken_off() {
    let mut pair = Pair::new();
    assert_eq!(pair.hears("a AUTHENTICATE PLAIN\r\n"), "+ \r\n");
    assert!(pair.hears("*\r\n").starts_with("a BAD"));
    assert_eq!(pair.hears("b AUTHENTICATE PLAIN\r\n"), "+ \r\n");
    assert!(pair.hears("not base64!\r\n").starts_with("b BAD"));
    assert!(pair.hears("c AUTHENTICATE GSSAPI\r\n").starts_with("c NO"));
    assert!(pair.hears("d AUTHENTICATE PLAIN AGEAYg==\r\n").starts_with("d OK"));
}

#[test]
fn messages_come_in_pieces_and_are_told_from_commands() {
    let mut pair = Pair::logged_in();
    let said = pair.hears("a APPEND {5}\r\n");
    assert!(said.starts_with("+ "), "the name may be a literal: {said}");
    assert!(pair.hears("INBOX (\\Seen) {7}\r\n").starts_with("+ "));
    assert!(pair.hears("b NOO").is_empty());
    assert!(pair.hears("P!\r\nc NOOP\r\n").starts_with("a OK APPEND done\r\nc OK"));
    assert_eq!((pair.body.as_slice(), pair.events.as_slice()), (&b"b NOOP!"[..], &["APPEND 7".to_owned()][..]));
    assert!(pair.hears("d APPEND INBOX {5000}\r\n").starts_with("d NO [TOOBIG]"));
    let coming = format!("e APPEND INBOX {{5000+}}\r\n{}\r\nf NOOP\r\n", "g LOGOUT\r\n".repeat(500));
    let said = pair.hears(coming);
    assert!(said.starts_with("e NO [TOOBIG]") && said.contains("f OK") && !said.contains("BYE"), "{said}");
}

#[test]
fn everything_is_bounded() {
    let mut pair = Pair::logged_in();
    assert!(pair.hears("a CREATE {4294967296}\r\n").starts_with("a BAD [TOOBIG]"));
    let long = format!("{}\r\nb NOOP\r\n", "x".repeat(3 * COMMAND_OCTETS_MAX));
    let said = pair.hears(long);
    assert!(said.contains("BAD [TOOBIG]") && said.contains("b OK"), "{said}");
    let deep = format!("c SEARCH {}ALL{}\r\n", "(".repeat(30_000), ")".repeat(30_000));
    pair.hears("s SELECT INBOX\r\n");
    assert!(pair.hears(deep).starts_with("c BAD"));
    let mut endless = Pair::logged_in();
    for _ in 0..100 {
        endless.hears(vec![b'x'; 32 * 1024]);
    }
    assert!(endless.is_closed && endless.session.input.is_empty());
    let mut babble = Pair::logged_in();
    for _ in 0..=BAD_COMMANDS_MAX {
        babble.hears("a NONSENSE\r\n");
    }
    assert!(babble.is_closed);
}

#[test]
fn who_idles_hears_now_and_then_and_ends_it_himself() {
    let mut pair = Pair::logged_in();
    pair.hears("s SELECT INBOX\r\n");
    assert_eq!(pair.hears("a IDLE\r\n"), "+ idling\r\n");
    for _ in 0..100 {
        assert_eq!(pair.later(STILL_HERE), "* OK Still here\r\n");
    }
    assert!(pair.hears("done\r\nb NOOP\r\n").starts_with("a OK"));
    assert!(pair.later(IDLE_MAX).starts_with("* BYE") && pair.is_closed);
}

#[test]
fn a_client_that_goes_in_mid_message_leaves_nothing() {
    let mut pair = Pair::logged_in();
    pair.hears("a APPEND INBOX {100}\r\nhalf");
    pair.session.end(pair.now);
    pair.drain();
    assert!(pair.is_closed && pair.events.contains(&"broken off".to_owned()));
}

proptest! {
    #[test]
    fn anything_may_be_said(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let mut pair = Pair::new();
        for words in &words {
            pair.hears(words);
        }
    }

    #[test]
    fn anything_like_commands_may_be_said(words in prop::collection::vec(prop::sample::select(vec![
        "a ", "LOGIN ", "a b", "\r\n", "{3}\r\n", "{3+}\r\n", "xyz", "APPEND ", "INBOX ", "IDLE", "DONE", "*", "{99999999+}\r\n",
        "AUTHENTICATE PLAIN", "AGEAYg==", "\n", "SELECT INBOX", "FETCH 1:* (BODY[])", "(", ")", "~{1}\r\n", "\"", "\0",
    ]), 0..40)) {
        let mut pair = Pair::new();
        for words in &words {
            pair.hears(words);
        }
        pair.session.end(pair.now);
        pair.drain();
        prop_assert!(pair.is_closed);
    }
}
