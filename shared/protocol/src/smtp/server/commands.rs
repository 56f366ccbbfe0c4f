//! What the server does for each command, and which order and bounds it demands first.

use bytes::BytesMut;
use zeroize::Zeroize as _;

use super::phase::Phase;
use super::transaction::Transaction;
use super::{Ending, Event, Hello, Server};
use crate::mail::reply::Reply;
use crate::sasl::Mechanism;
use crate::secret::Secret;
use crate::smtp::capability::Offer;
use crate::smtp::command::{Command, Context, MailFrom, RcptTo, decode_response};

impl Server {
    /// One whole line of the client.
    pub(super) fn line(&mut self, mut line: BytesMut) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::AuthResponse => {
                match &*line {
                    b"*" => self.conclude(&Reply::login_cancelled()),
                    text => match decode_response(text) {
                        Ok(response) => {
                            self.phase = Phase::Auth;
                            self.events.push_back(Event::AuthResponse(response));
                        }
                        Err(reply) => self.conclude(&reply),
                    },
                }
                line.zeroize();
            }
            Phase::AuthLast { login } => match &*line {
                b"" | b"=" => self.log_in(login),
                b"*" => self.conclude(&Reply::login_cancelled()),
                _ => self.conclude(&Reply::login_malformed()),
            },
            phase => {
                self.phase = phase;
                let parsed = Command::parse(&line, self.context());
                if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH")) {
                    line.zeroize();
                }
                match parsed {
                    Ok(command) => self.command(command),
                    Err(reply) => self.conclude(&reply),
                }
            }
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            dsn: self.profile.dsn,
            auth: !self.profile.mechanisms.is_empty(),
            smtputf8: self.phase.transaction().is_some_and(|transaction| transaction.smtputf8),
            qualify: self.profile.qualify.as_ref(),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ehlo(name) => self.greet(name, true),
            Command::Helo(name) => self.greet(name, false),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => self.data(),
            Command::Rset => {
                self.forget_transaction();
                self.idle(&Reply::ok());
            }
            Command::Noop => self.idle(&Reply::ok()),
            Command::Help => self.idle(&Reply::help()),
            Command::Vrfy => self.idle(&Reply::will_not_verify()),
            Command::NotOffered => self.conclude(&Reply::not_offered()),
            Command::Bdat => {
                // Its octets may already be on their way, and they are no commands.
                self.say(&Reply::not_offered());
                self.finish(Ending::Abuse);
            }
            Command::Quit => {
                self.say(&Reply::bye());
                self.finish(Ending::Quit);
            }
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial),
        }
    }

    /// Answers a command that moves no mail forward; there may be only so many.
    fn idle(&mut self, reply: &Reply) {
        self.tally.idle_commands += 1;
        self.conclude(reply);
        if self.tally.idle_commands > self.profile.limits.idle_commands_max {
            self.give_up();
        }
    }

    /// True, and over, if something follows a command that must be the last of its group
    /// (RFC 2920 §3.1): its reply decides what the next bytes mean.
    fn is_followed(&mut self) -> bool {
        let followed = !self.input.is_empty();
        if followed {
            self.say(&Reply::early_talker());
            self.finish(Ending::Abuse);
        }
        followed
    }

    fn greet(&mut self, name: String, extended: bool) {
        if self.is_followed() {
            return;
        }
        self.forget_transaction();
        let lines = if extended { self.offer() } else { Vec::new() };
        self.events.push_back(Event::Hello { name: name.clone(), extended });
        self.hello = Some(Hello { name, extended });
        self.idle(&Reply::hello(&self.profile.hostname, lines));
    }

    fn offer(&self) -> Vec<String> {
        Offer {
            message_octets_max: self.profile.limits.message_octets_max,
            starttls: self.profile.starttls && self.tls.is_none(),
            mechanisms: &self.mechanisms(),
            dsn: self.profile.dsn,
        }
        .lines()
    }

    fn mail(&mut self, mail: MailFrom) {
        let limits = &self.profile.limits;
        if self.hello.is_none() {
            return self.conclude(&Reply::bad_sequence("Say EHLO first"));
        }
        if self.phase.transaction().is_some() {
            return self.conclude(&Reply::bad_sequence("A transaction is open already"));
        }
        if self.profile.login_required && self.login.is_none() {
            return self.conclude(&Reply::login_required());
        }
        if self.tally.transactions >= limits.transactions_max {
            return self.conclude(&Reply::too_many_transactions());
        }
        if mail.size.is_some_and(|size| size > limits.message_octets_max) {
            return self.conclude(&Reply::too_big(limits.message_octets_max));
        }
        self.phase = Phase::Sender(Transaction::new(&mail));
        self.events.push_back(Event::Sender(mail));
    }

    fn rcpt(&mut self, rcpt: RcptTo) {
        let Some(transaction) = self.take_transaction("MAIL must come first") else { return };
        if !transaction.has_room(self.profile.limits.recipients_max) {
            self.phase = Phase::Open(transaction);
            return self.conclude(&Reply::too_many_recipients());
        }
        self.phase = Phase::Recipient(transaction);
        self.events.push_back(Event::Recipient(rcpt));
    }

    fn data(&mut self) {
        if self.is_followed() {
            return;
        }
        let Some(transaction) = self.take_transaction("MAIL and RCPT must come first") else { return };
        if !transaction.has_recipients() {
            self.phase = Phase::Open(transaction);
            return self.conclude(&Reply::no_recipients());
        }
        self.phase = Phase::Data(transaction);
        self.events.push_back(Event::Data);
    }

    /// The open transaction out of its phase, or 503.
    fn take_transaction(&mut self, missing: &str) -> Option<Transaction> {
        if let Phase::Open(transaction) = std::mem::replace(&mut self.phase, Phase::Idle) {
            return Some(transaction);
        }
        self.conclude(&Reply::bad_sequence(missing));
        None
    }

    fn start_tls(&mut self) {
        if !self.profile.starttls {
            return self.conclude(&Reply::not_offered());
        }
        if self.tls.is_some() {
            return self.conclude(&Reply::bad_sequence("TLS is on already"));
        }
        if self.hello.is_none() || self.phase.transaction().is_some() {
            return self.conclude(&Reply::bad_sequence("STARTTLS belongs between EHLO and MAIL"));
        }
        // What came behind it came in plaintext, from whomever: it is thrown away (RFC 3207 §6).
        self.input.clear();
        self.say(&Reply::start_tls());
        self.phase = Phase::SecureDue;
    }

    fn auth(&mut self, mechanism: &str, initial: Option<Secret>) {
        if self.profile.mechanisms.is_empty() {
            return self.conclude(&Reply::not_offered());
        }
        if self.is_followed() {
            return;
        }
        if self.tls.is_none() {
            return self.conclude(&Reply::tls_required());
        }
        if !self.hello.as_ref().is_some_and(|hello| hello.extended) {
            return self.conclude(&Reply::bad_sequence("Say EHLO first"));
        }
        if self.login.is_some() || self.phase.transaction().is_some() {
            return self.conclude(&Reply::bad_sequence("AUTH comes once, and before MAIL"));
        }
        match Mechanism::parse(mechanism).filter(|mechanism| self.mechanisms().contains(mechanism)) {
            None => self.conclude(&Reply::mechanism_unknown()),
            Some(mechanism) => {
                self.phase = Phase::Auth;
                self.events.push_back(Event::Auth { mechanism, initial });
            }
        }
    }
}
