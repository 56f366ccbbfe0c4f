//! `bench`: the pair beside Postfix → Postfix → Dovecot, same machine, same load, runs alternated.
//! See `tests/bench/README.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gatepost_runtime::clock::Clock;
use gatepost_tests::bench::chain::{Chain, wait_for};
use gatepost_tests::bench::load::{self, Plan, Seen};
use gatepost_tests::bench::outbound::Sink;
use gatepost_tests::bench::pair::{PASSWORD, Pair};
use gatepost_tests::bench::usage::{self, percentile};
use gatepost_tests::bench::{bare, check, queue};

const RECIPIENT: &str = "alice@example.test";
const FRIEND: &str = "friend@outbound.example";
const SESSIONS: usize = 16;
const OUTBOUND_SESSIONS: usize = 8;
const IDLE_SESSIONS: usize = 1000;
const SMALL_OCTETS: usize = 4 * 1024;
const BIG_OCTETS: usize = 50_000_000;
/// Nothing goes out slower than this unless it hangs.
const OUTBOUND_MAX: Duration = Duration::from_mins(10);

/// Measures the pair beside the stack people run today.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder on a real file system, reachable by other users; emptied afterwards.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Rounds of A B.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of each run.
    #[arg(long, default_value_t = 2000)]
    messages: usize,
    /// Only this one of `pair` and `chain`.
    #[arg(long)]
    only: Option<String>,
    /// Only what goes out, and what idle sessions cost.
    #[arg(long)]
    outbound: bool,
    /// Only a queue that is full of mail for dead domains.
    #[arg(long)]
    queue: bool,
    /// Messages for dead domains in that queue.
    #[arg(long, default_value_t = 99_999)]
    queued: usize,
    /// The `pair` program.
    #[arg(long)]
    pair: Option<PathBuf>,
    /// A pair that runs already, by its `pair.json` (for profiling).
    #[arg(long)]
    running: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(&arguments))
}

/// One server under load.
struct Subject<'a> {
    name: &'static str,
    target: std::net::SocketAddr,
    pids: Vec<u32>,
    maildir: PathBuf,
    folder: &'a Path,
}

/// One run's figures.
struct Run {
    seen: Seen,
    /// Until the last message lay in the Maildir.
    per_second: f64,
    cpu_per_message: Duration,
}

impl Subject<'_> {
    async fn run(&self, plan: Plan) -> Result<Run> {
        let plan = Plan { target: self.target, ..plan };
        let clock = Clock::real();
        let before = check::files(&self.maildir)?.len();
        let cpu = usage::cpu(&self.pids)?;
        let start = clock.now();
        let seen = load::run(&plan).await.with_context(|| format!("{}: see {}", self.name, self.folder.display()))?;
        wait_for("the last delivery", || Ok(check::files(&self.maildir)?.len() >= before + plan.messages))?;
        let elapsed = clock.now() - start;
        let cpu = usage::cpu(&self.pids)?.saturating_sub(cpu);
        ensure!(check::count(&self.maildir, &plan.run)? == plan.messages, "{}: messages are missing", self.name);
        let messages = u32::try_from(plan.messages)?;
        Ok(Run { seen, per_second: f64::from(messages) / elapsed.as_secs_f64(), cpu_per_message: cpu / messages })
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("gatepost-bench-").tempdir_in(&arguments.folder)?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let binary = match &arguments.pair {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("pair"),
    };
    if arguments.queue {
        return full_queue(&binary, folder.path(), arguments.queued).await;
    }
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    let mut subjects = Vec::new();
    let pair_folder = folder.path().join("pair");
    std::fs::create_dir(&pair_folder)?;
    let sink = Sink::start().await?;
    let pair = match &arguments.running {
        Some(json) => Some(Pair::running(json)?),
        None => {
            wanted("pair").then(|| Pair::start(&binary, &pair_folder, RECIPIENT, FRIEND, sink.address)).transpose()?
        }
    };
    if let Some(pair) = &pair {
        at_rest(pair)?;
        idle_sessions(pair).await?;
        subjects.push(Subject {
            name: "pair",
            target: pair.facts.edge.smtp,
            pids: vec![pair.facts.edge.pid, pair.facts.home.pid],
            maildir: pair.facts.accounts.first().context("the pair has no account")?.maildir.clone(),
            folder: &pair_folder,
        });
    }
    let chain_folder = folder.path().join("chain");
    std::fs::create_dir(&chain_folder)?;
    let chain = wanted("chain").then(|| Chain::start(&chain_folder, "example.test")).transpose()?;
    if let Some(chain) = &chain {
        subjects.push(Subject {
            name: "chain",
            target: chain.smtp,
            pids: chain.pids(),
            maildir: chain.maildir(RECIPIENT),
            folder: &chain_folder,
        });
    }
    if !arguments.outbound {
        for (label, sessions, reconnect) in [
            ("kept connections", SESSIONS, false),
            ("one connection a message", SESSIONS, true),
            ("one client", 1, true),
            ("one kept client", 1, false),
        ] {
            small_messages(arguments, folder.path(), &subjects, label, sessions, reconnect).await?;
        }
        if let Some(pair) = &pair {
            big_messages(pair, &subjects[0]).await?;
        }
    }
    drop(chain);
    outbound_messages(arguments, folder.path(), pair.as_ref(), &sink, wanted("chain")).await?;
    drop(pair);
    if arguments.outbound || arguments.running.is_some() || !wanted("pair") {
        return Ok(());
    }
    full_queue(&binary, folder.path(), arguments.queued).await
}

