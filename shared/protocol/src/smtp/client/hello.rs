//! From the greeting to the first transaction: EHLO, STARTTLS, EHLO again, login.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::phase::{Login, Phase};
use super::{Client, Event, Offered, Protocol, Stage, StartTls};
use crate::mail::reply::{Class, Reply};
use crate::sasl::{ClientExchange, Mechanism};
use crate::secret::Secret;

/// Longest command line, CR LF included, that every server takes (RFC 5321 §4.5.3.1.4).
const COMMAND_OCTETS_MAX: usize = 512;
/// Octets kept of the server's name: as long as a domain can be.
const SERVER_NAME_OCTETS_MAX: usize = 255;

impl Client {
    pub(super) fn greeted(&mut self, reply: Reply) {
        if !reply.is_positive() {
            self.phase = Phase::Greeting;
            return self.refused(Stage::Hello, reply);
        }
        self.say_hello();
    }

    /// EHLO, or LHLO (RFC 2033 §4.1).
    pub(super) fn say_hello(&mut self) {
        let verb = match self.config.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        self.command(&format!("{verb} {}", self.config.helo));
        self.phase = Phase::Ehlo;
    }

    pub(super) fn ehlo_answered(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.offered = Offered::parse(&reply);
            self.take_name(&reply);
            return self.secure_or_log_in();
        }
        self.phase = Phase::Ehlo;
        // A host that does not know EHLO may know HELO (RFC 5321 §3.2), but then it has no TLS.
        let simple_enough = self.config.protocol == Protocol::Smtp && self.tls.is_none();
        if reply.class() == Class::Permanent && simple_enough {
            self.command(&format!("HELO {}", self.config.helo));
            self.phase = Phase::Helo;
        } else {
            self.refused(Stage::Hello, reply);
        }
    }

    pub(super) fn helo_answered(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.take_name(&reply);
            self.secure_or_log_in();
        } else {
            self.phase = Phase::Helo;
            self.refused(Stage::Hello, reply);
        }
    }

    /// RFC 5321 §4.1.1.1: the reply begins with the server's name.
    fn take_name(&mut self, reply: &Reply) {
        let first = reply.lines().first().and_then(|line| line.split_ascii_whitespace().next());
        let name = first.unwrap_or_default();
        name[..name.floor_char_boundary(SERVER_NAME_OCTETS_MAX)].clone_into(&mut self.server_name);
    }

    fn secure_or_log_in(&mut self) {
        self.phase = Phase::StartTls;
        match self.config.starttls {
            _ if self.tls.is_some() => self.log_in(),
            StartTls::Opportunistic | StartTls::Required if self.offered.starttls => self.command("STARTTLS"),
            StartTls::Required => self.refused(Stage::Tls, Reply::no_starttls()),
            StartTls::Never | StartTls::Opportunistic => self.log_in(),
        }
    }

    pub(super) fn start_tls_answered(&mut self, reply: &Reply) {
        if reply.is_positive() {
            // Text behind the reply came in plaintext, from whomever; TLS would not follow it.
            if self.input.is_empty() {
                self.phase = Phase::SecureDue;
            } else {
                self.phase = Phase::StartTls;
                self.fail(Stage::Tls, Reply::tls_failed("The host sent plaintext after its reply to STARTTLS"));
            }
        } else if self.config.starttls == StartTls::Required {
            self.phase = Phase::StartTls;
            self.refused(Stage::Tls, Reply::tls_failed(&format!("The host refused STARTTLS: {reply}")));
        } else {
            self.log_in();
        }
    }

    /// The best mechanism both sides have; a password itself is sent under TLS only.
    fn best_mechanism(&self) -> Option<Mechanism> {
        let exporter = self.tls.as_ref().and_then(|tls| tls.exporter);
        [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]
            .into_iter()
            .filter(|mechanism| self.offered.mechanisms.contains(mechanism))
            .find(|mechanism| match mechanism {
                Mechanism::ScramSha256Plus => exporter.is_some(),
                Mechanism::ScramSha256 => true,
                Mechanism::Plain | Mechanism::Login => self.tls.is_some(),
            })
    }

    fn log_in(&mut self) {
        let Some((login, password)) = self.config.login.clone() else { return self.ready() };
        let Some(mechanism) = self.best_mechanism() else {
            return self.login_failed("The host offers no login that we know and that is safe here");
        };
        let exporter = self.tls.as_ref().and_then(|tls| tls.exporter);
        let plus_offered = self.offered.mechanisms.contains(&Mechanism::ScramSha256Plus);
        match ClientExchange::new(mechanism, &login, password, exporter, plus_offered, self.config.nonce) {
            Ok(exchange) => self.say_auth(exchange),
            Err(error) => self.login_failed(&error.to_string()),
        }
    }

    fn say_auth(&mut self, mut exchange: ClientExchange) {
        let initial = exchange.initial();
        let verb = format!("AUTH {}", exchange.mechanism());
        let encoded = initial.as_ref().map(encode);
        let mut login = Login { exchange, initial: None };
        match encoded {
            Some(text) if verb.len() + text.len() + 3 <= COMMAND_OCTETS_MAX => {
                self.command(&Zeroizing::new(format!("{verb} {}", &*text)));
            }
            Some(_) => {
                login.initial = initial;
                self.command(&verb);
            }
            None => self.command(&verb),
        }
        self.phase = Phase::Login(Box::new(login));
    }

    pub(super) fn login_answered(&mut self, mut login: Box<Login>, reply: &Reply) {
        if reply.is_positive() {
            return match login.exchange.finish() {
                Ok(()) => self.ready(),
                Err(error) => self.login_failed(&error.to_string()),
            };
        }
        if reply.code() != 334 {
            return self.login_failed(&format!("The host refused our login: {reply}"));
        }
        let response = match (login.initial.take(), BASE64.decode(reply.text().trim_ascii())) {
            (Some(initial), Ok(challenge)) if challenge.is_empty() => Ok(initial),
            (None, Ok(challenge)) => login.exchange.respond(&challenge).map_err(|error| error.to_string()),
            _ => Err("The host sent a challenge that is none".to_owned()),
        };
        match response {
            Ok(response) => {
                self.command(&encode(&response));
                self.phase = Phase::Login(login);
            }
            Err(why) => self.login_failed(&why),
        }
    }

    fn login_failed(&mut self, why: &str) {
        self.phase = Phase::Ready;
        self.refused(Stage::Login, Reply::smarthost_login_failed(why));
    }

    fn ready(&mut self) {
        self.phase = Phase::Ready;
        self.events.push_back(Event::Ready);
    }

    /// The host will not have us, or we not it: QUIT is said, its reply not waited for.
    fn refused(&mut self, stage: Stage, reply: Reply) {
        self.fail(stage, reply);
        self.command("QUIT");
    }
}

fn encode(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(secret.expose()))
}
