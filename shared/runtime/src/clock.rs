//! The only reader of time. Given at construction; tests turn their own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

/// Where time comes from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    // None is the real one.
    turned: Option<std::sync::Arc<std::sync::Mutex<Turned>>>,
}

#[derive(Clone, Copy, Debug)]
struct Turned {
    instant: Instant,
    unix: Duration,
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::turn`], for tests.
    pub fn still(unix: Duration) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
        let instant = Instant::now();
        Self { turned: Some(std::sync::Arc::new(std::sync::Mutex::new(Turned { instant, unix }))) }
    }

    /// Turns a still clock on; does nothing to the real one.
    pub fn turn(&self, by: Duration) {
        if let Some(turned) = &self.turned {
            let mut turned = turned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            turned.instant += by;
            turned.unix += by;
        }
    }

    /// Now, for deadlines.
    pub fn now(&self) -> Instant {
        match self.turned() {
            Some(turned) => turned.instant,
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
            None => Instant::now(),
        }
    }

    /// Now, since 1970. A clock before 1970 counts as 1970.
    pub fn unix(&self) -> Duration {
        match self.turned() {
            Some(turned) => turned.unix,
            #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Now, in whole seconds since 1970.
    pub fn unix_s(&self) -> i64 {
        i64::try_from(self.unix().as_secs()).unwrap_or(i64::MAX)
    }

    fn turned(&self) -> Option<Turned> {
        self.turned.as_ref().map(|turned| *turned.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// A moment as RFC 5322 §3.3 writes it, in UTC: `Fri, 20 Nov 2026 12:00:00 +0000`.
pub fn mail_date(unix_s: i64) -> String {
    let moment = jiff::Timestamp::from_second(unix_s).unwrap_or_default().to_zoned(TimeZone::UTC);
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// A moment for people and logs: `2026-11-20T12:00:00Z`.
pub fn rfc3339(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(mail_date(1_795_176_000), "Fri, 20 Nov 2026 12:00:00 +0000");
        assert_eq!(rfc3339(1_795_176_000), "2026-11-20T12:00:00Z");
    }

    #[test]
    fn a_still_clock_moves_only_when_turned() {
        let clock = Clock::still(Duration::from_secs(1000));
        let before = clock.now();
        clock.turn(Duration::from_secs(5));
        assert_eq!(clock.now() - before, Duration::from_secs(5));
        assert_eq!(clock.unix_s(), 1005);
    }
}
