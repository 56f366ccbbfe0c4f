//! `[admission]` and `[[dnslist]]`: what is made of clients as such.

use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::dns_list::DnsList;
use gatepost_protocol::network::Network;
use gatepost_runtime::config::{ConfigError, Placed, Source, Span};
use serde::Deserialize;

/// DNS lists, all of them asked about each client.
const LISTS_MAX: usize = 20;
/// Weights and thresholds.
const WEIGHT_MAX: i32 = 1000;
/// Octets of a list's zone: an IPv6 address fits below it, and it into a reply.
const ZONE_OCTETS_MAX: usize = 128;
/// Octets of a list's name.
const NAME_OCTETS_MAX: usize = 64;
/// What a hit weighs unless its list says otherwise; from how much on a client's mail goes to Junk, and is refused.
const WEIGHT: i32 = 1;
const JUNK_AT: i32 = 1;
const REFUSE_AT: i32 = 2;
/// Before suspects are greeted; a client may give up after five minutes (RFC 5321 §4.5.3.2.1).
const GREETING_DELAY: Duration = Duration::from_secs(5);
const GREETING_DELAY_MAX: Duration = Duration::from_mins(1);

/// Who is put off for longer gives up.
const GREYLIST_MAX: Duration = Duration::from_hours(1);
/// The first wait of who guesses recipients.
const TARPIT: Duration = Duration::from_secs(1);
const TARPIT_MAX: Duration = Duration::from_secs(4);

/// How clients are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// DNS lists that are asked about them.
    pub lists: Vec<DnsList>,
    /// From this score on their mail goes to Junk.
    pub junk_at: i32,
    /// From this score on it is refused.
    pub refuse_at: i32,
    /// So long suspects wait to be greeted; zero: they don't.
    pub greeting_delay: Duration,
    /// So long who is not known is put off; zero: nobody is.
    pub greylist: Duration,
    /// After some unknown recipients of a session the reply to the next waits so long, then twice as long, and so on;
    /// zero: it doesn't.
    pub tarpit: Duration,
    /// The machine's own addresses are strangers, too: for tests, whose clients have no others.
    pub loopback: bool,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        let (junk_at, refuse_at, greeting_delay) = (JUNK_AT, REFUSE_AT, GREETING_DELAY);
        let (greylist, tarpit) = (Duration::ZERO, TARPIT);
        Self { lists: Vec::new(), junk_at, refuse_at, greeting_delay, greylist, tarpit, loopback: false }
    }
}

/// `[admission]` as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmission {
    junk_at: Option<Placed<i64>>,
    refuse_at: Option<Placed<i64>>,
    greeting_delay: Option<Placed<Span>>,
    greylist: Option<Placed<Span>>,
    tarpit: Option<Placed<Span>>,
    #[serde(default)]
    loopback: bool,
}

/// `[[dnslist]]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDnsList {
    zone: Placed<String>,
    name: Option<Placed<String>>,
    weight: Option<Placed<i64>>,
    #[serde(default)]
    codes: Vec<Placed<String>>,
    mask: Option<Placed<i64>>,
}

impl RawAdmission {
    pub(super) fn check(&self, lists: &[RawDnsList], source: &Source) -> Result<AdmissionSettings, ConfigError> {
        if let Some(one_too_many) = lists.get(LISTS_MAX) {
            return Err(source.error(&one_too_many.zone, "too many DNS lists", "at most 20"));
        }
        let junk_at = number(source, self.junk_at.as_ref(), 1, JUNK_AT)?;
        // Who moves only the one keeps the other behind it.
        let refuse_at = number(source, self.refuse_at.as_ref(), 1, REFUSE_AT.max(junk_at))?;
        if let Some(written) = &self.refuse_at
            && refuse_at < junk_at
        {
            let remedy = format!("at least junk_at, which is {junk_at}");
            return Err(source.error(written, "mail would be refused before it goes to Junk", &remedy));
        }
        Ok(AdmissionSettings {
            lists: lists.iter().map(|list| list.check(source)).collect::<Result<_, _>>()?,
            junk_at,
            refuse_at,
            greeting_delay: super::span(
                source,
                self.greeting_delay.as_ref(),
                (Duration::ZERO, GREETING_DELAY_MAX),
                GREETING_DELAY,
                || "between \"0 s\" and \"1 min\"".to_owned(),
            )?,
            greylist: super::span(
                source,
                self.greylist.as_ref(),
                (Duration::ZERO, GREYLIST_MAX),
                Duration::ZERO,
                || "between \"1 s\" and \"1 h\", or \"0 s\" for none".to_owned(),
            )?,
            tarpit: super::span(source, self.tarpit.as_ref(), (Duration::ZERO, TARPIT_MAX), TARPIT, || {
                "between \"0 s\" and \"4 s\"".to_owned()
            })?,
            loopback: self.loopback,
        })
    }
}

impl RawDnsList {
    fn check(&self, source: &Source) -> Result<DnsList, ConfigError> {
        let zone = Domain::parse(self.zone.get_ref()).ok();
        let zone = zone.filter(|zone| zone.literal().is_none() && zone.as_str().len() <= ZONE_OCTETS_MAX);
        let zone = zone.ok_or_else(|| {
            source.error(&self.zone, "not a zone of the DNS", "the list's own, such as \"zen.spamhaus.org\"")
        })?;
        let name = match &self.name {
            None => zone.to_string(),
            Some(name) => {
                let text = name.get_ref();
                let good = (1..=NAME_OCTETS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
                if !good {
                    return Err(source.error(name, "not a name", "up to 64 letters, such as \"zen.spamhaus.org\""));
                }
                text.clone()
            }
        };
        let weight = number(source, self.weight.as_ref(), -WEIGHT_MAX, WEIGHT)?;
        if let Some(written) = self.weight.as_ref().filter(|_| weight == 0) {
            let remedy = "above 0 for a block list, below 0 for an allow list";
            return Err(source.error(written, "a list of no weight would be asked in vain", remedy));
        }
        let codes = self.codes.iter().map(|written| {
            let code = written.get_ref().parse::<Network>();
            code.ok().filter(|code| code.is_loopback() && code.address().is_ipv4()).ok_or_else(|| {
                source.error(written, "no answer of a list", "such as \"127.0.0.2\" or \"127.0.0.8/29\"")
            })
        });
        let mask = match &self.mask {
            None => None,
            Some(written) => Some(u8::try_from(*written.get_ref()).ok().filter(|mask| *mask > 0).ok_or_else(|| {
                source.error(written, "out of range", "between 1 and 255: bits of the answer's last octet")
            })?),
        };
        Ok(DnsList { zone, name, weight, codes: codes.collect::<Result<_, _>>()?, mask })
    }
}

fn number(source: &Source, value: Option<&Placed<i64>>, least: i32, default: i32) -> Result<i32, ConfigError> {
    let Some(value) = value else { return Ok(default) };
    match i32::try_from(*value.get_ref()) {
        Ok(number) if (least..=WEIGHT_MAX).contains(&number) => Ok(number),
        _ => Err(source.error(value, "out of range", &format!("between {least} and {WEIGHT_MAX}"))),
    }
}
