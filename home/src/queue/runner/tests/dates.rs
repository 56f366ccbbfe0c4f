//! A date that jumps, while the queue runs and between two runs: nothing is given up early, nothing waits for years.

use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_runtime::steady;

use super::sink::Sink;
use super::*;
use crate::queue::command::Command;
use crate::queue::tests::RECEIVED_UNIX_S;

const DAY: Duration = Duration::from_hours(24);
const FIVE_DAYS_MS: i64 = 5 * 24 * 3_600_000;
const TODAY_MS: i64 = RECEIVED_UNIX_S * 1000;

/// A date as somebody would set it.
fn date(unix_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(unix_ms).expect("after 1970"))
}

fn anchored() -> Clock {
    clock().anchored(TODAY_MS)
}

/// Turns the clock until the bounce comes; gives when that was, by the steady time.
async fn bounced_at(running: &mut Running) -> i64 {
    let at = loop {
        let Ok(bounce) = running.bounces.try_recv() else {
            running.clock.turn(Duration::from_mins(30));
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let at = running.clock.steady_ms();
        // A turn may just have ended the wait for an answer: then it comes again.
        if bounce.accepted.send(Reply::ok()).is_ok() {
            break at;
        }
    };
    running.until_gone().await;
    at
}

fn silent() -> Settings {
    Settings { warn: None, ..settings() }
}

#[tokio::test]
async fn a_date_that_jumps_gives_nothing_up_early_and_nothing_late() {
    for jump_ms in [30 * 24 * 3_600_000, 20 * 365 * 24 * 3_600_000, -TODAY_MS] {
        let state = tempfile::tempdir().expect("a folder");
        let mut running = Running::start(state.path(), silent(), Routes::default(), anchored());
        running.put(1, &["bob@example.com"]);
        running.clock.turn(Duration::from_hours(1));
        running.clock.jump(date(TODAY_MS + jump_ms));
        let late_ms = bounced_at(&mut running).await - TODAY_MS - FIVE_DAYS_MS;
        assert!((0..FIVE_DAYS_MS).contains(&late_ms), "{jump_ms}: {late_ms}");
        running.kill().await;
    }
}

#[tokio::test]
async fn a_date_set_back_by_years_delays_no_attempt() {
    let state = tempfile::tempdir().expect("a folder");
    let tries = AtomicUsize::new(0);
    let sink = Sink::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::no_room(),
        _ => Reply::recipient_ok(),
    })
    .await;
    let running = Running::start(state.path(), settings(), sink.routes(), anchored());
    running.put(1, &["bob@example.com"]);
    running.until_deferred(1).await;
    running.clock.jump(Duration::ZERO);
    running.clock.turn(Duration::from_mins(2));
    running.until_gone().await;
    assert_eq!(sink.taken.borrow().len(), 1);
    running.kill().await;
}

#[tokio::test]
async fn a_sender_is_warned_by_the_time_that_passed_and_told_true_dates() {
    let state = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(state.path(), settings(), Routes::default(), anchored());
    running.put(1, &["bob@example.com"]);
    running.clock.jump(date(TODAY_MS) + 365 * DAY);
    running.clock.turn(Duration::from_hours(4));
    let warning = running.bounce().await;
    let text: Vec<u8> = warning.message.body.chunks().flat_map(|chunk| chunk.expect("read").to_vec()).collect();
    let text = String::from_utf8_lossy(&text).into_owned();
    // 20 November 2026, a year and five days later.
    assert!(text.contains("Action: delayed") && text.contains("Will-Retry-Until: Thu, 25 Nov 2027"), "{text}");
    let shown = running.queue.command(Command::Show { id: ID.to_string() }).expect("shown");
    assert!(shown["expires"].as_str().is_some_and(|at| at.starts_with("2027-11-25")), "{shown:#}");
    running.kill().await;
}

#[tokio::test]
async fn between_two_runs_a_wrong_date_costs_a_day_at_most() {
    for (next_start, at_least_ms) in
        [(date(TODAY_MS) + 30 * DAY, FIVE_DAYS_MS - 24 * 3_600_000), (Duration::ZERO, FIVE_DAYS_MS)]
    {
        let state = tempfile::tempdir().expect("a folder");
        let first = steady::resume(state.path(), &clock());
        let running = Running::start(state.path(), silent(), Routes::default(), first.clone());
        running.put(1, &["bob@example.com"]);
        running.kill().await;
        steady::keep(state.path(), &first).expect("kept");
        let second = steady::resume(state.path(), &Clock::still(next_start));
        let started_ms = second.steady_ms();
        let mut running = Running::start(state.path(), silent(), Routes::default(), second);
        let passed_ms = bounced_at(&mut running).await - started_ms;
        assert!((at_least_ms..2 * FIVE_DAYS_MS).contains(&passed_ms), "{next_start:?}: {passed_ms}");
        running.kill().await;
    }
}

#[tokio::test]
async fn what_an_older_build_wrote_on_a_wrong_date_goes_on_at_once() {
    let state = tempfile::tempdir().expect("a folder");
    let (queue, _) = open_with(state.path(), settings(), Routes::default(), Clock::still(date(TODAY_MS) + 5000 * DAY));
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    drop(queue);
    let sink = Sink::takes_all().await;
    let running = Running::start(state.path(), settings(), sink.routes(), anchored());
    let queued = running.entry(ID).map(|entry| entry.queued_unix_ms);
    assert!(queued.is_none_or(|at| at <= TODAY_MS), "{queued:?}");
    running.clock.turn(Duration::from_hours(3));
    running.until_gone().await;
    assert_eq!(sink.taken.borrow().len(), 1);
    running.kill().await;
}
