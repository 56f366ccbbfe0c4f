//! The certificate a node serves on 25, 465 and 993: from files, or self-signed and loud about it.
//! Swapped without dropping a session.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

/// `[tls]` of a config: files of the owner's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// Why files can't be served.
#[derive(Debug, Error)]
#[error("{path}: {why}")]
pub struct CertificateError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// The certificate now served. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    _todo: (),
}

impl Served {
    /// From files; or self-signed for `hostname` where there are none.
    pub fn new(files: Option<&CertificateFiles>, hostname: &str) -> Result<Self, CertificateError> {
        let _ = (files, hostname);
        todo!()
    }

    /// True while a self-signed one is served.
    pub fn is_self_signed(&self) -> bool {
        todo!()
    }

    /// Reads the files again.
    pub fn reload(&self, files: Option<&CertificateFiles>, hostname: &str) -> Result<(), CertificateError> {
        let _ = (files, hostname);
        todo!()
    }

    /// TLS 1.2 and 1.3, X25519MLKEM768 preferred, this certificate.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }
}
