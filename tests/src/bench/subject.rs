//! One server under load: what a run of it shows, and the rows that come of several.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gatepost_runtime::clock::Clock;

use super::chain::wait_for;
use super::load::{self, Messages, Plan, Seen};
use super::table::{Row, Table, numbers, parts, per_second, times};
use super::{check, usage};

/// Who gets all mail that comes in.
pub const RECIPIENT: &str = "alice@example.test";
/// Octets of a small message's body.
pub const SMALL_OCTETS: usize = 4 * 1024;
/// Octets of the largest.
pub const BIG_OCTETS: usize = 50_000_000;
/// Clients at once.
pub const SESSIONS: usize = 16;

/// One server under load.
#[derive(Debug)]
pub struct Subject {
    /// What it is called in what is printed.
    pub name: &'static str,
    /// Where it listens.
    pub target: SocketAddr,
    /// Its processes; their children are counted with them.
    pub pids: Vec<u32>,
    /// Where its mail ends.
    pub maildir: PathBuf,
    /// Where it keeps its files.
    pub folder: PathBuf,
}

/// One run's figures.
#[derive(Debug)]
pub struct Run {
    /// What the clients saw.
    pub seen: Seen,
    /// Until the last message lay in the Maildir.
    pub per_second: f64,
    /// Of all its processes.
    pub cpu_per_message: Duration,
}

impl Subject {
    /// One run; fails unless every message lies in the Maildir afterwards, once and unchanged.
    pub async fn run(&self, plan: Plan) -> Result<Run> {
        let plan = Plan { target: self.target, ..plan };
        let clock = Clock::real();
        let before = check::files(&self.maildir)?.len();
        let messages = Messages::of(&plan);
        let cpu = usage::cpu(&self.pids)?;
        let start = clock.now();
        let seen = load::send(&plan, messages)
            .await
            .with_context(|| format!("{}: see {}", self.name, self.folder.display()))?;
        wait_for("the last delivery", || Ok(check::files(&self.maildir)?.len() >= before + plan.messages))?;
        let elapsed = clock.now() - start;
        let cpu = usage::cpu(&self.pids)?.saturating_sub(cpu);
        ensure!(check::count(&self.maildir, &plan.run)? == plan.messages, "{}: messages are missing", self.name);
        let cpu_per_message = cpu / u32::try_from(plan.messages)?;
        Ok(Run { seen, per_second: per_second(plan.messages, elapsed), cpu_per_message })
    }
}

/// Small mail of a stranger to one recipient; the rest is for the caller to fill in.
pub fn plan(target: SocketAddr) -> Plan {
    Plan {
        target,
        sessions: 1,
        messages: 0,
        octets: SMALL_OCTETS,
        reconnect: false,
        sender: "load@load.example".to_owned(),
        password: None,
        recipient: RECIPIENT.to_owned(),
        signer: None,
        beforehand: false,
        run: String::new(),
    }
}

/// One subject's figures, round by round.
#[derive(Debug, Default)]
pub struct Seconds {
    /// Messages a second.
    pub rates: Vec<f64>,
    /// Milliseconds of CPU a message.
    pub cpu: Vec<f64>,
    /// Milliseconds.
    pub medians: Vec<f64>,
}

impl Seconds {
    /// One round more.
    pub fn add(&mut self, rate: f64, cpu: f64) {
        self.rates.push(rate);
        self.cpu.push(cpu);
    }
}

/// Numbers, if there are any, with their unit.
pub fn with_unit(numbers: String, unit: &str) -> String {
    if numbers.is_empty() { numbers } else { format!("{numbers} {unit}") }
}

impl Table {
    /// Messages a second, and the CPU time of one.
    pub fn add_rates(
        &mut self,
        what: &str,
        (pair, chain): (&Seconds, &Seconds),
        bare: &[f64],
        aims: [&'static str; 2],
    ) {
        let [rate, cpu] = aims;
        self.add(Row {
            what: format!("{what}: messages/s"),
            pair: numbers(pair.rates.iter().copied(), 0),
            chain: numbers(chain.rates.iter().copied(), 0),
            bare: numbers(bare.iter().copied(), 0),
            ratio: times(&pair.rates, &chain.rates),
            aim: rate,
        });
        self.add(Row {
            what: format!("{what}: CPU a message"),
            pair: with_unit(numbers(pair.cpu.iter().copied(), 2), "ms"),
            chain: with_unit(numbers(chain.cpu.iter().copied(), 1), "ms"),
            bare: String::new(),
            ratio: parts(&pair.cpu, &chain.cpu),
            aim: cpu,
        });
    }
}
