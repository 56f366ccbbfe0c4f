//! What `gatepost-home queue …` asks for, whether the program runs (by way of the control socket) or
//! not (on the files). However many entries there are, an answer has its bound. Blocking.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_protocol::mail::address::{Domain, ReversePath};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entries::Entries;
use super::entry::{Entry, Final, State, record};
use super::ready::Shown;
use super::{QueueId, explain};

/// Shortest beginning of an id that names an entry.
const PREFIX_MIN: usize = 4;
/// Why an entry is held that an operator holds.
const HELD_BY_HAND: &str = "by hand";
/// Most messages in one listing.
pub const LISTED_MAX: usize = 1000;
/// Recipients of one message in a listing.
const LISTED_RECIPIENTS_MAX: usize = 20;
/// Destinations in a listing, those for which most waits.
const LISTED_DESTINATIONS_MAX: usize = 10;
/// Names of changed entries in an answer.
const NAMED_MAX: usize = 100;
/// Changes made at once, so that they share their commits.
const CHANGERS: usize = 32;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Entries, in short, in the order they came.
    List {
        /// Which.
        which: Which,
        /// How many to pass over.
        skip: usize,
        /// How many to show, at most [`LISTED_MAX`].
        limit: usize,
    },
    /// One entry, whole.
    Show {
        /// Id, its beginning, or trace id.
        id: String,
    },
    /// Try now, without waiting.
    Flush(Which),
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
    /// All that fit.
    Those(Filter),
}

/// What entries must be like; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// A recipient that waits, as a whole address.
    pub to: Option<String>,
    /// The sender, as a whole address; empty: nobody.
    pub from: Option<String>,
    /// The domain of a recipient that waits.
    pub domain: Option<String>,
    /// Any of these trace ids; none: whichever.
    #[serde(default)]
    pub traces: Vec<String>,
}

impl Filter {
    fn fits(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.to_lowercase() == found.to_lowercase())
        };
        let sender = match &entry.reverse_path {
            ReversePath::Null => String::new(),
            ReversePath::Address(address) => address.to_string(),
        };
        let domain = self.domain.as_ref().map(|name| Domain::parse(name).map_or(name.clone(), |d| d.to_string()));
        let is_any = self.to.is_none() && domain.is_none();
        let fits_one = || {
            entry
                .waiting()
                .any(|address| same(&self.to, &address.to_string()) && same(&domain, address.domain().as_str()))
        };
        let is_traced = self.traces.is_empty() || self.traces.contains(&entry.trace.to_string());
        is_traced && same(&self.from, &sender) && (is_any || fits_one())
    }
}

