//! SMTP: lines, commands, bodies, replies, logins, and both machines.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gatepost_protocol::machine::{Machine, Output, TlsFacts};
use gatepost_protocol::mail::address::{Address, Domain, ReversePath};
use gatepost_protocol::mail::directory::LoginVerifier;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::{ClientExchange, Exchange, Mechanism, Turn, derive_keys, verify_transcript};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::body::{Decoded, Decoder, Encoder};
use gatepost_protocol::smtp::client::{self, Client, ClientConfig, ClientLimits, Protocol, ReplyReader, StartTls};
use gatepost_protocol::smtp::command::{Command, Context};
use gatepost_protocol::smtp::line::{LineError, LineReader};
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{self, AuthAnswer, Profile, Server};

/// One command line, in every context.
pub fn command(data: &[u8]) {
    let ours = Domain::parse("example.org").expect("a domain");
    for (dsn, smtputf8, qualify) in [(false, false, None), (true, true, None), (true, true, Some(&ours))] {
        match Command::parse(data, Context { dsn, auth: dsn, smtputf8, qualify }) {
            Err(reply) => assert!((500..600).contains(&reply.code())),
            Ok(Command::Mail(mail)) => {
                let printed = mail.reverse_path.to_string();
                assert_eq!(ReversePath::parse(&printed), Ok(mail.reverse_path));
                assert!(!mail.envid.unwrap_or_default().contains(char::is_control));
            }
            Ok(Command::Rcpt(rcpt)) => assert!(!rcpt.orcpt.unwrap_or_default().contains(char::is_control)),
            Ok(_) => {}
        }
    }
}

/// Lines in pieces: where they are cut makes no difference, and the buffer stays bounded.
pub fn line(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let whole = lines(wire, wire.len().max(1));
    assert_eq!(lines(wire, usize::from(cut).max(1)), whole);
}

fn lines(wire: &[u8], cut: usize) -> Vec<Result<BytesMut, LineError>> {
    let mut reader = LineReader::default();
    let mut input = BytesMut::new();
    let mut seen = Vec::new();
    for piece in wire.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            match reader.next(&mut input, 40) {
                Ok(None) => break,
                Ok(Some(line)) => {
                    assert!(line.len() <= 38 && !line.iter().any(|b| b"\r\n\0".contains(b)));
                    seen.push(Ok(line));
                }
                Err(error) => {
                    seen.push(Err(error));
                    if error == LineError::BareLineEnd {
                        return seen;
                    }
                }
            }
        }
        assert!(input.len() <= 40);
    }
    seen
}

/// A message behind DATA, against the plainest reading of the rules; and out again.
pub fn body(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let cut = usize::from(cut).max(1);
    let mut decoder = Decoder::new(u64::MAX);
    let mut input = BytesMut::new();
    let mut message = Vec::new();
    let mut left = wire.chunks(cut);
    let rest = loop {
        match decoder.decode(&mut input) {
            Decoded::Chunk(chunk) => message.extend_from_slice(&chunk),
            Decoded::Faulty(_) => {}
            Decoded::NeedMore => match left.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => break None,
            },
            Decoded::End => break Some(input.len() + left.by_ref().map(<[u8]>::len).sum::<usize>()),
        }
    };
    let Some((expected, end)) = plain_reading(wire) else {
        assert_eq!(rest, None);
        return;
    };
    assert_eq!(rest, Some(wire.len() - end));
    match expected {
        None => assert!(decoder.fault().is_some()),
        Some(expected) => {
            assert_eq!((decoder.fault(), &message), (None, &expected));
            let mut encoder = Encoder::default();
            let mut again = Vec::new();
            for piece in message.chunks(cut) {
                again.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(piece)).expect("only CR LF"));
            }
            again.extend_from_slice(&encoder.finish().expect("only CR LF"));
            assert_eq!(plain_reading(&again), Some((Some(message), again.len())));
        }
    }
}

