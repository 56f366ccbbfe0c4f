//! `gatepost-home certificate`: new keys for the edges' certificates.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, text};

/// Keys of certificates.
#[derive(Clone, Debug, Args)]
pub struct CertificateArgs {
    #[command(subcommand)]
    command: CertificateCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum CertificateCommand {
    /// Make new keys at the edges, and print their TLSA records; they are used once the DNS has shown these long enough.
    Rotate {
        /// Only at this edge.
        #[arg(long, value_name = "NAME")]
        edge: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context<'_>, args: &CertificateArgs) -> Result<(), Failure> {
    let CertificateCommand::Rotate { edge, json } = &args.command;
    let answer = context.ask_for(&json!({ "command": "certificate-rotate", "edge": edge }))?;
    print(&if *json { pretty(&answer) } else { told(&answer) })
}

fn told(answer: &Value) -> String {
    let mut shown = String::new();
    for edge in list(answer, "edges") {
        if edge["error"].is_string() {
            let _ = writeln!(shown, "{}: {}", text(edge, "edge"), text(edge, "error"));
        }
        for record in list(edge, "records") {
            let _ = writeln!(shown, "{}. TLSA {}", text(record, "name"), text(record, "value"));
        }
    }
    shown += "\nPublish these beside the TLSA records that are there. Each key is used once the DNS has shown its record long enough \
              (two days, or what acme.rollover says at the edge); gatepost-home dns then leaves the old one out.\n";
    shown
}
