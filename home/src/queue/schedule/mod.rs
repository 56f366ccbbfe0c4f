//! What follows from what: outcomes and *now* in; next attempts, expiry and inquiries out. Pure: a
//! five-day life passes in microseconds.

use std::time::Duration;

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::verb::relay::AttemptId;

use super::config::Settings;
use super::entry::{About, Addressee, Entry, Final, OpenAttempt, State, Waiting};
use super::store::Outline;
use crate::delivery::lmtp::Answer;

/// Longest pause between two questions about an attempt that is still under way.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How long a bounce waits for other recipients to come to their end.
const GATHERING: Duration = Duration::from_mins(1);
/// Longest pause between two tries at a server of mailboxes: it is ours, and mended soon.
const LOCAL_AGAIN_MAX: Duration = Duration::from_mins(10);
/// No more of an entry's life than this, or a tenth of it, is spent waiting for a last attempt to become possible.
const GRACE_MAX: Duration = Duration::from_hours(1);
/// Longest pause between two hand-overs of a bounce.
const BOUNCE_AGAIN_MAX: Duration = Duration::from_mins(15);

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// One for each recipient, in the attempt's order.
    pub outcomes: Vec<Outcome>,
    /// The host that answered, if one did.
    pub remote: Option<String>,
    /// It offers DSN (RFC 3461): what becomes of the message from here on is its to report.
    pub reports_itself: bool,
}

/// The times that rule an entry's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Waits between attempts; the last one repeats.
    pub retry: Vec<Duration>,
    /// Given up after this long.
    pub expire: Duration,
    /// How long an attempt in doubt is left alone.
    pub in_doubt: Duration,
    /// The sender is warned after this long; `None`: never.
    pub warn: Option<Duration>,
}

impl From<&Settings> for Schedule {
    fn from(settings: &Settings) -> Self {
        Self {
            retry: settings.retry.clone(),
            expire: settings.expire,
            in_doubt: settings.in_doubt,
            warn: settings.warn,
        }
    }
}

/// When a recipient is to be tried next. A time that has passed means now.
pub fn try_unix_ms(entry: &Entry) -> Option<i64> {
    if is_at_rest(entry) {
        return None;
    }
    let next = |(place, addressee): (usize, &Addressee)| match &addressee.state {
        State::Waiting(waiting) if !entry.is_being_tried(place) => Some(waiting.next_unix_ms),
        _ => None,
    };
    entry.recipients.iter().enumerate().filter_map(next).min()
}

/// When a question is to be asked, or a report handed over that no setting delays.
pub fn pending_unix_ms(entry: &Entry) -> Option<i64> {
    if is_at_rest(entry) {
        return None;
    }
    let questions = entry.attempts.iter().filter_map(|attempt| attempt.ask_unix_ms);
    let reports = [About::Failure, About::Relay].into_iter().filter_map(|about| report_unix_ms(entry, about));
    let open = entry.bounce.as_ref().map(|bounce| bounce.next_unix_ms);
    match open {
        // One report at a time.
        Some(_) => questions.chain(open).min(),
        None => questions.chain(reports).min(),
    }
}

/// When a report of this kind is to be begun. It waits a moment for recipients that are being tried or never
/// were, so that one report tells of all that end in the first round.
fn report_unix_ms(entry: &Entry, about: About) -> Option<i64> {
    let ended = |place: usize| match &entry.recipients[place].state {
        State::Failed { last, .. } | State::Delivered { last, .. } => Some(last.at_unix_ms),
        State::Waiting(_) => None,
    };
    let latest = entry.untold(about).into_iter().filter_map(ended).max()?;
    let untried = |addressee: &Addressee| matches!(&addressee.state, State::Waiting(waiting) if waiting.attempts == 0);
    let is_first_round = !entry.attempts.is_empty() || entry.recipients.iter().any(untried);
    Some(if is_first_round { latest.saturating_add(milliseconds(GATHERING)) } else { latest })
}

/// Recipients that wait, and whose sender is to be warned of that once it takes long (RFC 3461 §4.1).
pub fn unwarned(entry: &Entry) -> Vec<usize> {
    let is_unwarned = |addressee: &Addressee| match &addressee.state {
        State::Waiting(waiting) => !waiting.warned && addressee.recipient.notify.on_delay(),
        State::Delivered { .. } | State::Failed { .. } => false,
    };
    // Who sent it without a login is nobody proven: it is told of failures alone.
    if entry.reverse_path == ReversePath::Null || entry.login.is_none() {
        return Vec::new();
    }
    (0..entry.recipients.len()).filter(|place| is_unwarned(&entry.recipients[*place])).collect()
}

fn is_at_rest(entry: &Entry) -> bool {
    entry.held.is_some() || entry.finished_unix_ms.is_some()
}