/// The message (none if it holds a bare CR or LF, or a NUL) and where it ends.
fn plain_reading(wire: &[u8]) -> Option<(Option<Vec<u8>>, usize)> {
    let mut message = Vec::new();
    let mut bare = false;
    let mut at = 0;
    loop {
        let end = wire[at..].windows(2).position(|two| two == b"\r\n")? + at;
        let line = &wire[at..end];
        at = end + 2;
        if line == b"." {
            return Some(((!bare).then_some(message), at));
        }
        bare |= line.iter().any(|b| b"\r\n\0".contains(b));
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        message.extend_from_slice(b"\r\n");
    }
}

/// Replies of a hostile server.
pub fn reply_reader(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let mut reader = ReplyReader::new(200);
    let mut input = BytesMut::new();
    for piece in wire.chunks(usize::from(cut).max(1)) {
        input.extend_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(reply)) => {
                    assert!((200..600).contains(&reply.code()));
                    assert!(!reply.text().contains(['\r', '\n', '\0']));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(input.len() <= 200);
    }
}

/// A moment to start from.
#[expect(clippy::disallowed_methods, reason = "a machine needs some moment to start from")]
fn moment() -> Instant {
    Instant::now()
}

fn facts() -> TlsFacts {
    TlsFacts { exporter: Some([7; 32]), ..TlsFacts::default() }
}

/// What the program around a server machine knows of it, to check its promises.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them may hold with any other")]
struct Door {
    server: Server,
    now: Instant,
    question: Question,
    /// MAIL was answered well and nothing has ended the transaction.
    open: bool,
    body: Option<u64>,
    secure_due: bool,
    closing: bool,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    None,
    Greeting,
    Auth,
    Sender,
    Recipient,
    Data,
    BodyEnd,
}

/// The server machine under any order of operations, checked against the promises of its events.
pub fn smtp_server(data: &[u8]) {
    let Some((&first, mut script)) = data.split_first() else { return };
    let submission = first % 2 == 1;
    let mechanisms = if submission {
        vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]
    } else {
        Vec::new()
    };
    let limits = Limits { message_octets_max: 500, recipients_max: 3, errors_max: 8, ..Limits::default() };
    let profile = Profile {
        hostname: "mail.example.org".into(),
        starttls: !submission,
        mechanisms,
        // A bit of its own: where a login is the client's choice, bare names have a domain too.
        login_required: submission && first & 2 == 0,
        dsn: submission,
        qualify: (first & 2 != 0).then(|| Domain::parse("example.org").expect("a domain")),
        limits,
    };
    let now = moment();
    let mut server = Server::new(profile, now);
    if submission {
        server.secured(now, facts());
    }
    let mut door = Door {
        server,
        now,
        question: Question::None,
        open: false,
        body: None,
        secure_due: false,
        closing: false,
        closed: false,
    };
    door.drain();
    while let Some((&operation, rest)) = script.split_first() {
        script = rest;
        door.operate(operation, &mut script);
        door.drain();
    }
    door.server.end(door.now);
    door.drain();
}

impl Door {
    fn operate(&mut self, operation: u8, script: &mut &[u8]) {
        match operation {
            0..=3 => self.answer(operation),
            4 => self.server.end(self.now),
            5 => {
                self.now += Duration::from_secs(100);
                self.server.deadline(self.now);
            }
            6 => {
                if std::mem::take(&mut self.secure_due) {
                    self.server.secured(self.now, facts());
                }
            }
            7 => self.server.shut_down(self.now),
            _ => {
                // Text up to the next operation; most inputs are mostly text.
                let end = script.iter().position(|&b| b < 8).unwrap_or(script.len());
                let text = [&[operation], &script[..end]].concat();
                *script = &script[end..];
                self.server.bytes(self.now, &text);
            }
        }
    }

