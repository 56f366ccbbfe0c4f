//! The MTA-STS policy of a domain of ours (RFC 8461): which hosts take its mail, and whether other hosts may do without
//! verified TLS. Pure: what is served at `https://mta-sts.DOMAIN`, and the id that tells others that it has changed.

pub mod others;

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::address::Domain;

/// The path it is served at (RFC 8461 §3.3).
pub const PATH: &str = "/.well-known/mta-sts.txt";
/// The first label of the host that serves it.
pub const HOST_LABEL: &str = "mta-sts";
/// Hosts of one policy.
pub const HOSTS_MAX: usize = 64;
/// Longest life of a policy, in seconds (RFC 8461 §3.2).
pub const MAX_AGE_S_MAX: u32 = 31_557_600;
/// Letters of an id; there may be 32 (RFC 8461 §3.1).
const ID_LETTERS: usize = 20;

/// How far others are to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// There is no policy (any more).
    None,
    /// They deliver all the same, and report what fails.
    #[default]
    Testing,
    /// Without verified TLS they don't deliver.
    Enforce,
}

impl Mode {
    /// As RFC 8461 and configs write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Testing => "testing",
            Self::Enforce => "enforce",
        }
    }

    /// Reads it.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Testing, Self::Enforce].into_iter().find(|mode| mode.word() == word)
    }
}

/// A policy that can be served: one with hosts, or with the mode *none*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsPolicy {
    mode: Mode,
    max_age_s: u32,
    hosts: Vec<Domain>,
}

impl StsPolicy {
    /// With these mail hosts, in whatever order. `None` where others would be told to deliver nowhere.
    pub fn new(mode: Mode, max_age_s: u32, mut hosts: Vec<Domain>) -> Option<Self> {
        hosts.retain(|host| host.literal().is_none() && host.as_str().contains('.'));
        hosts.sort();
        hosts.dedup();
        hosts.truncate(HOSTS_MAX);
        let is_sound = mode == Mode::None || !hosts.is_empty();
        is_sound.then_some(Self { mode, max_age_s: max_age_s.min(MAX_AGE_S_MAX), hosts })
    }

    /// How far others are to go.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How long others may keep it, in seconds.
    pub fn max_age_s(&self) -> u32 {
        self.max_age_s
    }

    /// The mail hosts, sorted.
    pub fn hosts(&self) -> &[Domain] {
        &self.hosts
    }

    /// What is served (RFC 8461 §3.2).
    pub fn text(&self) -> String {
        let mut text = format!("version: STSv1\r\nmode: {}\r\n", self.mode.word());
        for host in &self.hosts {
            // Writing to a string can't fail.
            let _ = write!(text, "mx: {host}\r\n");
        }
        let _ = write!(text, "max_age: {}\r\n", self.max_age_s);
        text
    }

    /// Another one exactly when the text is another one.
    pub fn id(&self) -> String {
        let hash = digest(&SHA256, self.text().as_bytes());
        let mut id = String::with_capacity(ID_LETTERS);
        for octet in hash.as_ref().iter().take(ID_LETTERS / 2) {
            let _ = write!(id, "{octet:02x}");
        }
        id
    }

    /// The text of the TXT record at `_mta-sts` of the domain (RFC 8461 §3.1).
    pub fn record(&self) -> String {
        format!("v=STSv1; id={};", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| Domain::parse(name).expect("valid")).collect()
    }

    #[test]
    fn a_policy_reads_as_the_standard_writes_it() {
        let policy =
            StsPolicy::new(Mode::Enforce, 86_400, hosts(&["mx2.example.net", "mail.example.org"])).expect("good");
        assert_eq!(
            policy.text(),
            "version: STSv1\r\nmode: enforce\r\nmx: mail.example.org\r\nmx: mx2.example.net\r\nmax_age: 86400\r\n"
        );
        let record = policy.record();
        let id = record.strip_prefix("v=STSv1; id=").and_then(|rest| rest.strip_suffix(';')).expect("a record");
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric()), "{id}");
    }

    #[test]
    fn the_id_changes_exactly_when_the_policy_does() {
        let one = StsPolicy::new(Mode::Testing, 60, hosts(&["a.example", "b.example"])).expect("good");
        let same = StsPolicy::new(Mode::Testing, 60, hosts(&["b.example", "A.example", "b.example"])).expect("good");
        assert_eq!(one.id(), same.id());
        for other in [
            StsPolicy::new(Mode::Enforce, 60, hosts(&["a.example", "b.example"])),
            StsPolicy::new(Mode::Testing, 61, hosts(&["a.example", "b.example"])),
            StsPolicy::new(Mode::Testing, 60, hosts(&["a.example"])),
        ] {
            assert_ne!(one.id(), other.expect("good").id());
        }
    }

    #[test]
    fn nobody_is_told_to_deliver_nowhere() {
        assert_eq!(StsPolicy::new(Mode::Enforce, 60, Vec::new()), None);
        assert_eq!(StsPolicy::new(Mode::Testing, 60, hosts(&["[192.0.2.1]", "localhost"])), None);
        let gone = StsPolicy::new(Mode::None, u32::MAX, Vec::new()).expect("that there is none can always be said");
        assert_eq!(gone.text(), format!("version: STSv1\r\nmode: none\r\nmax_age: {MAX_AGE_S_MAX}\r\n"));
    }
}