/// The recipients to be tried now, as places in the entry's list.
pub fn ready(entry: &Entry, now_unix_ms: i64) -> Vec<usize> {
    ready_or(entry, now_unix_ms, |_| false)
}

/// The same, and those that are to be tried before their time.
pub fn ready_or(entry: &Entry, now_unix_ms: i64, is_hurried: impl Fn(&Addressee) -> bool) -> Vec<usize> {
    if is_at_rest(entry) {
        return Vec::new();
    }
    let is_ready = |place: &usize| match &entry.recipients[*place] {
        addressee @ Addressee { state: State::Waiting(waiting), .. } => {
            (waiting.next_unix_ms <= now_unix_ms || is_hurried(addressee)) && !entry.is_being_tried(*place)
        }
        Addressee { state: State::Delivered { .. } | State::Failed { .. }, .. } => false,
    };
    (0..entry.recipients.len()).filter(is_ready).collect()
}

impl Schedule {
    /// When to look at an entry for another reason than to try it: a question, a report, its expiry.
    pub fn look_unix_ms(&self, entry: &Entry) -> Option<i64> {
        if is_at_rest(entry) {
            return None;
        }
        let warned = if unwarned(entry).is_empty() { None } else { self.warns_unix_ms(entry.queued_unix_ms) };
        let expires = Some(self.overdue_unix_ms(entry.queued_unix_ms)).filter(|_| entry.waiting().next().is_some());
        pending_unix_ms(entry).into_iter().chain(warned).chain(expires).min()
    }

    /// The same, of an entry of which only this is known.
    pub fn look_of_outline(&self, outline: &Outline) -> i64 {
        let warned = if outline.unwarned { self.warns_unix_ms(outline.queued_unix_ms) } else { None };
        let expires = self.overdue_unix_ms(outline.queued_unix_ms);
        outline.look_unix_ms.into_iter().chain(warned).fold(expires, i64::min)
    }

    fn warns_unix_ms(&self, queued_unix_ms: i64) -> Option<i64> {
        self.warn.map(|warn| queued_unix_ms.saturating_add(milliseconds(warn)))
    }

    /// Which report is to be begun now, if any, and on whom.
    pub fn report(&self, entry: &Entry, now_unix_ms: i64) -> Option<(About, Vec<usize>)> {
        if is_at_rest(entry) || entry.bounce.is_some() {
            return None;
        }
        for about in [About::Failure, About::Relay] {
            if report_unix_ms(entry, about).is_some_and(|at| at <= now_unix_ms) {
                // What a server of mailboxes here has taken is delivered.
                let told = if about == About::Relay && entry.local { About::Delivery } else { about };
                return Some((told, entry.untold(about)));
            }
        }
        let late = self.warns_unix_ms(entry.queued_unix_ms).is_some_and(|at| at <= now_unix_ms);
        // Who is given up next is told that instead.
        let late = late && now_unix_ms < self.expires_unix_ms(entry);
        let unwarned = if late { unwarned(entry) } else { Vec::new() };
        (!unwarned.is_empty()).then_some((About::Delay, unwarned))
    }

    /// From when on an entry is given up although nothing could be tried: no edge, or a destination left alone.
    pub fn overdue_unix_ms(&self, queued_unix_ms: i64) -> i64 {
        queued_unix_ms.saturating_add(milliseconds(self.expire)).saturating_add(milliseconds(self.grace()))
    }

    /// The longest pause between two tries of anything.
    pub fn pause_max(&self) -> Duration {
        let longest = self.retry.iter().copied().max().unwrap_or(self.expire).max(BOUNCE_AGAIN_MAX);
        // A tenth more or less, as jitter says.
        longest + longest / 10
    }

    /// How long an entry past its time still waits for an attempt to become possible.
    pub fn grace(&self) -> Duration {
        GRACE_MAX.min(self.expire / 10)
    }

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
    pub fn ended(&self, entry: &mut Entry, id: AttemptId, ending: &Ended, now_unix_ms: i64, jitter: u16) {
        let Some(attempt) = take(entry, id) else { return };
        for (nth, place) in attempt.recipients.iter().enumerate() {
            let missing =
                Outcome::Deferred(Reply::protocol_error("The attempt ended without a word on this recipient"));
            let outcome = ending.outcomes.get(nth).cloned().unwrap_or(missing);
            self.decide(entry, *place, outcome, ending, now_unix_ms, jitter);
        }
    }

    /// What the server of mailboxes said when they were offered to it in session, in the order of the recipients.
    pub fn begun_elsewhere(&self, entry: &mut Entry, answers: &[Answer], now_unix_ms: i64, jitter: u16) {
        for (place, answer) in answers.iter().enumerate() {
            Self::doubts(entry, place, answer);
            self.decide(entry, place, answer.outcome.clone(), &Ended::default(), now_unix_ms, jitter);
        }
    }

