//! An SPF record as RFC 7208 §5, §6 and §12 write it: read as a whole, strictly, before any of it counts. Who may send by
//! it is asked elsewhere; nothing here knows an address of a name.

pub mod template;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use self::template::Template;

/// What a record begins with.
const VERSION: &[u8] = b"v=spf1";

/// A record that nobody can follow: its result is *permerror*.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no term of an SPF record")]
pub struct Malformed(pub String);

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its directives in their order.
    pub directives: Vec<Directive>,
    /// Whose record counts if none of them matches.
    pub redirect: Option<Template>,
}

/// What is found if a mechanism matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// `+`, `-`, `~` or `?`.
    pub qualifier: Qualifier,
    /// Whom it matches.
    pub mechanism: Mechanism,
}

/// What a match means (RFC 7208 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// May send.
    Pass,
    /// May not.
    Fail,
    /// Probably may not.
    SoftFail,
    /// Nothing is said.
    Neutral,
}

/// Whom a directive matches (RFC 7208 §5). A name that is left out is the domain itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Everybody.
    All,
    /// Whom another domain's record passes.
    Include(Template),
    /// The name's addresses, and their networks.
    A(Option<Template>, Prefixes),
    /// The addresses of its mail hosts, and their networks.
    Mx(Option<Template>, Prefixes),
    /// Clients with a proven name at or below this one.
    Ptr(Option<Template>),
    /// A network.
    Ip4(Ipv4Addr, u8),
    /// A network.
    Ip6(Ipv6Addr, u8),
    /// Everybody, if this name has an address.
    Exists(Template),
}

/// How many bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of 32.
    pub v4: u8,
    /// Of 128.
    pub v6: u8,
}

/// True for a TXT record that is one for SPF, good or bad (RFC 7208 §4.5).
pub fn is_record(text: &[u8]) -> bool {
    let Some((start, rest)) = text.split_at_checked(VERSION.len()) else { return false };
    start.eq_ignore_ascii_case(VERSION) && rest.first().is_none_or(|octet| *octet == b' ')
}

impl Record {
    /// Of a text for which [`is_record`] is true.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let rest = text.get(VERSION.len()..).unwrap_or_default();
        let bad = || Malformed(String::from_utf8_lossy(rest).into_owned());
        let rest = std::str::from_utf8(rest).ok().filter(|rest| rest.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        let mut record = Self::default();
        let mut explained = false;
        for term in rest.ok_or_else(bad)?.split(' ').filter(|term| !term.is_empty()) {
            record.take(term, &mut explained).ok_or_else(|| Malformed(term.to_owned()))?;
        }
        Ok(record)
    }

    /// Takes a term in; `None` if it is none.
    fn take(&mut self, term: &str, explained: &mut bool) -> Option<()> {
        let name_end = term.find([':', '/', '=']).unwrap_or(term.len());
        let Some(value) = term[name_end..].strip_prefix('=') else {
            self.directives.push(Directive::parse(term)?);
            return Some(());
        };
        match term[..name_end].to_ascii_lowercase().as_str() {
            // Each once (RFC 7208 §6).
            "redirect" if self.redirect.is_none() => self.redirect = Some(Template::name(value)?),
            "exp" if !*explained => {
                // Others' words are not passed on in our replies; all the same it has to be right.
                Template::name(value)?;
                *explained = true;
            }
            "redirect" | "exp" => return None,
            name => {
                let starts_well = name.starts_with(|letter: char| letter.is_ascii_alphabetic());
                let is_name =
                    starts_well && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet));
                Template::parse(value).filter(|_| is_name)?;
            }
        }
        Some(())
    }
}

impl Directive {
    fn parse(term: &str) -> Option<Self> {
        let (qualifier, term) = match term.as_bytes().first()? {
            b'+' => (Qualifier::Pass, &term[1..]),
            b'-' => (Qualifier::Fail, &term[1..]),
            b'~' => (Qualifier::SoftFail, &term[1..]),
            b'?' => (Qualifier::Neutral, &term[1..]),
            _ => (Qualifier::Pass, term),
        };
        let (name, rest) = term.split_at(term.find([':', '/']).unwrap_or(term.len()));
        let value = rest.strip_prefix(':');
        let mechanism = match (name.to_ascii_lowercase().as_str(), value) {
            ("all", None) if rest.is_empty() => Mechanism::All,
            ("include", Some(value)) => Mechanism::Include(Template::name(value)?),
            ("exists", Some(value)) => Mechanism::Exists(Template::name(value)?),
            ("ptr", value) if rest.is_empty() || value.is_some() => Mechanism::Ptr(optional(value)?),
            ("ip4", Some(value)) => {
                let (address, bits) = network(value, 32)?;
                Mechanism::Ip4(address.parse().ok()?, bits)
            }
            ("ip6", Some(value)) => {
                let (address, bits) = network(value, 128)?;
                Mechanism::Ip6(address.parse().ok()?, bits)
            }
            (name @ ("a" | "mx"), value) => {
                let (domain, prefixes) = prefixes(value.unwrap_or(rest))?;
                let domain = optional(value.map(|_| domain)).filter(|_| value.is_some() || domain.is_empty())?;
                if name == "a" { Mechanism::A(domain, prefixes) } else { Mechanism::Mx(domain, prefixes) }
            }
            _ => return None,
        };
        Some(Self { qualifier, mechanism })
    }
}

