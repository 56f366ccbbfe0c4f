//! The `[queue]` table: how long and how often to try, and how much at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gatepost_protocol::mail::address::Address;
use gatepost_runtime::config::{ConfigError, Placed, Source, Span};
use serde::Deserialize;

use super::floor::Floors;

/// `[queue]` as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawQueue {
    /// Given up after this long.
    pub expire: Option<Placed<Span>>,
    /// Waits between attempts; the last one repeats.
    pub retry: Option<Placed<Vec<Span>>>,
    /// How long an attempt in doubt is left alone before it is made again.
    pub in_doubt: Option<Placed<Span>>,
    /// Attempts at once.
    pub attempts_max: Option<Placed<usize>>,
    /// Attempts at once to one destination.
    pub attempts_per_destination_max: Option<Placed<usize>>,
    /// Messages a minute to one destination.
    pub per_minute_per_destination_max: Option<Placed<usize>>,
    /// The sender is told of a delay after this long.
    pub warn: Option<Placed<Span>>,
    /// Messages held at most.
    pub messages_max: Option<Placed<usize>>,
    /// How secure mail must at least be, by domain.
    #[serde(default)]
    pub tls: BTreeMap<String, Placed<String>>,
    /// Whether mail waits rather than go less securely than is usual.
    #[serde(default)]
    pub hold_downgrades: bool,
}

/// `[queue]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our name: EHLO, bounces.
    pub hostname: String,
    /// Whom bounces come from.
    pub postmaster: Address,
    /// Given up after this long.
    pub expire: Duration,
    /// Waits between attempts; the last one repeats. Never empty.
    pub retry: Vec<Duration>,
    /// How long an attempt in doubt is left alone before it is made again (RFC 1047).
    pub in_doubt: Duration,
    /// Attempts at once.
    pub attempts_max: usize,
    /// Attempts at once to one destination.
    pub attempts_per_destination_max: usize,
    /// Messages a minute to one destination, at most.
    pub per_minute_per_destination_max: u32,
    /// The sender is told of a delay after this long; `None`: never.
    pub warn: Option<Duration>,
    /// Messages held at most.
    pub messages_max: usize,
    /// How secure mail must at least be.
    pub floors: Floors,
    /// Mail waits rather than go less securely than is usual.
    pub hold_downgrades: bool,
    /// Our own doors, as the config has them: no route leads there.
    pub own_doors: Vec<SocketAddr>,
}

const MINUTE: Duration = Duration::from_mins(1);
/// Waits between attempts unless the config names others.
const RETRY: [Duration; 6] = [
    MINUTE,
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
];
/// Most messages a minute a config may allow.
const PER_MINUTE_LIMIT: u32 = 1_000_000;
/// Most waits a config may name.
const RETRY_MAX: usize = 100;

impl Settings {
    /// What holds where the config says nothing.
    pub fn new(hostname: &str, postmaster: Address) -> Self {
        Self {
            hostname: hostname.to_owned(),
            postmaster,
            expire: Duration::from_hours(120),
            retry: RETRY.to_vec(),
            in_doubt: 30 * MINUTE,
            attempts_max: 60,
            attempts_per_destination_max: 10,
            per_minute_per_destination_max: 100_000,
            warn: Some(Duration::from_hours(4)),
            messages_max: 100_000,
            floors: Floors::default(),
            hold_downgrades: false,
            own_doors: Vec::new(),
        }
    }

