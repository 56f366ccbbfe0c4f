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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::open;

    fn rules(accounts: &Accounts) -> Vec<String> {
        let listed = accounts.list_access().expect("read").into_iter().map(|listed| listed.rule);
        let words = |rule: Rule| {
            let to = rule.recipient.map(|domain| format!(" to {domain}")).unwrap_or_default();
            format!("{} {}{to}", rule.access.name(), rule.subject)
        };
        listed.map(words).collect()
    }

    #[test]
    fn the_last_word_counts_and_the_edges_are_told() {
        let state = tempfile::tempdir().expect("a folder");
        let accounts = open(state.path());
        let version = || accounts.directory().borrow().version();
        let before = version();
        accounts.add_access(Access::Refuse, "Bob@A.Example", None).expect("added");
        accounts.add_access(Access::Allow, "bob@a.example", None).expect("replaced");
        accounts.add_access(Access::Refuse, "bob@a.example", Some("example.org")).expect("added");
        assert_eq!(rules(&accounts), ["allow bob@a.example", "refuse bob@a.example to example.org"]);
        assert!(version() > before);
        let told = accounts.directory().borrow().as_ref().clone().into_directory().expect("our own").0;
        assert_eq!(told.access, accounts.book().access);
        assert_eq!(told.access.rules().len(), 2);
        accounts.remove_access("BOB@a.example", None).expect("removed");
        assert!(matches!(accounts.remove_access("bob@a.example", None), Err(AdministrationError::NoRule(_))));
        assert_eq!(rules(&accounts), ["refuse bob@a.example to example.org"]);
    }

    #[test]
    fn so_many_rules_and_no_more() {
        let state = tempfile::tempdir().expect("a folder");
        let accounts = open(state.path());
        let filled = accounts.inner.database.write(|connection| {
            for number in 0..RULES_MAX {
                connection.execute("INSERT INTO access VALUES (?1, '', 0, 0)", [format!("{number}.example")])?;
            }
            Ok(())
        });
        filled.wait().expect("written");
        accounts.add_access(Access::Allow, "7.example", None).expect("it replaces one");
        let more = accounts.add_access(Access::Refuse, "new.example", None);
        assert!(matches!(more, Err(AdministrationError::TooManyRules)), "{more:?}");
    }

    #[test]
    fn a_rule_that_no_longer_makes_sense_is_left_out() {
        let state = tempfile::tempdir().expect("a folder");
        let accounts = open(state.path());
        let spoilt = accounts.inner.database.write(|connection| {
            connection.execute("INSERT INTO access VALUES ('a..b', '', 1, 0), ('c.example', '', 1, 0)", [])
        });
        spoilt.wait().expect("written");
        assert_eq!(rules(&accounts), ["allow c.example"]);
    }
}
