//! `trace.db`: what happened, here and at the edges. Bounded by age and size, the oldest goes first; a
//! damaged one is moved aside and begun anew, for no mail depends on it. Blocking.

use std::path::{Path, PathBuf};

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::hello::printable;
use gatepost_protocol::tunnel::verb::events::WireEvent;
use gatepost_runtime::durable;
use gatepost_runtime::event::{Event, FACTS_MAX, LOST};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde_json::{Map, Value};

use super::Rules;

/// Name of the file inside the state directory.
pub const FILE: &str = "trace.db";
/// What a damaged one is called; the next one takes its place.
const DAMAGED: &str = "trace.db.damaged";
/// The machine of our own events.
pub const HOME: &str = "home";
/// Page cache, in KiB: it is written in order and seldom read.
const CACHE_KIB: i32 = 256;
/// How long to wait for another program that holds it, in milliseconds.
const BUSY_WAIT_MS: u64 = 5_000;
/// Events removed by one statement.
const PRUNED_MAX: i64 = 2_000;
/// Numberings remembered of one edge: it begins one a start.
const JOURNALS_MAX: i64 = 64;
/// An edge's clock may be ahead by this much; what is said to be later counts as now. Milliseconds.
const AHEAD_MAX_MS: i64 = 60 * 60 * 1000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS event (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, machine TEXT NOT NULL, trace TEXT, what TEXT NOT NULL,
        facts TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS event_trace ON event (trace) WHERE trace IS NOT NULL;
    CREATE INDEX IF NOT EXISTS event_at ON event (at);
    CREATE TABLE IF NOT EXISTS journal (
        edge TEXT NOT NULL, name BLOB NOT NULL, last INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (edge, name)) WITHOUT ROWID;";

/// The database, open for writing.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// One kept event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When, milliseconds since 1970, by the clock of its machine.
    pub at_unix_ms: i64,
    /// [`HOME`] or the edge's name.
    pub machine: String,
    /// The message.
    pub trace: Option<String>,
    /// The words of its line.
    pub what: String,
    /// Its facts, texts all of them.
    pub facts: Map<String, Value>,
}

impl Kept {
    /// A fact by its name.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).and_then(Value::as_str)
    }
}

/// True if the file itself is bad, not the disk or the moment.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

impl Store {
    /// Opens it, or makes it.
    pub fn open(state: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = state.join(FILE);
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_WAIT_MS))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // An edge forgets what we say we have: that must be true after a power cut, too.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.execute_batch(TABLES)?;
        private(&path);
        Ok(Self { connection })
    }

    /// Moves a damaged one out of the way, with what belongs to it.
    pub fn set_aside(state: &Path) -> Result<PathBuf, durable::DurableError> {
        let aside = state.join(DAMAGED);
        durable::rename(&state.join(FILE), &aside)?;
        for rest in ["-wal", "-shm"] {
            let path = state.join([FILE, rest].concat());
            if path.exists() {
                durable::remove(&path)?;
            }
        }
        Ok(aside)
    }

    /// Begins a transaction: what is kept from here on is durable after [`Store::commit`].
    pub fn begin(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    /// Makes it durable, all or nothing.
    pub fn commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Forgets what was kept since [`Store::begin`].
    pub fn roll_back(&self) {
        // After some failures there is nothing left to roll back.
        let _ = self.connection.execute_batch("ROLLBACK");
    }

    /// Keeps our own events.
    pub fn keep(&self, events: &[Event]) -> rusqlite::Result<()> {
        for event in events {
            let facts: Map<String, Value> =
                event.facts.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect();
            self.insert(event.at_unix_ms, HOME, event.trace, &event.what, facts)?;
        }
        Ok(())
    }

    /// The number of the last event held of an edge's journal; 0 for none.
    pub fn last(&self, edge: &str, journal: [u8; 16]) -> rusqlite::Result<u64> {
        let mut query = self.connection.prepare_cached("SELECT last FROM journal WHERE edge = ?1 AND name = ?2")?;
        let last: Option<i64> = query.query_row(params![edge, journal], |row| row.get(0)).optional()?;
        Ok(last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0))
    }

    /// Keeps what an edge told; what it told before is passed over, and a gap in its numbers is an event.
    /// Gives the number of the last one held.
    pub fn keep_told(
        &self,
        edge: &str,
        journal: [u8; 16],
        events: &[WireEvent],
        now_unix_ms: i64,
    ) -> rusqlite::Result<u64> {
        let mut last = self.last(edge, journal)?;
        for event in events {
            if event.number <= last {
                continue;
            }
            let at = if event.at_unix_ms > now_unix_ms + AHEAD_MAX_MS { now_unix_ms } else { event.at_unix_ms };
            let missing = event.number - last - 1;
            if missing > 0 {
                let facts = std::iter::once(("count".to_owned(), Value::from(missing.to_string()))).collect();
                self.insert(at, edge, None, LOST, facts)?;
            }
            last = event.number;
            let facts = event.facts.iter().take(FACTS_MAX);
            let facts = facts.map(|(name, value)| (printable(name), Value::from(fact(value)))).collect();
            self.insert(at, edge, event.trace.map(TraceId::from_random), &printable(&event.what), facts)?;
        }
        let held = i64::try_from(last).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO journal (edge, name, last, at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![edge, journal, held, now_unix_ms])?;
        self.connection
            .prepare_cached(
                "DELETE FROM journal WHERE edge = ?1 AND name NOT IN
                 (SELECT name FROM journal WHERE edge = ?1 ORDER BY at DESC LIMIT ?2)",
            )?
            .execute(params![edge, JOURNALS_MAX])?;
        Ok(last)
    }

    /// Removes what is too old or too much, a bounded number at a time; true if there may be more.
    pub fn prune(&self, rules: Rules, now_unix_ms: i64) -> rusqlite::Result<bool> {
        let keep_ms = i64::try_from(rules.keep.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_unix_ms.saturating_sub(keep_ms);
        let sql = "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE at < ?1 ORDER BY at LIMIT ?2)";
        let mut removed = self.connection.prepare_cached(sql)?.execute(params![oldest, PRUNED_MAX])?;
        if self.octets()? > rules.octets_max {
            let sql = "DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY at LIMIT ?1)";
            removed = removed.max(self.connection.prepare_cached(sql)?.execute(params![PRUNED_MAX])?);
        }
        Ok(i64::try_from(removed).unwrap_or(i64::MAX) >= PRUNED_MAX)
    }

    /// Octets in use, without the room that what was removed left.
    pub fn octets(&self) -> rusqlite::Result<u64> {
        let number = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
        Ok(u64::try_from(pages.saturating_mul(number("page_size")?)).unwrap_or(0))
    }

    fn insert(
        &self,
        at_unix_ms: i64,
        machine: &str,
        trace: Option<TraceId>,
        what: &str,
        facts: Map<String, Value>,
    ) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT INTO event (at, machine, trace, what, facts) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                at_unix_ms,
                machine,
                trace.map(|trace| trace.to_string()),
                what,
                Value::Object(facts).to_string()
            ])?;
        Ok(())
    }
}

