//! Dialogs as scripts (`dialogs/*.smtp`), and what no script can say: bounds and clocks.
//!
//! A script's lines: `C: text` sends a line, `C> text` sends the text alone (`\r \n \0 \\ \xNN`),
//! consecutive ones in one piece; `S: text` expects a reply line that begins so, and no other;
//! `! tls` expects the upgrade and completes it, `! body text` expects the message given so far,
//! `! reset` a [`Event::Reset`], `! closed Why` the end, `! eof` and `! wait SECONDS` happen.
//! `! door 465` chooses the door (`lan`: STARTTLS, a login if the client likes, bare names), `! whole` forbids sending octet by octet (the script tests
//! what comes in one piece). Recipients `unknown@` are refused, `later@` deferred, as is
//! `DATA` after `MAIL FROM:<nodata@…>`; a message that holds `refuse-me` is refused.

mod smuggling;

use std::time::Duration;

use proptest::prelude::*;

use super::limits::Limits;
use super::*;
use crate::mail::address::{Domain, ForwardPath};
use crate::mail::directory::LoginVerifier;
use crate::sasl::{Exchange, Turn, check_password, derive_keys};
use crate::secret::Secret;

fn profile(door: &str) -> Profile {
    let (submission, lan) = (door == "465", door == "lan");
    let mechanisms = vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];
    Profile {
        hostname: "mail.example.org".into(),
        starttls: !submission,
        mechanisms: if submission || lan { mechanisms } else { Vec::new() },
        login_required: submission,
        dsn: submission || lan,
        qualify: lan.then(|| Domain::parse("example.org").expect("valid")),
        limits: Limits { message_octets_max: 200, recipients_max: 3, errors_max: 6, ..Limits::default() },
    }
}

fn facts() -> TlsFacts {
    TlsFacts { version: "TLSv1.3".into(), exporter: Some([7; 32]), ..TlsFacts::default() }
}

/// The program around the machine: answers questions by the simple rules above.
struct Program {
    server: Server,
    now: Instant,
    verifier: LoginVerifier,
    exchange: Option<Exchange>,
    no_data: bool,
    /// Everything the machine sent and was not yet looked at.
    sent: Vec<u8>,
    body: Vec<u8>,
    resets: usize,
    questions: usize,
    secure: bool,
    closing: Option<Ending>,
    closed: bool,
}

impl Program {
    #[expect(clippy::disallowed_methods, reason = "a machine needs some moment to start from")]
    fn new(profile: Profile, implicit_tls: bool) -> Self {
        let now = Instant::now();
        let mut server = Server::new(profile, now);
        if implicit_tls {
            server.secured(now, facts());
        }
        let keys = derive_keys(b"secret", b"0123456789abcdef", 4);
        Self {
            server,
            now,
            verifier: LoginVerifier { salt: b"0123456789abcdef".to_vec(), iterations: 4, keys: vec![keys] },
            exchange: None,
            no_data: false,
            sent: Vec::new(),
            body: Vec::new(),
            resets: 0,
            questions: 0,
            secure: false,
            closing: None,
            closed: false,
        }
    }

    fn at(door: &str) -> Self {
        let mut program = Self::new(profile(door), door == "465");
        program.drain();
        program
    }

    fn send(&mut self, bytes: &[u8]) {
        self.server.bytes(self.now, bytes);
        self.drain();
    }

