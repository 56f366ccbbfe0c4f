//! What `status` and `spool list` show, as JSON: the running edge makes it, the command prints it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::acme::names::NameStandings;
use gatepost_runtime::acme::rollover::Rollover;
use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::{Clock, rfc3339};
use gatepost_runtime::dnssec::{Shown, Validator};
use gatepost_runtime::metrics::{Kind, Metric};
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::bans::Bans;
use crate::homes::{Home, Homes};
use crate::journal::Journals;
use crate::listeners::mail::SessionCount;
use crate::spool::Spool;
use crate::web::names::is_of;

/// Where the doors really are.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Mail from the world.
    pub smtp: Option<SocketAddr>,
    /// Mail from accounts.
    pub submissions: Option<SocketAddr>,
    /// Mail clients that read.
    pub imaps: Option<SocketAddr>,
    /// The homes.
    pub tunnel: Option<SocketAddr>,
    /// A CA's challenges; the web in the clear.
    pub http: Option<SocketAddr>,
    /// The web.
    pub https: Option<SocketAddr>,
    /// Why the first of these can't be opened now, though it should be.
    pub http_waits: Option<String>,
    /// The same of the other.
    pub https_waits: Option<String>,
}

impl Doors {
    /// What can't be opened, by name and why: for `status`.
    fn waiting(&self) -> Value {
        let waits = [("http", &self.http_waits), ("https", &self.https_waits)];
        let waits = waits.into_iter().filter_map(|(name, why)| Some((name.to_owned(), why.clone()?.into())));
        Value::Object(waits.collect())
    }
}

/// What there is to show.
#[derive(Debug)]
pub struct Status {
    /// Our name.
    pub hostname: Domain,
    /// Our key.
    pub key: NodeKey,
    /// What is served on 25 and 465.
    pub certificate: Served,
    /// How it stands with the CA.
    pub acme: Standing,
    /// How it stands with further names.
    pub names: NameStandings,
    /// Where new keys are asked for.
    pub rollover: Rollover,
    /// Where the doors are.
    pub doors: Mutex<Doors>,
    /// The homes.
    pub homes: Homes,
    /// What is held for them.
    pub spool: Spool,
    /// Sessions on 25.
    pub smtp: SessionCount,
    /// Sessions on 465.
    pub submissions: SessionCount,
    /// Connections to 993.
    pub imaps: SessionCount,
    /// Whether the DNS passes signatures on.
    pub validator: Validator,
    /// What was done for each home.
    pub journals: Journals,
    /// Who is banned.
    pub bans: Bans,
    /// What is found out about clients.
    pub admission: Admission,
    /// When the program started, seconds since 1970.
    pub started_unix_s: i64,
    /// It was told to stop.
    pub draining: AtomicBool,
    /// Time.
    pub clock: Clock,
}

