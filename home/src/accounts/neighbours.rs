//! What the edges of this home call themselves, as they told when they were last connected. Kept over restarts: a policy
//! that lost a mail host whenever the home starts would have other hosts refuse to deliver there.

use std::collections::BTreeMap;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::policy::HOSTS_MAX;
use gatepost_protocol::mail::services::{SUBMISSIONS_MAX, Service};
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use crate::database::{Database, DatabaseError};

/// Its row among the settings.
const ROW: &str = "edges_met";

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its host name.
    host: String,
    /// Where it takes submissions, if it does.
    submissions: Option<u16>,
    /// Where mail is read by way of it, if it is.
    #[serde(default)]
    imaps: Option<u16>,
}

/// Where an edge takes mail programs, if it does: ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// To send.
    pub submissions: Option<u16>,
    /// To read.
    pub imaps: Option<u16>,
}

/// All that were met, by their names in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours(BTreeMap<String, Neighbour>);

/// An edge of the config: its name, and the host it is dialled at if that is a name.
pub type Listed = (String, Option<Domain>);

impl Neighbours {
    /// As they were kept. Blocking.
    pub fn read(database: &Database) -> Result<Self, DatabaseError> {
        let kept: Option<String> = database.read(|connection| {
            let row = connection
                .query_row("SELECT CAST(value AS TEXT) FROM setting WHERE name = ?1", [ROW], |row| row.get(0));
            row.optional()
        })?;
        // What can't be read is learned anew.
        Ok(kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Keeps them. Blocking.
    pub fn keep(&self, database: &Database) -> Result<(), DatabaseError> {
        let text = serde_json::to_string(self).expect("strings and numbers");
        let kept = database.write(move |connection| {
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?1, CAST(?2 AS BLOB))", (ROW, text)).map(drop)
        });
        kept.wait()
    }

    /// It calls itself so. True if that is new.
    pub fn named(&mut self, edge: &str, host: &Domain) -> bool {
        let is_full = self.0.len() >= HOSTS_MAX && !self.0.contains_key(edge);
        if is_full || self.0.get(edge).is_some_and(|known| known.host == host.as_str()) {
            return false;
        }
        self.0.insert(edge.to_owned(), Neighbour { host: host.to_string(), submissions: None, imaps: None });
        true
    }

    /// It takes mail programs there. True if that is new.
    pub fn takes(&mut self, edge: &str, taken: Taken) -> bool {
        let Taken { submissions, imaps } = taken;
        let Some(known) = self.0.get_mut(edge) else { return false };
        let is_new = (known.submissions, known.imaps) != (submissions, imaps);
        (known.submissions, known.imaps) = (submissions, imaps);
        is_new
    }

    /// The host names of those that are listed.
    pub fn hosts(&self, listed: &[Listed]) -> Vec<String> {
        listed.iter().filter_map(|(edge, _)| Some(self.0.get(edge)?.host.clone())).collect()
    }

    /// The mail hosts, as far as they are known: what each calls itself, else the name it is dialled by.
    pub fn mail_hosts(&self, listed: &[Listed]) -> Vec<Domain> {
        let host = |(edge, dialled): &Listed| match self.0.get(edge) {
            Some(known) => Domain::parse(&known.host).ok(),
            None => dialled.clone(),
        };
        listed.iter().filter_map(host).collect()
    }

    /// The port at which mail is read by way of the first that takes it.
    pub fn imaps(&self, listed: &[Listed]) -> Option<u16> {
        listed.iter().find_map(|(edge, _)| self.0.get(edge)?.imaps)
    }

    /// Where they take submissions, in the order of the config.
    pub fn submissions(&self, listed: &[Listed]) -> Vec<Service> {
        let mut services: Vec<Service> = Vec::new();
        for (edge, _) in listed {
            let Some(known) = self.0.get(edge) else { continue };
            let (Ok(host), Some(port)) = (Domain::parse(&known.host), known.submissions) else { continue };
            let service = Service { host, port };
            if services.len() < SUBMISSIONS_MAX && !services.contains(&service) {
                services.push(service);
            }
        }
        services
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).expect("valid")
    }

    #[test]
    fn what_an_edge_told_counts_as_long_as_it_is_listed_and_outlives_a_restart() {
        let state = tempfile::tempdir().expect("a directory");
        let mut met = Neighbours::default();
        assert!(met.named("vps1", &domain("mail.example.org")) && !met.named("vps1", &domain("mail.example.org")));
        let taken = Taken { submissions: Some(465), imaps: Some(993) };
        assert!(met.takes("vps1", taken) && !met.takes("vps1", taken));
        assert!(!met.takes("vps2", taken), "it has not said who it is");
        let database = Database::open(state.path()).expect("opened");
        met.keep(&database).expect("kept");
        assert_eq!(Neighbours::read(&database).expect("read"), met);
        let listed = [
            ("vps2".to_owned(), Some(domain("mx2.example.net"))),
            ("vps1".to_owned(), Some(domain("dialled.example"))),
        ];
        assert_eq!(met.mail_hosts(&listed), [domain("mx2.example.net"), domain("mail.example.org")]);
        assert_eq!(met.hosts(&listed), ["mail.example.org"]);
        assert_eq!(met.submissions(&listed), [Service { host: domain("mail.example.org"), port: 465 }]);
        assert!(met.mail_hosts(&[("vps3".to_owned(), None)]).is_empty());
        assert_eq!((met.imaps(&listed), met.imaps(&listed[..1])), (Some(993), None));
        assert!(met.submissions(&listed[..1]).is_empty());
    }
}
