//! Addresses as RFC 5321 §4.1.2 and RFC 6531 §3.3 write them. A value of these types was parsed
//! and cannot be wrong afterwards; nothing past the parser carries an address as a string.

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Longest local part of an address of ours, in octets (RFC 5321 §4.5.3.1.1).
pub const OWN_LOCAL_PART_OCTETS_MAX: usize = 64;
/// Longest local part of anybody's address, in octets. RFC 5321 §4.5.3.1 asks not to refuse what is over
/// its figures where that can be helped, and senders that encode a recipient in theirs (VERP, SRS) are.
pub const LOCAL_PART_OCTETS_MAX: usize = 255;
/// Longest domain, in octets (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_OCTETS_MAX: usize = 255;

/// Why a string is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No `@` where one must be.
    #[error("an address needs an @ between its name and its domain")]
    NoAt,
    /// Nothing before the `@`.
    #[error("the part before the @ is empty")]
    EmptyLocalPart,
    /// Over [`LOCAL_PART_OCTETS_MAX`].
    #[error("the part before the @ is longer than 255 octets")]
    LocalPartTooLong,
    /// A character RFC 5321 does not allow there.
    #[error("the part before the @ holds a character that is not allowed there")]
    BadLocalPart,
    /// Not a domain name or address literal.
    #[error("the domain is not a valid name")]
    BadDomain,
    /// Over [`DOMAIN_OCTETS_MAX`].
    #[error("the domain is longer than 255 octets")]
    DomainTooLong,
}

/// A domain name in lower case, A-labels (`xn--`), no trailing dot; or an address literal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// Parses a domain name; U-labels become A-labels.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > DOMAIN_OCTETS_MAX {
            return Err(AddressError::DomainTooLong);
        }
        if text.starts_with('[') {
            return parse_literal(text).map(|ip| Self(literal_text(ip).into_boxed_str()));
        }
        let lower = text.to_ascii_lowercase();
        let ascii = if lower.is_ascii() && !lower.contains("xn--") {
            lower
        } else {
            idna::domain_to_ascii_strict(&lower).map_err(|_| AddressError::BadDomain)?
        };
        if ascii.len() > DOMAIN_OCTETS_MAX - 2 || !ascii.split('.').all(is_label) {
            return Err(AddressError::BadDomain);
        }
        Ok(Self(ascii.into_boxed_str()))
    }

    /// The domain as it is written on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if this is a literal such as `[192.0.2.1]`.
    pub fn literal(&self) -> Option<IpAddr> {
        self.0.starts_with('[').then(|| parse_literal(&self.0).ok()).flatten()
    }
}

/// True if the name lies below the domain: whole labels are compared, in whatever case, with or without the root's dot.
/// Nothing lies below no domain.
pub fn is_below(name: &str, domain: &str) -> bool {
    let [name, domain] = [name, domain].map(|text| text.trim_end_matches('.').as_bytes());
    let Some((above, end)) = name.len().checked_sub(domain.len()).and_then(|at| name.split_at_checked(at)) else {
        return false;
    };
    !domain.is_empty() && above.ends_with(b".") && end.eq_ignore_ascii_case(domain)
}

/// True if the name is the domain, or lies below it.
pub fn is_at_or_below(name: &str, domain: &str) -> bool {
    name.trim_end_matches('.').eq_ignore_ascii_case(domain.trim_end_matches('.')) || is_below(name, domain)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// The part before the `@`: its meaning, without quotes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Box<str>);

impl LocalPart {
    /// Parses a dot-string or a quoted string (RFC 5321 §4.1.2; UTF-8 by RFC 6531 §3.3). Dots in a row, or at
    /// the end, are taken as they are: such addresses exist, and their owners write them without quotes.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::EmptyLocalPart);
        }
        if text.len() > LOCAL_PART_OCTETS_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        if let Some(inner) = text.strip_prefix('"') {
            let inner = inner.strip_suffix('"').ok_or(AddressError::BadLocalPart)?;
            return unquote(inner).map(|value| Self(value.into_boxed_str()));
        }
        if is_dotted(text) { Ok(Self(text.into())) } else { Err(AddressError::BadLocalPart) }
    }

    /// The meaning, unquoted: compare and look up by this.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name before the first separator, and what follows it: `alice+shop` is (`alice`, `shop`).
    pub fn split_detail(&self, separator: char) -> Option<(&str, &str)> {
        let (name, detail) = self.0.split_once(separator)?;
        (!name.is_empty()).then_some((name, detail))
    }
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dotted(&self.0) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A mailbox address, `local@domain`. Displays in wire form, quoted where it must be.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: LocalPart,
    domain: Domain,
}

impl Address {
    /// Parses `local@domain`; the `@` that counts is the last one outside quotes.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = text.rfind('@').ok_or(AddressError::NoAt)?;
        let domain = Domain::parse(&text[at + 1..])?;
        let local = LocalPart::parse(&text[..at])?;
        Ok(Self { local, domain })
    }

    /// Puts an address together from its parts.
    pub fn new(local: LocalPart, domain: Domain) -> Self {
        Self { local, domain }
    }

    /// The part before the `@`.
    pub fn local(&self) -> &LocalPart {
        &self.local
    }

    /// The part after the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The key under which a mailbox is looked up: our own local parts do not distinguish case.
    pub fn lookup_key(&self) -> String {
        format!("{}@{}", self.local.as_str().to_lowercase(), self.domain.as_str())
    }

    /// True if writing it needs SMTPUTF8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        !self.local.as_str().is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// Who a message comes from: an address, or nobody (`<>`, bounces).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: never answer to it (RFC 5321 §4.5.5).
    Null,
    /// The sender's address.
    Address(Address),
}

