//! The commands of `gatepost-home`, one file a command. Data goes to stdout, everything else to stderr.
//! Exit codes: 0 done, 1 it failed, 2 wrong usage or config.

pub mod access;
pub mod account;
pub mod alias;
pub mod app_password;
pub mod bans;
mod certificate;
pub mod dkim;
pub mod dns;
mod doctor;
pub mod pair;
mod probe;
pub mod queue;
pub mod reload;
pub mod report;
pub mod secret;
pub mod send;
pub mod spool;
pub mod status;
pub mod trace;

use std::ffi::OsStr;
use std::fmt::{Debug, Display};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::ConfigError;
use gatepost_runtime::control::{self, ControlError};
use gatepost_runtime::{listen, log, program, steady};
use serde_json::{Value, json};
use thiserror::Error;

use crate::administration::{self, Request};
use crate::config::{self, Config};
use crate::run::{self, Store};

/// Threads for blocking work other than deliveries, which have their own.
const BLOCKING_MAX: usize = 32;

/// Gatepost's authority on the LAN: delivers, queues, answers its edges.
#[derive(Debug, Parser)]
#[command(name = "gatepost-home", version)]
pub struct Cli {
    /// Config file.
    #[arg(long, global = true, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// State directory, instead of the config's.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run,
    /// Say whether the config is good.
    Check,
    /// Print this home's key, for its edges' configs; makes it if there is none yet.
    Key(pair::KeyArgs),
    /// Pair with the edge that has printed this one-time code.
    Pair(pair::PairArgs),
    /// Give an edge up.
    Unpair(pair::UnpairArgs),
    /// Show what the running home does.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take the config file as it is now; a bad one is refused, and the one in force stays.
    Reload {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take nothing new, finish what runs (30 seconds at most), and end.
    Drain,
    /// Who logs in and has a mailbox.
    Account(account::AccountArgs),
    /// Passwords for single devices and programs: generated, named, revocable.
    AppPassword(app_password::AppPasswordArgs),
    /// Addresses that lead to accounts, to other addresses, to other hosts.
    Alias(alias::AliasArgs),
    /// From whom mail is taken whatever else is found, and from whom never.
    Access(access::AccessArgs),
    /// Who is banned at the edges, for guessing passwords and other abuse, or by hand.
    Bans(bans::BansArgs),
    /// Keys of the edges' certificates.
    Certificate(certificate::CertificateArgs),
    /// Keys that sign mail.
    Dkim(dkim::DkimArgs),
    /// DNS records that the domains need.
    Dns(dns::DnsArgs),
    /// What is well and what is not, seen from both ends, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// What those who get your mail tell about it, and what you tell others of theirs.
    Report(report::ReportArgs),
    /// What waits to be sent.
    Queue(queue::QueueArgs),
    /// Mail that edges sealed while this home was away.
    Spool(spool::SpoolArgs),
    /// Send mail from stdin, as sendmail does.
    Send(send::SendArgs),
    /// What happened to a message, here and at the edges.
    Trace(trace::TraceArgs),
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The config.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Wrong usage that the parser can't see.
    #[error("{0}")]
    Usage(String),
    /// What was looked at is not well; all is said.
    #[error("not all is well")]
    Found,
    /// Something else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// What every command may need.
struct Context<'a> {
    config: &'a Path,
    state: Option<&'a Path>,
}

impl Cli {
    /// Reads the command line. Called as `sendmail`, `mailq` or `newaliases` (by a link), the program is that.
    pub fn perform_called() -> ExitCode {
        let mut words = std::env::args_os();
        let called = words.next().unwrap_or_default();
        match Path::new(&called).file_name().and_then(OsStr::to_str) {
            Some(name @ ("sendmail" | "mailq" | "newaliases")) => {
                send::run(name, send::SendArgs::of(words), Path::new(config::PATH), None)
            }
            _ => Self::parse().perform(),
        }
    }

