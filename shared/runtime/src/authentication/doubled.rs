//! Names that have several DMARC records: they count as none there (RFC 7489 §6.6.3, step 5; RFC 9989 §4.10.1). The
//! library takes the first it can read, so it is told beforehand; it finds all other answers in the resolver's memory.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Instant;

use futures_util::future::join_all;
use hickory_proto::rr::{RData, RecordType};
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::dmarc::{Dmarc, Psd};
use mail_auth::{DnsError, Error, ResolverCache, Txt};

use super::reporting::upwards;
use crate::resolver::{Answer, CouldNotTell, Resolver};

/// What the library is told of these names: there is no record.
#[derive(Debug)]
pub(super) struct Doubled(Vec<String>);

impl Doubled {
    /// Those on the way up from the domain in From. An error: one of those that matter could not be asked.
    pub(super) async fn above(resolver: &Resolver, from: &str) -> Result<Self, CouldNotTell> {
        let names = names(from);
        let answers = join_all(names.iter().map(|name| resolver.records(name, RecordType::TXT))).await;
        let mut doubled = Vec::new();
        for (name, answer) in names.into_iter().zip(answers) {
            let Answer::Found(records) = answer? else { continue };
            let texts = records.iter().filter_map(|record| match record {
                RData::TXT(text) => Some(text.txt_data.concat()),
                _ => None,
            });
            let records: Vec<Vec<u8>> = texts.filter(|text| is_dmarc(text)).collect();
            match records.as_slice() {
                // Where the way ends.
                [one] if Dmarc::parse(one).is_ok_and(|record| record.psd != Psd::Default) => break,
                [] | [_] => {}
                _ => doubled.push(name),
            }
        }
        Ok(Self(doubled))
    }
}

impl ResolverCache<Box<str>, Txt> for Doubled {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let is_it = |doubled: &String| Box::<str>::from(doubled.as_str()).borrow() == name;
        self.0.iter().any(is_it).then(|| Txt::Error(Error::Dns(DnsError::InvalidRecordType)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// Where records about mail from this domain may be. A name of one label is no domain of mail.
fn names(from: &str) -> Vec<String> {
    let name = |above: &str| format!("_dmarc.{above}.");
    if from.contains('.') { upwards(from).map(name).collect() } else { Vec::new() }
}

/// Whether a text begins as a record of this version does: anything else at that name is no DMARC record.
fn is_dmarc(text: &[u8]) -> bool {
    let first = text.split(|octet| *octet == b';').next().unwrap_or_default();
    let Some(equals) = first.iter().position(|octet| *octet == b'=') else { return false };
    first[..equals].trim_ascii().eq_ignore_ascii_case(b"v") && first[equals + 1..].trim_ascii() == b"DMARC1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_up_is_asked_for_in_few_questions() {
        assert_eq!(names("example.org"), ["_dmarc.example.org.", "_dmarc.org."]);
        let long = names("a.b.c.d.e.f.g.h.example.org");
        assert_eq!((long.len(), long[0].as_str()), (8, "_dmarc.a.b.c.d.e.f.g.h.example.org."));
        assert_eq!(long[1], "_dmarc.d.e.f.g.h.example.org.");
        assert_eq!(names("localhost"), [""; 0]);
        assert_eq!(names(""), [""; 0]);
    }

    #[test]
    fn other_texts_are_no_records() {
        for (text, expected) in [
            ("v=DMARC1; p=none", true),
            ("v = DMARC1 ;p=none", true),
            ("v=DMARC1", true),
            ("v=DMARC10; p=none", false),
            ("v=spf1 -all", false),
            ("DMARC1", false),
            ("p=none; v=DMARC1", false),
            ("", false),
        ] {
            assert_eq!(is_dmarc(text.as_bytes()), expected, "{text}");
        }
    }
}