/// An edge's words, fit to print and bounded.
fn fact(value: &str) -> String {
    let end = value.floor_char_boundary(gatepost_runtime::event::FACT_OCTETS_MAX);
    value[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Nobody else reads who writes to whom.
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // The state directory is closed to others already; this is the second lock.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

/// Reads beside the running program, or without it.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens what is there; `None` if nothing was ever kept.
    pub fn open(state: &Path) -> rusqlite::Result<Option<Self>> {
        let path = state.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_WAIT_MS))?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Some(Self { connection }))
    }

    /// The trace ids of messages of which some event `fits`, the newest first, at most `limit`. Only events whose
    /// facts or trace id hold `part` (in whatever case) are shown to `fits`.
    pub fn find(
        &self,
        part: &str,
        since_unix_ms: i64,
        limit: usize,
        fits: impl Fn(&Kept) -> bool,
    ) -> rusqlite::Result<Vec<String>> {
        let mut query = self.connection.prepare(
            "SELECT at, machine, trace, what, facts FROM event
             WHERE trace IS NOT NULL AND at >= ?1 AND (facts LIKE ?2 ESCAPE '\\' OR trace LIKE ?2 ESCAPE '\\')
             ORDER BY at DESC, id DESC",
        )?;
        let mut rows = query.query(params![since_unix_ms, pattern(part)])?;
        let mut found: Vec<String> = Vec::new();
        while let Some(row) = rows.next()? {
            let kept = kept(row)?;
            let Some(trace) = &kept.trace else { continue };
            if !found.contains(trace) && fits(&kept) {
                found.push(trace.clone());
                if found.len() >= limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Everything kept about a message, in the order of time.
    pub fn of(&self, trace: &str) -> rusqlite::Result<Vec<Kept>> {
        let sql = "SELECT at, machine, trace, what, facts FROM event WHERE trace = ?1 ORDER BY at, id";
        let mut query = self.connection.prepare_cached(sql)?;
        query.query_map(params![trace], kept)?.collect()
    }

    /// What is named without a message, from then on: connections, starts, losses.
    pub fn around(&self, since_unix_ms: i64, limit: usize) -> rusqlite::Result<Vec<Kept>> {
        let mut query = self.connection.prepare(
            "SELECT at, machine, trace, what, facts FROM event WHERE trace IS NULL AND at >= ?1
             ORDER BY at DESC, id DESC LIMIT ?2",
        )?;
        let rows = query.query_map(params![since_unix_ms, i64::try_from(limit).unwrap_or(i64::MAX)], kept)?;
        let mut found: Vec<Kept> = rows.collect::<rusqlite::Result<_>>()?;
        found.reverse();
        Ok(found)
    }
}

fn kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    let facts: String = row.get(4)?;
    Ok(Kept {
        at_unix_ms: row.get(0)?,
        machine: row.get(1)?,
        trace: row.get(2)?,
        what: row.get(3)?,
        facts: serde_json::from_str(&facts).unwrap_or_default(),
    })
}

/// `part` anywhere, as `facts` spell it.
fn pattern(part: &str) -> String {
    let spelled = Value::from(part).to_string();
    let spelled = spelled.trim_matches('"');
    let mut pattern = String::from("%");
    for c in spelled.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
