//! Whole lives of messages, by turning the clock.

use gatepost_protocol::mail::envelope::Notify;
use gatepost_protocol::pairing::NodeKey;

use super::*;
use crate::queue::entry::Place;
use crate::queue::tests::{RECEIVED_UNIX_S, entry, settings};

const START: i64 = RECEIVED_UNIX_S * 1000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const ATTEMPT: AttemptId = AttemptId([1; 16]);
/// In the middle: no jitter.
const STEADY: u16 = 32_768;

fn schedule() -> Schedule {
    Schedule::from(&settings())
}

fn begin(entry: &mut Entry, now: i64) {
    let recipients = ready(entry, now);
    assert!(!recipients.is_empty(), "due at {}", now - START);
    entry.attempts.push(OpenAttempt { since_unix_ms: now, ..attempt(recipients) });
}

/// An attempt under way at these recipients.
pub fn attempt(recipients: Vec<usize>) -> OpenAttempt {
    OpenAttempt {
        id: ATTEMPT,
        place: Place::Edge { key: NodeKey::of_spki(b"edge"), name: "vps1".into() },
        since_unix_ms: START,
        recipients,
        lost_unix_ms: None,
        ask_unix_ms: None,
    }
}

/// When anything is to be done that no setting delays.
fn due(entry: &Entry) -> Option<i64> {
    try_unix_ms(entry).into_iter().chain(pending_unix_ms(entry)).min()
}

fn ending(outcomes: &[Outcome]) -> Ended {
    Ended { outcomes: outcomes.to_vec(), ..Ended::default() }
}

fn deferred() -> Outcome {
    Outcome::Deferred(Reply::no_room())
}

#[test]
fn five_days_of_deferrals_end_in_a_failure() {
    let schedule = schedule();
    let mut entry = entry(&["bob@example.com"]);
    let mut tried = Vec::new();
    while entry.untold(About::Failure).is_empty() {
        let now = due(&entry).expect("something is always due");
        assert!(ready(&entry, now - 1).is_empty(), "not a moment earlier");
        tried.push(now - START);
        begin(&mut entry, now);
        assert_eq!(due(&entry), None, "not while it is being tried");
        schedule.ended(
            &mut entry,
            ATTEMPT,
            &Ended { remote: Some("mx.example.com [192.0.2.1]:25".into()), ..ending(&[deferred()]) },
            now,
            STEADY,
        );
    }
    let minutes: Vec<i64> = tried.iter().take(8).map(|ms| (ms + MINUTE / 2) / MINUTE).collect();
    assert_eq!(minutes, [0, 1, 6, 21, 51, 111, 231, 351]);
    assert_eq!(*tried.last().expect("some"), 5 * DAY, "a last time at the end");
    assert_eq!(tried.len(), 66);
    let State::Failed { last, told: false } = &entry.recipients[0].state else { panic!("failed") };
    assert_eq!(
        last.reply.to_string(),
        "550 5.4.7 Given up after 5 days of trying Last answer: 452 4.3.1 No room right now, try again later"
    );
    assert_eq!(due(&entry), Some(START + 5 * DAY), "its bounce is due");
}

#[test]
fn jitter_spreads_a_wait_by_a_tenth() {
    let (schedule, entry) = (schedule(), entry(&["bob@example.com"]));
    let wait = |attempts, jitter| schedule.next_unix_ms(&entry, attempts, START, jitter).expect("not expired") - START;
    assert_eq!((wait(1, 0), wait(1, u16::MAX)), (54_000, 66_000));
    assert_eq!((wait(99, 0), wait(99, u16::MAX)), (108 * MINUTE, 132 * MINUTE));
    assert_eq!(schedule.next_unix_ms(&entry, 1, START + 5 * DAY, 0), None);
    assert_eq!(schedule.next_unix_ms(&entry, 1, START + 5 * DAY - 1, 0), Some(START + 5 * DAY));
}

#[test]
fn each_recipient_has_its_own_end() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"]);
    entry.recipients[3].recipient.notify = Notify::Never;
    begin(&mut entry, START);
    let refused = || Outcome::Refused(Reply::unknown_recipient());
    let outcomes = [Outcome::Accepted(Reply::ok()), deferred(), refused(), refused()];
    schedule.ended(&mut entry, ATTEMPT, &ending(&outcomes), START, STEADY);
    assert!(matches!(entry.recipients[0].state, State::Delivered { .. }));
    assert!(matches!(entry.recipients[1].state, State::Waiting(Waiting { attempts: 1, .. })));
    assert!(matches!(entry.recipients[2].state, State::Failed { told: false, .. }));
    assert!(matches!(entry.recipients[3].state, State::Failed { told: true, .. }), "NOTIFY=NEVER");
    assert!(matches!(entry.recipients[4].state, State::Waiting(_)), "an outcome that is missing is no outcome");
    assert_eq!(entry.untold(About::Failure), [2]);
    assert!(!entry.is_done());
}

