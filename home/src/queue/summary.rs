//! The queue in a few numbers, for `status` and the metrics: what waits, since when, and where it sticks. Pure.

use serde_json::{Value, json};

use super::entry::record::time_text;

/// Destinations shown: those where most sticks.
pub const DESTINATIONS_MAX: usize = 5;

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
    /// Next hops of deferred recipients: how many, and what was heard last.
    pub destinations: Vec<(String, usize, String)>,
}

impl Summary {
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
