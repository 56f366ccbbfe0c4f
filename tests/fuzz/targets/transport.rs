//! What other domains say of how mail to them is to be protected: MTA-STS records and policies, TLSA records.

use gatepost_protocol::mail::dane::{Applies, Certificate, Tlsa};
use gatepost_protocol::mail::mta_sts::others::{self, PATTERNS_MAX, Policy};

/// A policy is understood as a whole, within its bounds, and read again from its own lines; or it is none.
pub fn mta_sts(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    if let Some(id) = others::id(&[text]) {
        assert!(others::is_id(id));
    }
    let Ok(policy) = Policy::parse(data) else { return };
    assert!(policy.hosts.len() <= PATTERNS_MAX);
    for host in &policy.hosts {
        let example = host.replacen('*', "mx", 1);
        assert!(policy.lists(&example), "{example} is listed");
        assert!(!policy.lists(&format!("{example}.evil.example")) || policy.hosts.len() > 1);
    }
    let lines = policy.lines().join("\r\n");
    assert_eq!(Policy::parse(lines.as_bytes()).as_ref(), Ok(&policy));
}

/// Whatever records there are, they name no certificate but those they are made of.
pub fn tlsa(data: &[u8]) {
    let records: Vec<Tlsa> = data
        .chunks(40)
        .filter_map(|chunk| match chunk {
            [usage, selector, matching, data @ ..] => {
                Some(Tlsa { usage: *usage, selector: *selector, matching: *matching, data: data.to_vec() })
            }
            _ => None,
        })
        .collect();
    if let Applies::Certificates(named) = Applies::of(&records) {
        let other = [7; 100];
        let certificate = Certificate { whole: &other, public_key: &other };
        assert!(!named.is_host(certificate) && !named.is_authority(certificate));
        assert!(named.records().iter().all(Tlsa::is_usable));
    }
}
