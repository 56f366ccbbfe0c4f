//! What follows from what: outcomes and *now* in; next attempts, expiry and inquiries out. Pure: a
//! five-day life passes in microseconds.

use std::time::Duration;

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::verb::relay::AttemptId;

use super::config::Settings;
use super::entry::{Addressee, Entry, Final, OpenAttempt, State, Waiting};
use crate::delivery::lmtp::Answer;

/// Longest pause between two questions about an attempt that is still under way.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How long a bounce waits for other recipients to come to their end.
const GATHERING: Duration = Duration::from_mins(1);
/// Longest pause between two tries at a server of mailboxes: it is ours, and mended soon.
const LOCAL_AGAIN_MAX: Duration = Duration::from_mins(10);
/// Longest pause between two hand-overs of a bounce.
const BOUNCE_AGAIN_MAX: Duration = Duration::from_mins(15);

/// The times that rule an entry's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Waits between attempts; the last one repeats.
    pub retry: Vec<Duration>,
    /// Given up after this long.
    pub expire: Duration,
    /// How long an attempt in doubt is left alone.
    pub in_doubt: Duration,
}

impl From<&Settings> for Schedule {
    fn from(settings: &Settings) -> Self {
        Self { retry: settings.retry.clone(), expire: settings.expire, in_doubt: settings.in_doubt }
    }
}

/// When something is to be done for this entry: `None` until something else happens to it. A time
/// that has passed means now.
pub fn due(entry: &Entry) -> Option<i64> {
    if entry.held.is_some() || entry.finished_unix_ms.is_some() {
        return None;
    }
    let tries = entry.recipients.iter().enumerate().filter_map(|(place, addressee)| match &addressee.state {
        State::Waiting(waiting) if !entry.is_being_tried(place) => Some(waiting.next_unix_ms),
        _ => None,
    });
    let questions = entry.attempts.iter().filter_map(|attempt| attempt.ask_unix_ms);
    tries.chain(questions).chain(bounce_due(entry)).min()
}

/// When a bounce is to be handed over. A new one waits a moment for recipients that are being tried or
/// never were, so that one report tells of all that fail in the first round.
pub fn bounce_due(entry: &Entry) -> Option<i64> {
    if let Some(bounce) = &entry.bounce {
        return Some(bounce.next_unix_ms);
    }
    let failed = |addressee: &Addressee| match &addressee.state {
        State::Failed { last, told: false } => Some(last.at_unix_ms),
        State::Failed { .. } | State::Waiting(_) | State::Delivered(_) => None,
    };
    let latest = entry.recipients.iter().filter_map(failed).max()?;
    let untried = |addressee: &Addressee| matches!(&addressee.state, State::Waiting(waiting) if waiting.attempts == 0);
    let is_first_round = !entry.attempts.is_empty() || entry.recipients.iter().any(untried);
    Some(if is_first_round { latest.saturating_add(milliseconds(GATHERING)) } else { latest })
}

/// The recipients to be tried now, as places in the entry's list.
pub fn ready(entry: &Entry, now_unix_ms: i64) -> Vec<usize> {
    if entry.held.is_some() || entry.finished_unix_ms.is_some() {
        return Vec::new();
    }
    let is_ready = |place: &usize| match &entry.recipients[*place].state {
        State::Waiting(waiting) => waiting.next_unix_ms <= now_unix_ms && !entry.is_being_tried(*place),
        State::Delivered(_) | State::Failed { .. } => false,
    };
    (0..entry.recipients.len()).filter(is_ready).collect()
}

impl Schedule {
    /// When an entry is given up.
    pub fn expires_unix_ms(&self, entry: &Entry) -> i64 {
        entry.queued_unix_ms.saturating_add(milliseconds(self.expire))
    }

    /// When to try again after the `attempts`th attempt, a tenth earlier or later as `jitter` says, but
    /// a last time when the entry expires. `None`: it has.
    pub fn next_unix_ms(&self, entry: &Entry, attempts: u32, now_unix_ms: i64, jitter: u16) -> Option<i64> {
        let expires = self.expires_unix_ms(entry);
        if now_unix_ms >= expires {
            return None;
        }
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.retry.get(place).or(self.retry.last()).copied().unwrap_or(self.expire);
        let wait = milliseconds(if entry.local { wait.min(LOCAL_AGAIN_MAX) } else { wait });
        let spread = wait / 5;
        let wait = wait - spread / 2 + spread.saturating_mul(i64::from(jitter)) / i64::from(u16::MAX);
        Some(now_unix_ms.saturating_add(wait.max(1)).min(expires))
    }

