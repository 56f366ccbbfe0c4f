//! The only reader of time. Given at construction; tests turn their own. Three times: [`Clock::now`] for deadlines,
//! [`Clock::unix`] for dates that people and others see, [`Clock::steady_ms`] for the ages of what is kept: a date
//! that is corrected makes nothing older or younger.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use tokio::sync::watch;

/// Where time comes from. Cheap to clone, and no larger than a pointer: every task holds some.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    // None is the real one. A channel, so that whoever sleeps by a still clock is woken when it is turned.
    turned: Option<Arc<watch::Sender<Turned>>>,
    // How far the steady time is ahead of what has passed, in milliseconds.
    anchor_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Turned {
    instant: Instant,
    unix: Duration,
    passed: Duration,
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
        let turned = Turned { instant, unix, passed: Duration::ZERO };
        Self(Some(Arc::new(Inner { turned: Some(Arc::new(watch::Sender::new(turned))), anchor_ms: None })))
    }

    /// Turns a still clock on; does nothing to the real one.
    pub fn turn(&self, by: Duration) {
        if let Some(turned) = self.sender() {
            turned.send_modify(|turned| {
                turned.instant += by;
                turned.unix += by;
                turned.passed += by;
            });
        }
    }

    /// Sets what a still clock says of the date, as somebody who corrects it would: no time passes. Does nothing
    /// to the real one.
    pub fn jump(&self, unix: Duration) {
        if let Some(turned) = self.sender() {
            turned.send_modify(|turned| turned.unix = unix);
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

    /// Now, in milliseconds since 1970.
    pub fn unix_ms(&self) -> i64 {
        milliseconds(self.unix())
    }

    /// The same clock, whose steady time is `steady_ms` now and goes on from there.
    #[must_use]
    pub fn anchored(&self, steady_ms: i64) -> Self {
        let anchor_ms = Some(steady_ms.saturating_sub(milliseconds(self.passed())));
        Self(Some(Arc::new(Inner { turned: self.sender().cloned(), anchor_ms })))
    }

    /// Now, in milliseconds, by a count that began as the date and that no correction of the date touches. It counts
    /// while the machine sleeps. What is kept has its age from it. Without an anchor it is the date.
    pub fn steady_ms(&self) -> i64 {
        let anchor_ms = self.0.as_ref().and_then(|inner| inner.anchor_ms);
        anchor_ms.map_or_else(|| self.unix_ms(), |ahead| ahead.saturating_add(milliseconds(self.passed())))
    }

    /// The same in whole seconds.
    pub fn steady_s(&self) -> i64 {
        self.steady_ms().div_euclid(1000)
    }

    /// How far the date is ahead of the steady time, in milliseconds: what makes a moment of that one a date.
    pub fn date_ahead_ms(&self) -> i64 {
        self.unix_ms().saturating_sub(self.steady_ms())
    }

    /// The date in seconds since 1970, or the steady time where the date is behind it: a machine without a clock of
    /// its own begins in the past, and what others judge by its date should not.
    pub fn latest_s(&self) -> i64 {
        self.unix_s().max(self.steady_s())
    }

    /// Since some moment that stays the same, whatever is done to the date.
    fn passed(&self) -> Duration {
        if let Some(turned) = self.turned() {
            return turned.passed;
        }
        let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(since.tv_sec).unwrap_or(0), u32::try_from(since.tv_nsec).unwrap_or(0))
    }

    /// Resolves when this clock shows `until` or later.
    pub async fn sleep_until(&self, until: Instant) {
        match self.sender() {
            None => tokio::time::sleep_until(until.into()).await,
            Some(turned) => {
                // We hold a sender, so the channel never closes.
                let _ = turned.subscribe().wait_for(|turned| turned.instant >= until).await;
            }
        }
    }

    /// Resolves after `span` of this clock's time, counted from this call.
    pub fn sleep(&self, span: Duration) -> impl Future<Output = ()> + '_ {
        self.sleep_until(self.now() + span)
    }

    /// What `future` gives, or `None` if it takes longer than `span` of this clock's time.
    pub async fn timeout<F: Future>(&self, span: Duration, future: F) -> Option<F::Output> {
        let limit = self.sleep(span);
        tokio::select! {
            biased;
            output = future => Some(output),
            () = limit => None,
        }
    }

    fn turned(&self) -> Option<Turned> {
        self.sender().map(|turned| *turned.borrow())
    }

    fn sender(&self) -> Option<&Arc<watch::Sender<Turned>>> {
        self.0.as_ref()?.turned.as_ref()
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
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

    #[test]
    fn the_steady_time_goes_on_whatever_the_date_does() {
        let clock = Clock::still(Duration::from_secs(1000)).anchored(5_000_000);
        clock.turn(Duration::from_secs(5));
        assert_eq!((clock.steady_s(), clock.unix_s(), clock.latest_s()), (5005, 1005, 5005));
        clock.jump(Duration::from_mins(150));
        assert_eq!((clock.steady_s(), clock.unix_s(), clock.latest_s()), (5005, 9000, 9000));
        assert_eq!(clock.steady_ms() + clock.date_ahead_ms(), clock.unix_ms());
        assert_eq!(Clock::still(Duration::from_secs(7)).steady_ms(), 7000, "without an anchor it is the date");
        let real = Clock::real().anchored(0);
        assert!((0..60_000).contains(&real.steady_ms()), "{}", real.steady_ms());
    }

    #[tokio::test]
    async fn who_sleeps_by_a_still_clock_is_woken_by_turning_it() {
        let clock = Clock::still(Duration::ZERO);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_hours(1)).await;
                clock.unix_s()
            }
        });
        // It falls asleep before the clock is turned.
        tokio::task::yield_now().await;
        clock.turn(Duration::from_secs(3599));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.turn(Duration::from_secs(1));
        assert_eq!(sleeper.await.expect("no panic"), 3600);
        assert_eq!(clock.timeout(Duration::from_secs(1), async { 7 }).await, Some(7));
        let turning = async {
            clock.turn(Duration::from_secs(1));
            std::future::pending::<()>().await;
        };
        assert_eq!(clock.timeout(Duration::from_secs(1), turning).await, None);
    }
}
