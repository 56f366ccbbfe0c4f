//! What a home's events add up to: its counters and rates. They are counted from the events themselves, so that
//! log, trace and metrics never disagree.

use gatepost_runtime::event::Event;
use gatepost_runtime::metrics::{Counter, Histogram, Kind, LastHour, Metric};

/// Of one home, since the program started.
#[derive(Debug, Default)]
pub struct Counts {
    accepted: Counter,
    deferred: Counter,
    refused: Counter,
    octets: Counter,
    sealed: Counter,
    recipients_refused: Counter,
    sent: Counter,
    sent_later: Counter,
    sent_never: Counter,
    logged_in: Counter,
    not_logged_in: Counter,
    message_seconds: Histogram,
    relay_seconds: Histogram,
    judged_good: Counter,
    judged_spared: Counter,
    judged_junk: Counter,
    judged_later: Counter,
    judged_never: Counter,
    hour_in: LastHour,
    hour_refused: LastHour,
    hour_out: LastHour,
    hour_sealed: LastHour,
}

/// Messages of the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Taken.
    pub taken: u64,
    /// Refused, for now or for good, recipients included.
    pub refused: u64,
    /// Handed to other hosts.
    pub sent: u64,
    /// Sealed.
    pub sealed: u64,
}

impl Counts {
    /// One more event.
    pub fn count(&self, event: &Event) {
        let at = event.at_unix_ms;
        let number = |name: &str| event.fact(name).and_then(|text| text.parse::<u64>().ok());
        match event.what.as_str() {
            "answered" => {
                self.judge(event);
                match event.fact("reply").and_then(|reply| reply.bytes().next()) {
                    Some(b'2') => {
                        self.accepted.one();
                        self.hour_in.one(at);
                        self.octets.add(number("octets").unwrap_or(0));
                    }
                    Some(b'4') => self.defer(at),
                    _ => self.refuse(at),
                }
                if let Some(ms) = number("took_ms") {
                    self.message_seconds.took_ms(ms);
                }
            }
            "message refused before its data" | "sender refused" => {
                match event.fact("reply").and_then(|reply| reply.bytes().next()) {
                    Some(b'4') => self.defer(at),
                    _ => self.refuse(at),
                }
            }
            "recipient refused" => {
                self.recipients_refused.one();
                self.hour_refused.one(at);
            }
            "sealed" => {
                self.sealed.one();
                self.hour_sealed.one(at);
            }
            "relayed" => {
                self.sent.add(number("accepted").unwrap_or(0));
                self.sent_later.add(number("deferred").unwrap_or(0));
                self.sent_never.add(number("refused").unwrap_or(0));
                if number("accepted").is_some_and(|count| count > 0) {
                    self.hour_out.one(at);
                }
                if let Some(ms) = number("took_ms") {
                    self.relay_seconds.took_ms(ms);
                }
            }
            "logged in" => self.logged_in.one(),
            "login failed" => self.not_logged_in.one(),
            _ => {}
        }
    }

    /// What was found about who sends it decided this.
    fn judge(&self, event: &Event) {
        match (event.fact("done"), event.fact("spared")) {
            (Some("accepted"), None) => self.judged_good.one(),
            (Some("accepted"), Some(_)) => self.judged_spared.one(),
            (Some("junk"), _) => self.judged_junk.one(),
            (Some("deferred"), _) => self.judged_later.one(),
            (Some("refused"), _) => self.judged_never.one(),
            _ => {}
        }
    }

    fn defer(&self, at_unix_ms: i64) {
        self.deferred.one();
        self.hour_refused.one(at_unix_ms);
    }

    fn refuse(&self, at_unix_ms: i64) {
        self.refused.one();
        self.hour_refused.one(at_unix_ms);
    }

    /// Of the last hour.
    pub fn rates(&self, now_unix_ms: i64) -> Rates {
        Rates {
            taken: self.hour_in.count(now_unix_ms),
            refused: self.hour_refused.count(now_unix_ms),
            sent: self.hour_out.count(now_unix_ms),
            sealed: self.hour_sealed.count(now_unix_ms),
        }
    }