    fn say(&mut self, text: &str) -> String {
        self.send(text.as_bytes());
        self.heard()
    }

    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.sent)).expect("replies are UTF-8")
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.server.deadline(self.now);
        self.drain();
    }

    /// Polls until the machine waits.
    fn drain(&mut self) {
        while !self.closed {
            match self.server.poll(self.now) {
                Output::Send(bytes) => {
                    assert!(!bytes.is_empty());
                    self.sent.extend_from_slice(&bytes);
                }
                Output::Event(event) => self.event(event),
                Output::Secure => self.secure = true,
                Output::Wait { read, .. } => {
                    assert!(read || self.secure, "a question stayed open");
                    return;
                }
                Output::Close => self.closed = true,
            }
        }
    }

    fn event(&mut self, event: Event) {
        assert_eq!(self.closing, None, "an event after the last: {event:?}");
        match event {
            Event::Connected => self.answer(Reply::greeting("mail.example.org")),
            Event::Hello { name, .. } => assert_eq!(self.server.hello(), Some(name.as_str())),
            Event::Auth { mechanism, initial } => {
                let mut exchange = Exchange::new(mechanism, facts().exporter, true, [1; 18]);
                let turn = exchange.start(initial.as_ref().map(Secret::expose));
                self.exchange = Some(exchange);
                self.turn(turn);
            }
            Event::AuthResponse(response) => {
                let turn = self.exchange.as_mut().expect("a login is open").response(response.expose());
                self.turn(turn);
            }
            Event::Sender(mail) => {
                self.no_data = mail.reverse_path.to_string().starts_with("nodata@");
                self.answer(Reply::sender_ok());
            }
            Event::Recipient(rcpt) => self.answer(match &rcpt.path {
                ForwardPath::Address(a) if a.local().as_str() == "unknown" => Reply::unknown_recipient(),
                ForwardPath::Address(a) if a.local().as_str() == "later" => Reply::directory_missing(),
                _ => Reply::recipient_ok(),
            }),
            Event::Data => self.answer(if self.no_data { Reply::no_room() } else { Reply::start_data() }),
            Event::Body(bytes) => {
                assert!(!bytes.is_empty());
                self.body.extend_from_slice(&bytes);
            }
            Event::BodyEnd { octets } => {
                assert_eq!(octets, self.body.len() as u64);
                let refused = self.body.windows(9).any(|window| window == b"refuse-me");
                self.answer(if refused { Reply::mail_loop() } else { Reply::accepted("x") });
            }
            Event::Reset => {
                self.resets += 1;
                self.body.clear();
            }
            Event::Closing(ending) => self.closing = Some(ending),
        }
    }

    fn answer(&mut self, reply: Reply) {
        self.questions += 1;
        self.server.answer(self.now, reply);
    }

    fn turn(&mut self, turn: Turn) {
        let answer = match turn {
            Turn::Challenge(challenge) => AuthAnswer::Challenge(challenge),
            Turn::Password { login, password } => match check_password(password.expose(), &self.verifier) {
                Some(_) if login == "alice" => AuthAnswer::Success { login, last: None },
                _ => AuthAnswer::Failure(Reply::login_refused()),
            },
            Turn::Verifier { .. } => {
                let turn = self.exchange.as_mut().expect("a login is open").verifier(self.verifier.clone());
                return self.turn(turn);
            }
            Turn::Proven { login, last, .. } => AuthAnswer::Success { login, last: Some(last) },
            Turn::Refused => AuthAnswer::Failure(Reply::login_refused()),
            Turn::Malformed => AuthAnswer::Failure(Reply::login_malformed()),
        };
        self.server.answer_auth(self.now, answer);
    }
}

/// `\r \n \0 \\ \xNN` in a script.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('r')) => bytes.push(b'\r'),
            ('\\', Some('n')) => bytes.push(b'\n'),
            ('\\', Some('0')) => bytes.push(0),
            ('\\', Some('\\')) => bytes.push(b'\\'),
            ('\\', Some('x')) => {
                let digits: String = chars.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two hex digits"));
            }
            ('\\', other) => panic!("unknown escape {other:?}"),
            (c, _) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Runs a script, sending each piece whole or octet by octet.
