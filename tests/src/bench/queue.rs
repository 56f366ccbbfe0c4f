//! A queue that holds a hundred thousand messages for domains of which DNS never tells anything, each its own:
//! how long the home takes to start with it, what it holds in memory, and how mail for one live destination
//! fares beside it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use gatepost_home::database::Database;
use gatepost_home::message::{Body, Message};
use gatepost_home::queue::config::Settings;
use gatepost_home::queue::next_hop::Routes;
use gatepost_home::queue::{NewEntry, Queue, QueueId};
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use serde::Deserialize;

use super::chain::wait_for;
use super::load::{self, Plan};
use super::outbound::Sink;
use super::pair::{Home, PASSWORD};
use super::usage;

/// Where the live destination is, whatever DNS says.
pub const LIVE: &str = "live.example";
/// Messages to it of one run.
const LIVE_MESSAGES: usize = 400;
const SESSIONS: usize = 8;
const OCTETS: usize = 4 * 1024;
/// Writers that fill the queue at once.
const WRITERS: usize = 32;
/// How long the dead ones are let hang before the live ones come.
const SETTLING: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// From the home's start to its open door.
    pub start: Duration,
    /// Resident once it is up, in KiB.
    pub resident_kib: u64,
    /// The most it had by the end, in KiB.
    pub peak_kib: u64,
    /// Messages a second to the live destination without any other.
    pub alone: f64,
    /// The same beside all the dead ones.
    pub beside: f64,
    /// From its end of data to its arrival, of one message that nothing was known of the destination before.
    pub first: Duration,
}

/// A pair whose edge asks a resolver that never answers.
struct Pair {
    process: Child,
    facts: Facts,
    // Swallows what it is asked.
    _resolver: UdpSocket,
}

#[derive(Deserialize)]
struct Facts {
    home: HomeFacts,
}

#[derive(Deserialize)]
struct HomeFacts {
    submissions: SocketAddr,
    pid: u32,
    state: PathBuf,
    command: Vec<String>,
}

/// Measures with so many messages, under `folder`.
pub async fn measure(binary: &Path, folder: &Path, account: &str, messages: usize) -> Result<Figures> {
    let (sink, clock) = (Sink::start().await?, Clock::real());
    let pair = Pair::start(binary, folder, account, &sink)?;
    let alone = pair.send(&sink, &clock, account, "alone").await?;
    let state = pair.facts.home.state.clone();
    drop(pair);
    let owner = account.to_owned();
    tokio::task::spawn_blocking(move || fill(&state, &owner, messages)).await??;
    let pair = Pair::start(binary, folder, account, &sink)?;
    let submissions = pair.facts.home.submissions;
    // The program itself, started anew, without what the pair does around it.
    let _ = Command::new("kill").args(["-KILL", &pair.facts.home.pid.to_string()]).status();
    wait_for("the home to die", || Ok(TcpStream::connect(submissions).is_err()))?;
    let begun = clock.now();
    let home = Home::start(&pair.facts.home.command)?;
    while TcpStream::connect(submissions).is_err() {
        ensure!(clock.now() - begun < Duration::from_mins(1), "the home does not start");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let start = clock.now() - begun;
    tokio::time::sleep(SETTLING).await;
    let resident_kib = usage::memory(home.pid())?.now_kib;
    let first = clock.now();
    pair.plan_run(&sink, account, "first", 1).await?;
    let first = clock.now() - first;
    let beside = pair.send(&sink, &clock, account, "beside").await?;
    let peak_kib = usage::memory(home.pid())?.peak_kib;
    Ok(Figures { start, resident_kib, peak_kib, alone, beside, first })
}

impl Pair {
    fn start(binary: &Path, folder: &Path, account: &str, sink: &Sink) -> Result<Self> {
        let ready = folder.join("ready");
        let _ = fs::remove_file(&ready);
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let process = Command::new(binary)
            .args(["--account", &format!("{account}:{PASSWORD}"), "--route", &format!("{LIVE}={}", sink.address)])
            // All others are looked up where nobody answers.
            .arg("--by-mx")
            .args(["--edge-set", &format!("dns.servers=[\"{}\"]", resolver.local_addr()?)])
            .args(["--home-set", "limits.submission_connections_per_address=100"])
            // The live ones come on top of the dead.
            .args(["--home-set", "queue.messages_max=200000"])
            // All mail goes out from one account.
            .args(["--home-set", "limits.account_recipients_per_hour=100000"])
            .args(["--home-set", "limits.account_recipients_per_day=100000"])
            .arg("--state")
            .arg(folder)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("pair.stderr"))?)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        wait_for("the pair", || Ok(ready.exists()))?;
        let facts = serde_json::from_slice(&fs::read(folder.join("pair.json"))?).context("reading pair.json")?;
        Ok(Self { process, facts, _resolver: resolver })
    }

    /// Messages a second to the live destination, from the first submission to the last arrival.
    async fn send(&self, sink: &Sink, clock: &Clock, account: &str, run: &str) -> Result<f64> {
        let begun = clock.now();
        self.plan_run(sink, account, run, LIVE_MESSAGES).await?;
        let count = f64::from(u32::try_from(LIVE_MESSAGES)?);
        Ok(count / (clock.now() - begun).as_secs_f64())
    }

    async fn plan_run(&self, sink: &Sink, account: &str, run: &str, messages: usize) -> Result<()> {
        let plan = Plan {
            target: self.facts.home.submissions,
            sessions: SESSIONS.min(messages),
            messages,
            octets: OCTETS,
            reconnect: false,
            sender: account.to_owned(),
            password: Some(PASSWORD.to_owned()),
            recipient: format!("friend@{LIVE}"),
            signer: None,
            beforehand: false,
            run: run.to_owned(),
        };
        load::run(&plan).await?;
        let clock = Clock::real();
        let begun = clock.now();
        while sink.count(run)? < messages {
            ensure!(clock.now() - begun < Duration::from_mins(5), "{run}: {} of {messages} came", sink.count(run)?);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// Queues messages, each for a domain of its own.
fn fill(state: &Path, account: &str, messages: usize) -> Result<()> {
    let (sender, clock) = (Address::parse(account)?, Clock::real());
    let settings = Settings::new("home.example.test", sender.clone());
    let (queue, _) = Queue::open(state, Database::open(state)?, settings, Routes::default(), clock.clone())?;
    let next = AtomicUsize::new(0);
    let write = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= messages {
                return Ok(());
            }
            let recipient = Address::parse(&format!("someone@d{number:06}.dead.example"))?;
            let entry = NewEntry {
                id: QueueId(random::bytes()),
                trace: TraceId::from_random(random::bytes()),
                envelope: Envelope {
                    reverse_path: ReversePath::Address(sender.clone()),
                    recipients: vec![Recipient::plain(recipient)],
                    body: BodyKind::SevenBit,
                    smtputf8: false,
                    ret: None,
                    envid: None,
                },
                login: Some(sender.to_string()),
                received_unix_s: clock.unix_s(),
                held: None,
            };
            let text = format!("From: <{sender}>\r\nSubject: number {number}\r\n\r\n{}\r\n", "x".repeat(900));
            let message = Message { front: Bytes::new(), body: Body::from(text.into_bytes()) };
            queue.prepare(entry, &message)?.commit()?;
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })
}
