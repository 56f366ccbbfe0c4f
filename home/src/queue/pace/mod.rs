//! How fast one destination is sent to. A receiver that says it is too much is sent half as much, and more again
//! step by step; one that can't be reached is left alone for a while, then tried by a single attempt, however
//! many messages wait for it. Times are milliseconds of any clock that is not set back. Pure: a day passes in
//! microseconds.

use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::{Enhanced, Reply};

/// Attempts at once to a destination nothing is known of yet; each success allows one more.
const CONCURRENCY_START: u32 = 5;
/// Failures to reach a destination, one after the other, before it is left alone.
const FAILURES_MAX: u32 = 2;
/// How long it is left alone at first; twice as long after each further failure.
const PAUSE_FIRST_MS: u64 = 5 * MINUTE_MS;
/// Longest it is left alone.
const PAUSE_MAX_MS: u64 = 60 * MINUTE_MS;
/// Fewest messages a minute to a destination that throttles.
const PER_MINUTE_MIN: u32 = 6;
/// Between two halvings, and between two steps up: what was under way answers as before meanwhile.
const STEP_MS: u64 = MINUTE_MS;
/// The part of a minute's messages that may go at once.
const BURST_PARTS: u32 = 6;

const MINUTE_MS: u64 = 60_000;

/// What the config allows any destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at once.
    pub concurrency_max: u32,
    /// Messages a minute.
    pub per_minute_max: u32,
}

/// What the end of an attempt says of its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It answers.
    Good,
    /// It answers that this is too much, or that we are not known well enough for it.
    Throttled,
    /// It can't be reached.
    Unreachable,
    /// Nothing: the attempt came to nothing on our side.
    Unknown,
}

/// When another attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Now,
    /// At this moment.
    At(u64),
    /// When one that is under way has ended.
    AfterAnother,
}

/// One destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    running: u32,
    concurrency: u32,
    // Messages a minute, while it throttles.
    throttled: Option<u32>,
    stepped_at_ms: u64,
    // What may go at once now, in messages, and when that was so.
    allowance: f64,
    counted_at_ms: u64,
    // Messages begun in this minute and in the one before.
    minute: u64,
    begun: [u32; 2],
    failures: u32,
    paused_until_ms: u64,
    proven: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            running: 0,
            concurrency: CONCURRENCY_START,
            throttled: None,
            stepped_at_ms: 0,
            allowance: f64::INFINITY,
            counted_at_ms: 0,
            minute: 0,
            begun: [0; 2],
            failures: 0,
            paused_until_ms: 0,
            proven: false,
        }
    }
}

impl Ending {
    /// What these outcomes say. `answered`: a host is named as who they are from.
    pub fn of(outcomes: &[Outcome], answered: bool) -> Self {
        let deferred = |outcome: &Outcome| match outcome {
            Outcome::Deferred(reply) => Some(reply.clone()),
            Outcome::Accepted(_) | Outcome::Refused(_) => None,
        };
        let replies: Vec<Reply> = outcomes.iter().filter_map(deferred).collect();
        if replies.len() < outcomes.len() {
            return Self::Good;
        }
        // 4.4.1 to 4.4.3: nobody there, the line broke, DNS fails. Mostly our own words; of a relay that says so of
        // its next hop it is as true.
        let is_far = |reply: &Reply| matches!(reply.enhanced(), Some(Enhanced(4, 4, 1..=3)));
        if replies.iter().any(is_far) {
            return Self::Unreachable;
        }
        match answered {
            true if replies.iter().any(is_throttling) => Self::Throttled,
            true => Self::Good,
            // TLS that is required and can't be had.
            false if replies.iter().any(|reply| reply.enhanced() == Some(Enhanced(4, 7, 5))) => Self::Unreachable,
            false => Self::Unknown,
        }
    }
}

fn is_throttling(reply: &Reply) -> bool {
    let says = reply.code() == 421 || matches!(reply.enhanced(), Some(Enhanced(4, 7, _)));
    let text = reply.text().to_ascii_lowercase();
    // Greylisting asks for patience with one message, not for fewer of them.
    says && !text.contains("greylist") && !text.contains("graylist")
}

impl Pace {
    /// When another attempt may begin.
    pub fn turn(&mut self, limits: Limits, now_ms: u64) -> Turn {
        if self.running >= self.concurrency_now(limits) {
            return Turn::AfterAnother;
        }
        if self.paused_until_ms > now_ms {
            return Turn::At(self.paused_until_ms);
        }
        let per_minute = self.per_minute(limits);
        self.count(per_minute, now_ms);
        if self.allowance >= 1.0 {
            return Turn::Now;
        }
        let wait = (1.0 - self.allowance) * 60_000.0 / f64::from(per_minute);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a minute, never below 0")]
        let wait = wait.ceil() as u64;
        Turn::At(now_ms.saturating_add(wait.max(1)))
    }

