//! A node's key pair, its self-signed certificate, and TLS configurations that accept any
//! certificate whose key signs the handshake: who it is is then decided by the pinned key alone
//! (dates and names are ignored: a wrong clock must not cut the link).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gatepost_protocol::pairing::{NodeKey, exchange};
use gatepost_protocol::tunnel::hello::ALPN;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, PeerMisbehaved,
    ServerConfig, SignatureScheme,
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
        server.alpn_protocols = vec![ALPN.to_vec(), exchange::ALPN.to_vec()];
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

    /// For dialling an edge to pair with: ALPN `gatepost-pair/1`, and an edge that shows another key than
    /// `edge` fails the handshake before anything of ours is sent, our certificate included.
    pub fn pairing_config(&self, edge: NodeKey) -> (Arc<ClientConfig>, Arc<Pinned>) {
        let mut client = ClientConfig::clone(&self.client);
        let algorithms = client.crypto_provider().signature_verification_algorithms;
        let pinned = Arc::new(Pinned { expected: edge, any: AnyKey(algorithms), found: OnceLock::new() });
        client.dangerous().set_certificate_verifier(Arc::clone(&pinned) as _);
        client.alpn_protocols = vec![exchange::ALPN.to_vec()];
        (Arc::new(client), pinned)
    }

    /// For accepting, the tunnel as well as pairing: the client must show a certificate.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

/// The key a node will change to, if one was made: it lies beside the key's file. Blocking.
pub fn next_key(path: &Path) -> Result<Option<NodeKey>, IdentityError> {
    let next = beside(path, "next");
    if read(&next)?.is_none() {
        return Ok(None);
    }
    Identity::load_or_create(&next).map(|identity| Some(identity.key()))
}

/// Makes the key a node will change to, or gives the one that was made. Blocking.
pub fn make_next_key(path: &Path) -> Result<NodeKey, IdentityError> {
    Identity::load_or_create(&beside(path, "next")).map(|identity| identity.key())
}

/// Makes the next key the node's key; the old one is kept under another name. `None` if there is no
/// next one. A program that runs goes on with the old one until it is started again. Blocking.
pub fn switch_key(path: &Path) -> Result<Option<NodeKey>, IdentityError> {
    let Some(key) = next_key(path)? else { return Ok(None) };
    if let Some(old) = read(path)? {
        durable::write_file(&beside(path, "old"), old.as_bytes())?;
    }
    durable::rename(&beside(path, "next"), path)?;
    durable::sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(Some(key))
}

/// `identity.pem` and `next`: `identity.next.pem`.
fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(format!("{what}.pem"))
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

/// Accepts one key.
#[derive(Debug)]
pub struct Pinned {
    expected: NodeKey,
    any: AnyKey,
    found: OnceLock<NodeKey>,
}

