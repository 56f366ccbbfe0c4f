//! The return path of forwarded mail: the Sender Rewriting Scheme, as libsrs2 and `PostSRSd` write it, so that
//! other forwarders can shorten ours and we theirs:
//!
//! ```text
//! SRS0=HHHHHHHHHH=TT=domain=local@ours             from a sender
//! SRS1=HHHHHHHHHHTT=host==HHHH=TT=domain=local@ours from a sender that `host` had rewritten before us
//! SRS0=HHHHHHHHHH=TT=-=id@ours                     from a sender too long, or of too odd letters, kept at home
//! ```
//! The first half of the hash is made with a key the edges hold: they refuse what is forged while the home is
//! away. The second is made with a key only the home holds: who steals an edge can make no address whose mail
//! the home would send on. Case does not count anywhere: mail systems change it. Pure: the day comes in.

use std::fmt;

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::address::{Address, Domain, LocalPart, OWN_LOCAL_PART_OCTETS_MAX};

/// Days a return path is good for: longer than any queue waits, and those after it.
pub const LIFETIME_DAYS: u16 = 21;
/// Days the clocks of those who make and those who check may differ.
const SKEW_DAYS: u16 = 1;
/// Characters of each half of a hash, five bits each.
const HALF: usize = 5;
/// Time stamps start anew after this many days.
const DAYS: u16 = 1024;
/// What may stand after `SRS0` and `SRS1`.
const SEPARATORS: [char; 3] = ['=', '+', '-'];
/// Stands where a domain would: no domain name is like this.
const KEPT: &str = "-";
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Keys of this kind that count at once: the one in use and those before it.
pub const KEYS_MAX: usize = 4;

/// A key of one half of the hash. Does not print, compares in constant time, clears itself.
#[derive(Clone)]
pub struct SrsKey(Zeroizing<[u8; 32]>);

impl SrsKey {
    /// From random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the file or the wire.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SrsKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for SrsKey {}

impl fmt::Debug for SrsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[srs key]")
    }
}

/// A day, as SRS counts them: modulo 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(u16);

impl Day {
    /// The day of a moment, seconds since 1970.
    pub fn of(unix_s: i64) -> Self {
        Self(u16::try_from(unix_s.div_euclid(24 * 3600).rem_euclid(i64::from(DAYS))).unwrap_or_default())
    }

    /// True if what was made on that day is still good today.
    fn is_good(self, today: Self) -> bool {
        let age = (today.0 + DAYS - self.0) % DAYS;
        age <= LIFETIME_DAYS || age >= DAYS - SKEW_DAYS
    }

    fn parse(text: &str) -> Option<Self> {
        let [high, low] = text.as_bytes() else { return None };
        Some(Self(digit(*high)? << 5 | digit(*low)?))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for value in [self.0 >> 5, self.0 & 31] {
            write!(f, "{}", char::from(ALPHABET[usize::from(value)]))?;
        }
        Ok(())
    }
}

fn digit(letter: u8) -> Option<u16> {
    let upper = letter.to_ascii_uppercase();
    ALPHABET.iter().position(|&a| a == upper).and_then(|value| u16::try_from(value).ok())
}

/// What a return path leads back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// SRS0: a sender.
    Sender {
        /// Its domain.
        domain: String,
        /// Its local part.
        local: String,
    },
    /// SRS1: the first forwarder, and its own SRS0 without those four letters.
    Forwarder {
        /// Its host.
        host: String,
        /// The rest, from the separator on.
        rest: String,
    },
    /// A sender that is kept at home under this name.
    Kept {
        /// Letters and digits.
        id: String,
    },
}

impl Origin {
    /// Of a sender that is to be rewritten.
    pub fn of(sender: &Address) -> Self {
        let local = sender.local().as_str();
        let host = sender.domain().to_string();
        if let Some(rest) = after(local, "SRS0") {
            return Self::Forwarder { host, rest: rest.to_owned() };
        }
        // Whoever made this SRS1 is left out: the way back goes to the first forwarder.
        let second = after(local, "SRS1").and_then(|rest| {
            let (_, rest) = rest[1..].split_once('=')?;
            let (first, rest) = rest.split_once('=')?;
            // As we write it ourselves: a host name has no case.
            let host = Domain::parse(first).ok().filter(|_| rest.starts_with(SEPARATORS))?.to_string();
            Some(Self::Forwarder { host, rest: rest.to_owned() })
        });
        second.unwrap_or_else(|| Self::Sender { domain: host, local: local.to_owned() })
    }

    /// The address it leads back to; `None` if that is kept at home, or is no address.
    pub fn address(&self) -> Option<Address> {
        let (local, domain) = match self {
            Self::Sender { domain, local } => (local.clone(), domain),
            Self::Forwarder { host, rest } => (format!("SRS0{rest}"), host),
            Self::Kept { .. } => return None,
        };
        Some(Address::new(LocalPart::parse(&local).ok()?, Domain::parse(domain).ok()?))
    }

