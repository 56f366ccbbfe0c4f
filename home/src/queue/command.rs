//! What `gatepost-home queue …` asks for, whether the program runs (by way of the control socket) or
//! not (on the files). Blocking.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entries::Entries;
use super::entry::{Entry, State, record};
use super::{QueueId, schedule};

/// Shortest beginning of an id that names an entry.
const PREFIX_MIN: usize = 4;
/// Why an entry is held that an operator holds.
const HELD_BY_HAND: &str = "by hand";

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Every entry, in short.
    List,
    /// One entry, whole.
    Show {
        /// Id, its beginning, or trace id.
        id: String,
    },
    /// Try now, without waiting.
    Retry(Which),
    /// Try nothing until it is released.
    Hold(Which),
    /// Go on.
    Release(Which),
    /// Remove it, telling nobody.
    Drop(Which),
}

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// Every one.
    All,
    /// The one with this id, its beginning, or trace id.
    One(String),
}

/// Performs a command. An error is a text for people.
pub fn perform(entries: &Entries, command: Command) -> Result<Value, String> {
    match command {
        Command::List => {
            let mut all = entries.all();
            all.sort_by_key(|entry| (entry.received_unix_ms, entry.id));
            Ok(json!({ "messages": all.iter().map(|entry| listed(entry)).collect::<Vec<_>>() }))
        }
        Command::Show { id } => {
            let id = find(entries, &id)?;
            let entry = entries.entry(id).ok_or_else(|| gone(id))?;
            Ok(record::view(&entry))
        }
        Command::Retry(which) => {
            let now = entries.now_unix_ms();
            change(entries, &which, |entry| retry(entry, now))
        }
        Command::Hold(which) => change(entries, &which, |entry| {
            entry.held.get_or_insert_with(|| HELD_BY_HAND.to_owned());
            Ok(())
        }),
        Command::Release(which) => change(entries, &which, |entry| {
            entry.held = None;
            Ok(())
        }),
        Command::Drop(which) => {
            let now = entries.now_unix_ms();
            change(entries, &which, |entry| drop_entry(entry, now))
        }
    }
}

fn retry(entry: &mut Entry, now_unix_ms: i64) -> Result<(), String> {
    if let Some(why) = &entry.held {
        return Err(format!("it is held ({why}): release it first"));
    }
    for addressee in &mut entry.recipients {
        if let State::Waiting(waiting) = &mut addressee.state {
            waiting.next_unix_ms = waiting.next_unix_ms.min(now_unix_ms);
        }
    }
    if let Some(bounce) = &mut entry.bounce {
        bounce.next_unix_ms = bounce.next_unix_ms.min(now_unix_ms);
    }
    Ok(())
}

fn drop_entry(entry: &mut Entry, now_unix_ms: i64) -> Result<(), String> {
    if entry.attempts.iter().any(|attempt| attempt.ask_unix_ms.is_none()) {
        return Err("it is being sent right now: hold it, and drop it when that has ended".to_owned());
    }
    entry.held = Some("dropped by hand".to_owned());
    entry.finished_unix_ms = Some(now_unix_ms);
    Ok(())
}

fn change(
    entries: &Entries,
    which: &Which,
    change: impl Fn(&mut Entry) -> Result<(), String>,
) -> Result<Value, String> {
    let ids = match which {
        Which::All => entries.all().iter().map(|entry| entry.id).collect(),
        Which::One(id) => vec![find(entries, id)?],
    };
    let mut changed = Vec::new();
    for id in ids {
        match entries.update(id, &change) {
            Ok(Some(Ok(()))) => changed.push(id.to_string()),
            // One of all that can't be changed just now does not stop the others.
            Ok(Some(Err(_)) | None) if *which == Which::All => {}
            Ok(Some(Err(why))) => return Err(format!("{id}: {why}")),
            Ok(None) => return Err(gone(id)),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(json!({ "changed": changed }))
}

fn find(entries: &Entries, text: &str) -> Result<QueueId, String> {
    let text = text.to_ascii_lowercase();
    if let Some(id) = QueueId::parse(&text) {
        return entries.entry(id).map(|entry| entry.id).ok_or_else(|| gone(id));
    }
    let matches: Vec<QueueId> = entries
        .all()
        .iter()
        .filter(|entry| {
            entry.trace.to_string() == text || (text.len() >= PREFIX_MIN && entry.id.to_string().starts_with(&text))
        })
        .map(|entry| entry.id)
        .collect();
    match matches[..] {
        [id] => Ok(id),
        [] => Err(format!("no message in the queue has the id {text} (see: gatepost-home queue list)")),
        _ => Err(format!("{} messages in the queue have an id like {text}: give more of it", matches.len())),
    }
}

fn gone(id: QueueId) -> String {
    format!("no message in the queue has the id {id} (any more)")
}

fn listed(entry: &Entry) -> Value {
    let full = record::view(entry);
    let pick = |name: &str| full.get(name).cloned().unwrap_or(Value::Null);
    let recipients: Vec<Value> = entry
        .recipients
        .iter()
        .enumerate()
        .map(|(place, addressee)| {
            let (state, attempts, last) = match &addressee.state {
                State::Waiting(_) if entry.is_being_tried(place) => ("sending", None, None),
                State::Waiting(waiting) => ("waiting", Some(waiting.attempts), waiting.last.as_ref()),
                State::Delivered(last) => ("delivered", None, Some(last)),
                State::Failed { last, .. } => ("failed", None, Some(last)),
            };
            json!({
                "address": addressee.recipient.address.to_string(),
                "state": state,
                "attempts": attempts,
                "last": last.map(|last| last.reply.to_string()),
            })
        })
        .collect();
    json!({
        "id": entry.id.to_string(),
        "trace": pick("trace"),
        "sender": pick("sender"),
        "login": pick("login"),
        "received": pick("received"),
        "octets": entry.octets,
        "held": pick("held"),
        "next": schedule::due(entry).map(|at| record::time_text(at.max(entry.queued_unix_ms))),
        "recipients": recipients,
    })
}
