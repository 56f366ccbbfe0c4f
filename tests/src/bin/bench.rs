//! `bench`: the pair beside Postfix → Postfix → Dovecot, same machine, same load, runs alternated. Says what it
//! sees as it goes, and ends with one table of everything.
//! See `tests/bench/README.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gatepost_runtime::clock::Clock;
use gatepost_tests::bench::chain::Chain;
use gatepost_tests::bench::load::{self, Plan};
use gatepost_tests::bench::outbound::Sink;
use gatepost_tests::bench::pair::{PASSWORD, Pair};
use gatepost_tests::bench::subject::{
    BIG_OCTETS, RECIPIENT, SESSIONS, SMALL_OCTETS, Seconds, Subject, plan, with_unit,
};
use gatepost_tests::bench::table::{Row, Table, mebibytes, milliseconds, numbers, parts, per_second};
use gatepost_tests::bench::usage::{self, percentile};
use gatepost_tests::bench::{bare, drain, judged, queue};

const FRIEND: &str = "friend@outbound.example";
const OUTBOUND_SESSIONS: usize = 8;
const IDLE_SESSIONS: usize = 1000;
/// Messages sealed while the home is away.
const SEALED: usize = 5000;
/// How long the pair is let rest before its memory is looked at.
const REST: Duration = Duration::from_secs(5);
/// Nothing goes out slower than this unless it hangs.
const OUTBOUND_MAX: Duration = Duration::from_mins(10);

/// Measures the pair beside the stack people run today.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
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
    /// Only memory at rest, and what idle sessions cost.
    #[arg(long)]
    rest: bool,
    /// Only what goes out.
    #[arg(long)]
    outbound: bool,
    /// Only what the edge seals while the home is away, and how fast the home fetches it.
    #[arg(long)]
    drain: bool,
    /// Only a queue that is full of mail for dead domains.
    #[arg(long)]
    queue: bool,
    /// Messages for dead domains in that queue.
    #[arg(long, default_value_t = 99_999)]
    queued: usize,
    /// Only what judging costs, as root: in a network of its own, with a name server of its own.
    #[arg(long)]
    judged: bool,
    /// Programs of a build that judges nothing, to be measured beside: a folder.
    #[arg(long)]
    unjudged: Option<PathBuf>,
    /// The network of its own is there.
    #[arg(long, hide = true)]
    inside: bool,
    /// The `pair` program.
    #[arg(long)]
    pair: Option<PathBuf>,
    /// A pair that runs already, by its `pair.json` (for profiling).
    #[arg(long)]
    running: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if (arguments.is_all() || arguments.judged) && !arguments.inside {
        return judged::inside();
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure(&arguments))
}

