//! Signed load: keys of the sender's domain, their records, and a DKIM signature over each message.

use std::path::Path;

use anyhow::{Context, Result};
use gatepost_home::signing::key::Key;
use gatepost_protocol::mail::canonical::RelaxedDigest;
use gatepost_protocol::mail::signature::{self, Algorithm, Seal, SignedHeader};

/// Octets of one string of a TXT record (RFC 1035 §3.3).
const STRING_OCTETS_MAX: usize = 255;

/// When all of it was signed, in 2026; to some verifiers no moment is not a moment.
const SIGNED_UNIX_S: i64 = 1_780_000_000;

/// One key of one domain.
#[derive(Debug)]
pub struct Signer {
    domain: String,
    selector: &'static str,
    key: Key,
}

impl Signer {
    /// A new key, kept under `folder`.
    pub fn new(folder: &Path, domain: &str, algorithm: Algorithm) -> Result<Self> {
        let selector = match algorithm {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        };
        let key = Key::make(algorithm, &folder.join(selector)).context("making a key")?;
        Ok(Self { domain: domain.to_owned(), selector, key })
    }

    /// Its record, as a zone file has it.
    pub fn record(&self) -> Result<String> {
        let text = self.key.record()?;
        let (first, rest) = text.split_at(text.len().min(STRING_OCTETS_MAX));
        let rest = if rest.is_empty() { String::new() } else { format!(" \"{rest}\"") };
        Ok(format!("{}._domainkey.{}. 3600 IN TXT \"{first}\"{rest}\n", self.selector, self.domain))
    }

    /// The field that signs this header section, which ends with an empty line, and this body.
    ///
    /// # Panics
    /// If the key can't sign.
    pub fn field(&self, section: &[u8], body: &[u8]) -> String {
        let mut digest = RelaxedDigest::default();
        digest.feed(body);
        let seal = Seal {
            domain: &self.domain,
            selector: self.selector,
            algorithm: self.key.algorithm(),
            unix_s: SIGNED_UNIX_S,
        };
        let unsigned = signature::dkim(&SignedHeader::of(section), &digest.finish(), seal);
        let signature = self.key.sign(unsigned.input()).expect("a key that was just made signs");
        unsigned.signed(&signature)
    }
}
