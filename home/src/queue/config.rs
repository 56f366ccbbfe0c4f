//! The `[queue]` table: how long and how often to try, and how much at once.

use std::time::Duration;

use gatepost_protocol::mail::address::Address;
use gatepost_runtime::config::{ConfigError, Placed, Source, Span};
use serde::Deserialize;

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
    /// Messages held at most.
    pub messages_max: Option<Placed<usize>>,
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
    /// Messages held at most.
    pub messages_max: usize,
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
            attempts_max: 20,
            attempts_per_destination_max: 4,
            messages_max: 100_000,
        }
    }

    /// Checks the table.
    pub fn check(raw: RawQueue, hostname: &str, postmaster: Address, source: &Source) -> Result<Self, ConfigError> {
        let mut settings = Self::new(hostname, postmaster);
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