    /// An attempt at the server of mailboxes ended: its recipients have these answers, in its order.
    pub fn answered(&self, entry: &mut Entry, id: AttemptId, answers: &[Answer], remote: &str, now_unix_ms: i64) {
        let Some(places) = attempt(entry, id).map(|attempt| attempt.recipients.clone()) else { return };
        for (place, answer) in places.into_iter().zip(answers) {
            Self::doubts(entry, place, answer);
        }
        let outcomes: Vec<Outcome> = answers.iter().map(|answer| answer.outcome.clone()).collect();
        let ending = Ended { outcomes, remote: Some(remote.to_owned()), ..Ended::default() };
        self.ended(entry, id, &ending, now_unix_ms, 0);
    }

    fn doubts(entry: &mut Entry, place: usize, answer: &Answer) {
        if let Some(State::Waiting(waiting)) = entry.recipients.get_mut(place).map(|a| &mut a.state) {
            waiting.in_doubt |= answer.in_doubt;
        }
    }

    /// An attempt came to nothing for sure (the final dot was never sent): like a deferral by ourselves.
    pub fn came_to_nothing(&self, entry: &mut Entry, id: AttemptId, why: Reply, now_unix_ms: i64, jitter: u16) {
        let recipients = entry.attempts.iter().find(|attempt| attempt.id == id).map_or(0, |a| a.recipients.len());
        let ending = Ended { outcomes: vec![Outcome::Deferred(why); recipients], ..Ended::default() };
        self.ended(entry, id, &ending, now_unix_ms, jitter);
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
            self.decide(entry, place, Outcome::Deferred(why), &Ended::default(), now_unix_ms, jitter);
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

    /// Gives up every recipient that is past its time and not being tried, without another attempt (none could be
    /// made): with what was said last to it or, by `heard`, to others there; or `why` if nothing was.
    pub fn expire_untried(
        &self,
        entry: &mut Entry,
        heard: impl Fn(&Entry, usize) -> Option<Final>,
        why: &Reply,
        now_unix_ms: i64,
    ) {
        if is_at_rest(entry) || now_unix_ms < self.expires_unix_ms(entry) {
            return;
        }
        for place in 0..entry.recipients.len() {
            let State::Waiting(waiting) = &entry.recipients[place].state else { continue };
            if entry.is_being_tried(place) {
                continue;
            }
            let last = waiting.last.clone().or_else(|| heard(entry, place));
            let (why, remote) = last.map_or((why.clone(), None), |last| (last.reply, last.remote));
            let ending = Ended { remote, ..Ended::default() };
            self.decide(entry, place, Outcome::Deferred(why), &ending, now_unix_ms, 0);
        }
    }

    /// When to hand a bounce over again after `attempts` failures.
    pub fn bounce_again_unix_ms(&self, attempts: u32, now_unix_ms: i64) -> i64 {
        let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.retry.get(place).or(self.retry.last()).copied().unwrap_or(BOUNCE_AGAIN_MAX);
        now_unix_ms.saturating_add(milliseconds(wait.min(BOUNCE_AGAIN_MAX)).max(1))
    }

    fn decide(&self, entry: &mut Entry, place: usize, outcome: Outcome, ending: &Ended, now_unix_ms: i64, jitter: u16) {
        let Some(addressee) = entry.recipients.get(place) else { return };
        let State::Waiting(waiting) = &addressee.state else { return };
        let attempts = waiting.attempts.saturating_add(1);
        let last = |reply| Final { reply, remote: ending.remote.clone(), at_unix_ms: now_unix_ms };
        // RFC 3461 §4.1 and RFC 5321 §4.5.5: who asked for silence, or is nobody, is told nothing.
        let is_nobody = entry.reverse_path == ReversePath::Null;
        let silent = !addressee.recipient.notify.on_failure() || is_nobody;
        let told = silent && !entry.strands();
        let outcome = match outcome {
            // It was promised, and a full mailbox is full for now.
            Outcome::Refused(reply) if entry.strands() && reply.is_full_mailbox() => Outcome::Deferred(reply),
            outcome => outcome,
        };
        let state = match outcome {
            // RFC 3461 §5.2.2: a host that offers DSN was given the wish, and fulfils it.
            Outcome::Accepted(reply) => State::Delivered {
                last: last(reply),
                told: !addressee.recipient.notify.on_success() || is_nobody || ending.reports_itself || entry.strands(),
            },
            Outcome::Refused(reply) => State::Failed { last: last(reply), told },
            Outcome::Deferred(reply) => match self.next_unix_ms(entry, attempts, now_unix_ms, jitter) {
                Some(next_unix_ms) => State::Waiting(Waiting {
                    attempts,
                    next_unix_ms,
                    last: Some(last(reply)),
                    in_doubt: waiting.in_doubt,
                    warned: waiting.warned,
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
pub(super) mod tests;
