//! Reports in `home.db`: bounded by age and by number. Where there are too many, the oldest of the reporter that has
//! most go first, so that nobody's flood drives out what others told.

use std::net::IpAddr;

use gatepost_protocol::mail::report::failure::Failure;
use gatepost_protocol::mail::report::{Aggregate, Disposition, ReasonKind, Row};
use gatepost_protocol::mail::verdict::Found;
use rusqlite::Connection;

use crate::database::{Database, DatabaseError};

/// How long reports are kept, in seconds.
pub const KEPT_S: i64 = 400 * 24 * 3600;
/// Rows kept of all reports together.
const ROWS_MAX: i64 = 100_000;
/// Reports kept; one without a row costs as much as one.
const REPORTS_MAX: i64 = 20_000;
/// Reports of single messages kept.
const FAILURES_MAX: i64 = 10_000;
/// Reports that are removed by one write at most: mail gets its turn between them.
const PRUNED_MAX: usize = 50;
/// Octets kept of what was found about each signature of a row.
const SIGNERS_OCTETS_MAX: usize = 512;

/// The bounds on what is kept.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    rows: i64,
    reports: i64,
    failures: i64,
}

/// Whether a report is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is.
    Now,
    /// It came before.
    Before,
}

/// What one row says, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who told it: the domain that is proven.
    pub reporter: String,
    /// Who brought the messages.
    pub source: IpAddr,
    /// How many.
    pub count: u64,
    /// What was done with them.
    pub disposition: Disposition,
    /// A signature of ours passed.
    pub dkim: bool,
    /// SPF passed for a domain of ours.
    pub spf: bool,
    /// The domain in From.
    pub header_from: String,
    /// Why something else was done than we asked for.
    pub reasons: Vec<ReasonKind>,
    /// Domains whose signatures passed, ours or not.
    pub signers: Vec<String>,
}

/// Somebody who reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The domain that is proven.
    pub domain: String,
    /// What it calls itself.
    pub organisation: String,
    /// Reports that came of it.
    pub reports: u64,
    /// The first second they tell of, since 1970.
    pub begin_unix_s: i64,
    /// The last one.
    pub end_unix_s: i64,
    /// Rows of them that are not kept.
    pub left_out: u64,
}

/// A report of a single message, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenFailure {
    /// Who told it: the domain that is proven.
    pub reporter: String,
    /// Of ours.
    pub domain: String,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
    /// What it says.
    pub failure: Failure,
}

/// Which reports are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of times that end after this, seconds since 1970.
    pub since_unix_s: i64,
    /// About this domain of ours; about all if none is named.
    pub domain: Option<String>,
}

/// The reports.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    bounds: Bounds,
}

