//! `gatepost-home pair`, `unpair` and the keys: who is on the other side. Pairing needs no running home:
//! it dials by itself, and writes `home.toml`, which is its owner's, only where the edge belongs.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::{CodeError, DialAddress, PairingCode};
use gatepost_protocol::pairing::exchange::Paired;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::control::{self, ControlError};
use gatepost_runtime::tunnel::{self, Applicant};
use gatepost_runtime::{durable, identity};
use serde_json::json;

use super::{Context, Failure, pretty, print};
use crate::config::{Config, edit};
use crate::edges::EdgeSettings;
use crate::run;

/// What an edge is called that is known by its address only.
const NAMELESS: &str = "edge";

/// Pairing with an edge.
#[derive(Clone, Debug, Args)]
pub struct PairArgs {
    /// What `gatepost-edge pair` has printed.
    code: String,
    /// What to call the edge here; after its host name if not given.
    #[arg(long)]
    name: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Giving an edge up.
#[derive(Clone, Debug, Args)]
pub struct UnpairArgs {
    /// Its name, as `status` shows it.
    name: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// This home's key.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// Make the next key and print it; the old one stays in force until --switch.
    #[arg(long, conflicts_with = "switch")]
    new: bool,
    /// Put the next key in force (from the next start on).
    #[arg(long)]
    switch: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn pair(context: &Context<'_>, args: &PairArgs) -> Result<(), Failure> {
    let code: PairingCode = args.code.parse().map_err(|error: CodeError| Failure::Usage(error.to_string()))?;
    let config = context.load()?;
    // What can't be written is found out before the code is used up.
    let old = config.edges.iter().find(|edge| edge.keys.contains(&code.edge_key));
    let name = name(args.name.as_deref(), old, &code.address, &config);
    let listed = EdgeSettings { name, address: code.address.to_string(), keys: vec![code.edge_key] };
    let replaced = old.map(|old| old.name.as_str());
    changed(context.config, &listed, replaced)?;

    let identity = run::identity(&config.state)?;
    let path = config.state.join(run::IDENTITY);
    let applicant = Applicant {
        node: config.hostname.clone(),
        more_keys: identity::next_key(&path).map_err(anyhow::Error::from)?.into_iter().collect(),
        domains: config.domains.iter().map(ToString::to_string).collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let paired = runtime.block_on(tunnel::pair(&identity, &code, applicant, &Clock::real()));
    let paired = paired.map_err(anyhow::Error::from).context("not paired")?;

    let mut keys = listed.keys;
    keys.extend(paired.more_keys.iter().map(|key| NodeKey::from_bytes(*key)).filter(|key| *key != code.edge_key));
    let edge = EdgeSettings { keys, ..listed };
    let text = changed(context.config, &edge, replaced)?;
    if let Err(error) = durable::replace_file(context.config, text.as_bytes()) {
        print(&edit::to_paste(&edge))?;
        return Err(anyhow::Error::msg(format!(
            "the edge has this home now, but {error}; write the table above into {}{}, then: gatepost-home reload",
            context.config.display(),
            replaced.map(|name| format!(" in place of the one of {name}")).unwrap_or_default()
        ))
        .into());
    }
    tell(context, args.json, &edge, &paired, &config)
}

fn tell(
    context: &Context<'_>,
    json: bool,
    edge: &EdgeSettings,
    paired: &Paired,
    config: &Config,
) -> Result<(), Failure> {
    let taken_in = take_in(&config.state);
    if json {
        let keys: Vec<_> = edge.keys.iter().map(ToString::to_string).collect();
        print(&pretty(&json!({
            "edge": { "name": edge.name, "address": edge.address, "keys": keys, "hostname": paired.node, "software": paired.software },
            "home": paired.home,
            "again": paired.again,
            "config": context.config,
            "in_force": taken_in == TakenIn::Yes,
        })))?;
    } else {
        let domains: Vec<_> = config.domains.iter().map(Domain::as_str).collect();
        print(&format!(
            "Paired with {} ({}), which knows this home as {}: {}\n",
            paired.node,
            edge.address,
            paired.home,
            domains.join(", ")
        ))?;
        eprintln!("{} has an [[edge]] called {}.", context.config.display(), edge.name);
    }
    taken_in.tell("the edge");
    Ok(())
}

pub(super) fn unpair(context: &Context<'_>, args: &UnpairArgs) -> Result<(), Failure> {
    let state = Config::state_path(context.config, context.state)?;
    let text = read(context.config)?;
    let left = edit::remove_edge(&text, &args.name).map_err(anyhow::Error::from)?;
    Config::check_text(context.config, &left)?;
    durable::replace_file(context.config, left.as_bytes()).map_err(|error| {
        anyhow::Error::msg(format!(
            "{error}; take the [[edge]] called {} out of {} by hand, then: gatepost-home reload",
            args.name,
            context.config.display()
        ))
    })?;
    let taken_in = take_in(&state);
    if args.json {
        print(&pretty(&json!({ "name": args.name, "in_force": taken_in == TakenIn::Yes })))?;
    } else {
        print(&format!("{} is out of {}\n", args.name, context.config.display()))?;
        eprintln!("On its side, it lists this home until: gatepost-edge unpair NAME");
    }
    taken_in.tell("that");
    Ok(())
}

pub(super) fn key(context: &Context<'_>, args: &KeyArgs) -> Result<(), Failure> {
    let state = Config::state_path(context.config, context.state)?;
    let key = run::identity(&state)?.key().to_string();
    let path = state.join(run::IDENTITY);
    if args.new {
        let next = identity::make_next_key(&path).map_err(anyhow::Error::from)?.to_string();
        if args.json {
            return print(&pretty(&json!({ "key": key, "next": next })));
        }
        eprintln!(
            "This is the next key; {key} stays in force. Let every edge list both: pair with each again by a new code,\n\
             or write in its edge.toml: key = [\"{key}\", \"{next}\"]\n\
             Then, here: gatepost-home key --switch"
        );
        return print(&format!("{next}\n"));
    }
    if args.switch {
        let switched = identity::switch_key(&path).map_err(anyhow::Error::from)?;
        let next = switched.context("there is no next key; make one first: gatepost-home key --new")?.to_string();
        if args.json {
            return print(&pretty(&json!({ "key": next, "old": key })));
        }
        eprintln!("In force from the next start of gatepost-home on; edges may forget {key} then.");
        return print(&format!("{next}\n"));
    }
    if args.json {
        let next = identity::next_key(&path).map_err(anyhow::Error::from)?;
        return print(&pretty(&json!({ "key": key, "next": next.map(|next| next.to_string()) })));
    }
    print(&format!("{key}\n"))
}

/// The config's text with this edge in it, good as a whole.
fn changed(path: &Path, edge: &EdgeSettings, replaced: Option<&str>) -> Result<String, Failure> {
    let text = edit::put_edge(&read(path)?, edge, replaced).map_err(anyhow::Error::from)?;
    Config::check_text(path, &text)?;
    Ok(text)
}

fn read(path: &Path) -> Result<String, Failure> {
    Ok(std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?)
}

/// What the edge is called here: what was asked for, the name it has, or after its host name.
fn name(wanted: Option<&str>, old: Option<&EdgeSettings>, address: &DialAddress, config: &Config) -> String {
    if let Some(name) = wanted {
        return name.to_owned();
    }
    if let Some(old) = old {
        return old.name.clone();
    }
    let label = address.host().split('.').next().filter(|label| label.starts_with(|c: char| c.is_ascii_alphabetic()));
    let base = label.unwrap_or(NAMELESS).to_ascii_lowercase();
    let free = |name: &String| !config.edges.iter().any(|edge| edge.name == *name);
    let numbered = (2..).map(|number: u32| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    names.find(free).expect("the numbers do not end")
}

/// Whether the running home works by the changed config.
#[derive(Clone, PartialEq, Eq)]
enum TakenIn {
    /// It does.
    Yes,
    /// There is none.
    NotRunning,
    /// It does not, and why.
    No(String),
}

fn take_in(state: &Path) -> TakenIn {
    match control::ask(state, &json!({ "command": "reload" })) {
        Ok(_) => TakenIn::Yes,
        Err(ControlError::NotRunning(_)) => TakenIn::NotRunning,
        Err(error) => TakenIn::No(error.to_string()),
    }
}

impl TakenIn {
    fn tell(&self, what: &str) {
        match self {
            Self::Yes => eprintln!("The running home has taken {what} in."),
            Self::NotRunning => eprintln!("The home does not run; it knows when it is started: gatepost-home run"),
            Self::No(why) => {
                eprintln!(
                    "The running home has not taken {what} in ({why}); when that is mended: gatepost-home reload"
                );
            }
        }
    }
}