/// Performs a command. An error is a text for people.
pub fn perform(entries: &Entries, command: Command) -> Result<Value, String> {
    let now = entries.now_unix_ms();
    match command {
        Command::List { which, skip, limit } => list(entries, &which, skip, limit.min(LISTED_MAX)),
        Command::Show { id } => {
            let id = find(entries, &id)?;
            let entry = read(entries, id)?.ok_or_else(|| gone(id))?;
            Ok(shown(entries, &entry))
        }
        Command::Flush(which) => {
            let answer = change(entries, &which, |entry| retry(entry, now));
            lift(entries, &which);
            answer
        }
        Command::Hold(which) => change(entries, &which, |entry| {
            entry.held.get_or_insert_with(|| HELD_BY_HAND.to_owned());
            Ok(())
        }),
        Command::Release(which) => change(entries, &which, |entry| {
            entry.held = None;
            Ok(())
        }),
        Command::Drop(which) => change(entries, &which, |entry| drop_entry(entry, now)),
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

/// Destinations that were left alone are tried, too.
fn lift(entries: &Entries, which: &Which) {
    let lanes = match which {
        Which::All => None,
        Which::One(id) => Some(find(entries, id).map(|id| entries.lanes(id)).unwrap_or_default()),
        Which::Those(filter) => {
            let ids = matching(entries, filter).unwrap_or_default();
            Some(ids.into_iter().flat_map(|id| entries.lanes(id)).collect())
        }
    };
    let mut ready = entries.ready();
    for lane in lanes.unwrap_or_else(|| ready.known()) {
        ready.lift(&lane);
    }
    drop(ready);
    entries.changed.notify_one();
}

fn read(entries: &Entries, id: QueueId) -> Result<Option<std::sync::Arc<Entry>>, String> {
    entries.read(id).map_err(|error| format!("{id}: {error}"))
}

/// The names of those that fit, in the order they came.
fn matching(entries: &Entries, filter: &Filter) -> Result<Vec<QueueId>, String> {
    let mut found = Vec::new();
    for id in entries.ids() {
        if read(entries, id)?.is_some_and(|entry| filter.fits(&entry)) {
            found.push(id);
        }
    }
    Ok(found)
}

fn chosen(entries: &Entries, which: &Which) -> Result<Vec<QueueId>, String> {
    match which {
        Which::All => Ok(entries.ids()),
        Which::One(id) => Ok(vec![find(entries, id)?]),
        Which::Those(filter) => matching(entries, filter),
    }
}

fn change(
    entries: &Entries,
    which: &Which,
    change: impl Fn(&mut Entry) -> Result<(), String> + Sync,
) -> Result<Value, String> {
    let ids = chosen(entries, which)?;
    let next = AtomicUsize::new(0);
    // What was changed, how many refused to be, and the first reason.
    let outcome: Mutex<(Vec<QueueId>, usize, Option<String>)> = Mutex::default();
    let worker = || {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let changed = entries.update(*id, &change);
            let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let why = match changed {
                Ok(Some(Ok(()))) => {
                    outcome.0.push(*id);
                    continue;
                }
                Ok(Some(Err(why))) => format!("{id}: {why}"),
                Ok(None) => gone(*id),
                Err(error) => format!("{id}: {error}"),
            };
            outcome.1 += 1;
            outcome.2.get_or_insert(why);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..CHANGERS.min(ids.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let (mut changed, unchanged, why) = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let (true, Which::One(_), Some(why)) = (changed.is_empty(), which, &why) {
        return Err(why.clone());
    }
    changed.sort_unstable();
    let named: Vec<String> = changed.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    Ok(json!({ "changed": changed.len(), "ids": named, "unchanged": unchanged, "why": why }))
}

fn find(entries: &Entries, text: &str) -> Result<QueueId, String> {
    let text = text.to_ascii_lowercase();
    if let Some(id) = QueueId::parse(&text) {
        return read(entries, id)?.map(|entry| entry.id).ok_or_else(|| gone(id));
    }
    let mut matches = Vec::new();
    for id in entries.ids() {
        if text.len() >= PREFIX_MIN && id.to_string().starts_with(&text) {
            matches.push(id);
        }
    }
    if matches.is_empty() {
        for id in entries.ids() {
            if read(entries, id)?.is_some_and(|entry| entry.trace.to_string() == text) {
                matches.push(id);
            }
        }
    }
    match matches[..] {
        [id] => Ok(id),
        [] => Err(format!("no message in the queue has the id {text} (see: gatepost-home queue list)")),
        _ => Err(format!("{} messages in the queue have an id like {text}: give more of it", matches.len())),
    }
}

fn gone(id: QueueId) -> String {
    format!("no message in the queue has the id {id} (any more)")
}

fn list(entries: &Entries, which: &Which, skip: usize, limit: usize) -> Result<Value, String> {
    let (ids, ahead_ms) = (chosen(entries, which)?, entries.date_ahead_ms());
    let mut messages = Vec::new();
    for id in ids.iter().skip(skip).take(limit) {
        if let Some(entry) = read(entries, *id)? {
            messages.push(listed(&entry.dated(ahead_ms)));
        }
    }
    let mut destinations = entries.ready().all_shown(entries.now_ms());
    destinations.sort_by_key(|(to, shown)| (std::cmp::Reverse(shown.waiting), to.clone()));
    let destinations: Vec<Value> = destinations
        .iter()
        .take(LISTED_DESTINATIONS_MAX)
        .filter(|(_, shown)| shown.paused_ms.is_some() || shown.throttled.is_some())
        .map(|(to, shown)| destination(to, shown, ahead_ms))
        .collect();
    Ok(json!({
        "messages": messages,
        "total": entries.waiting(),
        "held": entries.held(),
        "fitting": ids.len(),
        "skipped": skip,
        "destinations": destinations,
    }))
}

fn destination(to: &str, shown: &Shown, ahead_ms: i64) -> Value {
    json!({
        "to": to,
        "waiting": shown.waiting,
        "sending": shown.running,
        "left_alone_s": shown.paused_ms.map(|ms| ms.div_ceil(1000)),
        "per_minute": shown.throttled.map(|(per_minute, _)| per_minute),
        "at_once": shown.throttled.map(|(_, at_once)| at_once),
        "last": shown.last.as_ref().map(|last| last_words(last, ahead_ms)),
    })
}

fn last_words(last: &Final, ahead_ms: i64) -> Value {
    json!({
        "at": record::time_text(last.at_unix_ms.saturating_add(ahead_ms)),
        "remote": last.remote,
        "reply": last.reply.to_string(),
        "means": explain::meaning(&last.reply, last.remote.as_deref()).map(means),
    })
}

fn means(meaning: explain::Meaning) -> Value {
    json!({ "kind": meaning.kind, "what": meaning.what, "remedy": meaning.remedy })
}

fn listed(entry: &Entry) -> Value {
    let recipients: Vec<Value> = entry
        .recipients
        .iter()
        .enumerate()
        .take(LISTED_RECIPIENTS_MAX)
        .map(|(place, addressee)| {
            let (state, attempts, last) = match &addressee.state {
                State::Waiting(_) if entry.is_being_tried(place) => ("sending", None, None),
                State::Waiting(waiting) => ("waiting", Some(waiting.attempts), waiting.last.as_ref()),
                State::Delivered { last, .. } => ("delivered", None, Some(last)),
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
    let next = super::schedule::try_unix_ms(entry).or_else(|| super::schedule::pending_unix_ms(entry));
    json!({
        "id": entry.id.to_string(),
        "trace": entry.trace.to_string(),
        "sender": entry.reverse_path.to_string(),
        "login": entry.login,
        "received": record::time_text(entry.received_unix_ms),
        "octets": entry.octets,
        "held": entry.held,
        "next": next.map(|at| record::time_text(at.max(entry.queued_unix_ms))),
        "recipients": recipients,
        "more_recipients": entry.recipients.len().saturating_sub(LISTED_RECIPIENTS_MAX),
    })
}

/// Everything that is known of an entry, with what it means.
fn shown(entries: &Entries, entry: &Entry) -> Value {
    let ahead_ms = entries.date_ahead_ms();
    let entry = &entry.dated(ahead_ms);
    let mut value = record::view(entry);
    let rules = entries.rules();
    value["expires"] = record::time_text(rules.schedule.expires_unix_ms(entry)).into();
    let Some(recipients) = value["recipients"].as_array_mut() else { return value };
    for (place, (shown, addressee)) in recipients.iter_mut().zip(&entry.recipients).enumerate() {
        let last = match &addressee.state {
            State::Waiting(waiting) => waiting.last.as_ref(),
            State::Delivered { .. } => None,
            State::Failed { last, .. } => Some(last),
        };
        let of_lane = entries.shown(entry, place);
        let last = last.or_else(|| of_lane.as_ref()?.last.as_ref());
        let meaning = last.and_then(|last| explain::meaning(&last.reply, last.remote.as_deref()));
        shown["means"] = meaning.map_or(Value::Null, means);
        if matches!(addressee.state, State::Waiting(_)) {
            let to = rules.routes.hop(&addressee.recipient.address).to_string();
            shown["destination"] = of_lane.as_ref().map_or(Value::Null, |lane| destination(&to, lane, ahead_ms));
        }
    }
    value
}
