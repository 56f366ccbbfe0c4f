//! `gatepost-home doctor --mail`: sends a probe to an echo service and waits for its answer.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::control;
use serde_json::{Value, json};

use super::{Failure, list, trace};
use crate::config::Config;
use crate::doctor::Finding;
use crate::doctor::probe::{self, Answers, Probe};
use crate::run::probe::{KEY, Request, WAIT_MAX};

/// After an answer that tells nothing another one may come within this time.
const SECOND_WAIT_MAX: Duration = Duration::from_secs(20);

/// What is sent.
pub(super) struct Sent<'a> {
    pub(super) to: &'a str,
    pub(super) from: Option<&'a str>,
    pub(super) wait: Duration,
}

pub(super) fn run(config: &Config, sent: &Sent<'_>) -> Result<Vec<Finding>, Failure> {
    if sent.wait > WAIT_MAX {
        return Err(Failure::Usage(format!("--wait: at most {} min", WAIT_MAX.as_secs() / 60)));
    }
    let ask = |request: Request| control::ask(&config.state, &json!({ KEY: request }));
    let (clock, most_s) = (Clock::real(), sent.wait.as_secs());
    let begun = clock.now();
    let request = Request::Send { to: sent.to.to_owned(), from: sent.from.map(str::to_owned), wait_s: most_s };
    let probe: Probe = serde_json::from_value(ask(request).map_err(anyhow::Error::from)?)
        .context("the running home is another version")?;
    if std::io::stderr().is_terminal() {
        eprintln!(
            "sent to {} from {}, trace {}; waiting for the answer, {most_s} s at most",
            probe.to, probe.from, probe.trace
        );
    }
    let (mut answers, mut seen, mut until) = (Answers::default(), 0, begun + sent.wait);
    while !answers.is_settled() && clock.now() < until {
        // Its time over, the home keeps nothing for it any more.
        let left = until.saturating_duration_since(clock.now());
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let Ok(found) = ask(Request::Look { token: probe.token.clone(), seen, wait_ms }) else { break };
        for message in list(&found, "answers").iter().filter_map(Value::as_str) {
            seen += 1;
            answers.add(&probe, &STANDARD.decode(message).unwrap_or_default());
            if answers.is_answered() {
                until = until.min(clock.now() + SECOND_WAIT_MAX);
            }
        }
    }
    // It forgets by itself, too.
    let _ = ask(Request::End { token: probe.token.clone() });
    let stands = trace::stands(config, &probe.trace)?;
    let waited_s = clock.now().saturating_duration_since(begun).as_secs();
    Ok(probe::findings(&probe, &answers, &stands, waited_s))
}
