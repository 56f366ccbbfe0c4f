//! What happened to each message, over both machines: our own events and those the edges tell, kept for a
//! while and told as a story. No mail depends on it.

pub mod keeper;
pub mod steps;
pub mod store;
pub mod story;

use std::time::Duration;

use gatepost_runtime::config::{ConfigError, Placed, Size, Source, Span};
use serde::Deserialize;

pub use self::keeper::{Collector, Traces};

/// Lines that are events although they name no message.
pub const NAMED: &[&str] = &[
    "home starts",
    "home ends",
    "edge connected",
    "edge not connected",
    "directory held by the edge",
    "logged in",
    "login refused",
    "config reloaded",
    "config not reloaded",
];
/// How long events are kept unless the config says otherwise.
const KEEP: Duration = Duration::from_hours(30 * 24);
/// How much is kept unless the config says otherwise, in octets.
const OCTETS_MAX: u64 = 256 * 1024 * 1024;
/// Least that can be configured, in octets.
const OCTETS_FLOOR: u64 = 1024 * 1024;

/// `[trace]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTrace {
    keep: Option<Placed<Span>>,
    size: Option<Placed<Size>>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Events older than this go.
    pub keep: Duration,
    /// Beyond so many octets the oldest go.
    pub octets_max: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { keep: KEEP, octets_max: OCTETS_MAX }
    }
}

impl Rules {
    /// Checks the table.
    pub fn check(raw: &RawTrace, source: &Source) -> Result<Self, ConfigError> {
        let keep = match &raw.keep {
            None => KEEP,
            Some(written)
                if (Duration::from_hours(1)..=Duration::from_hours(3660 * 24)).contains(&written.get_ref().0) =>
            {
                written.get_ref().0
            }
            Some(written) => return Err(source.error(written, "out of range", "a time from \"1 h\" to \"3660 d\"")),
        };
        let octets_max = match &raw.size {
            None => OCTETS_MAX,
            Some(written) if written.get_ref().0 >= OCTETS_FLOOR => written.get_ref().0,
            Some(written) => return Err(source.error(written, "too small", "a size of at least \"1 MiB\"")),
        };
        Ok(Self { keep, octets_max })
    }
}

#[cfg(test)]
mod tests;
