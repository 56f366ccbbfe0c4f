//! All accounts and aliases as one immutable picture in memory, read from the database at start and
//! after each change: a login or a recipient costs no query.

use std::collections::{HashMap, HashSet};

use gatepost_protocol::mail::access::AccessList;
use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::directory::{LoginVerifier, ScramKeys};
use rusqlite::Connection;

use super::addresses::Addresses;
use super::caps::Cap;
use super::password::Scope;
use super::{Settings, access, aliases};

/// The picture.
#[derive(Debug)]
pub struct Book {
    /// Accounts by login name.
    pub accounts: HashMap<String, Account>,
    /// Where addresses lead.
    pub addresses: Addresses,
    /// Whom mail is taken from and whom not.
    pub access: AccessList,
}

/// One account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its address; in lower case it is the login name.
    pub address: Address,
    /// Salt of all its passwords, so that one SCRAM exchange can be checked against each.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations of all its passwords.
    pub iterations: u32,
    /// What it may send, if not what all may.
    pub cap: Option<Cap>,
    /// What its mailbox may hold, if that is not what the config says for all.
    pub quota: Option<Quota>,
    /// Its passwords.
    pub passwords: Vec<Password>,
}

/// What a mailbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// As much as there is room for.
    Unlimited,
    /// So many octets.
    Octets(u64),
}

impl Quota {
    /// As it lies in the database.
    pub fn to_row(self) -> i64 {
        match self {
            Self::Unlimited => -1,
            Self::Octets(octets) => i64::try_from(octets).unwrap_or(i64::MAX),
        }
    }

    /// Reads that back.
    pub fn from_row(row: i64) -> Self {
        u64::try_from(row).map_or(Self::Unlimited, Self::Octets)
    }
}

/// One password of an account.
#[derive(Clone, Debug)]
pub struct Password {
    /// Its row.
    pub id: i64,
    /// What it may do.
    pub scope: Scope,
    /// How it is checked.
    pub keys: ScramKeys,
}

impl Account {
    /// Verifier for those of its passwords that `take` wants; their order is that of [`Account::passwords`].
    pub fn verifier(&self, take: impl Fn(Scope) -> bool) -> LoginVerifier {
        let keys =
            self.passwords.iter().filter(|password| take(password.scope)).map(|password| password.keys).collect();
        LoginVerifier { salt: self.salt.clone(), iterations: self.iterations, keys }
    }
}

impl Book {
    /// Reads all of it. A row that can't be used (an address that no longer parses) is left out and logged.
    pub fn read(connection: &Connection, settings: &Settings) -> rusqlite::Result<Self> {
        let accounts = read_accounts(connection)?;
        let mut addresses = Addresses {
            domains: settings.domains.iter().cloned().collect(),
            main: settings.domains.first().cloned(),
            mailboxes: accounts.keys().cloned().collect::<HashSet<_>>(),
            separator: settings.subaddress_separator,
            postmaster: settings.postmaster.lookup_key().into(),
            ..Addresses::default()
        };
        aliases::read(connection, &mut addresses)?;
        Ok(Self { accounts, addresses, access: access::read(connection)? })
    }
}

fn read_accounts(connection: &Connection) -> rusqlite::Result<HashMap<String, Account>> {
    let mut accounts = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT login, address, salt, iterations, quota FROM account")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (login, address): (String, String) = (row.get(0)?, row.get(1)?);
        match Address::parse(&address) {
            Ok(address) => {
                let quota = row.get::<_, Option<i64>>(4)?.map(Quota::from_row);
                let account = Account {
                    address,
                    salt: row.get(2)?,
                    iterations: row.get(3)?,
                    cap: None,
                    quota,
                    passwords: Vec::new(),
                };
                accounts.insert(login, account);
            }
            Err(error) => tracing::error!(login, %error, "an account in home.db has no usable address"),
        }
    }
    let mut statement = connection.prepare_cached("SELECT login, hourly, daily FROM cap")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(account) = accounts.get_mut(&row.get::<_, String>(0)?) {
            account.cap = Some(Cap { hourly: row.get(1)?, daily: row.get(2)? });
        }
    }
    let mut statement =
        connection.prepare_cached("SELECT id, login, scope, stored, server FROM password ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (login, scope): (String, String) = (row.get(1)?, row.get(2)?);
        let (Some(account), Some(scope)) = (accounts.get_mut(&login), Scope::parse(&scope)) else {
            tracing::error!(login, scope, "a password in home.db belongs to nobody or has an unknown scope");
            continue;
        };
        let keys = ScramKeys { stored: row.get(3)?, server: row.get(4)? };
        account.passwords.push(Password { id: row.get(0)?, scope, keys });
    }
    Ok(accounts)
}
