//! Numbers for those who watch: counters and histograms as atomics, and a page of them in the text format of
//! Prometheus. No address and no name of a person is ever a label. Nothing here allocates until it is asked.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Upper ends of the buckets of every histogram, in seconds.
const BUCKETS_S: [f64; 10] = [0.005, 0.02, 0.05, 0.2, 0.5, 1.0, 5.0, 20.0, 60.0, 600.0];
/// Metrics taken from another machine.
const METRICS_MAX: usize = 100;
/// Samples of one metric taken from another machine.
const SAMPLES_MAX: usize = 100;
/// Octets of a name, help or label taken from another machine.
const TEXT_OCTETS_MAX: usize = 200;
/// Minutes of an hour.
const MINUTES: usize = 60;
/// The same.
const MINUTES_I64: i64 = 60;

/// Only ever grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, over all the times it was done.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_S.len()],
    count: AtomicU64,
    sum_ms: AtomicU64,
}

impl Histogram {
    /// It took so many milliseconds.
    pub fn took_ms(&self, ms: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a bucket is no exact thing")]
        let seconds = ms as f64 / 1000.0;
        if let Some(bucket) = BUCKETS_S.iter().position(|end| seconds <= *end) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Now.
    #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is no exact thing")]
    pub fn now(&self) -> Number {
        Number::Histogram {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum_ms.load(Ordering::Relaxed) as f64 / 1000.0,
            count: self.count.load(Ordering::Relaxed),
        }
    }
}

/// How often something happened in the last hour, to the minute.
#[derive(Debug, Default)]
pub struct LastHour(Mutex<Hour>);

#[derive(Debug)]
struct Hour {
    counts: [u32; MINUTES],
    minute: i64,
}

impl Default for Hour {
    fn default() -> Self {
        Self { counts: [0; MINUTES], minute: 0 }
    }
}

impl Hour {
    /// Empties the minutes that have passed.
    fn turn(&mut self, minute: i64) {
        let passed = minute.saturating_sub(self.minute);
        if passed <= 0 {
            return;
        }
        for step in 1..=passed.min(MINUTES_I64) {
            self.counts[slot(self.minute.saturating_add(step))] = 0;
        }
        self.minute = minute;
    }
}

fn slot(minute: i64) -> usize {
    usize::try_from(minute.rem_euclid(MINUTES_I64)).unwrap_or(0)
}

impl LastHour {
    /// It happened at this time, milliseconds since 1970.
    pub fn one(&self, at_unix_ms: i64) {
        let mut hour = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hour.turn(at_unix_ms.div_euclid(60_000));
        let at = slot(hour.minute);
        hour.counts[at] = hour.counts[at].saturating_add(1);
    }

    /// How often in the hour before this time.
    pub fn count(&self, now_unix_ms: i64) -> u64 {
        let mut hour = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hour.turn(now_unix_ms.div_euclid(60_000));
        hour.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only ever grows, until the program starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    /// Of a counter or gauge.
    Plain(f64),
    /// Of a histogram.
    Histogram {
        /// How many fell into each bucket, not summed up.
        buckets: Vec<u64>,
        /// Of all values, in seconds.
        sum: f64,
        /// How many.
        count: u64,
    },
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Label and value.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub number: Number,
}

/// One metric with all its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// `gatepost_…`.
    pub name: String,
    /// A sentence.
    pub help: String,
    /// What it is.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<Sample>,
}

impl Metric {
    /// Without a label.
    pub fn plain(kind: Kind, name: &str, help: &str, value: f64) -> Self {
        Self::labelled(kind, name, help, "", [("", value)])
    }

    /// One sample for each value of a label.
    pub fn labelled<'a>(
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Self {
        let sample = |(of, value): (&str, f64)| Sample {
            labels: if label.is_empty() { Vec::new() } else { vec![(label.to_owned(), of.to_owned())] },
            number: Number::Plain(value),
        };
        let samples = values.into_iter().map(sample).collect();
        Self { name: name.to_owned(), help: help.to_owned(), kind, samples }
    }

    /// A counter of outcomes: the numbers under the label `outcome`.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn outcomes(name: &str, help: &str, outcomes: &[(&str, &Counter)]) -> Self {
        let values = outcomes.iter().map(|(outcome, counter)| (*outcome, counter.now() as f64));
        Self::labelled(Kind::Counter, name, help, "outcome", values)
    }

    /// A histogram of seconds.
    pub fn histogram(name: &str, help: &str, histogram: &Histogram) -> Self {
        let samples = vec![Sample { labels: Vec::new(), number: histogram.now() }];
        Self { name: name.to_owned(), help: help.to_owned(), kind: Kind::Histogram, samples }
    }