    /// Answers the open question, if there is one: well, with a refusal, for later, or with 421.
    fn answer(&mut self, how: u8) {
        let refusal = match how {
            1 => Some(Reply::unknown_recipient()),
            2 => Some(Reply::too_many_recipients()),
            3 => Some(Reply::shutting_down()),
            _ => None,
        };
        let well = refusal.is_none();
        let good = match std::mem::replace(&mut self.question, Question::None) {
            Question::None => return,
            Question::Auth => {
                let answer = match how {
                    0 => AuthAnswer::Challenge(b"challenge".to_vec()),
                    1 => AuthAnswer::Failure(Reply::login_refused()),
                    2 => AuthAnswer::Success { login: "alice".into(), last: Some(b"last".to_vec()) },
                    _ => AuthAnswer::Success { login: "alice".into(), last: None },
                };
                return self.server.answer_auth(self.now, answer);
            }
            Question::Greeting => Reply::greeting("mail.example.org"),
            Question::Sender => {
                self.open = well;
                Reply::sender_ok()
            }
            Question::Recipient => Reply::recipient_ok(),
            Question::Data => {
                self.open = well;
                self.body = well.then_some(0);
                Reply::start_data()
            }
            Question::BodyEnd => {
                self.open = false;
                Reply::accepted("x")
            }
        };
        self.server.answer(self.now, refusal.unwrap_or(good));
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            if self.closed {
                return;
            }
            match self.server.poll(self.now) {
                Output::Send(bytes) => assert!(!bytes.is_empty()),
                Output::Event(event) => self.event(event),
                Output::Secure => self.secure_due = true,
                Output::Wait { read, until } => {
                    assert!(!self.closing);
                    // Who is not greeted yet is listened to all the same, and turned away if it speaks.
                    let idle = self.question == Question::None && !self.secure_due;
                    assert_eq!(read, idle || self.question == Question::Greeting);
                    assert_eq!(until.is_some(), idle);
                    return;
                }
                Output::Close => {
                    assert!(self.closing && !self.open, "a transaction was left open");
                    self.closed = true;
                }
            }
        }
        panic!("the machine never waits");
    }

    fn event(&mut self, event: server::Event) {
        use server::Event;
        let gone_ungreeted = self.question == Question::Greeting && matches!(event, Event::Closing(_));
        assert!(!self.closing && (self.question == Question::None || gone_ungreeted));
        let asked = match event {
            Event::Connected => Question::Greeting,
            Event::Auth { .. } | Event::AuthResponse(_) => Question::Auth,
            Event::Sender(_) => {
                assert!(!self.open && self.server.hello().is_some());
                Question::Sender
            }
            Event::Recipient(_) => {
                assert!(self.open);
                Question::Recipient
            }
            Event::Data => {
                assert!(self.open);
                Question::Data
            }
            Event::Body(bytes) => {
                assert!(self.open && !bytes.is_empty());
                *self.body.as_mut().expect("DATA was answered with 354") += bytes.len() as u64;
                Question::None
            }
            Event::BodyEnd { octets } => {
                assert!(self.open && octets <= 500);
                assert_eq!(self.body.take(), Some(octets));
                Question::BodyEnd
            }
            Event::Reset => {
                assert!(std::mem::take(&mut self.open), "nothing was open");
                self.body = None;
                Question::None
            }
            Event::Hello { .. } => Question::None,
            Event::Closing(_) => {
                self.closing = true;
                Question::None
            }
        };
        self.question = asked;
    }
}

/// The client machine against a hostile server: each transaction ends exactly once, with an outcome
/// for each recipient, and nothing follows a failure.
pub fn smtp_client(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let now = moment();
    let config = ClientConfig {
        helo: "client.example".into(),
        protocol: if first & 1 == 0 { Protocol::Smtp } else { Protocol::Lmtp },
        starttls: if first & 2 == 0 { StartTls::Opportunistic } else { StartTls::Never },
        login: (first & 4 == 0).then(|| ("alice".to_owned(), Secret::from("secret"))),
        nonce: [1; 18],
        limits: ClientLimits::default(),
    };
    // A server may ask for much key derivation; that is bounded elsewhere and only slow here.
    if config.login.is_some() && asks_for_much_work(wire) {
        return;
    }
    let mut client = Client::new(config, now);
    let (mut started, mut ended, mut failed) = (0, 0, false);
    let mut pieces = wire.split(|&b| b == 0);
    loop {
        let secure = drain_client(&mut client, now, &mut started, &mut ended, &mut failed);
        match pieces.next() {
            Some(_) if secure => client.secured(now, facts()),
            Some(piece) => client.bytes(now, piece),
            None => break,
        }
    }
    client.end(now);
    drain_client(&mut client, now, &mut started, &mut ended, &mut failed);
    assert_eq!(started, ended);
    assert!(matches!(client.poll(now), Output::Close));
}

