//! `gatepost-home queue`: what waits to be sent. Asks the running program; while none runs, works on
//! the files under the lock of the state directory.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::control::{self, ControlError};
use gatepost_runtime::durable::StateLock;
use serde_json::{Value, json};

use crate::queue::Queue;
use crate::queue::command::{Command, Which};
use crate::queue::config::Settings;
use crate::queue::next_hop::Routes;

/// Letters of an id that a listing shows: enough to name it.
const ID_LETTERS: usize = 8;

/// What waits to be sent.
#[derive(Clone, Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum QueueCommand {
    /// List every message that waits.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one message and how far each recipient has come.
    Show {
        /// Id as listed (its beginning is enough), or trace id.
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try now, without waiting for the next attempt; all messages if none is named.
    #[command(visible_alias = "flush")]
    Retry {
        /// Id as listed (its beginning is enough), or trace id.
        #[arg(conflicts_with = "all")]
        id: Option<String>,
        /// Every message.
        #[arg(long)]
        all: bool,
    },
    /// Try nothing until it is released.
    Hold(WhichArgs),
    /// Let a held message go on.
    Release(WhichArgs),
    /// Remove a message for good, telling nobody.
    Drop(WhichArgs),
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// Id as listed (its beginning is enough), or trace id.
    id: Option<String>,
    /// Every message.
    #[arg(long)]
    all: bool,
}

impl From<WhichArgs> for Which {
    fn from(args: WhichArgs) -> Self {
        args.id.map_or(Self::All, Self::One)
    }
}

/// Performs the command on this state directory. An error is for people: exit code 1.
pub fn run(args: QueueArgs, state: &Path, settings: Settings) -> anyhow::Result<()> {
    let (command, view): (Command, fn(&Value) -> String) = match args.command {
        QueueCommand::List { json: true } => (Command::List, pretty),
        QueueCommand::List { json: false } => (Command::List, table),
        QueueCommand::Show { id, json: true } => (Command::Show { id }, pretty),
        QueueCommand::Show { id, json: false } => (Command::Show { id }, story),
        QueueCommand::Retry { id, .. } => (Command::Retry(id.map_or(Which::All, Which::One)), changed),
        QueueCommand::Hold(which) => (Command::Hold(which.into()), changed),
        QueueCommand::Release(which) => (Command::Release(which.into()), changed),
        QueueCommand::Drop(which) => (Command::Drop(which.into()), changed),
    };
    let answer = perform(command, state, settings)?;
    match io::stdout().write_all(view(&answer).as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Performs one command by the running program, or on the files while none runs.
pub(super) fn perform(command: Command, state: &Path, settings: Settings) -> anyhow::Result<Value> {
    match control::ask(state, &json!({ "queue": command })) {
        Ok(answer) => Ok(answer),
        Err(ControlError::NotRunning(_)) => {
            let _lock = StateLock::take(state)?;
            let (queue, set_aside) = Queue::open(state, settings, Routes::default(), Clock::real())?;
            for file in set_aside {
                eprintln!("set aside in queue/damaged: {}: {}", file.name, file.why);
            }
            queue.command(command).map_err(anyhow::Error::msg)
        }
        Err(error) => Err(error.into()),
    }
}

fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}

fn changed(answer: &Value) -> String {
    let count = answer["changed"].as_array().map_or(0, Vec::len);
    format!("{count} message{}\n", if count == 1 { "" } else { "s" })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("-")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn table(answer: &Value) -> String {
    let messages = list(answer, "messages");
    if messages.is_empty() {
        return "The queue is empty.\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["ID", "RECEIVED", "OCTETS", "SENDER", "RECIPIENT", "STATE", "NEXT", "LAST ANSWER"]);
    for message in messages {
        let id = text(message, "id");
        let next = if message["held"].is_string() { "held" } else { text(message, "next") };
        for (nth, recipient) in list(message, "recipients").iter().enumerate() {
            let once = |value: String| if nth == 0 { value } else { String::new() };
            table.add_row([
                once(id.get(..ID_LETTERS).unwrap_or(id).to_owned()),
                once(text(message, "received").to_owned()),
                once(message["octets"].to_string()),
                once(format!("<{}>", text(message, "sender"))),
                text(recipient, "address").to_owned(),
                text(recipient, "state").to_owned(),
                once(next.to_owned()),
                text(recipient, "last").to_owned(),
            ]);
        }
    }
    format!("{table}\n")
}

fn story(entry: &Value) -> String {
    let mut lines = vec![
        format!("id        {}", text(entry, "id")),
        format!("trace     {}", text(entry, "trace")),
        format!("sender    <{}>", text(entry, "sender")),
        format!("login     {}", text(entry, "login")),
        format!("received  {}", text(entry, "received")),
        format!("octets    {}", entry["octets"]),
    ];
    if let Some(why) = entry["held"].as_str() {
        lines.push(format!("held      {why}"));
    }
    for attempt in list(entry, "attempts") {
        let by = attempt["edge"]["name"].as_str().unwrap_or("the home");
        lines.push(format!("attempt   {} by {by}, since {}", text(attempt, "id"), text(attempt, "since")));
        if let Some(lost) = attempt["lost"].as_str() {
            lines.push(format!("          in doubt since {lost}"));
        }
    }
    for recipient in list(entry, "recipients") {
        lines.push(format!("recipient {}: {}", text(recipient, "address"), text(recipient, "state")));
        if let Some(attempts) = recipient["attempts"].as_u64() {
            lines.push(format!("          {attempts} attempts so far, next {}", text(recipient, "next")));
        }
        let last = &recipient["last"];
        if last.is_object() {
            let remote = last["remote"].as_str().unwrap_or("ourselves");
            let words: Vec<&str> = list(&last["reply"], "lines").iter().filter_map(Value::as_str).collect();
            let code = &last["reply"]["code"];
            lines.push(format!("          {}, {remote}: {code} {}", text(last, "at"), words.join(" ")));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::queue::tests::{message, new_entry, open, settings};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: QueueArgs,
    }

    fn parse(line: &str) -> Result<QueueCommand, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.args.command)
    }

    #[test]
    fn commands_name_one_or_all() {
        for (line, is_good) in [
            ("queue list", true),
            ("queue list --json", true),
            ("queue show 0101", true),
            ("queue show", false),
            ("queue retry", true),
            ("queue flush --all", true),
            ("queue retry 0101 --all", false),
            ("queue hold", false),
            ("queue drop 0101", true),
            ("queue drop --all", true),
            ("queue drop 0101 --all", false),
            ("queue fly", false),
        ] {
            assert_eq!(parse(line).is_ok(), is_good, "{line}");
        }
    }

    #[test]
    fn without_a_running_program_the_files_are_asked() {
        let state = tempfile::tempdir().expect("a folder");
        let (queue, _) = open(state.path());
        let entry = new_entry(1, &["bob@example.com", "carol@example.com"]);
        queue.prepare(entry, &message()).expect("prepared").commit().expect("committed");
        drop(queue);
        let ask = |command| perform(command, state.path(), settings());
        let listed = table(&ask(Command::List).expect("listed"));
        assert!(listed.contains("01010101") && listed.contains("bob@example.com"), "{listed}");
        let shown = story(&ask(Command::Show { id: "0101".into() }).expect("shown"));
        assert!(shown.contains("recipient carol@example.com: waiting"), "{shown}");
        assert_eq!(changed(&ask(Command::Drop(Which::All)).expect("dropped")), "1 message\n");
        assert_eq!(table(&ask(Command::List).expect("listed")), "The queue is empty.\n");
        assert!(ask(Command::Show { id: "0101".into() }).is_err());
    }
}
