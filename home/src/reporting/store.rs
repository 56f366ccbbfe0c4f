//! The counts in `home.db`: a report for each day, domain and policy, and its rows. Bounded; what finds no room is
//! counted. A report is closed once, when it is sent or there is nobody to send it to.

use aws_lc_rs::digest::{Context, SHA256};
use gatepost_protocol::mail::report::{Disposition, DkimResult, Reason, ReasonKind, Row, SpfResult};
use gatepost_protocol::mail::verdict::{Asked, Found, Published};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Kind, schedule};
use crate::database::{Database, DatabaseError};

/// Reports of one day.
pub const REPORTS_MAX: i64 = 500;
/// Rows of one report.
const ROWS_MAX: i64 = 2000;
/// Reports sent in one round.
const ROUND_MAX: i64 = 16;
/// Reports listed.
const LISTED_MAX: i64 = 1000;

/// What is known of a report but its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its number here.
    pub id: i64,
    /// Its day, since 1970.
    pub day: i64,
    /// What its domain publishes.
    pub published: Published,
    /// When it is to go out.
    pub due_unix_s: i64,
    /// Messages counted.
    pub messages: i64,
    /// Rows.
    pub rows: i64,
    /// Messages that found no room in it.
    pub missed: i64,
    /// When it was closed, and what became of it.
    pub closed: Option<(i64, String)>,
}

/// The tables.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Adds to the counts; gives how many messages found no room in any report. Blocking.
    pub fn add(&self, counts: Vec<(Kind, u64)>, hostname: &str) -> Result<u64, DatabaseError> {
        let hostname = hostname.to_owned();
        let added = self.database.write(move |connection| {
            let mut missed = 0;
            for (kind, count) in &counts {
                if !add(connection, kind, i64::try_from(*count).unwrap_or(i64::MAX), &hostname)? {
                    missed += count;
                }
            }
            Ok(missed)
        });
        added.wait()
    }

    /// Some of the reports that are due, those of most messages first. Blocking, briefly.
    pub fn due(&self, now_unix_s: i64) -> Result<Vec<Report>, DatabaseError> {
        self.database.read(|connection| {
            let sql = [SELECT, "WHERE closed IS NULL AND due <= ?1 ORDER BY messages DESC, id LIMIT ?2"].concat();
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map((now_unix_s, ROUND_MAX), report)?.collect()
        })
    }

    /// The reports of the last days, the latest first. Blocking, briefly.
    pub fn list(&self) -> Result<Vec<Report>, DatabaseError> {
        self.database.read(|connection| {
            let sql = [SELECT, "ORDER BY day DESC, messages DESC, id LIMIT ?1"].concat();
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map([LISTED_MAX], report)?.collect()
        })
    }

    /// The rows of a report, those of most messages first. Blocking, briefly.
    pub fn rows(&self, id: i64) -> Result<Vec<Row>, DatabaseError> {
        self.database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT row, count FROM outgoing_row WHERE report = ?1 ORDER BY count DESC, row")?;
            let rows = statement.query_map([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            let mut found = Vec::new();
            for row in rows {
                let (text, count) = row?;
                // Of another build that knew more.
                let Ok(kept) = serde_json::from_str::<Kept>(&text) else { continue };
                found.extend(kept.row(u64::try_from(count).unwrap_or(0)));
            }
            Ok(found)
        })
    }

    /// It is sent, or there is nobody to send it to: its rows go. Blocking.
    pub fn close(&self, id: i64, outcome: String, now_unix_s: i64) -> Result<(), DatabaseError> {
        let closed = self.database.write(move |connection| {
            connection
                .prepare_cached("UPDATE outgoing_report SET closed = ?2, outcome = ?3 WHERE id = ?1")?
                .execute((id, now_unix_s, outcome))?;
            connection.prepare_cached("DELETE FROM outgoing_row WHERE report = ?1")?.execute([id]).map(drop)
        });
        closed.wait()
    }

    /// It is tried again then. Blocking.
    pub fn put_off(&self, id: i64, due_unix_s: i64) -> Result<(), DatabaseError> {
        let sql = "UPDATE outgoing_report SET due = ?2 WHERE id = ?1";
        let put_off = self
            .database
            .write_statement(move |connection| connection.prepare_cached(sql)?.execute((id, due_unix_s)).map(drop));
        put_off.wait()
    }

    /// Forgets reports of before this day; gives how many of them were never sent. Blocking.
    pub fn prune(&self, oldest_day: i64) -> Result<i64, DatabaseError> {
        let pruned = self.database.write(move |connection| {
            let unsent = connection
                .prepare_cached("SELECT count(*) FROM outgoing_report WHERE day < ?1 AND closed IS NULL")?
                .query_row([oldest_day], |row| row.get(0))?;
            connection.prepare_cached("DELETE FROM outgoing_report WHERE day < ?1")?.execute([oldest_day])?;
            Ok(unsent)
        });
        pruned.wait()
    }
}

/// What is read of a report, in the order of [`report`].
const SELECT: &str =
    "SELECT id, day, domain, policy, due, messages, rows, missed, closed, outcome FROM outgoing_report ";

fn report(row: &rusqlite::Row<'_>) -> rusqlite::Result<Report> {
    let (domain, policy): (String, String) = (row.get(2)?, row.get(3)?);
    let closed = row.get::<_, Option<i64>>(8)?;
    Ok(Report {
        id: row.get(0)?,
        day: row.get(1)?,
        published: read_policy(domain, &policy),
        due_unix_s: row.get(4)?,
        messages: row.get(5)?,
        rows: row.get(6)?,
        missed: row.get(7)?,
        closed: closed.map(|at| Ok::<_, rusqlite::Error>((at, row.get(9)?))).transpose()?,
    })
}

