//! Hands a bounce over. The bounce's name is in the entry, durably, before it goes out, so that a
//! repeat after a crash is the same one; its recipients are forgotten only after it was accepted.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::random;
use tokio::sync::oneshot;

use super::Context;
use crate::message::{Body, Message};
use crate::queue::bounce::{self, RETURNED_OCTETS_MAX, Reporter};
use crate::queue::entries::Entries;
use crate::queue::entry::{About, Entry, OpenBounce, State, Waiting};
use crate::queue::{Bounce, Errand, QueueId};

/// How long the router may take over one bounce.
const ANSWER_MAX: Duration = Duration::from_mins(5);
/// Octets of a refusal that the postmaster reads in a header field.
const WHY_OCTETS_MAX: usize = 500;

/// Hands the bounce of this entry over, if one is due.
pub async fn hand_over(context: &Context, id: QueueId) {
    let name = TransferId(random::bytes());
    let trace = TraceId::from_random(random::bytes());
    let (rules, entries) = (context.entries.rules(), Arc::clone(&context.entries));
    let opened = context
        .record(id, move |entry, now| {
            if let Some((about, recipients)) = rules.schedule.report(entry, now) {
                for place in &recipients {
                    hear(&entries, entry, *place);
                }
                entry.bounce = Some(OpenBounce {
                    about,
                    id: name,
                    trace,
                    made_unix_s: entries.clock().unix_s(),
                    recipients,
                    attempts: 0,
                    next_unix_ms: now,
                });
            }
            let bounce = entry.bounce.clone().filter(|bounce| bounce.next_unix_ms <= now)?;
            Some((entry.clone(), bounce))
        })
        .await;
    let Some((entry, open)) = opened.flatten() else { return };
    let reply = offer(context, &entry, &open).await;
    let trace = entry.trace;
    match reply.class() {
        Class::Done if entry.strands() => {
            tracing::warn!(%trace, queue = %id, "refused for good, and its sender proved nothing: the postmaster has it");
        }
        Class::Done => {
            let what = match open.about {
                About::Failure => "bounced",
                About::Delay => "warned the sender of a delay",
                About::Relay => "told the sender that it was sent on",
                About::Delivery => "told the sender that it was delivered",
            };
            tracing::info!(%trace, queue = %id, bounce = %open.trace, to = %entry.reverse_path, "{what}");
        }
        Class::Permanent => {
            tracing::error!(%trace, queue = %id, %reply, "a bounce was refused: the message is held");
        }
        Class::Temporary | Class::Continue => {
            tracing::warn!(%trace, queue = %id, %reply, "a bounce was not taken yet");
        }
    }
    let schedule = context.entries.rules().schedule.clone();
    context
        .record(id, move |entry, now| match reply.class() {
            Class::Done => told(entry),
            Class::Permanent => {
                entry.held = Some(format!("its bounce was refused: {reply}"));
                put_off(entry, now);
            }
            Class::Temporary | Class::Continue => {
                if let Some(bounce) = &mut entry.bounce {
                    bounce.attempts = bounce.attempts.saturating_add(1);
                    bounce.next_unix_ms = schedule.bounce_again_unix_ms(bounce.attempts, now);
                }
            }
        })
        .await;
}

/// A recipient that was never tried, since its destination is left alone, waits for what was heard there.
fn hear(entries: &Entries, entry: &mut Entry, place: usize) {
    let heard = entries.last_heard(entry, place);
    if let Some(State::Waiting(Waiting { last: last @ None, .. })) =
        entry.recipients.get_mut(place).map(|a| &mut a.state)
    {
        *last = heard;
    }
}

fn told(entry: &mut Entry) {
    let Some(bounce) = entry.bounce.take() else { return };
    for place in bounce.recipients {
        match (entry.recipients.get_mut(place).map(|addressee| &mut addressee.state), bounce.about) {
            (Some(State::Failed { told, .. }), About::Failure)
            | (Some(State::Delivered { told, .. }), About::Relay | About::Delivery) => {
                *told = true;
            }
            (Some(State::Waiting(waiting)), About::Delay) => waiting.warned = true,
            _ => {}
        }
    }
}

/// Released by hand, it is offered again at once.
fn put_off(entry: &mut Entry, now_unix_ms: i64) {
    if let Some(bounce) = &mut entry.bounce {
        bounce.attempts = bounce.attempts.saturating_add(1);
        bounce.next_unix_ms = now_unix_ms;
    }
}