    /// With one more label on each sample.
    #[must_use]
    pub fn with(mut self, label: &str, value: &str) -> Self {
        for sample in &mut self.samples {
            sample.labels.insert(0, (label.to_owned(), value.to_owned()));
        }
        self
    }
}

/// Reads a page another machine sent; what is no sound metric of this prefix is left out.
pub fn admit(page: &str, prefix: &str) -> Vec<Metric> {
    let page: Vec<Metric> = serde_json::from_str(page).unwrap_or_default();
    page.into_iter().filter(|metric| metric.name.starts_with(prefix) && is_sound(metric)).take(METRICS_MAX).collect()
}

fn is_sound(metric: &Metric) -> bool {
    let named = |text: &str| {
        !text.is_empty()
            && text.len() <= TEXT_OCTETS_MAX
            && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'_')
    };
    let is_histogram = metric.kind == Kind::Histogram;
    let sound = |sample: &Sample| {
        sample.labels.len() <= 4
            && sample.labels.iter().all(|(label, value)| named(label) && named(value))
            && match &sample.number {
                Number::Plain(value) => value.is_finite() && !is_histogram,
                Number::Histogram { buckets, sum, .. } => {
                    is_histogram && buckets.len() == BUCKETS_S.len() && sum.is_finite()
                }
            }
    };
    named(&metric.name)
        && metric.help.len() <= TEXT_OCTETS_MAX
        && !metric.help.contains(char::is_control)
        && metric.samples.len() <= SAMPLES_MAX
        && metric.samples.iter().all(sound)
}

/// The page as Prometheus reads it (text format 0.0.4). Metrics of one name stand together.
pub fn text(mut metrics: Vec<Metric>) -> String {
    let mut page = String::new();
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    let mut last = String::new();
    for metric in metrics {
        if metric.name != last {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(page, "# HELP {0} {help}\n# TYPE {0} {kind}", metric.name);
            last.clone_from(&metric.name);
        }
        for sample in &metric.samples {
            put(&mut page, &metric.name, sample);
        }
    }
    page
}

fn put(page: &mut String, name: &str, sample: &Sample) {
    match &sample.number {
        Number::Plain(value) => drop(writeln!(page, "{name}{} {value}", labels(&sample.labels, None))),
        Number::Histogram { buckets, sum, count } => {
            let mut below = 0u64;
            for (end, bucket) in BUCKETS_S.iter().zip(buckets) {
                // Another machine may say anything.
                below = below.saturating_add(*bucket);
                let _ = writeln!(page, "{name}_bucket{} {below}", labels(&sample.labels, Some(&end.to_string())));
            }
            let _ = writeln!(page, "{name}_bucket{} {count}", labels(&sample.labels, Some("+Inf")));
            let of = labels(&sample.labels, None);
            let _ = writeln!(page, "{name}_sum{of} {sum}\n{name}_count{of} {count}");
        }
    }
}

