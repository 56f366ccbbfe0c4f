//! The commands of `gatepost-edge`. Data goes to stdout, everything else to stderr. Exit codes:
//! 0 done, 1 it failed, 2 wrong usage or config.

mod bans;
mod certificate;
mod pair;
mod send;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::Table;
use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::config::ConfigError;
use gatepost_runtime::control::ControlError;
use gatepost_runtime::{control, listen, log, program};
use serde_json::{Value, json};
use thiserror::Error;

use crate::config::{CONFIG_PATH, Config, HomeConfig};
use crate::journal;
use crate::run;

/// Threads for blocking work: sealing, syncs, password checks.
const BLOCKING_MAX: usize = 64;

/// Gatepost's gate on the public host: takes mail for homes behind it, and sends theirs.
#[derive(Debug, Parser)]
#[command(name = "gatepost-edge", version)]
pub struct Cli {
    /// Config file.
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// State directory, instead of the config's.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run,
    /// Say whether the config is good.
    Check,
    /// Print this edge's key, for the home's config; makes it if there is none yet.
    Key(pair::KeyArgs),
    /// Open a one-time code for a home to pair with, good for an hour.
    Pair(pair::PairArgs),
    /// Give up a home that was paired by code.
    Unpair {
        /// Its name, as `status` shows it.
        name: String,
    },
    /// Send mail from stdin to the postmaster at home, as sendmail does.
    Send(send::SendArgs),
    /// Show what the running edge does.
    Status,
    /// Take the config file as it is now; a bad one is refused, and the one in force stays.
    Reload,
    /// Who is banned for guessing passwords, for unknown recipients, for broken protocol, or by hand.
    Bans(bans::BansArgs),
    /// Keys of the certificate.
    Certificate(certificate::CertificateArgs),
    /// Sealed mail that waits for its home.
    Spool {
        #[command(subcommand)]
        command: SpoolCommand,
    },
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// List it, oldest first.
    List,
}

#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Cli {
    /// Reads the command line. Called as `sendmail`, `mailq` or `newaliases` (by a link), the program is that.
    pub fn perform_called() -> ExitCode {
        let mut words = std::env::args_os();
        let called = words.next().unwrap_or_default();
        match Path::new(&called).file_name().and_then(OsStr::to_str) {
            Some(name @ ("sendmail" | "mailq" | "newaliases")) => {
                send::run(name, send::SendArgs::of(words), Path::new(CONFIG_PATH), None)
            }
            _ => Self::parse().perform(),
        }
    }

    /// Does it.
    pub fn perform(self) -> ExitCode {
        if let Command::Send(args) = self.command {
            return send::run("send", args, &self.config, self.state.as_deref());
        }
        match self.command() {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("gatepost-edge: {failure}");
                ExitCode::from(match failure {
                    Failure::Config(_) => 2,
                    Failure::Failed(_) => 1,
                })
            }
        }
    }

    fn command(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Send(_) => Err(anyhow::anyhow!("send has exit codes of its own").into()),
            Command::Run => self.run(),
            Command::Check => self.check(),
            Command::Key(args) => pair::key(self, args),
            Command::Pair(args) => pair::pair(self, args),
            Command::Unpair { name } => pair::unpair(self, name),
            Command::Status => {
                let status = self.ask("status")?;
                self.show(&status, print_status);
                Ok(())
            }
            Command::Reload => self.reload(),
            Command::Bans(args) => bans::run(self, args),
            Command::Certificate(args) => certificate::run(self, args),
            Command::Spool { command: SpoolCommand::List } => {
                let list = self.ask("spool-list")?;
                self.show(&list, print_spool);
                if !self.json {
                    print_damaged(&self.ask("status")?);
                }
                Ok(())
            }
        }
    }

    fn run(&self) -> Result<(), Failure> {
        let config = self.load()?;
        let events = log::start(journal::NAMED);
        listen::raise_open_files();
        Ok(program::run("edge", BLOCKING_MAX, run::run(config, events)).map_err(anyhow::Error::from)??)
    }

    fn check(&self) -> Result<(), Failure> {
        let config = self.load()?;
        let certificate = Served::new(config.certificate.as_ref(), config.hostname.as_str(), None);
        if let Err(error) = certificate {
            return Err(config.file.certificate_error(&error).into());
        }
        if config.certificate.is_none() && config.acme.is_none() {
            eprintln!("note: no certificate is named in [tls]; a self-signed one will be served");
        }
        for warning in &config.warnings {
            eprintln!("note: {warning}");
        }
        if self.json {
            let homes: Vec<Value> = config.homes.iter().map(listed).collect();
            print_json(&json!({ "good": true, "config": self.config, "state": config.state, "homes": homes }));
        } else {
            println!("{} is good: {}, {} home(s)", self.config.display(), config.doors, config.homes.len());
            for home in &config.homes {
                let domains: Vec<_> = home.domains.iter().map(Domain::as_str).collect();
                println!("home {}, listed in {}: {}", home.name, home.origin, domains.join(", "));
            }
        }
        Ok(())
    }

    fn reload(&self) -> Result<(), Failure> {
        let state = Config::state_path(&self.config, self.state.as_deref())?;
        match control::ask(&state, &json!({ "command": "reload" })) {
            Ok(answer) => {
                self.show(&answer, print_changes);
                Ok(())
            }
            // The words of `check`, or what this machine refuses.
            Err(ControlError::Refused(why)) => Err(ConfigError(why).into()),
            Err(error @ ControlError::NotRunning(_)) => Err(Failure::Failed(anyhow::anyhow!(
                "{error}; if `state` was changed in the config, name the one in force with --state"
            ))),
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }

    fn show(&self, value: &Value, for_people: fn(&Value)) {
        if self.json { print_json(value) } else { for_people(value) }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config, self.state.as_deref())
    }

    fn ask(&self, command: &str) -> Result<Value, Failure> {
        self.ask_this(&json!({ "command": command }))
    }

    fn ask_this(&self, request: &Value) -> Result<Value, Failure> {
        let state: PathBuf = Config::state_path(&self.config, self.state.as_deref())?;
        let state: &Path = &state;
        Ok(control::ask(state, request).map_err(anyhow::Error::from)?)
    }
}

