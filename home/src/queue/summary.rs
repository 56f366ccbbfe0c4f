//! The queue in a few numbers, for `status` and the metrics: what waits, since when, and where it sticks. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::entry::record::time_text;
use super::entry::{Entry, State};

/// Destinations shown: those where most sticks.
const DESTINATIONS_MAX: usize = 5;

/// What there is to say of all entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages.
    pub messages: usize,
    /// Held ones.
    pub held: usize,
    /// Recipients that were tried and are tried again.
    pub deferred: usize,
    /// Recipients that wait for their first attempt, or are being sent to.
    pub waiting: usize,
    /// When the oldest came, milliseconds since 1970.
    pub oldest_unix_ms: Option<i64>,
    /// Domains with deferred recipients: how many, and what was heard last.
    pub destinations: Vec<(String, usize, String)>,
}

impl Summary {
    /// Counts.
    pub fn of(entries: &[Arc<Entry>]) -> Self {
        let mut summary = Self { messages: entries.len(), ..Self::default() };
        let mut stuck: BTreeMap<&str, (usize, i64, String)> = BTreeMap::new();
        for entry in entries {
            summary.held += usize::from(entry.held.is_some());
            let oldest = summary.oldest_unix_ms.unwrap_or(i64::MAX).min(entry.queued_unix_ms);
            summary.oldest_unix_ms = Some(oldest);
            for addressee in &entry.recipients {
                let State::Waiting(waiting) = &addressee.state else { continue };
                let Some(last) = &waiting.last else {
                    summary.waiting += 1;
                    continue;
                };
                summary.deferred += 1;
                let domain = addressee.recipient.address.domain().as_str();
                let of_domain = stuck.entry(domain).or_insert((0, i64::MIN, String::new()));
                of_domain.0 += 1;
                if last.at_unix_ms > of_domain.1 {
                    (of_domain.1, of_domain.2) = (last.at_unix_ms, last.reply.to_string());
                }
            }
        }
        let mut destinations: Vec<(String, usize, String)> =
            stuck.into_iter().map(|(domain, (count, _, reply))| (domain.to_owned(), count, reply)).collect();
        destinations.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
        destinations.truncate(DESTINATIONS_MAX);
        summary.destinations = destinations;
        summary
    }

    /// For `status`.
    pub fn json(&self) -> Value {
        let destinations: Vec<Value> = self
            .destinations
            .iter()
            .map(|(domain, count, last)| json!({ "domain": domain, "recipients": count, "last": last.trim() }))
            .collect();
        json!({
            "messages": self.messages,
            "held": self.held,
            "recipients_deferred": self.deferred,
            "recipients_waiting": self.waiting,
            "oldest": self.oldest_unix_ms.map(time_text),
            "worst_destinations": destinations,
        })
    }
}
