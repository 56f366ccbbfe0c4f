//! `index.db` of one mailbox: UIDs, modification sequences, and what was read out of messages. The files are the truth for
//! mail; this is the truth only for the numbers, so what is told about them is durable before it is told.

use std::path::Path;

use gatepost_runtime::durable;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use tracing::error;

use super::MailboxError;
use super::folder::{Message, Numbers, Stamp};
use super::name::{self, FolderName};

/// Name of the file in the mailbox's directory.
pub const FILE: &str = "index.db";
/// A damaged one is kept under this name.
const DAMAGED: &str = "index.db.damaged";
/// What the tables are; a file of another number is made anew by the steps from there.
const VERSION: i64 = 1;
/// Expunged messages remembered in a folder, for clients that ask what has vanished since.
const EXPUNGED_MAX: i64 = 10_000;

const TABLES: &str = "
CREATE TABLE folder (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    modseq INTEGER NOT NULL DEFAULT 1,
    new_stamp INTEGER NOT NULL DEFAULT 0,
    cur_stamp INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE message (
    folder INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
    uid INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    date_s INTEGER NOT NULL,
    is_new INTEGER NOT NULL,
    file TEXT NOT NULL,
    PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE TABLE expunged (
    folder INTEGER NOT NULL REFERENCES folder (id) ON DELETE CASCADE,
    uid INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    PRIMARY KEY (folder, uid)
) WITHOUT ROWID;
CREATE TABLE structure (
    folder INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    body BLOB NOT NULL,
    bodystructure BLOB NOT NULL,
    PRIMARY KEY (folder, uid),
    FOREIGN KEY (folder, uid) REFERENCES message (folder, uid) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// The open index.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    now_s: i64,
}

/// What was read out of a message, as responses have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// `ENVELOPE`.
    pub envelope: Vec<u8>,
    /// `BODY`.
    pub body: Vec<u8>,
    /// `BODYSTRUCTURE`.
    pub bodystructure: Vec<u8>,
}

impl Index {
    /// Opens it; a damaged one is set aside and begun anew, with other UIDVALIDITYs. Blocking.
    pub fn open(mailbox: &Path, now_s: i64) -> Result<Self, MailboxError> {
        let path = mailbox.join(FILE);
        match Self::try_open(&path, now_s) {
            Err(error) if is_damage(&error) => {
                error!(path = %path.display(), %error, "the index of a mailbox is damaged; it is made anew, and mail clients read anew");
                durable::rename(&path, &mailbox.join(DAMAGED))?;
                for beside in ["index.db-wal", "index.db-shm"] {
                    durable::remove(&mailbox.join(beside))?;
                }
                Ok(Self::try_open(&path, now_s)?)
            }
            opened => Ok(opened?),
        }
    }

    fn try_open(path: &Path, now_s: i64) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -512)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version < VERSION {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        Ok(Self { connection, now_s })
    }

    /// One change, durable when this returns.
    pub fn change<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, MailboxError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// The numbers of a folder and what it held; a folder not known yet gets them.
    pub fn load(&mut self, folder: &FolderName) -> Result<(Numbers, Vec<Message>), MailboxError> {
        let numbers = match self.numbers(folder)? {
            Some(numbers) => numbers,
            None => self.add_folder(folder)?,
        };
        let mut statement = self.connection.prepare_cached(
            "SELECT uid, modseq, octets, date_s, is_new, file FROM message WHERE folder = ?1 ORDER BY uid",
        )?;
        let rows = statement.query_map([numbers.id], |row| {
            let file: String = row.get(5)?;
            let (_, info) = name::parse(&file);
            Ok(Message {
                uid: row.get(0)?,
                modseq: row.get::<_, i64>(1)?.unsigned_abs(),
                octets: row.get::<_, i64>(2)?.unsigned_abs(),
                date_s: row.get(3)?,
                is_new: row.get(4)?,
                info,
                file: file.into(),
            })
        })?;
        let messages = rows.collect::<Result<_, _>>()?;
        Ok((numbers, messages))
    }

    fn numbers(&self, folder: &FolderName) -> Result<Option<Numbers>, MailboxError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, uidvalidity, uidnext, modseq, new_stamp, cur_stamp FROM folder WHERE name = ?1",
        )?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Numbers {
                id: row.get(0)?,
                uidvalidity: row.get(1)?,
                uidnext: row.get(2)?,
                modseq: row.get::<_, i64>(3)?.unsigned_abs(),
                stamp: Stamp { new: row.get(4)?, cur: row.get(5)? },
            })
        };
        Ok(statement.query_row([folder.as_str()], read).optional()?)
    }

    /// A UIDVALIDITY is never given twice in a mailbox, whatever the clock does.
    fn add_folder(&mut self, folder: &FolderName) -> Result<Numbers, MailboxError> {
        let now_s = self.now_s;
        self.change(|transaction| {
            let last: Option<i64> = transaction
                .query_row("SELECT value FROM fact WHERE name = 'uidvalidity'", [], |row| row.get(0))
                .optional()?;
            let next = last.map_or(0, |last| last + 1).max(now_s).clamp(1, i64::from(u32::MAX));
            transaction.execute("INSERT OR REPLACE INTO fact (name, value) VALUES ('uidvalidity', ?1)", [next])?;
            transaction.execute("INSERT INTO folder (name, uidvalidity) VALUES (?1, ?2)", (folder.as_str(), next))
        })?;
        Ok(self.numbers(folder)?.unwrap_or_default())
    }

    /// A folder is no more.
    pub fn remove_folder(&mut self, folder: &FolderName) -> Result<(), MailboxError> {
        self.change(|transaction| transaction.execute("DELETE FROM folder WHERE name = ?1", [folder.as_str()]))?;
        Ok(())
    }

    /// A folder has another name; its numbers stay.
    pub fn rename_folder(&mut self, old: &FolderName, new: &FolderName) -> Result<(), MailboxError> {
        self.change(|transaction| {
            transaction.execute("UPDATE folder SET name = ?2 WHERE name = ?1", (old.as_str(), new.as_str()))
        })?;
        Ok(())
    }

    /// What was read out of a message before.
    pub fn structure(&self, folder: i64, uid: u32) -> Result<Option<Structure>, MailboxError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT envelope, body, bodystructure FROM structure WHERE folder = ?1 AND uid = ?2")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Structure { envelope: row.get(0)?, body: row.get(1)?, bodystructure: row.get(2)? })
        };
        Ok(statement.query_row((folder, uid), read).optional()?)
    }

    /// Keeps what was read out of messages.
    pub fn keep_structures(&mut self, folder: i64, structures: &[(u32, Structure)]) -> Result<(), MailboxError> {
        self.change(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT OR IGNORE INTO structure (folder, uid, envelope, body, bodystructure)
                 SELECT folder, uid, ?3, ?4, ?5 FROM message WHERE folder = ?1 AND uid = ?2",
            )?;
            for (uid, Structure { envelope, body, bodystructure }) in structures {
                statement.execute((folder, uid, envelope, body, bodystructure))?;
            }
            Ok(())
        })
    }
}

