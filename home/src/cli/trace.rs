//! `gatepost-home trace`: what happened to a message, told from both machines. Reads `trace.db`, beside the running
//! program or without it.

use clap::Args;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::Span;
use gatepost_runtime::control;
use serde_json::{Value, json};

use super::{Context, Failure, pretty, print, queue};
use crate::config::Config;
use crate::doctor::probe::Stands;
use crate::queue::command::{Command, Filter, LISTED_MAX, Which};
use crate::trace::store::{Kept, Reader};
use crate::trace::story;

/// What happened to a message.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Trace id, Message-ID, queue id, or sender or recipient; a part is enough.
    what: String,
    /// Only messages of which something happened in this time, such as "2 h" or "7 d".
    #[arg(long, value_name = "TIME")]
    since: Option<Span>,
    /// At most so many messages, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Where one message stands: its end as far as it is known, whether a host elsewhere took it, and what to do about what
/// keeps it.
pub(super) fn stands(config: &Config, trace: &str) -> anyhow::Result<Stands> {
    let _ = control::ask(&config.state, &json!({ "command": "trace-flush" }));
    let failed = |error: rusqlite::Error| anyhow::anyhow!("trace.db can't be read: {error}");
    let reader = Reader::open(&config.state).map_err(failed)?;
    let steps = reader.map_or_else(|| Ok(Vec::new()), |reader| reader.of(trace)).map_err(failed)?;
    // It is not in the queue: nothing keeps it there.
    let ask = |command| queue::perform(command, &config.state, config.queue.clone()).ok();
    let listed = ask(Command::List { which: Which::One(trace.to_owned()), skip: 0, limit: 1 });
    let entry = listed.as_ref().map(|listed| &listed["messages"][0]);
    let shown = ask(Command::Show { id: trace.to_owned() });
    let now_unix_ms = i64::try_from(Clock::real().unix().as_millis()).unwrap_or(i64::MAX);
    let recipients = shown.as_ref().and_then(|entry| entry["recipients"].as_array());
    let means = recipients.into_iter().flatten().find_map(|recipient| recipient["means"]["remedy"].as_str());
    Ok(Stands {
        told: story::fate(&steps, entry, now_unix_ms),
        taken: steps.iter().any(|step| step.what == "sent"),
        remedy: means.map(str::to_owned),
    })
}

pub(super) fn run(context: &Context<'_>, args: &TraceArgs) -> Result<(), Failure> {
    let config = context.load()?;
    let state = &config.state;
    // What was said a moment ago is still on its way to the disk. Without a running program there is nothing to wait for.
    let _ = control::ask(state, &json!({ "command": "trace-flush" }));
    let failed = |error: rusqlite::Error| anyhow::anyhow!("trace.db can't be read: {error}");
    let part = args.what.trim_matches(['<', '>']);
    let now_unix_ms = i64::try_from(Clock::real().unix().as_millis()).unwrap_or(i64::MAX);
    let since = args
        .since
        .map_or(i64::MIN, |since| now_unix_ms.saturating_sub(i64::try_from(since.0.as_millis()).unwrap_or(i64::MAX)));
    let mut stories: Vec<(String, Vec<Kept>)> = Vec::new();
    if let Some(reader) = Reader::open(state).map_err(failed)? {
        let fits = |kept: &Kept| story::mentions(kept, part);
        for trace in reader.find(part, since, args.limit, fits).map_err(failed)? {
            let steps = reader.of(&trace).map_err(failed)?;
            stories.push((trace, steps));
        }
    }
    // The newest stands last, where a terminal ends.
    stories.reverse();
    let mut waiting = None;
    if stories.iter().any(|(_, steps)| story::is_queued(steps)) {
        let traces = stories.iter().map(|(trace, _)| trace.clone()).collect();
        let which = Which::Those(Filter { traces, ..Filter::default() });
        match queue::perform(Command::List { which, skip: 0, limit: LISTED_MAX }, state, config.queue) {
            Ok(listed) => waiting = Some(listed),
            Err(error) => eprintln!("note: the queue can't be asked: {error:#}"),
        }
    }
    let entry = |trace: &str| -> Option<&Value> {
        waiting.as_ref()?["messages"].as_array()?.iter().find(|entry| entry["trace"] == trace)
    };
    let told: Vec<(String, Vec<Kept>, Vec<String>)> = stories
        .into_iter()
        .map(|(trace, steps)| {
            let fate = story::fate(&steps, entry(&trace), now_unix_ms);
            (trace, steps, fate)
        })
        .collect();
    if args.json {
        let all: Vec<Value> = told.iter().map(|(trace, steps, fate)| story::json(trace, steps, fate)).collect();
        return print(&pretty(&json!({ "messages": all })));
    }
    if told.is_empty() {
        return print(&format!("Nothing is known of \"{}\".\n", args.what));
    }
    let texts: Vec<String> = told.iter().map(|(trace, steps, fate)| story::told(trace, steps, fate)).collect();
    print(&texts.join("\n"))
}
