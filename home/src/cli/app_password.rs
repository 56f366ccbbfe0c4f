//! `gatepost-home app-password`: generated passwords for single devices and programs.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Context, Failure, list, pretty, print, table, text};
use crate::administration::Request;

/// App passwords.
#[derive(Clone, Debug, Args)]
pub struct AppPasswordArgs {
    #[command(subcommand)]
    command: AppPasswordCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AppPasswordCommand {
    /// Make an app password and print it, once. It can only send mail, which is what an edge may see.
    Add {
        /// The account.
        address: String,
        /// A name for it, such as the device's.
        name: String,
        /// For everything, not only for sending: to be typed at home only.
        #[arg(long)]
        full: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List them, without the passwords.
    List {
        /// Of this account only.
        address: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke one: it is worth nothing from now on.
    Remove {
        /// The account.
        address: String,
        /// Its name.
        name: String,
    },
}

pub(super) fn run(context: &Context<'_>, args: AppPasswordArgs) -> Result<(), Failure> {
    match args.command {
        AppPasswordCommand::Add { address, name, full, json } => {
            let answer = context.administer(Request::AppPasswordAdd { address, name, full })?;
            if json {
                return print(&pretty(&answer));
            }
            let what = if full { "opens and sends mail" } else { "only sends mail" };
            eprintln!(
                "App password {:?} of {}; it {what}. Shown this once:",
                text(&answer, "name"),
                text(&answer, "login")
            );
            print(&format!("{}\n", text(&answer, "password")))
        }
        AppPasswordCommand::List { address, json } => {
            let answer = context.administer(Request::AppPasswordList { address })?;
            print(&if json { pretty(&answer) } else { for_people(&answer) })
        }
        AppPasswordCommand::Remove { address, name } => {
            let answer = context.administer(Request::AppPasswordRemove { address, name })?;
            print(&format!("Revoked {:?} of {}.\n", text(&answer, "name"), text(&answer, "login")))
        }
    }
}

fn for_people(answer: &Value) -> String {
    let rows = list(answer, "app_passwords")
        .iter()
        .map(|password| ["login", "name", "scope", "created", "last_used"].map(|name| text(password, name)).to_vec());
    table(
        &["ACCOUNT", "NAME", "CAN DO", "CREATED", "LAST LOGIN"],
        rows,
        "No app password yet: gatepost-home app-password add ADDRESS NAME",
    )
}
