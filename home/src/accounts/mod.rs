//! Accounts, their addresses, their passwords. Data, not config: kept in `home.db`, changed by
//! command, seen by the edges as a [`Directory`](gatepost_protocol::mail::directory::Directory).

pub mod access;
pub mod addresses;
pub mod administration;
pub mod alias_file;
pub mod aliases;
pub mod book;
pub mod caps;
pub mod credential;
pub mod grant;
pub mod login;
pub mod neighbours;
pub mod password;
pub mod return_paths;
pub mod snapshot;
pub mod trust;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::directory::Room;
use gatepost_protocol::mail::policy::Policies;
use gatepost_protocol::tunnel::verb::directory::WireDirectory2;
use gatepost_runtime::clock::Clock;
use rusqlite::OptionalExtension;
use tokio::sync::{Semaphore, watch};

use self::addresses::Leads;
use self::book::{Book, Quota};
use self::caps::{Cap, Caps};
use self::grant::Grants;
use self::neighbours::{Listed, Neighbours, Taken};
use self::return_paths::Keys;
use self::snapshot::Published;
use crate::database::{Database, DatabaseError};
use crate::publishing;

/// Password checks that run at once.
const DERIVATIONS_MAX: usize = 2;
/// Password checks that may wait for their turn; beyond them a login is told to try again later.
const DERIVATIONS_WAITING_MAX: usize = 128;

/// What the config says of accounts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domains served here; the first is the main one.
    pub domains: Vec<Domain>,
    /// Who gets mail for postmaster.
    pub postmaster: Address,
    /// Separator of subaddresses.
    pub subaddress_separator: Option<char>,
    /// Account and full app passwords may be typed at an edge in the clear (under TLS).
    pub account_passwords_at_edge: bool,
    /// Largest message, in octets.
    pub message_octets_max: u64,
    /// Names of this machine: an address there is a local name.
    pub local_hosts: Vec<Domain>,
    /// Domains not ours that mail without a login may come from.
    pub trusted_senders: Vec<Domain>,
    /// What an account may send that has no cap of its own.
    pub cap: Cap,
    /// What a mailbox may hold, in octets, unless its account has a quota of its own.
    pub mailbox_octets_max: Option<u64>,
    /// What is done with mail of the world.
    pub policies: Policies,
    /// Names under which we and our edges write what was found about mail, in lower case.
    pub hosts: Vec<String>,
    /// The edges of the config.
    pub edges: Vec<Listed>,
    /// The name under which accounts read their mail here, if they can.
    pub imaps_host: Option<Domain>,
    /// What other hosts, and mail programs, are told.
    pub publishing: publishing::Settings,
    /// Public key that edges seal mail to.
    pub seal_key: Vec<u8>,
}

