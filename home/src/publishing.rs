//! `[mta_sts]` and `[autoconfig]`: what the edges tell other mail hosts, and mail programs, of this home's domains.

use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::mta_sts::Mode;
use gatepost_protocol::mail::services::Service;
use gatepost_runtime::config::changes::Changes;
use gatepost_runtime::config::{ConfigError, Placed, Source, Span};
use serde::Deserialize;

/// Others may keep a policy so long if nothing is set: one that is wrong is forgotten within a week.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);
/// Shortest and longest that can be set: the longest is RFC 8461's.
const MAX_AGE_RANGE: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(365 * 24));

/// `[mta_sts]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMtaSts {
    mode: Option<Placed<String>>,
    max_age: Option<Placed<Span>>,
}

/// `[autoconfig]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAutoconfig {
    imaps: Option<Placed<String>>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How far other hosts are to go.
    pub mode: Mode,
    /// How long they may keep that.
    pub max_age: Duration,
    /// Where accounts read their mail.
    pub imaps: ReadAt,
}

/// Where mail programs are told to read mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReadAt {
    /// Here, by way of the edges, if it can be read here.
    #[default]
    Here,
    /// At a server of the owner's.
    At(Service),
    /// They are told nothing.
    Off,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::default(), max_age: MAX_AGE, imaps: ReadAt::default() }
    }
}

/// Checks both.
pub fn check(sts: &RawMtaSts, autoconfig: &RawAutoconfig, source: &Source) -> Result<Settings, ConfigError> {
    let mode = match &sts.mode {
        None => Mode::default(),
        Some(written) => Mode::parse(written.get_ref())
            .ok_or_else(|| source.error(written, "not a mode", "\"testing\", \"enforce\" or \"none\""))?,
    };
    let max_age = match &sts.max_age {
        None => MAX_AGE,
        Some(written) if (MAX_AGE_RANGE.0..=MAX_AGE_RANGE.1).contains(&written.get_ref().0) => written.get_ref().0,
        Some(written) => return Err(source.error(written, "out of range", "between \"1 h\" and \"365 d\"")),
    };
    let imaps = match &autoconfig.imaps {
        None => ReadAt::Here,
        Some(written) if written.get_ref() == "off" => ReadAt::Off,
        Some(written) => ReadAt::At(service(written.get_ref()).ok_or_else(|| {
            source.error(written, "not a host and port", "such as \"imap.example.org:993\", or \"off\"")
        })?),
    };
    Ok(Settings { mode, max_age, imaps })
}

fn service(written: &str) -> Option<Service> {
    let (host, port) = written.rsplit_once(':')?;
    let host = Domain::parse(host).ok().filter(|host| host.literal().is_none())?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Service { host, port })
}

/// What differs, a line each.
pub fn changes(changes: &mut Changes, old: &Settings, new: &Settings) {
    let Settings { mode, max_age, imaps: read_at } = old;
    changes.setting("mta_sts.mode", &mode.word().to_owned(), &new.mode.word().to_owned());
    changes.setting("mta_sts.max_age", max_age, &new.max_age);
    let shown = |read_at: &ReadAt| match read_at {
        ReadAt::Here => "here".to_owned(),
        ReadAt::At(service) => service.to_string(),
        ReadAt::Off => "off".to_owned(),
    };
    changes.setting("autoconfig.imaps", &shown(read_at), &shown(&new.imaps));
}