fn run(name: &str, script: &str, octet_by_octet: bool) {
    let door = script.lines().find_map(|line| line.strip_prefix("! door ")).unwrap_or("25");
    let mut program = Program::at(door);
    let mut piece = Vec::new();
    let mut heard: VecDeque<String> = VecDeque::new();
    for (number, line) in script.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        if let Some(text) = line.strip_prefix("C> ") {
            piece.extend_from_slice(&unescape(text));
            continue;
        }
        if let Some(text) = line.strip_prefix("C:") {
            piece.extend_from_slice(text.strip_prefix(' ').unwrap_or(text).as_bytes());
            piece.extend_from_slice(b"\r\n");
            continue;
        }
        if line.is_empty() || line.starts_with('#') || line.starts_with("! door") || line == "! whole" {
            continue;
        }
        if !piece.is_empty() {
            assert_eq!(heard.pop_front(), None, "{place}: a reply nobody expected");
            let cut = if octet_by_octet { 1 } else { piece.len() };
            for bytes in std::mem::take(&mut piece).chunks(cut) {
                program.send(bytes);
            }
        }
        heard.extend(program.heard().split_terminator("\r\n").map(str::to_owned));
        match line.split_once(' ') {
            Some(("S:", text)) => {
                let got = heard.pop_front().unwrap_or_default();
                assert!(got.starts_with(text), "{place}: expected `{text}`, got `{got}`");
            }
            Some(("!", what)) => {
                assert_eq!(heard.pop_front(), None, "{place}: a reply nobody expected");
                match what.split_once(' ').unwrap_or((what, "")) {
                    ("tls", _) => {
                        assert!(std::mem::take(&mut program.secure), "{place}: no upgrade was asked for");
                        program.server.secured(program.now, facts());
                        program.drain();
                    }
                    ("body", text) => {
                        let body = std::mem::take(&mut program.body);
                        assert_eq!(
                            body.escape_ascii().to_string(),
                            unescape(text).escape_ascii().to_string(),
                            "{place}"
                        );
                    }
                    ("reset", _) => assert_eq!(std::mem::take(&mut program.resets), 1, "{place}"),
                    ("closed", why) => {
                        assert!(program.closed, "{place}: still open");
                        assert_eq!(format!("{:?}", program.closing.expect("told before")), why, "{place}");
                    }
                    ("eof", _) => {
                        program.server.end(program.now);
                        program.drain();
                    }
                    ("wait", seconds) => program.wait(seconds.parse().expect("a number")),
                    _ => panic!("{place}: `{line}`?"),
                }
            }
            _ => panic!("{place}: `{line}`?"),
        }
    }
    assert!(piece.is_empty(), "{name}: ends with something unsent");
    assert_eq!(heard.pop_front(), None, "{name}: a reply nobody expected at the end");
    assert_eq!(program.resets, 0, "{name}: a reset nobody expected");
}

macro_rules! dialogs {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let script = include_str!(concat!("dialogs/", stringify!($name), ".smtp"));
            assert!(script.contains("\nS: "), "a script without expectations proves nothing");
            run(stringify!($name), script, false);
            if !script.contains("! whole\n") {
                run(stringify!($name), script, true);
            }
        }
    )*};
}

dialogs!(
    plain_message,
    order,
    smuggling,
    starttls,
    pipelining,
    early_talkers,
    parameters,
    utf8,
    quoted_local_parts,
    long_lines,
    too_many_recipients,
    too_big,
    bare_line_ends,
    login,
    login_refused,
    hang_up,
    timeouts,
    errors,
    chunks,
    trusted_network,
);

/// Every script in the folder is in the list above.
#[test]
fn no_script_is_forgotten() {
    let listed = include_str!("tests.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/smtp/server/dialogs")).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_stem().expect("name").to_string_lossy().into_owned();
        assert!(listed.contains(&format!("    {name},\n")), "{name} is not run");
    }
}

const TRANSACTION: &str = "MAIL FROM:<a@b.c>\r\nRCPT TO:<alice@example.org>\r\n";

fn greeted() -> Program {
    let mut program = Program::at("25");
    program.say("EHLO client.example\r\n");
    program
}

#[test]
fn ten_thousand_recipients_are_bounded() {
    let mut program = greeted();
    program.say("MAIL FROM:<a@b.c>\r\n");
    program.questions = 0;
    let mut sent = 0;
    for _ in 0..100 {
        program.send(&b"RCPT TO:<alice@example.org>\r\n".repeat(100));
        sent += program.heard().len();
    }
    assert_eq!(program.questions, 3);
    assert_eq!(program.closing, Some(Ending::Abuse));
    assert!(sent < 10_000, "{sent} octets of replies");
}

#[test]
fn a_client_past_the_recipient_limit_keeps_its_transaction() {
    let mut program = greeted();
    program.say("MAIL FROM:<a@b.c>\r\n");
    let heard = program.say(&"RCPT TO:<alice@example.org>\r\n".repeat(6));
    assert_eq!((heard.matches("250 2.1.5").count(), heard.matches("452 4.5.3").count()), (3, 3));
    assert!(program.say("DATA\r\n").starts_with("354"));
}

#[test]
fn idle_commands_are_bounded() {
    let mut program = greeted();
    let heard = program.say(&"NOOP\r\n".repeat(1000));
    assert_eq!(heard.matches("250 2.0.0").count(), Limits::default().idle_commands_max);
    assert!(heard.ends_with("421 4.7.0 Too many errors\r\n"), "{heard}");
    assert!(program.closed);
}

#[test]
fn a_message_taken_forgives_errors_and_idling() {
    let mut program = greeted();
    for _ in 0..300 {
        assert!(program.say("RSET\r\n").starts_with("250"));
        assert!(program.say("WHAT\r\n").starts_with("500"));
        assert!(program.say(TRANSACTION).starts_with("250"));
        assert!(program.say("DATA\r\n").starts_with("354"));
        assert!(program.say(".\r\n").starts_with("250"));
    }
}