    fn parts(&self) -> (u8, &str, &str) {
        match self {
            Self::Sender { domain, local } => (0, domain, local),
            Self::Forwarder { host, rest } => (1, host, rest),
            Self::Kept { id } => (0, KEPT, id),
        }
    }
}

/// A local part of ours, taken apart or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath {
    hash: String,
    day: Day,
    origin: Origin,
}

impl ReturnPath {
    /// True for what only a return path looks like: `SRS0=…`, `SRS1=…`, whoever made it.
    pub fn is_like(local: &LocalPart) -> bool {
        after(local.as_str(), "SRS0").or_else(|| after(local.as_str(), "SRS1")).is_some()
    }

    /// Makes one.
    pub fn new(origin: Origin, day: Day, edge: &SrsKey, home: &SrsKey) -> Self {
        let hash = [half(edge, day, &origin), half(home, day, &origin)].concat();
        Self { hash, day, origin }
    }

    /// Takes one apart; `None` if it has not the form of ours.
    pub fn parse(local: &LocalPart) -> Option<Self> {
        let local = local.as_str();
        let form = |hash: &str| hash.len() == 2 * HALF && hash.bytes().all(|letter| digit(letter).is_some());
        if let Some(rest) = after(local, "SRS0") {
            let mut fields = rest[1..].splitn(4, '=');
            let (hash, day) = (fields.next().filter(|hash| form(hash))?, Day::parse(fields.next()?)?);
            let (domain, local) = (fields.next()?, fields.next().filter(|local| !local.is_empty())?.to_owned());
            let origin = match domain {
                KEPT => Origin::Kept { id: local },
                domain => Origin::Sender { domain: Domain::parse(domain).ok()?.to_string(), local },
            };
            return Some(Self { hash: hash.to_owned(), day, origin });
        }
        let mut fields = after(local, "SRS1")?[1..].splitn(3, '=');
        let (hash, day) = fields.next()?.split_at_checked(2 * HALF).filter(|(hash, _)| form(hash))?;
        let host = Domain::parse(fields.next()?).ok()?.to_string();
        let rest = fields.next().filter(|rest| rest.len() > 1 && rest.starts_with(SEPARATORS))?.to_owned();
        Some(Self { hash: hash.to_owned(), day: Day::parse(day)?, origin: Origin::Forwarder { host, rest } })
    }

    /// True if the edge's half was made with one of these keys, and is not too old.
    pub fn is_good_at_edge<'a>(&self, keys: impl IntoIterator<Item = &'a SrsKey>, today: Day) -> bool {
        let (ours, _) = self.hash.split_at(HALF);
        // All of them, so that the time tells nothing.
        let good = keys.into_iter().fold(false, |good, key| good | is_equal(ours, &half(key, self.day, &self.origin)));
        good && self.day.is_good(today)
    }

    /// True if both halves were made with these keys, and it is not too old.
    pub fn is_good(&self, edge: &SrsKey, home: &SrsKey, today: Day) -> bool {
        let made = Self::new(self.origin.clone(), self.day, edge, home);
        is_equal(&self.hash, &made.hash) && self.day.is_good(today)
    }

    /// What it leads back to.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// As a local part; `None` if it would be over the 64 octets every host takes, or hold letters that not
    /// every host takes: its origin must be kept at home then.
    pub fn local_part(&self) -> Option<LocalPart> {
        let text = self.to_string();
        let plain = text.is_ascii() && text.len() <= OWN_LOCAL_PART_OCTETS_MAX && !text.contains('"');
        let dotted = !text.contains("..") && !text.ends_with('.');
        LocalPart::parse(&text).ok().filter(|_| plain && dotted)
    }
}

impl fmt::Display for ReturnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, day, origin } = self;
        match origin.parts() {
            (0, domain, local) => write!(f, "SRS0={hash}={day}={domain}={local}"),
            (_, host, rest) => write!(f, "SRS1={hash}{day}={host}={rest}"),
        }
    }
}

/// What follows the four letters, from its separator on.
fn after<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let (start, rest) = local.split_at_checked(tag.len())?;
    (start.eq_ignore_ascii_case(tag) && rest.starts_with(SEPARATORS)).then_some(rest)
}

/// One half of the hash: 25 bits of HMAC-SHA-256 over everything else, in lower case.
fn half(key: &SrsKey, day: Day, origin: &Origin) -> String {
    let (kind, host, rest) = origin.parts();
    let mut text = format!("gatepost srs{kind} {day} ");
    text.push_str(host);
    text.push('\0');
    text.push_str(rest);
    text.make_ascii_lowercase();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, text.as_bytes());
    let bits = tag.as_ref().iter().take(4).fold(0u32, |bits, octet| bits << 8 | u32::from(*octet));
    (0..HALF).map(|nth| char::from(ALPHABET[(bits >> (27 - 5 * nth) & 31) as usize])).collect()
}

/// In constant time, whatever the case.
fn is_equal(one: &str, other: &str) -> bool {
    one.to_ascii_uppercase().as_bytes().ct_eq(other.to_ascii_uppercase().as_bytes()).into()
}

#[cfg(test)]
mod tests;
