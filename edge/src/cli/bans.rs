//! `gatepost-edge bans`: who is banned here.

use clap::{Args, Subcommand};
use gatepost_protocol::network::Network;
use gatepost_runtime::config::Span;
use serde_json::{Value, json};

use super::{Cli, Failure, table, text};

/// Bans.
#[derive(Debug, Args)]
pub(super) struct BansArgs {
    #[command(subcommand)]
    command: BansCommand,
}

#[derive(Debug, Subcommand)]
enum BansCommand {
    /// List those in force, the newest first.
    List,
    /// Ban an address or a network, for good or for a while.
    Add {
        /// Such as `192.0.2.7` or `2001:db8::/32`.
        network: Network,
        /// For how long, such as "2 d".
        #[arg(long = "for", value_name = "TIME")]
        span: Option<Span>,
    },
    /// Lift the bans of an address or a network, and forget its strikes.
    Lift {
        /// As `list` shows it, or an address in it.
        network: Network,
    },
}

pub(super) fn run(cli: &Cli, args: &BansArgs) -> Result<(), Failure> {
    match &args.command {
        BansCommand::List => {
            let list = cli.ask("bans-list")?;
            cli.show(&list, print_list);
        }
        BansCommand::Add { network, span } => {
            let for_s = span.map(|span| span.0.as_secs());
            let request = json!({ "command": "bans-add", "network": network.to_string(), "for_s": for_s });
            let answer = cli.ask_this(&request)?;
            cli.show(&answer, |answer| println!("{} is banned{}", text(&answer["network"]), until(answer)));
        }
        BansCommand::Lift { network } => {
            let answer = cli.ask_this(&json!({ "command": "bans-lift", "network": network.to_string() }))?;
            cli.show(&answer, |answer| {
                for network in answer["lifted"].as_array().into_iter().flatten() {
                    println!("{} is banned no more", text(network));
                }
            });
        }
    }
    Ok(())
}

fn print_list(list: &Value) {
    let mut shown = table(&["network", "for", "offence", "since", "until"]);
    let bans = list["bans"].as_array().map_or(&[][..], Vec::as_slice);
    for ban in bans {
        let until = ban["until"].as_str().unwrap_or("for good").to_owned();
        shown.add_row([text(&ban["network"]), text(&ban["kind"]), text(&ban["offence"]), text(&ban["since"]), until]);
    }
    println!("{shown}");
    if list["total"].as_u64().is_some_and(|total| total > bans.len() as u64) {
        eprintln!("note: {} bans in all; these are the newest", list["total"]);
    }
}

fn until(answer: &Value) -> String {
    answer["until"].as_str().map_or_else(|| " for good".to_owned(), |until| format!(" until {until}"))
}