    /// For the page of metrics.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn metrics(&self) -> Vec<Metric> {
        let plain = |name, help, counter: &Counter| Metric::plain(Kind::Counter, name, help, counter.now() as f64);
        vec![
            Metric::outcomes(
                "gatepost_edge_messages_total",
                "Messages answered, by what their sender heard.",
                &[("accepted", &self.accepted), ("deferred", &self.deferred), ("refused", &self.refused)],
            ),
            Metric::outcomes(
                "gatepost_edge_judged_total",
                "Messages of the world, by what was decided about who sent them.",
                &[
                    ("accepted", &self.judged_good),
                    ("spared", &self.judged_spared),
                    ("junk", &self.judged_junk),
                    ("deferred", &self.judged_later),
                    ("refused", &self.judged_never),
                ],
            ),
            plain("gatepost_edge_octets_total", "Octets of messages accepted.", &self.octets),
            plain("gatepost_edge_sealed_total", "Messages sealed because the home could not take them.", &self.sealed),
            plain("gatepost_edge_recipients_refused_total", "Recipients refused.", &self.recipients_refused),
            Metric::outcomes(
                "gatepost_edge_relayed_total",
                "Recipients elsewhere, by what their host said to an attempt.",
                &[("accepted", &self.sent), ("deferred", &self.sent_later), ("refused", &self.sent_never)],
            ),
            Metric::outcomes(
                "gatepost_edge_logins_total",
                "Logins at the edge.",
                &[("accepted", &self.logged_in), ("refused", &self.not_logged_in)],
            ),
            Metric::histogram(
                "gatepost_edge_message_seconds",
                "From DATA to the answer to a message.",
                &self.message_seconds,
            ),
            Metric::histogram("gatepost_edge_relay_seconds", "Attempts to send a message.", &self.relay_seconds),
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
            ("answered", vec![("reply", "250 2.0.0 ok"), ("octets", "100"), ("took_ms", "10"), ("done", "accepted")]),
            ("answered", vec![("reply", "451 later"), ("done", "deferred")]),
            ("answered", vec![("reply", "550 never"), ("done", "refused")]),
            ("message refused before its data", vec![("reply", "452 full")]),
            ("sender refused", vec![("reply", "452 full")]),
            ("recipient refused", vec![("reply", "550 5.1.1")]),
            ("sealed", vec![]),
            ("relayed", vec![("accepted", "2"), ("deferred", "1"), ("refused", "0"), ("took_ms", "30")]),
            ("logged in", vec![]),
            ("login failed", vec![]),
            ("of no account", vec![]),
        ] {
            let facts = facts.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            counts.count(&Event { at_unix_ms: 0, trace: None, what: what.to_owned(), facts });
        }
        assert_eq!(counts.rates(0), Rates { taken: 1, refused: 5, sent: 1, sealed: 1 });
        let page = text(counts.metrics());
        for line in [
            "gatepost_edge_messages_total{outcome=\"accepted\"} 1\n",
            "gatepost_edge_messages_total{outcome=\"deferred\"} 3\n",
            "gatepost_edge_messages_total{outcome=\"refused\"} 1\n",
            "gatepost_edge_octets_total 100\n",
            "gatepost_edge_judged_total{outcome=\"accepted\"} 1\n",
            "gatepost_edge_judged_total{outcome=\"spared\"} 0\n",
            "gatepost_edge_judged_total{outcome=\"deferred\"} 1\n",
            "gatepost_edge_judged_total{outcome=\"refused\"} 1\n",
            "gatepost_edge_sealed_total 1\n",
            "gatepost_edge_recipients_refused_total 1\n",
            "gatepost_edge_relayed_total{outcome=\"accepted\"} 2\n",
            "gatepost_edge_logins_total{outcome=\"refused\"} 1\n",
            "gatepost_edge_message_seconds_count 1\n",
            "gatepost_edge_relay_seconds_sum 0.03\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
}