    /// Checks the table.
    pub fn check(raw: RawQueue, hostname: &str, postmaster: Address, source: &Source) -> Result<Self, ConfigError> {
        let mut settings = Self::new(hostname, postmaster);
        settings.floors = Floors::check(&raw.tls, source)?;
        settings.hold_downgrades = raw.hold_downgrades;
        if let Some(expire) = raw.expire {
            if expire.get_ref().0.is_zero() {
                return Err(source.error(
                    &expire,
                    "a message can't be given up at once",
                    "a length of time, such as \"5 d\"",
                ));
            }
            settings.expire = expire.get_ref().0;
        }
        if let Some(retry) = raw.retry {
            let waits: Vec<Duration> = retry.get_ref().iter().map(|span| span.0).collect();
            if waits.is_empty() || waits.len() > RETRY_MAX || waits.iter().any(Duration::is_zero) {
                return Err(source.error(
                    &retry,
                    "retrying needs waits, none of them zero",
                    "1 to 100 lengths of time, such as [\"1 min\", \"5 min\", \"2 h\"]",
                ));
            }
            settings.retry = waits;
        }
        if let Some(in_doubt) = raw.in_doubt {
            settings.in_doubt = in_doubt.get_ref().0;
        }
        if let Some(warn) = raw.warn {
            let after = warn.get_ref().0;
            if after >= settings.expire {
                return Err(source.error(
                    &warn,
                    "the message is given up before its sender is warned",
                    "a length of time below queue.expire, such as \"4 h\", or \"0 s\" for no warning",
                ));
            }
            settings.warn = (!after.is_zero()).then_some(after);
        }
        settings.warn = settings.warn.filter(|warn| *warn < settings.expire);
        if let Some(raw) = raw.per_minute_per_destination_max {
            settings.per_minute_per_destination_max = u32::try_from(*raw.get_ref())
                .ok()
                .filter(|count| (1..=PER_MINUTE_LIMIT).contains(count))
                .ok_or_else(|| source.error(&raw, "out of range", "a number from 1 to 1000000"))?;
        }
        for (raw, checked, max) in [
            (raw.attempts_max, &mut settings.attempts_max, 200),
            (raw.attempts_per_destination_max, &mut settings.attempts_per_destination_max, 200),
            (raw.messages_max, &mut settings.messages_max, 10_000_000),
        ] {
            let Some(raw) = raw else { continue };
            if !(1..=max).contains(raw.get_ref()) {
                return Err(source.error(&raw, "out of range", &format!("a number from 1 to {max}")));
            }
            *checked = *raw.get_ref();
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Settings, String> {
        #[derive(Deserialize)]
        struct File {
            queue: RawQueue,
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("home.toml");
        std::fs::write(&path, format!("[queue]\n{toml}\n")).expect("written");
        let source = Source::read(&path).map_err(|error| error.to_string())?;
        let file: File = source.parse().map_err(|error| error.to_string())?;
        let postmaster = Address::parse("postmaster@example.org").expect("valid");
        Settings::check(file.queue, "home.example.org", postmaster, &source).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_five_days_and_change_down_to_milliseconds() {
        let settings = check("").expect("valid");
        assert_eq!(settings.expire, Duration::from_hours(120));
        assert_eq!((settings.attempts_max, settings.attempts_per_destination_max), (60, 10));
        let settings = check("expire = \"2 s\"\nretry = [\"50 ms\", \"1 s\"]\nin_doubt = \"100 ms\"").expect("valid");
        assert_eq!(settings.retry, [Duration::from_millis(50), Duration::from_secs(1)]);
        assert_eq!(settings.in_doubt, Duration::from_millis(100));
    }

    #[test]
    fn what_can_not_be_is_refused_where_it_stands() {
        for (toml, words) in [
            ("retry = []", "retrying needs waits"),
            ("retry = [\"0 s\"]", "retrying needs waits"),
            ("expire = \"0 s\"", "given up at once"),
            ("attempts_max = 0", "from 1 to 200"),
            ("messages_max = 0", "from 1 to"),
            ("per_minute_per_destination_max = 0", "from 1 to"),
            ("warn = \"5 d\"", "given up before"),
            ("expires = \"5 d\"", "expire"),
        ] {
            let error = check(toml).expect_err(toml);
            assert!(error.contains(words) && error.contains("home.toml:2"), "{toml}: {error}");
        }
    }
}
