//! The SMTP and LMTP client machine: greeting, EHLO, TLS, login, then transactions one after another.

mod hello;
mod phase;
mod reply_reader;
pub mod reuse;
mod transaction;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use self::phase::Phase;
pub use self::reply_reader::{ReplyError, ReplyReader};
use self::transaction::Transaction;
pub use super::capability::Offered;
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
            reply_wait_max: Duration::from_mins(5),
            final_wait_max: Duration::from_mins(10),
        }
    }
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
    /// The connection is no good (any more). A transaction that was open ended by its own
    /// [`Event::Done`] just before, with this reply for every recipient that had no outcome yet.
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
    config: ClientConfig,
    phase: Phase,
    input: BytesMut,
    replies: ReplyReader,
    /// Commands not yet given to the adapter.
    commands: BytesMut,
    /// Message bytes not yet given to the adapter; they follow `commands`.
    message: VecDeque<Bytes>,
    events: VecDeque<Event>,
    offered: Offered,
    server_name: String,
    tls: Option<TlsFacts>,
    /// Since when the server (or, in the message, the program) keeps us waiting.
    waiting_since: Instant,
    /// RSET must come before the next MAIL.
    reset_due: bool,
}

impl Client {
    /// A connection that was just made.
    pub fn new(config: ClientConfig, now: Instant) -> Self {
        Self {
            replies: ReplyReader::new(config.limits.reply_line_octets_max),
            config,
            phase: Phase::Greeting,
            input: BytesMut::new(),
            commands: BytesMut::new(),
            message: VecDeque::new(),
            events: VecDeque::new(),
            offered: Offered::default(),
            server_name: String::new(),
            tls: None,
            waiting_since: now,
            reset_due: false,
        }
    }

    /// Starts a transaction. Only when ready. A message the server can't take (8-bit, SMTPUTF8,
    /// SIZE) is refused here without a word on the wire, as [`Event::Done`].
    pub fn start(&mut self, now: Instant, envelope: Envelope, octets: u64, eight_bit: bool) {
        if !matches!(self.phase, Phase::Ready) {
            debug_assert!(false, "not ready for a transaction: {:?}", self.phase);
            let late = Outcome::of(Reply::connection_lost("the connection was lost before the transaction"));
            self.events.push_back(Event::Done(vec![late; envelope.recipients.len()]));
            return;
        }
        self.waiting_since = now;
        let lmtp = self.config.protocol == Protocol::Lmtp;
        let mut transaction = Transaction::new(envelope, octets, eight_bit, &self.offered, lmtp, self.reset_due);
        if transaction.is_over() {
            self.events.push_back(Event::Done(transaction.into_outcomes()));
            return;
        }
        self.reset_due = true;
        transaction.write_commands(&mut self.commands);
        self.phase = Phase::Transaction(Box::new(transaction));
    }

