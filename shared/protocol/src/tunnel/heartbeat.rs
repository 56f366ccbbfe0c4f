//! When to send a heartbeat, when to give a connection up. Every byte that arrives counts as life.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::hello::Refusal;

/// Time between our beats.
pub const INTERVAL: Duration = Duration::from_secs(20);
/// Silence after which a connection is dead.
pub const SILENCE_MAX: Duration = Duration::from_mins(1);

/// A beat, the answer to one, or the last word on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beat {
    /// Are you there? The number comes back.
    Ping(u64),
    /// I am.
    Pong(u64),
    /// I close this session, for this reason.
    Goodbye(Refusal),
}

/// The state of one connection's pulse. Pure: the driver says what time it is.
#[derive(Clone, Debug)]
pub struct Pulse {
    next_beat: Instant,
    heard: Instant,
    sent: Option<(u64, Instant)>,
    count: u64,
    round_trip: Option<Duration>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send this ping.
    Ping(u64),
    /// Give the connection up.
    Dead,
    /// Nothing before this moment.
    Wait(Instant),
}

impl Pulse {
    /// A connection that was just made: the first beat is due at once, so that the round trip is known.
    pub fn new(now: Instant) -> Self {
        Self { next_beat: now, heard: now, sent: None, count: 0, round_trip: None }
    }

    /// Bytes arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A pong arrived.
    pub fn pong(&mut self, now: Instant, number: u64) {
        self.heard = now;
        if let Some((sent, at)) = self.sent.take_if(|(sent, _)| *sent == number) {
            debug_assert_eq!(sent, number);
            self.round_trip = Some(now.saturating_duration_since(at));
        }
    }

    /// The last round trip measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What is due now.
    pub fn due(&mut self, now: Instant) -> Due {
        if now >= self.heard + SILENCE_MAX {
            return Due::Dead;
        }
        if now >= self.next_beat {
            self.count += 1;
            self.sent = Some((self.count, now));
            self.next_beat = now + INTERVAL;
            return Due::Ping(self.count);
        }
        Due::Wait(self.next_beat.min(self.heard + SILENCE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_every_interval_and_dies_of_silence() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do to count from")]
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.due(at(0)), Due::Ping(1));
        assert_eq!(pulse.due(at(0)), Due::Wait(at(20)));
        assert_eq!(pulse.due(at(20)), Due::Ping(2));
        pulse.pong(at(21), 2);
        assert_eq!(pulse.round_trip(), Some(Duration::from_secs(1)));
        assert_eq!(pulse.due(at(40)), Due::Ping(3));
        assert_eq!(pulse.due(at(60)), Due::Ping(4));
        assert_eq!(pulse.due(at(80)), Due::Ping(5));
        assert_eq!(pulse.due(at(80)), Due::Wait(at(81)));
        assert_eq!(pulse.due(at(81)), Due::Dead);
    }
}
