//! `gatepost-home access`: from whom mail is taken whatever else is found, and from whom never.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{Context, Failure, list, pretty, print, table, text};
use crate::administration::{AccessRequest, Request};

/// The access list.
#[derive(Clone, Debug, Args)]
pub struct AccessArgs {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Access {
    /// Its mail is not refused, and its address, if it is one, never banned.
    Allow,
    /// Its mail is refused.
    Refuse,
}

#[derive(Clone, Debug, Subcommand)]
enum AccessCommand {
    /// Allow or refuse somebody; the most specific rule counts.
    Add {
        /// What is done.
        access: Access,
        /// A client's address or network (192.0.2.0/24), a sender's address, a sender's domain, or *.domain for those
        /// below it.
        subject: String,
        /// Only mail for this domain of yours.
        #[arg(long, value_name = "DOMAIN")]
        to: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the rules.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a rule.
    Remove {
        /// Its subject, as `list` shows it.
        subject: String,
        /// Its domain, if it has one.
        #[arg(long, value_name = "DOMAIN")]
        to: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context<'_>, args: AccessArgs) -> Result<(), Failure> {
    match args.command {
        AccessCommand::Add { access, subject, to, json } => {
            let allow = access == Access::Allow;
            let answer = context.administer(Request::Access(AccessRequest::Add { allow, subject, recipient: to }))?;
            let said = if allow { "allowed" } else { "refused" };
            print(&if json {
                pretty(&answer)
            } else {
                format!("{}{} is {said} now.\n", text(&answer, "subject"), to_whom(&answer))
            })
        }
        AccessCommand::List { json } => {
            let answer = context.administer(Request::Access(AccessRequest::List))?;
            let row = |rule: &Value| {
                let recipient = rule["recipient"].as_str().unwrap_or("all").to_owned();
                vec![text(rule, "access"), text(rule, "subject"), recipient, text(rule, "created")]
            };
            let rows = list(&answer, "rules").iter().map(row);
            print(&if json {
                pretty(&answer)
            } else {
                table(&["ACCESS", "WHO", "TO", "SINCE"], rows, "No rule yet: gatepost-home access add allow|refuse WHO")
            })
        }
        AccessCommand::Remove { subject, to, json } => {
            let answer = context.administer(Request::Access(AccessRequest::Remove { subject, recipient: to }))?;
            print(&if json {
                pretty(&answer)
            } else {
                format!("Removed {}{}.\n", text(&answer, "subject"), to_whom(&answer))
            })
        }
    }
}

fn to_whom(answer: &Value) -> String {
    answer["recipient"].as_str().map(|domain| format!(" for {domain}")).unwrap_or_default()
}