impl Store {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database, bounds: Bounds { rows: ROWS_MAX, reports: REPORTS_MAX, failures: FAILURES_MAX } }
    }

    /// Keeps a report, once however often it comes. `now` is the date and the steady time. Blocking.
    pub fn keep_aggregate(
        &self,
        reporter: &str,
        report: Aggregate,
        left_out: u64,
        now: (i64, i64),
    ) -> Result<Kept, DatabaseError> {
        let reporter = reporter.to_owned();
        let kept =
            self.database.write(move |connection| insert(connection, &reporter, &report, left_out, now)).wait()?;
        self.prune(now.1)?;
        Ok(kept)
    }

    /// Keeps a report of a single message. Blocking.
    pub fn keep_failure(
        &self,
        reporter: &str,
        domain: &str,
        failure: Failure,
        (unix_s, steady_s): (i64, i64),
    ) -> Result<Kept, DatabaseError> {
        let (reporter, domain) = (reporter.to_owned(), domain.to_owned());
        let kept = self.database.write_statement(move |connection| {
            let source = failure.source.map(|source| source.to_string());
            let Failure { kind, failed, envelope_from, header_from, delivery, aligned, incidents, .. } = failure;
            connection
                .prepare_cached(
                    "INSERT INTO feedback_failure (reporter, domain, at, received, kind, failed, source, envelope_from,
                     header_from, delivery, aligned, incidents) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                )?
                .execute(rusqlite::params![
                    reporter,
                    domain,
                    unix_s,
                    steady_s,
                    kind,
                    failed,
                    source,
                    envelope_from,
                    header_from,
                    delivery,
                    aligned,
                    whole(incidents)
                ])
                .map(|_| Kept::Now)
        });
        let kept = kept.wait()?;
        self.prune(steady_s)?;
        Ok(kept)
    }

    /// Reads every row that is wanted. Blocking.
    pub fn read(&self, wanted: &Wanted, mut each: impl FnMut(Seen)) -> Result<(), DatabaseError> {
        self.database.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT f.reporter, r.source, r.count, r.disposition, r.dkim, r.spf, r.header_from, r.reasons, r.signers
                 FROM feedback f JOIN feedback_row r ON r.feedback = f.id
                 WHERE f.ended > ?1 AND (?2 IS NULL OR f.domain = ?2)",
            )?;
            let mut rows = rows.query((wanted.since_unix_s, &wanted.domain))?;
            while let Some(row) = rows.next()? {
                let (source, disposition): (String, String) = (row.get(1)?, row.get(3)?);
                let Ok(source) = source.parse() else { continue };
                let words = |at| row.get::<_, String>(at);
                each(Seen {
                    reporter: row.get(0)?,
                    source,
                    count: counted(row.get(2)?),
                    disposition: Disposition::parse(&disposition).unwrap_or_default(),
                    dkim: row.get(4)?,
                    spf: row.get(5)?,
                    header_from: row.get(6)?,
                    reasons: words(7)?.split_whitespace().map(ReasonKind::parse).collect(),
                    signers: words(8)?.split_whitespace().map(str::to_owned).collect(),
                });
            }
            Ok(())
        })
    }

    /// Who told something, those of most reports first, at most so many. Blocking.
    pub fn reporters(&self, wanted: &Wanted, most: usize) -> Result<Vec<Reporter>, DatabaseError> {
        self.database.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT reporter, max(organisation), count(*), min(begun), max(ended), sum(left_out) FROM feedback
                 WHERE ended > ?1 AND (?2 IS NULL OR domain = ?2) GROUP BY reporter ORDER BY 3 DESC, 1 LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = rows.query_map((wanted.since_unix_s, &wanted.domain, most), |row| {
                Ok(Reporter {
                    domain: row.get(0)?,
                    organisation: row.get(1)?,
                    reports: counted(row.get(2)?),
                    begin_unix_s: row.get(3)?,
                    end_unix_s: row.get(4)?,
                    left_out: counted(row.get(5)?),
                })
            })?;
            rows.collect()
        })
    }

    /// The newest reports of single messages that are wanted, at most so many. Blocking.
    pub fn failures(&self, wanted: &Wanted, most: usize) -> Result<Vec<SeenFailure>, DatabaseError> {
        self.database.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT reporter, domain, at, kind, failed, source, envelope_from, header_from, delivery, aligned, incidents
                 FROM feedback_failure WHERE at > ?1 AND (?2 IS NULL OR domain = ?2) ORDER BY id DESC LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = rows.query_map((wanted.since_unix_s, &wanted.domain, most), |row| {
                let source: Option<String> = row.get(5)?;
                Ok(SeenFailure {
                    reporter: row.get(0)?,
                    domain: row.get(1)?,
                    received_unix_s: row.get(2)?,
                    failure: Failure {
                        kind: row.get(3)?,
                        failed: row.get(4)?,
                        domain: None,
                        source: source.and_then(|source| source.parse().ok()),
                        envelope_from: row.get(6)?,
                        header_from: row.get(7)?,
                        delivery: row.get(8)?,
                        aligned: row.get(9)?,
                        incidents: counted(row.get(10)?),
                    },
                })
            })?;
            rows.collect()
        })
    }

    /// Forgets what is too old, or too much. Blocking.
    pub fn prune(&self, steady_s: i64) -> Result<usize, DatabaseError> {
        let (oldest, bounds, mut pruned) = (steady_s.saturating_sub(KEPT_S), self.bounds, 0);
        loop {
            let write = self.database.write(move |connection| prune(connection, oldest, bounds));
            let count = write.wait()?;
            pruned += count;
            if count == 0 {
                return Ok(pruned);
            }
        }
    }
}