impl Status {
    /// Where the doors are now.
    pub fn doors(&self) -> Doors {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They have moved.
    pub fn set_doors(&self, doors: Doors) {
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = doors;
    }

    /// For `status`.
    pub fn json(&self) -> Value {
        let doors = self.doors();
        let door = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        json!({
            "software": env!("CARGO_PKG_VERSION"),
            "hostname": self.hostname.as_str(),
            "key": self.key.to_string(),
            "started": rfc3339(self.started_unix_s),
            "draining": self.draining.load(Ordering::Relaxed),
            "self_signed_certificate": self.certificate.is_self_signed(),
            "certificate_ends": self.certificate.end_json(self.clock.unix_s()),
            "acme": self.acme.json(),
            "names": self.names.json(self.clock.unix_s(), |_| true),
            "certificate_files": self.acme.files_json(),
            "certificate_overdue": self.acme.overdue(),
            "tlsa": self.acme.tlsa_json(&self.certificate),
            "listen": {
                "smtp": door(doors.smtp),
                "submissions": door(doors.submissions),
                "imaps": door(doors.imaps),
                "tunnel": door(doors.tunnel),
                "http": door(doors.http),
                "https": door(doors.https),
                "waiting": doors.waiting(),
            },
            "sessions": self.sessions(),
            "dnssec": self.dnssec(),
            "dns_lists": self.admission.json(),
            "homes": self.homes.all().iter().map(|home| self.home(home)).collect::<Vec<_>>(),
        })
    }

    /// Makes keys that are to follow; gives the records they wait for.
    pub async fn rotate(&self) -> Result<Value, String> {
        let name = format!("_25._tcp.{}", self.hostname);
        let told = self.rollover.begin().await?;
        let records = told.iter().map(|value| json!({ "name": name, "type": "TLSA", "value": value }));
        Ok(json!({ "records": records.collect::<Vec<_>>() }))
    }

    /// What this home is told by `Admin`: about itself, and of the edge what every home may know. How busy the
    /// edge is with others is not told to one of several.
    pub fn told_to(&self, home: &Home) -> Value {
        let sessions = self.is_only(home).then(|| self.sessions());
        let mut told = self.home(home);
        // The home knows its own end of the session best.
        if let Some(told) = told.as_object_mut() {
            told.remove("session");
            told.remove("connected");
        }
        let doors = self.doors();
        json!({
            "software": env!("CARGO_PKG_VERSION"),
            "hostname": self.hostname.as_str(),
            "started": rfc3339(self.started_unix_s),
            "draining": self.draining.load(Ordering::Relaxed),
            "self_signed_certificate": self.certificate.is_self_signed(),
            "certificate_ends": self.certificate.end_json(self.clock.unix_s()),
            "acme": self.acme.json(),
            "names": self.names.json(self.clock.unix_s(), |name| home.domains().iter().any(|domain| is_of(name, domain))),
            "certificate_files": self.acme.files_json(),
            "certificate_overdue": self.acme.overdue(),
            "tlsa": self.acme.tlsa_json(&self.certificate),
            "sessions": sessions,
            "submissions": doors.submissions.is_some(),
            "submissions_port": doors.submissions.map(|door| door.port()),
            "imaps": doors.imaps.is_some(),
            "imaps_port": doors.imaps.map(|door| door.port()),
            "doors_waiting": doors.waiting(),
            "dnssec": self.dnssec(),
            "dns_lists": self.is_only(home).then(|| self.admission.json()),
            "home": told,
        })
    }

    /// Whether the DNS servers pass signatures on, by what was found when mail last left.
    fn dnssec(&self) -> Value {
        match self.validator.shown() {
            Shown::Unknown => json!({ "state": "unknown" }),
            Shown::Works => json!({ "state": "works" }),
            Shown::Missing(why) => json!({ "state": "missing", "why": why }),
            Shown::Lost(why) => json!({ "state": "lost", "why": why }),
        }
    }

    /// The numbers of one home.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn metrics_of(&self, home: &Home) -> Vec<Metric> {
        let held = self.spool.held(home.name());
        let gauge = |name, help, value: f64| Metric::plain(Kind::Gauge, name, help, value);
        let age = held.oldest_unix_s.map_or(0, |oldest| self.clock.unix_s().saturating_sub(oldest).max(0));
        let mut metrics = vec![
            gauge("gatepost_edge_start_time_seconds", "When the edge started, since 1970.", self.started_unix_s as f64),
            gauge("gatepost_edge_spool_messages", "Sealed messages that wait for the home.", held.messages as f64),
            gauge("gatepost_edge_spool_octets", "Octets of sealed messages.", held.octets as f64),
            gauge("gatepost_edge_spool_oldest_seconds", "Age of the oldest sealed message.", age as f64),
            gauge(
                "gatepost_edge_spool_damaged",
                "Sealed messages set aside because they are damaged.",
                held.damaged as f64,
            ),
        ];
        if let Some(ends) = self.certificate.ends_unix_s() {
            let words = "Until when the edge's certificate is good, since 1970.";
            metrics.push(gauge("gatepost_edge_certificate_end_time_seconds", words, ends as f64));
        }
        if self.is_only(home) {
            let doors = [("smtp", &self.smtp), ("submissions", &self.submissions), ("imaps", &self.imaps)];
            let sessions = doors.map(|(door, sessions)| (door, sessions.now() as f64));
            let words = "Sessions open now (told to an only home).";
            metrics.push(Metric::labelled(Kind::Gauge, "gatepost_edge_sessions", words, "door", sessions));
            metrics.extend(self.bans.metrics());
            metrics.push(self.admission.metric());
        }
        if let Some(journal) = self.journals.of(home.name()) {
            metrics.extend(journal.counts().metrics());
            let words = "Events that made room for newer ones before the home had them.";
            let dropped = journal.dropped() as f64;
            metrics.push(Metric::plain(Kind::Counter, "gatepost_edge_events_dropped_total", words, dropped));
        }
        metrics
    }

    fn sessions(&self) -> Value {
        json!({ "smtp": self.smtp.now(), "submissions": self.submissions.now(), "imaps": self.imaps.now() })
    }

    /// Whether no other home is behind this edge: what concerns all is then its owner's to say.
    pub fn is_only(&self, home: &Home) -> bool {
        self.homes.all().iter().all(|other| other.name() == home.name())
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
                "heard_s_ago": self.clock.now().saturating_duration_since(session.heard()).as_secs_f64(),
            })
        });
        let journal = self.journals.of(home.name());
        let now_unix_ms = i64::try_from(self.clock.unix().as_millis()).unwrap_or(i64::MAX);
        let rates = journal.as_ref().map(|journal| journal.counts().rates(now_unix_ms));
        json!({
            "name": home.name(),
            "listed_in": home.origin(),
            "domains": home.domains().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "connected": session.is_some(),
            "away_s": home.away(self.clock.now()).as_secs(),
            "session": session,
            "directory_version": home.directory().map(|directory| directory.version),
            "spool": {
                "messages": held.messages,
                "octets": held.octets,
                "oldest": held.oldest_unix_s.map(rfc3339),
                "damaged": held.damaged,
                "octets_max": self.spool.octets_max(),
            },
            "last_hour": rates.map(|rates| json!({
                "taken": rates.taken, "refused": rates.refused, "sent": rates.sent, "sealed": rates.sealed,
            })),
            "events": journal.map(|journal| json!({ "waiting": journal.waiting(), "dropped": journal.dropped() })),
        })
    }
}