#[test]
fn nobody_is_never_told() {
    let mut entry = entry(&["a@example.com"]);
    entry.reverse_path = ReversePath::Null;
    begin(&mut entry, START);
    schedule().ended(&mut entry, ATTEMPT, &ending(&[Outcome::Refused(Reply::unknown_recipient())]), START, STEADY);
    assert!(entry.is_done());
    assert_eq!(due(&entry), None);
}

#[test]
fn a_bounce_waits_a_moment_for_the_rest_of_the_first_round() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com", "b@example.net"]);
    begin(&mut entry, START);
    entry.attempts[0].recipients = vec![0];
    schedule.ended(&mut entry, ATTEMPT, &ending(&[Outcome::Refused(Reply::unknown_recipient())]), START, STEADY);
    assert_eq!(report_unix_ms(&entry, About::Failure), Some(START + MINUTE), "the other was not tried yet");
    begin(&mut entry, START);
    assert_eq!(report_unix_ms(&entry, About::Failure), Some(START + MINUTE), "it is being tried");
    schedule.ended(&mut entry, ATTEMPT, &ending(&[deferred()]), START, STEADY);
    assert_eq!(report_unix_ms(&entry, About::Failure), Some(START));
}

#[test]
fn an_end_that_is_told_twice_counts_once() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com"]);
    begin(&mut entry, START);
    schedule.ended(&mut entry, ATTEMPT, &ending(&[Outcome::Accepted(Reply::ok())]), START, STEADY);
    let once = entry.clone();
    schedule.ended(&mut entry, ATTEMPT, &ending(&[deferred()]), START, STEADY);
    assert_eq!(entry, once);
    assert!(entry.is_done());
}

#[test]
fn an_attempt_in_doubt_is_left_alone_for_half_an_hour_and_then_marked() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com"]);
    begin(&mut entry, START);
    schedule.lost(&mut entry, ATTEMPT, START + MINUTE);
    assert_eq!(due(&entry), Some(START + MINUTE), "asked at once");
    schedule.still_running(&mut entry, ATTEMPT, START + MINUTE);
    assert_eq!(due(&entry), Some(START + MINUTE + 15_000));
    assert!(!schedule.doubted(&mut entry, ATTEMPT, START + 2 * MINUTE));
    assert_eq!(due(&entry), Some(START + 31 * MINUTE));
    assert_eq!(ready(&entry, START + 31 * MINUTE - 1), [0usize; 0]);
    assert!(!schedule.doubted(&mut entry, ATTEMPT, START + 31 * MINUTE - 1));
    assert!(schedule.doubted(&mut entry, ATTEMPT, START + 31 * MINUTE));
    assert_eq!(ready(&entry, START + 31 * MINUTE), [0]);
    assert!(matches!(entry.recipients[0].state, State::Waiting(Waiting { in_doubt: true, attempts: 1, .. })));
    // Doubt after doubt has an end, too.
    let mut now = START + 31 * MINUTE;
    while entry.untold(About::Failure).is_empty() {
        begin(&mut entry, now);
        schedule.lost(&mut entry, ATTEMPT, now);
        now += 30 * MINUTE;
        assert!(schedule.doubted(&mut entry, ATTEMPT, now));
    }
    assert_eq!(now - START, 5 * DAY + MINUTE);
}

#[test]
fn an_attempt_that_came_to_nothing_is_a_deferral() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com", "b@example.com"]);
    begin(&mut entry, START);
    schedule.came_to_nothing(&mut entry, ATTEMPT, Reply::connection_lost("cut"), START, STEADY);
    assert_eq!(due(&entry), Some(START + MINUTE));
    assert!(matches!(entry.recipients[1].state, State::Waiting(Waiting { attempts: 1, in_doubt: false, .. })));
}

#[test]
fn what_is_held_is_left_alone() {
    let mut entry = entry(&["a@example.com"]);
    entry.held = Some("by hand".into());
    assert_eq!((due(&entry), ready(&entry, START + 9 * DAY)), (None, vec![]));
}

