//! Looks at an entry whose time has come for another reason than an attempt: a question, a report to its sender,
//! its end without any attempt being possible. Blocking.

use gatepost_protocol::mail::reply::Reply;

use crate::queue::QueueId;
use crate::queue::entries::Entries;
use crate::queue::entry::Place;
use crate::queue::ready::Lane;

/// When to look again at what should have changed by being looked at.
const AGAIN_MS: i64 = 60_000;

/// Looks at an entry, files what is to be done for it, and notes when to look next.
pub fn at(entries: &Entries, id: QueueId, started_unix_ms: i64) {
    let Some(entry) = entries.entry(id) else { return };
    let (rules, now) = (entries.rules(), entries.now_unix_ms());
    let schedule = &rules.schedule;
    for attempt in &entry.attempts {
        if attempt.ask_unix_ms.is_some_and(|at| at <= now) {
            let place = match attempt.place {
                Place::Edge { key, .. } => Some(key),
                Place::Home => None,
            };
            entries.file(Lane::Ask(place), id);
        }
    }
    let is_due = entry.held.is_none() && entry.bounce.as_ref().is_some_and(|bounce| bounce.next_unix_ms <= now);
    if is_due || schedule.report(&entry, now).is_some() {
        entries.file(Lane::Bounce, id);
    }
    if now >= schedule.overdue_unix_ms(entry.queued_unix_ms) && entry.waiting().next().is_some() {
        // After a long stop an attempt may become possible yet.
        let grace = i64::try_from(schedule.grace().as_millis()).unwrap_or(i64::MAX);
        let patient_until = started_unix_ms.saturating_add(grace);
        if now < patient_until {
            entries.look_again(id, patient_until);
        } else if give_up(entries, id) {
            return;
        }
    }
    let next = schedule.look_unix_ms(&entry).filter(|at| *at > now);
    entries.look_again(id, next.unwrap_or_else(|| now.saturating_add(AGAIN_MS)));
}

/// True if the entry was changed by it, and so knows itself when to look next.
fn give_up(entries: &Entries, id: QueueId) -> bool {
    let rules = entries.rules();
    let now = entries.now_unix_ms();
    let nothing =
        |entry: &crate::queue::entry::Entry| if entry.local { Reply::local_error() } else { Reply::no_edge() };
    let expired = entries.update(id, |entry| {
        let (before, why) = (entry.waiting().count(), nothing(entry));
        rules.schedule.expire_untried(entry, |entry, place| entries.last_heard(entry, place), &why, now);
        entry.waiting().count() < before
    });
    match expired {
        Ok(changed) => changed == Some(true),
        Err(error) => {
            tracing::error!(queue = %id, %error, "an expired message could not be marked");
            false
        }
    }
}
