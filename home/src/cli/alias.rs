//! `gatepost-home alias`: addresses that lead to accounts, to other addresses, to other hosts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gatepost_protocol::mail::srs::LIFETIME_DAYS;
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, table, text};
use crate::accounts::alias_file::{self, FILE_OCTETS_MAX};
use crate::administration::Request;

/// Aliases.
#[derive(Clone, Debug, Args)]
pub struct AliasArgs {
    #[command(subcommand)]
    command: AliasCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AliasCommand {
    /// Let an address lead to accounts, other aliases or addresses elsewhere; more targets are added to those there are.
    Add {
        /// The address; a local name such as `root`; a pattern such as `/shop-.*/@example.org`; or `@domain` for every
        /// address of it that leads nowhere else.
        source: String,
        /// Where it leads.
        #[arg(required = true)]
        targets: Vec<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show where one alias leads.
    Show {
        /// The alias.
        source: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say where mail for an address would go, and by which rule.
    Test {
        /// The address, or a local name.
        address: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Add all aliases of a file, or none if one of them is wrong.
    Import {
        /// TOML, as `export` writes it; `-` for stdin.
        file: PathBuf,
        /// Remove the aliases that are not in it.
        #[arg(long)]
        replace: bool,
    },
    /// Print all aliases as TOML, for `import`.
    Export,
    /// Make new keys for the return paths of forwarded mail; the old ones count until they expire.
    RotateKeys,
    /// List the aliases.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an alias, or only one of its targets.
    Remove {
        /// The alias.
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
        AliasCommand::Show { source, json } => {
            let answer = context.administer(Request::AliasShow { source })?;
            print(&if json {
                pretty(&answer)
            } else {
                format!("{} leads to {}\n", text(&answer, "source"), targets_of(&answer))
            })
        }
        AliasCommand::Test { address, json } => {
            let answer = context.administer(Request::AliasTest { address })?;
            print(&if json { pretty(&answer) } else { tested(&answer) })
        }
        AliasCommand::Import { file, replace } => {
            let file = read(&file)?;
            let answer = context.administer(Request::AliasImport { file, replace })?;
            print(&format!("Imported; there are {} aliases now.\n", text(&answer, "aliases")))
        }
        AliasCommand::Export => {
            let answer = context.administer(Request::AliasExport)?;
            print(answer["file"].as_str().unwrap_or_default())
        }
        AliasCommand::RotateKeys => {
            context.administer(Request::AliasRotateKeys)?;
            print(&format!(
                "New keys are in use. What was forwarded with the old ones can bounce for {LIFETIME_DAYS} days more.\n"
            ))
        }
        AliasCommand::List { json } => {
            let answer = context.administer(Request::AliasExport)?;
            let file = answer["file"].as_str().unwrap_or_default();
            let aliases = alias_file::parse(file).map_err(anyhow::Error::from)?.into_iter().map(|(_, alias)| alias);
            print(&if json {
                let list = aliases.map(|alias| json!({ "source": alias.source, "targets": alias.targets }));
                pretty(&json!({ "aliases": list.collect::<Vec<_>>() }))
            } else {
                let rows = aliases.map(|alias| vec![alias.source, alias.targets.join(", ")]);
                table(&["ALIAS", "LEADS TO"], rows, "No alias yet: gatepost-home alias add ADDRESS TARGET…")
            })
        }
        AliasCommand::Remove { source, target } => {
            let answer = context.administer(Request::AliasRemove { source, target })?;
            print(&format!("Removed {}.\n", text(&answer, "source")))
        }
    }
}

fn targets_of(alias: &Value) -> String {
    list(alias, "targets").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// `shop-7@example.org: pattern /shop-.*/@example.org`, then a line for each place.
fn tested(answer: &Value) -> String {
    let alias = answer["alias"].as_str().map(|alias| format!(" {alias}")).unwrap_or_default();
    let mut shown = format!("{}: {}{alias}\n", text(answer, "address"), text(answer, "rule"));
    for (name, how) in [("mailboxes", "to the mailbox of"), ("forwards", "on to")] {
        for end in list(answer, name).iter().filter_map(Value::as_str) {
            shown += &["  ", how, " ", end, "\n"].concat();
        }
    }
    shown
}

/// The file's text, as long as it may be.
fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("can't read {}", file.display()))?)
    };
    let octets = source
        .take(FILE_OCTETS_MAX as u64 + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("can't read {}", file.display()))?;
    if octets > FILE_OCTETS_MAX {
        return Err(Failure::Failed(anyhow::anyhow!(
            "{} is over {} MiB",
            file.display(),
            FILE_OCTETS_MAX / 1024 / 1024
        )));
    }
    Ok(text)
}
