//! What the owner changes: accounts and app passwords. Every function is durable when it
//! returns, blocking, and tells the edges if they see a difference.

use gatepost_protocol::mail::access::{RULES_MAX, SubjectError};
use gatepost_protocol::mail::address::{Address, AddressError, OWN_LOCAL_PART_OCTETS_MAX};
use gatepost_protocol::mail::pattern::{PATTERNS_MAX, PatternError};
use gatepost_protocol::mail::srs::KEYS_MAX;
use gatepost_protocol::network::Network;
use gatepost_protocol::sasl;
use gatepost_protocol::secret::Secret;
use gatepost_runtime::random;
use rusqlite::{Connection, OptionalExtension, params};
use thiserror::Error;

use super::Accounts;
use super::addresses::ALIAS_DEPTH_MAX;
use super::aliases::{ADDRESSES_OCTETS_MAX, ALIAS_TARGETS_MAX, ALIASES_MAX};
use super::book::Quota;
use super::caps::Cap;
use super::password::{self, ITERATIONS, PasswordError, SALT_OCTETS, Scope};
use crate::database::DatabaseError;

/// App passwords of one account.
pub const APP_PASSWORDS_MAX: usize = 100;
/// Longest name of an app password, in characters.
pub const NAME_CHARACTERS_MAX: usize = 64;
/// Row name of the account's own password.
const OWN: &str = "";

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum AdministrationError {
    /// Not an address.
    #[error("{text:?} is no address: {why}")]
    NoAddress {
        /// As typed.
        text: String,
        /// What is wrong with it.
        why: AddressError,
    },
    /// An address of a domain that is not in the config.
    #[error("{0} is not in a domain of this home; domains stand in home.toml under `domains`")]
    ForeignDomain(String),
    /// An address other hosts may not be able to write to.
    #[error("the part before the @ of {0} is over the 64 octets every mail host can take; choose a shorter one")]
    TooLong(String),
    /// It is there already.
    #[error("there is already an account {0}")]
    AccountExists(String),
    /// Taken by an alias.
    #[error("{0} is an alias; remove it first, or choose another address")]
    IsAlias(String),
    /// Taken by an account.
    #[error("{0} is an account: its mail goes to its own mailbox; an alias needs an address of its own")]
    IsAccount(String),
    /// A local name that an account goes by.
    #[error("{name} is the account {account}: its mail goes to its own mailbox; an alias needs a name of its own")]
    IsAccountsName {
        /// The name.
        name: String,
        /// Whose.
        account: String,
    },
    /// It is not there.
    #[error("there is no account {0}; `gatepost-home account list` shows those there are")]
    NoAccount(String),
    /// A bad password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// A bad name.
    #[error("an app password needs a name of 1 to 64 characters, such as \"phone\"")]
    Name,
    /// Taken.
    #[error("{login} already has an app password named {name:?}; remove it first, or choose another name")]
    NameTaken {
        /// The account.
        login: String,
        /// The name.
        name: String,
    },
    /// Too many.
    #[error("{0} already has {APP_PASSWORDS_MAX} app passwords; remove some")]
    TooManyPasswords(String),
    /// Not there.
    #[error("{login} has no app password named {name:?}")]
    NoAppPassword {
        /// The account.
        login: String,
        /// The name.
        name: String,
    },
    /// A subject of the access list.
    #[error("{text:?} can't stand in the access list: {why}")]
    AccessSubject {
        /// As typed.
        text: String,
        /// What is wrong with it.
        why: SubjectError,
    },
    /// Too wide a network to be allowed.
    #[error("{0} is (much of) the internet: nobody in it would ever be banned; allow narrower networks")]
    AllowsTooMany(Network),
    /// Too many rules.
    #[error("the access list holds {RULES_MAX} rules at most; a wider network or *.domain may do for many")]
    TooManyRules,
    /// Not there.
    #[error("the access list says nothing of {0}; `gatepost-home access list` shows what it says")]
    NoRule(String),
    /// A local name nobody could write to.
    #[error("{0:?} is neither an address nor a local name such as root")]
    LocalName(String),
    /// A pattern without its form.
    #[error("{0:?} is no pattern: a pattern is an expression and a domain, such as \"/shop-.*/@example.org\"")]
    PatternForm(String),
    /// A pattern that can't be used.
    #[error("{text:?} can't be used: {why}")]
    Pattern {
        /// As typed.
        text: String,
        /// What is wrong with it.
        why: PatternError,
    },
    /// A target no mail can be sent to.
    #[error("mail can't be forwarded to {0}: write an address of a person, with the name of a domain")]
    RemoteTarget(String),
    /// An alias to nobody.
    #[error("there is no account or alias {0}: an alias can only lead to what exists, or to another host")]
    NoTarget(String),
    /// An alias without any target.
    #[error("{0} leads nowhere: name at least one address")]
    NoTargets(String),
    /// A way that leads back to its start.
    #[error("mail would go in a circle: {0}")]
    Circle(String),
    /// A chain that would not be followed to its end.
    #[error("from {0} on more than {ALIAS_DEPTH_MAX} aliases would follow one another; let it lead further at once")]
    TooDeep(String),
    /// Too many targets.
    #[error("an alias can lead to {ALIAS_TARGETS_MAX} addresses at most")]
    TooManyTargets,
    /// Too many aliases.
    #[error(
        "there can be {ALIASES_MAX} aliases at most, each counted once for each address it leads to; a pattern or a catch-all may do for many"
    )]
    TooManyAliases,
    /// Too many patterns.
    #[error("there can be {PATTERNS_MAX} patterns at most; one with alternatives (\"a|b\") may do for several")]
    TooManyPatterns,
    /// More than an edge holds.
    #[error(
        "all addresses together would be over the {} MiB an edge holds of them; a pattern or a catch-all may do for many",
        ADDRESSES_OCTETS_MAX / 1024 / 1024
    )]
    DirectoryFull,
    /// Too many generations of keys at once.
    #[error("the keys of return paths were changed {} times within three weeks; wait until older ones have expired", KEYS_MAX - 1)]
    KeysChangedOften,
    /// A file of aliases.
    #[error("line {line}: {why}")]
    Line {
        /// Where.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// Not there.
    #[error("there is no such alias: {0}")]
    NoAlias(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// An account as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAccount {
    /// Login name.
    pub login: String,
    /// Seconds since 1970.
    pub created_unix_s: i64,
    /// False if only app passwords can log in.
    pub has_password: bool,
    /// How many app passwords it has.
    pub app_passwords: u32,
    /// The last login, seconds since 1970.
    pub last_used_unix_s: Option<i64>,
}

/// An app password as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPassword {
    /// Its account.
    pub login: String,
    /// Its name.
    pub name: String,
    /// `full` or `submission`.
    pub scope: String,
    /// Seconds since 1970.
    pub created_unix_s: i64,
    /// Seconds since 1970.
    pub last_used_unix_s: Option<i64>,
}