#[test]
fn what_no_edge_was_there_for_expires_with_the_last_words() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com", "b@example.com"]);
    schedule.expire_untried(&mut entry, |_, _| None, &Reply::no_edge(), START + 5 * DAY - 1);
    assert_eq!(entry.untold(About::Failure), [0usize; 0]);
    if let State::Waiting(waiting) = &mut entry.recipients[1].state {
        waiting.last = Some(Final { reply: Reply::no_room(), remote: Some("mx".into()), at_unix_ms: START });
    }
    schedule.expire_untried(&mut entry, |_, _| None, &Reply::no_edge(), START + 5 * DAY);
    let words = |place: usize| match &entry.recipients[place].state {
        State::Failed { last, .. } => last.reply.text(),
        other => panic!("{other:?}"),
    };
    assert!(words(0).contains("No edge is connected"), "{}", words(0));
    assert!(words(1).contains("No room"), "{}", words(1));
}

#[test]
fn spans_in_words() {
    for (seconds, words) in [
        (432_000, "5 days"),
        (86_400, "1 day"),
        (14_400, "4 hours"),
        (5400, "90 minutes"),
        (61, "61 seconds"),
        (0, "0 seconds"),
    ] {
        assert_eq!(in_words(Duration::from_secs(seconds)), words);
    }
}

#[test]
fn a_delay_is_told_once_to_who_wants_to_hear_of_it() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com", "b@example.com", "c@example.com", "d@example.com"]);
    let on = |delay| Notify::On { success: false, failure: true, delay };
    entry.recipients[1].recipient.notify = Notify::Never;
    entry.recipients[2].recipient.notify = on(false);
    entry.recipients[3].recipient.notify = on(true);
    begin(&mut entry, START);
    schedule.ended(&mut entry, ATTEMPT, &ending(&vec![deferred(); 4]), START, STEADY);
    assert_eq!(schedule.look_unix_ms(&entry), Some(START + 4 * HOUR));
    assert_eq!(schedule.report(&entry, START + 4 * HOUR - 1), None);
    assert_eq!(schedule.report(&entry, START + 4 * HOUR), Some((About::Delay, vec![0, 3])));
    for place in [0, 3] {
        let State::Waiting(waiting) = &mut entry.recipients[place].state else { panic!("waits") };
        waiting.warned = true;
    }
    assert_eq!(schedule.report(&entry, START + 8 * HOUR), None, "once");
    assert_eq!(schedule.look_unix_ms(&entry), Some(schedule.overdue_unix_ms(START)));
    entry.reverse_path = ReversePath::Null;
    for addressee in &mut entry.recipients {
        addressee.state = State::Waiting(Waiting::default());
    }
    assert_eq!(schedule.report(&entry, START + 8 * HOUR), None, "nobody is told nothing");
    let silent = Schedule { warn: None, ..schedule };
    assert_eq!(silent.report(&self::entry(&["a@example.com"]), START + 8 * HOUR), None);
}

#[test]
fn success_is_told_where_no_other_host_tells_it() {
    let schedule = schedule();
    let wants = Notify::On { success: true, failure: false, delay: false };
    for (notify, reports_itself, sender, told) in [
        (wants, false, "alice@example.org", true),
        (wants, true, "alice@example.org", false),
        (wants, false, "", false),
        (Notify::Unspecified, false, "alice@example.org", false),
        (Notify::Never, false, "alice@example.org", false),
    ] {
        let mut entry = entry(&["a@example.com"]);
        entry.recipients[0].recipient.notify = notify;
        entry.reverse_path = ReversePath::parse(sender).expect("valid");
        begin(&mut entry, START);
        let accepted = Ended { reports_itself, ..ending(&[Outcome::Accepted(Reply::ok())]) };
        schedule.ended(&mut entry, ATTEMPT, &accepted, START, STEADY);
        assert_eq!(schedule.report(&entry, START).is_some(), told, "{notify:?} {reports_itself} {sender}");
        assert_eq!(entry.is_done(), !told);
    }
}

#[test]
fn what_is_never_tried_is_given_up_with_what_was_heard_there() {
    let schedule = schedule();
    let mut entry = entry(&["a@example.com"]);
    let heard = Final { reply: Reply::unreachable("nobody answers"), remote: None, at_unix_ms: START };
    assert_eq!(schedule.overdue_unix_ms(START), START + 5 * DAY + HOUR);
    schedule.expire_untried(&mut entry, |_, _| Some(heard.clone()), &Reply::no_edge(), START + 5 * DAY + HOUR);
    let State::Failed { last, .. } = &entry.recipients[0].state else { panic!("failed") };
    assert!(last.reply.text().contains("nobody answers"), "{last:?}");
}
