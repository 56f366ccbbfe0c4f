//! Pairing over the wire: the home shows its key in TLS and proves the code's secret, the edge
//! proves it back and says what it has written down. One record each way. The secret itself never
//! travels: what does is bound to this very TLS session and to the side that says it.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// ALPN of pairing, beside the tunnel's on the same port.
pub const ALPN: &[u8] = b"gatepost-pair/1";
/// Label of the TLS exporter (RFC 8446 §7.5) that proofs are made over.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-gatepost-pairing";
/// Octets of it.
pub const EXPORTER_OCTETS: usize = 32;
/// Largest record either way, in octets.
pub const RECORD_OCTETS_MAX: usize = 32 * 1024;
/// Domains a home may ask for.
pub const DOMAINS_MAX: usize = 1000;
/// Keys a side may tell beside the one it shows: those it changes to.
pub const MORE_KEYS_MAX: usize = 2;

/// Octets of a proof.
pub const PROOF_OCTETS: usize = 32;

/// Which side proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The home, first.
    Home,
    /// The edge, in its answer.
    Edge,
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Home => b"gatepost pairing: home",
            Self::Edge => b"gatepost pairing: edge",
        }
    }
}

/// Proves to know the secret, in the TLS session of this exporter.
pub fn prove(secret: &Secret, side: Side, exporter: &[u8; EXPORTER_OCTETS]) -> [u8; PROOF_OCTETS] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let tag = hmac::sign(&key, &[side.label(), exporter].concat());
    let mut proof = [0; PROOF_OCTETS];
    proof.copy_from_slice(tag.as_ref());
    proof
}

/// Whether that side knows the secret. Takes the same time either way.
pub fn is_proven(secret: &Secret, side: Side, exporter: &[u8; EXPORTER_OCTETS], proof: &[u8; PROOF_OCTETS]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    hmac::verify(&key, &[side.label(), exporter].concat(), proof).is_ok()
}

/// What the home says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingRequest {
    /// Its proof.
    pub proof: [u8; PROOF_OCTETS],
    /// Software version, for people.
    pub software: String,
    /// Its name, for people; also what the edge may call it.
    pub node: String,
    /// Keys it will show later, beside the one it shows now.
    pub more_keys: Vec<[u8; 32]>,
    /// The domains it serves.
    pub domains: Vec<String>,
}

/// What the edge answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairingAnswer {
    /// Done: the edge has written the home down, and lets it in from now on.
    Paired(Paired),
    /// Not done, and why.
    Refused(PairingRefusal),
}

/// What the home has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The edge's proof.
    pub proof: [u8; PROOF_OCTETS],
    /// Software version, for people.
    pub software: String,
    /// The edge's host name.
    pub node: String,
    /// What the edge calls the home.
    pub home: String,
    /// Keys the edge will show later, beside the one it shows now.
    pub more_keys: Vec<[u8; 32]>,
    /// The edge knew this home already, and has replaced what it knew.
    pub again: bool,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairingRefusal {
    /// No code of the edge has this secret.
    Wrong,
    /// The code was used.
    Used,
    /// The code's hour is over.
    Expired,
    /// The code was given up after too many wrong ones.
    GivenUp,
    /// Another home of the edge has this domain.
    DomainTaken(String),
    /// The home stands in the edge's own config file, which only its owner changes: where.
    ByHand(String),
    /// The request makes no sense: what of it.
    Malformed(String),
    /// The edge could not do it: why, in its words.
    Failed(String),
}

impl PairingRefusal {
    /// Whether it is about the code, and so counts against the codes that are open.
    pub fn is_about_the_code(&self) -> bool {
        matches!(self, Self::Wrong | Self::Used | Self::Expired | Self::GivenUp)
    }
}

impl fmt::Display for PairingRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "ask for a new one: gatepost-edge pair";
        match self {
            Self::Wrong => write!(f, "the edge has no such code open; {again}"),
            Self::Used => write!(f, "this code was used already; {again}"),
            Self::Expired => write!(f, "this code has expired; {again}"),
            Self::GivenUp => write!(f, "this code was given up after too many wrong ones; {again}"),
            Self::DomainTaken(domain) => write!(f, "the domain {domain} belongs to another home of this edge"),
            Self::ByHand(place) => {
                write!(f, "this home stands in the edge's own config ({place}): list its keys and domains there")
            }
            Self::Malformed(what) => write!(f, "the edge can't take it: {what}"),
            Self::Failed(why) => write!(f, "the edge could not write it down: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_for_one_secret_one_side_and_one_session() {
        let (secret, other) = (Secret::new(vec![1; 16]), Secret::new(vec![2; 16]));
        let (session, next) = ([3; 32], [4; 32]);
        let proof = prove(&secret, Side::Home, &session);
        assert!(is_proven(&secret, Side::Home, &session, &proof));
        assert!(!is_proven(&other, Side::Home, &session, &proof));
        assert!(!is_proven(&secret, Side::Edge, &session, &proof), "it can't be sent back");
        assert!(!is_proven(&secret, Side::Home, &next, &proof), "nor be carried to another session");
        assert!(!is_proven(&secret, Side::Home, &session, &[0; 32]));
    }

    #[test]
    fn refusals_say_what_to_do() {
        for refusal in [PairingRefusal::Wrong, PairingRefusal::Used, PairingRefusal::Expired, PairingRefusal::GivenUp] {
            assert!(refusal.is_about_the_code());
            assert!(refusal.to_string().contains("gatepost-edge pair"), "{refusal}");
        }
        assert!(!PairingRefusal::DomainTaken("a.example".into()).is_about_the_code());
    }
}
