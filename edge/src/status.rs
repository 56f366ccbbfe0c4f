//! What `status` and `spool list` show, as JSON: the running edge makes it, the command prints it.

use std::net::SocketAddr;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::clock::rfc3339;
use serde_json::{Value, json};

use crate::homes::{Home, Homes};
use crate::listeners::mail::SessionCount;
use crate::spool::Spool;

/// Where the doors really are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doors {
    /// Mail from the world.
    pub smtp: Option<SocketAddr>,
    /// Mail from accounts.
    pub submissions: Option<SocketAddr>,
    /// The homes.
    pub tunnel: Option<SocketAddr>,
}

/// What there is to show.
#[derive(Debug)]
pub struct Status {
    /// Our name.
    pub hostname: Domain,
    /// Our key.
    pub key: NodeKey,
    /// No certificate is configured.
    pub self_signed: bool,
    /// Where the doors are.
    pub doors: Doors,
    /// The homes.
    pub homes: Homes,
    /// What is held for them.
    pub spool: Spool,
    /// Sessions on 25.
    pub smtp: SessionCount,
    /// Sessions on 465.
    pub submissions: SessionCount,
}

impl Status {
    /// For `status`.
    pub fn json(&self) -> Value {
        let door = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        json!({
            "software": env!("CARGO_PKG_VERSION"),
            "hostname": self.hostname.as_str(),
            "key": self.key.to_string(),
            "self_signed_certificate": self.self_signed,
            "listen": {
                "smtp": door(self.doors.smtp),
                "submissions": door(self.doors.submissions),
                "tunnel": door(self.doors.tunnel),
            },
            "sessions": { "smtp": self.smtp.now(), "submissions": self.submissions.now() },
            "homes": self.homes.all().iter().map(|home| self.home(home)).collect::<Vec<_>>(),
        })
    }

    /// For `spool list`.
    pub fn spool_json(&self) -> Value {
        let homes = self.homes.all();
        let items = homes.iter().flat_map(|home| {
            self.spool.list(home.name()).entries.into_iter().map(|item| {
                json!({
                    "home": home.name(),
                    "transfer": item.transfer.to_string(),
                    "octets": item.octets,
                    "sealed": rfc3339(item.sealed_unix_s),
                })
            })
        });
        Value::Array(items.collect())
    }

    fn home(&self, home: &Home) -> Value {
        let held = self.spool.held(home.name());
        let session = home.session().map(|session| {
            let facts = session.facts();
            json!({
                "since": rfc3339(facts.since_unix_s),
                "address": facts.address.to_string(),
                "node": facts.node,
                "software": facts.software,
                "protocol": facts.version,
                "key": facts.peer.to_string(),
                "key_exchange": facts.group,
                "round_trip_ms": session.round_trip().map(|time| time.as_secs_f64() * 1000.0),
            })
        });
        json!({
            "name": home.name(),
            "listed_in": home.origin(),
            "domains": home.domains().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "connected": session.is_some(),
            "session": session,
            "directory_version": home.directory().map(|directory| directory.version),
            "spool": {
                "messages": held.messages,
                "octets": held.octets,
                "oldest": held.oldest_unix_s.map(rfc3339),
                "damaged": held.damaged,
            },
        })
    }
}
