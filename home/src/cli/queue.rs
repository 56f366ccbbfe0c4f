//! `gatepost-home queue`: what waits to be sent. Asks the running program; while none runs, works on
//! the files under the lock of the state directory.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::control::{self, ControlError};
use gatepost_runtime::durable::StateLock;
use gatepost_runtime::steady;
use serde_json::{Value, json};

use crate::database::Database;
use crate::queue::Queue;
use crate::queue::command::{Command, Filter, Which};
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
    /// List messages that wait, the oldest first.
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Show at most so many (up to 1000).
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Pass over so many first.
        #[arg(long, default_value_t = 0)]
        skip: usize,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one message, how far each recipient has come, and what the last answer means.
    Show {
        /// Id as listed (its beginning is enough), or trace id.
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try now, without waiting for the next attempt; all messages if none is named.
    #[command(visible_alias = "retry")]
    Flush {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Try nothing until it is released.
    Hold(RequiredArgs),
    /// Let a held message go on.
    Release(RequiredArgs),
    /// Remove a message for good, telling nobody.
    Drop(RequiredArgs),
}

#[derive(Clone, Debug, Default, Args)]
struct FilterArgs {
    /// Messages with this recipient still to be reached.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// Messages of this sender ("" or "<>": reports, which have none).
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Messages with a recipient of this domain still to be reached.
    #[arg(long)]
    domain: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
struct WhichArgs {
    /// Id as listed (its beginning is enough), or trace id.
    #[arg(conflicts_with_all = ["all", "to", "from", "domain"])]
    id: Option<String>,
    /// Every message.
    #[arg(long, conflicts_with_all = ["to", "from", "domain"])]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// The same where to name nothing must not mean everything.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "all", "to", "from", "domain"])))]
struct RequiredArgs {
    #[command(flatten)]
    which: WhichArgs,
}

impl From<FilterArgs> for Which {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { to, from, domain } = args;
        if to.is_none() && from.is_none() && domain.is_none() {
            return Self::All;
        }
        let from = from.map(|from| from.trim_matches(['<', '>']).to_owned());
        Self::Those(Filter { to, from, domain, ..Filter::default() })
    }
}

impl From<WhichArgs> for Which {
    fn from(args: WhichArgs) -> Self {
        args.id.map_or_else(|| args.filter.into(), Self::One)
    }
}

/// Performs the command on this state directory. An error is for people: exit code 1.
pub fn run(args: QueueArgs, state: &Path, settings: Settings) -> anyhow::Result<()> {
    let as_json = match &args.command {
        QueueCommand::List { json, .. } | QueueCommand::Show { json, .. } => *json,
        QueueCommand::Flush { which } => which.json,
        QueueCommand::Hold(which) | QueueCommand::Release(which) | QueueCommand::Drop(which) => which.which.json,
    };
    let (command, view): (Command, fn(&Value) -> String) = match args.command {
        QueueCommand::List { filter, limit, skip, .. } => (Command::List { which: filter.into(), skip, limit }, table),
        QueueCommand::Show { id, .. } => (Command::Show { id }, story),
        QueueCommand::Flush { which } => (Command::Flush(which.into()), changed),
        QueueCommand::Hold(which) => (Command::Hold(which.which.into()), changed),
        QueueCommand::Release(which) => (Command::Release(which.which.into()), changed),
        QueueCommand::Drop(which) => (Command::Drop(which.which.into()), changed),
    };
    let answer = perform(command, state, settings)?;
    let view = if as_json { pretty } else { view };
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
            let database = Database::open(state)?;
            let clock = steady::resume(state, &Clock::real());
            let (queue, set_aside) = Queue::open(state, database, settings, Routes::default(), clock)?;
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
    let count = answer["changed"].as_u64().unwrap_or_default();
    let mut text = format!("{count} message{}\n", if count == 1 { "" } else { "s" });
    if let (Some(others @ 1..), Some(why)) = (answer["unchanged"].as_u64(), answer["why"].as_str()) {
        let _ = writeln!(text, "{others} could not be changed; the first: {why}");
    }
    text
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
        let more = message["more_recipients"].as_u64().unwrap_or_default();
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
        if more > 0 {
            table.add_row(["", "", "", "", &format!("and {more} more")]);
        }
    }
    format!("{table}\n{}", totals(answer, messages.len()))
}

/// What a listing of some says of all.
fn totals(answer: &Value, shown: usize) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let mut lines = String::new();
    let (fitting, skipped) = (number("fitting"), number("skipped"));
    let last = skipped + shown as u64;
    if (skipped, last) != (0, fitting) {
        let _ = writeln!(lines, "{} to {last} of {fitting} shown (--skip, --limit)", skipped + 1);
    }
    let _ = writeln!(lines, "{} in the queue, {} of them held", number("total"), number("held"));
    for destination in list(answer, "destinations") {
        let _ = writeln!(lines, "{}: {}", text(destination, "to"), pace(destination));
    }
    lines
}

