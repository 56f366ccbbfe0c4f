//! The SMTP server machine (RFC 5321), for 25 and 465 alike; differences are values in [`Profile`].
//!
//! Decisions from outside are phases: after an event that is a question the machine parses nothing
//! until its answer comes; pipelined commands wait in the (bounded) buffer.

mod commands;
mod event;
pub mod limits;
mod phase;
mod transaction;

use std::collections::VecDeque;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;

pub use self::event::{AuthAnswer, Ending, Event, Profile};
use self::phase::Phase;
use super::body::{BodyFault, Decoded, Decoder};
pub use super::command::{MailFrom, RcptTo};
use super::line::{LineError, LineReader};
use crate::machine::{Machine, Output, TlsFacts};
use crate::mail::reply::{Class, Enhanced, Reply};
use crate::sasl::Mechanism;

/// The server's side of one connection.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    phase: Phase,
    /// Bytes read and not yet understood.
    input: BytesMut,
    lines: LineReader,
    /// Replies not yet given to the adapter: those of pipelined commands leave together.
    replies: BytesMut,
    events: VecDeque<Event>,
    tally: Tally,
    hello: Option<Hello>,
    tls: Option<TlsFacts>,
    login: Option<String>,
    /// The session ends then.
    session_until: Instant,
    /// Since when the client keeps us waiting.
    waiting_since: Instant,
    /// The client closed its side.
    hung_up: bool,
    shutting_down: bool,
    /// More came than may be held while a question is open; some of it is gone.
    overflowed: bool,
    /// Why the session ends; taken when it was told.
    ending: Option<Ending>,
}

/// EHLO or HELO.
#[derive(Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// What is counted against the session's bounds.
#[derive(Debug, Default)]
struct Tally {
    errors: usize,
    login_failures: usize,
    transactions: usize,
    idle_commands: usize,
}

impl Server {
    /// A connection that was just accepted.
    pub fn new(profile: Profile, now: Instant) -> Self {
        let session_until = now + profile.limits.session_max;
        Self {
            profile,
            phase: Phase::New,
            input: BytesMut::new(),
            lines: LineReader::default(),
            replies: BytesMut::new(),
            events: VecDeque::new(),
            tally: Tally::default(),
            hello: None,
            tls: None,
            login: None,
            session_until,
            waiting_since: now,
            hung_up: false,
            shutting_down: false,
            overflowed: false,
            ending: None,
        }
    }

