//! Mail for mailboxes here that their server did not take in session: offered to it again, its attempt durable
//! before the final dot, so that a stop in between is told as a doubt. While the server is away nothing is written.

use bytes::Bytes;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::relay::AttemptId;
use gatepost_runtime::random;

use super::attempt::{self, Facts, RECIPIENTS_MAX, WRITE_AGAIN};
use super::body::{Reader, Unfit};
use super::{Context, notice};
use crate::delivery::config::Server;
use crate::delivery::lmtp::{Answer, JUNK_MARK, Visit};
use crate::queue::entry::{Addressee, Entry, Final, OpenAttempt, Place, State, Waiting};
use crate::queue::schedule::{self, Ended};
use crate::queue::{Errand, QueueId, StoreError};

/// An attempt that was begun: the entry says so, durably.
struct Begun {
    id: AttemptId,
    trace: TraceId,
    envelope: Envelope,
    octets: u64,
    eight_bit: bool,
    sha256: [u8; 32],
    /// An earlier attempt for one of these recipients is in doubt.
    in_doubt: bool,
    /// It belongs in the Junk of all of them.
    is_junk: bool,
}

/// Begins an attempt for what is due to this server. `None`: nothing is (any more), or the disk refuses.
async fn begin(context: &Context, id: QueueId, server: Option<Server>) -> Option<Begun> {
    let keepers = context.servers.keepers();
    let attempt = AttemptId(random::bytes());
    // What was put off because of a trouble that is over need not wait for its time.
    let overcome = server.as_ref().and_then(|server| context.servers.overcome(server));
    let is_hurried = move |addressee: &Addressee| match (&addressee.state, overcome) {
        (State::Waiting(Waiting { last: Some(last), .. }), Some((since, until))) => {
            (since..=until).contains(&last.at_unix_ms)
        }
        _ => false,
    };
    let begun = context
        .blocking(move |entries| {
            let now = entries.now_unix_ms();
            let begun = entries.update(id, |entry: &mut Entry| {
                let is_kept_there = |place: &usize| {
                    let mailbox = entry.recipients[*place].recipient.address.lookup_key();
                    keepers.of(&mailbox) == server.as_ref()
                };
                let mut recipients: Vec<usize> =
                    schedule::ready_or(entry, now, is_hurried).into_iter().filter(is_kept_there).take(RECIPIENTS_MAX).collect();
                // The inbox and Junk each have a turn of their own.
                let is_junk = entry.recipients[*recipients.first()?].is_junk;
                recipients.retain(|place| entry.recipients[*place].is_junk == is_junk);
                let is_doubtful = |place: &usize| {
                    matches!(&entry.recipients[*place].state, State::Waiting(waiting) if waiting.in_doubt)
                };
                let begun = Begun {
                    id: attempt,
                    trace: entry.trace,
                    envelope: entry.envelope(&recipients),
                    octets: entry.octets,
                    eight_bit: entry.eight_bit,
                    sha256: entry.sha256,
                    in_doubt: recipients.iter().any(is_doubtful),
                    is_junk,
                };
                entry.attempts.push(OpenAttempt {
                    id: attempt,
                    place: Place::Home,
                    since_unix_ms: now,
                    recipients,
                    lost_unix_ms: None,
                    ask_unix_ms: None,
                });
                Some(begun)
            })?;
            if begun.as_ref().is_some_and(Option::is_none) {
                entries.file_later(id);
            }
            Ok::<_, StoreError>(begun)
        })
        .await;
    match begun {
        Ok(begun) => begun.flatten(),
        Err(error) => {
            tracing::error!(queue = %id, %error, "an attempt can't begin: the queue can't write");
            context.entries.clock().sleep(WRITE_AGAIN).await;
            context.entries.file_again(id);
            None
        }
    }
}

