//! The one-time code of `gatepost-edge pair`: where to dial, whom to expect there, and a secret, in
//! one word with a checksum that survives any copying (`gpair1…`, bech32m). Whoever reads it can
//! pair, until it was used or has expired; so it prints only when asked by name.
//!
//! ```text
//! version, 1 octet (0) | key hash, 32 octets | secret, 16 octets | address, the rest, UTF-8
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use thiserror::Error;
use zeroize::Zeroizing;

use super::NodeKey;
use crate::mail::address::Domain;
use crate::secret::Secret;

/// Octets of the secret: 128 bits, which nobody guesses within an hour, or ever.
pub const SECRET_OCTETS: usize = 16;
/// Longest address: a domain name, a colon, a port.
pub const ADDRESS_OCTETS_MAX: usize = 253 + 1 + 5;
/// Longest text that is looked at: that of the longest address, and some white space.
const TEXT_OCTETS_MAX: usize = 700;

const PREFIX: Hrp = Hrp::parse_unchecked("gpair");
const VERSION: u8 = 0;
const KEY_OCTETS: usize = 32;
const ADDRESS_AT: usize = 1 + KEY_OCTETS + SECRET_OCTETS;

/// Where a home dials its edge: `host:port`, the host a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialAddress(String);

/// A text that is no address to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not an address to dial; a name or address and a port, such as \"mail.example.org:10025\" or \"[2001:db8::1]:10025\""
)]
pub struct DialAddressError;

impl DialAddress {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the port.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host)
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DialAddress {
    type Err = DialAddressError;

    fn from_str(text: &str) -> Result<Self, DialAddressError> {
        let good = match text.parse::<SocketAddr>() {
            Ok(address) => address.port() > 0 && !address.ip().is_unspecified(),
            Err(_) => text.rsplit_once(':').is_some_and(|(host, port)| {
                let is_port =
                    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
                is_port && Domain::parse(host).is_ok_and(|domain| domain.literal().is_none())
            }),
        };
        if good && text.len() <= ADDRESS_OCTETS_MAX { Ok(Self(text.to_owned())) } else { Err(DialAddressError) }
    }
}

/// What a code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingCode {
    /// Where to dial.
    pub address: DialAddress,
    /// Whom to expect there.
    pub edge_key: NodeKey,
    /// What both prove to each other; [`SECRET_OCTETS`] long.
    pub secret: Secret,
}

/// Why a text is no pairing code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// A node's key.
    #[error("this is a key, not a pairing code; a code is printed by: gatepost-edge pair")]
    Key,
    /// Another kind of text.
    #[error("not a pairing code: one starts with gpair1 and is printed by: gatepost-edge pair")]
    Prefix,
    /// A character is wrong, missing or too many.
    #[error("the code's checksum does not fit: a character is wrong, missing or too many; copy it again, whole")]
    Checksum,
    /// Made by software that is newer than ours.
    #[error("the code is of a newer kind than this program knows; upgrade gatepost-home")]
    Newer,
    /// The checksum fits, what it says does not.
    #[error("the code holds no address that can be dialled; ask for another one, with --address")]
    Address,
}

