//! MTA-STS policies of other domains (RFC 8461): the TXT record that says there is one, the policy, the hosts it lists. Strict:
//! what is not understood as a whole does not count at all. Pure.

use std::time::Duration;

use thiserror::Error;

use super::{MAX_AGE_S_MAX, Mode};

/// Octets of a policy (RFC 8461 §3.3 suggests 64 KiB).
pub const POLICY_OCTETS_MAX: usize = 64 * 1024;
/// Longest a policy may be kept (RFC 8461 §3.2).
pub const MAX_AGE_MAX: Duration = Duration::from_secs(MAX_AGE_S_MAX as u64);
/// Host patterns of one policy.
pub const PATTERNS_MAX: usize = 128;
/// Octets of a host pattern: a domain and `*.`.
const PATTERN_OCTETS_MAX: usize = 255;
/// Octets of an identifier (RFC 8461 §3.1).
const ID_OCTETS_MAX: usize = 32;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What follows.
    pub mode: Mode,
    /// Hosts, each a name or `*.` and a name; lower case.
    pub hosts: Vec<String>,
    /// How long it may be kept.
    pub max_age: Duration,
}

/// Why a policy is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It is too long.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// A line is no field.
    #[error("line {0} is no \"name: value\"")]
    Line(usize),
    /// A field is missing or means nothing.
    #[error("its {0} is missing or means nothing")]
    Field(&'static str),
    /// It lists too many hosts.
    #[error("it lists more than 128 hosts")]
    TooManyHosts,
}

/// The identifier of the one record that counts among a domain's at `_mta-sts`; `None` if there is no such (RFC 8461 §3.1).
pub fn id(texts: &[String]) -> Option<&str> {
    let mut ours = texts.iter().filter(|text| version_of(text) == Some("STSv1"));
    let (Some(text), None) = (ours.next(), ours.next()) else { return None };
    let mut ids = text.split(';').skip(1).filter_map(|field| field.trim().strip_prefix("id=")).map(str::trim);
    ids.next().filter(|id| is_id(id))
}

fn version_of(text: &str) -> Option<&str> {
    text.split(';').next()?.trim_end().strip_prefix("v=")
}

/// One to 32 letters and digits.
pub fn is_id(id: &str) -> bool {
    (1..=ID_OCTETS_MAX).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

impl Policy {
    /// Reads one (RFC 8461 §3.2). Fields it does not know are passed over; of those it knows the first counts.
    pub fn parse(octets: &[u8]) -> Result<Self, PolicyError> {
        if octets.len() > POLICY_OCTETS_MAX {
            return Err(PolicyError::TooLong);
        }
        let text = std::str::from_utf8(octets).map_err(|_| PolicyError::NotText)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut hosts = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(PolicyError::Line(number))?;
            let (name, value) = (name.trim_end_matches([' ', '\t']), value.trim_start_matches([' ', '\t']));
            if !is_field_name(name) || value.chars().any(char::is_control) {
                return Err(PolicyError::Line(number));
            }
            match name {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" if hosts.len() >= PATTERNS_MAX => return Err(PolicyError::TooManyHosts),
                "mx" => hosts.push(pattern(value).ok_or(PolicyError::Field("mx"))?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError::Field("version"));
        }
        let mode = mode.and_then(Mode::parse).ok_or(PolicyError::Field("mode"))?;
        let digits = |text: &&str| (1..=10).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        let seconds = max_age.filter(digits).and_then(|text| text.parse().ok());
        let max_age = Duration::from_secs(seconds.ok_or(PolicyError::Field("max_age"))?).min(MAX_AGE_MAX);
        if hosts.is_empty() && mode != Mode::None {
            return Err(PolicyError::Field("mx"));
        }
        Ok(Self { mode, hosts, max_age })
    }

    /// True if it lists this host (RFC 8461 §4.1): `*` stands for one label, the first.
    pub fn lists(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
            None => host == *pattern,
        })
    }

    /// Its lines, as reports show it.
    pub fn lines(&self) -> Vec<String> {
        let head = ["version: STSv1".to_owned(), format!("mode: {}", self.mode.word())];
        let hosts = self.hosts.iter().map(|host| format!("mx: {host}"));
        head.into_iter().chain(hosts).chain([format!("max_age: {}", self.max_age.as_secs())]).collect()
    }
}

fn is_field_name(name: &str) -> bool {
    let mut octets = name.bytes();
    (1..=32).contains(&name.len())
        && octets.next().is_some_and(|octet| octet.is_ascii_alphanumeric())
        && octets.all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet))
}