    /// Does it.
    pub fn perform(self) -> ExitCode {
        if let Command::Send(args) = self.command {
            return send::run("send", args, &self.config, self.state.as_deref());
        }
        let context = Context { config: &self.config, state: self.state.as_deref() };
        match context.command(self.command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Found) => ExitCode::FAILURE,
            Err(failure) => {
                eprintln!("gatepost-home: {failure}");
                ExitCode::from(match failure {
                    Failure::Config(_) | Failure::Usage(_) => 2,
                    Failure::Found | Failure::Failed(_) => 1,
                })
            }
        }
    }
}

impl Context<'_> {
    fn command(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Send(_) => Err(Failure::Usage("send has exit codes of its own".to_owned())),
            Command::Run => self.run(),
            Command::Check => self.check(),
            Command::Key(args) => pair::key(self, &args),
            Command::Pair(args) => pair::pair(self, &args),
            Command::Unpair(args) => pair::unpair(self, &args),
            Command::Status { json } => status::show(self, json),
            Command::Reload { json } => reload::reload(self, json),
            Command::Drain => reload::drain(self),
            Command::Account(args) => account::run(self, args),
            Command::AppPassword(args) => app_password::run(self, args),
            Command::Alias(args) => alias::run(self, args),
            Command::Access(args) => access::run(self, args),
            Command::Bans(args) => bans::run(self, &args),
            Command::Certificate(args) => certificate::run(self, &args),
            Command::Dkim(args) => dkim::run(self, args),
            Command::Dns(args) => dns::run(self, args),
            Command::Doctor(args) => doctor::run(self, &args),
            Command::Queue(args) => {
                let config = self.load()?;
                Ok(queue::run(args, &config.state, config.queue)?)
            }
            Command::Report(args) => report::run(self, args),
            Command::Spool(args) => spool::run(self, &args),
            Command::Trace(args) => trace::run(self, &args),
        }
    }

    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::read(self.config, self.state)?)
    }

    fn run(&self) -> Result<(), Failure> {
        let config = self.load()?;
        let events = log::start(crate::trace::NAMED);
        listen::raise_open_files();
        Ok(program::run("home", BLOCKING_MAX, run::run(config, events)).map_err(anyhow::Error::from)??)
    }

    fn check(&self) -> Result<(), Failure> {
        let config = self.load()?;
        if let Err(error) = Served::new(config.tls.as_ref(), &config.hostname, None) {
            return Err(config.file.certificate_error(&error).into());
        }
        for warning in &config.warnings {
            eprintln!("note: {warning}");
        }
        if config.tls.is_none() && config.acme.is_none() {
            eprintln!("note: no certificate is named in [tls]; a self-signed one will be served");
        }
        print(&format!(
            "{} is good: {} domain(s), {} edge(s)\n",
            self.config.display(),
            config.domains.len(),
            config.edges.len()
        ))
    }

    /// Asks the running program; while none runs, does it here, alone on the state directory.
    fn administer(&self, request: Request) -> Result<Value, Failure> {
        let wire = json!({ administration::KEY: request });
        self.perform(&wire, |store, _, _| store.administer(request))
    }

    /// Asks the running program; while none runs, it is done by `alone`, which has the state directory to itself.
    fn perform<E: Display + Debug + Send + Sync + 'static>(
        &self,
        wire: &Value,
        alone: impl FnOnce(&Store, &Config, &Clock) -> Result<Value, E>,
    ) -> Result<Value, Failure> {
        let config = self.load()?;
        match control::ask(&config.state, wire) {
            Ok(answer) => Ok(answer),
            Err(ControlError::NotRunning(_)) => {
                let clock = steady::resume(&config.state, &Clock::real());
                let store = Store::open(&config, &clock)?;
                Ok(alone(&store, &config, &clock).map_err(anyhow::Error::msg)?)
            }
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }

    /// Asks the running program.
    fn ask(&self, command: &str) -> Result<Value, Failure> {
        self.ask_for(&json!({ "command": command }))
    }

    /// The same with more words.
    fn ask_for(&self, request: &Value) -> Result<Value, Failure> {
        let state = Config::state_path(self.config, self.state)?;
        Ok(control::ask(&state, request).map_err(anyhow::Error::from)?)
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other.map_err(anyhow::Error::from)?),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A table with these heads and a row a value; `empty` if there is none.
fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>, empty: &str) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(heads);
    let mut count = 0;
    for row in rows {
        table.add_row(row);
        count += 1;
    }
    if count == 0 { format!("{empty}\n") } else { format!("{table}\n") }
}

