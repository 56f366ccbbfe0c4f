//! Keeps the steady time of a clock over restarts, in the state directory, so that what is kept there ages by time
//! that passed and not by what somebody made of the date: a small computer without a clock of its own wakes up in
//! 1970, or on the day it was switched off, and learns the date later.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tracing::error;

use crate::clock::Clock;
use crate::durable::{self, DurableError};
use crate::shutdown::Signal;

/// The file's name.
const FILE: &str = "steady-time";
/// Time for which the program did not run counts up to this much, each time: nothing tells a long rest from a wrong
/// date, and a message whose time is not over yet is worth more than one given up early.
pub const REST_MAX: Duration = Duration::from_hours(24);
/// How often it is written down. A crash takes no more off it than the date can give back.
const KEEP_EVERY: Duration = Duration::from_hours(1);

/// The clock, going on where the state directory's was when the program ended. Blocking.
#[must_use]
pub fn resume(state: &Path, clock: &Clock) -> Clock {
    let path = state.join(FILE);
    let unix_ms = clock.unix_ms();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                error!(path = %path.display(), %error, "the steady time can't be read; it goes on from today's date");
            }
            return clock.anchored(unix_ms);
        }
    };
    let Some((steady_ms, then_ms)) = parse(&text) else {
        error!(path = %path.display(), "the steady time can't be read; it goes on from today's date");
        return clock.anchored(unix_ms);
    };
    let rest_max = i64::try_from(REST_MAX.as_millis()).unwrap_or(i64::MAX);
    let rested = unix_ms.saturating_sub(then_ms).clamp(0, rest_max);
    clock.anchored(steady_ms.saturating_add(rested))
}

/// Writes the clock's steady time down. Blocking.
pub fn keep(state: &Path, clock: &Clock) -> Result<(), DurableError> {
    let text = format!("steady_ms {}\nunix_ms {}\n", clock.steady_ms(), clock.unix_ms());
    durable::write_file(&state.join(FILE), text.as_bytes())
}

/// Writes it down now, from time to time, and when the program drains.
pub async fn go_on(state: Box<Path>, clock: Clock, mut signal: Signal) {
    let mut ends = false;
    loop {
        let (folder, time) = (state.clone(), clock.clone());
        match tokio::task::spawn_blocking(move || keep(&folder, &time)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "the steady time can't be kept"),
            Err(error) => error!(%error, "keeping the steady time failed; this is a bug"),
        }
        if ends {
            return;
        }
        tokio::select! {
            () = clock.sleep(KEEP_EVERY) => {}
            () = signal.draining() => ends = true,
        }
    }
}

fn parse(text: &str) -> Option<(i64, i64)> {
    let (steady, unix) = text.trim_end().split_once('\n')?;
    Some((steady.strip_prefix("steady_ms ")?.parse().ok()?, unix.strip_prefix("unix_ms ")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const TODAY: Duration = Duration::from_hours(498_660);

    fn ms(span: Duration) -> i64 {
        i64::try_from(span.as_millis()).expect("small")
    }

    /// What has passed by the steady time if the program ends, and starts again on this date.
    fn passed(next_start: Duration) -> i64 {
        let state = tempfile::tempdir().expect("a folder");
        let clock = resume(state.path(), &Clock::still(TODAY));
        assert_eq!(clock.steady_ms(), clock.unix_ms(), "it begins as the date");
        keep(state.path(), &clock).expect("kept");
        let again = resume(state.path(), &Clock::still(next_start));
        again.steady_ms() - clock.steady_ms()
    }

    #[test]
    fn between_two_runs_passes_what_the_date_says_within_reason() {
        let minutes = Duration::from_mins(10);
        assert_eq!(passed(TODAY + minutes), ms(minutes));
        assert_eq!(passed(TODAY), 0);
        assert_eq!(passed(Duration::ZERO), 0, "woken in 1970");
        assert_eq!(passed(TODAY + 30 * DAY), ms(REST_MAX), "a month ahead, right or wrong");
        assert_eq!(passed(TODAY + 20_000 * DAY), ms(REST_MAX));
    }

    #[test]
    fn a_date_that_is_corrected_later_changes_nothing() {
        let state = tempfile::tempdir().expect("a folder");
        let clock = resume(state.path(), &Clock::still(TODAY));
        keep(state.path(), &clock).expect("kept");
        let still = Clock::still(Duration::ZERO);
        let clock = resume(state.path(), &still);
        clock.turn(Duration::from_mins(1));
        clock.jump(TODAY + 3 * DAY);
        clock.turn(Duration::from_mins(1));
        assert_eq!(clock.steady_ms(), ms(TODAY) + 120_000);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_obstacle() {
        let state = tempfile::tempdir().expect("a folder");
        for text in ["", "steady_ms", "steady_ms 1\n", "steady_ms x\nunix_ms 5\n", "unix_ms 5\nsteady_ms 4\n"] {
            std::fs::write(state.path().join(FILE), text).expect("written");
            let clock = resume(state.path(), &Clock::still(TODAY));
            assert_eq!(clock.steady_ms(), ms(TODAY), "{text:?}");
        }
        std::fs::write(state.path().join(FILE), format!("steady_ms {}\nunix_ms {}\n", i64::MAX, i64::MIN))
            .expect("written");
        assert_eq!(resume(state.path(), &Clock::still(TODAY)).steady_ms(), i64::MAX);
    }
}