#[test]
fn transactions_of_one_session_are_bounded() {
    let mut profile = profile("25");
    profile.limits.transactions_max = 2;
    let mut program = Program::new(profile, false);
    program.drain();
    program.say("EHLO x\r\n");
    for _ in 0..2 {
        assert!(program.say("MAIL FROM:<>\r\n").starts_with("250"));
        program.say("RSET\r\n");
    }
    assert!(program.say("MAIL FROM:<>\r\n").starts_with("421"));
    assert_eq!(program.closing, Some(Ending::Refused));
}

#[test]
fn a_session_has_an_end_even_for_a_steady_client() {
    let mut program = greeted();
    program.say(TRANSACTION);
    program.say("DATA\r\n");
    let step = Limits::default().data_wait_max.as_secs() - 1;
    for _ in 0..=Limits::default().session_max.as_secs() / step {
        program.wait(step);
        program.send(b"a");
    }
    assert_eq!(program.closing, Some(Ending::TimedOut));
    assert_eq!(program.resets, 1);
}

#[test]
fn dribbled_octets_do_not_extend_the_wait_for_a_command() {
    let mut program = greeted();
    for _ in 0..31 {
        program.wait(10);
        program.send(b"N");
    }
    assert_eq!(program.closing, Some(Ending::TimedOut));
}

#[test]
fn an_open_question_has_no_deadline_and_reads_nothing() {
    let mut program = Program::at("25");
    program.say("EHLO x\r\n");
    program.server.bytes(program.now, b"MAIL FROM:<a@b.c>\r\nNOOP\r\n");
    assert!(matches!(program.server.poll(program.now), Output::Event(Event::Sender(_))));
    for _ in 0..3 {
        assert!(matches!(program.server.poll(program.now), Output::Wait { until: None, read: false }));
    }
    program.wait_long_without_effect();
    program.server.answer(program.now, Reply::sender_ok());
    program.drain();
    assert_eq!(program.heard(), "250 2.1.0 Sender OK\r\n250 2.0.0 OK\r\n");
}

impl Program {
    fn wait_long_without_effect(&mut self) {
        self.now += Duration::from_secs(100_000);
        self.server.deadline(self.now);
        assert!(matches!(self.server.poll(self.now), Output::Wait { until: None, read: false }));
        self.now -= Duration::from_secs(100_000);
    }
}

#[test]
fn input_held_during_a_question_is_bounded() {
    let mut program = greeted();
    program.server.bytes(program.now, b"MAIL FROM:<a@b.c>\r\n");
    assert!(matches!(program.server.poll(program.now), Output::Event(Event::Sender(_))));
    for _ in 0..100_000 {
        program.server.bytes(program.now, b"NOOP\r\n");
    }
    assert!(program.server.input.len() <= Limits::default().buffer_octets_max);
    program.server.answer(program.now, Reply::sender_ok());
    program.drain();
    assert!(program.heard().contains("\r\n503 "));
    assert_eq!(program.closing, Some(Ending::Abuse));
}

#[test]
fn shutting_down_owes_the_answer_for_a_message_first() {
    let mut program = greeted();
    program.say(TRANSACTION);
    program.say("DATA\r\n");
    program.server.shut_down(program.now);
    program.drain();
    assert_eq!(program.heard(), "");
    assert_eq!(program.say("hi\r\n.\r\n"), "250 2.0.0 Accepted as x\r\n421 4.3.2 Shutting down, try again later\r\n");
    assert_eq!((program.closing, program.resets), (Some(Ending::Refused), 0));
}

#[test]
fn shutting_down_ends_an_idle_session_at_once() {
    let mut program = greeted();
    program.server.shut_down(program.now);
    program.drain();
    assert!(program.heard().starts_with("421 4.3.2"));
    assert_eq!((program.closing, program.resets), (Some(Ending::Refused), 0));
}