impl Accounts {
    /// Makes an account; without a password only its app passwords can log in.
    pub fn add_account(&self, address: &str, password: Option<&Secret>) -> Result<Address, AdministrationError> {
        let address = self.own_address(address)?;
        let login = address.lookup_key();
        let book = self.book();
        let is_alias = |name: &str| book.addresses.aliases.contains_key(name);
        if is_alias(&login) {
            return Err(AdministrationError::IsAlias(login));
        }
        if let Some(name) = book.addresses.local_name(&login).filter(|name| is_alias(name)) {
            return Err(AdministrationError::IsAlias(name.to_owned()));
        }
        let salt = random::bytes::<SALT_OCTETS>();
        let keys = match password {
            Some(password) => {
                password::check(password)?;
                Some(sasl::derive_keys(password.expose(), &salt, ITERATIONS))
            }
            None => None,
        };
        let now = self.inner.clock.unix_s();
        let row = (login.clone(), address.to_string());
        let added = self.inner.database.write(move |connection| {
            let added = connection.execute(
                "INSERT OR IGNORE INTO account (login, address, salt, iterations, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![row.0, row.1, salt, ITERATIONS, now],
            )?;
            if let Some(keys) = keys.filter(|_| added == 1) {
                insert_password(connection, &row.0, OWN, Scope::Account, &keys, now)?;
            }
            Ok(added == 1)
        });
        if !added.wait()? {
            return Err(AdministrationError::AccountExists(login));
        }
        self.refresh(None)?;
        Ok(address)
    }