/// A queue full of mail for dead domains, and mail for a live one beside it.
async fn full_queue(binary: &Path, folder: &Path, queued: usize) -> Result<()> {
    let folder = folder.join("queue");
    std::fs::create_dir(&folder)?;
    let figures = queue::measure(binary, &folder, RECIPIENT, queued).await?;
    println!("\nqueue of {queued} messages, each for a dead domain of its own");
    println!(
        "start {:.2} s, {:.1} MiB resident, peak {:.1} MiB; to a live one: first after {:.0} ms, {:.0} messages/s (alone: {:.0})",
        figures.start.as_secs_f64(),
        mebibytes(figures.resident_kib),
        mebibytes(figures.peak_kib),
        milliseconds(figures.first),
        figures.beside,
        figures.alone,
    );
    Ok(())
}

fn plan(target: std::net::SocketAddr) -> Plan {
    Plan {
        target,
        sessions: 1,
        messages: 0,
        octets: SMALL_OCTETS,
        reconnect: false,
        sender: "load@load.example".to_owned(),
        password: None,
        recipient: RECIPIENT.to_owned(),
        run: String::new(),
    }
}

/// What a client costs that greeted, made the connection secure, and does nothing.
async fn idle_sessions(pair: &Pair) -> Result<()> {
    let pid = pair.facts.edge.pid;
    let plan = plan(pair.facts.edge.smtp);
    // What the first connections bring for good is not theirs.
    drop(load::idle(&plan, SESSIONS).await?);
    let before = usage::memory(pid)?.now_kib;
    let idle = load::idle(&plan, IDLE_SESSIONS).await?;
    #[expect(clippy::cast_precision_loss, reason = "kibibytes and sessions")]
    let each = usage::memory(pid)?.now_kib.saturating_sub(before) as f64 / idle.count() as f64;
    println!("idle: {} sessions on 25 after STARTTLS and EHLO, {each:.1} KiB each", idle.count());
    Ok(())
}