    /// The next bytes of the message (CRLF line ends); dots are stuffed here. After an
    /// [`Event::Done`] that came early they are dropped.
    pub fn body(&mut self, now: Instant, bytes: Bytes) {
        let Phase::Body(_, encoder) = &mut self.phase else { return };
        self.waiting_since = now;
        match encoder.encode(bytes) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => self.message.push_back(bytes),
            Err(_) => self.fail(Stage::Transaction, Reply::bare_in_message()),
        }
    }

    /// The message is whole: the final dot goes out with the next poll.
    pub fn body_end(&mut self, now: Instant) {
        let (transaction, encoder) = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Body(transaction, encoder) => (transaction, encoder),
            other => {
                self.phase = other;
                return;
            }
        };
        self.waiting_since = now;
        if let Ok(dot) = encoder.finish() {
            self.message.push_back(dot);
            self.phase = Phase::Final(transaction);
        } else {
            self.phase = Phase::Transaction(transaction);
            self.fail(Stage::Transaction, Reply::bare_in_message());
        }
    }

    /// QUIT. In the middle of a transaction the connection just ends.
    pub fn quit(&mut self, now: Instant) {
        self.waiting_since = now;
        match self.phase {
            Phase::Ready => {
                self.command("QUIT");
                self.phase = Phase::Quitting;
            }
            Phase::Quitting | Phase::Ended => {}
            _ => {
                self.message.clear();
                self.phase = Phase::Ended;
                self.events.push_back(Event::Closed);
            }
        }
    }

    /// The connection broke: the host "closed the connection", or what else it did. Replies that came before
    /// still count.
    pub fn lost(&mut self, now: Instant, what: &str) {
        while self.take_reply(now) {}
        let why = format!("The host {what} {}", self.phase.words());
        self.fail(self.stage(), Reply::connection_lost(&why));
    }

    /// What the server offers, once ready.
    pub fn offered(&self) -> &Offered {
        &self.offered
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// True while [`Client::start`] may be called: nothing is open, awaited or untold.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready) && self.events.is_empty()
    }

    /// What the host calls itself: the first word of its reply to EHLO or HELO.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    fn command(&mut self, line: &str) {
        self.commands.extend_from_slice(line.as_bytes());
        self.commands.extend_from_slice(b"\r\n");
    }

    /// The connection is no good: what was open gets this reply.
    fn fail(&mut self, stage: Stage, reply: Reply) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ended => return,
            Phase::Quitting => {
                self.events.push_back(Event::Closed);
                return;
            }
            Phase::Transaction(mut transaction) | Phase::Body(mut transaction, _) | Phase::Final(mut transaction) => {
                transaction.fail(&reply);
                self.events.push_back(Event::Done(transaction.into_outcomes()));
            }
            _ => {}
        }
        self.commands.clear();
        self.message.clear();
        self.input.clear();
        self.events.push_back(Event::Failed(Failure { stage, reply }));
    }

    /// Where a failure now happens.
    fn stage(&self) -> Stage {
        match self.phase {
            Phase::Greeting | Phase::Ehlo | Phase::Helo => Stage::Hello,
            Phase::StartTls | Phase::SecureDue | Phase::Securing => Stage::Tls,
            Phase::Login(_) => Stage::Login,
            Phase::Ready | Phase::Transaction(_) | Phase::Body(..) | Phase::Quitting | Phase::Ended => {
                Stage::Transaction
            }
            Phase::Final(_) => Stage::Final,
        }
    }

    /// One reply of the server.
    fn reply(&mut self, reply: Reply) {
        if reply.code() == 421 {
            // RFC 5321 §3.8: the server closes. After the final dot it is still the answer.
            let stage = self.stage();
            return self.fail(if stage == Stage::Final { Stage::Transaction } else { stage }, reply);
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Greeting => self.greeted(reply),
            Phase::Ehlo => self.ehlo_answered(reply),
            Phase::Helo => self.helo_answered(reply),
            Phase::StartTls => self.start_tls_answered(&reply),
            Phase::Login(exchange) => self.login_answered(exchange, &reply),
            Phase::Transaction(transaction) => self.transaction_answered(transaction, reply),
            Phase::Final(transaction) => self.final_answered(transaction, reply),
            Phase::Quitting => self.events.push_back(Event::Closed),
            phase @ Phase::Body(..) => {
                // Nobody asked yet. A refusal is believed, and the rest of the message not sent.
                self.phase = phase;
                let reply = if reply.is_positive() { unasked() } else { reply };
                self.fail(Stage::Transaction, reply);
            }
            phase @ (Phase::Ready | Phase::SecureDue | Phase::Securing | Phase::Ended) => {
                self.phase = phase;
                self.fail(self.stage(), unasked());
            }
        }
    }

    fn transaction_answered(&mut self, mut transaction: Box<Transaction>, reply: Reply) {
        let step = transaction.reply(reply);
        transaction.write_commands(&mut self.commands);
        match step {
            transaction::Step::GoOn => self.phase = Phase::Transaction(transaction),
            transaction::Step::Body => {
                self.phase = Phase::Body(transaction, super::body::Encoder::default());
                self.events.push_back(Event::Body);
            }
            transaction::Step::Over => self.done(*transaction),
            transaction::Step::Broken(reply) => {
                self.phase = Phase::Transaction(transaction);
                self.fail(Stage::Transaction, reply);
            }
        }
    }

    fn final_answered(&mut self, mut transaction: Box<Transaction>, reply: Reply) {
        if transaction.final_reply(reply) {
            self.reset_due = false;
            self.done(*transaction);
        } else {
            self.phase = Phase::Final(transaction);
        }
    }

    fn done(&mut self, transaction: Transaction) {
        self.phase = Phase::Ready;
        self.events.push_back(Event::Done(transaction.into_outcomes()));
    }

    fn wait_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ready | Phase::SecureDue | Phase::Securing | Phase::Ended => None,
            _ => Some(self.waiting_since + self.reply_wait()),
        }
    }

    fn reply_wait(&self) -> Duration {
        let limits = &self.config.limits;
        if matches!(self.phase, Phase::Final(_)) { limits.final_wait_max } else { limits.reply_wait_max }
    }
}

