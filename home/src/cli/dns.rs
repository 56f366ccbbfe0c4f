//! `gatepost-home dns`: every DNS record the domains need.

use clap::Args;
use gatepost_protocol::mail::address::Domain;
use serde_json::json;

use super::{Context, Failure, pretty, print};
use crate::records::{self, Record, written};
use crate::run::records::{KEY, Request, alone};

/// DNS records.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct DnsArgs {
    /// Of this domain only.
    domain: Option<String>,
    /// As a fragment of a zone file.
    #[arg(long, conflicts_with_all = ["table", "json"])]
    zone: bool,
    /// As a table (as without any of these).
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// As they should be once mail has passed for a while: others may refuse what is not from here.
    #[arg(long)]
    tested: bool,
    /// Of a domain that neither sends nor receives mail.
    #[arg(long, requires = "domain", conflicts_with = "tested")]
    parked: bool,
}

pub(super) fn run(context: &Context<'_>, args: DnsArgs) -> Result<(), Failure> {
    let records: Vec<Record> = match &args.domain {
        Some(domain) if args.parked => {
            let domain = Domain::parse(domain).map_err(|error| Failure::Usage(format!("{domain}: {error}")))?;
            records::of_parked(&domain)
        }
        _ => {
            let request = Request { domain: args.domain, tested: args.tested };
            let mut answer = context.perform(&json!({ KEY: request }), |store, config, _| {
                eprintln!("note: the home does not run, so nothing is known of its edges");
                alone(store, config, &request)
            })?;
            serde_json::from_value(answer["records"].take()).map_err(anyhow::Error::from)?
        }
    };
    if args.json {
        return print(&pretty(&json!({ "records": records })));
    }
    print(&if args.zone { written::zone(&records) } else { written::table(&records) })
}
