//! What an attempt through an edge and one straight from home have in common: its beginning and its end
//! in the entry.

use std::time::Duration;

use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::Vouched;
use gatepost_protocol::tunnel::verb::relay::AttemptId;
use gatepost_runtime::random;

use super::body::Unfit;
use super::{Context, Told, jitter};
use crate::queue::QueueId;
use crate::queue::entry::{Entry, Final, OpenAttempt, Place, State};
use crate::queue::next_hop::Hop;
use crate::queue::pace::Ending;
use crate::queue::ready::Lane;
use crate::queue::schedule::{self, Ended};

/// Recipients of one attempt: what every host must take (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS_MAX: usize = 100;
/// Pause after the disk refused.
pub const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// An attempt that was begun: the entry says so, durably.
pub struct Begun {
    /// Names it.
    pub id: AttemptId,
    /// The message's trace id.
    pub trace: TraceId,
    /// Sender and the recipients of this hop.
    pub envelope: Envelope,
    /// Octets of the message.
    pub octets: u64,
    /// It holds octets over 127.
    pub eight_bit: bool,
    /// Digest of the message.
    pub sha256: [u8; 32],
    /// Where to.
    pub hop: Hop,
}

/// What is told of an attempt beside its outcomes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The TLS spoken: version and cipher suite.
    pub tls: Option<&'a str>,
    /// Who vouched for the host.
    pub vouched: Vouched,
    /// Who takes the mail of this destination, and perhaps of others.
    pub receiver: Option<&'a str>,
}

/// Begins an attempt for what is due in this lane. `None`: nothing is (any more), or the disk refuses.
pub async fn begin(context: &Context, id: QueueId, lane: &Lane, place: Place) -> Option<Begun> {
    let rules = context.entries.rules();
    let lane = lane.clone();
    let attempt = AttemptId(random::bytes());
    let begun = context
        .blocking(move |entries| {
            let now = entries.now_unix_ms();
            let change = |entry: &mut Entry| {
                let hop_of = |place: &usize| rules.routes.hop(&entry.recipients[*place].recipient.address);
                let ready = schedule::ready(entry, now);
                let hop = ready.iter().map(&hop_of).find(|hop| hop.lane() == lane)?;
                // Two routes may share a lane and differ in their login.
                let recipients: Vec<usize> =
                    ready.into_iter().filter(|place| hop_of(place) == hop).take(RECIPIENTS_MAX).collect();
                let envelope = entry.envelope(&recipients);
                entry.attempts.push(OpenAttempt {
                    id: attempt,
                    place,
                    since_unix_ms: now,
                    recipients,
                    lost_unix_ms: None,
                    ask_unix_ms: None,
                });
                Some(Begun {
                    id: attempt,
                    trace: entry.trace,
                    envelope,
                    octets: entry.octets,
                    eight_bit: entry.eight_bit,
                    sha256: entry.sha256,
                    hop,
                })
            };
            entries.update(id, change)
        })
        .await;
    match begun {
        Ok(begun) => begun.flatten(),
        Err(error) => {
            tracing::error!(queue = %id, %error, "an attempt can't begin: the queue can't write");
            // The entry stays due; a full disk must not make the loop spin.
            context.entries.clock().sleep(WRITE_AGAIN).await;
            context.entries.file_again(id);
            None
        }
    }
}

/// Records how an attempt ended. Durable when it returns; gives what it says of the destination.
pub async fn end(context: &Context, id: QueueId, attempt: AttemptId, ending: Ended, facts: Facts<'_>) -> Told {
    log(context, id, attempt, &ending.outcomes, ending.remote.as_deref(), facts);
    let told = Told {
        ending: Ending::of(&ending.outcomes, ending.remote.is_some()),
        last: ending.outcomes.iter().find(|outcome| matches!(outcome, Outcome::Deferred(_))).map(|outcome| Final {
            reply: outcome.reply().clone(),
            remote: ending.remote.clone(),
            at_unix_ms: context.entries.now_unix_ms(),
        }),
        receiver: facts.receiver.map(str::to_owned),
    };
    let rules = context.entries.rules();
    context
        .record(id, move |entry, now| {
            rules.schedule.ended(entry, attempt, &ending, now, jitter());
        })
        .await;
    told
}

/// Records that an attempt came to nothing for sure.
pub async fn nothing(context: &Context, id: QueueId, attempt: AttemptId, why: Reply) {
    let rules = context.entries.rules();
    context
        .record(id, move |entry, now| {
            rules.schedule.came_to_nothing(entry, attempt, why.clone(), now, jitter());
        })
        .await;
}

/// The message can't be sent as it lies on our disk. What is damaged leaves the queue, for its owner to look
/// at; what only can't be read now is tried again.
pub async fn unfit(context: &Context, id: QueueId, attempt: AttemptId, trace: TraceId, unfit: Unfit) {
    match unfit {
        Unfit::Damaged(why) => {
            tracing::error!(%trace, queue = %id, why, "a queued message is damaged");
            context.blocking(move |entries| entries.set_aside(id, &why)).await;
        }
        Unfit::Unreadable(error) => {
            tracing::error!(%trace, queue = %id, %error, "a queued message can't be read now; it is tried again");
            nothing(context, id, attempt, Reply::local_error()).await;
        }
    }
}

/// Tells what an attempt came to.
pub fn log(
    context: &Context,
    id: QueueId,
    attempt: AttemptId,
    outcomes: &[Outcome],
    remote: Option<&str>,
    facts: Facts<'_>,
) {
    let Some(entry) = context.entries.entry(id) else { return };
    let Some(open) = entry.attempts.iter().find(|open| open.id == attempt) else { return };
    let edge = match &open.place {
        Place::Edge { name, .. } => Some(name.as_str()),
        Place::Home => None,
    };
    let (trace, queue, now) = (entry.trace, id, context.entries.now_unix_ms());
    let took_ms = now.saturating_sub(open.since_unix_ms).max(0);
    // Without a host there was no connection to speak of.
    let tls = remote.map(|_| facts.tls.unwrap_or("none"));
    let vouched = facts.tls.map(|_| facts.vouched.word());
    for (place, outcome) in open.recipients.iter().zip(outcomes) {
        let addressee = &entry.recipients[*place];
        let recipient = &addressee.recipient.address;
        let tries = match &addressee.state {
            State::Waiting(waiting) => Some(waiting.attempts.saturating_add(1)),
            State::Delivered { .. } | State::Failed { .. } => None,
        };
        let reply = outcome.reply();
        match outcome {
            Outcome::Accepted(_) if entry.local => {
                tracing::info!(%trace, %queue, %recipient, remote, tries, took_ms, %reply, "delivered");
            }
            Outcome::Accepted(_) => {
                tracing::info!(%trace, %queue, %recipient, edge, remote, tls, vouched, tries, took_ms, %reply, "sent");
            }
            Outcome::Deferred(_) => {
                tracing::info!(%trace, %queue, %recipient, edge, remote, tls, vouched, tries, took_ms, %reply, "deferred");
            }
            Outcome::Refused(_) => {
                tracing::info!(%trace, %queue, %recipient, edge, remote, tls, vouched, tries, took_ms, %reply, "refused");
            }
        }
    }
}