/// The server spoke out of turn.
fn unasked() -> Reply {
    Reply::protocol_error("The host sent a reply to nothing")
}

impl Machine for Client {
    type Event = Event;

    fn bytes(&mut self, _now: Instant, input: &[u8]) {
        if !matches!(self.phase, Phase::Ended | Phase::SecureDue | Phase::Securing) {
            self.input.extend_from_slice(input);
        }
    }

    fn end(&mut self, now: Instant) {
        self.lost(now, "closed the connection");
    }

    fn deadline(&mut self, now: Instant) {
        if self.wait_until().is_some_and(|until| now >= until) {
            let minutes = self.reply_wait().as_secs() / 60;
            let why = format!("The host went silent {}: no whole reply within {minutes} minutes", self.phase.words());
            self.fail(self.stage(), Reply::connection_lost(&why));
        }
    }

    fn secured(&mut self, now: Instant, facts: TlsFacts) {
        match self.phase {
            Phase::Greeting => {}
            Phase::Securing => {
                // What was said in plaintext is forgotten (RFC 3207 §4.2).
                self.offered = Offered::default();
                self.input.clear();
                self.say_hello();
            }
            _ => {
                debug_assert!(false, "TLS was not asked for: {:?}", self.phase);
                return;
            }
        }
        self.waiting_since = now;
        self.tls = Some(facts);
    }

    fn poll(&mut self, now: Instant) -> Output<Event> {
        loop {
            if !self.commands.is_empty() {
                return Output::Send(self.commands.split().freeze());
            }
            if let Some(bytes) = self.message.pop_front() {
                return Output::Send(bytes);
            }
            if let Some(event) = self.events.pop_front() {
                return Output::Event(event);
            }
            match self.phase {
                Phase::SecureDue => {
                    self.phase = Phase::Securing;
                    return Output::Secure;
                }
                Phase::Securing => return Output::Wait { until: None, read: false },
                Phase::Ended => return Output::Close,
                _ => {
                    if !self.take_reply(now) {
                        return Output::Wait { until: self.wait_until(), read: true };
                    }
                }
            }
        }
    }
}

impl Client {
    /// Takes one whole reply out of the input, if one is there.
    fn take_reply(&mut self, now: Instant) -> bool {
        if matches!(self.phase, Phase::Ended | Phase::SecureDue | Phase::Securing) {
            return false;
        }
        match self.replies.next(&mut self.input) {
            Ok(None) => return false,
            Ok(Some(reply)) => {
                self.waiting_since = now;
                self.reply(reply);
            }
            Err(error) => self.fail(self.stage(), Reply::protocol_error(&error.to_string())),
        }
        true
    }
}

#[cfg(test)]
mod tests;
