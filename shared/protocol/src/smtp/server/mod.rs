//! The SMTP server machine (RFC 5321), for 25 and 465 alike; differences are values in [`Profile`].
//!
//! Decisions from outside are phases: after an event that is a question the machine parses nothing
//! until its answer comes; pipelined commands wait in the (bounded) buffer.

pub mod limits;

use std::time::Instant;

use bytes::Bytes;

use self::limits::Limits;
pub use super::command::{MailFrom, RcptTo};
use super::sasl::Mechanism;
use crate::machine::{Machine, Output, TlsFacts};
use crate::mail::reply::Reply;
use crate::secret::Secret;

/// What this door offers.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Our name, in greeting and EHLO.
    pub hostname: String,
    /// STARTTLS is offered (25). On 465 TLS comes first: call [`Machine::secured`] before anything else.
    pub starttls: bool,
    /// Mechanisms offered, only under TLS. Empty: AUTH is not a command here. With any, MAIL wants a login.
    pub mechanisms: Vec<Mechanism>,
    /// `DSN` is offered (RFC 3461).
    pub dsn: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Questions and notices.
#[derive(Debug)]
pub enum Event {
    /// Question: greet or refuse? [`Server::answer`] with 220, or 421/554 (which closes).
    Connected,
    /// Notice: EHLO or HELO was said and answered.
    Hello {
        /// The name given.
        name: String,
        /// EHLO.
        extended: bool,
    },
    /// Question: a login begins. [`Server::answer_auth`].
    Auth {
        /// The mechanism, one of those offered.
        mechanism: Mechanism,
        /// Initial response, decoded.
        initial: Option<Secret>,
    },
    /// Question: the client's response to the challenge, decoded. [`Server::answer_auth`].
    AuthResponse(Secret),
    /// Question: MAIL. Syntax, size and order were checked. [`Server::answer`].
    Sender(MailFrom),
    /// Question: RCPT. Syntax, count and order were checked. [`Server::answer`].
    Recipient(RcptTo),
    /// Question: DATA, with at least one accepted recipient. [`Server::answer`] with 354, or a refusal,
    /// which ends the transaction.
    Data,
    /// Notice: the next bytes of the message, unstuffed, CRLF line ends kept. Never empty.
    Body(Bytes),
    /// Question: the message is whole. [`Server::answer`] with 250 or a refusal.
    BodyEnd {
        /// Octets that came as [`Event::Body`].
        octets: u64,
    },
    /// Notice: the open transaction is over without an answer to its end (RSET, EHLO, a body the
    /// machine itself refused, the connection ended). What came of it must be forgotten.
    Reset,
    /// Notice: the connection ends, and why; always last.
    Closing(Ending),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client hung up.
    HungUp,
    /// Idle or over time.
    TimedOut,
    /// Too many errors, or a protocol abuse such as a bare line end.
    Abuse,
    /// A 421 or a refusal of ours at the greeting.
    Refused,
}

/// The answer to a turn of a login.
#[derive(Debug)]
pub enum AuthAnswer {
    /// 334 with this challenge.
    Challenge(Vec<u8>),
    /// 235. With `last`, it is sent as a final challenge first, as RFC 4954 §4 wants; the machine
    /// takes the client's empty response itself.
    Success {
        /// Who logged in.
        login: String,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// 4yz or 5yz.
    Failure(Reply),
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Server {
    _todo: (),
}

impl Server {
    /// A connection that was just accepted.
    pub fn new(profile: Profile, now: Instant) -> Self {
        let _ = (profile, now);
        todo!()
    }

    /// Answers the open question. Without one it does nothing (debug builds panic).
    pub fn answer(&mut self, now: Instant, reply: Reply) {
        let _ = (now, reply);
        todo!()
    }

    /// Answers [`Event::Auth`] and [`Event::AuthResponse`].
    pub fn answer_auth(&mut self, now: Instant, answer: AuthAnswer) {
        let _ = (now, answer);
        todo!()
    }

    /// Ends the session at the next safe point: 421 to the next command, never inside an answer
    /// that is owed for a message (drain).
    pub fn shut_down(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The name in EHLO, once said.
    pub fn hello(&self) -> Option<&str> {
        todo!()
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        todo!()
    }

    /// Who is logged in.
    pub fn login(&self) -> Option<&str> {
        todo!()
    }

    /// `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPA`, `ESMTPSA`, `UTF8SMTP…` (RFC 3848, RFC 6531 §4.3).
    pub fn with_protocol(&self) -> &'static str {
        todo!()
    }
}

impl Machine for Server {
    type Event = Event;

    fn bytes(&mut self, now: Instant, input: &[u8]) {
        let _ = (now, input);
        todo!()
    }

    fn end(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    fn deadline(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    fn secured(&mut self, now: Instant, facts: TlsFacts) {
        let _ = (now, facts);
        todo!()
    }

    fn poll(&mut self, now: Instant) -> Output<Event> {
        let _ = now;
        todo!()
    }
}