    /// Answers the open question. Without one it does nothing (debug builds panic).
    #[expect(clippy::needless_pass_by_value, reason = "an answer is given away")]
    pub fn answer(&mut self, now: Instant, reply: Reply) {
        self.waiting_since = now;
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Greeting if !reply.is_positive() => {
                self.say(&reply);
                self.finish(Ending::Refused);
            }
            Phase::Greeting => self.say(&reply),
            Phase::Sender(transaction) => {
                if reply.is_positive() {
                    self.tally.transactions += 1;
                    self.phase = Phase::Open(transaction);
                }
                self.conclude(&reply);
            }
            Phase::Recipient(mut transaction) => {
                if reply.is_positive() {
                    transaction.accept();
                }
                self.phase = Phase::Open(transaction);
                self.conclude(&reply);
            }
            Phase::Data(transaction) => {
                if reply.class() == Class::Continue {
                    let decoder = Decoder::new(self.profile.limits.message_octets_max);
                    self.phase = Phase::Body(transaction, decoder);
                }
                debug_assert!(!reply.is_positive(), "DATA is answered with 354 or a refusal");
                self.conclude(&reply);
            }
            Phase::BodyEnd(_) => {
                if reply.is_positive() {
                    self.tally.errors = 0;
                    self.tally.idle_commands = 0;
                }
                self.conclude(&reply);
            }
            other => {
                debug_assert!(false, "no question is open: {other:?}");
                self.phase = other;
            }
        }
    }

    /// Answers [`Event::Auth`] and [`Event::AuthResponse`].
    pub fn answer_auth(&mut self, now: Instant, answer: AuthAnswer) {
        if !matches!(self.phase, Phase::Auth) {
            debug_assert!(false, "no login is open: {:?}", self.phase);
            return;
        }
        self.waiting_since = now;
        self.phase = Phase::Idle;
        match answer {
            AuthAnswer::Challenge(challenge) => {
                self.say(&Reply::challenge(BASE64.encode(challenge)));
                self.phase = Phase::AuthResponse;
            }
            AuthAnswer::Success { login, last: None } => self.log_in(login),
            AuthAnswer::Success { login, last: Some(last) } => {
                self.say(&Reply::challenge(BASE64.encode(last)));
                self.phase = Phase::AuthLast { login };
            }
            AuthAnswer::Failure(reply) => {
                self.conclude(&reply);
                if reply.class() == Class::Permanent {
                    self.tally.login_failures += 1;
                }
                if self.tally.login_failures >= self.profile.limits.login_failures_max {
                    self.give_up();
                }
            }
        }
    }

    /// Ends the session at the next safe point (drain): 421 at once, or after the end of the transaction that is open.
    pub fn shut_down(&mut self, _now: Instant) {
        self.shutting_down = true;
    }

    /// The name in EHLO, once said.
    pub fn hello(&self) -> Option<&str> {
        self.hello.as_ref().map(|hello| hello.name.as_str())
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Who is logged in.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// The mechanisms offered right now: none without TLS, -PLUS only with binding data. Whether
    /// -PLUS is among them is what [`crate::sasl::Exchange::new`] wants to know.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let bound = tls.exporter.is_some();
        let usable = |mechanism: &Mechanism| bound || *mechanism != Mechanism::ScramSha256Plus;
        self.profile.mechanisms.iter().copied().filter(usable).collect()
    }

    /// `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPA`, `ESMTPSA`, `UTF8SMTP…` (RFC 3848, RFC 6531 §4.3).
    pub fn with_protocol(&self) -> &'static str {
        let utf8 = self.phase.transaction().is_some_and(|transaction| transaction.smtputf8);
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match (utf8, extended, self.tls.is_some(), self.login.is_some()) {
            (true, _, false, false) => "UTF8SMTP",
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, true) => "UTF8SMTPA",
            (true, _, true, true) => "UTF8SMTPSA",
            (false, true, false, false) => "ESMTP",
            (false, true, true, false) => "ESMTPS",
            (false, true, false, true) => "ESMTPA",
            (false, true, true, true) => "ESMTPSA",
            // RFC 3848 has no word for HELO under TLS.
            (false, false, _, _) => "SMTP",
        }
    }

    fn say(&mut self, reply: &Reply) {
        self.replies.extend_from_slice(&reply.wire());
    }

    /// Says the reply that ends a step, after the phase was set, and draws what follows from it:
    /// 421 closes, too many errors close.
    fn conclude(&mut self, reply: &Reply) {
        self.say(reply);
        if reply.code() == 421 {
            self.finish(Ending::Refused);
            return;
        }
        if !matches!(reply.class(), Class::Temporary | Class::Permanent) {
            return;
        }
        // A client that did not know how many recipients we take has done nothing wrong.
        if reply.code() == 452 && reply.enhanced() == Some(Enhanced(4, 5, 3)) {
            let recipients_max = self.profile.limits.recipients_max;
            if let Phase::Open(transaction) = &mut self.phase
                && !transaction.exceed(recipients_max)
            {
                return;
            }
        }
        self.tally.errors += 1;
        if self.tally.errors >= self.profile.limits.errors_max {
            self.give_up();
        }
    }

    /// Too many errors: 421 and out.
    fn give_up(&mut self) {
        if !matches!(self.phase, Phase::Ending) {
            self.say(&Reply::too_many_errors());
            self.finish(Ending::Abuse);
        }
    }

    /// Ends the session after what was said is sent.
    fn finish(&mut self, ending: Ending) {
        self.forget_transaction();
        self.phase = Phase::Ending;
        self.ending = Some(ending);
        self.input.clear();
    }

    /// Drops the open transaction and says so, unless that was said when its body was refused.
    fn forget_transaction(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Body(_, decoder) if decoder.fault().is_some() => {}
            phase if phase.transaction().is_some() => self.events.push_back(Event::Reset),
            _ => {}
        }
    }

    fn log_in(&mut self, login: String) {
        self.login = Some(login);
        self.say(&Reply::logged_in());
    }

    /// When the client has kept us waiting too long; only where a phase waits for the client.
    fn wait_until(&self) -> Instant {
        let limits = &self.profile.limits;
        let wait_max = match self.phase {
            Phase::Body(..) => limits.data_wait_max,
            _ => limits.command_wait_max,
        };
        self.session_until.min(self.waiting_since + wait_max)
    }

    /// Takes one line or one chunk out of the input. False if it is not there yet.
    fn step(&mut self, now: Instant) -> bool {
        if let Phase::Body(_, decoder) = &mut self.phase {
            let decoded = decoder.decode(&mut self.input);
            return self.body_step(decoded);
        }
        let limits = &self.profile.limits;
        let octets_max = match self.phase {
            Phase::AuthResponse | Phase::AuthLast { .. } => limits.auth_octets_max,
            _ => limits.command_octets_max,
        };
        match self.lines.next(&mut self.input, octets_max) {
            Ok(None) => return false,
            Ok(Some(line)) => self.line(line),
            Err(LineError::TooLong) => {
                if matches!(self.phase, Phase::AuthResponse | Phase::AuthLast { .. }) {
                    self.phase = Phase::Idle;
                }
                self.conclude(&Reply::line_too_long());
            }
            Err(LineError::BareLineEnd) => {
                self.say(&Reply::bare_line_end());
                self.finish(Ending::Abuse);
            }
        }
        self.waiting_since = now;
        true
    }

    fn body_step(&mut self, decoded: Decoded) -> bool {
        match decoded {
            Decoded::NeedMore => return false,
            Decoded::Chunk(chunk) => self.events.push_back(Event::Body(chunk)),
            Decoded::Faulty(_) => self.events.push_back(Event::Reset),
            Decoded::End => {
                let Phase::Body(transaction, body) = std::mem::replace(&mut self.phase, Phase::Idle) else {
                    unreachable!("only the body phase decodes")
                };
                // A buffer of the message's size is not kept while the next command is awaited.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                match body.fault() {
                    None => {
                        self.phase = Phase::BodyEnd(transaction);
                        self.events.push_back(Event::BodyEnd { octets: body.octets() });
                    }
                    Some(BodyFault::BareLineEnd) => self.conclude(&Reply::bare_in_message()),
                    Some(BodyFault::Nul) => self.conclude(&Reply::nul_in_message()),
                    Some(BodyFault::TooBig) => {
                        self.conclude(&Reply::too_big(self.profile.limits.message_octets_max));
                    }
                }
            }
        }
        true
    }

    /// Before the client's next line is read: is there a reason to end here?
    fn ends_here(&mut self) -> bool {
        if matches!(self.phase, Phase::Body(..)) {
            return false;
        }
        if self.overflowed {
            self.say(&Reply::early_talker());
            self.finish(Ending::Abuse);
        } else if self.shutting_down && self.phase.transaction().is_none() {
            // One that is open may come to its end.
            self.say(&Reply::shutting_down());
            self.finish(Ending::Refused);
        }
        matches!(self.phase, Phase::Ending)
    }

    /// The replies so far, if there are any.
    fn send<E>(&mut self) -> Option<Output<E>> {
        (!self.replies.is_empty()).then(|| Output::Send(self.replies.split().freeze()))
    }
}