/// A name that may be left out; the outer `None` is a bad one.
#[expect(clippy::option_option, reason = "left out and wrong are two things")]
fn optional(value: Option<&str>) -> Option<Option<Template>> {
    match value {
        None => Some(None),
        Some(value) => Template::name(value).map(Some),
    }
}

/// An address and how many bits of it count; all of them where nothing is said.
fn network(value: &str, bits_max: u8) -> Option<(&str, u8)> {
    match value.split_once('/') {
        None => Some((value, bits_max)),
        Some((address, bits)) => Some((address, length(bits, bits_max)?)),
    }
}

/// What stands before `/24//64`, and these.
fn prefixes(value: &str) -> Option<(&str, Prefixes)> {
    let mut prefixes = Prefixes { v4: 32, v6: 128 };
    let mut rest = value;
    if let Some((before, bits)) = rest.rsplit_once("//").filter(|(_, bits)| is_number(bits)) {
        prefixes.v6 = length(bits, 128)?;
        rest = before;
    }
    if let Some((before, bits)) = rest.rsplit_once('/').filter(|(_, bits)| is_number(bits)) {
        prefixes.v4 = length(bits, 32)?;
        rest = before;
    }
    Some((rest, prefixes))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// A number of bits, without zeros in front.
fn length(text: &str, max: u8) -> Option<u8> {
    let plain = is_number(text) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|bits| plain && *bits <= max)
}

/// True if these addresses have the first bits in common; never between the families.
pub fn is_within(client: IpAddr, network: IpAddr, prefixes: Prefixes) -> bool {
    match (client, network) {
        (IpAddr::V4(client), IpAddr::V4(network)) => {
            let differ = u32::from(client) ^ u32::from(network);
            differ.checked_shr(32 - u32::from(prefixes.v4)).unwrap_or(0) == 0
        }
        (IpAddr::V6(client), IpAddr::V6(network)) => {
            let differ = u128::from(client) ^ u128::from(network);
            differ.checked_shr(128 - u32::from(prefixes.v6)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Qualifier::{Fail, Neutral, Pass, SoftFail};
    use super::*;

    fn parsed(text: &str) -> Option<Record> {
        assert!(is_record(text.as_bytes()), "{text}");
        Record::parse(text.as_bytes()).ok()
    }

    #[test]
    fn a_record_is_told_from_other_texts() {
        for (text, is) in
            [("v=spf1", true), ("V=SPF1 -all", true), ("v=spf10", false), ("v=spf2.0/pra", false), ("", false)]
        {
            assert_eq!(is_record(text.as_bytes()), is, "{text:?}");
        }
    }

    #[test]
    fn mechanisms_are_read_with_their_networks() {
        let record = parsed("v=spf1 ip4:192.0.2.0/24 ?ip6:2001:db8::/32 a/16//64 ~mx:example.org//48 -ALL").unwrap();
        let mechanisms: Vec<_> = record.directives.iter().map(|one| &one.mechanism).collect();
        assert_eq!(mechanisms[0], &Mechanism::Ip4([192, 0, 2, 0].into(), 24));
        assert_eq!(mechanisms[1], &Mechanism::Ip6("2001:db8::".parse().unwrap(), 32));
        assert_eq!(mechanisms[2], &Mechanism::A(None, Prefixes { v4: 16, v6: 64 }));
        assert!(matches!(mechanisms[3], Mechanism::Mx(Some(_), Prefixes { v4: 32, v6: 48 })));
        assert_eq!(mechanisms[4], &Mechanism::All);
        let qualifiers: Vec<_> = record.directives.iter().map(|one| one.qualifier).collect();
        assert_eq!(qualifiers, [Pass, Neutral, Pass, SoftFail, Fail]);
    }

    #[test]
    fn one_bad_term_spoils_the_record() {
        for bad in [
            "a:",
            "a:museum",
            "a:abc.123",
            "a/33",
            "a//129",
            "a/",
            "a:example.org/024",
            "all.",
            "all:x",
            "include",
            "include:",
            "ip4",
            "ip4:1.2.3",
            "ip4:1.2.3.4/032",
            "ip4:1.2.3.4/33",
            "ip6::::1",
            "ip6:1.2.3.4",
            "exists",
            "ptr:",
            "ptr/8",
            "redirect=",
            "redirect=a.b redirect=a.b",
            "exp=a.b exp=a.b",
            "=x",
            "1x=y",
            "x=%",
            "x=%{c}",
            "%all",
            "-",
            "\tall",
        ] {
            assert_eq!(parsed(&format!("v=spf1 {bad}")), None, "{bad}");
        }
        for good in ["", " ", "x=", "moo.cow-far_out=man:dog/cat", "exp=a.b", "a:%{h}", "ptr", "a:x.y//0", "ip6:::/0"] {
            assert!(parsed(&format!("v=spf1 {good}")).is_some(), "{good}");
        }
    }

    #[test]
    fn bits_beyond_the_length_do_not_count() {
        let (a, b): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 3, 1].into());
        for (v4, within) in [(0, true), (23, true), (24, false), (32, false)] {
            assert_eq!(is_within(a, b, Prefixes { v4, v6: 0 }), within, "{v4}");
        }
        let (c, d): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        for (v6, within) in [(0, true), (126, true), (127, false), (128, false)] {
            assert_eq!(is_within(c, d, Prefixes { v4: 0, v6 }), within, "{v6}");
        }
        assert!(!is_within(a, c, Prefixes { v4: 0, v6: 0 }), "never between the families");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_not(text: Vec<u8>) {
            let mut record = b"v=spf1 ".to_vec();
            record.extend(text);
            let _ = Record::parse(&record);
        }
    }
}