impl Pinned {
    /// The key that was found instead.
    pub fn stranger(&self) -> Option<NodeKey> {
        self.found.get().copied().filter(|found| *found != self.expected)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = NodeKey::of_spki(&ParsedCertificate::try_from(certificate)?.subject_public_key_info());
        let _ = self.found.set(found);
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
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
        self.any.signed(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.0.supported_schemes()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::{ClientConnection, HandshakeKind, ServerConnection};

    use super::*;

    type Handshake = (ClientConnection, ServerConnection);

    /// A handshake in memory.
    fn shaken(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Handshake, rustls::Error> {
        let name = ServerName::try_from("gatepost").expect("a name");
        let mut client = ClientConnection::new(client, name)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).expect("memory");
            }
            server.read_tls(&mut &flight[..]).expect("memory");
            server.process_new_packets()?;
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).expect("memory");
            }
            client.read_tls(&mut &flight[..]).expect("memory");
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tunnel.key");
        let made = Identity::load_or_create(&path).expect("made");
        let permissions = std::fs::metadata(&path).expect("there").permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
        assert_eq!(Identity::load_or_create(&path).expect("loaded").key(), made.key());
        let other = Identity::load_or_create(&directory.path().join("other.key")).expect("made");
        assert_ne!(other.key(), made.key());
    }

    #[test]
    fn the_next_key_is_made_once_and_takes_over_when_it_is_told_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("identity.pem");
        let old = Identity::load_or_create(&path).expect("made").key();
        assert_eq!(next_key(&path).expect("none"), None);
        assert_eq!(switch_key(&path).expect("nothing to do"), None);
        let next = make_next_key(&path).expect("made");
        assert_eq!(make_next_key(&path).expect("kept"), next);
        assert_eq!(next_key(&path).expect("one"), Some(next));
        assert_eq!(Identity::load_or_create(&path).expect("loaded").key(), old);
        assert_eq!(switch_key(&path).expect("switched"), Some(next));
        assert_eq!(Identity::load_or_create(&path).expect("loaded").key(), next);
        assert_eq!(next_key(&path).expect("none"), None);
        let kept = directory.path().join("identity.old.pem");
        assert_eq!(Identity::load_or_create(&kept).expect("kept").key(), old);
        assert_eq!(std::fs::metadata(&kept).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_holds_no_key_is_left_alone_and_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tunnel.key");
        for contents in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, contents).expect("written");
            let error = Identity::load_or_create(&path).expect_err("no key").to_string();
            assert!(error.starts_with(&format!("{} holds no usable key: ", path.display())), "{error}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), contents);
        }
    }

    #[test]
    fn each_side_sees_the_key_of_the_other() {
        let (home, edge) = (Identity::throwaway(), Identity::throwaway());
        for _ in 0..2 {
            let (client, server) = shaken(home.client_config(), edge.server_config()).expect("shaken");
            assert_eq!(peer_key(&client), Some(edge.key()));
            assert_eq!(peer_key(&server), Some(home.key()));
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            assert_eq!(client.alpn_protocol(), Some(ALPN));
            let group = client.negotiated_key_exchange_group().expect("one").name();
            assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
            // The second time too: nothing is resumed, so each handshake proves the keys.
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn who_pairs_shows_nothing_to_another_edge_than_the_codes() {
        let (home, edge) = (Identity::throwaway(), Identity::throwaway());
        let (config, pinned) = home.pairing_config(edge.key());
        let (client, server) = shaken(config, edge.server_config()).expect("shaken");
        assert_eq!(client.alpn_protocol(), Some(exchange::ALPN));
        assert_eq!((pinned.stranger(), peer_key(&server)), (None, Some(home.key())));

        let stranger = Identity::throwaway();
        let (config, pinned) = home.pairing_config(edge.key());
        let name = ServerName::try_from("gatepost").expect("a name");
        let mut client = ClientConnection::new(config, name).expect("a client");
        let mut server = ServerConnection::new(stranger.server_config()).expect("a server");
        let mut flight = Vec::new();
        client.write_tls(&mut flight).expect("memory");
        server.read_tls(&mut &flight[..]).expect("memory");
        server.process_new_packets().expect("a hello");
        let mut flight = Vec::new();
        server.write_tls(&mut flight).expect("memory");
        client.read_tls(&mut &flight[..]).expect("memory");
        client.process_new_packets().expect_err("another key");
        assert_eq!(pinned.stranger(), Some(stranger.key()));
        let mut flight = Vec::new();
        client.write_tls(&mut flight).expect("memory");
        server.read_tls(&mut &flight[..]).expect("memory");
        server.process_new_packets().expect_err("only an alert has come");
        assert_eq!(peer_key(&server), None, "it has not seen who dialled");
    }

    #[test]
    fn a_certificate_whose_key_did_not_sign_is_refused() {
        // The thief shows the home's certificate (which is public) and signs with a key of his own.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pairs = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"));
        let params = CertificateParams::new(vec!["gatepost".to_owned()]).expect("a name");
        let shown = params.self_signed(&pairs[0]).expect("a certificate").der().clone();
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pairs[1].serialize_der()));
        let signer = provider.key_provider.load_private_key(der).expect("a key");
        let forged = Arc::new(Forged(Arc::new(rustls::sign::CertifiedKey::new(vec![shown], signer))));
        let any = Arc::new(AnyKey(provider.signature_verification_algorithms));
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_client_cert_resolver(forged);
        client.alpn_protocols = vec![ALPN.to_vec()];
        let error = shaken(Arc::new(client), Identity::throwaway().server_config()).expect_err("forged");
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error:?}");
    }

    #[test]
    fn a_client_without_a_certificate_is_refused() {
        let identity = Identity::throwaway();
        let mut client = (*identity.client_config()).clone();
        client.client_auth_cert_resolver = Arc::new(Nothing);
        let error = shaken(Arc::new(client), identity.server_config()).expect_err("refused");
        assert_eq!(error, rustls::Error::NoCertificatesPresented);
    }

    #[derive(Debug)]
    struct Forged(Arc<rustls::sign::CertifiedKey>);

    impl rustls::client::ResolvesClientCert for Forged {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    #[derive(Debug)]
    struct Nothing;

    impl rustls::client::ResolvesClientCert for Nothing {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }

        fn has_certs(&self) -> bool {
            false
        }
    }
}