impl PairingCode {
    /// The word itself. It is secret.
    pub fn reveal(&self) -> Zeroizing<String> {
        let address = self.address.as_str().as_bytes();
        let mut bytes = Zeroizing::new(Vec::with_capacity(ADDRESS_AT + address.len()));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.edge_key.as_bytes());
        bytes.extend_from_slice(self.secret.expose());
        bytes.extend_from_slice(address);
        // Room for all of it at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2 + 16));
        bech32::encode_lower_to_fmt::<Bech32m, String>(&mut text, PREFIX, &bytes)
            .expect("the longest address keeps it below the 1023 characters of bech32m, and a String takes all");
        text
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let text = text.trim();
        let starts = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if !starts("gpair1") {
            return Err(if starts("gp1") { CodeError::Key } else { CodeError::Prefix });
        }
        if text.len() > TEXT_OCTETS_MAX {
            return Err(CodeError::Checksum);
        }
        let checked = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| CodeError::Checksum)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(TEXT_OCTETS_MAX));
        bytes.extend(checked.byte_iter());
        match bytes.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(CodeError::Newer),
            None => return Err(CodeError::Checksum),
        }
        let (Some(fixed), Some(address)) = (bytes.get(1..ADDRESS_AT), bytes.get(ADDRESS_AT..)) else {
            return Err(CodeError::Checksum);
        };
        let (key, secret) = fixed.split_at(KEY_OCTETS);
        let edge_key = NodeKey::from_bytes(key.try_into().map_err(|_| CodeError::Checksum)?);
        let address = std::str::from_utf8(address).ok().and_then(|text| text.parse().ok()).ok_or(CodeError::Address)?;
        Ok(Self { address, edge_key, secret: Secret::new(secret.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(address: &str) -> PairingCode {
        PairingCode {
            address: address.parse().expect("valid"),
            edge_key: NodeKey::of_spki(b"an edge"),
            secret: Secret::new((0..16).collect()),
        }
    }

    #[test]
    fn one_word_that_says_everything() {
        let code = code("mail.example.org:10025");
        let text = code.reveal();
        assert!(text.starts_with("gpair1") && text.bytes().all(|b| b.is_ascii_alphanumeric()), "{}", *text);
        assert!(text.len() < 130, "{} characters", text.len());
        assert_eq!(text.parse(), Ok(code.clone()));
        assert_eq!(text.to_uppercase().parse(), Ok(code.clone()));
        assert_eq!(format!("  {}\n", *text).parse(), Ok(code.clone()));
        assert!(!format!("{code:?}").contains("gpair1"), "it shows itself only when asked by name");
    }

    #[test]
    fn every_single_typing_error_is_caught() {
        let text = code("192.0.2.1:10025").reveal();
        for at in "gpair1".len()..text.len() {
            for other in [b'q', b'p', b'0', b'x'] {
                let mut typo: Vec<u8> = text.bytes().collect();
                if typo[at] == other {
                    continue;
                }
                typo[at] = other;
                let typo = String::from_utf8(typo).expect("ASCII");
                assert_eq!(typo.parse::<PairingCode>(), Err(CodeError::Checksum), "{} at {at}", char::from(other));
            }
            let shorter = text[..at].to_owned() + &text[at + 1..];
            assert_eq!(shorter.parse::<PairingCode>(), Err(CodeError::Checksum), "without {at}");
            assert_eq!(text[..at].parse::<PairingCode>(), Err(CodeError::Checksum), "cut at {at}");
        }
    }

    #[test]
    fn other_texts_are_told_apart() {
        let key = NodeKey::of_spki(b"a").to_string();
        let raw = |bytes: &[u8]| bech32::encode::<Bech32m>(PREFIX, bytes).expect("short");
        let mut newer = [0; ADDRESS_AT + 4];
        newer[0] = 1;
        for (text, error) in [
            (key.as_str(), CodeError::Key),
            ("", CodeError::Prefix),
            ("hunter2", CodeError::Prefix),
            ("gpair", CodeError::Prefix),
            ("gpair1", CodeError::Checksum),
            (&raw(b""), CodeError::Checksum),
            (&raw(&[0; ADDRESS_AT - 1]), CodeError::Checksum),
            (&raw(&[0; ADDRESS_AT]), CodeError::Address),
            (&raw(&newer), CodeError::Newer),
            (&("gpair1".to_owned() + &"q".repeat(5000)), CodeError::Checksum),
        ] {
            assert_eq!(text.parse::<PairingCode>(), Err(error), "{text}");
        }
    }

    #[test]
    fn addresses_that_can_be_dialled() {
        for (text, good) in [
            ("mail.example.org:10025", true),
            ("192.0.2.1:25", true),
            ("[2001:db8::1]:10025", true),
            ("vps:10025", true),
            ("mail.example.org", false),
            ("mail.example.org:0", false),
            ("mail.example.org:65536", false),
            ("mail.example.org:+25", false),
            ("[::]:10025", false),
            ("0.0.0.0:10025", false),
            ("2001:db8::1:10025", false),
            (":10025", false),
            ("a b:10025", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<DialAddress>().is_ok(), good, "{text}");
        }
        assert_eq!("mail.example.org:10025".parse::<DialAddress>().expect("valid").host(), "mail.example.org");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key in any::<[u8; 32]>(),
            secret in any::<[u8; 16]>(),
            label in "[a-z0-9]{1,63}",
            labels in 1usize..4,
            port in 1u16..,
        ) {
            let address = format!("{}:{port}", vec![label; labels].join("."));
            prop_assume!(address.parse::<DialAddress>().is_ok());
            let code = PairingCode {
                address: address.parse().expect("checked above"),
                edge_key: NodeKey::from_bytes(key),
                secret: Secret::new(secret.to_vec()),
            };
            prop_assert_eq!(code.reveal().parse(), Ok(code));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(gpair1)?[ -~]{0,200}") {
            let _ = text.parse::<PairingCode>();
        }
    }
}