fn drain_client(client: &mut Client, now: Instant, started: &mut u32, ended: &mut u32, failed: &mut bool) -> bool {
    use client::Event;
    let mut secure = false;
    for _ in 0..10_000 {
        match client.poll(now) {
            Output::Send(bytes) => assert!(!bytes.is_empty()),
            Output::Secure => secure = true,
            Output::Wait { .. } | Output::Close => return secure,
            Output::Event(event) => {
                assert!(!*failed, "an event after a failure");
                match event {
                    Event::Ready => {
                        *started += 1;
                        client.start(now, envelope(), 9, false);
                    }
                    Event::Body => {
                        client.body(now, Bytes::from_static(b".hi\r\n"));
                        client.body_end(now);
                    }
                    Event::Done(outcomes) => {
                        *ended += 1;
                        assert_eq!(outcomes.len(), 2);
                    }
                    Event::Failed(_) => *failed = true,
                    Event::Closed => {}
                }
            }
        }
    }
    panic!("the machine never waits");
}

fn envelope() -> Envelope {
    let recipient = |text: &str| Recipient::plain(Address::parse(text).expect("valid"));
    Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![recipient("x@y.z"), recipient("\"u v\"@y.z")],
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

/// A SASL exchange with a hostile client: nothing but the password itself is ever proven.
pub fn sasl(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    let mechanism = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]
        [usize::from(first % 4)];
    let exporter = (first & 4 == 0).then_some([7; 32]);
    let salt = b"0123456789abcdef".to_vec();
    let verifier = LoginVerifier { keys: vec![derive_keys(b"secret", &salt, 2)], salt, iterations: 2 };
    let mut exchange = Exchange::new(mechanism, exporter, first & 8 == 0, [2; 18]);
    let mut messages = wire.split(|&b| b == b'\n');
    let mut turn = exchange.start((first & 16 == 0).then(|| messages.next().unwrap_or_default()));
    for _ in 0..8 {
        turn = match turn {
            Turn::Challenge(_) => match messages.next() {
                Some(message) => exchange.response(message),
                None => return,
            },
            Turn::Verifier { login } => {
                assert!(!login.is_empty() && !login.contains(char::is_control));
                exchange.verifier(verifier.clone())
            }
            Turn::Proven { key, transcript, .. } => {
                assert_eq!(verify_transcript(&transcript, &verifier, exporter), Some(key));
                return;
            }
            Turn::Password { login, .. } => {
                assert!(!login.is_empty() && !login.contains(char::is_control));
                return;
            }
            Turn::Refused | Turn::Malformed => return,
        };
    }
    panic!("an exchange without end");
}

/// A SASL exchange with a hostile server.
pub fn sasl_client(data: &[u8]) {
    let Some((&first, wire)) = data.split_first() else { return };
    if asks_for_much_work(wire) {
        return;
    }
    let mechanism = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus]
        [usize::from(first % 4)];
    let password = Secret::from("secret");
    let Ok(mut exchange) = ClientExchange::new(mechanism, "alice", password, Some([7; 32]), true, [1; 18]) else {
        return;
    };
    let _ = exchange.initial();
    for challenge in wire.split(|&b| b == b'\n') {
        if exchange.respond(challenge).is_err() {
            break;
        }
    }
    if matches!(mechanism, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) {
        assert!(exchange.finish().is_err(), "nobody but the server can know its signature");
    }
}

/// An iteration count of five digits or more, also inside base64, where it can't be told.
fn asks_for_much_work(wire: &[u8]) -> bool {
    let count = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    wire.windows(2).enumerate().any(|(at, two)| two == b"i=" && count(&wire[at + 2..]) > 4)
}
