//! The tables of `home.db`, one step a version. A step that was ever released is never changed:
//! new steps are appended.

use rusqlite::Connection;

use super::DatabaseError;

const STEPS: [&str; 10] = [
    // Accounts and their passwords; aliases (source `@domain` is a catch-all); the ledger of hand-overs. The
    // ledger's rows lie in the order of time as long as no clock is set back.
    "CREATE TABLE account (
        login       TEXT PRIMARY KEY NOT NULL,
        address     TEXT NOT NULL,
        salt        BLOB NOT NULL,
        iterations  INTEGER NOT NULL,
        created     INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE password (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        login       TEXT NOT NULL REFERENCES account (login) ON DELETE CASCADE,
        name        TEXT NOT NULL,
        scope       TEXT NOT NULL,
        stored      BLOB NOT NULL,
        server      BLOB NOT NULL,
        created     INTEGER NOT NULL,
        last_used   INTEGER,
        UNIQUE (login, name)
    ) STRICT;
    CREATE TABLE alias (
        source      TEXT NOT NULL,
        target      TEXT NOT NULL,
        PRIMARY KEY (source, target)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE setting (
        name        TEXT PRIMARY KEY NOT NULL,
        value       BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE ledger (
        id          INTEGER PRIMARY KEY,
        transfer    BLOB NOT NULL UNIQUE,
        trace       BLOB NOT NULL,
        at          INTEGER NOT NULL,
        plan        TEXT
    ) STRICT;
    CREATE INDEX ledger_open ON ledger (id) WHERE plan IS NOT NULL;",
    // What is old is found by its time, whatever order it came in.
    "CREATE INDEX ledger_at ON ledger (at);",
    // Pattern aliases have an order; senders of forwarded mail that fit into no return path are kept a while.
    "CREATE TABLE pattern (
        source      TEXT PRIMARY KEY NOT NULL,
        place       INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE return_path (
        id          TEXT PRIMARY KEY NOT NULL,
        address     TEXT NOT NULL,
        made        INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX return_path_made ON return_path (made);",
    // The outbound queue, in the order it came: what its start needs, and the entry.
    "CREATE TABLE queue (
        row         INTEGER PRIMARY KEY,
        id          BLOB NOT NULL,
        finished    INTEGER,
        try_at      INTEGER,
        look_at     INTEGER,
        queued      INTEGER NOT NULL,
        unwarned    INTEGER NOT NULL,
        held        INTEGER NOT NULL,
        waiting     INTEGER NOT NULL,
        deferred    INTEGER NOT NULL,
        local       INTEGER NOT NULL,
        domains     TEXT NOT NULL,
        record      BLOB NOT NULL,
        checksum    INTEGER NOT NULL
    ) STRICT;",
    // What each account sent to elsewhere, in slots of five minutes; what one may, where it differs.
    "CREATE TABLE sent (
        login       TEXT NOT NULL,
        slot        INTEGER NOT NULL,
        recipients  INTEGER NOT NULL,
        PRIMARY KEY (login, slot)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE cap (
        login       TEXT PRIMARY KEY NOT NULL REFERENCES account (login) ON DELETE CASCADE,
        hourly      INTEGER NOT NULL,
        daily       INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;",
    // What a mailbox may hold, in octets: null is what the config says, a negative number is no bound.
    "ALTER TABLE account ADD COLUMN quota INTEGER;",
    // Whom the owner takes mail from and whom not; an empty recipient is every domain.
    "CREATE TABLE access (
        subject     TEXT NOT NULL,
        recipient   TEXT NOT NULL,
        allow       INTEGER NOT NULL,
        created     INTEGER NOT NULL,
        PRIMARY KEY (subject, recipient)
    ) STRICT, WITHOUT ROWID;",
    // What others report of our mail: aggregate reports and their rows, and reports of single messages.
    "CREATE TABLE feedback (
        id          INTEGER PRIMARY KEY,
        reporter    TEXT NOT NULL,
        domain      TEXT NOT NULL,
        name        TEXT NOT NULL,
        organisation TEXT NOT NULL,
        begun       INTEGER NOT NULL,
        ended       INTEGER NOT NULL,
        received    INTEGER NOT NULL,
        row_count   INTEGER NOT NULL,
        left_out    INTEGER NOT NULL,
        UNIQUE (reporter, domain, name)
    ) STRICT;
    CREATE INDEX feedback_received ON feedback (received);
    CREATE TABLE feedback_row (
        feedback    INTEGER NOT NULL REFERENCES feedback (id) ON DELETE CASCADE,
        source      TEXT NOT NULL,
        count       INTEGER NOT NULL,
        disposition TEXT NOT NULL,
        dkim        INTEGER NOT NULL,
        spf         INTEGER NOT NULL,
        header_from TEXT NOT NULL,
        reasons     TEXT NOT NULL,
        signers     TEXT NOT NULL
    ) STRICT;
    CREATE INDEX feedback_row_feedback ON feedback_row (feedback);
    CREATE TABLE feedback_failure (
        id          INTEGER PRIMARY KEY,
        reporter    TEXT NOT NULL,
        domain      TEXT NOT NULL,
        at          INTEGER NOT NULL,
        received    INTEGER NOT NULL,
        kind        TEXT NOT NULL,
        failed      TEXT,
        source      TEXT,
        envelope_from TEXT,
        header_from TEXT,
        delivery    TEXT,
        aligned     TEXT,
        incidents   INTEGER NOT NULL
    ) STRICT;",
    // What domains are to be told of mail in their name: a report for each day, domain and policy; days since 1970.
    "CREATE TABLE outgoing_report (
        id          INTEGER PRIMARY KEY,
        day         INTEGER NOT NULL,
        domain      TEXT NOT NULL,
        policy      TEXT NOT NULL,
        due         INTEGER NOT NULL,
        messages    INTEGER NOT NULL,
        rows        INTEGER NOT NULL,
        missed      INTEGER NOT NULL,
        closed      INTEGER,
        outcome     TEXT,
        UNIQUE (day, domain, policy)
    ) STRICT;
    CREATE INDEX outgoing_due ON outgoing_report (due) WHERE closed IS NULL;
    CREATE TABLE outgoing_row (
        report      INTEGER NOT NULL REFERENCES outgoing_report (id) ON DELETE CASCADE,
        row         TEXT NOT NULL,
        count       INTEGER NOT NULL,
        PRIMARY KEY (report, row)
    ) STRICT, WITHOUT ROWID;",
    // What senders tell of TLS with our hosts: of each report each of its policies.
    "CREATE TABLE tls_report (
        id          INTEGER PRIMARY KEY,
        reporter    TEXT NOT NULL,
        domain      TEXT NOT NULL,
        name        TEXT NOT NULL,
        place       INTEGER NOT NULL,
        policy      TEXT NOT NULL,
        ended       INTEGER NOT NULL,
        received    INTEGER NOT NULL,
        good        INTEGER NOT NULL,
        bad         INTEGER NOT NULL,
        left_out    INTEGER NOT NULL,
        UNIQUE (reporter, name, domain, place)
    ) STRICT;
    CREATE INDEX tls_report_received ON tls_report (received);
    CREATE TABLE tls_report_failure (
        report      INTEGER NOT NULL REFERENCES tls_report (id) ON DELETE CASCADE,
        kind        TEXT NOT NULL,
        sending     TEXT,
        host        TEXT,
        receiving   TEXT,
        count       INTEGER NOT NULL,
        reason      TEXT
    ) STRICT;
    CREATE INDEX tls_report_failure_report ON tls_report_failure (report);",
];

/// Brings the tables up to this build's version; refuses a database of a newer one.
pub fn migrate(connection: &mut Connection) -> Result<(), DatabaseError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(DatabaseError::TooNew { found: version, known: STEPS.len() });
    }
    for (step, version) in STEPS.iter().zip(1i64..).skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().expect("opened");
        migrate(&mut connection).expect("migrated");
        migrate(&mut connection).expect("nothing to do");
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'ledger'", [], |row| {
                row.get(0)
            })
            .expect("counted");
        assert_eq!(tables, 1);
    }

    #[test]
    fn a_database_of_a_newer_build_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("opened");
        connection.pragma_update(None, "user_version", 99).expect("set");
        assert!(matches!(migrate(&mut connection), Err(DatabaseError::TooNew { found: 99, .. })));
    }
}