/// Why mail for a destination waits.
fn pace(destination: &Value) -> String {
    let mut words = vec![format!("{} wait", destination["waiting"])];
    if let Some(seconds) = destination["left_alone_s"].as_u64() {
        words.push(format!("it can't be reached and is tried again in {} min", seconds.div_ceil(60)));
    }
    if let Some(per_minute) = destination["per_minute"].as_u64() {
        words.push(format!("it asks for less: held to {per_minute} a minute, {} at once", destination["at_once"]));
    }
    if let Some(reply) = destination["last"]["reply"].as_str() {
        words.push(format!("last: {reply}"));
    }
    words.join("; ")
}

fn story(entry: &Value) -> String {
    let mut lines = vec![
        format!("id        {}", text(entry, "id")),
        format!("trace     {}", text(entry, "trace")),
        format!("sender    <{}>", text(entry, "sender")),
        format!("login     {}", text(entry, "login")),
        format!("received  {}", text(entry, "received")),
        format!("octets    {}", entry["octets"]),
        format!("expires   {}", text(entry, "expires")),
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
        let means = &recipient["means"];
        if means.is_object() {
            lines.push(format!("          what it means: {}", text(means, "what")));
            lines.push(format!("          what to do:    {}", text(means, "remedy")));
        }
        if recipient["destination"].is_object() {
            let destination = &recipient["destination"];
            lines.push(format!("          {}: {}", text(destination, "to"), pace(destination)));
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
    fn commands_name_one_or_some_or_all() {
        for (line, is_good) in [
            ("queue list", true),
            ("queue list --json", true),
            ("queue list --domain example.com --limit 5 --skip 10", true),
            ("queue show 0101", true),
            ("queue show", false),
            ("queue retry", true),
            ("queue flush --all", true),
            ("queue flush --domain example.com", true),
            ("queue retry 0101 --all", false),
            ("queue hold", false),
            ("queue hold --from a@example.org --to b@example.com", true),
            ("queue drop 0101", true),
            ("queue drop --all --json", true),
            ("queue drop --json", false),
            ("queue drop 0101 --all", false),
            ("queue drop 0101 --to b@example.com", false),
            ("queue drop --all --to b@example.com", false),
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
        let list = || ask(Command::List { which: Which::All, skip: 0, limit: 50 }).expect("listed");
        let listed = table(&list());
        assert!(listed.contains("01010101") && listed.contains("bob@example.com"), "{listed}");
        assert!(listed.ends_with("1 in the queue, 0 of them held\n"), "{listed}");
        let shown = story(&ask(Command::Show { id: "0101".into() }).expect("shown"));
        assert!(shown.contains("recipient carol@example.com: waiting"), "{shown}");
        assert_eq!(changed(&ask(Command::Drop(Which::All)).expect("dropped")), "1 message\n");
        assert_eq!(table(&list()), "The queue is empty.\n");
        assert!(ask(Command::Show { id: "0101".into() }).is_err());
    }

    #[test]
    fn a_listing_of_some_says_how_many_there_are() {
        let state = tempfile::tempdir().expect("a folder");
        let (queue, _) = open(state.path());
        for n in 1..=5 {
            queue
                .prepare(new_entry(n, &["bob@example.com"]), &message())
                .expect("prepared")
                .commit()
                .expect("committed");
        }
        let some = queue.command(Command::List { which: Which::All, skip: 1, limit: 2 }).expect("listed");
        let text = table(&some);
        assert!(text.contains("02020202") && text.contains("03030303") && !text.contains("04040404"), "{text}");
        assert!(text.contains("2 to 3 of 5 shown"), "{text}");
    }
}
