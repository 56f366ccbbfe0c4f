//! The fields that go in front of a message: its body is read once and never held.

use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::arc::NextSet;
use gatepost_protocol::mail::canonical::RelaxedDigest;
use gatepost_protocol::mail::header;
use gatepost_protocol::mail::signature::{self, Algorithm, Seal, SignedHeader};
use gatepost_protocol::mail::verdict::Found;
use mail_parser::{Address as ParsedAddress, HeaderValue, MessageParser};

use super::ring::{Ring, RingKey};
use super::{Signing, SigningError};
use crate::message::Message;

/// Largest header section that is signed, in octets: what an edge takes, with what is put in front on the way.
const HEADER_OCTETS_MAX: usize = 2 * 1024 * 1024;

/// Why a message leaves, and so who answers for it, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is ours: DKIM, by the domain in From: the first of them that is ours.
    Ours,
    /// It is others', and goes on: ARC.
    Forwarded {
        /// By this domain.
        domain: Domain,
        /// What was found of its chain.
        chain: Found,
        /// What was found of it, as the value of an Authentication-Results field.
        results: String,
    },
}

/// What goes in front of a signed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The fields, each with its line end.
    pub fields: Vec<u8>,
    /// Who signed: `d=`.
    pub domain: Domain,
}

impl Signing {
    /// The fields that are to go in front; none where nobody of ours answers for it. Blocking.
    pub fn fields(&self, message: &Message, purpose: &Purpose) -> Result<Option<Signed>, SigningError> {
        let Some(section) = message.header(HEADER_OCTETS_MAX)? else { return Ok(None) };
        let body = || body_sha256(message, section.len());
        let (ring, fields) = match purpose {
            Purpose::Ours => {
                let Some(ring) = authors(&section).iter().find_map(|domain| self.ring_of(domain)) else {
                    return Ok(None);
                };
                let fields = self.dkim(&ring, &section, body()?)?;
                (ring, fields)
            }
            Purpose::Forwarded { domain, chain, results } => {
                let (Some(next), Some(ring)) = (NextSet::after(&section, *chain), self.ring_of(domain)) else {
                    return Ok(None);
                };
                // No verifier knows another algorithm for ARC.
                let Some(key) = ring.signing().find(|key| key.key.algorithm() == Algorithm::RsaSha256) else {
                    return Ok(None);
                };
                let fields = self.arc(&next, (&ring, key), &section, (results, body()?))?;
                (ring, fields)
            }
        };
        Ok(Some(Signed { fields, domain: ring.domain.clone() }))
    }

    fn dkim(&self, ring: &Ring, section: &[u8], body: [u8; 32]) -> Result<Vec<u8>, SigningError> {
        let header = SignedHeader::of(section);
        let mut fields = Vec::new();
        for key in ring.signing() {
            let unsigned = signature::dkim(&header, &body, self.seal(ring, key));
            let signature = key.key.sign(unsigned.input())?;
            fields.extend_from_slice(unsigned.signed(&signature).as_bytes());
        }
        Ok(fields)
    }

    fn arc(
        &self,
        next: &NextSet,
        (ring, key): (&Ring, &RingKey),
        section: &[u8],
        (results, body): (&str, [u8; 32]),
    ) -> Result<Vec<u8>, SigningError> {
        let by = self.seal(ring, key);
        let results = next.results(results);
        let unsigned = next.signature(&SignedHeader::of_forwarded(section), &body, by);
        let signature = key.key.sign(unsigned.input())?;
        let signature = unsigned.signed(&signature);
        let unsigned = next.seal(&results, &signature, by);
        let seal = key.key.sign(unsigned.input())?;
        Ok([unsigned.signed(&seal), signature, results].concat().into_bytes())
    }

    fn seal<'a>(&self, ring: &'a Ring, key: &'a RingKey) -> Seal<'a> {
        Seal {
            domain: ring.domain.as_str(),
            selector: &key.selector,
            algorithm: key.key.algorithm(),
            unix_s: self.now().unix_s,
        }
    }
}

/// The domains of the addresses in From, in their order.
fn authors(section: &[u8]) -> Vec<Domain> {
    let Some(from) = header::fields(section).find(|field| field.is("From")) else { return Vec::new() };
    let alone = [b"From: ", from.value().trim_ascii(), b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().with_address_headers().parse_headers(&alone[..]);
    let value = parsed.as_ref().and_then(|parsed| Some(&parsed.parts.first()?.headers.first()?.value));
    let list: Vec<_> = match value {
        Some(HeaderValue::Address(ParsedAddress::List(list))) => list.iter().collect(),
        Some(HeaderValue::Address(ParsedAddress::Group(groups))) => {
            groups.iter().flat_map(|group| &group.addresses).collect()
        }
        _ => Vec::new(),
    };
    let domain = |text: &str| Address::parse(text).ok().map(|address| address.domain().clone());
    list.into_iter().filter_map(|address| domain(address.address.as_deref()?)).collect()
}

/// The digest of the body, which begins after so many octets.
fn body_sha256(message: &Message, mut header_octets: usize) -> Result<[u8; 32], SigningError> {
    let mut digest = RelaxedDigest::default();
    let mut feed = |octets: &[u8]| {
        let gone = header_octets.min(octets.len());
        header_octets -= gone;
        digest.feed(&octets[gone..]);
    };
    feed(&message.front);
    for chunk in message.body.chunks() {
        feed(&chunk?);
    }
    Ok(digest.finish())
}