    /// An attempt ended: its recipients have these outcomes, in its order. An edge that names fewer
    /// outcomes than recipients leaves the others to be tried again.
    pub fn ended(
        &self,
        entry: &mut Entry,
        id: AttemptId,
        outcomes: &[Outcome],
        remote: Option<&str>,
        now_unix_ms: i64,
        jitter: u16,
    ) {
        let Some(attempt) = take(entry, id) else { return };
        for (nth, place) in attempt.recipients.iter().enumerate() {
            let missing =
                Outcome::Deferred(Reply::protocol_error("The attempt ended without a word on this recipient"));
            let outcome = outcomes.get(nth).cloned().unwrap_or(missing);
            self.decide(entry, *place, outcome, remote, now_unix_ms, jitter);
        }
    }

    /// What the server of mailboxes said when they were offered to it in session, in the order of the recipients.
    pub fn begun_elsewhere(&self, entry: &mut Entry, answers: &[Answer], now_unix_ms: i64, jitter: u16) {
        for (place, answer) in answers.iter().enumerate() {
            Self::doubts(entry, place, answer);
            self.decide(entry, place, answer.outcome.clone(), None, now_unix_ms, jitter);
        }
    }

    /// An attempt at the server of mailboxes ended: its recipients have these answers, in its order.
    pub fn answered(&self, entry: &mut Entry, id: AttemptId, answers: &[Answer], remote: &str, now_unix_ms: i64) {
        let Some(places) = attempt(entry, id).map(|attempt| attempt.recipients.clone()) else { return };
        for (place, answer) in places.into_iter().zip(answers) {
            Self::doubts(entry, place, answer);
        }
        let outcomes: Vec<Outcome> = answers.iter().map(|answer| answer.outcome.clone()).collect();
        self.ended(entry, id, &outcomes, Some(remote), now_unix_ms, 0);
    }

    fn doubts(entry: &mut Entry, place: usize, answer: &Answer) {
        if let Some(State::Waiting(waiting)) = entry.recipients.get_mut(place).map(|a| &mut a.state) {
            waiting.in_doubt |= answer.in_doubt;
        }
    }

    /// An attempt came to nothing for sure (the final dot was never sent): like a deferral by ourselves.
    pub fn came_to_nothing(&self, entry: &mut Entry, id: AttemptId, why: Reply, now_unix_ms: i64, jitter: u16) {
        let recipients = entry.attempts.iter().find(|attempt| attempt.id == id).map_or(0, |a| a.recipients.len());
        let outcomes = vec![Outcome::Deferred(why); recipients];
        self.ended(entry, id, &outcomes, None, now_unix_ms, jitter);
    }

    /// An attempt may have delivered and nobody will ever know (RFC 1047): it counts as a deferral, and
    /// what is tried after it is marked.
    pub fn stays_in_doubt(&self, entry: &mut Entry, id: AttemptId, now_unix_ms: i64, jitter: u16) {
        let Some(attempt) = take(entry, id) else { return };
        for place in attempt.recipients {
            if let Some(State::Waiting(waiting)) = entry.recipients.get_mut(place).map(|a| &mut a.state) {
                waiting.in_doubt = true;
            }
            let why = Reply::connection_lost("The attempt broke off; whether it delivered is not known");
            self.decide(entry, place, Outcome::Deferred(why), None, now_unix_ms, jitter);
        }
    }

    /// Nobody here follows an attempt any more; what became of it must be asked, from now on.
    pub fn lost(&self, entry: &mut Entry, id: AttemptId, now_unix_ms: i64) {
        if let Some(attempt) = attempt(entry, id) {
            attempt.lost_unix_ms.get_or_insert(now_unix_ms);
            attempt.ask_unix_ms = Some(now_unix_ms);
        }
    }

    /// The edge says that an attempt is still under way: ask again in a while.
    pub fn still_running(&self, entry: &mut Entry, id: AttemptId, now_unix_ms: i64) {
        let pause = milliseconds(ASK_AGAIN.min(self.in_doubt / 4)).max(1);
        if let Some(attempt) = attempt(entry, id) {
            attempt.ask_unix_ms = Some(now_unix_ms.saturating_add(pause));
        }
    }

    /// The moment from which an attempt in doubt, or one whose edge can't be asked, may be made again.
    pub fn doubt_ends_unix_ms(&self, attempt: &OpenAttempt) -> i64 {
        attempt.lost_unix_ms.unwrap_or(attempt.since_unix_ms).saturating_add(milliseconds(self.in_doubt))
    }