fn insert(
    connection: &Connection,
    reporter: &str,
    report: &Aggregate,
    left_out: u64,
    (unix_s, steady_s): (i64, i64),
) -> rusqlite::Result<Kept> {
    let metadata = &report.metadata;
    // A report from the future is of today; one that does not say when it ends, too.
    let ended = if metadata.end_unix_s > 0 { metadata.end_unix_s.min(unix_s) } else { unix_s };
    let inserted = connection
        .prepare_cached(
            "INSERT INTO feedback (reporter, domain, name, organisation, begun, ended, received, row_count, left_out)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute((
            reporter,
            &report.published.domain,
            &metadata.id,
            &metadata.organisation,
            metadata.begin_unix_s.min(ended),
            ended,
            steady_s,
            i64::try_from(report.rows.len()).unwrap_or(i64::MAX),
            whole(left_out),
        ))?;
    if inserted == 0 {
        return Ok(Kept::Before);
    }
    let id = connection.last_insert_rowid();
    let mut statement = connection.prepare_cached(
        "INSERT INTO feedback_row (feedback, source, count, disposition, dkim, spf, header_from, reasons, signers)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for row in &report.rows {
        let reasons: Vec<_> = row.reasons.iter().map(|reason| reason.kind.word()).collect();
        statement.execute((
            id,
            row.source.to_string(),
            whole(row.count),
            row.disposition.word(),
            row.dkim,
            row.spf,
            &row.header_from,
            reasons.join(" "),
            signers(row),
        ))?;
    }
    Ok(Kept::Now)
}

/// Whose signatures passed, each once.
fn signers(row: &Row) -> String {
    let mut signers = String::new();
    for result in row.dkim_results.iter().filter(|result| result.found == Found::Pass) {
        let domain = result.domain.replace(char::is_whitespace, "");
        let is_known = signers.split(' ').any(|known| known == domain);
        if !is_known && signers.len() + domain.len() < SIGNERS_OCTETS_MAX {
            signers += if signers.is_empty() { "" } else { " " };
            signers += &domain;
        }
    }
    signers
}

/// Removes what is too old and, while there is too much, the oldest of whoever told most; gives how many, which are
/// few.
fn prune(connection: &Connection, oldest: i64, bounds: Bounds) -> rusqlite::Result<usize> {
    let most = i64::try_from(PRUNED_MAX).unwrap_or(i64::MAX);
    let mut pruned = 0;
    for table in ["feedback", "feedback_failure"] {
        let old = format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE received < ?1 LIMIT ?2)");
        pruned += connection.prepare_cached(&old)?.execute((oldest, most))?;
    }
    for (table, weight, bound) in [
        ("feedback", "sum(row_count)", bounds.rows),
        ("feedback", "count(*)", bounds.reports),
        ("feedback_failure", "count(*)", bounds.failures),
    ] {
        let total = format!("SELECT coalesce({weight}, 0) FROM {table}");
        let excess = format!(
            "DELETE FROM {table} WHERE id = (SELECT min(id) FROM {table} WHERE reporter =
             (SELECT reporter FROM {table} GROUP BY reporter ORDER BY {weight} DESC, reporter LIMIT 1))"
        );
        let (mut total, mut excess) = (connection.prepare_cached(&total)?, connection.prepare_cached(&excess)?);
        while pruned < PRUNED_MAX && total.query_row([], |row| row.get::<_, i64>(0))? > bound {
            pruned += excess.execute([])?;
        }
    }
    Ok(pruned)
}

fn counted(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// As `SQLite` holds it.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
