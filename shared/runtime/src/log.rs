//! Logs: one event a line, structured, the trace id always under `trace`. To stderr: readable on a
//! terminal, plain otherwise, JSON with `GATEPOST_LOG_FORMAT=json`. Never a password, never a body. What
//! `trace` and the metrics are made of is captured beside it, whatever the filter shows.

use std::env;
use std::io::{IsTerminal, stderr};
use std::panic;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::clock::Clock;
use crate::event::{self, Events};

/// Says which events are logged, in the form of `RUST_LOG` without spans: levels, and levels of targets.
const FILTER: &str = "GATEPOST_LOG";
/// `json`, or nothing for text.
const FORMAT: &str = "GATEPOST_LOG_FORMAT";
/// Set by systemd for programs whose stderr is the journal, which has its own clock.
const JOURNAL: &str = "JOURNAL_STREAM";
/// Ours at `info`; from the libraries only what somebody should look at.
const DEFAULT_FILTER: &str = "warn,gatepost=info,gatepost_edge=info,gatepost_home=info,gatepost_runtime=info,gatepost_protocol=info,hickory_net=error,hickory_resolver=error";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// In colour, for people.
    Terminal,
    /// One plain line an event.
    Plain,
    /// The same without the time, which the journal adds.
    Journal,
    /// One object an event.
    Json,
}

/// Starts logging, for the whole program. Filter as of `RUST_LOG` in `GATEPOST_LOG`, default `info` for
/// what is ours. A panic is logged as well. Gives the events that are kept: lines about a message, and those
/// whose words are in `named`. A second call does nothing and gives none.
pub fn start(named: &'static [&'static str]) -> Option<Events> {
    let wanted = env::var(FILTER).ok();
    let (filter, complaint) = filter(wanted.as_deref());
    let format = format(
        env::var(FORMAT).ok().as_deref(),
        stderr().is_terminal() && env::var_os("NO_COLOR").is_none(),
        env::var_os(JOURNAL).is_some(),
    );
    let lines = fmt::layer().with_writer(stderr).with_target(false);
    let lines = match format {
        Format::Terminal => lines.with_ansi(true).boxed(),
        Format::Plain => lines.with_ansi(false).boxed(),
        Format::Journal => lines.with_ansi(false).without_time().boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let (capture, events) = event::capture(named, Clock::real());
    registry().with(lines.with_filter(filter)).with(capture).try_init().ok()?;
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("without a word");
        tracing::error!(at, "panicked: {said}; this is a bug of Gatepost's, please report it");
    }));
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    Some(events)
}

/// The filter, and what is wrong with the one that was asked for.
fn filter(wanted: Option<&str>) -> (Targets, Option<String>) {
    let default = || DEFAULT_FILTER.parse().expect("a test reads it");
    match wanted {
        None | Some("") => (default(), None),
        Some(wanted) => match wanted.parse() {
            Ok(filter) => (filter, None),
            Err(error) => {
                (default(), Some(format!("{FILTER}={wanted} is no filter ({error}); write one such as {FILTER}=debug")))
            }
        },
    }
}

fn format(wanted: Option<&str>, terminal: bool, journal: bool) -> Format {
    match wanted {
        Some("json") => Format::Json,
        _ if terminal => Format::Terminal,
        _ if journal => Format::Journal,
        _ => Format::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_decides_the_format_and_json_is_asked_for() {
        assert_eq!(format(None, true, false), Format::Terminal);
        assert_eq!(format(None, false, true), Format::Journal);
        assert_eq!(format(None, false, false), Format::Plain);
        assert_eq!(format(Some("json"), true, true), Format::Json);
    }

    #[test]
    fn a_bad_filter_is_complained_of_and_the_default_serves() {
        let (used, complaint) = filter(Some("gatepost=loud"));
        assert_eq!(used, DEFAULT_FILTER.parse().unwrap());
        assert!(complaint.unwrap().starts_with("GATEPOST_LOG=gatepost=loud is no filter"));
        assert!(filter(Some("debug")).1.is_none());
        assert!(filter(Some("")).1.is_none());
    }

    #[test]
    fn by_default_ours_is_told_and_chatter_is_not() {
        let (default, complaint) = filter(None);
        assert!(complaint.is_none());
        assert!(default.would_enable("gatepost_edge::session", &tracing::Level::INFO));
        assert!(!default.would_enable("gatepost_edge::session", &tracing::Level::DEBUG));
        assert!(!default.would_enable("hickory_net::udp", &tracing::Level::WARN));
    }
}
