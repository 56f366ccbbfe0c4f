//! The MTA-STS policies that were fetched, by domain: bounded in number and in octets, aged by the steady time, kept as a
//! text a person can read. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::mta_sts::others::{Policy, is_id};

/// The first line: what the file is, and its version.
const HEAD: &str = "gatepost mta-sts policies 1";
/// Policies kept; then those that were fetched longest ago make room.
const POLICIES_MAX: usize = 2000;
/// Octets of all of them, as they are written.
const OCTETS_MAX: usize = 1024 * 1024;
/// Octets of the file that are read at most.
pub const FILE_OCTETS_MAX: u64 = 2 * OCTETS_MAX as u64;

/// One that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its identifier in the DNS when it was fetched.
    pub id: String,
    /// What it says.
    pub policy: Arc<Policy>,
    /// When it was fetched, by the steady time.
    pub at_ms: i64,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    policies: HashMap<String, Fetched>,
    octets: usize,
}

/// A file that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not begin with {HEAD:?}")]
pub struct NotPolicies;

impl Fetched {
    fn is_good(&self, now_ms: i64) -> bool {
        let age = u64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(0);
        u128::from(age) < self.policy.max_age.as_millis()
    }
}

impl Cache {
    /// That of this domain, if it may still be used.
    pub fn of(&self, domain: &str, now_ms: i64) -> Option<&Fetched> {
        self.policies.get(domain).filter(|fetched| fetched.is_good(now_ms))
    }

    /// Keeps one in the place of what was kept of this domain.
    pub fn put(&mut self, domain: &str, fetched: Fetched) {
        self.remove(domain);
        let octets = written(domain, &fetched).len();
        while self.policies.len() >= POLICIES_MAX || self.octets + octets > OCTETS_MAX {
            let oldest = self.policies.iter().min_by_key(|(_, fetched)| fetched.at_ms).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
        self.octets += octets;
        self.policies.insert(domain.to_owned(), fetched);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.policies.len()
    }

    fn remove(&mut self, domain: &str) {
        if let Some(gone) = self.policies.remove(domain) {
            self.octets = self.octets.saturating_sub(written(domain, &gone).len());
        }
    }

    /// The text: those that may still be used.
    pub fn write(&self, now_ms: i64) -> String {
        let mut names: Vec<_> = self.policies.keys().collect();
        names.sort();
        let mut text = format!("{HEAD}\n");
        for name in names {
            if let Some(fetched) = self.of(name, now_ms) {
                text.push_str(&written(name, fetched));
            }
        }
        text
    }

    /// Reads it; how many lines made no sense, too. Nothing was fetched later than now.
    pub fn read(text: &str, now_ms: i64) -> Result<(Self, usize), NotPolicies> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(NotPolicies);
        }
        let (mut cache, mut damaged) = (Self::default(), 0);
        for line in lines {
            match parse(line) {
                Some((domain, fetched)) => {
                    cache.put(&domain, Fetched { at_ms: fetched.at_ms.min(now_ms), ..fetched });
                }
                None => damaged += 1,
            }
        }
        Ok((cache, damaged))
    }
}

/// A line: domain, moment, identifier, and the policy's own lines with ` | ` between them.
fn written(domain: &str, fetched: &Fetched) -> String {
    let mut line = format!("{domain} {} {} ", fetched.at_ms, fetched.id);
    // Writing to a string can't fail.
    let _ = writeln!(line, "{}", fetched.policy.lines().join(" | "));
    line
}

fn parse(line: &str) -> Option<(String, Fetched)> {
    let mut parts = line.splitn(4, ' ');
    let domain = Domain::parse(parts.next()?).ok()?.as_str().to_owned();
    let at_ms = parts.next()?.parse().ok()?;
    let id = parts.next().filter(|id| is_id(id))?.to_owned();
    let policy = Policy::parse(parts.next()?.replace(" | ", "\n").as_bytes()).ok()?;
    Some((domain, Fetched { id, policy: Arc::new(policy), at_ms }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatepost_protocol::mail::mta_sts::Mode;
    use proptest::prelude::*;

    use super::*;

    fn fetched(at_ms: i64, max_age_s: u64) -> Fetched {
        let policy =
            Policy { mode: Mode::Enforce, hosts: vec!["*.example".into()], max_age: Duration::from_secs(max_age_s) };
        Fetched { id: "1a".into(), policy: Arc::new(policy), at_ms }
    }

    #[test]
    fn a_policy_is_good_for_as_long_as_it_says() {
        let mut cache = Cache::default();
        cache.put("a.example", fetched(1000, 60));
        assert!(cache.of("a.example", 60_999).is_some());
        assert!(cache.of("a.example", 61_000).is_none());
        assert!(cache.of("b.example", 0).is_none());
    }

    #[test]
    fn what_was_written_is_read_and_only_what_is_good() {
        let mut cache = Cache::default();
        cache.put("a.example", fetched(1000, 60));
        cache.put("old.example", fetched(0, 1));
        let text = cache.write(2000);
        let (read, damaged) = Cache::read(&format!("{text}nonsense\n"), 2000).expect("ours");
        assert_eq!((read.len(), damaged), (1, 1));
        assert_eq!(read.of("a.example", 2000), Some(&fetched(1000, 60)));
        assert_eq!(Cache::read("else\n", 0), Err(NotPolicies));
        let later = Cache::read(&text, 500).expect("ours").0;
        assert_eq!(later.of("a.example", 500).map(|fetched| fetched.at_ms), Some(500), "never later than now");
    }

    #[test]
    fn the_oldest_make_room() {
        let mut cache = Cache::default();
        for number in 0..POLICIES_MAX + 10 {
            cache.put(&format!("d{number}.example"), fetched(i64::try_from(number).expect("small"), 1_000_000));
        }
        assert_eq!(cache.len(), POLICIES_MAX);
        assert!(cache.of("d9.example", 0).is_none() && cache.of("d10.example", 0).is_some());
        let long = Policy {
            mode: Mode::Enforce,
            hosts: (0..120).map(|host| format!("{host}{}.example", "x".repeat(60))).collect(),
            max_age: Duration::from_secs(1_000_000),
        };
        for number in 0..300_i32 {
            let fetched = Fetched { id: "1".into(), policy: Arc::new(long.clone()), at_ms: 10_000 + i64::from(number) };
            cache.put(&format!("long{number}.example"), fetched);
        }
        assert!(cache.octets <= OCTETS_MAX && cache.len() < 200);
        assert_eq!(cache.octets + HEAD.len() + 1, cache.write(10_300).len());
    }

    proptest! {
        #[test]
        fn any_text_is_policies_or_none(text in "\\PC{0,200}") {
            let _ = Cache::read(&text, 0);
            let _ = Cache::read(&format!("{HEAD}\n{text}"), 0);
        }
    }
}
