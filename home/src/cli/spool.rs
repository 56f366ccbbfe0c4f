//! `gatepost-home spool`: mail that edges sealed while this home was away.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, table, text};

/// Sealed mail.
#[derive(Clone, Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SpoolCommand {
    /// List what every connected edge holds, oldest first, and what was set aside as damaged, there and here.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fetch now, wait, and show what came.
    Fetch {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Drop one sealed message for good: its sender was told that it is accepted.
    Drop {
        /// The edge that holds it.
        edge: String,
        /// Its id, as `list` shows it.
        id: String,
        /// Without asking.
        #[arg(long)]
        yes: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context<'_>, args: &SpoolArgs) -> Result<(), Failure> {
    match &args.command {
        SpoolCommand::List { json } => {
            let answer = context.ask("spool-list")?;
            print(&if *json { pretty(&answer) } else { for_people(&answer) })
        }
        SpoolCommand::Fetch { json } => fetch(context, *json),
        SpoolCommand::Drop { edge, id, yes, json } => {
            if !yes {
                confirm(edge, id)?;
            }
            let answer = context.ask_for(&json!({ "command": "spool-drop", "edge": edge, "transfer": id }))?;
            print(&if *json { pretty(&answer) } else { format!("dropped {id} for good\n") })
        }
    }
}

/// Page after page, so that somebody who watches sees it go on.
fn fetch(context: &Context<'_>, as_json: bool) -> Result<(), Failure> {
    let watched = io::stderr().is_terminal();
    let (mut taken, mut failed, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut after = Value::Null;
    loop {
        let answer = context.ask_for(&json!({ "command": "spool-fetch", "after": after }))?;
        let mut next = serde_json::Map::new();
        for edge in list(&answer, "edges") {
            let named = |entry: &Value| {
                let mut entry = entry.clone();
                entry["edge"] = edge["edge"].clone();
                entry
            };
            taken.extend(list(edge, "taken").iter().map(named));
            failed.extend(list(edge, "failed").iter().map(named));
            if edge["error"].is_string() {
                errors.push(json!({ "edge": edge["edge"], "error": edge["error"] }));
            }
            if let (Some(name), true) = (edge["edge"].as_str(), edge["next"].is_string()) {
                next.insert(name.to_owned(), edge["next"].clone());
            }
        }
        if watched {
            eprint!("\rfetched {} message(s)", taken.len());
        }
        if next.is_empty() {
            break;
        }
        after = Value::Object(next);
    }
    if watched {
        eprintln!();
    }
    let answer = json!({ "taken": taken, "failed": failed, "errors": errors });
    print(&if as_json { pretty(&answer) } else { fetched(&answer) })
}

fn fetched(answer: &Value) -> String {
    let row = |entry: &Value| {
        vec![text(entry, "edge"), text(entry, "transfer"), text(entry, "octets"), text(entry, "sealed")]
    };
    let mut shown =
        table(&["EDGE", "TRANSFER", "OCTETS", "SEALED"], list(answer, "taken").iter().map(row), "Nothing came.");
    for entry in list(answer, "failed") {
        let _ = writeln!(shown, "{} stays at {}: {}", text(entry, "transfer"), text(entry, "edge"), text(entry, "why"));
    }
    for edge in list(answer, "errors") {
        let _ = writeln!(shown, "{}: {}", text(edge, "edge"), text(edge, "error"));
    }
    shown
}

fn confirm(edge: &str, id: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody is there to ask; --yes drops it without asking".to_owned()));
    }
    eprint!(
        "The sender of {id} was told that it is accepted; nobody will get it back.\nDrop it at {edge} for good? [y/N] "
    );
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(anyhow::Error::from)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Usage("nothing was dropped".to_owned()))
    }
}

fn for_people(answer: &Value) -> String {
    let edges = list(answer, "edges");
    let held = edges.iter().flat_map(|edge| {
        list(edge, "entries").iter().map(|entry| {
            vec![text(edge, "edge"), text(entry, "transfer"), text(entry, "octets"), text(entry, "sealed")]
        })
    });
    let mut shown = table(&["EDGE", "TRANSFER", "OCTETS", "SEALED"], held, "No sealed mail waits.");
    for edge in edges.iter().filter(|edge| edge["error"].is_string()) {
        shown += &(text(edge, "edge") + ": " + &text(edge, "error") + "\n");
    }
    for edge in edges {
        for file in list(edge, "damaged") {
            let name = if file["transfer"].is_string() { text(file, "transfer") } else { text(file, "file") };
            let _ = writeln!(
                shown,
                "damaged at {}, set aside there: {name} ({} octets)",
                text(edge, "edge"),
                text(file, "octets")
            );
        }
        let shown_here = edge["entries"].as_array().map_or(0, Vec::len) as u64;
        if let Some(total) = edge["messages"].as_u64().filter(|total| *total > shown_here) {
            let _ = writeln!(shown, "{}: {} more", text(edge, "edge"), total - shown_here);
        }
    }
    for name in list(answer, "damaged").iter().filter_map(Value::as_str) {
        shown += &["set aside, could not be opened: damaged/", name, "\n"].concat();
    }
    shown
}
