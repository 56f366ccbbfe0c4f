//! The access list as the owner keeps it: rules in `home.db`, told to the edges with the directory. Changes are durable
//! when they return, blocking.

use gatepost_protocol::mail::access::{Access, AccessList, RULES_MAX, Rule, Subject};
use gatepost_protocol::mail::address::Domain;
use rusqlite::Connection;

use super::Accounts;
use super::administration::AdministrationError;

/// The widest networks that may be allowed, in bits of their prefix: nobody in them is ever banned.
const ALLOWED_IPV4_BITS_MIN: u8 = 8;
const ALLOWED_IPV6_BITS_MIN: u8 = 16;
/// How a rule for all domains is stored.
const ALL: &str = "";

/// A rule as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// The rule.
    pub rule: Rule,
    /// When it was made, seconds since 1970.
    pub created_unix_s: i64,
}

/// Reads the list. A rule that can't be used is left out and logged.
pub fn read(connection: &Connection) -> rusqlite::Result<AccessList> {
    Ok(AccessList::new(rows(connection)?.into_iter().map(|listed| listed.rule)))
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<ListedRule>> {
    let mut statement = connection
        .prepare_cached("SELECT subject, recipient, allow, created FROM access ORDER BY subject, recipient")?;
    let mut rows = statement.query([])?;
    let mut rules = Vec::new();
    while let Some(row) = rows.next()? {
        let (subject, recipient): (String, String) = (row.get(0)?, row.get(1)?);
        match parse(&subject, Some(recipient.as_str()).filter(|recipient| *recipient != ALL)) {
            Ok((parsed, recipient)) => {
                let access = if row.get(2)? { Access::Allow } else { Access::Refuse };
                let rule = Rule { subject: parsed, recipient, access };
                rules.push(ListedRule { rule, created_unix_s: row.get(3)? });
            }
            Err(error) => tracing::error!(subject, recipient, %error, "a rule of the access list can't be used"),
        }
    }
    Ok(rules)
}

fn parse(subject: &str, recipient: Option<&str>) -> Result<(Subject, Option<Domain>), AdministrationError> {
    let parsed = subject.parse().map_err(|why| AdministrationError::AccessSubject { text: subject.to_owned(), why })?;
    let address = |text: &str, why| AdministrationError::NoAddress { text: text.to_owned(), why };
    let domain = recipient.map(|text| Domain::parse(text).map_err(|why| address(text, why)));
    Ok((parsed, domain.transpose()?))
}

impl Accounts {
    /// All rules.
    pub fn list_access(&self) -> Result<Vec<ListedRule>, AdministrationError> {
        Ok(self.inner.database.read(rows)?)
    }

    /// Adds a rule, in the place of one that said otherwise of the same.
    pub fn add_access(
        &self,
        access: Access,
        subject: &str,
        recipient: Option<&str>,
    ) -> Result<Rule, AdministrationError> {
        let (subject, recipient) = parse(subject, recipient)?;
        if let Some(domain) = &recipient
            && !self.settings().domains.contains(domain)
        {
            return Err(AdministrationError::ForeignDomain(domain.to_string()));
        }
        if let (Subject::Network(network), Access::Allow) = (&subject, access) {
            let least = if network.address().is_ipv4() { ALLOWED_IPV4_BITS_MIN } else { ALLOWED_IPV6_BITS_MIN };
            if network.bits() < least {
                return Err(AdministrationError::AllowsTooMany(*network));
            }
        }
        let rule = Rule { subject, recipient, access };
        let (row, now) = (key(&rule.subject, rule.recipient.as_ref()), self.inner.clock.unix_s());
        let allow = access == Access::Allow;
        let added = self.inner.database.write(move |connection| {
            let others: usize = connection.query_row(
                "SELECT count(*) FROM access WHERE (subject, recipient) <> (?1, ?2)",
                (&row.0, &row.1),
                |row| row.get::<_, u32>(0),
            )? as usize;
            if others >= RULES_MAX {
                return Ok(false);
            }
            connection.execute("INSERT OR REPLACE INTO access VALUES (?1, ?2, ?3, ?4)", (row.0, row.1, allow, now))?;
            Ok(true)
        });
        if !added.wait()? {
            return Err(AdministrationError::TooManyRules);
        }
        self.refresh(None)?;
        Ok(rule)
    }

    /// Removes a rule.
    pub fn remove_access(&self, subject: &str, recipient: Option<&str>) -> Result<Subject, AdministrationError> {
        let (subject, recipient) = parse(subject, recipient)?;
        let row = key(&subject, recipient.as_ref());
        let removed = self.inner.database.write(move |connection| {
            connection.execute("DELETE FROM access WHERE subject = ?1 AND recipient = ?2", row)
        });
        if removed.wait()? == 0 {
            let of = recipient.map(|domain| format!(" for {domain}")).unwrap_or_default();
            return Err(AdministrationError::NoRule(format!("{subject}{of}")));
        }
        self.refresh(None)?;
        Ok(subject)
    }
}

fn key(subject: &Subject, recipient: Option<&Domain>) -> (String, String) {
    (subject.to_string(), recipient.map_or_else(|| ALL.to_owned(), ToString::to_string))
}