fn listed(home: &HomeConfig) -> Value {
    let domains: Vec<_> = home.domains.iter().map(Domain::as_str).collect();
    json!({ "name": home.name, "domains": domains, "listed_in": home.origin.to_string() })
}

fn print_json(value: &Value) {
    println!("{value:#}");
}

fn print_status(status: &Value) {
    println!("{} ({}), key {}", text(&status["hostname"]), text(&status["software"]), text(&status["key"]));
    match status["certificate_ends"]["at"].as_str() {
        Some(ends) => println!("certificate  good until {ends}"),
        None => println!("certificate  self-signed"),
    }
    for door in ["smtp", "submissions", "imaps", "tunnel", "http", "https"] {
        let waits = status["listen"]["waiting"][door].as_str();
        println!("{door:12} {}", waits.map_or_else(|| text(&status["listen"][door]), |why| format!("shut: {why}")));
    }
    for named in status["names"].as_array().into_iter().flatten() {
        println!("{:12} {}: {}", "name", text(&named["name"]), standing_of(named));
    }
    println!(
        "sessions     {} smtp, {} submissions",
        text(&status["sessions"]["smtp"]),
        text(&status["sessions"]["submissions"])
    );
    for list in status["dns_lists"].as_array().into_iter().flatten() {
        println!("dns list     {}: {} (IPv6: {})", text(&list["list"]), text(&list["ipv4"]), text(&list["ipv6"]));
    }
    let mut table = table(&[
        "home",
        "listed in",
        "connected since",
        "address",
        "round trip",
        "directory",
        "sealed",
        "octets",
        "damaged",
    ]);
    for home in status["homes"].as_array().into_iter().flatten() {
        let session = &home["session"];
        table.add_row([
            text(&home["name"]),
            text(&home["listed_in"]),
            if session.is_null() { "away".into() } else { text(&session["since"]) },
            text(&session["address"]),
            session["round_trip_ms"].as_f64().map_or_else(|| "-".into(), |time| format!("{time:.1} ms")),
            text(&home["directory_version"]),
            text(&home["spool"]["messages"]),
            text(&home["spool"]["octets"]),
            text(&home["spool"]["damaged"]),
        ]);
    }
    println!("{table}");
}

/// How it stands with the certificate of a further name.
fn standing_of(named: &Value) -> String {
    match (named["ends"].as_str(), named["why"].as_str()) {
        (_, Some(why)) => format!("{why}; tried again at {}", text(&named["next_try"])),
        (Some(ends), None) => format!("certificate good until {ends}"),
        (None, None) if named["leads_here"] == false => "does not lead here (yet), so no certificate is ordered".into(),
        (None, None) => "its certificate is being ordered".into(),
    }
}

fn print_changes(answer: &Value) {
    let changes = answer["changes"].as_array().map_or(&[][..], Vec::as_slice);
    for change in changes {
        let note = if change["needs_restart"] == true { " (needs a restart)" } else { "" };
        println!("{}{note}", text(&change["what"]));
    }
    if changes.is_empty() {
        println!("nothing has changed");
    }
}

/// A note, not data: what can't be listed, since it is out of the spool.
fn print_damaged(status: &Value) {
    for home in status["homes"].as_array().into_iter().flatten() {
        let damaged = &home["spool"]["damaged"];
        if damaged.as_u64().is_some_and(|count| count > 0) {
            let name = text(&home["name"]);
            eprintln!(
                "note: {damaged} damaged file(s) of {name} were set aside in the state directory, spool/{name}/damaged"
            );
        }
    }
}

fn print_spool(list: &Value) {
    let mut table = table(&["home", "sealed", "octets", "transfer"]);
    for item in list.as_array().into_iter().flatten() {
        table.add_row(["home", "sealed", "octets", "transfer"].map(|column| text(&item[column])));
    }
    println!("{table}");
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(columns);
    table
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
