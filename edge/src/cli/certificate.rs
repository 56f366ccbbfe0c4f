//! `gatepost-edge certificate`: new keys for this edge's certificate.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Cli, Failure, text};

/// Keys of the certificate.
#[derive(Debug, Args)]
pub(super) struct CertificateArgs {
    #[command(subcommand)]
    command: CertificateCommand,
}

#[derive(Debug, Subcommand)]
enum CertificateCommand {
    /// Make new keys, and print their TLSA records; they are used once the DNS has shown these long enough.
    Rotate,
}

pub(super) fn run(cli: &Cli, args: &CertificateArgs) -> Result<(), Failure> {
    match args.command {
        CertificateCommand::Rotate => {
            let answer = cli.ask_this(&json!({ "command": "certificate-rotate" }))?;
            cli.show(&answer, |answer| {
                for record in answer["records"].as_array().into_iter().flatten() {
                    println!("{}. TLSA {}", text(&record["name"]), text(&record["value"]));
                }
                eprintln!("note: publish this beside the TLSA records that are there; the key is used once the DNS has shown it long enough");
            });
        }
    }
    Ok(())
}