impl Machine for Server {
    type Event = Event;

    fn bytes(&mut self, now: Instant, input: &[u8]) {
        if matches!(self.phase, Phase::Ending | Phase::SecureDue | Phase::Securing) || self.overflowed {
            return;
        }
        if matches!(self.phase, Phase::Body(..)) {
            self.waiting_since = now;
        }
        if self.phase.is_question() && self.input.len() + input.len() > self.profile.limits.buffer_octets_max {
            self.overflowed = true;
            return;
        }
        self.input.extend_from_slice(input);
    }

    fn end(&mut self, _now: Instant) {
        self.hung_up = true;
        if matches!(self.phase, Phase::New | Phase::SecureDue | Phase::Securing) {
            self.finish(Ending::HungUp);
        }
    }

    fn deadline(&mut self, now: Instant) {
        let waits = matches!(
            self.phase,
            Phase::Idle | Phase::Open(_) | Phase::AuthResponse | Phase::AuthLast { .. } | Phase::Body(..)
        );
        if waits && now >= self.wait_until() {
            self.say(&Reply::timed_out());
            self.finish(Ending::TimedOut);
        }
    }

    fn secured(&mut self, now: Instant, facts: TlsFacts) {
        match self.phase {
            Phase::New => {}
            // What was said in plaintext is forgotten (RFC 3207 §4.2).
            Phase::Securing => {
                self.phase = Phase::Idle;
                self.hello = None;
                self.input.clear();
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
            if let Some(event) = self.events.pop_front() {
                return Output::Event(event);
            }
            match self.phase {
                Phase::New if self.shutting_down => {
                    self.say(&Reply::shutting_down());
                    self.finish(Ending::Refused);
                }
                Phase::New => {
                    self.phase = Phase::Greeting;
                    return Output::Event(Event::Connected);
                }
                // Who does not wait to be greeted does not listen.
                Phase::Greeting if !self.input.is_empty() || self.overflowed => {
                    self.say(&Reply::spoke_first());
                    self.finish(Ending::Abuse);
                }
                Phase::Greeting if self.hung_up => self.finish(Ending::HungUp),
                Phase::Greeting => return Output::Wait { until: None, read: true },
                Phase::SecureDue => {
                    return self.send().unwrap_or_else(|| {
                        self.phase = Phase::Securing;
                        Output::Secure
                    });
                }
                Phase::Ending => {
                    return self.send().unwrap_or_else(|| match self.ending.take() {
                        Some(ending) => Output::Event(Event::Closing(ending)),
                        None => Output::Close,
                    });
                }
                _ if self.phase.is_question() || matches!(self.phase, Phase::Securing) => {
                    return self.send().unwrap_or(Output::Wait { until: None, read: false });
                }
                _ => {
                    if self.ends_here() || self.step(now) {
                        continue;
                    }
                    if self.hung_up {
                        self.finish(Ending::HungUp);
                        continue;
                    }
                    return self.send().unwrap_or_else(|| Output::Wait { until: Some(self.wait_until()), read: true });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
