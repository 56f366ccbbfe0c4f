//! What senders tell of TLS with our hosts (RFC 8460), in `home.db`: bounded by age and by number like the reports of
//! DMARC, the oldest of whoever told most going first.

use gatepost_protocol::mail::report::tls::{PolicyKind, TlsFailure, TlsReport};
use rusqlite::Connection;

use super::store::{KEPT_S, Kept, Wanted};
use crate::database::{Database, DatabaseError};

/// Reports kept, by policy.
const REPORTS_MAX: i64 = 20_000;
/// Kinds of failures kept of all reports together.
const FAILURES_MAX: i64 = 50_000;
/// Reports that are removed by one write at most: mail gets its turn between them.
const PRUNED_MAX: i64 = 50;

/// Sessions that senders told of, by domain and policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Of ours.
    pub domain: String,
    /// Of what kind.
    pub policy: PolicyKind,
    /// As the policy wants them.
    pub good: u64,
    /// Others.
    pub bad: u64,
    /// How many reports that is.
    pub reports: u64,
    /// How many tell it.
    pub reporters: u64,
    /// Failures of them that are not kept.
    pub left_out: u64,
}

/// Sessions that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Of ours.
    pub domain: String,
    /// How, in the words of RFC 8460.
    pub kind: String,
    /// Which host of ours was meant.
    pub host: Option<String>,
    /// How many.
    pub count: u64,
    /// Who tells it: the domains that are proven.
    pub reporters: Vec<String>,
    /// Somebody's own words for why.
    pub reason: Option<String>,
    /// The last second it is told of, since 1970.
    pub last_unix_s: i64,
}

/// The reports.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Keeps what a report says of our domains, once however often it comes. `now` is the date and the steady time.
    /// Blocking.
    pub fn keep(&self, reporter: &str, report: TlsReport, now: (i64, i64)) -> Result<Kept, DatabaseError> {
        let reporter = reporter.to_owned();
        let kept = self.database.write(move |connection| insert(connection, &reporter, &report, now)).wait()?;
        self.prune(now.1)?;
        Ok(kept)
    }

    /// All sessions that are wanted, added up. Blocking.
    pub fn sessions(&self, wanted: &Wanted) -> Result<Vec<Sessions>, DatabaseError> {
        self.database.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT domain, policy, sum(good), sum(bad), count(*), count(DISTINCT reporter), sum(left_out) FROM tls_report
                 WHERE ended > ?1 AND (?2 IS NULL OR domain = ?2) GROUP BY domain, policy ORDER BY domain, policy",
            )?;
            let rows = rows.query_map((wanted.since_unix_s, &wanted.domain), |row| {
                Ok(Sessions {
                    domain: row.get(0)?,
                    policy: PolicyKind::parse(&row.get::<_, String>(1)?),
                    good: counted(row.get(2)?),
                    bad: counted(row.get(3)?),
                    reports: counted(row.get(4)?),
                    reporters: counted(row.get(5)?),
                    left_out: counted(row.get(6)?),
                })
            })?;
            rows.collect()
        })
    }

    /// What failed, most first, at most so many kinds. Blocking.
    pub fn failures(&self, wanted: &Wanted, most: usize) -> Result<Vec<Failed>, DatabaseError> {
        self.database.read(|connection| {
            let mut rows = connection.prepare_cached(
                "SELECT r.domain, f.kind, f.host, sum(f.count), group_concat(DISTINCT r.reporter), max(f.reason), max(r.ended)
                 FROM tls_report r JOIN tls_report_failure f ON f.report = r.id
                 WHERE r.ended > ?1 AND (?2 IS NULL OR r.domain = ?2)
                 GROUP BY r.domain, f.kind, f.host ORDER BY 4 DESC, 2 LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = rows.query_map((wanted.since_unix_s, &wanted.domain, most), |row| {
                let reporters: String = row.get(4)?;
                Ok(Failed {
                    domain: row.get(0)?,
                    kind: row.get(1)?,
                    host: row.get(2)?,
                    count: counted(row.get(3)?),
                    reporters: reporters.split(',').map(str::to_owned).collect(),
                    reason: row.get(5)?,
                    last_unix_s: row.get(6)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Forgets what is too old, or too much. Blocking.
    pub fn prune(&self, steady_s: i64) -> Result<(), DatabaseError> {
        let oldest = steady_s.saturating_sub(KEPT_S);
        while self.database.write(move |connection| prune(connection, oldest)).wait()? > 0 {}
        Ok(())
    }
}

fn insert(
    connection: &Connection,
    reporter: &str,
    report: &TlsReport,
    (unix_s, steady_s): (i64, i64),
) -> rusqlite::Result<Kept> {
    let metadata = &report.metadata;
    // A report from the future is of today; one that does not say when it ends, too.
    let ended = if metadata.end_unix_s > 0 { metadata.end_unix_s.min(unix_s) } else { unix_s };
    let mut kept = Kept::Before;
    for (at, seen) in (0_i64..).zip(&report.policies) {
        let inserted = connection
            .prepare_cached(
                "INSERT INTO tls_report (reporter, domain, name, place, policy, ended, received, good, bad, left_out)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )?
            .execute((
                reporter,
                &seen.domain,
                &metadata.id,
                at,
                seen.kind.word(),
                ended,
                steady_s,
                whole(seen.good),
                whole(seen.bad),
                whole(report.left_out),
            ))?;
        if inserted == 0 {
            continue;
        }
        kept = Kept::Now;
        let id = connection.last_insert_rowid();
        let mut statement = connection.prepare_cached(
            "INSERT INTO tls_report_failure (report, kind, sending, host, receiving, count, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for TlsFailure { kind, sending, host, receiving, count, reason, more } in &seen.failures {
            let reason = reason.as_ref().or(more.as_ref());
            statement.execute((id, kind, sending, host, receiving, whole(*count), reason))?;
        }
    }
    Ok(kept)
}

/// Removes what is too old and, while there is too much, the oldest of whoever told most; gives how many, which are few.
fn prune(connection: &Connection, oldest: i64) -> rusqlite::Result<usize> {
    let old = "DELETE FROM tls_report WHERE id IN (SELECT id FROM tls_report WHERE received < ?1 LIMIT ?2)";
    let mut pruned = connection.prepare_cached(old)?.execute((oldest, PRUNED_MAX))?;
    for (table, bound) in [("tls_report", REPORTS_MAX), ("tls_report_failure", FAILURES_MAX)] {
        let total: i64 =
            connection.prepare_cached(&format!("SELECT count(*) FROM {table}"))?.query_row([], |row| row.get(0))?;
        if total > bound {
            let excess = "DELETE FROM tls_report WHERE id IN (SELECT id FROM tls_report WHERE reporter =
                 (SELECT reporter FROM tls_report GROUP BY reporter ORDER BY count(*) DESC, reporter LIMIT 1)
                 ORDER BY id LIMIT ?1)";
            pruned += connection.prepare_cached(excess)?.execute([(total - bound).min(PRUNED_MAX)])?;
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
