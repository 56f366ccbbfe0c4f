//! `gatepost-home reload` and `drain`: a changed config for the running program, or its end.

use std::time::Duration;

use gatepost_runtime::config::ConfigError;
use gatepost_runtime::control::{self, ControlError};
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, text};
use crate::config::Config;

/// Time between two looks whether a program that drains has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn reload(context: &Context<'_>, json: bool) -> Result<(), Failure> {
    let state = Config::state_path(context.config, context.state)?;
    match control::ask(&state, &json!({ "command": "reload" })) {
        Ok(answer) => print(&if json { pretty(&answer) } else { for_people(&answer) }),
        // The words of `check`, or what this machine refuses.
        Err(ControlError::Refused(why)) => Err(ConfigError(why).into()),
        Err(error @ ControlError::NotRunning(_)) => Err(Failure::Failed(anyhow::anyhow!(
            "{error}; if `state` was changed in the config, name the one in force with --state"
        ))),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// Returns when the program has ended.
pub(super) fn drain(context: &Context<'_>) -> Result<(), Failure> {
    let state = Config::state_path(context.config, context.state)?;
    let ask = |command: &str| control::ask(&state, &json!({ "command": command }));
    ask("drain").map_err(anyhow::Error::from)?;
    eprintln!("draining: nothing new is taken, what runs may finish");
    while !matches!(ask("status"), Err(ControlError::NotRunning(_))) {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn for_people(answer: &Value) -> String {
    let changes = list(answer, "changes");
    let mut lines: Vec<String> = changes
        .iter()
        .map(|change| {
            let note = if change["needs_restart"] == true { " (needs a restart)" } else { "" };
            text(change, "what") + note + "\n"
        })
        .collect();
    if lines.is_empty() {
        lines.push("nothing has changed\n".to_owned());
    }
    lines.concat()
}
