//! `gatepost-home bans`: who is banned at the edges.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use gatepost_protocol::network::Network;
use gatepost_runtime::config::Span;
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, table, text};

/// Bans.
#[derive(Clone, Debug, Args)]
pub struct BansArgs {
    #[command(subcommand)]
    command: BansCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum BansCommand {
    /// List those in force, the newest first.
    List(Common),
    /// Ban an address or a network, for good or for a while.
    Add {
        /// Such as `192.0.2.7` or `2001:db8::/32`.
        network: Network,
        /// For how long, such as "2 d".
        #[arg(long = "for", value_name = "TIME")]
        span: Option<Span>,
        #[command(flatten)]
        common: Common,
    },
    /// Lift the bans of an address or a network, and forget its strikes.
    Lift {
        /// As `list` shows it, or an address in it.
        network: Network,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Only at this edge.
    #[arg(long, value_name = "NAME")]
    edge: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context<'_>, args: &BansArgs) -> Result<(), Failure> {
    let (common, request) = match &args.command {
        BansCommand::List(common) => (common, json!({ "command": "bans-list", "edge": common.edge })),
        BansCommand::Add { network, span, common } => {
            let for_s = span.map(|span| span.0.as_secs());
            let network = network.to_string();
            (common, json!({ "command": "bans-add", "edge": common.edge, "network": network, "for_s": for_s }))
        }
        BansCommand::Lift { network, common } => {
            (common, json!({ "command": "bans-lift", "edge": common.edge, "network": network.to_string() }))
        }
    };
    let answer = context.ask_for(&request)?;
    let shown = match (&args.command, common.json) {
        (_, true) => pretty(&answer),
        (BansCommand::List(_), _) => listed(&answer),
        _ => changed(&answer),
    };
    print(&shown)
}

fn listed(answer: &Value) -> String {
    let edges = list(answer, "edges");
    let rows = edges.iter().flat_map(|edge| {
        list(edge, "bans").iter().map(|ban| {
            let until = ban["until"].as_str().unwrap_or("for good").to_owned();
            vec![
                text(edge, "edge"),
                text(ban, "network"),
                text(ban, "kind"),
                text(ban, "offence"),
                text(ban, "since"),
                until,
            ]
        })
    });
    let mut shown = table(&["EDGE", "NETWORK", "FOR", "OFFENCE", "SINCE", "UNTIL"], rows, "Nobody is banned.");
    for edge in edges {
        if edge["total"].as_u64().is_some_and(|total| total > list(edge, "bans").len() as u64) {
            let _ =
                writeln!(shown, "{}: {} bans in all; these are the newest", text(edge, "edge"), text(edge, "total"));
        }
    }
    shown + &errors(answer)
}

fn changed(answer: &Value) -> String {
    let mut shown = String::new();
    for edge in list(answer, "edges").iter().filter(|edge| edge["error"].is_null()) {
        let at = text(edge, "edge");
        if edge["network"].is_string() {
            let until = edge["until"].as_str().map_or_else(|| "for good".to_owned(), |until| format!("until {until}"));
            let _ = writeln!(shown, "{} is banned at {at} {until}", text(edge, "network"));
        }
        for network in list(edge, "lifted").iter().filter_map(Value::as_str) {
            let _ = writeln!(shown, "{network} is banned at {at} no more");
        }
    }
    shown + &errors(answer)
}

fn errors(answer: &Value) -> String {
    let failed = list(answer, "edges").iter().filter(|edge| edge["error"].is_string());
    failed.fold(String::new(), |all, edge| all + &text(edge, "edge") + ": " + &text(edge, "error") + "\n")
}
