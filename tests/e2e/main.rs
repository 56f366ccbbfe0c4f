//! End to end: the two real programs, as users run them, with real peers where there are any. One story
//! a file; each test has a pair of its own.

mod access;
mod admission;
mod aliases;
mod away;
mod bans;
mod bounce;
mod caps;
mod certificates;
mod cli;
mod codes;
mod config;
mod dane;
mod dns_lists;
mod doctor;
mod drain;
mod homes;
mod hostile;
mod imap;
mod imap_dialogs;
mod inbound;
mod inbound_tls;
mod interop;
mod judging;
mod lists;
mod lmtp;
mod local;
mod local_programs;
mod local_programs_edge;
mod lying_edge;
mod mta_sts_outbound;
mod open_relay;
mod pairing;
mod policy;
mod probe;
mod queue;
mod quota;
mod records;
mod relay;
mod reload;
mod reporting;
mod reports;
mod secrecy;
mod signing;
mod skew;
mod smuggling;
mod spf_suite;
mod spool;
mod status;
mod strange_ca;
mod strangers;
mod submission;
mod trace;
mod trusted_networks;
mod vectors;
mod web;

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const STRANGER: &str = "stranger@world.example";

/// Alice and Bob of example.org, one edge, everything outbound to the sink.
fn pair() -> Pair {
    started(&Options::story())
}

fn started(options: &Options) -> Pair {
    Pair::start(options).expect("the pair starts")
}

/// Waits until exactly these numbers lie in an account's Maildir, each whole and once.
fn expect_delivered(pair: &Pair, address: &str, numbers: &[u64]) {
    observe::until_delivered(&pair.maildir(address), numbers);
}

/// Waits until exactly these numbers lie in the sink, each whole and once.
fn expect_in_sink(pair: &Pair, numbers: &[u64]) {
    observe::until_delivered(pair.sink.maildir(), numbers);
}

/// The one message in an account's Maildir, as text with LF line ends.
fn only_message(pair: &Pair, address: &str) -> String {
    let maildir = pair.maildir(address);
    let files = observe::until("one message", || message::files(&maildir), |files| !files.is_empty());
    assert_eq!(files.len(), 1, "{files:?}");
    String::from_utf8_lossy(&std::fs::read(&files[0]).expect("readable")).replace("\r\n", "\n")
}

/// The header fields of a stored message, unfolded.
fn fields(message: &str) -> Vec<String> {
    let header = message.split("\n\n").next().unwrap_or_default();
    header.replace("\n\t", " ").replace("\n ", " ").lines().map(str::to_owned).collect()
}

/// The values of the fields of this name.
fn values<'a>(fields: &'a [String], name: &str) -> Vec<&'a str> {
    let matches = |field: &'a String| {
        let (found, value) = field.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    };
    fields.iter().filter_map(matches).collect()
}

/// Makes an account with this password.
fn add_account(pair: &Pair, address: &str, password: &str) {
    pair.make_account(address, password).expect("an account");
}
