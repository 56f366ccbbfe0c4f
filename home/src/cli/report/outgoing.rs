//! `gatepost-home report outgoing`: what we tell other domains of mail in their name.

use clap::Args;
use serde_json::{Value, json};

use super::super::{Context, Failure, list, pretty, print, table, text};
use crate::reporting::{KEY, Request};

#[derive(Clone, Debug, Args)]
pub(super) struct OutgoingArgs {
    /// Print what will be sent to this domain, as it stands.
    domain: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context<'_>, args: &OutgoingArgs) -> Result<(), Failure> {
    let request = match &args.domain {
        None => Request::List,
        Some(domain) => Request::Show { domain: domain.clone() },
    };
    let answer = context.perform(&json!({ KEY: request }), |store, _, _| store.reporting.answer(&request))?;
    print(&match &args.domain {
        _ if args.json => pretty(&answer),
        None => for_people(&answer),
        Some(_) => list(&answer, "reports").iter().filter_map(Value::as_str).collect(),
    })
}

fn for_people(answer: &Value) -> String {
    let is_on = answer["dmarc_aggregate"] == true;
    let rows = list(answer, "reports").iter().map(|report| {
        let state = match &report["outcome"] {
            Value::String(outcome) => format!("{outcome}, {}", text(report, "closed")),
            _ if is_on => format!("goes out at {}", text(report, "due")),
            _ => "not sent: turned off".to_owned(),
        };
        let missed = if report["missed"] == 0 { String::new() } else { text(report, "missed") };
        vec![text(report, "day"), text(report, "domain"), text(report, "messages"), missed, state]
    });
    let none = if is_on {
        "Nothing to tell: no mail yet in the name of a domain that asks for reports."
    } else {
        "No domain is told of mail in its name: reports.dmarc_aggregate is not set in home.toml."
    };
    table(&["DAY", "DOMAIN", "MESSAGES", "MISSED", "STATE"], rows, none)
}