/// Offers the bounce to whoever takes them; the router's reply, or ours where there was none.
async fn offer(context: &Context, entry: &Entry, open: &OpenBounce) -> Reply {
    if entry.strands() && open.about == About::Failure {
        return strand(context, entry, open).await;
    }
    let Some(envelope) = bounce::envelope(entry) else { return Reply::ok() };
    let rules = context.entries.rules();
    let (entry, report) = (entry.clone(), open.clone());
    let message = context
        .blocking(move |entries| {
            let start = start(entries, entry.id, entry.octets).inspect_err(|error| {
                tracing::warn!(trace = %entry.trace, queue = %entry.id, %error, "a bounce goes out without its message");
            });
            let reporter =
                Reporter { hostname: &rules.settings.hostname, postmaster: &rules.settings.postmaster };
            let dated = entry.dated(entries.date_ahead_ms());
            let retried_until_unix_ms = rules.schedule.expires_unix_ms(&dated);
            bounce::report(&dated, &report, reporter, start.ok().as_deref(), retried_until_unix_ms)
        })
        .await;
    let (accepted, answer) = oneshot::channel();
    let event = Bounce {
        errand: Errand::Report,
        id: open.id,
        trace: open.trace,
        envelope,
        message: Message { front: Bytes::new(), body: Body::Memory(Arc::new([Bytes::from(message)])) },
        made_unix_s: open.made_unix_s,
        accepted,
    };
    await_answer(context, event, answer).await
}

/// Sends an event and waits for the router's reply to it.
async fn await_answer(context: &Context, event: Bounce, answer: oneshot::Receiver<Reply>) -> Reply {
    if context.bounces.send(event).await.is_err() {
        return Reply::local_error();
    }
    match context.entries.clock().timeout(ANSWER_MAX, answer).await {
        Some(Ok(reply)) => reply,
        Some(Err(_)) | None => Reply::local_error(),
    }
}

/// What mailboxes here refused for good, whole, for the postmaster: it says in front whose it was, and why.
async fn strand(context: &Context, entry: &Entry, open: &OpenBounce) -> Reply {
    let mut front = String::new();
    let mut recipients = Vec::new();
    let mut is_junk = true;
    for addressee in open.recipients.iter().filter_map(|place| entry.recipients.get(*place)) {
        let State::Failed { last, .. } = &addressee.state else { continue };
        let why = last.reply.to_string().replace(|c: char| !(c.is_ascii_graphic() || c == ' '), "?");
        let why: String = why.chars().take(WHY_OCTETS_MAX).collect();
        front += &["X-Undelivered-To: ", &addressee.recipient.address.to_string(), "\r\n\t(", &why, ")\r\n"].concat();
        recipients.push(addressee.recipient.clone());
        is_junk &= addressee.is_junk;
    }
    let envelope = Envelope { recipients, ..entry.envelope(&[]) };
    send_whole(context, entry, Errand::Stranded { is_junk }, open.id, envelope, front).await
}

/// Hands the whole message over, `front` before it; the router's reply.
pub async fn send_whole(
    context: &Context,
    entry: &Entry,
    errand: Errand,
    id: TransferId,
    envelope: Envelope,
    front: String,
) -> Reply {
    let queue = entry.id;
    let file = match context.blocking(move |entries| entries.store().message(queue)).await {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(trace = %entry.trace, %queue, %error, "a message that waits can't be read now");
            return Reply::local_error();
        }
    };
    let (accepted, answer) = oneshot::channel();
    let event = Bounce {
        errand,
        id,
        trace: entry.trace,
        envelope,
        message: Message {
            front: Bytes::from(front),
            body: Body::File { file: Arc::new(file), skip: 0, octets: entry.octets },
        },
        made_unix_s: entry.received_unix_ms.div_euclid(1000),
        accepted,
    };
    await_answer(context, event, answer).await
}

/// The beginning of the message, as much as may be returned.
fn start(entries: &Entries, id: QueueId, octets: u64) -> io::Result<Vec<u8>> {
    let file = entries.store().message(id)?;
    let octets = usize::try_from(octets).unwrap_or(usize::MAX).min(RETURNED_OCTETS_MAX);
    let mut start = vec![0; octets];
    file.read_exact_at(&mut start, 0)?;
    Ok(start)
}