/// Offers what is due to this server.
pub async fn attempt(context: &Context, id: QueueId, server: &Server) {
    let visit = match context.servers.trouble(server) {
        Some(why) => Err(why),
        None => context.servers.visit(server).await,
    };
    let visit = match visit {
        Ok(visit) => visit,
        Err(why) => return put_off(context, id, server, why).await,
    };
    let Some(begun) = begin(context, id, Some(server.clone())).await else { return };
    if begun.in_doubt {
        tracing::warn!(trace = %begun.trace, queue = %id, remote = %server, "tried again, may deliver twice: nobody knows what became of the last try");
    }
    let (attempt, trace) = (begun.id, begun.trace);
    match offer(context, id, begun, visit).await {
        Ok((answers, remote)) => {
            let outcomes: Vec<Outcome> = answers.iter().map(|answer| answer.outcome.clone()).collect();
            attempt::log(context, id, attempt, &outcomes, Some(&remote), attempt::Facts::default());
            let rules = context.entries.rules();
            context.record(id, move |entry, now| rules.schedule.answered(entry, attempt, &answers, &remote, now)).await;
        }
        Err(unfit) => attempt::unfit(context, id, attempt, trace, unfit).await,
    }
}

/// An error is what is wrong with the message on our disk; the server then never saw its end.
async fn offer(context: &Context, id: QueueId, begun: Begun, mut visit: Visit) -> Result<(Vec<Answer>, String), Unfit> {
    let mut reader = Reader::open(context, id, begun.octets, begun.sha256).await?;
    let mark = if begun.is_junk { JUNK_MARK } else { "" };
    if visit.start(&begun.envelope, begun.octets + mark.len() as u64, begun.eight_bit).await {
        visit.body(Bytes::from_static(mark.as_bytes())).await;
        while let Some(piece) = reader.next().await? {
            visit.body(piece).await;
        }
        reader.seal()?;
    }
    let remote = visit.remote();
    Ok((visit.finish().await, remote))
}

/// The server is away: looked at again when it may be back, or given up past its time.
async fn put_off(context: &Context, id: QueueId, server: &Server, why: Reply) {
    let rules = context.entries.rules();
    let pause = i64::try_from(context.servers.pause(server).as_millis()).unwrap_or(i64::MAX);
    let spread = i64::from(u16::from_be_bytes(random::bytes())) * pause / i64::from(u16::MAX) / 4;
    let late = move |entry: &Entry, now: i64| now >= rules.schedule.expires_unix_ms(entry);
    let rules = context.entries.rules();
    let given_up = context
        .blocking(move |entries| {
            let now = entries.now_unix_ms();
            if entries.entry(id).is_some_and(|entry| late(&entry, now)) {
                return true;
            }
            entries.touch(id, |entry| {
                for place in schedule::ready(entry, now) {
                    if let State::Waiting(waiting) = &mut entry.recipients[place].state {
                        waiting.next_unix_ms = now.saturating_add(pause).saturating_add(spread);
                        waiting.last = Some(Final { reply: why.clone(), remote: None, at_unix_ms: now });
                    }
                }
            });
            false
        })
        .await;
    if given_up {
        let why = Reply::local_error();
        context.record(id, move |entry, now| rules.schedule.expire_untried(entry, |_, _| None, &why, now)).await;
    }
}

/// The mailboxes are Maildirs of ours by now: the message goes there.
pub async fn reclaim(context: &Context, id: QueueId) {
    let Some(begun) = begin(context, id, None).await else { return };
    let Some(entry) = context.blocking(move |entries| entries.entry(id)).await else { return };
    // The same for the same recipients, so that a repeat after a stop is known as one.
    let mut name = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    name.update(&id.0);
    for recipient in &begun.envelope.recipients {
        name.update(recipient.address.to_string().as_bytes());
        name.update(b"\n");
    }
    let mut transfer = TransferId([0; 16]);
    transfer.0.copy_from_slice(&name.finish().as_ref()[..16]);
    let recipients = begun.envelope.recipients.len();
    let errand = Errand::Reclaimed { is_junk: begun.is_junk };
    let reply = notice::send_whole(context, &entry, errand, transfer, begun.envelope, String::new()).await;
    let outcome = match reply.class() {
        Class::Done => Outcome::Accepted(reply),
        _ => Outcome::Deferred(reply),
    };
    let ended = Ended { outcomes: vec![outcome; recipients], ..Ended::default() };
    attempt::end(context, id, begun.id, ended, Facts::default()).await;
}