    /// Removes an account and its passwords. Its mail stays where it is.
    pub fn remove_account(&self, address: &str) -> Result<String, AdministrationError> {
        let login = lookup_key(address)?;
        let key = login.clone();
        let removed = self
            .inner
            .database
            .write(move |connection| connection.execute("DELETE FROM account WHERE login = ?1", [key]));
        if removed.wait()? == 0 {
            return Err(AdministrationError::NoAccount(login));
        }
        self.refresh(None)?;
        Ok(login)
    }

    /// Sets what an account's mailbox may hold; `None`: what the config says for all.
    pub fn set_quota(&self, address: &str, quota: Option<Quota>) -> Result<String, AdministrationError> {
        let login = lookup_key(address)?;
        let row = (login.clone(), quota.map(Quota::to_row));
        let set = self.inner.database.write_statement(move |connection| {
            connection.execute("UPDATE account SET quota = ?2 WHERE login = ?1", row)
        });
        if set.wait()? == 0 {
            return Err(AdministrationError::NoAccount(login));
        }
        self.refresh(None)?;
        Ok(login)
    }

    /// Sets the account's own password.
    pub fn set_password(&self, address: &str, password: &Secret) -> Result<String, AdministrationError> {
        password::check(password)?;
        let (login, salt, iterations) = self.salt(address)?;
        let keys = sasl::derive_keys(password.expose(), &salt, iterations);
        let (key, now) = (login.clone(), self.inner.clock.unix_s());
        // A new row, so that grants of the old password end with it.
        let set = self.inner.database.write(move |connection| {
            connection.execute("DELETE FROM password WHERE login = ?1 AND name = ?2", (&key, OWN))?;
            insert_password(connection, &key, OWN, Scope::Account, &keys, now)
        });
        set.wait()?;
        self.refresh(None)?;
        Ok(login)
    }

    /// Sets what an account may send; `None`: what all may.
    pub fn set_cap(&self, address: &str, cap: Option<Cap>) -> Result<String, AdministrationError> {
        let (login, ..) = self.salt(address)?;
        let key = login.clone();
        let set = self.inner.database.write(move |connection| match cap {
            Some(cap) => connection
                .execute("INSERT OR REPLACE INTO cap VALUES (?1, ?2, ?3)", (&key, cap.hourly, cap.daily))
                .map(drop),
            None => connection.execute("DELETE FROM cap WHERE login = ?1", [&key]).map(drop),
        });
        set.wait()?;
        self.refresh(None)?;
        Ok(login)
    }

