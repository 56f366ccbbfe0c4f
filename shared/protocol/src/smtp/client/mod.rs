//! The SMTP and LMTP client machine: greeting, EHLO, TLS, login, then transactions one after another.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::machine::{Machine, Output, TlsFacts};
use crate::mail::envelope::Envelope;
use crate::mail::outcome::Outcome;
use crate::mail::reply::Reply;
use crate::secret::Secret;

/// How to behave towards this host.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Our name in EHLO.
    pub helo: String,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// TLS by STARTTLS. (Implicit TLS: the connection is made secure first and [`Machine::secured`] called.)
    pub starttls: StartTls,
    /// Log in with these.
    pub login: Option<(String, Secret)>,
    /// 18 random bytes for SCRAM.
    pub nonce: [u8; 18],
    /// Bounds.
    pub limits: ClientLimits,
}

/// SMTP or LMTP (RFC 2033).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One reply for the message.
    Smtp,
    /// One reply a recipient.
    Lmtp,
}

/// When to say STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// Never.
    Never,
    /// If offered.
    Opportunistic,
    /// Always; if it is not offered, nothing is sent.
    Required,
}

/// Bounds of the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// One line of a reply.
    pub reply_line_octets_max: usize,
    /// Waiting for a reply (RFC 5321 §4.5.3.2.1 to .4).
    pub reply_wait_max: Duration,
    /// Waiting for the reply to the final dot (RFC 5321 §4.5.3.2.6).
    pub final_wait_max: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            reply_line_octets_max: 4096,
            reply_wait_max: Duration::from_secs(300),
            final_wait_max: Duration::from_secs(600),
        }
    }
}

/// What the server offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// `PIPELINING`.
    pub pipelining: bool,
    /// `8BITMIME`.
    pub eight_bit: bool,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `DSN`.
    pub dsn: bool,
    /// `SIZE`, and its limit if it names one.
    pub size: Option<Option<u64>>,
}

/// Notices; the program drives with [`Client::start`], [`Client::body`], [`Client::body_end`], [`Client::quit`].
#[derive(Debug)]
pub enum Event {
    /// Greeted, secured, logged in: [`Client::start`] a transaction or [`Client::quit`].
    Ready,
    /// At least one recipient was accepted and the server waits for the message:
    /// [`Client::body`] until all is given, then [`Client::body_end`].
    Body,
    /// The transaction is over: an outcome for each recipient, in the envelope's order. The
    /// machine is ready again.
    Done(Vec<Outcome>),
    /// The connection is no good (any more); a transaction that was open has this as the outcome
    /// of every recipient that had none.
    Failed(Failure),
    /// The connection ended after [`Client::quit`].
    Closed,
}

/// Why a connection is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it happened.
    pub stage: Stage,
    /// The remote's reply, or ours (4yz) where it said nothing usable.
    pub reply: Reply,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Greeting or EHLO: another host may be tried.
    Hello,
    /// STARTTLS.
    Tls,
    /// Login.
    Login,
    /// In a transaction, before the final dot.
    Transaction,
    /// After the final dot: in doubt.
    Final,
}

/// The client's side of one connection.
#[derive(Debug)]
pub struct Client {
    _todo: (),
}

impl Client {
    /// A connection that was just made.
    pub fn new(config: ClientConfig, now: Instant) -> Self {
        let _ = (config, now);
        todo!()
    }

    /// Starts a transaction. Only when ready. A message the server can't take (8-bit, SMTPUTF8,
    /// SIZE) is refused here without a word on the wire, as [`Event::Done`].
    pub fn start(&mut self, now: Instant, envelope: Envelope, octets: u64, eight_bit: bool) {
        let _ = (now, envelope, octets, eight_bit);
        todo!()
    }

    /// The next bytes of the message (CRLF line ends); dots are stuffed here.
    pub fn body(&mut self, now: Instant, bytes: Bytes) {
        let _ = (now, bytes);
        todo!()
    }

    /// The message is whole: the final dot goes out with the next poll.
    pub fn body_end(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// QUIT.
    pub fn quit(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// What the server offers, once ready.
    pub fn offered(&self) -> &Offered {
        todo!()
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        todo!()
    }
}

impl Machine for Client {
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
