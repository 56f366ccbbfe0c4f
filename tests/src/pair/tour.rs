//! The first two messages of a pair, one in and one out, and what is worth telling about them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use gatepost_runtime::clock::Clock;

use super::Pair;
use crate::client::Client;
use crate::observe;
use crate::world::message;
use crate::world::sink::KeptEnvelope;

/// Who gets the first message out.
pub const FRIEND: &str = "friend@elsewhere.example";

/// A message that went all the way.
#[derive(Debug)]
pub struct Trip {
    /// From the first connection until it was seen at the other end.
    pub took: Duration,
    /// The reply that took responsibility for it.
    pub reply: String,
    /// The stored message.
    pub file: PathBuf,
    /// Its Received fields, newest first, unfolded.
    pub received: Vec<String>,
}

/// A stranger writes to the first account, with STARTTLS.
pub fn inbound(pair: &Pair) -> anyhow::Result<Trip> {
    let to = &pair.accounts[0].address;
    let clock = Clock::real();
    let began = clock.now();
    let seen = message::files(&pair.maildir(to));
    let mut client = Client::greeted(pair.edge().doors.smtp)?;
    client.start_tls(&pair.tls()?, &pair.edge_hostname)?;
    let text = "Hello,\r\n\r\nthis came in from the world.\r\n";
    let reply = client.deliver(
        "stranger@world.example",
        &[to],
        &plain("stranger@world.example", to, "In from the world", text),
    )?;
    anyhow::ensure!(reply.code == 250, "the edge said {reply:?}\n{}", client.dialog());
    client.quit()?;
    let file = message::files(&pair.maildir(to)).into_iter().find(|file| !seen.contains(file));
    let file = file.context("answered 250, but not in the Maildir")?;
    Ok(Trip { took: clock.now() - began, reply: reply.text(), received: received(&std::fs::read(&file)?), file })
}

/// The first account writes to a stranger, by way of the edge's 465.
pub fn outbound(pair: &Pair) -> anyhow::Result<(Trip, KeptEnvelope)> {
    let account = &pair.accounts[0];
    let clock = Clock::real();
    let began = clock.now();
    let seen = pair.sink.envelopes()?.len();
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &pair.tls()?, &pair.edge_hostname)?;
    let login = client.login(&account.address, &account.submission_password)?;
    anyhow::ensure!(login.code == 235, "the edge said {login:?}");
    let text = "Hello,\r\n\r\nthis goes out to the world.\r\n";
    let reply =
        client.deliver(&account.address, &[FRIEND], &plain(&account.address, FRIEND, "Out to the world", text))?;
    anyhow::ensure!(reply.code == 250, "the edge said {reply:?}\n{}", client.dialog());
    client.quit()?;
    let envelope = observe::until_ok("the message to reach the sink", || {
        let envelopes = pair.sink.envelopes()?;
        envelopes.get(seen).cloned().with_context(|| format!("the sink has {} messages", envelopes.len()))
    });
    let trip = Trip {
        took: clock.now() - began,
        reply: reply.text(),
        received: received(&pair.sink.message(&envelope)?),
        file: pair.sink.maildir().join("new").join(&envelope.message),
    };
    Ok((trip, envelope))
}

fn plain(from: &str, to: &str, subject: &str, text: &str) -> Vec<u8> {
    let date = gatepost_runtime::clock::mail_date(Clock::real().unix_s());
    let id = u64::from_be_bytes(gatepost_runtime::random::bytes());
    let header = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\n");
    format!("{header}Message-ID: <{id:016x}@world.example>\r\n\r\n{text}").into_bytes()
}

fn received(stored: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stored).replace("\r\n", "\n");
    let header = text.split("\n\n").next().unwrap_or_default().replace("\n\t", " ").replace("\n ", " ");
    header.lines().filter(|line| line.starts_with("Received:")).map(str::to_owned).collect()
}
