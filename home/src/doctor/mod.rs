//! What is well and what is not, seen from both ends: each finding comes of a probe that ran, and each that is not well
//! says what to do. Judging is pure; only [`world`] asks and dials.

pub mod answer;
pub mod config;
mod edges;
mod here;
pub mod probe;
mod records;
pub mod world;
pub mod written;

use std::collections::HashMap;
use std::net::IpAddr;

use gatepost_protocol::mail::verdict::Found;
use gatepost_protocol::tunnel::verb::examination::Examined;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::records::{KeyPhase, Record};

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// ✓
    Good,
    /// ! It could not be verified, or it will hurt one day.
    Unsure,
    /// ✗ It hurts.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How well it is.
    pub mark: Mark,
    /// What it is of: a domain, an edge, this home.
    pub of: String,
    /// What was looked at, in a word: it never changes, programs read it.
    pub check: &'static str,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

/// What the running home knows, gathered for its doctor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// As `status` shows it.
    pub status: Value,
    /// As `dns` shows them.
    pub records: Vec<Record>,
    /// Its keys that sign mail.
    pub keys: Vec<Key>,
    /// Its edges.
    pub edges: Vec<EdgeFacts>,
    /// A message of each domain, signed as its mail is.
    pub signed: Vec<Signed>,
}

/// One edge of the config.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EdgeFacts {
    /// Its name in the config.
    pub name: String,
    /// Its host name, where known.
    pub host: Option<String>,
    /// Its addresses, as the home reaches it.
    pub addresses: Vec<IpAddr>,
    /// What it found when it tried things out; or why it did not.
    pub examined: Option<Result<Examined, String>>,
    /// Its date minus ours, in milliseconds.
    pub ahead_ms: i64,
    /// Octets a second that pass each way.
    pub octets_per_s: Option<u64>,
}

/// One key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Key {
    /// Name of its record.
    pub name: String,
    /// Where it stands.
    pub phase: KeyPhase,
}

/// A message of our own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Signed {
    /// Whose.
    pub domain: String,
    /// It, whole.
    pub text: String,
}

/// What the world said when it was asked. What is not in here was not asked.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Records as a zone file has them, lower case but for TXT, by name and type. An error: could not be asked.
    pub dns: HashMap<(String, &'static str), Result<Vec<String>, String>>,
    /// What SPF says, by domain and sending address.
    pub spf: HashMap<(String, IpAddr), Found>,
    /// What DKIM and DMARC say of our own mail, by domain.
    pub own_mail: HashMap<String, (Found, Found)>,
    /// What was met at 465, by host: an error says why there is no safe connection.
    pub submissions: HashMap<String, Result<(), String>>,
}

/// Looks at all of it; in the order in which it is to be mended.
pub fn findings(facts: &Facts, answers: &Answers, now_unix_s: i64) -> Vec<Finding> {
    let mut all = Findings::default();
    here::look(&mut all, facts);
    edges::look(&mut all, facts, answers, now_unix_s);
    records::look(&mut all, facts, answers);
    all.0
}

/// Findings, as they are made.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, of: &str, check: &'static str, found: impl Into<String>) {
        self.0.push(Finding { mark: Mark::Good, of: of.to_owned(), check, found: found.into(), remedy: None });
    }

    fn unsure(&mut self, of: &str, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.0.push(Finding { mark: Mark::Unsure, of: of.to_owned(), check, found: found.into(), remedy });
    }

    fn bad(&mut self, of: &str, check: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.0.push(Finding { mark: Mark::Bad, of: of.to_owned(), check, found: found.into(), remedy });
    }
}

#[cfg(test)]
mod tests;
