//! The queue's rows in `home.db`: one an entry, all that is known of it but the message. Beside the text lies
//! what the start needs of it, so that a hundred thousand entries are indexed without reading any. Rows lie
//! in the order they came; who changes one names its row. Blocking.

use rusqlite::{Connection, Row};

use super::super::QueueId;
use super::super::entry::{Entry, record};
use super::super::schedule;
use super::StoreError;
use crate::database::{Database, DatabaseError, Pending};

/// Rows written by one transaction when many are, so that mail gets its turn between them.
const BATCH_MAX: usize = 1000;

/// The table.
#[derive(Clone, Debug)]
pub struct Rows {
    database: Database,
}

/// What the start needs to know of an entry.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Its row.
    pub row: i64,
    /// Names it.
    pub id: QueueId,
    /// When it was finished, in milliseconds since 1970.
    pub finished_unix_ms: Option<i64>,
    /// When to try next.
    pub try_unix_ms: Option<i64>,
    /// When something else is to be done for it that depends on no setting: a question, a report.
    pub look_unix_ms: Option<i64>,
    /// When it was queued.
    pub queued_unix_ms: i64,
    /// True if a recipient waits whose sender is to be warned once it takes long.
    pub unwarned: bool,
    /// Held: nothing is done for it.
    pub held: bool,
    /// Recipients that wait.
    pub waiting: u32,
    /// Those of them that were tried before.
    pub deferred: u32,
    /// For mailboxes here.
    pub local: bool,
    /// Domains of the recipients that wait, with a space between them.
    pub domains: String,
}

/// An entry as it is written.
struct Written {
    id: QueueId,
    finished: Option<i64>,
    try_at: Option<i64>,
    look_at: Option<i64>,
    queued: i64,
    unwarned: bool,
    held: bool,
    waiting: u32,
    deferred: u32,
    local: bool,
    domains: String,
    record: Vec<u8>,
    checksum: i64,
}

impl From<&Entry> for Written {
    fn from(entry: &Entry) -> Self {
        // Of what is finished only the name is kept.
        let record = if entry.finished_unix_ms.is_some() { Vec::new() } else { record::encode(entry) };
        Self {
            id: entry.id,
            finished: entry.finished_unix_ms,
            try_at: schedule::try_unix_ms(entry),
            // That an attempt is followed is not kept: after a restart it is asked about at once.
            look_at: if entry.attempts.is_empty() { schedule::pending_unix_ms(entry) } else { Some(0) },
            queued: entry.queued_unix_ms,
            unwarned: !schedule::unwarned(entry).is_empty(),
            held: entry.held.is_some(),
            waiting: u32::try_from(entry.waiting().count()).unwrap_or(u32::MAX),
            deferred: entry.deferred(),
            local: entry.local,
            domains: domains(entry),
            checksum: record::checksum(&record),
            record,
        }
    }
}

fn domains(entry: &Entry) -> String {
    let mut domains: Vec<&str> = entry.waiting().map(|address| address.domain().as_str()).collect();
    domains.sort_unstable();
    domains.dedup();
    domains.join(" ")
}

impl Rows {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// A row for a new entry; gives its number.
    pub fn insert(&self, entry: &Entry) -> Pending<i64> {
        let written = Written::from(entry);
        self.database.write_statement(move |connection| written.insert(connection))
    }

    /// Rows for many new entries. Durable when it returns.
    pub fn insert_all(&self, entries: &[Entry]) -> Result<(), DatabaseError> {
        for batch in entries.chunks(BATCH_MAX) {
            let batch: Vec<Written> = batch.iter().map(Written::from).collect();
            let insert = move |connection: &Connection| {
                batch.iter().try_for_each(|written| written.insert(connection).map(|_| ()))
            };
            self.database.write(insert).wait()?;
        }
        Ok(())
    }

    /// Replaces a row's contents.
    pub fn update(&self, row: i64, entry: &Entry) -> Pending<()> {
        let written = Written::from(entry);
        self.database.write_statement(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE queue SET finished = ?2, try_at = ?3, look_at = ?4, unwarned = ?5, held = ?6, waiting = ?7,
                     deferred = ?8, domains = ?9, record = ?10, checksum = ?11 WHERE row = ?1",
                )?
                .execute((
                    row,
                    written.finished,
                    written.try_at,
                    written.look_at,
                    written.unwarned,
                    written.held,
                    written.waiting,
                    written.deferred,
                    &written.domains,
                    &written.record,
                    written.checksum,
                ))
                .map(|_| ())
        })
    }

    /// Removes rows. Durable when it returns.
    pub fn remove(&self, rows: &[i64]) -> Result<(), DatabaseError> {
        for batch in rows.chunks(BATCH_MAX) {
            let batch = batch.to_vec();
            let remove = move |connection: &Connection| {
                let mut statement = connection.prepare_cached("DELETE FROM queue WHERE row = ?1")?;
                batch.iter().try_for_each(|row| statement.execute([row]).map(|_| ()))
            };
            self.database.write(remove).wait()?;
        }
        Ok(())
    }

    /// The entry of a row; an error that [is damage](StoreError::is_damage) if it is not the one that was written.
    pub fn entry(&self, row: i64) -> Result<Entry, StoreError> {
        let (record, checksum): (Vec<u8>, i64) = self.database.read(|connection| {
            connection
                .prepare_cached("SELECT record, checksum FROM queue WHERE row = ?1")?
                .query_row([row], |row| Ok((row.get(0)?, row.get(1)?)))
        })?;
        if record::checksum(&record) != checksum {
            return Err(record::RecordError::Checksum.into());
        }
        Ok(record::decode(&record)?)
    }

    /// What a row holds, whatever it is.
    pub fn text(&self, row: i64) -> Result<Vec<u8>, DatabaseError> {
        self.database.read(|connection| {
            connection.prepare_cached("SELECT record FROM queue WHERE row = ?1")?.query_row([row], |row| row.get(0))
        })
    }

    /// Tells of every row, in the order they came.
    pub fn outlines(&self, mut each: impl FnMut(Outline)) -> Result<(), DatabaseError> {
        self.database.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT row, id, finished, try_at, look_at, queued, unwarned, held, waiting, deferred, local,
                 domains FROM queue
                 ORDER BY row",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(outline(row)?);
            }
            Ok(())
        })
    }
}

impl Written {
    fn insert(&self, connection: &Connection) -> rusqlite::Result<i64> {
        connection
            .prepare_cached(
                "INSERT INTO queue (id, finished, try_at, look_at, queued, unwarned, held, waiting, deferred, local,
                 domains, record, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute((
                self.id.0,
                self.finished,
                self.try_at,
                self.look_at,
                self.queued,
                self.unwarned,
                self.held,
                self.waiting,
                self.deferred,
                self.local,
                &self.domains,
                &self.record,
                self.checksum,
            ))?;
        Ok(connection.last_insert_rowid())
    }
}

fn outline(row: &Row<'_>) -> rusqlite::Result<Outline> {
    Ok(Outline {
        row: row.get(0)?,
        id: QueueId(row.get(1)?),
        finished_unix_ms: row.get(2)?,
        try_unix_ms: row.get(3)?,
        look_unix_ms: row.get(4)?,
        queued_unix_ms: row.get(5)?,
        unwarned: row.get(6)?,
        held: row.get(7)?,
        waiting: row.get(8)?,
        deferred: row.get(9)?,
        local: row.get(10)?,
        domains: row.get(11)?,
    })
}
