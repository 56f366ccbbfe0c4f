//! `gatepost-home alias`: addresses that lead to accounts.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, Failure, list, pretty, print, table, text};
use crate::administration::Request;

/// Aliases.
#[derive(Clone, Debug, Args)]
pub struct AliasArgs {
    #[command(subcommand)]
    command: AliasCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AliasCommand {
    /// Let an address lead to accounts or other aliases; more targets are added to those there are.
    Add {
        /// The address, or `@domain` for every address of it that leads nowhere else.
        source: String,
        /// Where it leads.
        #[arg(required = true)]
        targets: Vec<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the aliases.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an alias, or only one of its targets.
    Remove {
        /// The address, or `@domain`.
        source: String,
        /// Only this target.
        target: Option<String>,
    },
}

pub(super) fn run(context: &Context<'_>, args: AliasArgs) -> Result<(), Failure> {
    match args.command {
        AliasCommand::Add { source, targets, json } => {
            let answer = context.administer(Request::AliasAdd { source, targets })?;
            print(&if json {
                pretty(&answer)
            } else {
                format!("{} leads to {}\n", text(&answer, "source"), targets_of(&answer))
            })
        }
        AliasCommand::List { json } => {
            let answer = context.administer(Request::AliasList)?;
            print(&if json { pretty(&answer) } else { for_people(&answer) })
        }
        AliasCommand::Remove { source, target } => {
            let answer = context.administer(Request::AliasRemove { source, target })?;
            print(&format!("Removed {}.\n", text(&answer, "source")))
        }
    }
}

fn for_people(answer: &Value) -> String {
    let rows = list(answer, "aliases").iter().map(|alias| vec![text(alias, "source"), targets_of(alias)]);
    table(&["ALIAS", "LEADS TO"], rows, "No alias yet: gatepost-home alias add ADDRESS TARGET…")
}

fn targets_of(alias: &Value) -> String {
    list(alias, "targets").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}
