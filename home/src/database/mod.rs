//! `home.db`: one `SQLite` database for everything that is not mail. One thread writes: whatever waits is
//! committed together, and each writer is answered after the commit is durable. Readers have
//! connections of their own and never wait for the writer.

mod migrations;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

pub use self::writer::Pending;
use self::writer::Writer;

/// Name of the database inside the state directory.
pub const FILE: &str = "home.db";
/// Page cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: i32 = 2048;
/// Page cache of a reading connection, in KiB.
const READER_CACHE_KIB: i32 = 256;
/// Reading connections kept open while nobody reads.
const READERS_KEPT_MAX: usize = 2;
/// Pages of log gathered before they are moved into the database, which makes writers wait: seldom, then.
const CHECKPOINT_PAGES: i32 = 4000;
/// How long to wait for another program that holds the database, in milliseconds.
const BUSY_WAIT_MS: u64 = 5_000;

/// Why the database did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum DatabaseError {
    /// It is damaged.
    #[error(
        "{path} is damaged ({why}): stop the program, keep a copy, and restore a backup (or move it away to start with \
         none; mail in Maildirs is not touched by this)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `SQLite`'s words.
        why: String,
    },
    /// It was written by a newer build.
    #[error("home.db has version {found}, this build knows {known}: run the newer build that wrote it")]
    TooNew {
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// The disk is full.
    #[error("no room for home.db: the disk is full")]
    Full,
    /// Something else.
    #[error("home.db: {0}")]
    Failed(Arc<rusqlite::Error>),
    /// The writer is gone: the program is ending.
    #[error("home.db is closed")]
    Closed,
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged { path: FILE.into(), why: error.to_string() }
            }
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

impl DatabaseError {
    /// True if the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// The database. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens `home.db` in the state directory, or makes it; brings its tables up to date. Blocking.
    pub fn open(state: &Path) -> Result<Self, DatabaseError> {
        let path = state.join(FILE);
        let placed = |error: DatabaseError| match error {
            DatabaseError::Damaged { why, .. } => DatabaseError::Damaged { path: path.clone(), why },
            other => other,
        };
        let connection = open_writer(&path).map_err(placed)?;
        Ok(Self { inner: Arc::new(Inner { writer: Writer::start(connection), path, readers: Mutex::default() }) })
    }

    /// Writes within the next commit; what it gives is known after that commit is durable. A closure that
    /// fails leaves nothing behind, and the others of its commit stand.
    pub fn write<T, F>(&self, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.writer.write(true, work)
    }

    /// Like [`Database::write`] for a closure of one statement, which needs no savepoint of its own.
    pub fn write_statement<T, F>(&self, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.writer.write(false, work)
    }

    /// One statement that joins a later commit, at the latest after a second; nobody waits for it, a
    /// failure is logged. For what a crash may forget.
    pub fn write_lazily<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        self.inner.writer.write_lazily(work);
    }

    /// Reads. Blocking, briefly: for look-ups by key and for listings of bounded size.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        let kept = self.readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.inner.path)?,
        };
        let result = work(&connection);
        let mut readers = self.readers();
        if readers.len() < READERS_KEPT_MAX {
            readers.push(connection);
        }
        Ok(result?)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A reader that panicked left whole connections behind.
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_writer(path: &Path) -> Result<Connection, DatabaseError> {
    create(path);
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_WAIT_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(DatabaseError::Damaged { path: path.to_owned(), why: found });
    }
    migrations::migrate(&mut connection)?;
    Ok(connection)
}

/// Verifiers are inside: nobody else reads it. (The files beside it inherit the mode.) What goes wrong
/// here goes wrong again when it is opened, and is told then.
fn create(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

fn open_reader(path: &Path) -> Result<Connection, DatabaseError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_WAIT_MS))?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(connection: &Connection, name: &str) -> rusqlite::Result<()> {
        connection.execute("INSERT INTO setting VALUES (?1, x'00')", [name]).map(|_| ())
    }

    fn names(database: &Database) -> Vec<String> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare("SELECT name FROM setting ORDER BY name")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        database.read(read).expect("read")
    }

    #[test]
    fn what_was_answered_is_there_after_reopening() {
        let state = tempfile::tempdir().expect("a folder");
        let database = Database::open(state.path()).expect("opened");
        let waiting: Vec<_> =
            (0..50).map(|i| database.write(move |connection| insert(connection, &format!("n{i:02}")))).collect();
        for pending in waiting {
            pending.wait().expect("committed");
        }
        drop(database);
        let database = Database::open(state.path()).expect("opened again");
        assert_eq!(names(&database).len(), 50);
    }

    #[test]
    fn a_failing_write_leaves_nothing_and_hurts_no_other() {
        let state = tempfile::tempdir().expect("a folder");
        let database = Database::open(state.path()).expect("opened");
        let good = database.write(|connection| insert(connection, "good"));
        let bad = database.write(|connection| {
            insert(connection, "half")?;
            insert(connection, "good")
        });
        let other = database.write_statement(|connection| insert(connection, "other"));
        good.wait().expect("committed");
        assert!(matches!(bad.wait(), Err(DatabaseError::Failed(_))));
        other.wait().expect("committed");
        assert_eq!(names(&database), ["good", "other"]);
    }

    #[test]
    fn lazy_writes_are_there_at_the_latest_when_closed() {
        let state = tempfile::tempdir().expect("a folder");
        let database = Database::open(state.path()).expect("opened");
        database.write_lazily(|connection| insert(connection, "lazy"));
        drop(database);
        assert_eq!(names(&Database::open(state.path()).expect("opened again")), ["lazy"]);
    }

    #[test]
    fn a_damaged_file_is_named_and_refused() {
        let state = tempfile::tempdir().expect("a folder");
        std::fs::write(state.path().join(FILE), vec![7; 8192]).expect("written");
        let error = Database::open(state.path()).expect_err("no database");
        assert!(error.to_string().contains("restore a backup"), "{error}");
        assert!(error.to_string().contains(FILE), "{error}");
    }

    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().expect("a folder");
        let database = Database::open(state.path()).expect("opened");
        database.write(|connection| insert(connection, "x")).wait().expect("committed");
        for name in [FILE.to_owned(), format!("{FILE}-wal")] {
            let mode = std::fs::metadata(state.path().join(&name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }
}