impl Arguments {
    /// Nothing was picked out.
    fn is_all(&self) -> bool {
        !(self.rest || self.outbound || self.drain || self.queue || self.judged)
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("gatepost-bench-").tempdir_in(&arguments.folder)?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut bench = Bench::new(arguments, folder.path())?;
    let all = arguments.is_all();
    if all || arguments.rest || arguments.outbound {
        bench.side_by_side(all).await?;
    }
    if arguments.running.is_none() && (all || arguments.judged) {
        bench.judged().await?;
    }
    if bench.is_wanted("pair") && arguments.running.is_none() {
        if all || arguments.drain {
            bench.home_away().await?;
        }
        if all || arguments.queue {
            bench.full_queue().await?;
        }
    }
    println!("\n{}", bench.table);
    Ok(())
}

/// What is measured with, and what came of it.
struct Bench<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    binary: PathBuf,
    table: Table,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments, folder: &'a Path) -> Result<Self> {
        let binary = match &arguments.pair {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("pair"),
        };
        Ok(Self { arguments, folder, binary, table: Table::default() })
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.arguments.only.as_deref().is_none_or(|only| only == name)
    }

    /// A folder other users can reach, as the chain needs it.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(folder)
    }

    /// The pair, and the chain beside it.
    async fn side_by_side(&mut self, all: bool) -> Result<()> {
        let sink = Sink::start().await?;
        let pair_folder = self.folder("pair")?;
        let pair = match &self.arguments.running {
            Some(json) => Some(Pair::running(json)?),
            None => self
                .is_wanted("pair")
                .then(|| Pair::start(&self.binary, &pair_folder, RECIPIENT, FRIEND, sink.address))
                .transpose()?,
        };
        if let Some(pair) = &pair
            && (all || self.arguments.rest)
        {
            self.at_rest(pair).await?;
            self.idle_sessions(pair).await?;
        }
        if all {
            let chain_folder = self.folder("chain")?;
            let chain = self.is_wanted("chain").then(|| Chain::start(&chain_folder, "example.test")).transpose()?;
            let mut subjects = Vec::new();
            if let Some(pair) = &pair {
                subjects.push(Subject {
                    name: "pair",
                    target: pair.facts.edge.smtp,
                    pids: pids(pair).to_vec(),
                    maildir: pair.facts.accounts.first().context("the pair has no account")?.maildir.clone(),
                    folder: pair_folder,
                });
            }
            if let Some(chain) = &chain {
                subjects.push(Subject {
                    name: "chain",
                    target: chain.smtp,
                    pids: chain.pids(),
                    maildir: chain.maildir(RECIPIENT),
                    folder: chain_folder,
                });
            }
            self.inbound(pair.as_ref(), &subjects).await?;
        }
        if all || self.arguments.outbound {
            self.outbound_messages(pair.as_ref(), &sink).await?;
        }
        Ok(())
    }

    async fn inbound(&mut self, pair: Option<&Pair>, subjects: &[Subject]) -> Result<()> {
        for (label, sessions, reconnect) in [
            ("16 sessions, kept", SESSIONS, false),
            ("16 sessions, a STARTTLS connection a message", SESSIONS, true),
            ("one client, a whole STARTTLS session", 1, true),
            ("one kept session, end of data to 250", 1, false),
        ] {
            self.small_messages(subjects, label, sessions, reconnect).await?;
        }
        if let Some(pair) = pair {
            self.big_messages(pair, &subjects[0]).await?;
        }
        Ok(())
    }

    /// What judging costs, beside what judges for a Postfix.
    async fn judged(&mut self) -> Result<()> {
        let wanted = judged::Wanted {
            binary: &self.binary,
            folder: &self.folder("judged")?,
            rounds: self.arguments.rounds,
            messages: self.arguments.messages,
            only: self.arguments.only.as_deref(),
            unjudged: self.arguments.unjudged.as_deref(),
        };
        judged::measure(&wanted, &mut self.table).await
    }

    /// A queue full of mail for dead domains, and mail for a live one beside it.
    async fn full_queue(&mut self) -> Result<()> {
        let (folder, queued) = (self.folder("queue")?, self.arguments.queued);
        let figures = queue::measure(&self.binary, &folder, RECIPIENT, queued).await?;
        println!("\nqueue of {queued} messages, each for a dead domain of its own");
        println!(
            "start {:.2} s, {:.1} MiB resident, peak {:.1} MiB; to a live one: first after {:.0} ms, {:.0} messages/s \
             (alone: {:.0})",
            figures.start.as_secs_f64(),
            mebibytes(figures.resident_kib),
            mebibytes(figures.peak_kib),
            milliseconds(figures.first),
            figures.beside,
            figures.alone,
        );
        let mut add = |what: &str, pair: String, aim| {
            let what = format!("queue of {queued} for dead domains: {what}");
            self.table.add(Row { what, pair, aim, ..Row::default() });
        };
        add("start", format!("{:.2} s", figures.start.as_secs_f64()), "3 s");
        add("home resident, peak", format!("{:.0} MiB", mebibytes(figures.peak_kib)), "100 MiB");
        add("first message to a live one beside it", format!("{:.0} ms", milliseconds(figures.first)), "at once");
        let live = format!("{:.0} (alone {:.0})", figures.beside, figures.alone);
        add("messages/s to a live one beside it", live, "as alone");
        Ok(())
    }

    /// Many senders while the home is away, then its return.
    async fn home_away(&mut self) -> Result<()> {
        let folder = self.folder("drain")?;
        let figures = drain::measure(&self.binary, &folder, RECIPIENT, SEALED).await?;
        println!("\nhome away: {SEALED} messages of {SMALL_OCTETS} octets from {} senders at once", drain::SENDERS);
        println!(
            "sealed {:.0} messages/s at {:.2} ms CPU, none refused; drained {:.0} messages/s at {:.2} ms CPU",
            figures.sealed,
            milliseconds(figures.sealed_cpu),
            figures.drained,
            milliseconds(figures.drained_cpu),
        );
        let mut add = |what: String, pair: String, aim| {
            self.table.add(Row { what, pair, aim, ..Row::default() });
        };
        let what = format!("home away, {} senders at once: messages/s sealed", drain::SENDERS);
        add(what, format!("{:.0}", figures.sealed), "none refused");
        let what = format!("home back, {SEALED} sealed messages: messages/s drained");
        add(what, format!("{:.0}", figures.drained), "500");
        Ok(())
    }

    /// What a client costs that greeted, made the connection secure, and does nothing.
    async fn idle_sessions(&mut self, pair: &Pair) -> Result<()> {
        let pid = pair.facts.edge.pid;
        let plan = plan(pair.facts.edge.smtp);
        // What the first connections bring for good is not theirs.
        drop(load::idle(&plan, SESSIONS).await?);
        let before = usage::memory(pid)?.now_kib;
        let idle = load::idle(&plan, IDLE_SESSIONS).await?;
        #[expect(clippy::cast_precision_loss, reason = "kibibytes and sessions")]
        let each = usage::memory(pid)?.now_kib.saturating_sub(before) as f64 / idle.count() as f64;
        println!("idle: {} sessions on 25 after STARTTLS and EHLO, {each:.1} KiB each", idle.count());
        self.table.add(Row {
            what: format!("{IDLE_SESSIONS} idle TLS sessions on 25, each"),
            pair: format!("{each:.0} KiB"),
            aim: "40 KiB",
            ..Row::default()
        });
        Ok(())
    }

    /// From the first submission at home to the last message in the sink.
    async fn outbound_messages(&mut self, pair: Option<&Pair>, sink: &Sink) -> Result<()> {
        let folder = self.folder("outbound")?;
        let chain = self.is_wanted("chain").then(|| Chain::outbound(&folder, sink.address)).transpose()?;
        let mut subjects = Vec::new();
        if let Some(pair) = pair {
            let (sender, password) = (RECIPIENT.to_owned(), Some(PASSWORD.to_owned()));
            let plan = Plan { sender, password, ..plan(pair.facts.home.submissions) };
            subjects.push(("pair", plan, pids(pair).to_vec()));
        }
        if let Some(chain) = &chain {
            subjects.push(("chain", plan(chain.smtp), chain.pids()));
        }
        println!(
            "\noutbound: {OUTBOUND_SESSIONS} sessions, {SMALL_OCTETS} octets, accepted at home to received by the sink"
        );
        println!("round  subject   msg/s  cpu/msg ms");
        let (mut pair, mut chain) = (Seconds::default(), Seconds::default());
        for round in 0..self.arguments.rounds {
            for (name, plan, pids) in &subjects {
                let run = format!("{name}-outbound-{round}");
                let messages = self.arguments.messages;
                let (cpu, elapsed) = outbound_run(plan, pids, sink, &run, messages)
                    .await
                    .with_context(|| format!("{name}: see {}", folder.display()))?;
                let (rate, cpu) = (per_second(messages, elapsed), milliseconds(cpu));
                println!("{round:<6} {name:<8} {rate:>6.0}  {cpu:>10.2}");
                let of = if *name == "pair" { &mut pair } else { &mut chain };
                of.add(rate, cpu);
            }
        }
        let what = format!("{OUTBOUND_SESSIONS} sessions, outbound");
        self.table.add_rates(&what, (&pair, &chain), &[], ["3×", ""]);
        Ok(())
    }

    async fn at_rest(&mut self, pair: &Pair) -> Result<()> {
        tokio::time::sleep(REST).await;
        let resident = |pid| -> Result<f64> { Ok(mebibytes(usage::memory(pid)?.now_kib)) };
        let [edge, home] = pids(pair);
        let text = format!("edge {:.1}, home {:.1} MiB", resident(edge)?, resident(home)?);
        println!("at rest: {text} resident");
        self.table.add(Row {
            what: "at rest, resident".to_owned(),
            pair: text,
            aim: "12 and 20 MiB",
            ..Row::default()
        });
        Ok(())
    }

    async fn small_messages(
        &mut self,
        subjects: &[Subject],
        label: &str,
        sessions: usize,
        reconnect: bool,
    ) -> Result<()> {
        println!("\n{label}: {sessions} sessions, {SMALL_OCTETS} octets");
        println!("round  subject   msg/s  cpu/msg ms  dot->250 p50/p99 ms  session p50/p99 ms");
        let messages = if sessions == 1 { self.arguments.messages / 8 } else { self.arguments.messages };
        let (mut pair, mut chain, mut bare) = (Seconds::default(), Seconds::default(), Seconds::default());
        for round in 0..self.arguments.rounds {
            for subject in subjects {
                let run = subject
                    .run(Plan {
                        sessions,
                        messages,
                        reconnect,
                        run: format!("{}-{sessions}-{reconnect}-{round}", subject.name),
                        ..plan(subject.target)
                    })
                    .await?;
                let one = if reconnect { &run.seen.sessions } else { &run.seen.replies };
                let (cpu, median) = (milliseconds(run.cpu_per_message), milliseconds(percentile(one, 50)));
                println!(
                    "{round:<6} {:<8} {:>6.0}  {cpu:>10.2}  {:>9.2} / {:<7.2}  {:>9.2} / {:<7.2}",
                    subject.name,
                    run.per_second,
                    milliseconds(percentile(&run.seen.replies, 50)),
                    milliseconds(percentile(&run.seen.replies, 99)),
                    milliseconds(percentile(&run.seen.sessions, 50)),
                    milliseconds(percentile(&run.seen.sessions, 99)),
                );
                let of = if subject.name == "pair" { &mut pair } else { &mut chain };
                of.add(run.per_second, cpu);
                of.medians.push(median);
            }
            let bare_folder = self.folder.join(format!("bare-{sessions}-{reconnect}-{round}"));
            let seen = bare::run(&bare_folder, sessions, messages, SMALL_OCTETS)?;
            let (rate, median) = (per_second(messages, seen.elapsed), milliseconds(percentile(&seen.writes, 50)));
            let p99 = milliseconds(percentile(&seen.writes, 99));
            println!("{round:<6} {:<8} {rate:>6.0}  {:>10}  {median:>9.2} / {p99:<7.2}", "bare", "");
            bare.add(rate, 0.0);
            bare.medians.push(median);
            std::fs::remove_dir_all(&bare_folder)?;
        }
        if sessions > 1 {
            let aims = if reconnect { ["4×", "1/5"] } else { ["5×; 60 % of the loop", "1/5; 1.1 ms"] };
            self.table.add_rates(label, (&pair, &chain), &bare.rates, aims);
            return Ok(());
        }
        self.table.add(Row {
            what: format!("{label}, median"),
            pair: with_unit(numbers(pair.medians.iter().copied(), 2), "ms"),
            chain: with_unit(numbers(chain.medians.iter().copied(), 1), "ms"),
            bare: if reconnect { String::new() } else { with_unit(numbers(bare.medians, 2), "ms") },
            ratio: parts(&pair.medians, &chain.medians),
            aim: if reconnect { "10 ms" } else { "1.5 × the loop + 2 ms" },
        });
        Ok(())
    }

    async fn big_messages(&mut self, pair: &Pair, subject: &Subject) -> Result<()> {
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
            let rate = per_second(BIG_OCTETS * count, run.seen.elapsed) / 1e6;
            let peak = |pid| -> Result<f64> { Ok(mebibytes(usage::memory(pid)?.peak_kib)) };
            let [edge, home] = pids(pair);
            let peaks = format!("edge {:.0}, home {:.0} MiB", peak(edge)?, peak(home)?);
            println!("{label}: {rate:.0} MB/s, peak {peaks}");
            let (what, pair, aim) = match count {
                1 => ("one message of 50 MB, end to end", format!("{rate:.0} MB/s"), "100 MB/s"),
                _ => ("four of 50 MB at once, peak resident", peaks, "160 MiB each"),
            };
            self.table.add(Row { what: what.to_owned(), pair, aim, ..Row::default() });
        }
        Ok(())
    }
}

fn pids(pair: &Pair) -> [u32; 2] {
    [pair.facts.edge.pid, pair.facts.home.pid]
}

/// CPU time a message, and how long it took to the last.
async fn outbound_run(
    plan: &Plan,
    pids: &[u32],
    sink: &Sink,
    run: &str,
    messages: usize,
) -> Result<(Duration, Duration)> {
    let plan = Plan {
        sessions: OUTBOUND_SESSIONS,
        messages,
        recipient: FRIEND.to_owned(),
        run: run.to_owned(),
        ..plan.clone()
    };
    let clock = Clock::real();
    let (cpu, start) = (usage::cpu(pids)?, clock.now());
    load::run(&plan).await?;
    while sink.count(run)? < messages {
        ensure!(clock.now() - start < OUTBOUND_MAX, "{} of {messages} came", sink.count(run)?);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = clock.now() - start;
    let cpu = usage::cpu(pids)?.saturating_sub(cpu) / u32::try_from(messages)?;
    Ok((cpu, elapsed))
}