fn labels(labels: &[(String, String)], end: Option<&str>) -> String {
    let all = labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).chain(end.map(|end| ("le", end)));
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let all: Vec<String> = all.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let (done, later, took) = (Counter::default(), Counter::default(), Histogram::default());
        done.add(3);
        later.one();
        for ms in [4, 5, 700, 9_000_000] {
            took.took_ms(ms);
        }
        let page = text(vec![
            Metric::plain(Kind::Gauge, "gatepost_up", "It runs.", 1.0).with("edge", "b\"1"),
            Metric::outcomes("gatepost_messages_total", "Messages.", &[("accepted", &done), ("deferred", &later)]),
            Metric::histogram("gatepost_seconds", "How long.", &took),
            Metric::plain(Kind::Gauge, "gatepost_up", "It runs.", 0.0).with("edge", "a"),
        ]);
        let expected = "# HELP gatepost_messages_total Messages.\n# TYPE gatepost_messages_total counter\n\
            gatepost_messages_total{outcome=\"accepted\"} 3\ngatepost_messages_total{outcome=\"deferred\"} 1\n\
            # HELP gatepost_seconds How long.\n# TYPE gatepost_seconds histogram\n\
            gatepost_seconds_bucket{le=\"0.005\"} 2\n";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.contains("gatepost_seconds_bucket{le=\"1\"} 3\n"), "{page}");
        assert!(page.contains(
            "gatepost_seconds_bucket{le=\"+Inf\"} 4\ngatepost_seconds_sum 9000.709\ngatepost_seconds_count 4\n"
        ));
        assert!(
            page.ends_with("# TYPE gatepost_up gauge\ngatepost_up{edge=\"b\\\"1\"} 1\ngatepost_up{edge=\"a\"} 0\n"),
            "{page}"
        );
    }

    #[test]
    fn an_hour_forgets_what_is_older() {
        let hour = LastHour::default();
        let minute = 60_000;
        for at in [0, 1, 59 * minute] {
            hour.one(at);
        }
        assert_eq!(hour.count(59 * minute), 3);
        assert_eq!(hour.count(60 * minute), 1);
        assert_eq!(hour.count(118 * minute), 1);
        assert_eq!(hour.count(119 * minute), 0);
        hour.one(5_000 * minute);
        assert_eq!(hour.count(5_000 * minute), 1);
        // A clock that was put back counts on.
        hour.one(0);
        assert_eq!(hour.count(5_000 * minute), 2);
    }

    #[test]
    fn what_another_machine_sends_is_taken_only_if_it_is_sound() {
        let sound = Metric::plain(Kind::Counter, "gatepost_edge_x_total", "X.", 1.0);
        let took = Histogram::default();
        took.took_ms(1);
        let histogram = Metric::histogram("gatepost_edge_s", "S.", &took);
        let wrong = [
            Metric { name: "gatepost_home_x".into(), ..sound.clone() },
            Metric { name: "gatepost_edge_\n# x".into(), ..sound.clone() },
            Metric { help: "a\nb".into(), ..sound.clone() },
            Metric { kind: Kind::Histogram, ..sound.clone() },
            sound.clone().with("address", "alice@example.org"),
            Metric { samples: vec![sound.samples[0].clone(); SAMPLES_MAX + 1], ..sound.clone() },
        ];
        let page: Vec<&Metric> = wrong.iter().chain([&sound, &histogram]).collect();
        let page = serde_json::to_string(&page).unwrap();
        assert_eq!(admit(&page, "gatepost_edge_"), [sound, histogram]);
        assert_eq!(admit("nonsense", "gatepost_edge_"), []);
        assert_eq!(admit("[{\"name\": 1}]", "gatepost_edge_"), []);
    }

    #[test]
    fn buckets_of_another_machine_can_not_overflow() {
        let buckets = vec![u64::MAX; BUCKETS_S.len()];
        let samples = vec![Sample { labels: Vec::new(), number: Number::Histogram { buckets, sum: 0.0, count: 1 } }];
        let lie = Metric { name: "gatepost_edge_x".into(), help: "x".into(), kind: Kind::Histogram, samples };
        let told = serde_json::to_string(&[lie]).expect("written");
        let page = text(admit(&told, "gatepost_edge_"));
        assert!(page.contains(&format!("le=\"600\"}} {}\n", u64::MAX)), "{page}");
    }

    fn any_metric() -> impl Strategy<Value = Metric> {
        let number = prop_oneof![
            any::<f64>().prop_map(Number::Plain),
            (proptest::collection::vec(any::<u64>(), 8..12), any::<f64>(), any::<u64>())
                .prop_map(|(buckets, sum, count)| Number::Histogram { buckets, sum, count }),
        ];
        let sample = (proptest::collection::vec(("[a-z_\"]{0,3}", "[a-z\n\\\\]{0,3}"), 0..6), number)
            .prop_map(|(labels, number)| Sample { labels, number });
        let kind = prop_oneof![Just(Kind::Counter), Just(Kind::Gauge), Just(Kind::Histogram)];
        ("gatepost_edge_[a-z \n]{0,3}", "[a-z\n ]{0,5}", kind, proptest::collection::vec(sample, 0..3))
            .prop_map(|(name, help, kind, samples)| Metric { name, help, kind, samples })
    }

    proptest! {
        #[test]
        fn whatever_another_machine_says_the_page_has_whole_lines_of_its_own_names(
            told in proptest::collection::vec(any_metric(), 0..5),
            noise in ".{0,20}",
        ) {
            prop_assert!(admit(&noise, "gatepost_edge_").is_empty());
            // What JSON can't say (a number that is none) makes the page none.
            let told = serde_json::to_string(&told).expect("written");
            for line in text(admit(&told, "gatepost_edge_")).lines() {
                let begins = ["# HELP gatepost_edge_", "# TYPE gatepost_edge_", "gatepost_edge_"];
                prop_assert!(begins.iter().any(|begin| line.starts_with(begin)), "{}", line);
            }
        }
    }
}
