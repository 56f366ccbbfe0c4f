//! Copies for mailboxes that a server keeps, on their way to it in session: connected before anything is promised,
//! offered up to the final dot while the intent becomes durable, and dotted only then. Nobody waits long: what the
//! server does not take in time is held by the queue instead.

use bytes::Bytes;
use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient};
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::clock::Clock;
use tokio::runtime::Handle;

use super::recipients::LocalCopy;
use crate::delivery::config::Server;
use crate::delivery::lmtp::{Answer, JUNK_MARK, OFFER_WAIT_MAX, Servers, Visit};
use crate::message::Message;

/// One message on its way to one server.
#[derive(Debug)]
pub struct Handing {
    server: Server,
    envelope: Envelope,
    is_junk: bool,
    state: State,
    runtime: Handle,
    clock: Clock,
}

#[derive(Debug)]
enum State {
    // A large thing, and one that comes and goes.
    Open(Box<Visit>),
    Over(Vec<Answer>),
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The mailbox.
    pub recipient: Recipient,
    /// What its server says.
    pub answer: Answer,
    /// It belongs in Junk.
    pub is_junk: bool,
}

/// A mailbox as a recipient of its server's. `None` if it is no address (any more).
pub fn recipient(copy: &LocalCopy) -> Option<Recipient> {
    let address = Address::parse(&copy.mailbox).ok()?;
    // RFC 3461 §4.2: told only to servers that know what it means.
    let orcpt = Some(format!("rfc822;{}", copy.recipient)).filter(|text| text.is_ascii());
    Some(Recipient { address, notify: Notify::Unspecified, orcpt })
}

impl Handing {
    /// Connects, unless the server is in trouble.
    pub async fn begin(servers: &Servers, clock: &Clock, server: Server, envelope: Envelope, is_junk: bool) -> Self {
        let state = match servers.visit_soon(&server).await {
            Ok(visit) => State::Open(Box::new(visit)),
            Err(why) => State::Over(deferred(&why, &envelope)),
        };
        Self { server, envelope, is_junk, state, runtime: Handle::current(), clock: clock.clone() }
    }

    /// All but the final dot. Blocking, for a limited time.
    pub fn offer(&mut self, message: &Message) {
        let mut visit = match std::mem::replace(&mut self.state, State::Over(Vec::new())) {
            State::Open(visit) => visit,
            over @ State::Over(_) => {
                self.state = over;
                return;
            }
        };
        let offered = self.runtime.block_on(self.clock.timeout(OFFER_WAIT_MAX, self.pass(&mut visit, message)));
        self.state = match offered {
            Some(Ok(())) => State::Open(visit),
            // The connection ends before the dot.
            Some(Err(why)) => State::Over(deferred(&why, &self.envelope)),
            None => State::Over(visit.give_up()),
        };
    }

    async fn pass(&self, visit: &mut Visit, message: &Message) -> Result<(), Reply> {
        let mark = if self.is_junk { JUNK_MARK } else { "" };
        let octets = message.octets() + mark.len() as u64;
        let eight_bit = self.envelope.body == BodyKind::EightBit;
        if !visit.start(&self.envelope, octets, eight_bit).await {
            return Ok(());
        }
        visit.body(Bytes::from_static(mark.as_bytes())).await;
        visit.body(message.front.clone()).await;
        for piece in message.body.chunks() {
            let piece = piece.map_err(|error| {
                tracing::error!(%error, "a message being delivered can't be read");
                Reply::local_error()
            })?;
            visit.body(piece).await;
        }
        Ok(())
    }

    /// The final dot, and what became of each recipient. Blocking.
    pub fn finish(self, trace: TraceId) -> Vec<Handed> {
        let answers = match self.state {
            State::Open(visit) => self.runtime.block_on(visit.finish()),
            State::Over(answers) => answers,
        };
        // Whoever got no answer, for whatever reason, is not served yet.
        let silence = std::iter::repeat(Answer::certain(Outcome::Deferred(Reply::local_error())));
        let handed: Vec<Handed> = self
            .envelope
            .recipients
            .into_iter()
            .zip(answers.into_iter().chain(silence))
            .map(|(recipient, answer)| Handed { recipient, answer, is_junk: self.is_junk })
            .collect();
        for Handed { recipient, answer, .. } in &handed {
            let (recipient, remote, reply) = (&recipient.address, &self.server, answer.outcome.reply());
            match answer.outcome {
                Outcome::Accepted(_) => tracing::info!(%trace, %recipient, %remote, %reply, "delivered"),
                _ if answer.in_doubt => tracing::warn!(
                    %trace, %recipient, %remote, %reply,
                    "the server of the mailbox did not say what became of it: the next try may deliver twice"
                ),
                Outcome::Deferred(_) | Outcome::Refused(_) => {
                    tracing::info!(%trace, %recipient, %remote, %reply, "not taken by the server of the mailbox");
                }
            }
        }
        handed
    }
}

fn deferred(why: &Reply, envelope: &Envelope) -> Vec<Answer> {
    vec![Answer::certain(Outcome::Deferred(why.clone())); envelope.recipients.len()]
}

#[cfg(test)]
mod tests;
