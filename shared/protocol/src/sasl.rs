//! SASL turns of the server and of the client: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 and
//! SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677, RFC 9266). Knows no account: verifiers are handed in.
//!
//! Names and passwords are UTF-8 as they come, control characters refused: the mapping and
//! normalisation of RFC 4013 are left out, as by most; what is typed the same way is the same.

mod client;
mod scram;

use std::fmt;

use aws_lc_rs::hmac;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

pub use self::client::{ClientExchange, ITERATIONS_MAX, SaslError};
use self::scram::{ClientFinal, ClientFirst, ServerFirst};
use crate::mail::directory::{LoginVerifier, ScramKeys};
use crate::secret::Secret;

/// Longest login name and longest password, in octets (RFC 4616 §2 asks for 255).
pub const CREDENTIAL_OCTETS_MAX: usize = 1024;

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
    mechanism: Mechanism,
    exporter: Option<[u8; 32]>,
    plus_offered: bool,
    nonce: [u8; 18],
    state: State,
}

/// What comes next.
#[derive(Debug)]
enum State {
    /// The client's first words.
    First,
    /// LOGIN: the password of this name.
    LoginPassword(String),
    /// SCRAM: the verifier of this name.
    Verifier(ClientFirst),
    /// SCRAM: the client's proof.
    Proof { first: ClientFirst, server_first: ServerFirst, verifier: LoginVerifier },
    /// Nothing.
    Over,
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
        Self { mechanism, exporter, plus_offered, nonce, state: State::First }
    }

    /// The client's initial response, or its absence.
    pub fn start(&mut self, initial: Option<&[u8]>) -> Turn {
        match (initial, self.mechanism) {
            (Some(initial), _) => self.response(initial),
            (None, Mechanism::Login) => Turn::Challenge(b"Username:".to_vec()),
            (None, _) => Turn::Challenge(Vec::new()),
        }
    }

    /// The client's answer to a challenge.
    pub fn response(&mut self, response: &[u8]) -> Turn {
        match (std::mem::replace(&mut self.state, State::Over), self.mechanism) {
            (State::First, Mechanism::Plain) => plain(response),
            (State::First, Mechanism::Login) => match credential(response) {
                Some(login) => {
                    self.state = State::LoginPassword(login.to_owned());
                    Turn::Challenge(b"Password:".to_vec())
                }
                None => Turn::Malformed,
            },
            (State::LoginPassword(login), _) => match credential(response) {
                Some(password) => Turn::Password { login, password: Secret::from(password) },
                None => Turn::Malformed,
            },
            (State::First, _) => self.client_first(response),
            (State::Proof { first, server_first, verifier }, _) => {
                self.client_final(&first, &server_first, &verifier, response)
            }
            (State::Verifier(_) | State::Over, _) => Turn::Malformed,
        }
    }

    fn client_first(&mut self, message: &[u8]) -> Turn {
        let Some(first) = ClientFirst::parse(message) else { return Turn::Malformed };
        if !first.fits(self.mechanism) || first.denies_plus() && self.plus_offered {
            return Turn::Refused;
        }
        let login = first.login.clone();
        self.state = State::Verifier(first);
        Turn::Verifier { login }
    }

    /// The answer to [`Turn::Verifier`].
    pub fn verifier(&mut self, verifier: LoginVerifier) -> Turn {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Verifier(first) => {
                let server_first = ServerFirst::new(&first.nonce, &self.nonce, &verifier.salt, verifier.iterations);
                let challenge = server_first.message.clone();
                self.state = State::Proof { first, server_first, verifier };
                Turn::Challenge(challenge)
            }
            _ => Turn::Malformed,
        }
    }

    fn client_final(
        &self,
        first: &ClientFirst,
        server_first: &ServerFirst,
        verifier: &LoginVerifier,
        message: &[u8],
    ) -> Turn {
        let Some(last) = ClientFinal::parse(message) else { return Turn::Malformed };
        match prove(self.mechanism, first, server_first, &last, verifier, self.exporter) {
            Some((key, signature)) => Turn::Proven {
                login: first.login.clone(),
                key,
                last: scram::server_final(&signature),
                transcript: Transcript {
                    mechanism: self.mechanism,
                    client_first: first.message.clone(),
                    server_first: server_first.message.clone(),
                    client_final: message.to_vec(),
                },
            },
            None => Turn::Refused,
        }
    }
}

