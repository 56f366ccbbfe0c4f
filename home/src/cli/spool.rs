//! `gatepost-home spool`: mail that edges sealed while this home was away.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, Failure, list, pretty, print, table, text};

/// Sealed mail.
#[derive(Clone, Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SpoolCommand {
    /// List what every connected edge holds, oldest first, and what was set aside here.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context<'_>, args: &SpoolArgs) -> Result<(), Failure> {
    let SpoolCommand::List { json } = args.command;
    let answer = context.ask("spool-list")?;
    print(&if json { pretty(&answer) } else { for_people(&answer) })
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
    for name in list(answer, "damaged").iter().filter_map(Value::as_str) {
        shown += &["set aside, could not be opened: damaged/", name, "\n"].concat();
    }
    shown
}
