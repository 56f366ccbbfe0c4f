//! What is stored, opened alone: for the program that runs, and for commands while none does.

use std::sync::Arc;

use anyhow::Context;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable;
use gatepost_runtime::resolver::Resolver;
use serde_json::Value;
use tracing::{error, info};

use crate::accounts::Accounts;
use crate::administration;
use crate::config::Config;
use crate::database::Database;
use crate::delivery::lmtp::Servers;
use crate::delivery::maildir::Maildirs;
use crate::feedback::Feedback;
use crate::imap::Imap;
use crate::mailbox::Mailboxes;
use crate::queue::Queue;
use crate::reporting::Reporting;
use crate::router::Router;
use crate::router::ledger::Ledger;
use crate::router::promise::Promises;
use crate::signing::Signing;
use crate::unseal::SealKey;

/// The parts that hold what is stored.
#[derive(Debug)]
pub struct Store {
    /// The accounts.
    pub accounts: Accounts,
    /// The promises, over mailboxes, ledger and queue.
    pub promises: Arc<Promises>,
    /// The outbound queue.
    pub queue: Queue,
    /// The servers that keep mailboxes.
    pub servers: Servers,
    /// Asks the DNS.
    pub resolver: Resolver,
    /// What others told of our mail.
    pub feedback: Feedback,
    /// What signs mail that leaves.
    pub signing: Signing,
    /// What domains are told of mail in their name.
    pub reporting: Reporting,
    /// What opens sealed mail.
    pub seal_key: Arc<SealKey>,
    database: Database,
    _lock: durable::StateLock,
}

impl Store {
    /// Opens everything in the state directory, alone, and settles what the last stop left open. Blocking.
    pub fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        durable::create_directory(&config.state)?;
        let lock = durable::StateLock::take(&config.state)?;
        let seal_key = Arc::new(SealKey::load_or_create(&config.state)?);
        let signing = Signing::open(&config.state, &config.domains, clock.clone())?;
        let database = Database::open(&config.state)?;
        let settings = config.accounts(seal_key.public().to_vec());
        let accounts = Accounts::open(database.clone(), settings, clock.clone())?;
        let (queue, set_aside) = Queue::open(
            &config.state,
            database.clone(),
            config.queue.clone(),
            config.routes.clone(),
            clock.clone(),
        )
        .context(
            "the queue can't be read, and nothing starts without it; nothing of it is lost: make the file readable \
                 (disk, permissions, open files), or move it away, and start again",
        )?;
        for file in set_aside {
            error!(
                file = file.name,
                why = file.why,
                "a file of the queue can't be used; it is set aside in queue/damaged"
            );
        }
        let feedback = Feedback::new(database.clone(), clock.clone());
        let resolver = Resolver::new(&config.dns_servers);
        let servers = Servers::new(&config.hostname, config.keepers.clone(), resolver.clone(), clock.clone());
        let maildirs = Maildirs::new(&config.state, &config.hostname, clock.clone());
        let reporting =
            Reporting::new(database.clone(), config.hostname.clone(), config.reports.clone(), clock.clone());
        let promises = Promises::new(maildirs, Ledger::new(database.clone()), queue.clone(), clock.clone());
        let (finished, forgotten) = promises.settle_all()?;
        if finished + forgotten > 0 {
            info!(finished, forgotten, "settled what the last stop left open");
        }
        Ok(Self {
            accounts,
            promises: Arc::new(promises),
            queue,
            servers,
            resolver,
            feedback,
            signing,
            reporting,
            seal_key,
            database,
            _lock: lock,
        })
    }

    /// Serves mail clients.
    pub(super) fn imap(&self, config: &Config, served: &Served, clock: &Clock) -> Imap {
        let bells = self.promises.maildirs().bells().clone();
        let mailboxes = Mailboxes::new(bells, &config.hostname, clock.clone());
        Imap::new(self.accounts.clone(), mailboxes, &config.state, served.clone(), clock.clone())
    }

    /// What every message goes through.
    pub fn router(&self, hostname: &str, clock: &Clock) -> Router {
        let (accounts, promises) = (self.accounts.clone(), Arc::clone(&self.promises));
        let (servers, signing) = (self.servers.clone(), self.signing.clone());
        let told = (self.feedback.clone(), self.reporting.clone());
        Router::new(hostname.to_owned(), accounts, promises, servers, signing, told, clock.clone())
    }

    /// Whether `home.db` can be read; an error is what it says. Blocking, briefly.
    pub fn database_health(&self) -> Result<(), String> {
        let read = self.database.read(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        });
        read.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Performs what the owner asks for. Blocking; an error is a text for people.
    pub fn administer(&self, request: administration::Request) -> Result<Value, String> {
        administration::perform(&self.accounts, self.promises.maildirs(), request)
    }
}