#[test]
fn shutting_down_lets_an_open_transaction_end_and_begins_none() {
    for (rest, heard, resets) in [
        ("RSET\r\nMAIL FROM:<a@b.c>\r\n", "250 2.0.0 OK\r\n421 4.3.2 Shutting down, try again later\r\n", 1),
        ("DATA\r\n", "354 Go ahead, end with a dot on a line by itself\r\n", 0),
    ] {
        let mut program = greeted();
        program.say(TRANSACTION);
        program.server.shut_down(program.now);
        program.drain();
        assert_eq!(program.heard(), "");
        assert_eq!(program.say(rest), heard);
        assert_eq!(program.resets, resets);
        if resets == 0 {
            let end = program.say("hi\r\n.\r\n");
            assert_eq!(end, "250 2.0.0 Accepted as x\r\n421 4.3.2 Shutting down, try again later\r\n");
        }
        assert_eq!(program.closing, Some(Ending::Refused));
    }
}

#[test]
fn a_refusal_at_the_greeting_closes() {
    let mut program = Program::new(profile("25"), false);
    assert!(matches!(program.server.poll(program.now), Output::Event(Event::Connected)));
    program.server.answer(program.now, Reply::too_many_connections());
    program.drain();
    assert!(program.heard().starts_with("421"));
    assert_eq!(program.closing, Some(Ending::Refused));
}

#[test]
fn who_speaks_before_the_greeting_is_not_greeted() {
    let much = vec![b'x'; 100_000];
    for early in [&b"EHLO client.example\r\n"[..], b"G", &much] {
        let mut program = Program::new(profile("25"), false);
        assert!(matches!(program.server.poll(program.now), Output::Event(Event::Connected)));
        assert!(matches!(program.server.poll(program.now), Output::Wait { until: None, read: true }));
        program.server.bytes(program.now, early);
        program.drain();
        assert_eq!(program.heard(), "554 5.5.1 You spoke before you were greeted\r\n");
        assert_eq!(program.closing, Some(Ending::Abuse));
    }
}

#[test]
fn who_goes_before_the_greeting_is_gone_at_once() {
    let mut program = Program::new(profile("25"), false);
    assert!(matches!(program.server.poll(program.now), Output::Event(Event::Connected)));
    program.server.end(program.now);
    program.drain();
    assert_eq!((program.heard().as_str(), program.closing), ("", Some(Ending::HungUp)));
}

#[test]
fn a_421_in_a_transaction_closes_and_resets() {
    let mut program = greeted();
    program.say("MAIL FROM:<a@b.c>\r\n");
    program.server.bytes(program.now, b"RCPT TO:<a@b.c>\r\n");
    assert!(matches!(program.server.poll(program.now), Output::Event(Event::Recipient(_))));
    program.server.answer(program.now, Reply::shutting_down());
    program.drain();
    assert_eq!((program.closing, program.resets), (Some(Ending::Refused), 1));
}

#[test]
fn names_the_protocol_it_speaks() {
    let mut program = Program::at("25");
    assert_eq!(program.server.with_protocol(), "SMTP");
    program.say("HELO x\r\n");
    assert_eq!(program.server.with_protocol(), "SMTP");
    program.say("EHLO x\r\n");
    assert_eq!(program.server.with_protocol(), "ESMTP");
    program.say("MAIL FROM:<a@b.c> SMTPUTF8\r\n");
    assert_eq!(program.server.with_protocol(), "UTF8SMTP");
    let mut program = Program::at("465");
    program.say("EHLO x\r\n");
    assert_eq!(program.server.with_protocol(), "ESMTPS");
    program.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
    assert_eq!((program.server.with_protocol(), program.server.login()), ("ESMTPSA", Some("alice")));
}

proptest! {
    #[test]
    fn no_input_breaks_the_machine(
        pieces in proptest::collection::vec(prop_oneof![
            proptest::sample::select(vec![
                "EHLO x\r\n", "HELO x\r\n", "MAIL FROM:<a@b.c>\r\n", "RCPT TO:<alice@example.org>\r\n", "DATA\r\n",
                "hello\r\n", "..\r\n", ".\r\n", "RSET\r\n", "STARTTLS\r\n", "AUTH PLAIN\r\n", "AUTH LOGIN\r\n", "*\r\n",
                "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "AGFsaWNlAHNlY3JldA==\r\n", "\r", "\n", "QUIT\r\n", "BDAT 3\r\n",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ], 0..24),
        submission in any::<bool>(),
    ) {
        let mut program = Program::at(if submission { "465" } else { "25" });
        for piece in pieces {
            if std::mem::take(&mut program.secure) {
                program.server.secured(program.now, facts());
                program.drain();
            }
            program.send(&piece);
        }
        program.secure = false;
        program.server.end(program.now);
        program.drain();
        prop_assert!(program.closed && program.closing.is_some());
        prop_assert!(program.server.phase.transaction().is_none());
    }
}
