//! `gatepost-home dkim`: the keys that sign mail, and new ones in their place.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, table, text};
use crate::signing::rotation::{KEY, Request};

/// Keys that sign mail.
#[derive(Clone, Debug, Args)]
pub struct DkimArgs {
    #[command(subcommand)]
    command: DkimCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum DkimCommand {
    /// List the keys and where each stands; a running home looks for the records of those that wait.
    List {
        /// Of this domain only.
        domain: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make new keys. Each signs once the DNS shows its record; until then the old one does.
    Rotate {
        /// For this domain only.
        domain: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context<'_>, args: DkimArgs) -> Result<(), Failure> {
    let (request, json) = match args.command {
        DkimCommand::List { domain, json } => (Request::List { domain }, json),
        DkimCommand::Rotate { domain, json } => (Request::Rotate { domain }, json),
    };
    // Alone it asks no DNS.
    let answer = context.perform(&json!({ KEY: request }), |store, _, _| {
        store.signing.begin(&request)?;
        store.signing.list(&request)
    })?;
    if json {
        return print(&pretty(&answer));
    }
    if matches!(request, Request::Rotate { .. }) {
        eprintln!(
            "New keys are made. Publish the records of those that wait; once the DNS shows them, the home signs with \
             them by itself. The old records stay for a week after that: \"gatepost-home dns\" lists all there must be."
        );
    }
    print(&for_people(&answer))
}

fn for_people(answer: &Value) -> String {
    let rows = list(answer, "keys").iter().map(|key| {
        let state = match key["state"].as_str() {
            Some("waiting") => "waits for its record".to_owned(),
            Some("signs") => format!("signs since {}", text(key, "since")),
            Some("retired") => format!("signed until {}", text(key, "since")),
            _ => text(key, "state"),
        };
        vec![text(key, "domain"), text(key, "selector"), text(key, "algorithm"), state]
    });
    let mut shown = table(&["DOMAIN", "SELECTOR", "ALGORITHM", "STATE"], rows, "No key: no domain.");
    for key in list(answer, "keys").iter().filter(|key| key["state"] == "waiting") {
        shown += &["\n", &text(key, "name"), ". TXT\n  ", &text(key, "record"), "\n"].concat();
    }
    shown
}
