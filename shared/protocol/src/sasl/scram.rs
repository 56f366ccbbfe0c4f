//! The messages and sums of SCRAM-SHA-256 (RFC 5802 §7, RFC 7677). Parsing is exact: unknown
//! mandatory extensions, other channel bindings and stray attributes are refused.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac as mac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{CREDENTIAL_OCTETS_MAX, Mechanism, credential};
use crate::secret::Secret;

/// Longest SCRAM message, in octets; well under what a line of a login may hold.
const MESSAGE_OCTETS_MAX: usize = 4096;

/// The channel binding flag of the GS2 header (RFC 5802 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindingFlag {
    /// `n`: the client can't bind.
    Cannot,
    /// `y`: it could, and thinks we can't.
    NotOffered,
    /// `p=tls-exporter` (RFC 9266).
    Exporter,
}

/// `client-first-message`.
pub(super) struct ClientFirst {
    pub(super) message: Vec<u8>,
    header_octets: usize,
    flag: BindingFlag,
    pub(super) login: String,
    pub(super) nonce: String,
}

impl fmt::Debug for ClientFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientFirst({})", self.login)
    }
}

impl ClientFirst {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let text = text(message)?;
        let (flag_text, rest) = text.split_once(',')?;
        let flag = match flag_text {
            "n" => BindingFlag::Cannot,
            "y" => BindingFlag::NotOffered,
            "p=tls-exporter" => BindingFlag::Exporter,
            _ => return None,
        };
        let (acting_for, bare) = rest.split_once(',')?;
        let header_octets = text.len() - bare.len();
        let mut attributes = bare.split(',');
        // A mandatory extension would come first, as `m=`: none is known, so it is refused here.
        let login = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = nonce(attributes.next()?.strip_prefix("r=")?)?.to_owned();
        if !acting_for.is_empty() && unescape(acting_for.strip_prefix("a=")?)? != login {
            return None;
        }
        Some(Self { message: message.to_vec(), header_octets, flag, login, nonce })
    }

    /// The GS2 header, both commas included.
    pub(super) fn gs2_header(&self) -> &[u8] {
        &self.message[..self.header_octets]
    }

    /// `client-first-message-bare`.
    pub(super) fn bare(&self) -> &[u8] {
        &self.message[self.header_octets..]
    }

    /// Channel binding is used with -PLUS and only there.
    pub(super) fn fits(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::ScramSha256Plus => self.flag == BindingFlag::Exporter,
            Mechanism::ScramSha256 => self.flag != BindingFlag::Exporter,
            Mechanism::Plain | Mechanism::Login => false,
        }
    }

    /// The client says it saw no -PLUS.
    pub(super) fn denies_plus(&self) -> bool {
        self.flag == BindingFlag::NotOffered
    }
}

/// `server-first-message`.
#[derive(Debug)]
pub(super) struct ServerFirst {
    pub(super) message: Vec<u8>,
    pub(super) nonce: String,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl ServerFirst {
    pub(super) fn new(client_nonce: &str, nonce: &[u8; 18], salt: &[u8], iterations: u32) -> Self {
        let nonce = format!("{client_nonce}{}", BASE64.encode(nonce));
        let message = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt)).into_bytes();
        Self { message, nonce, salt: salt.to_vec(), iterations }
    }

    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let mut attributes = text(message)?.split(',');
        let nonce = nonce(attributes.next()?.strip_prefix("r=")?)?.to_owned();
        let salt = BASE64.decode(attributes.next()?.strip_prefix("s=")?).ok()?;
        let count = attributes.next()?.strip_prefix("i=")?;
        if salt.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let iterations = count.parse().ok().filter(|&n| n > 0)?;
        Some(Self { message: message.to_vec(), nonce, salt, iterations })
    }
}

/// `client-final-message`.
pub(super) struct ClientFinal {
    message: Vec<u8>,
    without_proof_octets: usize,
    pub(super) channel_binding: Vec<u8>,
    pub(super) nonce: String,
    pub(super) proof: [u8; 32],
}

impl ClientFinal {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel_binding = BASE64.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = nonce(attributes.next()?.strip_prefix("r=")?)?.to_owned();
        let proof = BASE64.decode(proof).ok()?.try_into().ok()?;
        Some(Self {
            message: message.to_vec(),
            without_proof_octets: without_proof.len(),
            channel_binding,
            nonce,
            proof,
        })
    }

    pub(super) fn without_proof(&self) -> &[u8] {
        &self.message[..self.without_proof_octets]
    }
}

/// `server-final-message` of success.
pub(super) fn server_final(signature: &[u8; 32]) -> Vec<u8> {
    format!("v={}", BASE64.encode(signature)).into_bytes()
}

/// `AuthMessage` (RFC 5802 §3).
pub(super) fn auth_message(client_first_bare: &[u8], server_first: &[u8], without_proof: &[u8]) -> Vec<u8> {
    [client_first_bare, server_first, without_proof].join(&b","[..])
}

/// `SaltedPassword`: PBKDF2 with HMAC-SHA-256.
pub(super) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Secret {
    let mut salted = vec![0; 32];
    let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, &mut salted);
    Secret::new(salted)
}

pub(super) fn client_key(salted: &[u8]) -> [u8; 32] {
    hmac(salted, b"Client Key")
}

pub(super) fn server_key(salted: &[u8]) -> [u8; 32] {
    hmac(salted, b"Server Key")
}

pub(super) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = mac::sign(&mac::Key::new(mac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 octets")
}

pub(super) fn hash(message: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, message).as_ref().try_into().expect("SHA-256 gives 32 octets")
}

pub(super) fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// `saslname`: `,` and `=` escaped (RFC 5802 §5.1).
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(2)?;
        text.push(match escaped {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        text.push_str(rest);
    }
    credential(text.as_bytes()).is_some().then_some(text)
}

/// Printable ASCII but no comma (RFC 5802 §7).
fn nonce(text: &str) -> Option<&str> {
    let fits = (1..=CREDENTIAL_OCTETS_MAX).contains(&text.len()) && text.bytes().all(|b| (b'!'..=b'~').contains(&b));
    fits.then_some(text)
}

fn text(message: &[u8]) -> Option<&str> {
    std::str::from_utf8(message).ok().filter(|text| text.len() <= MESSAGE_OCTETS_MAX)
}
