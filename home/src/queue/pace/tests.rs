//! Days of sending, in microseconds.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { concurrency_max: 10, per_minute_max: 6000 };
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Sends all that `turn` allows for this long, each attempt of which takes `takes_ms`; gives when each began.
fn run(pace: &mut Pace, from_ms: u64, span_ms: u64, takes_ms: u64, mut says: impl FnMut(u64) -> Ending) -> Vec<u64> {
    let (mut now, mut begun) = (from_ms, Vec::new());
    let mut under_way = std::collections::VecDeque::new();
    while now < from_ms + span_ms {
        match pace.turn(LIMITS, now) {
            Turn::Now => {
                pace.begins(now);
                begun.push(now);
                under_way.push_back(now + takes_ms);
                assert!(pace.running() <= LIMITS.concurrency_max);
                continue;
            }
            Turn::At(at) => {
                assert!(at > now && at <= now + PAUSE_MAX_MS, "waits from {now} to {at}");
                match under_way.front() {
                    Some(end) if *end <= at => {}
                    _ => {
                        now = at;
                        continue;
                    }
                }
            }
            Turn::AfterAnother => assert!(!under_way.is_empty(), "waits for nothing"),
        }
        now = now.max(under_way.pop_front().expect("some"));
        let ending = says(now);
        pace.ends(ending, LIMITS, now);
    }
    for end in under_way {
        let ending = says(end);
        pace.ends(ending, LIMITS, end);
    }
    begun
}

fn throttling() -> Outcome {
    let reply = Reply::new(421, Some(Enhanced(4, 7, 28)), vec!["unusual rate of mail".into()]);
    Outcome::Deferred(reply)
}

#[test]
fn a_thousand_messages_to_a_dead_domain_cost_a_handful_of_attempts() {
    let mut pace = Pace::default();
    let begun = run(&mut pace, 0, DAY_MS, 30_000, |_| Ending::Unreachable);
    assert!(begun.iter().filter(|at| **at < 4 * MINUTE_MS).count() <= 6, "{begun:?}");
    assert!(begun.len() <= 32, "{} in a day", begun.len());
}

#[test]
fn a_destination_that_is_back_is_at_full_speed_at_once() {
    let mut pace = Pace::default();
    run(&mut pace, 0, DAY_MS, 30_000, |_| Ending::Unreachable);
    assert!(pace.is_failing());
    let begun = run(&mut pace, DAY_MS, 2 * PAUSE_MAX_MS, 1000, |_| Ending::Good);
    assert!(begun.len() > 1000);
    assert!(pace.is_proven() && pace.concurrency_now(LIMITS) == 10);
}

#[test]
fn a_receiver_that_throttles_gets_half_and_more_again_step_by_step() {
    let mut pace = Pace::default();
    run(&mut pace, 0, 10 * MINUTE_MS, 1000, |_| Ending::Good);
    assert_eq!(pace.throttled(), None);
    pace.begins(10 * MINUTE_MS);
    pace.ends(Ending::Throttled, LIMITS, 10 * MINUTE_MS);
    let (per_minute, concurrency) = pace.throttled().expect("throttled");
    assert_eq!(concurrency, 5);
    assert!((200..=400).contains(&per_minute), "half of what went, not of what may go: {per_minute}");
    // Those that were under way say the same: that is no second time.
    pace.begins(10 * MINUTE_MS + 1);
    pace.ends(Ending::Throttled, LIMITS, 10 * MINUTE_MS + 1);
    assert_eq!(pace.throttled(), Some((per_minute, 5)));
    let mut seen = vec![per_minute];
    run(&mut pace, 10 * MINUTE_MS, DAY_MS, 1000, |_| Ending::Good);
    seen.push(pace.throttled().map_or(LIMITS.per_minute_max, |(per_minute, _)| per_minute));
    assert_eq!(seen[1], LIMITS.per_minute_max, "a day later all is forgotten");
}

#[test]
fn a_receiver_that_goes_on_throttling_still_gets_some() {
    let mut pace = Pace::default();
    let begun = run(&mut pace, 0, DAY_MS, 1000, |_| Ending::Throttled);
    let last_hour = begun.iter().filter(|at| **at >= DAY_MS - 60 * MINUTE_MS).count();
    let least = PER_MINUTE_MIN as usize * 60;
    assert!((least - 10..=least + 10).contains(&last_hour), "{last_hour}");
}

#[test]
fn replies_tell_what_kind_of_trouble_it_is() {
    let deferred = |reply: Reply| Outcome::Deferred(reply);
    let said = |code, enhanced, text: &str| Reply::new(code, Some(enhanced), vec![text.to_owned()]);
    for (outcomes, answered, expected) in [
        (vec![Outcome::Accepted(Reply::ok()), throttling()], true, Ending::Good),
        (vec![throttling()], true, Ending::Throttled),
        (vec![deferred(said(450, Enhanced(4, 7, 1), "Greylisted, see you"))], true, Ending::Good),
        (vec![deferred(said(452, Enhanced(4, 2, 2), "mailbox full"))], true, Ending::Good),
        (vec![deferred(Reply::unreachable("nobody there"))], false, Ending::Unreachable),
        (vec![deferred(Reply::unreachable("nobody at this one"))], true, Ending::Unreachable),
        (vec![deferred(Reply::tls_failed("no certificate"))], false, Ending::Unreachable),
        (vec![deferred(Reply::dns_failed("SERVFAIL"))], false, Ending::Unreachable),
        (vec![deferred(Reply::local_error())], false, Ending::Unknown),
        (vec![Outcome::Refused(Reply::null_mx("example.com"))], false, Ending::Good),
    ] {
        assert_eq!(Ending::of(&outcomes, answered), expected, "{outcomes:?}");
    }
}

proptest! {
    #[test]
    fn it_never_stops_for_good_and_never_exceeds_its_bounds(
        endings in proptest::collection::vec(0u8..4, 1..200),
        takes_ms in 1u64..60_000,
    ) {
        let mut pace = Pace::default();
        let mut next = endings.iter().cycle();
        let begun = run(&mut pace, 0, DAY_MS / 4, takes_ms, |_| match next.next() {
            Some(0) => Ending::Good,
            Some(1) => Ending::Throttled,
            Some(2) => Ending::Unreachable,
            _ => Ending::Unknown,
        });
        prop_assert!(begun.len() >= 5);
        let burst = (LIMITS.per_minute_max / BURST_PARTS) as usize;
        for (nth, at) in begun.iter().enumerate() {
            let within = begun[nth..].iter().take_while(|other| **other < at + MINUTE_MS).count();
            prop_assert!(within <= LIMITS.per_minute_max as usize + burst, "{} in a minute", within);
        }
        prop_assert!(begun.windows(2).all(|two| two[1] - two[0] <= PAUSE_MAX_MS + takes_ms));
    }
}
