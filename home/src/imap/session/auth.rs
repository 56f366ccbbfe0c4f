//! LOGIN and AUTHENTICATE (RFC 9051 §6.2.2, §6.2.3): the turns of a login, each a line of base64.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::secret::Secret;
use imap_types::auth::AuthMechanism;
use zeroize::Zeroize as _;

use super::super::answer::Status;
use super::read::Line;
use super::{
    AuthAnswer, COMMAND_BEFORE_LOGIN_OCTETS_MAX, Event, MECHANISMS, Phase, Session, Standing, WRONG_LOGINS_MAX,
};

/// A login under way.
#[derive(Debug)]
pub(super) struct Auth {
    /// The mechanism's last word was sent; the client only has to acknowledge it.
    proven: Option<String>,
}

impl Session {
    /// LOGIN is PLAIN by another name.
    pub(super) fn login_command(&mut self, now: Instant, login: &[u8], password: &[u8]) {
        if login.contains(&0) || password.contains(&0) {
            self.tagged(&Status::no_code("AUTHENTICATIONFAILED", "The login is wrong"));
            return self.next_command(now);
        }
        let words = [&[0], login, &[0], password].concat();
        self.ask(Event::Auth { mechanism: Mechanism::Plain, initial: Some(Secret::new(words)) });
    }

    pub(super) fn authenticate(&mut self, now: Instant, mechanism: &AuthMechanism<'_>, initial: Option<Vec<u8>>) {
        let mechanism = Mechanism::parse(mechanism.as_ref()).filter(|mechanism| MECHANISMS.contains(mechanism));
        if let Some(mechanism) = mechanism {
            self.ask(Event::Auth { mechanism, initial: initial.map(Secret::new) });
        } else {
            self.tagged(&Status::no("There is no such mechanism"));
            self.next_command(now);
        }
    }

    fn ask(&mut self, event: Event) {
        self.phase = Phase::AskedAuth;
        self.events.push_back(event);
    }

    /// What the program says.
    pub fn answer_auth(&mut self, now: Instant, answer: AuthAnswer) {
        if !matches!(self.phase, Phase::AskedAuth) {
            return;
        }
        match answer {
            AuthAnswer::Challenge(challenge) => self.challenge(&challenge, None),
            AuthAnswer::Success { login, last: Some(last) } => self.challenge(&last, Some(login)),
            AuthAnswer::Success { login, last: None } => self.logged_in(now, login),
            AuthAnswer::Failure(status) => {
                self.tagged(&status);
                self.wrong_logins += 1;
                self.next_command(now);
                if self.wrong_logins >= WRONG_LOGINS_MAX {
                    self.bye("Too many wrong logins");
                }
            }
        }
        self.go_on(now);
    }

    fn challenge(&mut self, challenge: &[u8], proven: Option<String>) {
        let words = format!("+ {}\r\n", STANDARD.encode(challenge));
        self.say(words.as_bytes());
        self.phase = Phase::Auth(Auth { proven });
    }

    fn logged_in(&mut self, now: Instant, login: String) {
        self.standing = Standing::Authenticated;
        self.login = Some(login);
        let capabilities = self.capabilities();
        self.tagged(&Status::ok_code(&format!("CAPABILITY {capabilities}"), "Logged in"));
        self.next_command(now);
    }

    /// The client's next words.
    pub(super) fn auth_line(&mut self, now: Instant) -> bool {
        let mut line = match self.take_line(COMMAND_BEFORE_LOGIN_OCTETS_MAX) {
            Line::Part => return false,
            Line::TooLong => {
                self.bye("A line of a login is too long");
                return false;
            }
            Line::Whole(line) => line,
        };
        let words = line.strip_suffix(b"\r\n").unwrap_or(b"*");
        let decoded = if words == b"*" { None } else { STANDARD.decode(words).ok() };
        let Phase::Auth(auth) = &mut self.phase else { return false };
        match (decoded, auth.proven.take()) {
            (Some(decoded), Some(login)) if decoded.is_empty() => self.logged_in(now, login),
            (Some(decoded), None) => {
                self.phase = Phase::AskedAuth;
                self.events.push_back(Event::AuthResponse(Secret::new(decoded)));
            }
            _ => {
                self.tagged(&Status::bad("The login was broken off"));
                self.next_command(now);
            }
        }
        line.zeroize();
        true
    }
}