/// A text field for a table.
fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_whole() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        for (line, good) in [
            ("run", true),
            ("key --json", true),
            ("key --new", true),
            ("key --new --switch", false),
            ("pair gpair1qqqq --name vps1", true),
            ("pair", false),
            ("report dmarc", true),
            ("report dmarc --days 7 --domain example.org --json", true),
            ("report dmarc --days 0", false),
            ("report failures --days 400", true),
            ("report failures --days 401", false),
            ("report", false),
            ("unpair vps1 --json", true),
            ("--state /x status", true),
            ("account add alice@example.org", true),
            ("account add alice@example.org --generate", true),
            ("account add", false),
            ("account list --json", true),
            ("account password alice@example.org", true),
            ("account quota alice@example.org 2GiB", true),
            ("account quota alice@example.org none", true),
            ("account quota alice@example.org much", false),
            ("account quota alice@example.org", false),
            ("app-password add alice@example.org phone", true),
            ("app-password add alice@example.org laptop --full --json", true),
            ("app-password list alice@example.org", true),
            ("app-password remove alice@example.org phone", true),
            ("alias add team@example.org alice@example.org bob@example.org", true),
            ("alias add team@example.org", false),
            ("alias remove @example.org", true),
            ("alias add /shop-.*/@example.org x@elsewhere.example", true),
            ("alias show root --json", true),
            ("alias test root", true),
            ("alias import - --replace", true),
            ("alias export", true),
            ("alias rotate-keys", true),
            ("access add refuse 203.0.113.0/24 --to example.org", true),
            ("access add allow bob@example.com --json", true),
            ("access add maybe bob@example.com", false),
            ("access list --json", true),
            ("access remove *.example.com", true),
            ("bans list --json", true),
            ("bans add 192.0.2.0/24 --for 2d", true),
            ("bans add 2001:db8::1 --edge vps1 --json", true),
            ("bans add 192.0.2.1/24", false),
            ("bans lift 192.0.2.1", true),
            ("bans lift", false),
            ("dkim list --json", true),
            ("dkim list example.org", true),
            ("dkim rotate", true),
            ("dkim rotate example.org --json", true),
            ("dkim", false),
            ("dns", true),
            ("dns example.org --zone", true),
            ("dns --table --tested", true),
            ("dns --zone --json", false),
            ("dns quiet.example --parked --json", true),
            ("dns --parked", false),
            ("doctor", true),
            ("doctor --json --watch --server 9.9.9.10:53 --ca root.pem", true),
            ("doctor --server nine", false),
            ("queue list --json", true),
            ("report outgoing --json", true),
            ("report outgoing example.com", true),
            ("report", false),
            ("spool list --json", true),
            ("spool fetch --json", true),
            ("spool drop vps1 00000000000000000000000000000000 --yes", true),
            ("spool drop vps1", false),
            ("trace alice@example.org --limit 5 --json", true),
            ("trace bob --since 2h", true),
            ("trace bob --since yesterday", false),
            ("trace", false),
            ("send -t -i", true),
            ("send -oi -f root alice@example.org", true),
            ("--state /x send root -v", true),
            ("reload --json", true),
            ("drain", true),
            ("fly", false),
        ] {
            let words = std::iter::once("gatepost-home").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), good, "{line}");
        }
    }
}