impl ReversePath {
    /// Parses what stands between the angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { Address::parse(text).map(Self::Address) }
    }

    /// The address, unless this is the null sender.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    /// Without angle brackets; the null sender is empty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().map_or(Ok(()), |address| fmt::Display::fmt(address, f))
    }
}

/// Whom RCPT names: an address, or the bare `postmaster` every host must know (RFC 5321 §4.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain.
    Postmaster,
    /// An ordinary address.
    Address(Address),
}

impl ForwardPath {
    /// Parses what stands between the angle brackets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self::Postmaster);
        }
        Address::parse(text).map(Self::Address)
    }
}

/// RFC 5322 atext, any non-ASCII character (RFC 6531), and dots anywhere but in front.
fn is_dotted(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.chars().all(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => true,
            c if c.is_ascii() => "!#$%&'*+-/=?^_`{|}~".contains(c),
            c => !c.is_control(),
        })
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn unquote(inner: &str) -> Result<String, AddressError> {
    let mut value = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().ok_or(AddressError::BadLocalPart)?,
            '"' => return Err(AddressError::BadLocalPart),
            c => c,
        };
        if c.is_control() {
            return Err(AddressError::BadLocalPart);
        }
        value.push(c);
    }
    if value.is_empty() { Err(AddressError::EmptyLocalPart) } else { Ok(value) }
}

fn parse_literal(text: &str) -> Result<IpAddr, AddressError> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(AddressError::BadDomain)?;
    if inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:")) {
        inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| AddressError::BadDomain)
    } else {
        inner.parse().map(IpAddr::V4).map_err(|_| AddressError::BadDomain)
    }
}

fn literal_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_lies_below_a_domain_is_told_by_whole_labels() {
        for (name, domain, at, below) in [
            ("example.org", "example.org", true, false),
            ("Example.ORG.", "example.org", true, false),
            ("mail.example.org", "example.org", false, true),
            ("a.b.MAIL.example.org", "Example.org.", false, true),
            ("mail.example.org.", "example.org", false, true),
            ("badexample.org", "example.org", false, false),
            ("example.org", "mail.example.org", false, false),
            ("example.org.evil.example", "example.org", false, false),
            ("bücher.example", "cher.example", false, false),
            ("x.bücher.example", "bücher.example", false, true),
            ("example.org", "", false, false),
            ("example.org", ".", false, false),
            ("", "", true, false),
        ] {
            assert_eq!(is_below(name, domain), below, "{name} below {domain}");
            assert_eq!(is_at_or_below(name, domain), at || below, "{name} at or below {domain}");
        }
    }

    #[test]
    fn parses_and_prints() {
        for (input, printed) in [
            ("alice@example.org", "alice@example.org"),
            ("Alice@EXAMPLE.Org", "Alice@example.org"),
            ("\"a b\"@example.org", "\"a b\"@example.org"),
            ("\"alice\"@example.org", "alice@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"),
            ("\"a> NOTIFY=NEVER\"@x.org", "\"a> NOTIFY=NEVER\"@x.org"),
            ("a..b.@example.org", "a..b.@example.org"),
            ("\".a\"@example.org", "\".a\"@example.org"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
            ("jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        ] {
            assert_eq!(Address::parse(input).map(|a| a.to_string()), Ok(printed.to_owned()), "{input}");
        }
    }

    #[test]
    fn refuses() {
        use AddressError as E;
        for (input, error) in [
            ("alice", E::NoAt),
            ("@example.org", E::EmptyLocalPart),
            ("\"\"@example.org", E::EmptyLocalPart),
            ("a b@example.org", E::BadLocalPart),
            (".a@example.org", E::BadLocalPart),
            ("\"a\0\"@example.org", E::BadLocalPart),
            ("\"a@example.org", E::BadLocalPart),
            ("a@", E::BadDomain),
            ("a@-x.org", E::BadDomain),
            ("a@x..org", E::BadDomain),
            ("a@[1.2.3]", E::BadDomain),
            ("a@exa mple.org", E::BadDomain),
            ("a@xn--bckher-kvereple", E::BadDomain),
            ("a@Xn--bckher-kvereple", E::BadDomain),
        ] {
            assert_eq!(Address::parse(input), Err(error), "{input}");
        }
        assert_eq!(Address::parse(&format!("{}@x.org", "a".repeat(255))).map(|_| ()), Ok(()));
        assert_eq!(Address::parse(&format!("{}@x.org", "a".repeat(256))), Err(E::LocalPartTooLong));
    }

    #[test]
    fn case_does_not_distinguish_our_mailboxes() {
        let one = Address::parse("Alice@Example.org").map(|a| a.lookup_key());
        assert_eq!(one, Ok("alice@example.org".to_owned()));
    }

    #[test]
    fn subaddress_splits_at_the_first_separator() {
        let local = LocalPart::parse("alice+shop+x").expect("valid");
        assert_eq!(local.split_detail('+'), Some(("alice", "shop+x")));
        assert_eq!(LocalPart::parse("+x").expect("valid").split_detail('+'), None);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_prints_back(text in ".{0,90}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
