//! A node's key pair, its self-signed certificate, and TLS configurations that accept any
//! certificate whose key signs the handshake: who it is is then decided by the pinned key alone
//! (dates and names are ignored: a wrong clock must not cut the link).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::ALPN;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::durable::{self, DurableError};

/// Largest key file that is read; a P-256 key has about 250 octets.
const KEY_FILE_OCTETS_MAX: u64 = 16 * 1024;

/// Why a node has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The key file can't be read or written.
    #[error(transparent)]
    File(#[from] DurableError),
    /// The key file holds something else.
    #[error("{path} holds no usable key: {why}; restore it from a backup, or remove it and pair again")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A node's key pair and certificate.
pub struct Identity {
    key: NodeKey,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.key)
    }
}

impl Identity {
    /// Loads the key (PKCS#8 PEM, 0600), or makes one (ECDSA P-256) on first start. Blocking.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let malformed = |why: String| IdentityError::Malformed { path: path.display().to_string(), why };
        let pair = if let Some(pem) = read(path)? {
            KeyPair::from_pem(&pem).map_err(|error| malformed(error.to_string()))?
        } else {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| malformed(error.to_string()))?;
            durable::write_file(path, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
            pair
        };
        Self::new(&pair).map_err(|error| malformed(error.to_string()))
    }

    /// An identity from a key pair, with a certificate made now.
    fn new(pair: &KeyPair) -> Result<Self, rustls::Error> {
        let unusable = |error: rcgen::Error| rustls::Error::General(error.to_string());
        let certificate = CertificateParams::new(vec!["gatepost".to_owned()])
            .and_then(|params| params.self_signed(pair))
            .map_err(unusable)?;
        let chain = vec![certificate.der().clone()];
        let private = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let any = Arc::new(AnyKey(provider.signature_verification_algorithms));

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&any) as _)
            .with_client_auth_cert(chain.clone(), private())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session shows no certificate; every handshake must.
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(any)
            .with_single_cert(chain, private())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let key = NodeKey::of_spki(&pair.subject_public_key_info());
        Ok(Self { key, client: Arc::new(client), server: Arc::new(server) })
    }

    /// A throwaway identity.
    #[cfg(test)]
    pub(crate) fn throwaway() -> Self {
        Self::new(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")).expect("an identity")
    }

    /// The public half.
    pub fn key(&self) -> NodeKey {
        self.key
    }

    /// For dialling: TLS 1.3 only, ALPN `gatepost/1`, our certificate, no resumption.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// For accepting: the same, and the client must show a certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

/// The key of the certificate a peer showed in a finished handshake. Read by the parser that also
/// checked the handshake's signature with it, so that the two can't disagree on which key that is.
pub fn peer_key(connection: &CommonState) -> Option<NodeKey> {
    let certificate = connection.peer_certificates()?.first()?;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(NodeKey::of_spki(&parsed.subject_public_key_info()))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, DurableError> {
    use std::io::Read as _;
    let failed = |source| DurableError { action: "read", path: PathBuf::from(path), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // Room for all of it at once: growing would leave copies of the key behind.
    let mut pem = Zeroizing::new(String::with_capacity(usize::try_from(KEY_FILE_OCTETS_MAX).unwrap_or(0)));
    file.take(KEY_FILE_OCTETS_MAX).read_to_string(&mut pem).map_err(failed)?;
    Ok(Some(pem))
}

/// Accepts any certificate; its key must sign the handshake all the same.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl AnyKey {
    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }
}

/// TLS 1.2 is never offered, so its signatures are never seen.
fn never_tls12() -> rustls::Error {
    PeerMisbehaved::SelectedUnofferedCipherSuite.into()
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
