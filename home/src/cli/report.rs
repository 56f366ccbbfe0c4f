//! `gatepost-home report`: what those who get our mail tell about it, and what we tell others of theirs.

mod outgoing;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use gatepost_protocol::mail::address::Domain;
use serde_json::{Value, json};

use super::{Context, Failure, list, pretty, print, table, text};
use crate::run::reports::{KEY, Kind, Request, alone};

/// Longest time that can be asked about, in days: what is older is forgotten.
const DAYS_MAX: i64 = 400;

/// Reports.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    #[command(subcommand)]
    command: ReportCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ReportCommand {
    /// Who sends mail in your domains' names, and whether it passes (DMARC aggregate reports).
    Dmarc(Which),
    /// Single messages that failed, or that somebody complained about.
    Failures(Which),
    /// How TLS with your mail hosts goes, as senders see it (TLSRPT).
    Tls(Which),
    /// What we tell other domains of mail in their name, if `reports.dmarc_aggregate` is set.
    Outgoing(outgoing::OutgoingArgs),
}

#[derive(Clone, Debug, Args)]
struct Which {
    /// Of so many days.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
    /// About this domain only.
    #[arg(long)]
    domain: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context<'_>, args: ReportArgs) -> Result<(), Failure> {
    let (of, which) = match args.command {
        ReportCommand::Dmarc(which) => (Kind::Dmarc, which),
        ReportCommand::Failures(which) => (Kind::Failures, which),
        ReportCommand::Tls(which) => (Kind::Tls, which),
        ReportCommand::Outgoing(args) => return outgoing::run(context, &args),
    };
    let domain =
        which.domain.map(|name| Domain::parse(&name).map_err(|error| Failure::Usage(format!("{name}: {error}"))));
    let request =
        Request { of, days: which.days, domain: domain.transpose()?.map(|domain| domain.as_str().to_owned()) };
    let answer = context.perform(&json!({ KEY: request }), |store, _, clock| {
        if request.of == Kind::Dmarc {
            eprintln!("note: the home does not run, so its edges' addresses are not known: they show as others");
        }
        alone(store, Vec::new(), &request, clock.unix_s())
    })?;
    print(&match (which.json, of) {
        (true, _) => pretty(&answer),
        (false, Kind::Dmarc) => dmarc(&answer, which.days),
        (false, Kind::Failures) => failures(&answer),
        (false, Kind::Tls) => tls(&answer),
    })
}

fn dmarc(answer: &Value, days: u32) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    let (messages, passed) = (number("messages"), number("passed"));
    let row = |source: &Value| {
        let names = |name: &str| list(source, name).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let overrides = counted(&source["overrides"]);
        let done = counted(&source["done"]) + &if overrides.is_empty() { overrides } else { format!(" ({overrides})") };
        vec![
            text(source, "network"),
            text(source, "told"),
            text(source, "messages"),
            text(source, "passed"),
            text(source, "dkim"),
            text(source, "spf"),
            done,
            names("signers"),
            names("reporters"),
        ]
    };
    let heads = ["SOURCE", "WHOSE", "MESSAGES", "PASS", "DKIM", "SPF", "DONE", "SIGNED BY", "TOLD BY"];
    let sources = list(answer, "sources");
    if sources.is_empty() {
        return format!(
            "No report about the last {days} days. Large receivers send one a day to the address in your DMARC record \
             (gatepost-home dns), about the mail they got.\n"
        );
    }
    let mut shown = table(&heads, sources.iter().map(row), "");
    if number("more_sources") > 0 {
        let _ = writeln!(shown, "and {} more sources, with fewer messages each", number("more_sources"));
    }
    let _ = writeln!(
        shown,
        "\n{messages} messages in {days} days, by {} reports of {} receivers: {passed} pass, {} do not.",
        number("reports"),
        list(answer, "reporters").len(),
        messages.saturating_sub(passed)
    );
    shown + &advice(sources)
}

/// What follows for the owner.
fn advice(sources: &[Value]) -> String {
    let mut shown = String::new();
    let fails = |source: &Value| source["passed"].as_u64() < source["messages"].as_u64();
    for source in sources.iter().filter(|source| source["whose"] == "edge" && fails(source)) {
        let _ = writeln!(
            shown,
            "Mail by {} does not always pass: gatepost-home doctor shows which record is wrong.",
            text(source, "told")
        );
    }
    if sources.iter().any(|source| source["whose"] == "stranger" && fails(source)) {
        shown += "Strangers use your name. If one of them is a service that sends for you, let it sign with a key of your \
                  domain; the others are refused once your DMARC record says so (gatepost-home dns --tested).\n";
    }
    shown
}

/// `reject 3, none 1`
fn counted(counts: &Value) -> String {
    let counts = counts.as_object().into_iter().flatten();
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn failures(answer: &Value) -> String {
    let row = |failure: &Value| {
        let names = ["received", "kind", "failed", "header_from", "source", "envelope_from", "delivery", "reporter"];
        names.iter().map(|name| text(failure, name)).collect()
    };
    let heads = ["RECEIVED", "KIND", "FAILED", "FROM", "SOURCE", "ENVELOPE FROM", "DONE", "TOLD BY"];
    table(&heads, list(answer, "failures").iter().map(row), "No report of a single message; few receivers send any.")
}

fn tls(answer: &Value) -> String {
    let sessions = list(answer, "sessions");
    if sessions.is_empty() {
        return "No report of TLS. Large senders send one a day to the address in your TLSRPT record (gatepost-home dns).\n"
            .to_owned();
    }
    let names = ["domain", "policy", "good", "bad", "reports", "reporters"];
    let row = |seen: &Value| names.iter().map(|name| text(seen, name)).collect();
    let mut shown = table(&["DOMAIN", "POLICY", "GOOD", "FAILED", "REPORTS", "BY"], sessions.iter().map(row), "");
    let failures = list(answer, "failures");
    if failures.is_empty() {
        shown += "\nNo session failed.\n";
        return shown;
    }
    let row = |seen: &Value| {
        let by = list(seen, "reporters").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let of = |name| text(seen, name);
        vec![of("count"), of("kind"), of("host"), of("last"), by, of("reason"), of("meaning")]
    };
    shown.push('\n');
    shown
        + &table(
            &["FAILED", "HOW", "HOST", "LAST", "TOLD BY", "IN THEIR WORDS", "WHAT IT MEANS"],
            failures.iter().map(row),
            "",
        )
}
