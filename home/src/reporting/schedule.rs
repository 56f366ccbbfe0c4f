//! Which day a message counts for, when that day's reports are due, and for how long. Days are those of UTC. Pure.

/// Seconds of a day.
pub const DAY_S: i64 = 24 * 3600;
/// What is heard so long after midnight still counts for the day it came; in seconds.
const LATE_S: i64 = 3600;
/// So much later everything of that day is written down; in seconds.
const SETTLED_S: i64 = 600;
/// Reports of a day go out over so much time: not all receivers of the world at once; in seconds.
const SPREAD_S: i64 = 4 * 3600;
/// A report that could not be sent is dropped so long after its day; in seconds.
pub const KEPT_S: i64 = 7 * DAY_S;
/// What could not be asked or queued is tried again after this time; in seconds.
pub const AGAIN_S: i64 = 3600;

/// The day a message counts for: the one it came on, unless that one's reports may be out already.
pub fn day(judged_unix_s: i64, now_unix_s: i64) -> i64 {
    let (day, today) = (judged_unix_s.div_euclid(DAY_S), now_unix_s.div_euclid(DAY_S));
    if day < today && now_unix_s >= start_unix_s(day + 1) + LATE_S { today } else { day.min(today) }
}

/// Its first second.
pub fn start_unix_s(day: i64) -> i64 {
    day.saturating_mul(DAY_S)
}

/// When the report of a day goes out; `name` is any number, always the same for the same receiver.
pub fn due_unix_s(day: i64, name: u64) -> i64 {
    let spread = i64::try_from(name % SPREAD_S.unsigned_abs()).unwrap_or(0);
    start_unix_s(day + 1) + LATE_S + SETTLED_S + spread
}

/// The first day whose reports may still be sent.
pub fn oldest_day(now_unix_s: i64) -> i64 {
    (now_unix_s - KEPT_S).div_euclid(DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 20_000 * DAY_S + DAY_S / 2;

    #[test]
    fn a_message_counts_for_its_day_until_that_may_be_told() {
        let midnight = start_unix_s(20_001);
        for (judged, now, counts_for) in [
            (NOON, NOON, 20_000),
            (NOON, midnight - 1, 20_000),
            (NOON, midnight + LATE_S - 1, 20_000),
            (NOON, midnight + LATE_S, 20_001),
            // It waited at an edge.
            (NOON, NOON + 10 * DAY_S, 20_010),
            // An edge whose date is ahead.
            (NOON + 10 * DAY_S, NOON, 20_000),
        ] {
            assert_eq!(day(judged, now), counts_for, "{judged} {now}");
        }
    }

    #[test]
    fn a_report_is_due_after_all_of_its_day_is_written_down_and_within_hours() {
        for name in [0, 1, 12_345, u64::MAX] {
            let due = due_unix_s(20_000, name) - start_unix_s(20_001);
            assert!((LATE_S + SETTLED_S..LATE_S + SETTLED_S + SPREAD_S).contains(&due), "{name}: {due}");
        }
        assert_eq!(due_unix_s(20_000, 7), due_unix_s(20_000, 7));
    }
}
