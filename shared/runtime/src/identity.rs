//! A node's key pair, its self-signed certificate, and TLS configurations that accept any
//! certificate whose key signs the handshake: who it is is then decided by the pinned key alone
//! (dates and names are ignored: a wrong clock must not cut the link).

use std::path::Path;
use std::sync::Arc;

use gatepost_protocol::pairing::NodeKey;
use thiserror::Error;

use crate::durable::DurableError;

/// Why a node has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The key file can't be read or written.
    #[error(transparent)]
    File(#[from] DurableError),
    /// The key file holds something else.
    #[error("{path} holds no usable key: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A node's key pair and certificate.
pub struct Identity {
    _todo: (),
}

impl Identity {
    /// Loads the key (PKCS#8 PEM, 0600), or makes one (ECDSA P-256) on first start.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let _ = path;
        todo!()
    }

    /// The public half.
    pub fn key(&self) -> NodeKey {
        todo!()
    }

    /// For dialling: TLS 1.3 only, ALPN `gatepost/1`, our certificate, no resumption.
    pub fn client_config(&self) -> Arc<rustls::ClientConfig> {
        todo!()
    }

    /// For accepting: the same, and the client must show a certificate.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }
}

/// The key of the certificate a peer showed in a finished handshake.
pub fn peer_key(connection: &rustls::CommonState) -> Option<NodeKey> {
    let _ = connection;
    todo!()
}
