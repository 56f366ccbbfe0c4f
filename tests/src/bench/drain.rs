//! The home away: what the edge seals meanwhile, from many senders at once, and how fast the home fetches it when
//! it is back.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gatepost_runtime::clock::Clock;

use super::chain::wait_for;
use super::check;
use super::load::{self, Plan};
use super::pair::{Home, Pair};
use super::table::per_second;
use super::usage;

/// Who sends at once while the home is away.
pub const SENDERS: usize = 200;
const OCTETS: usize = 4 * 1024;
/// It hangs if it takes longer.
const DRAIN_MAX: Duration = Duration::from_mins(5);
/// Listing the mailbox costs time, too.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Names the messages of this bench.
const RUN: &str = "sealed";

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// Messages a second answered 250 while the home was away.
    pub sealed: f64,
    /// CPU time of the edge for each of them.
    pub sealed_cpu: Duration,
    /// Messages a second from the home's start to the last one in its mailbox.
    pub drained: f64,
    /// CPU time of both programs for each of them.
    pub drained_cpu: Duration,
}

/// Measures with so many messages for `recipient`, whose pair runs under `folder`.
pub async fn measure(binary: &Path, folder: &Path, recipient: &str, messages: usize) -> Result<Figures> {
    // Nothing goes out: where to does not matter.
    let nowhere = ([127, 0, 0, 1], 9).into();
    let pair = Pair::start(binary, folder, recipient, "friend@outbound.example", nowhere)?;
    let (edge, home) = (&pair.facts.edge, &pair.facts.home);
    let maildir = &pair.facts.accounts.first().context("the pair has no account")?.maildir;
    let before = check::files(maildir)?.len();
    let _ = Command::new("kill").args(["-KILL", &home.pid.to_string()]).status();
    wait_for("the home to die", || Ok(TcpStream::connect(home.submissions).is_err()))?;

    let cpu = usage::cpu(&[edge.pid])?;
    let plan = Plan {
        target: edge.smtp,
        sessions: SENDERS,
        messages,
        octets: OCTETS,
        reconnect: false,
        sender: "load@load.example".to_owned(),
        password: None,
        recipient: recipient.to_owned(),
        signer: None,
        beforehand: false,
        run: RUN.to_owned(),
    };
    // Fails if a single one is refused.
    let seen = load::run(&plan).await.with_context(|| format!("see {}", folder.display()))?;
    let count = u32::try_from(messages)?;
    let sealed_cpu = usage::cpu(&[edge.pid])?.saturating_sub(cpu) / count;
    ensure!(check::files(maildir)?.len() == before, "the home was not away");

    let clock = Clock::real();
    let (cpu, begun) = (usage::cpu(&[edge.pid])?, clock.now());
    let home = Home::start(&home.command)?;
    let mut arrived = 0;
    while arrived < messages && clock.now() - begun < DRAIN_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        arrived = check::files(maildir)?.len() - before;
    }
    let elapsed = clock.now() - begun;
    let drained_cpu = (usage::cpu(&[edge.pid, home.pid()])?.saturating_sub(cpu)) / count;
    drop(home);
    ensure!(arrived == messages, "{arrived} of {messages} came within {} s", DRAIN_MAX.as_secs());
    ensure!(check::count(maildir, RUN)? == messages, "messages are missing");
    Ok(Figures {
        sealed: per_second(messages, seen.elapsed),
        sealed_cpu,
        drained: per_second(messages, elapsed),
        drained_cpu,
    })
}