/// Which key the proof fits, and the server's signature with it.
fn prove(
    mechanism: Mechanism,
    first: &ClientFirst,
    server_first: &ServerFirst,
    last: &ClientFinal,
    verifier: &LoginVerifier,
    exporter: Option<[u8; 32]>,
) -> Option<(usize, [u8; 32])> {
    let bound = match (mechanism, exporter) {
        (Mechanism::ScramSha256Plus, None) => return None,
        (Mechanism::ScramSha256Plus, Some(exporter)) => [first.gs2_header(), &exporter[..]].concat(),
        _ => first.gs2_header().to_vec(),
    };
    let binding_fits = last.channel_binding.ct_eq(&bound);
    let nonce_fits = last.nonce.as_bytes().ct_eq(server_first.nonce.as_bytes());
    let signed = scram::auth_message(first.bare(), &server_first.message, last.without_proof());
    // One round more than there are keys, so that a login without any takes as long as one with some.
    let mut found = u32::MAX;
    let mut count = 0;
    for (index, keys) in verifier.keys.iter().enumerate() {
        let fits = proof_fits(&keys.stored, &signed, &last.proof) & binding_fits & nonce_fits;
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        found.conditional_assign(&index, fits);
        count += 1;
    }
    if count == 0 {
        let _ = proof_fits(&[0; 32], &signed, &last.proof);
    }
    let key = usize::try_from(found).ok()?;
    let keys = verifier.keys.get(key)?;
    Some((key, scram::hmac(&keys.server, &signed)))
}

/// RFC 5802 §3: the hash of `ClientProof` XOR `ClientSignature` is StoredKey.
fn proof_fits(stored: &[u8; 32], signed: &[u8], proof: &[u8; 32]) -> Choice {
    let client_key = scram::xor(&scram::hmac(stored, signed), proof);
    scram::hash(&client_key).ct_eq(stored)
}

/// `authzid NUL authcid NUL passwd` (RFC 4616 §2). To act for another is not offered.
fn plain(message: &[u8]) -> Turn {
    let mut parts = message.split(|&b| b == 0);
    let (Some(acting_for), Some(login), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Turn::Malformed;
    };
    match (credential(login), credential(password)) {
        (Some(_), Some(_)) if !acting_for.is_empty() && acting_for != login => Turn::Refused,
        (Some(login), Some(password)) => Turn::Password { login: login.to_owned(), password: Secret::from(password) },
        _ => Turn::Malformed,
    }
}

/// A name or password: UTF-8, not empty, not endless, no control characters.
fn credential(octets: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.is_empty() && text.len() <= CREDENTIAL_OCTETS_MAX && !text.chars().any(char::is_control)).then_some(text)
}

/// Checks a recorded exchange against a verifier: which key does its proof fit? Also checks that
/// the channel binding data inside fit `exporter`. It proves that the client
/// knew the password, not when, nor for which message: whoever recorded it, and holds the verifier, could make
/// more of its kind. So what such a password may do must be no more than that holder may be trusted with.
pub fn verify_transcript(
    transcript: &Transcript,
    verifier: &LoginVerifier,
    exporter: Option<[u8; 32]>,
) -> Option<usize> {
    let first = ClientFirst::parse(&transcript.client_first)?;
    let server_first = ServerFirst::parse(&transcript.server_first)?;
    let last = ClientFinal::parse(&transcript.client_final)?;
    let consistent = first.fits(transcript.mechanism)
        && server_first.nonce.len() > first.nonce.len()
        && server_first.nonce.starts_with(&first.nonce)
        && server_first.salt == verifier.salt
        && server_first.iterations == verifier.iterations;
    if !consistent {
        return None;
    }
    prove(transcript.mechanism, &first, &server_first, &last, verifier, exporter).map(|(key, _)| key)
}

/// The login name inside a SCRAM client-first message.
pub fn transcript_login(transcript: &Transcript) -> Option<String> {
    ClientFirst::parse(&transcript.client_first).map(|first| first.login)
}

/// Derives the keys of a password (RFC 5802 §3). Costs `iterations` rounds: run it off the async threads.
pub fn derive_keys(password: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let salted = scram::salted_password(password, salt, iterations);
    let (client, server) = (scram::client_key(salted.expose()), scram::server_key(salted.expose()));
    ScramKeys { stored: scram::hash(&client), server }
}

/// Which of the verifier's keys is this password's, in constant time over all of them. Costs one
/// derivation: run it off the async threads.
pub fn check_password(password: &[u8], verifier: &LoginVerifier) -> Option<usize> {
    let derived = derive_keys(password, &verifier.salt, verifier.iterations);
    let mut found = u32::MAX;
    for (index, keys) in verifier.keys.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        found.conditional_assign(&index, keys.stored.ct_eq(&derived.stored));
    }
    usize::try_from(found).ok().filter(|&key| key < verifier.keys.len())
}

/// A verifier for a login that does not exist: always the same salt for the same name, no key, so
/// that nobody learns which logins exist.
pub fn fake_verifier(login: &str, secret: &[u8; 32], iterations: u32) -> LoginVerifier {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, login.to_lowercase().as_bytes());
    LoginVerifier { salt: tag.as_ref()[..16].to_vec(), iterations, keys: Vec::new() }
}

#[cfg(test)]
mod tests;
