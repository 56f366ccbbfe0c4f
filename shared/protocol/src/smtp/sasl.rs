//! SASL turns of the server and of the client: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 and
//! SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 9266). Knows no account: verifiers are handed in.

use std::fmt;

use crate::mail::directory::{LoginVerifier, ScramKeys};
use crate::secret::Secret;

/// What we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old one every client knows.
    Login,
    /// RFC 7677.
    ScramSha256,
    /// RFC 7677 with channel binding.
    ScramSha256Plus,
}

impl Mechanism {
    /// By its registered name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login, Self::ScramSha256, Self::ScramSha256Plus]
            .into_iter()
            .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The server's side of one exchange, for any mechanism. Pure: look-ups are questions.
#[derive(Debug)]
pub struct Exchange {
    _todo: (),
}

/// What the exchange wants.
#[derive(Debug)]
pub enum Turn {
    /// Send this to the client (decoded; may be empty), then give its answer to [`Exchange::response`].
    Challenge(Vec<u8>),
    /// PLAIN or LOGIN: check this password (with [`check_password`] or otherwise), then it is over.
    Password {
        /// Login name.
        login: String,
        /// As typed.
        password: Secret,
    },
    /// SCRAM: look the verifier up (or [`fake_verifier`] for a login that does not exist), then
    /// call [`Exchange::verifier`].
    Verifier {
        /// Login name.
        login: String,
    },
    /// SCRAM: the proof fits one of the verifier's keys.
    Proven {
        /// Login name.
        login: String,
        /// Which of [`LoginVerifier::keys`] it fits.
        key: usize,
        /// The server's signature, for the client (RFC 4954: as a last challenge, or with success).
        last: Vec<u8>,
        /// The exchange, for whoever has to check it again.
        transcript: Transcript,
    },
    /// Wrong password, wrong channel binding, or a downgrade.
    Refused,
    /// Not what the mechanism says.
    Malformed,
}

/// A whole SCRAM exchange.
#[derive(Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The mechanism used.
    pub mechanism: Mechanism,
    /// As the client sent it.
    pub client_first: Vec<u8>,
    /// As the server answered.
    pub server_first: Vec<u8>,
    /// As the client sent it.
    pub client_final: Vec<u8>,
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transcript({})", self.mechanism)
    }
}

impl Exchange {
    /// Begins. `exporter` is the TLS session's channel binding; `plus_offered` is whether -PLUS
    /// was advertised (a client that says it saw no -PLUS is then refused: a downgrade).
    /// `nonce` is 18 random bytes.
    pub fn new(mechanism: Mechanism, exporter: Option<[u8; 32]>, plus_offered: bool, nonce: [u8; 18]) -> Self {
        let _ = (mechanism, exporter, plus_offered, nonce);
        todo!()
    }

    /// The client's initial response, or its absence.
    pub fn start(&mut self, initial: Option<&[u8]>) -> Turn {
        let _ = initial;
        todo!()
    }

    /// The client's answer to a challenge.
    pub fn response(&mut self, response: &[u8]) -> Turn {
        let _ = response;
        todo!()
    }

    /// The answer to [`Turn::Verifier`].
    pub fn verifier(&mut self, verifier: LoginVerifier) -> Turn {
        let _ = verifier;
        todo!()
    }
}

/// Checks a recorded exchange against a verifier: which key does its proof fit? Also checks that
/// the channel binding data inside fit `exporter`.
pub fn verify_transcript(
    transcript: &Transcript,
    verifier: &LoginVerifier,
    exporter: Option<[u8; 32]>,
) -> Option<usize> {
    let _ = (transcript, verifier, exporter);
    todo!()
}

/// The login name inside a SCRAM client-first message.
pub fn transcript_login(transcript: &Transcript) -> Option<String> {
    let _ = transcript;
    todo!()
}

/// Derives the keys of a password (RFC 5802 §3). Costs `iterations` rounds: run it off the async threads.
pub fn derive_keys(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let _ = (password, salt, iterations);
    todo!()
}

/// Which of the verifier's keys is this password's, in constant time over all of them. Costs one
/// derivation: run it off the async threads.
pub fn check_password(password: &[u8], verifier: &LoginVerifier) -> Option<usize> {
    let _ = (password, verifier);
    todo!()
}

/// A verifier for a login that does not exist: always the same salt for the same name, no key, so
/// that nobody learns which logins exist.
pub fn fake_verifier(login: &str, secret: &[u8; 32], iterations: u32) -> LoginVerifier {
    let _ = (login, secret, iterations);
    todo!()
}