    /// An attempt begins.
    pub fn begins(&mut self, now_ms: u64) {
        self.running += 1;
        self.allowance -= 1.0;
        let minute = now_ms / MINUTE_MS;
        if minute != self.minute {
            let before = if minute == self.minute + 1 { self.begun[0] } else { 0 };
            self.begun = [0, before];
            self.minute = minute;
        }
        self.begun[0] = self.begun[0].saturating_add(1);
    }

    /// An attempt ended.
    pub fn ends(&mut self, ending: Ending, limits: Limits, now_ms: u64) {
        self.running = self.running.saturating_sub(1);
        match ending {
            Ending::Good => {
                self.proven = true;
                self.failures = 0;
                self.paused_until_ms = 0;
                self.step_up(limits, now_ms);
            }
            Ending::Throttled => {
                self.failures = 0;
                self.halve(limits, now_ms);
            }
            Ending::Unreachable => self.fail(now_ms),
            Ending::Unknown => {}
        }
    }

    /// Takes over attempts of another destination that turned out to be this one.
    pub fn takes_over(&mut self, running: u32) {
        self.running += running;
    }

    /// Gives attempts up to another destination.
    pub fn gives_up(&mut self, running: u32) {
        self.running = self.running.saturating_sub(running);
    }

    /// The owner says: now.
    pub fn lift(&mut self) {
        self.paused_until_ms = 0;
    }

    /// Until when it is left alone, if it is.
    pub fn paused_until_ms(&self, now_ms: u64) -> Option<u64> {
        (self.paused_until_ms > now_ms).then_some(self.paused_until_ms)
    }

    /// True once it has answered since it last could not be reached.
    pub fn is_proven(&self) -> bool {
        self.proven && self.failures == 0
    }

    /// True if it could not be reached the last time.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Messages a minute it is held to because it throttles, and attempts at once.
    pub fn throttled(&self) -> Option<(u32, u32)> {
        self.throttled.map(|per_minute| (per_minute, self.concurrency))
    }

    /// How many are under way.
    pub fn running(&self) -> u32 {
        self.running
    }

    fn concurrency_now(&self, limits: Limits) -> u32 {
        // One attempt finds out whether it is back.
        if self.failures >= FAILURES_MAX { 1 } else { self.concurrency.min(limits.concurrency_max).max(1) }
    }

    fn per_minute(&self, limits: Limits) -> u32 {
        self.throttled.unwrap_or(limits.per_minute_max).min(limits.per_minute_max).max(1)
    }

    fn count(&mut self, per_minute: u32, now_ms: u64) {
        let since = now_ms.saturating_sub(self.counted_at_ms);
        self.counted_at_ms = now_ms;
        let burst = f64::from((per_minute / BURST_PARTS).max(1));
        #[expect(clippy::cast_precision_loss, reason = "a span of milliseconds is far below 2^52")]
        let more = since as f64 * f64::from(per_minute) / 60_000.0;
        self.allowance = (self.allowance + more).min(burst);
    }

    fn halve(&mut self, limits: Limits, now_ms: u64) {
        // Attempts that began before the last halving say nothing new.
        if self.throttled.is_some() && now_ms < self.stepped_at_ms.saturating_add(STEP_MS) {
            return;
        }
        let lately = self.begun[0].max(self.begun[1]);
        let per_minute = self.per_minute(limits).min(lately.max(1));
        self.throttled = Some((per_minute / 2).max(PER_MINUTE_MIN));
        self.concurrency = (self.concurrency.min(limits.concurrency_max) / 2).max(1);
        self.stepped_at_ms = now_ms;
    }

    fn step_up(&mut self, limits: Limits, now_ms: u64) {
        let Some(per_minute) = self.throttled else {
            self.concurrency = (self.concurrency + 1).min(limits.concurrency_max.max(1));
            return;
        };
        if now_ms < self.stepped_at_ms.saturating_add(STEP_MS) {
            return;
        }
        self.stepped_at_ms = now_ms;
        self.concurrency = (self.concurrency + 1).min(limits.concurrency_max.max(1));
        let more = per_minute.saturating_add((per_minute / 4).max(1));
        self.throttled = (more < limits.per_minute_max).then_some(more);
    }

    fn fail(&mut self, now_ms: u64) {
        if self.paused_until_ms > now_ms {
            // Began together with the one that was the last straw.
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            let doublings = (self.failures - FAILURES_MAX).min(16);
            self.paused_until_ms = now_ms.saturating_add((PAUSE_FIRST_MS << doublings).min(PAUSE_MAX_MS));
            self.concurrency = CONCURRENCY_START;
        }
    }
}

#[cfg(test)]
mod tests;
