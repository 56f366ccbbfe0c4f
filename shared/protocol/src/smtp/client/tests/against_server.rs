//! The client against our own server machine in one thread, with random cuts between them.

use super::*;
use crate::mail::directory::LoginVerifier;
use crate::sasl::{Exchange, Mechanism, Turn, check_password, derive_keys};
use crate::smtp::server::limits::Limits;
use crate::smtp::server::{AuthAnswer, Ending, Event as ServerEvent, Profile, Server};

/// Both machines in one thread, bytes passed in pieces of the given sizes.
struct Both {
    client: Client,
    server: Server,
    now: Instant,
    cuts: Vec<usize>,
    turn: usize,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    client_secure: bool,
    server_secure: bool,
    message: Bytes,
    received: Vec<u8>,
    exchange: Option<Exchange>,
    verifier: LoginVerifier,
    outcomes: Option<Vec<Outcome>>,
    failure: Option<Failure>,
    ending: Option<Ending>,
}

impl Both {
    fn new(
        config: ClientConfig,
        mechanisms: Vec<Mechanism>,
        starttls: bool,
        message: Vec<u8>,
        cuts: Vec<usize>,
    ) -> Self {
        let now = moment();
        let limits = Limits::default();
        let login_required = !mechanisms.is_empty();
        let hostname = "mail.example.org".into();
        let profile = Profile { hostname, starttls, mechanisms, login_required, dsn: true, qualify: None, limits };
        let salt = b"0123456789abcdef".to_vec();
        let keys = vec![derive_keys(b"secret", &salt, 4)];
        Self {
            client: Client::new(config, now),
            server: Server::new(profile, now),
            now,
            cuts,
            turn: 0,
            to_server: Vec::new(),
            to_client: Vec::new(),
            client_secure: false,
            server_secure: false,
            message: message.into(),
            received: Vec::new(),
            exchange: None,
            verifier: LoginVerifier { salt, iterations: 4, keys },
            outcomes: None,
            failure: None,
            ending: None,
        }
    }

    fn cut(&mut self, most: usize) -> usize {
        self.turn += 1;
        self.cuts[self.turn % self.cuts.len()].min(most)
    }

    fn run(mut self) -> Self {
        for _ in 0..100_000 {
            let client_closed = self.drain_client();
            let server_closed = self.drain_server();
            if client_closed && server_closed {
                return self;
            }
            if self.client_secure && self.server_secure && self.to_client.is_empty() && self.to_server.is_empty() {
                (self.client_secure, self.server_secure) = (false, false);
                self.client.secured(self.now, facts());
                self.server.secured(self.now, facts());
                continue;
            }
            if client_closed && self.to_server.is_empty() {
                self.server.end(self.now);
            } else if server_closed && self.to_client.is_empty() {
                self.client.end(self.now);
            }
            let n = self.cut(self.to_server.len());
            let piece: Vec<_> = self.to_server.drain(..n).collect();
            self.server.bytes(self.now, &piece);
            let n = self.cut(self.to_client.len());
            let piece: Vec<_> = self.to_client.drain(..n).collect();
            self.client.bytes(self.now, &piece);
        }
        panic!("the machines wait for each other");
    }

    fn drain_client(&mut self) -> bool {
        loop {
            match self.client.poll(self.now) {
                Output::Send(bytes) => self.to_server.extend_from_slice(&bytes),
                Output::Secure => self.client_secure = true,
                Output::Wait { .. } => return false,
                Output::Close => return true,
                Output::Event(Event::Ready) => {
                    let octets = self.message.len() as u64;
                    self.client.start(self.now, envelope(&["x@y.z", "unknown@y.z"]), octets, !self.message.is_ascii());
                }
                Output::Event(Event::Body) => {
                    while !self.message.is_empty() {
                        let n = self.cut(self.message.len());
                        let piece = self.message.split_to(n);
                        self.client.body(self.now, piece);
                    }
                    self.client.body_end(self.now);
                }
                Output::Event(Event::Done(outcomes)) => {
                    self.outcomes = Some(outcomes);
                    self.client.quit(self.now);
                }
                Output::Event(Event::Failed(failure)) => self.failure = Some(failure),
                Output::Event(Event::Closed) => {}
            }
        }
    }