/// From the first submission at home to the last message in the sink.
async fn outbound_messages(
    arguments: &Arguments,
    folder: &Path,
    pair: Option<&Pair>,
    sink: &Sink,
    with_chain: bool,
) -> Result<()> {
    let chain_folder = folder.join("outbound");
    std::fs::create_dir(&chain_folder)?;
    std::fs::set_permissions(&chain_folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let chain = with_chain.then(|| Chain::outbound(&chain_folder, sink.address)).transpose()?;
    let mut subjects = Vec::new();
    if let Some(pair) = pair {
        let (sender, password) = (RECIPIENT.to_owned(), Some(PASSWORD.to_owned()));
        let plan = Plan { sender, password, ..plan(pair.facts.home.submissions) };
        subjects.push(("pair", plan, vec![pair.facts.edge.pid, pair.facts.home.pid]));
    }
    if let Some(chain) = &chain {
        subjects.push(("chain", plan(chain.smtp), chain.pids()));
    }
    println!(
        "\noutbound: {OUTBOUND_SESSIONS} sessions, {SMALL_OCTETS} octets, accepted at home to received by the sink"
    );
    println!("round  subject   msg/s  cpu/msg ms");
    let clock = Clock::real();
    for round in 0..arguments.rounds {
        for (name, plan, pids) in &subjects {
            let run = format!("{name}-outbound-{round}");
            let messages = arguments.messages;
            let plan = Plan {
                sessions: OUTBOUND_SESSIONS,
                messages,
                recipient: FRIEND.to_owned(),
                run: run.clone(),
                ..plan.clone()
            };
            let (cpu, start) = (usage::cpu(pids)?, clock.now());
            load::run(&plan).await.with_context(|| format!("{name}: see {}", folder.display()))?;
            while sink.count(&run)? < messages {
                ensure!(clock.now() - start < OUTBOUND_MAX, "{name}: {} of {messages} came", sink.count(&run)?);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let elapsed = clock.now() - start;
            let messages = u32::try_from(messages)?;
            let cpu = usage::cpu(pids)?.saturating_sub(cpu) / messages;
            let per_second = f64::from(messages) / elapsed.as_secs_f64();
            println!("{round:<6} {name:<8} {per_second:>6.0}  {:>10.2}", milliseconds(cpu));
        }
    }
    Ok(())
}

fn at_rest(pair: &Pair) -> Result<()> {
    for (name, pid) in [("edge", pair.facts.edge.pid), ("home", pair.facts.home.pid)] {
        let memory = usage::memory(pid)?;
        println!("at rest: {name} {:.1} MiB resident", mebibytes(memory.now_kib));
    }
    Ok(())
}

async fn small_messages(
    arguments: &Arguments,
    folder: &Path,
    subjects: &[Subject<'_>],
    label: &str,
    sessions: usize,
    reconnect: bool,
) -> Result<()> {
    println!("\n{label}: {sessions} sessions, {SMALL_OCTETS} octets");
    println!("round  subject   msg/s  cpu/msg ms  dot->250 p50/p99 ms  session p50/p99 ms");
    let messages = if sessions == 1 { arguments.messages / 8 } else { arguments.messages };
    for round in 0..arguments.rounds {
        for subject in subjects {
            let run = subject
                .run(Plan {
                    sessions,
                    messages,
                    reconnect,
                    run: format!("{}-{}-{round}", subject.name, label.replace(' ', "-")),
                    ..plan(subject.target)
                })
                .await?;
            println!(
                "{round:<6} {:<8} {:>6.0}  {:>10.2}  {:>9.2} / {:<7.2}  {:>9.2} / {:<7.2}",
                subject.name,
                run.per_second,
                milliseconds(run.cpu_per_message),
                milliseconds(percentile(&run.seen.replies, 50)),
                milliseconds(percentile(&run.seen.replies, 99)),
                milliseconds(percentile(&run.seen.sessions, 50)),
                milliseconds(percentile(&run.seen.sessions, 99)),
            );
        }
        let bare_folder = folder.join(format!("bare-{label}-{round}"));
        let bare = bare::run(&bare_folder, sessions, messages, SMALL_OCTETS)?;
        println!(
            "{round:<6} {:<8} {:>6.0}  {:>10}  {:>9.2} / {:<7.2}",
            "bare",
            f64::from(u32::try_from(messages)?) / bare.elapsed.as_secs_f64(),
            "",
            milliseconds(percentile(&bare.writes, 50)),
            milliseconds(percentile(&bare.writes, 99)),
        );
        std::fs::remove_dir_all(&bare_folder)?;
    }
    Ok(())
}

async fn big_messages(pair: &Pair, subject: &Subject<'_>) -> Result<()> {
    println!("\nbig messages: {BIG_OCTETS} octets");
    for (label, count) in [("one", 1), ("four at once", 4)] {
        let run = subject
            .run(Plan {
                sessions: count,
                messages: count,
                octets: BIG_OCTETS,
                run: format!("big-{count}"),
                ..plan(subject.target)
            })
            .await?;
        let elapsed = run.seen.elapsed;
        let total = f64::from(u32::try_from(BIG_OCTETS * count)?);
        print!("{label}: {:.0} MB/s", total / elapsed.as_secs_f64() / 1e6);
        for (name, pid) in [("edge", pair.facts.edge.pid), ("home", pair.facts.home.pid)] {
            print!(", {name} peak {:.1} MiB", mebibytes(usage::memory(pid)?.peak_kib));
        }
        println!();
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mebibytes(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
