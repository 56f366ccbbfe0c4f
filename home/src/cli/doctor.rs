//! `gatepost-home doctor`: what is well and what is not, and what to do about it.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::Span;
use gatepost_runtime::control;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::{Context, Failure, pretty, print, probe};
use crate::doctor::world::World;
use crate::doctor::{self, Facts, Finding, Mark, written};
use crate::run::doctor::{KEY, Request};

/// Between two looks while watching.
const WATCH_PAUSE: Duration = Duration::from_secs(10);

/// The doctor.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Look again and again, until all is well.
    #[arg(long)]
    watch: bool,
    /// Instead of all that, send a probe to an echo service at this address, and read its answer.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["watch", "server", "ca"])]
    mail: Option<String>,
    /// Send the probe from this address here, instead of the postmaster's.
    #[arg(long, value_name = "ADDRESS", requires = "mail")]
    from: Option<String>,
    /// Wait for its answer for so long.
    #[arg(long, value_name = "TIME", requires = "mail", default_value = "5 min")]
    wait: Span,
    /// Ask this DNS server, instead of those of the config.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: Vec<SocketAddr>,
    /// Believe certificates by this authority, too (a PEM file).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) fn run(context: &Context<'_>, args: &DoctorArgs) -> Result<(), Failure> {
    let config = context.load()?;
    if let Some(to) = &args.mail {
        let sent = probe::Sent { to, from: args.from.as_deref(), wait: args.wait.0 };
        return end(&probe::run(&config, &sent)?, args);
    }
    let clock = Clock::real();
    let servers = if args.server.is_empty() { config.doctor.servers.clone() } else { args.server.clone() };
    let world = World { servers, roots: roots(args)?, hostname: config.hostname.clone(), clock: clock.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    loop {
        let request = json!({ KEY: Request::from(&config.doctor) });
        let answer = control::ask(&config.state, &request).map_err(anyhow::Error::from)?;
        let facts: Facts = serde_json::from_value(answer).map_err(anyhow::Error::from)?;
        let answers = runtime.block_on(world.ask(&facts));
        let findings = doctor::findings(&facts, &answers, clock.unix_s());
        if !args.watch || worst(&findings) == Mark::Good {
            return end(&findings, args);
        }
        show(&findings, args)?;
        runtime.block_on(clock.sleep(WATCH_PAUSE));
    }
}

fn worst(findings: &[Finding]) -> Mark {
    findings.iter().map(|finding| finding.mark).max().unwrap_or(Mark::Good)
}

/// The last word.
fn end(findings: &[Finding], args: &DoctorArgs) -> Result<(), Failure> {
    show(findings, args)?;
    match worst(findings) {
        Mark::Bad => Err(Failure::Found),
        Mark::Good | Mark::Unsure => Ok(()),
    }
}

fn show(findings: &[Finding], args: &DoctorArgs) -> Result<(), Failure> {
    if args.json {
        return print(&pretty(&json!({ "findings": findings })));
    }
    // Watched at a terminal, the last look takes the place of the one before.
    let wipe = if args.watch && std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
    print(&format!("{wipe}{}", written::text(findings)))
}

fn roots(args: &DoctorArgs) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(path) = &args.ca else { return Ok(Vec::new()) };
    let unreadable = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    let found = found.map(|one| one.map(|one| one.to_vec())).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() { Err(unreadable("it holds no certificate".to_owned())) } else { Ok(found) }
}