    fn drain_server(&mut self) -> bool {
        loop {
            match self.server.poll(self.now) {
                Output::Send(bytes) => self.to_client.extend_from_slice(&bytes),
                Output::Secure => self.server_secure = true,
                Output::Wait { .. } => return false,
                Output::Close => return true,
                Output::Event(event) => self.server_event(event),
            }
        }
    }

    fn server_event(&mut self, event: ServerEvent) {
        let now = self.now;
        match event {
            ServerEvent::Connected => self.server.answer(now, Reply::greeting("mail.example.org")),
            ServerEvent::Sender(_) => self.server.answer(now, Reply::sender_ok()),
            ServerEvent::Recipient(rcpt) if format!("{:?}", rcpt.path).contains("unknown") => {
                self.server.answer(now, Reply::unknown_recipient());
            }
            ServerEvent::Recipient(_) => self.server.answer(now, Reply::recipient_ok()),
            ServerEvent::Data => self.server.answer(now, Reply::start_data()),
            ServerEvent::Body(bytes) => self.received.extend_from_slice(&bytes),
            ServerEvent::BodyEnd { .. } => self.server.answer(now, Reply::accepted("x")),
            ServerEvent::Auth { mechanism, initial } => {
                let plus_offered = self.server.mechanisms().contains(&Mechanism::ScramSha256Plus);
                let mut exchange = Exchange::new(mechanism, facts().exporter, plus_offered, [6; 18]);
                let turn = exchange.start(initial.as_ref().map(Secret::expose));
                self.exchange = Some(exchange);
                self.auth_turn(turn);
            }
            ServerEvent::AuthResponse(response) => {
                let turn = self.exchange.as_mut().expect("begun").response(response.expose());
                self.auth_turn(turn);
            }
            ServerEvent::Closing(ending) => self.ending = Some(ending),
            ServerEvent::Hello { .. } | ServerEvent::Reset => {}
        }
    }

    fn auth_turn(&mut self, turn: Turn) {
        let answer = match turn {
            Turn::Challenge(challenge) => AuthAnswer::Challenge(challenge),
            Turn::Password { login, password } => match check_password(password.expose(), &self.verifier) {
                Some(_) => AuthAnswer::Success { login, last: None },
                None => AuthAnswer::Failure(Reply::login_refused()),
            },
            Turn::Verifier { .. } => {
                let turn = self.exchange.as_mut().expect("begun").verifier(self.verifier.clone());
                return self.auth_turn(turn);
            }
            Turn::Proven { login, last, .. } => AuthAnswer::Success { login, last: Some(last) },
            Turn::Refused | Turn::Malformed => AuthAnswer::Failure(Reply::login_refused()),
        };
        self.server.answer_auth(self.now, answer);
    }
}

#[test]
fn our_client_logs_in_to_our_server_by_every_mechanism() {
    for mechanism in [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login] {
        for (password, works) in [("secret", true), ("wrong", false)] {
            let config = ClientConfig {
                login: Some(("alice".into(), Secret::from(password))),
                ..config(Protocol::Smtp, StartTls::Required)
            };
            let both = Both::new(config, vec![mechanism], true, b"hi\r\n".to_vec(), vec![3, 7]).run();
            assert_eq!(both.outcomes.is_some(), works, "{mechanism} {password}: {:?}", both.failure);
            assert_eq!(both.failure.map(|failure| failure.stage), (!works).then_some(Stage::Login));
        }
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "[.]{0,3}[a-zé ]{0,12}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>().prop_filter("what may be in a line", |b| !b"\r\n\0".contains(b)), 0..30),
        Just(b"MAIL FROM:<evil@b.c>".to_vec()),
        Just(b".".to_vec()),
    ];
    proptest::collection::vec(line, 0..20)
        .prop_map(|lines| lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect())
}

proptest! {
    #[test]
    fn any_message_survives_unchanged(
        message in message(),
        cuts in proptest::collection::vec(1_usize..40, 1..12),
        tls in any::<bool>(),
    ) {
        let starttls = if tls { StartTls::Required } else { StartTls::Never };
        let both = Both::new(config(Protocol::Smtp, starttls), Vec::new(), true, message.clone(), cuts).run();
        prop_assert_eq!(both.failure, None);
        let outcomes: Vec<_> = both.outcomes.expect("done").iter().map(outcome).collect();
        prop_assert_eq!(outcomes, ["+250", "-550"]);
        prop_assert_eq!(both.received.escape_ascii().to_string(), message.escape_ascii().to_string());
        prop_assert_eq!(both.ending, Some(Ending::Quit));
    }
}
