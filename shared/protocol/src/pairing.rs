//! The printed form of a node's key: `gp1…`, the SHA-256 of its SubjectPublicKeyInfo in bech32m
//! (BIP 350), whose checksum catches every mistyped character. Below: pairing by one-time code.

pub mod code;
pub mod exchange;

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32m, Hrp};
use thiserror::Error;

/// Names a node: the hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey([u8; 32]);

/// Why a string is no `gp1…` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NodeKeyError {
    /// Another kind of string.
    #[error("a key starts with gp1")]
    Prefix,
    /// The checksum does not fit: a character is wrong, missing or too many.
    #[error("the key's checksum does not fit: a character is wrong, missing or too many")]
    Checksum,
}

impl NodeKey {
    /// The key whose SubjectPublicKeyInfo (DER) this is.
    pub fn of_spki(spki: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key from its hash, as it travels.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

const PREFIX: Hrp = Hrp::parse_unchecked("gp");

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PREFIX, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeKey {
    type Err = NodeKeyError;

    fn from_str(text: &str) -> Result<Self, NodeKeyError> {
        let text = text.trim();
        if !text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("gp1")) {
            return Err(NodeKeyError::Prefix);
        }
        let checked =
            bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text).map_err(|_| NodeKeyError::Checksum)?;
        let bytes: Vec<u8> = checked.byte_iter().collect();
        bytes.try_into().map(Self).map_err(|_| NodeKeyError::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let key = NodeKey::of_spki(b"a public key");
        let text = key.to_string();
        assert!(text.starts_with("gp1"), "{text}");
        assert_eq!(text.len(), 61);
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(text.to_uppercase().parse(), Ok(key));
    }

    #[test]
    fn a_pairing_code_is_no_key() {
        assert_eq!("gpair1qqqq".parse::<NodeKey>(), Err(NodeKeyError::Prefix));
    }

    #[test]
    fn every_single_typing_error_is_caught() {
        let text = NodeKey::of_spki(b"a public key").to_string();
        for at in 3..text.len() {
            let mut typo: Vec<u8> = text.bytes().collect();
            typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert_eq!(typo.parse::<NodeKey>(), Err(NodeKeyError::Checksum), "at {at}");
        }
        assert_eq!("gp1".parse::<NodeKey>(), Err(NodeKeyError::Checksum));
        assert_eq!("ssh-ed25519 AAAA".parse::<NodeKey>(), Err(NodeKeyError::Prefix));
    }
}