    /// Makes an app password; this is the only time it is seen.
    pub fn add_app_password(&self, address: &str, name: &str, scope: Scope) -> Result<Secret, AdministrationError> {
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS_MAX || name.chars().any(char::is_control) {
            return Err(AdministrationError::Name);
        }
        let (login, salt, iterations) = self.salt(address)?;
        let secret = password::generate(random::bytes());
        let keys = sasl::derive_keys(secret.expose(), &salt, iterations);
        let (row, now) = ((login.clone(), name.to_owned()), self.inner.clock.unix_s());
        let added = self.inner.database.write(move |connection| {
            let (login, name) = &row;
            let count: usize = connection.query_row(
                "SELECT count(*) FROM password WHERE login = ?1 AND name <> ?2",
                (login, OWN),
                |row| row.get::<_, u32>(0),
            )? as usize;
            let taken: bool = connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM password WHERE login = ?1 AND name = ?2)",
                (login, name),
                |row| row.get(0),
            )?;
            if !taken && count < APP_PASSWORDS_MAX {
                insert_password(connection, login, name, scope, &keys, now)?;
            }
            Ok((taken, count))
        });
        match added.wait()? {
            (true, _) => return Err(AdministrationError::NameTaken { login, name: name.to_owned() }),
            (_, APP_PASSWORDS_MAX..) => return Err(AdministrationError::TooManyPasswords(login)),
            _ => {}
        }
        self.refresh(None)?;
        Ok(secret)
    }

    /// Revokes an app password: nobody can log in with it any more, and its grants end.
    pub fn remove_app_password(&self, address: &str, name: &str) -> Result<String, AdministrationError> {
        let (login, ..) = self.salt(address)?;
        let row = (login.clone(), name.to_owned());
        let removed = self.inner.database.write(move |connection| {
            connection.execute("DELETE FROM password WHERE login = ?1 AND name = ?2 AND name <> ''", row)
        });
        if removed.wait()? == 0 {
            return Err(AdministrationError::NoAppPassword { login, name: name.to_owned() });
        }
        self.refresh(None)?;
        Ok(login)
    }

    /// All accounts.
    pub fn list_accounts(&self) -> Result<Vec<ListedAccount>, DatabaseError> {
        self.inner.database.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT login, account.created, count(CASE WHEN name = '' THEN 1 END), count(CASE WHEN name <> '' THEN 1 END),
                        max(last_used)
                 FROM account LEFT JOIN password USING (login) GROUP BY login ORDER BY login",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(ListedAccount {
                    login: row.get(0)?,
                    created_unix_s: row.get(1)?,
                    has_password: row.get::<_, u32>(2)? > 0,
                    app_passwords: row.get(3)?,
                    last_used_unix_s: row.get(4)?,
                })
            })?;
            rows.collect()
        })
    }

    /// One account.
    pub fn show_account(&self, address: &str) -> Result<ListedAccount, AdministrationError> {
        let login = lookup_key(address)?;
        let found = self.list_accounts()?.into_iter().find(|account| account.login == login);
        found.ok_or(AdministrationError::NoAccount(login))
    }

    /// App passwords of one account, or of all.
    pub fn list_app_passwords(&self, address: Option<&str>) -> Result<Vec<ListedPassword>, AdministrationError> {
        let login = address.map(|address| self.salt(address).map(|(login, ..)| login)).transpose()?;
        let list = self.inner.database.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT login, name, scope, created, last_used FROM password
                 WHERE name <> '' AND (?1 IS NULL OR login = ?1) ORDER BY login, id",
            )?;
            let rows = statement.query_map([login], |row| {
                Ok(ListedPassword {
                    login: row.get(0)?,
                    name: row.get(1)?,
                    scope: row.get(2)?,
                    created_unix_s: row.get(3)?,
                    last_used_unix_s: row.get(4)?,
                })
            })?;
            rows.collect()
        })?;
        Ok(list)
    }

    fn own_address(&self, text: &str) -> Result<Address, AdministrationError> {
        let address = parse(text)?;
        if !self.settings().domains.contains(address.domain()) {
            return Err(AdministrationError::ForeignDomain(text.to_owned()));
        }
        if address.local().as_str().len() > OWN_LOCAL_PART_OCTETS_MAX {
            return Err(AdministrationError::TooLong(text.to_owned()));
        }
        Ok(address)
    }

    fn salt(&self, address: &str) -> Result<(String, Vec<u8>, u32), AdministrationError> {
        let login = lookup_key(address)?;
        let found = self.inner.database.read(|connection| {
            connection
                .query_row("SELECT salt, iterations FROM account WHERE login = ?1", [&login], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })?;
        match found {
            Some((salt, iterations)) => Ok((login, salt, iterations)),
            None => Err(AdministrationError::NoAccount(login)),
        }
    }
}

fn insert_password(
    connection: &Connection,
    login: &str,
    name: &str,
    scope: Scope,
    keys: &gatepost_protocol::mail::directory::ScramKeys,
    now: i64,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO password (login, name, scope, stored, server, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![login, name, scope.name(), keys.stored, keys.server, now],
        )
        .map(|_| ())
}

fn parse(text: &str) -> Result<Address, AdministrationError> {
    Address::parse(text).map_err(|why| AdministrationError::NoAddress { text: text.to_owned(), why })
}

fn lookup_key(text: &str) -> Result<String, AdministrationError> {
    parse(text).map(|address| address.lookup_key())
}
