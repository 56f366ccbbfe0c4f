//! `gatepost-edge pair`, `unpair` and the keys: who is on the other side.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use gatepost_runtime::control::ControlError;
use gatepost_runtime::{control, identity};
use serde_json::{Value, json};

use super::{Cli, Failure, print_json, text};
use crate::config::Config;
use crate::pairing;
use crate::run;

/// Time between two looks at whether the code was used.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Opening a code.
#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// Where the home shall dial, as HOST:PORT; this host's name and the tunnel's port if not given.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// What the home shall be called here; after its own name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Wait until the code was used, also where stdout is no terminal.
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Only print the code.
    #[arg(long)]
    no_wait: bool,
}

/// This edge's key.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Make the next key and print it; the old one stays in force until --switch.
    #[arg(long, conflicts_with = "switch")]
    new: bool,
    /// Put the next key in force (from the next start on).
    #[arg(long)]
    switch: bool,
}

pub(super) fn pair(cli: &Cli, args: &PairArgs) -> Result<(), Failure> {
    let request = json!({ "command": "pair", "address": args.address, "name": args.name });
    let opened = cli.ask_this(&request)?;
    let code = text(&opened["code"]);
    let on_terminal = std::io::stdout().is_terminal();
    if cli.json {
        print_json(&opened);
    } else if on_terminal {
        println!("At home, once and before {}:\n\n    gatepost-home pair {code}\n", text(&opened["expires"]));
    } else {
        println!("{code}");
        eprintln!("At home, once and before {}: gatepost-home pair CODE", text(&opened["expires"]));
    }
    if opened["inherits_sealed_mail"] == true {
        eprintln!(
            "note: sealed mail of a former home of this name lies here; whoever pairs with this code is offered it"
        );
    }
    if args.wait || (on_terminal && !args.no_wait) { wait(cli, &opened, on_terminal) } else { Ok(()) }
}

fn wait(cli: &Cli, opened: &Value, on_terminal: bool) -> Result<(), Failure> {
    if on_terminal && !cli.json {
        println!("Waiting for it (Ctrl-C ends only the waiting) …");
    }
    let state = Config::state_path(&cli.config, cli.state.as_deref())?;
    let mut told = 0;
    loop {
        let seen = match control::ask(&state, &json!({ "command": "pair-state", "id": opened["id"] })) {
            Ok(seen) => seen,
            Err(error @ ControlError::NotRunning(_)) => {
                return failed(&format!("the edge has ended, and the code with it: {error}"));
            }
            Err(error) => return Err(anyhow::Error::from(error).into()),
        };
        let wrong = seen["wrong_codes"].as_u64().unwrap_or_default();
        if wrong > told {
            told = wrong;
            eprintln!("note: somebody came with a wrong code ({wrong} so far; after a few this one is given up)");
        }
        match seen["state"].as_str() {
            Some("open") => std::thread::sleep(LOOK_EVERY),
            Some("paired") if cli.json => {
                print_json(&seen);
                return Ok(());
            }
            Some("paired") => {
                let home = &seen["home"];
                println!("Paired with {}: {}", text(&home["name"]), listed(&home["domains"]));
                return Ok(());
            }
            Some("expired") => return failed("the code has expired; ask for another: gatepost-edge pair"),
            Some("given up") => {
                return failed(
                    "too many wrong codes came, so this one was given up; ask for another: gatepost-edge pair",
                );
            }
            _ => {
                return failed(
                    "the edge was started again, and knows no more of this code; ask for another: gatepost-edge pair",
                );
            }
        }
    }
}

pub(super) fn unpair(cli: &Cli, name: &str) -> Result<(), Failure> {
    let state = Config::state_path(&cli.config, cli.state.as_deref())?;
    let gone = match control::ask(&state, &json!({ "command": "unpair", "name": name })) {
        Ok(gone) => gone,
        Err(ControlError::NotRunning(_)) => {
            // A config that clashes with the list may be the very reason for this.
            let own = cli.load().map(|config| config.homes).unwrap_or_default();
            pairing::unpair_offline(&state, name, &own)?.json()
        }
        Err(error) => return Err(anyhow::Error::from(error).into()),
    };
    if cli.json {
        print_json(&gone);
        return Ok(());
    }
    println!("{name} is no longer paired ({})", listed(&gone["domains"]));
    if gone["sealed_mail_kept"] == true {
        let folder = state.join("spool").join(name);
        eprintln!(
            "note: sealed mail waits for it in {}; it is kept, and handed over should this home pair again",
            folder.display()
        );
    }
    Ok(())
}

pub(super) fn key(cli: &Cli, args: &KeyArgs) -> Result<(), Failure> {
    let state = Config::state_path(&cli.config, cli.state.as_deref())?;
    let key = run::identity(&state)?.key().to_string();
    let path = state.join(run::IDENTITY);
    if args.new {
        let next = identity::make_next_key(&path).map_err(anyhow::Error::from)?.to_string();
        if cli.json {
            print_json(&json!({ "key": key, "next": next }));
        } else {
            println!("{next}");
            eprintln!(
                "This is the next key; {key} stays in force. Let every home list both: pair each again with a new code,\n\
                 or write in its home.toml: key = [\"{key}\", \"{next}\"]\n\
                 Then, here: gatepost-edge key --switch"
            );
        }
        return Ok(());
    }
    if args.switch {
        return switch(cli, &path, &key);
    }
    if cli.json {
        let next = identity::next_key(&path).map_err(anyhow::Error::from)?;
        print_json(&json!({ "key": key, "next": next.map(|next| next.to_string()) }));
    } else {
        println!("{key}");
    }
    Ok(())
}

fn switch(cli: &Cli, path: &Path, old: &str) -> Result<(), Failure> {
    let Some(next) = identity::switch_key(path).map_err(anyhow::Error::from)? else {
        return failed("there is no next key; make one first: gatepost-edge key --new");
    };
    if cli.json {
        print_json(&json!({ "key": next.to_string(), "old": old }));
    } else {
        println!("{next}");
        eprintln!("In force from the next start of gatepost-edge on; homes may forget {old} then.");
    }
    Ok(())
}

fn failed(why: &str) -> Result<(), Failure> {
    Err(anyhow::Error::msg(why.to_owned()).into())
}

fn listed(domains: &Value) -> String {
    let domains: Vec<_> = domains.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    domains.join(", ")
}