/// The accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    clock: Clock,
    settings: RwLock<Arc<Settings>>,
    book: RwLock<Arc<Book>>,
    directory: watch::Sender<Arc<WireDirectory2>>,
    return_paths: Keys,
    // Mailboxes with little room, as was last seen.
    tight: RwLock<Arc<HashMap<String, Room>>>,
    // What edges call themselves; an edge may be dialled by another name, or by none.
    met: RwLock<Neighbours>,
    // Held while aliases are changed: each change is checked against all of them.
    changing: Mutex<()>,
    // Held while the book is read anew, so that an older reading never replaces a newer one.
    reading: Mutex<()>,
    // Permits for those who run and those who wait.
    derivations: Semaphore,
    derivations_waiting: Semaphore,
    // Keeps the salts of logins that do not exist steady.
    fake_secret: [u8; 32],
    grants: Grants,
    caps: Caps,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    /// Reads the accounts. Blocking.
    pub fn open(database: Database, settings: Settings, clock: Clock) -> Result<Self, DatabaseError> {
        let fake_secret = fake_secret(&database)?;
        let caps = Caps::open(database.clone(), clock.clone())?;
        let book = Arc::new(database.read(|connection| Book::read(connection, &settings))?);
        let return_paths = Keys::open(&database, clock.steady_s())?;
        let version = next_version(&database, &clock)?;
        let verifier = return_paths.verifier(clock.steady_s());
        let met = Neighbours::read(&database)?;
        let directory =
            WireDirectory2::from(&snapshot::directory(&book, &settings, version, verifier, &HashMap::new(), &met));
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                clock,
                settings: RwLock::new(Arc::new(settings)),
                book: RwLock::new(book),
                directory: watch::Sender::new(Arc::new(directory)),
                return_paths,
                tight: RwLock::default(),
                met: RwLock::new(met),
                changing: Mutex::default(),
                reading: Mutex::default(),
                derivations: Semaphore::new(DERIVATIONS_MAX),
                derivations_waiting: Semaphore::new(DERIVATIONS_MAX + DERIVATIONS_WAITING_MAX),
                fake_secret,
                grants: Grants::default(),
                caps,
            }),
        })
    }

    /// The picture now.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.inner.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the config says now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.inner.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The directory now, and every later one.
    pub fn directory(&self) -> watch::Receiver<Arc<WireDirectory2>> {
        self.inner.directory.subscribe()
    }

    /// Grants of logins at edges.
    pub fn grants(&self) -> &Grants {
        &self.inner.grants
    }

    /// What each account has sent.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// What this account may send.
    pub fn cap(&self, login: &str) -> Cap {
        let own = self.book().accounts.get(login).and_then(|account| account.cap);
        own.unwrap_or_else(|| self.settings().cap)
    }

    /// Where an address leads.
    pub fn lead(&self, address: &Address) -> Leads {
        self.book().addresses.lead(address)
    }

    /// Whether this login may send under that address: its own address, an alias that leads to it,
    /// or a subaddress of these.
    #[expect(clippy::unused_async, reason = "callers are ready for an answer that needs a query")]
    pub async fn may_send_as(&self, login: &str, address: &Address) -> bool {
        let book = self.book();
        book.accounts.contains_key(login) && book.addresses.may_send_as(login, address)
    }

    /// What the mailbox of this lookup key may hold, in octets.
    pub fn quota(&self, mailbox: &str) -> Option<u64> {
        match self.book().accounts.get(mailbox)?.quota {
            None => self.settings().mailbox_octets_max,
            Some(Quota::Unlimited) => None,
            Some(Quota::Octets(octets)) => Some(octets),
        }
    }

    /// Mailboxes with little room, by lookup key, as was last seen.
    pub fn tight(&self) -> Arc<HashMap<String, Room>> {
        Arc::clone(&self.inner.tight.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what was seen of such mailboxes into account, and tells the edges if they see a difference. Blocking.
    pub fn set_tight(&self, tight: HashMap<String, Room>) -> Result<(), DatabaseError> {
        if *self.tight() == tight {
            return Ok(());
        }
        *self.inner.tight.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tight);
        self.refresh(None)
    }

    /// An edge has told what it calls itself: results in that name are ours, whichever edge they come by. Blocking.
    pub fn met(&self, edge: &str, host: &str) -> Result<(), DatabaseError> {
        let Ok(host) = Domain::parse(host) else { return Ok(()) };
        self.learn(|met| met.named(edge, &host))
    }

    /// An edge has told where it takes mail programs. Blocking.
    pub fn takes(&self, edge: &str, taken: Taken) -> Result<(), DatabaseError> {
        self.learn(|met| met.takes(edge, taken))
    }

    fn learn(&self, learn: impl FnOnce(&mut Neighbours) -> bool) -> Result<(), DatabaseError> {
        let known = {
            let mut met = self.inner.met.write().unwrap_or_else(PoisonError::into_inner);
            if !learn(&mut met) {
                return Ok(());
            }
            met.clone()
        };
        known.keep(&self.inner.database)?;
        self.refresh(None)
    }

    /// What the edges are told that other hosts and mail programs may know.
    pub fn published(&self) -> Published {
        let met = self.inner.met.read().unwrap_or_else(PoisonError::into_inner);
        snapshot::published(&self.settings(), &met)
    }

    /// Takes changed settings or data into account, and tells the edges if they see a difference. Blocking.
    pub fn refresh(&self, settings: Option<Settings>) -> Result<(), DatabaseError> {
        let inner = &*self.inner;
        let _reading = inner.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = settings.map_or_else(|| self.settings(), Arc::new);
        let book = Arc::new(inner.database.read(|connection| Book::read(connection, &settings))?);
        let held = inner.directory.borrow().version();
        let verifier = inner.return_paths.verifier(inner.clock.steady_s());
        let tight = self.tight();
        let met = inner.met.read().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = WireDirectory2::from(&snapshot::directory(&book, &settings, held, verifier, &tight, &met));
        let changed = seen != **inner.directory.borrow();
        let directory =
            if changed { Some(seen.with_version(next_version(&inner.database, &inner.clock)?)) } else { None };
        *inner.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        *inner.book.write().unwrap_or_else(PoisonError::into_inner) = book;
        if let Some(directory) = directory {
            inner.directory.send_replace(Arc::new(directory));
        }
        Ok(())
    }
}

/// A version above every one an edge may hold, also after an older database was restored: hence the clock.
fn next_version(database: &Database, clock: &Clock) -> Result<u64, DatabaseError> {
    let now = clock.unix_s();
    let version = database
        .write(move |connection| {
            let last: Option<i64> = connection
                .query_row("SELECT CAST(value AS INTEGER) FROM setting WHERE name = 'directory_version'", [], |row| {
                    row.get(0)
                })
                .optional()?;
            let version = now.max(last.unwrap_or(0).saturating_add(1));
            connection.execute(
                "INSERT OR REPLACE INTO setting VALUES ('directory_version', CAST(CAST(?1 AS TEXT) AS BLOB))",
                [version],
            )?;
            Ok(version)
        })
        .wait()?;
    Ok(u64::try_from(version).unwrap_or(0))
}

fn fake_secret(database: &Database) -> Result<[u8; 32], DatabaseError> {
    let fresh = gatepost_runtime::random::bytes::<32>();
    database
        .write(move |connection| {
            connection.execute("INSERT OR IGNORE INTO setting VALUES ('fake_login_secret', ?1)", [fresh])?;
            connection.query_row("SELECT value FROM setting WHERE name = 'fake_login_secret'", [], |row| row.get(0))
        })
        .wait()
}

#[cfg(test)]
pub mod tests;
