//! The client's side of a login, for smarthosts and tests.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::Mechanism;
use super::scram::{self, ServerFirst};
use crate::secret::Secret;

/// Most PBKDF2 rounds a server may make us do.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// What a server did wrong in a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SaslError {
    /// A challenge that does not belong there.
    #[error("the server's challenge is not what the mechanism says")]
    Malformed,
    /// More rounds than [`ITERATIONS_MAX`], or none.
    #[error("the server asks for too many rounds of key derivation")]
    TooCostly,
    /// The server could not prove that it knows the password.
    #[error("the server could not prove that it knows the password")]
    ServerNotProven,
    /// -PLUS without the TLS session's binding data.
    #[error("channel binding needs TLS 1.3")]
    NoBinding,
}

/// The client's side of one exchange.
pub struct ClientExchange {
    mechanism: Mechanism,
    login: String,
    password: Secret,
    gs2_header: &'static str,
    exporter: Option<[u8; 32]>,
    nonce: String,
    state: State,
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientExchange({})", self.mechanism)
    }
}

/// What comes next.
enum State {
    /// Nothing was sent.
    Start,
    /// LOGIN: the name was asked for and sent.
    LoginName,
    /// SCRAM: the first message was sent.
    First,
    /// SCRAM: the proof was sent; this signature must come.
    Final([u8; 32]),
    /// Everything was said.
    Done,
    /// The server did something wrong; it stays wrong.
    Failed,
}

impl ClientExchange {
    /// Begins. `plus_offered` is whether the server offers SCRAM-SHA-256-PLUS; `nonce` is 18 random bytes.
    pub fn new(
        mechanism: Mechanism,
        login: &str,
        password: Secret,
        exporter: Option<[u8; 32]>,
        plus_offered: bool,
        nonce: [u8; 18],
    ) -> Result<Self, SaslError> {
        let gs2_header = match (mechanism, exporter) {
            (Mechanism::ScramSha256Plus, Some(_)) => "p=tls-exporter,,",
            (Mechanism::ScramSha256Plus, None) => return Err(SaslError::NoBinding),
            (_, Some(_)) if !plus_offered => "y,,",
            _ => "n,,",
        };
        let login = login.to_owned();
        let nonce = BASE64.encode(nonce);
        Ok(Self { mechanism, login, password, gs2_header, exporter, nonce, state: State::Start })
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What to send with AUTH; LOGIN has nothing.
    pub fn initial(&mut self) -> Option<Secret> {
        match self.mechanism {
            Mechanism::Login => None,
            Mechanism::Plain => {
                self.state = State::Done;
                Some(Secret::new([b"\0", self.login.as_bytes(), b"\0", self.password.expose()].concat()))
            }
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                self.state = State::First;
                Some(Secret::new(format!("{}{}", self.gs2_header, self.first_bare()).into_bytes()))
            }
        }
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", scram::escape(&self.login), self.nonce)
    }

    /// The answer to a challenge. With SCRAM this costs a key derivation.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        match (std::mem::replace(&mut self.state, State::Failed), self.mechanism) {
            (State::Start, Mechanism::Login) => {
                self.state = State::LoginName;
                Ok(Secret::from(self.login.as_str()))
            }
            (State::LoginName, _) => {
                self.state = State::Done;
                Ok(self.password.clone())
            }
            (State::First, _) => self.prove(challenge),
            (State::Final(signature), _) => {
                if !bool::from(scram::server_final(&signature).ct_eq(challenge)) {
                    return Err(SaslError::ServerNotProven);
                }
                self.state = State::Done;
                Ok(Secret::default())
            }
            _ => Err(SaslError::Malformed),
        }
    }

    fn prove(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let server_first = ServerFirst::parse(challenge).ok_or(SaslError::Malformed)?;
        if server_first.nonce.len() <= self.nonce.len() || !server_first.nonce.starts_with(&self.nonce) {
            return Err(SaslError::Malformed);
        }
        if server_first.iterations > ITERATIONS_MAX {
            return Err(SaslError::TooCostly);
        }
        let salted = scram::salted_password(self.password.expose(), &server_first.salt, server_first.iterations);
        let client_key = scram::client_key(salted.expose());
        let exporter = self.exporter.filter(|_| self.mechanism == Mechanism::ScramSha256Plus);
        let binding = [self.gs2_header.as_bytes(), exporter.as_ref().map_or(&[], |data| &data[..])].concat();
        let without_proof = format!("c={},r={}", BASE64.encode(binding), server_first.nonce);
        let signed = scram::auth_message(self.first_bare().as_bytes(), &server_first.message, without_proof.as_bytes());
        let proof = scram::xor(&client_key, &scram::hmac(&scram::hash(&client_key), &signed));
        self.state = State::Final(scram::hmac(&scram::server_key(salted.expose()), &signed));
        Ok(Secret::new(format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()))
    }

    /// The server says the login succeeded: has it proven what it had to?
    pub fn finish(&self) -> Result<(), SaslError> {
        match self.state {
            State::Done => Ok(()),
            State::Start | State::LoginName => Err(SaslError::Malformed),
            State::First | State::Final(_) | State::Failed => Err(SaslError::ServerNotProven),
        }
    }
}
