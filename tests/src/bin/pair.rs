//! `cargo pair`: both programs on loopback, a message in and one out, and then yours to play with.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Addresses, Options, Outbound};
use gatepost_tests::pair::tour::{self, Trip};
use tokio::signal::unix::{SignalKind, signal};

/// Builds and starts the two programs on loopback, sends a message in and one out, and keeps running
/// until Ctrl-C. Needs no privileges.
#[derive(Parser)]
#[command(name = "cargo pair", bin_name = "cargo pair")]
struct Arguments {
    /// Where everything is kept (default: a directory that is removed at the end)
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// An account to make, and its password; may be repeated
    #[arg(long, value_name = "NAME@DOMAIN:PASSWORD", value_parser = account)]
    account: Vec<(String, String)>,
    /// A domain to serve, beside those of the accounts; may be repeated
    #[arg(long, value_name = "D")]
    domain: Vec<String>,
    /// More records for the embedded DNS, in zone-file syntax. Without it every domain below example, test, com, net and
    /// org has a mail host; with it only those exist that have records, and mail from others is refused
    #[arg(long, value_name = "FILE")]
    zone: Option<PathBuf>,
    /// Where outbound mail for DOMAIN goes (`*`: all; default: the embedded sink); may be repeated
    #[arg(long, value_name = "DOMAIN=HOST:PORT", value_parser = route)]
    route: Vec<(String, String)>,
    /// Mail for domains without a route goes by MX, not to the embedded sink
    #[arg(long)]
    by_mx: bool,
    /// How many edges
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    edges: u8,
    /// A setting to merge into every edge's config, such as limits.connections=10; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    edge_set: Vec<String>,
    /// A setting to merge into the home's config; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    home_set: Vec<String>,
    /// Where the edges listen (default: 127.0.0.1)
    #[arg(long, value_name = "ADDRESS")]
    edge_address: Option<IpAddr>,
    /// A folder with the two programs, such as those of another build; nothing is built
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Written when everything is up
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ready_file = arguments.ready_file.clone();
    if let Some(file) = &ready_file {
        // One of an earlier run would speak too soon.
        let _ = std::fs::remove_file(file);
    }
    let options = options(arguments)?;
    let (interrupted, interruption) = std::sync::mpsc::channel();
    std::thread::spawn(move || watch(&interrupted));

    eprintln!("building and starting gatepost-edge and gatepost-home …");
    let started = std::thread::spawn(move || start(&options)).join();
    let Ok(pair) = started else {
        anyhow::ensure!(observe::is_interrupted(), "it could not be started; see above");
        return Ok(());
    };
    let mut pair = pair?;
    if let Some(file) = ready_file {
        std::fs::write(&file, b"ready\n").with_context(|| format!("can't write {}", file.display()))?;
    }
    println!("\nCtrl-C ends it.");
    let _ = interruption.recv();
    println!("ending");
    observe::resume();
    // A Ctrl-C on a terminal reaches the programs too; who was killed by hand is not asked again.
    for edge in &mut pair.edges {
        let _ = edge.program.stop();
    }
    let _ = pair.home.program.stop();
    Ok(())
}

/// Starts the pair, shows it, and lets a message in and one out.
fn start(options: &Options) -> anyhow::Result<Pair> {
    let pair = Pair::start(options)?;
    print_programs(&pair);
    let to = pair.accounts[0].address.clone();
    let inbound = tour::inbound(&pair).context("the message in")?;
    print_trip(&format!("in: stranger@world.example wrote to {to}"), &inbound);
    let (outbound, kept) = tour::outbound(&pair).context("the message out")?;
    print_trip(&format!("out: {to} wrote to {}", kept.recipients.join(", ")), &outbound);
    print_settings(&pair);
    Ok(pair)
}

/// Waits for Ctrl-C or SIGTERM, and ends every wait then.
fn watch(interrupted: &std::sync::mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime without threads needs nothing");
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be watched");
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be watched");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    observe::interrupt();
    let _ = interrupted.send(());
}

fn options(arguments: Arguments) -> anyhow::Result<Options> {
    let zone = match &arguments.zone {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?,
        None => String::new(),
    };
    let here = Addresses::default();
    Ok(Options {
        state: arguments.state,
        accounts: arguments.account,
        domains: arguments.domain,
        zone,
        outbound: match (arguments.by_mx, arguments.route.is_empty()) {
            (true, _) => Outbound::RoutesElseMx(arguments.route),
            (false, true) => Outbound::Sink,
            (false, false) => Outbound::Routes(arguments.route),
        },
        edges: usize::from(arguments.edges),
        edge_set: arguments.edge_set,
        home_set: arguments.home_set,
        programs: arguments.programs,
        addresses: Addresses { edge: arguments.edge_address.unwrap_or(here.edge), ..here },
        ..Options::default()
    })
}

fn account(text: &str) -> Result<(String, String), String> {
    let (address, password) = text.split_once(':').ok_or("there is no colon before the password")?;
    if !address.contains('@') || password.is_empty() {
        return Err("such as alice@example.org:a-good-password".to_owned());
    }
    Ok((address.to_owned(), password.to_owned()))
}

fn route(text: &str) -> Result<(String, String), String> {
    let (domain, host) = text.split_once('=').ok_or("such as *=192.0.2.1:25")?;
    Ok((domain.to_owned(), host.to_owned()))
}

fn print_programs(pair: &Pair) {
    println!();
    for edge in &pair.edges {
        println!(
            "{:<6} pid {:<8} smtp {}  submissions {}  tunnel {}",
            edge.program.name,
            edge.program.pid().unwrap_or_default(),
            edge.doors.smtp,
            edge.doors.submissions,
            edge.doors.tunnel
        );
    }
    let home = &pair.home;
    println!("home   pid {:<8} submissions {}", home.program.pid().unwrap_or_default(), home.submissions);
    println!("all of it in {}, described by pair.json there", pair.directory().display());
}

fn print_trip(title: &str, trip: &Trip) {
    println!("\n{title}: {} ms, \"{}\"", trip.took.as_millis(), trip.reply);
    println!("  {}", trip.file.display());
    for line in &trip.received {
        println!("  {line}");
    }
}

fn print_settings(pair: &Pair) {
    println!("\nA mail client's settings (trust the certificate {}):", pair.ca.display());
    for account in &pair.accounts {
        println!("  {}", account.address);
        println!(
            "    sending, as from outside: 127.0.0.1 port {}, SSL/TLS, password {}",
            pair.edge().doors.submissions.port(),
            account.submission_password
        );
        println!(
            "    sending, as on the LAN:   127.0.0.1 port {}, SSL/TLS, password {}",
            pair.home.submissions.port(),
            account.password
        );
        println!(
            "    reading, as from outside: 127.0.0.1 port {}, SSL/TLS, password {}",
            pair.edge().doors.imaps.port(),
            account.password
        );
        println!(
            "    reading, as on the LAN:   127.0.0.1 port {}, SSL/TLS, password {}",
            pair.home.imaps.port(),
            account.password
        );
        println!("    reading, the files:       mutt -f {}", account.maildir);
    }
    println!("  Mail from the world: 127.0.0.1 port {} (STARTTLS offered)", pair.edge().doors.smtp.port());
    println!("  Mail to the world ends in {}", pair.sink.maildir().display());
}
