//! What our own events add up to: counters and rates. They are counted from the events themselves, so that log,
//! trace and metrics never disagree.

use gatepost_runtime::event::Event;
use gatepost_runtime::metrics::{Counter, Histogram, Kind, LastHour, Metric};
use serde_json::{Value, json};

/// Since the program started.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: Counter,
    refused: Counter,
    failed: Counter,
    copies: Counter,
    octets: Counter,
    queued: Counter,
    sent: Counter,
    deferred: Counter,
    given_up: Counter,
    bounced: Counter,
    logged_in: Counter,
    not_logged_in: Counter,
    delivery_seconds: Histogram,
    relay_seconds: Histogram,
    hour_accepted: LastHour,
    hour_refused: LastHour,
    hour_sent: LastHour,
}

impl Counts {
    /// One more event.
    pub fn count(&self, event: &Event) {
        let at = event.at_unix_ms;
        let number = |name: &str| event.fact(name).and_then(|text| text.parse::<u64>().ok());
        let attempt_took = || {
            if let Some(ms) = number("took_ms") {
                self.relay_seconds.took_ms(ms);
            }
        };
        match event.what.as_str() {
            "accepted" => {
                self.accepted.one();
                self.hour_accepted.one(at);
                self.octets.add(number("octets").unwrap_or(0));
                self.copies.add(event.fact("mailboxes").map_or(0, |list| list.split_whitespace().count() as u64));
                if let Some(ms) = number("took_ms") {
                    self.delivery_seconds.took_ms(ms);
                }
            }
            "refused" if event.fact("recipient").is_some() => {
                self.given_up.one();
                attempt_took();
            }
            "refused" | "a submission without a login we know is refused" => {
                self.refused.one();
                self.hour_refused.one(at);
            }
            "not accepted" => {
                self.failed.one();
                self.hour_refused.one(at);
            }
            "queued" | "queued, finishing what a crash cut short" => self.queued.one(),
            "sent" => {
                self.sent.one();
                self.hour_sent.one(at);
                attempt_took();
            }
            "deferred" => {
                self.deferred.one();
                attempt_took();
            }
            "bounced" => self.bounced.one(),
            "logged in" => self.logged_in.one(),
            "login refused" => self.not_logged_in.one(),
            _ => {}
        }
    }

    /// For `status`: the last hour.
    pub fn rates(&self, now_unix_ms: i64) -> Value {
        json!({
            "accepted": self.hour_accepted.count(now_unix_ms),
            "refused": self.hour_refused.count(now_unix_ms),
            "sent": self.hour_sent.count(now_unix_ms),
        })
    }

    /// For the page of metrics.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn metrics(&self) -> Vec<Metric> {
        let plain = |name, help, counter: &Counter| Metric::plain(Kind::Counter, name, help, counter.now() as f64);
        vec![
            Metric::outcomes(
                "gatepost_home_messages_total",
                "Messages that came to the home, by what became of them.",
                &[("accepted", &self.accepted), ("refused", &self.refused), ("failed", &self.failed)],
            ),
            plain("gatepost_home_copies_total", "Copies delivered to mailboxes.", &self.copies),
            plain("gatepost_home_octets_total", "Octets of messages accepted.", &self.octets),
            plain("gatepost_home_queued_total", "Messages put into the outbound queue.", &self.queued),
            Metric::outcomes(
                "gatepost_home_sent_total",
                "Recipients elsewhere, by what became of an attempt.",
                &[("sent", &self.sent), ("deferred", &self.deferred), ("refused", &self.given_up)],
            ),
            plain(
                "gatepost_home_bounces_total",
                "Reports to senders that their mail could not be delivered.",
                &self.bounced,
            ),
            Metric::outcomes(
                "gatepost_home_logins_total",
                "Logins checked by the home.",
                &[("accepted", &self.logged_in), ("refused", &self.not_logged_in)],
            ),
            Metric::histogram(
                "gatepost_home_delivery_seconds",
                "From a whole message to its being durable.",
                &self.delivery_seconds,
            ),
            Metric::histogram("gatepost_home_relay_seconds", "Attempts to send to a recipient.", &self.relay_seconds),
        ]
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::metrics::text;

    use super::*;

    #[test]
    fn events_add_up() {
        let counts = Counts::default();
        for (what, facts) in [
            ("accepted", vec![("mailboxes", "a@b c@d/Junk"), ("octets", "10"), ("took_ms", "3")]),
            ("refused", vec![("reply", "550")]),
            ("refused", vec![("recipient", "x@y"), ("took_ms", "5")]),
            ("not accepted", vec![]),
            ("queued", vec![]),
            ("sent", vec![("recipient", "x@y"), ("took_ms", "5")]),
            ("deferred", vec![("recipient", "x@y")]),
            ("bounced", vec![]),
            ("logged in", vec![]),
            ("login refused", vec![]),
            ("another", vec![]),
        ] {
            let facts = facts.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            counts.count(&Event { at_unix_ms: 0, trace: None, what: what.to_owned(), facts });
        }
        assert_eq!(counts.rates(0), json!({ "accepted": 1, "refused": 2, "sent": 1 }));
        let page = text(counts.metrics());
        for line in [
            "gatepost_home_messages_total{outcome=\"accepted\"} 1\n",
            "gatepost_home_messages_total{outcome=\"refused\"} 1\n",
            "gatepost_home_messages_total{outcome=\"failed\"} 1\n",
            "gatepost_home_copies_total 2\n",
            "gatepost_home_octets_total 10\n",
            "gatepost_home_queued_total 1\n",
            "gatepost_home_sent_total{outcome=\"refused\"} 1\n",
            "gatepost_home_bounces_total 1\n",
            "gatepost_home_relay_seconds_count 2\n",
            "gatepost_home_delivery_seconds_sum 0.003\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
