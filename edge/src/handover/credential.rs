//! What a session keeps of a login, so that its mail can be sealed while the home is away: the
//! password or the SCRAM exchange, shown to the home again inside the seal. Only logins that the
//! directory has verifiers for come this far; the check costs thousands of hashes and runs off the
//! async threads, few at a time.

use std::fmt;
use std::sync::Arc;

use gatepost_protocol::mail::directory::{Directory, LoginVerifier};
use gatepost_protocol::sasl::{self, Transcript};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::verb::inbound::Credential;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;

use crate::homes::Home;

/// Passwords checked at once.
const CHECKS_MAX: usize = 2;

/// Bounds the checks of all sessions together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CheckGate(Arc<Semaphore>);

impl Default for CheckGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CHECKS_MAX)))
    }
}

/// What the client showed.
#[derive(Clone)]
pub enum Shown {
    /// By PLAIN or LOGIN.
    Password(Secret),
    /// By SCRAM.
    Scram {
        /// The whole exchange.
        transcript: Transcript,
        /// The channel binding of its TLS session.
        exporter: Option<[u8; 32]>,
    },
}

/// One login's proof.
pub struct Proof {
    home: Arc<Home>,
    login: String,
    shown: Shown,
    gate: CheckGate,
    // The directory version it was last checked against, and what came of it.
    checked: Mutex<Option<(u64, bool)>>,
}

impl Proof {
    /// Keeps what was shown; nothing is checked yet.
    pub fn new(home: Arc<Home>, login: String, shown: Shown, gate: CheckGate) -> Self {
        Self { home, login, shown, gate, checked: Mutex::new(None) }
    }

    /// What to seal in, if the directory as it is now has a verifier it fits.
    pub async fn credential(&self) -> Option<Credential> {
        let directory = self.home.directory()?;
        let mut checked = self.checked.lock().await;
        let fits = match *checked {
            Some((version, fits)) if version == directory.version => fits,
            _ => {
                let fits = self.check(verifier(&directory, &self.login)?.clone()).await;
                *checked = Some((directory.version, fits));
                fits
            }
        };
        fits.then(|| match &self.shown {
            Shown::Password(password) => {
                Credential::Password { login: self.login.clone(), password: password.expose().to_vec() }
            }
            Shown::Scram { transcript, exporter } => Credential::Scram {
                mechanism: transcript.mechanism.name().to_owned(),
                client_first: transcript.client_first.clone(),
                server_first: transcript.server_first.clone(),
                client_final: transcript.client_final.clone(),
                exporter: *exporter,
            },
        })
    }

    async fn check(&self, verifier: LoginVerifier) -> bool {
        match &self.shown {
            // A few hashes only: SCRAM leaves the costly part to the client.
            Shown::Scram { transcript, exporter } => {
                sasl::verify_transcript(transcript, &verifier, *exporter).is_some()
            }
            Shown::Password(password) => {
                let Ok(_permit) = self.gate.0.acquire().await else { return false };
                let password = password.clone();
                let check = move || sasl::check_password(password.expose(), &verifier).is_some();
                spawn_blocking(check).await.unwrap_or(false)
            }
        }
    }
}

/// What the directory can check this login by.
pub fn verifier<'a>(directory: &'a Directory, login: &str) -> Option<&'a LoginVerifier> {
    directory.verifiers.get(&login.to_lowercase()).filter(|verifier| !verifier.keys.is_empty())
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({})", self.login)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password([secret])",
            Self::Scram { .. } => "Scram([secret])",
        })
    }
}
