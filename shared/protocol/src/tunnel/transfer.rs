//! Message bytes over the tunnel: an opening record, data frames, then an end that carries the
//! count, the digest, and what was known only after the last byte. The digest is checked before
//! anything is acknowledged.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::findings::WireFindings;
use super::wire::{WireClient, WireEnvelope, WireVerdict};
use crate::mail::verdict::Verdict;

/// Largest block of front fields, in octets.
pub const FRONT_OCTETS_MAX: usize = 64 * 1024;

/// Who is older is not told what was found.
const JUDGED_SINCE: u16 = 2;

/// Names one hand-over, for good: what makes a repeated one harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransferId(pub [u8; 16]);

impl TransferId {
    /// Parses the printed form, 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|bits| Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known before the first byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferOpen {
    /// Names this hand-over.
    pub transfer: TransferId,
    /// The message's trace id.
    pub trace: [u8; 10],
    /// Who sent it, who gets it.
    pub envelope: WireEnvelope,
    /// Who brought it.
    pub client: WireClient,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// What follows the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferEnd {
    /// The message is whole.
    Whole(TransferSeal),
    /// The client broke off, or the edge refused it: forget what came.
    Abort,
    /// The message is whole, and was judged. Since version 2.
    Judged(TransferSeal, WireFindings),
}

impl TransferEnd {
    /// As a peer of this version understands it: an old one is told less.
    #[must_use]
    pub fn for_version(self, version: u16) -> Self {
        match self {
            Self::Judged(seal, _) if version < JUDGED_SINCE => Self::Whole(seal),
            end => end,
        }
    }

    /// Count, digest and verdict of a whole message; nothing of one that was given up.
    pub fn whole(self) -> Option<(TransferSeal, Verdict)> {
        match self {
            Self::Whole(seal) => {
                let verdict = Verdict::from(seal.verdict);
                Some((seal, verdict))
            }
            Self::Judged(seal, findings) => {
                let verdict = findings.verdict(Verdict::from(seal.verdict).hops);
                Some((seal, verdict))
            }
            Self::Abort => None,
        }
    }
}

/// Count, digest, and what the edge found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSeal {
    /// Octets of data.
    pub octets: u64,
    /// SHA-256 of the data.
    pub sha256: [u8; 32],
    /// What the edge found.
    pub verdict: WireVerdict,
    /// Header fields of the edge's, to be written in front of the message.
    pub front: Vec<u8>,
}

/// Why what arrived is not what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// Bytes are missing or too many.
    #[error("{announced} octets were announced, {arrived} arrived")]
    Count {
        /// By the sender.
        announced: u64,
        /// Here.
        arrived: u64,
    },
    /// Bytes are not the same.
    #[error("the digest does not fit what arrived")]
    Digest,
    /// Front fields over their bound, or not whole header lines.
    #[error("the front fields are malformed")]
    Front,
}

/// Counts and digests data on either side.
#[derive(Clone)]
pub struct Tally {
    octets: u64,
    digest: Context,
}

impl Default for Tally {
    fn default() -> Self {
        Self { octets: 0, digest: Context::new(&SHA256) }
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tally({} octets)", self.octets)
    }
}

impl Tally {
    /// Takes in the next data.
    pub fn add(&mut self, data: &[u8]) {
        self.octets += data.len() as u64;
        self.digest.update(data);
    }

    /// Octets so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Ends the sending side.
    pub fn seal(self, verdict: WireVerdict, front: Vec<u8>) -> TransferSeal {
        let octets = self.octets;
        TransferSeal { octets, sha256: self.sha256(), verdict, front }
    }

    /// Ends the receiving side: does what arrived fit what was announced?
    pub fn check(self, seal: &TransferSeal) -> Result<(), TransferError> {
        if seal.front.len() > FRONT_OCTETS_MAX || !(seal.front.is_empty() || seal.front.ends_with(b"\r\n")) {
            return Err(TransferError::Front);
        }
        if self.octets != seal.octets {
            return Err(TransferError::Count { announced: seal.octets, arrived: self.octets });
        }
        if self.sha256() == seal.sha256 { Ok(()) } else { Err(TransferError::Digest) }
    }

    /// The digest alone.
    pub fn sha256(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.digest.finish().as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_every_difference() {
        let tally = |data: &[u8]| {
            let mut tally = Tally::default();
            tally.add(data);
            tally
        };
        let seal = tally(b"hello").seal(WireVerdict::default(), b"X: y\r\n".to_vec());
        assert_eq!(tally(b"hello").check(&seal), Ok(()));
        assert_eq!(tally(b"hallo").check(&seal), Err(TransferError::Digest));
        assert_eq!(tally(b"hell").check(&seal), Err(TransferError::Count { announced: 5, arrived: 4 }));
        let torn = TransferSeal { front: b"X: y".to_vec(), ..seal };
        assert_eq!(tally(b"hello").check(&torn), Err(TransferError::Front));
    }

    #[test]
    fn ids_print_and_parse() {
        let id = TransferId(*b"0123456789abcdef");
        assert_eq!(TransferId::parse(&id.to_string()), Some(id));
        assert_eq!(TransferId::parse("+0000000000000000000000000000001"), None);
    }
}
