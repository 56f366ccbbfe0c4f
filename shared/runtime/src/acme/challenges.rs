//! What a CA may ask us to prove right now, and the answers. Only what an order of ours waits for is ever answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::CertifiedKey;

/// The answers that are ready. Cheap to clone; the clones are one.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<Mutex<Ready>>);

#[derive(Debug, Default)]
struct Ready {
    /// http-01: by token.
    files: HashMap<String, String>,
    /// tls-alpn-01: by host name in lower case.
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// One answer; no longer given once this is dropped.
#[derive(Debug)]
pub struct Prepared {
    challenges: Challenges,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Token(String),
    Host(String),
}

impl Challenges {
    /// From now on `token` is answered so.
    pub fn answer_file(&self, token: String, authorization: String) -> Prepared {
        self.ready().files.insert(token.clone(), authorization);
        Prepared { challenges: self.clone(), key: Key::Token(token) }
    }

    /// From now on a TLS client that asks `host` for a proof is shown this.
    pub fn answer_handshake(&self, host: &str, certificate: Arc<CertifiedKey>) -> Prepared {
        let host = host.to_ascii_lowercase();
        self.ready().certificates.insert(host.clone(), certificate);
        Prepared { challenges: self.clone(), key: Key::Host(host) }
    }

    /// What is to be said to `GET /.well-known/acme-challenge/TOKEN`.
    pub fn file(&self, token: &str) -> Option<String> {
        self.ready().files.get(token).cloned()
    }

    /// What is to be shown to a client that asks `host` for a proof.
    pub fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.ready().certificates.get(&host.to_ascii_lowercase()).cloned()
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        // Each change is one insertion or one removal: nothing is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let mut ready = self.challenges.ready();
        match &self.key {
            Key::Token(token) => drop(ready.files.remove(token)),
            Key::Host(host) => drop(ready.certificates.remove(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_only_while_somebody_waits_for_it() {
        let challenges = Challenges::default();
        let prepared = challenges.answer_file("tok".to_owned(), "tok.thumb".to_owned());
        assert_eq!(challenges.clone().file("tok").as_deref(), Some("tok.thumb"));
        assert_eq!(challenges.file("other"), None);
        drop(prepared);
        assert_eq!(challenges.file("tok"), None);
    }
}
