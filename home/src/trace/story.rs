//! One message's story: its steps in the order of time, and what became of it in the end. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::steps::{sentence, span};
use super::store::{HOME, Kept};

/// Facts in which a search looks: who and where, never what was said.
const SEARCHED: &[&str] = &[
    "sender",
    "recipient",
    "mailboxes",
    "login",
    "to",
    "message_id",
    "queue",
    "bounce",
    "transfer",
    "client",
    "helo",
    "remote",
];

/// True if one of its facts that name somebody or something holds `part`, in whatever case.
pub fn mentions(step: &Kept, part: &str) -> bool {
    let part = part.to_lowercase();
    let holds = |text: &str| text.to_lowercase().contains(&part);
    step.trace.as_deref().is_some_and(holds) || SEARCHED.iter().filter_map(|name| step.fact(name)).any(holds)
}

/// True if somebody has to look into the queue to know this story's end.
pub fn is_queued(steps: &[Kept]) -> bool {
    let last = |what: &str| steps.iter().rposition(|step| step.what == what);
    let begins = |step: &Kept| step.what.starts_with("queued") || step.what.starts_with("waits for the server");
    steps.iter().any(begins) && last("done, leaves the queue").is_none()
}

/// What became of it, a sentence for each recipient or place. `queue` is its entry as `queue list` shows it, if it
/// has one now; `now_unix_ms` says how long something lasts.
pub fn fate(steps: &[Kept], queue: Option<&Value>, now_unix_ms: i64) -> Vec<String> {
    let mut fates = Vec::new();
    if let Some(sealed) = waits_sealed(steps) {
        let since = u64::try_from(now_unix_ms - sealed.at_unix_ms).unwrap_or(0);
        fates.push(format!("sealed at {} for {}: it comes when the home is connected", sealed.machine, span(since)));
    }
    for step in steps.iter().filter(|step| step.what == "accepted" && step.machine == HOME) {
        for mailbox in step.fact("mailboxes").unwrap_or_default().split(' ').filter(|name| !name.is_empty()) {
            fates.push(match mailbox.split_once('/') {
                _ if mailbox == "…" => "delivered to others".to_owned(),
                Some((owner, folder)) => format!("delivered to {owner}'s {folder}"),
                None => format!("delivered to {mailbox}'s inbox"),
            });
        }
    }
    fates.extend(abroad(steps, queue));
    for step in steps.iter().filter(|step| step.what == "bounced") {
        fates.push(format!("its sender {} was told that it could not be delivered", step.fact("to").unwrap_or("-")));
    }
    if fates.is_empty() {
        fates.push(untaken(steps));
    }
    fates.dedup();
    fates
}

/// The seal nobody has opened yet.
fn waits_sealed(steps: &[Kept]) -> Option<&Kept> {
    let sealed = steps.iter().rfind(|step| step.what == "sealed")?;
    let taken = |step: &Kept| {
        let here = ["accepted", "already here: the same hand-over again"].contains(&step.what.as_str());
        let told = step.what == "a spooled submission is refused; its account is told";
        step.machine == HOME && (here || told)
    };
    (!steps.iter().any(taken)).then_some(sealed)
}

/// Recipients elsewhere: the queue's word goes before the log's.
fn abroad(steps: &[Kept], queue: Option<&Value>) -> Vec<String> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.machine == HOME) {
        let Some(recipient) = step.fact("recipient") else { continue };
        let reply = step.fact("reply").unwrap_or("nothing").trim();
        let told = match step.what.as_str() {
            "sent" => format!("sent to {recipient}: {} said {reply}", step.fact("remote").unwrap_or("the next host")),
            "delivered" => format!("delivered to {recipient} at {}", step.fact("remote").unwrap_or("its server")),
            "not taken by the server of the mailbox" | "given up: its time is over" => {
                format!("not delivered to {recipient}: {reply}")
            }
            "refused" if step.fact("queue").is_some() => format!("not delivered to {recipient}: {reply}"),
            "deferred" => format!("not sent to {recipient} yet, because {reply}"),
            _ => continue,
        };
        known.insert(recipient, told);
    }
    let recipients = queue.and_then(|entry| entry["recipients"].as_array());
    for recipient in recipients.into_iter().flatten() {
        let Some(address) = recipient["address"].as_str() else { continue };
        let because = recipient["last"].as_str().map_or_else(String::new, |last| format!(", because {}", last.trim()));
        let next = queue.and_then(|entry| entry["next"].as_str()).unwrap_or("-");
        let told = match (recipient["state"].as_str(), queue.and_then(|entry| entry["held"].as_str())) {
            (Some("waiting"), Some(why)) => format!("held in the queue for {address} ({why})"),
            (Some("waiting"), None) => format!("waiting in the queue for {address}: next attempt {next}{because}"),
            (Some("sending"), _) => format!("being sent to {address} just now"),
            _ => continue,
        };
        known.insert(address, told);
    }
    known.into_values().collect()
}

/// Nothing was delivered, sent or kept.
fn untaken(steps: &[Kept]) -> String {
    let answer = |step: &&Kept| {
        ["answered", "message refused before its data", "refused", "sender refused", "recipient refused"]
            .contains(&step.what.as_str())
    };
    match steps.iter().rfind(answer).and_then(|step| step.fact("reply")) {
        Some(reply) if reply.starts_with('2') => {
            "taken; what became of it at home is not known here (any more)".to_owned()
        }
        Some(reply) if reply.starts_with('4') => format!("not taken; its sender tries again: {}", reply.trim()),
        Some(reply) => format!("refused; its sender was told: {}", reply.trim()),
        None if steps.iter().any(|step| step.what == "broken off before its end") => {
            "not taken: whoever sent it broke off, and tries again".to_owned()
        }
        None => "not known (any more)".to_owned(),
    }
}

/// For people: who wrote to whom, a line a step, and its end.
pub fn told(trace: &str, steps: &[Kept], fates: &[String]) -> String {
    let fact = |name: &str| steps.iter().find_map(|step| step.fact(name)).unwrap_or_default();
    let to = Some(fact("recipient")).filter(|to| !to.is_empty()).unwrap_or(fact("mailboxes"));
    let mut text = format!("{trace}  <{}> to {}\n", fact("sender"), if to.is_empty() { "-" } else { to });
    let width = steps.iter().map(|step| step.machine.chars().count()).max().unwrap_or(0);
    for step in steps {
        let _ = writeln!(text, "  {}  {:width$}  {}", time(step.at_unix_ms), step.machine, sentence(step));
    }
    for fate in fates {
        let _ = writeln!(text, "  => {fate}");
    }
    text
}

/// The same for programs.
pub fn json(trace: &str, steps: &[Kept], fates: &[String]) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|step| {
            json!({
                "at": time(step.at_unix_ms), "machine": step.machine, "what": step.what, "facts": step.facts,
                "text": sentence(step),
            })
        })
        .collect();
    json!({ "trace": trace, "steps": steps, "fate": fates })
}

/// `2026-11-20T12:00:00.123Z`.
fn time(unix_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{moment:.3}")
}

#[cfg(test)]
mod tests;