/// Adds to one count; false if no report has room for it.
fn add(connection: &Connection, kind: &Kind, count: i64, hostname: &str) -> rusqlite::Result<bool> {
    let Kind { day, published, row } = kind;
    let policy = policy(published);
    let found: Option<(i64, i64, bool)> = connection
        .prepare_cached(
            "SELECT id, rows, closed IS NULL FROM outgoing_report WHERE day = ?1 AND domain = ?2 AND policy = ?3",
        )?
        .query_row(params![day, published.domain, policy], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let (report, rows) = match found {
        Some((report, rows, true)) => (report, rows),
        Some((_, _, false)) => return Ok(false),
        None => {
            let mut reports = connection.prepare_cached("SELECT count(*) FROM outgoing_report WHERE day = ?1")?;
            if reports.query_row([day], |row| row.get::<_, i64>(0))? >= REPORTS_MAX {
                return Ok(false);
            }
            connection
                .prepare_cached(
                    "INSERT INTO outgoing_report (day, domain, policy, due, messages, rows, missed)
                     VALUES (?1, ?2, ?3, ?4, 0, 0, 0)",
                )?
                .execute(params![
                    day,
                    published.domain,
                    policy,
                    schedule::due_unix_s(*day, spread(hostname, published))
                ])?;
            (connection.last_insert_rowid(), 0)
        }
    };
    let text = serde_json::to_string(&Kept::of(row)).unwrap_or_default();
    let mut update =
        connection.prepare_cached("UPDATE outgoing_row SET count = count + ?3 WHERE report = ?1 AND row = ?2")?;
    let is_new = update.execute(params![report, text, count])? == 0;
    let fits = !is_new || rows < ROWS_MAX;
    if is_new && fits {
        connection
            .prepare_cached("INSERT INTO outgoing_row (report, row, count) VALUES (?1, ?2, ?3)")?
            .execute(params![report, text, count])?;
    }
    connection
        .prepare_cached(
            "UPDATE outgoing_report SET messages = messages + ?2, missed = missed + ?3, rows = rows + ?4 WHERE id = ?1",
        )?
        .execute((report, count, if fits { 0 } else { count }, i64::from(is_new && fits)))?;
    Ok(true)
}

/// Always the same for the same receiver and domain.
fn spread(hostname: &str, published: &Published) -> u64 {
    let mut name = Context::new(&SHA256);
    for part in ["aggregate report", hostname, &published.domain] {
        name.update(part.as_bytes());
        name.update(&[0]);
    }
    name.finish().as_ref().iter().take(8).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// What a domain publishes, as a line of its own tags.
pub fn policy(published: &Published) -> String {
    let Published { domain: _, policy, below, absent, strict_dkim, strict_spf, testing } = published;
    let alignment = |strict: bool| if strict { "s" } else { "r" };
    format!(
        "p={} sp={} np={} adkim={} aspf={} t={}",
        policy.word(),
        below.word(),
        absent.word(),
        alignment(*strict_dkim),
        alignment(*strict_spf),
        if *testing { "y" } else { "n" }
    )
}

fn read_policy(domain: String, text: &str) -> Published {
    let tag = |name: &str| {
        text.split(' ')
            .find_map(|tag| tag.split_once('=').filter(|(tag, _)| *tag == name))
            .map_or("", |(_, value)| value)
    };
    let asked = |name: &str| Asked::parse(tag(name)).unwrap_or_default();
    Published {
        domain,
        policy: asked("p"),
        below: asked("sp"),
        absent: asked("np"),
        strict_dkim: tag("adkim") == "s",
        strict_spf: tag("aspf") == "s",
        testing: tag("t") == "y",
    }
}

/// A row as it is kept: JSON that a person can read.
#[derive(Serialize, Deserialize)]
struct Kept {
    source: String,
    disposition: String,
    dkim: bool,
    spf: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<(String, Option<String>)>,
    header_from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envelope_from: Option<String>,
    /// Domain, selector, result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signatures: Vec<(String, Option<String>, String)>,
    /// Domain, result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    checked: Vec<(String, String)>,
}

impl Kept {
    fn of(row: &Row) -> Self {
        Self {
            source: row.source.to_string(),
            disposition: row.disposition.word().to_owned(),
            dkim: row.dkim,
            spf: row.spf,
            reasons: row.reasons.iter().map(|why| (why.kind.word().to_owned(), why.comment.clone())).collect(),
            header_from: row.header_from.clone(),
            envelope_from: row.envelope_from.clone(),
            signatures: row
                .dkim_results
                .iter()
                .map(|one| (one.domain.clone(), one.selector.clone(), one.found.word().to_owned()))
                .collect(),
            checked: row.spf_results.iter().map(|one| (one.domain.clone(), one.found.word().to_owned())).collect(),
        }
    }

    fn row(self, count: u64) -> Option<Row> {
        let found = |word: &str| Found::parse(word).unwrap_or_default();
        Some(Row {
            source: self.source.parse().ok()?,
            count,
            disposition: Disposition::parse(&self.disposition)?,
            dkim: self.dkim,
            spf: self.spf,
            reasons: self
                .reasons
                .into_iter()
                .map(|(kind, comment)| Reason { kind: ReasonKind::parse(&kind), comment })
                .collect(),
            header_from: self.header_from,
            envelope_from: self.envelope_from,
            envelope_to: None,
            dkim_results: self
                .signatures
                .into_iter()
                .map(|(domain, selector, word)| DkimResult { domain, selector, found: found(&word) })
                .collect(),
            spf_results: self
                .checked
                .into_iter()
                .map(|(domain, word)| SpfResult { domain, is_helo: false, found: found(&word) })
                .collect(),
        })
    }
}