    /// An attempt is in doubt, or its edge can't be asked: made again if it was left alone long
    /// enough, else put off until then. True if it is made again.
    pub fn doubted(&self, entry: &mut Entry, id: AttemptId, now_unix_ms: i64) -> bool {
        let Some(attempt) = attempt(entry, id) else { return false };
        attempt.lost_unix_ms.get_or_insert(now_unix_ms);
        let ends = self.doubt_ends_unix_ms(attempt);
        if now_unix_ms < ends {
            attempt.ask_unix_ms = Some(ends);
            return false;
        }
        let recipients = attempt.recipients.clone();
        self.stays_in_doubt(entry, id, now_unix_ms, 0);
        // It was left alone for long enough.
        for place in recipients {
            if let Some(State::Waiting(waiting)) = entry.recipients.get_mut(place).map(|a| &mut a.state) {
                waiting.next_unix_ms = now_unix_ms;
            }
        }
        true
    }

    /// Gives up every recipient that is due and past its time, without another attempt (there is
    /// nobody to make one): with what was said last, or `why` if nothing was.
    pub fn expire_untried(&self, entry: &mut Entry, why: &Reply, now_unix_ms: i64) {
        if now_unix_ms < self.expires_unix_ms(entry) {
            return;
        }
        for place in ready(entry, now_unix_ms) {
            let last = match &entry.recipients[place].state {
                State::Waiting(waiting) => waiting.last.clone(),
                State::Delivered(last) | State::Failed { last, .. } => Some(last.clone()),
            };
            let (why, remote) = last.map_or((why.clone(), None), |last| (last.reply, last.remote));
            self.decide(entry, place, Outcome::Deferred(why), remote.as_deref(), now_unix_ms, 0);
        }
    }

    /// When to hand a bounce over again after `attempts` failures.
    pub fn bounce_again_unix_ms(&self, attempts: u32, now_unix_ms: i64) -> i64 {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.retry.get(place).or(self.retry.last()).copied().unwrap_or(BOUNCE_AGAIN_MAX);
        now_unix_ms.saturating_add(milliseconds(wait.min(BOUNCE_AGAIN_MAX)).max(1))
    }

    fn decide(
        &self,
        entry: &mut Entry,
        place: usize,
        outcome: Outcome,
        remote: Option<&str>,
        now_unix_ms: i64,
        jitter: u16,
    ) {
        let Some(addressee) = entry.recipients.get(place) else { return };
        let State::Waiting(waiting) = &addressee.state else { return };
        let attempts = waiting.attempts.saturating_add(1);
        let last = |reply| Final { reply, remote: remote.map(str::to_owned), at_unix_ms: now_unix_ms };
        // RFC 3461 §4.1 and RFC 5321 §4.5.5: who asked for silence, or is nobody, is told nothing.
        let silent = !addressee.recipient.notify.on_failure() || entry.reverse_path == ReversePath::Null;
        let told = silent && !entry.strands();
        let outcome = match outcome {
            // It was promised, and a full mailbox is full for now.
            Outcome::Refused(reply) if entry.strands() && reply.is_full_mailbox() => Outcome::Deferred(reply),
            outcome => outcome,
        };
        let state = match outcome {
            Outcome::Accepted(reply) => State::Delivered(last(reply)),
            Outcome::Refused(reply) => State::Failed { last: last(reply), told },
            Outcome::Deferred(reply) => match self.next_unix_ms(entry, attempts, now_unix_ms, jitter) {
                Some(next_unix_ms) => State::Waiting(Waiting {
                    attempts,
                    next_unix_ms,
                    last: Some(last(reply)),
                    in_doubt: waiting.in_doubt,
                }),
                None => State::Failed { last: last(self.expired(&reply)), told },
            },
        };
        entry.recipients[place].state = state;
    }

    /// Our verdict, with the remote's last words.
    fn expired(&self, reply: &Reply) -> Reply {
        let verdict = Reply::expired(&in_words(self.expire));
        let mut lines = verdict.lines().to_vec();
        lines.push(format!("Last answer: {reply}"));
        Reply::new(verdict.code(), verdict.enhanced(), lines)
    }
}

fn take(entry: &mut Entry, id: AttemptId) -> Option<OpenAttempt> {
    let at = entry.attempts.iter().position(|attempt| attempt.id == id)?;
    Some(entry.attempts.remove(at))
}

fn attempt(entry: &mut Entry, id: AttemptId) -> Option<&mut OpenAttempt> {
    entry.attempts.iter_mut().find(|attempt| attempt.id == id)
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// `5 days`, `4 hours`, `90 seconds`: the largest unit that fits whole.
fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        s if s >= 86_400 && s.is_multiple_of(86_400) => (s / 86_400, "day"),
        s if s >= 3600 && s.is_multiple_of(3600) => (s / 3600, "hour"),
        s if s >= 60 && s.is_multiple_of(60) => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