/// What is written of one change of a folder.
pub fn write_numbers(transaction: &Transaction<'_>, numbers: &Numbers) -> rusqlite::Result<()> {
    let Numbers { id, uidnext, modseq, stamp, .. } = numbers;
    let modseq = i64::try_from(*modseq).unwrap_or(i64::MAX);
    transaction
        .prepare_cached("UPDATE folder SET uidnext = ?2, modseq = ?3, new_stamp = ?4, cur_stamp = ?5 WHERE id = ?1")?
        .execute((id, uidnext, modseq, stamp.new, stamp.cur))?;
    Ok(())
}

/// A message is new, or has changed.
pub fn write_message(transaction: &Transaction<'_>, folder: i64, message: &Message) -> rusqlite::Result<()> {
    let Message { uid, modseq, octets, date_s, is_new, file, .. } = message;
    let (modseq, octets) = (i64::try_from(*modseq).unwrap_or(i64::MAX), i64::try_from(*octets).unwrap_or(i64::MAX));
    transaction
        .prepare_cached(
            "INSERT INTO message (folder, uid, modseq, octets, date_s, is_new, file) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (folder, uid) DO UPDATE SET modseq = ?3, is_new = ?6, file = ?7",
        )?
        .execute((folder, uid, modseq, octets, date_s, is_new, &**file))?;
    Ok(())
}

/// A message is gone.
pub fn remove_message(transaction: &Transaction<'_>, folder: i64, uid: u32, modseq: u64) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM message WHERE folder = ?1 AND uid = ?2")?.execute((folder, uid))?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO expunged (folder, uid, modseq) VALUES (?1, ?2, ?3)")?
        .execute((folder, uid, i64::try_from(modseq).unwrap_or(i64::MAX)))?;
    Ok(())
}

/// Forgets of vanished messages what is too much to keep.
pub fn trim_expunged(transaction: &Transaction<'_>, folder: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM expunged WHERE folder = ?1 AND uid <= (
                 SELECT uid FROM expunged WHERE folder = ?1 ORDER BY uid DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute((folder, EXPUNGED_MAX))?;
    Ok(())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}