/// A host or `*.` and a domain, in lower case.
fn pattern(text: &str) -> Option<String> {
    let text = text.trim_end_matches([' ', '\t']);
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let fits = text.len() <= PATTERN_OCTETS_MAX && name.split('.').all(is_label);
    fits.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.net\r\nmax_age: 604800\r\n";

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn the_one_record_that_counts_has_an_identifier() {
        assert_eq!(id(&texts(&["v=STSv1; id=20160831085700Z;"])), Some("20160831085700Z"));
        assert_eq!(id(&texts(&["v=spf1 -all", "v=STSv1;id=1"])), Some("1"), "others beside it are others");
        assert_eq!(id(&texts(&["v=STSv1; x=y; id=abc"])), Some("abc"));
        for none in [
            &["v=STSv1; id=1", "v=STSv1; id=2"][..],
            &["v=STSv2; id=1"],
            &["v=STSv1"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a-b"],
            &["v=STSv1; id=123456789012345678901234567890123"],
            &["id=1; v=STSv1"],
            &[],
        ] {
            assert_eq!(id(&texts(none)), None, "{none:?}");
        }
    }

    #[test]
    fn a_policy_is_read_as_the_standard_writes_it() {
        let policy = Policy::parse(GOOD.as_bytes()).expect("good");
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.hosts, ["mail.example.com", "*.example.net"]);
        assert_eq!(policy.max_age, Duration::from_hours(168));
        assert_eq!(Policy::parse(policy.lines().join("\n").as_bytes()), Ok(policy));
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 0").expect("needs no hosts");
        assert_eq!(none.mode, Mode::None);
        let long = Policy::parse(b"version:STSv1\nmode:testing\nmx:a\nmax_age:9999999999\nnew-field: x\nmode: none");
        let long = long.expect("unknown fields pass, and the first of two counts");
        assert_eq!((long.mode, long.max_age), (Mode::Testing, MAX_AGE_MAX));
    }

    #[test]
    fn what_is_not_understood_as_a_whole_does_not_count() {
        let without = |line: &str| GOOD.replace(line, "");
        for (text, error) in [
            (without("version: STSv1\r\n"), PolicyError::Field("version")),
            (without("mode: enforce\r\n"), PolicyError::Field("mode")),
            (without("max_age: 604800\r\n"), PolicyError::Field("max_age")),
            (GOOD.replace("enforce", "force"), PolicyError::Field("mode")),
            (GOOD.replace("604800", "-1"), PolicyError::Field("max_age")),
            (GOOD.replace("604800", "1e6"), PolicyError::Field("max_age")),
            (GOOD.replace("604800", "12345678901"), PolicyError::Field("max_age")),
            (GOOD.replace("*.Example.net", "a.*.example.net"), PolicyError::Field("mx")),
            (GOOD.replace("*.Example.net", "*"), PolicyError::Field("mx")),
            (GOOD.replace("mx: *.Example.net", "mx"), PolicyError::Line(4)),
            ("version: STSv1\nmode: testing\nmax_age: 1\n".to_owned(), PolicyError::Field("mx")),
            ("<html>".to_owned(), PolicyError::Line(1)),
            (format!("{GOOD}{}", "mx: a\n".repeat(PATTERNS_MAX)), PolicyError::TooManyHosts),
            (format!("{GOOD}x: {}", "a".repeat(POLICY_OCTETS_MAX)), PolicyError::TooLong),
        ] {
            assert_eq!(Policy::parse(text.as_bytes()), Err(error), "{text:.60}");
        }
        assert_eq!(Policy::parse(b"version: STSv1\xff"), Err(PolicyError::NotText));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let policy = Policy::parse(GOOD.as_bytes()).expect("good");
        for host in ["mail.example.com", "MAIL.example.com.", "mx1.example.net"] {
            assert!(policy.lists(host), "{host}");
        }
        for host in
            ["example.net", "a.b.example.net", ".example.net", "mail.example.com.evil.example", "example.com", ""]
        {
            assert!(!policy.lists(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_bounded_policy_or_none(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Policy::parse(&octets);
            let _ = id(&[String::from_utf8_lossy(&octets).into_owned()]);
        }

        #[test]
        fn what_was_read_is_read_again_from_its_own_lines(
            mode in 0..3_usize,
            hosts in proptest::collection::vec("(\\*\\.)?[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,3}", 1..9),
            age in 0..40_000_000_u64,
        ) {
            let mode = [Mode::Enforce, Mode::Testing, Mode::None][mode];
            let policy = Policy { mode, hosts, max_age: Duration::from_secs(age).min(MAX_AGE_MAX) };
            prop_assert_eq!(Policy::parse(policy.lines().join("\r\n").as_bytes()), Ok(policy));
        }
    }
}
