//! Whose certificate a client believes: anybody's where TLS is only better than nothing, else one
//! that the system's roots (or the given ones besides) vouch for.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use super::Dane;
use super::verify::{ByRecords, Finding, Telling};

/// For opportunistic TLS (RFC 7435): who can't prove a name is still spoken to in secret.
pub fn anybody() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(aws_lc_rs::default_provider());
        config(provider.clone(), Arc::new(Anybody(provider)))
    };
    CONFIG.get_or_init(make).clone()
}

/// For verified TLS. The system's roots are read at the first use and kept; with `roots` besides, they
/// are read each time.
pub fn vouched_for(roots: &[Vec<u8>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if roots.is_empty()
        && let Some(config) = CONFIG.get()
    {
        return Ok(config.clone());
    }
    let made = config(Arc::new(aws_lc_rs::default_provider()), platform(roots)?);
    Ok(if roots.is_empty() { CONFIG.get_or_init(|| made).clone() } else { made })
}

/// For verified TLS; what is wrong with a certificate is told to `finding` as well.
pub fn told(roots: &[Vec<u8>], finding: Finding) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(config(provider, Arc::new(Telling::new(platform(roots)?, finding, true))))
}

/// For TLS that need not be verified, while somebody wants to know whether it would be.
pub fn noted(roots: &[Vec<u8>], finding: Finding) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(config(provider, Arc::new(Telling::new(platform(roots)?, finding, false))))
}

/// For hosts whose domain says by TLSA records which certificates are theirs.
pub fn by_records(dane: &Arc<Dane>, finding: Finding) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let records = Arc::new(ByRecords::new(dane.clone(), provider.clone()));
    Ok(config(provider, Arc::new(Telling::new(records, finding, true))))
}

/// Whom the system's roots vouch for: read once and kept, without others besides.
fn platform(roots: &[Vec<u8>]) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    static SYSTEM: OnceLock<Arc<Verifier>> = OnceLock::new();
    if roots.is_empty()
        && let Some(verifier) = SYSTEM.get()
    {
        return Ok(verifier.clone());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let extra = roots.iter().map(|root| CertificateDer::from(root.clone()));
    let made = Arc::new(Verifier::new_with_extra_roots(extra, provider)?);
    Ok(if roots.is_empty() { SYSTEM.get_or_init(|| made).clone() } else { made })
}

fn config(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A host is seldom called twice within a ticket's life, and every one kept costs memory.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Believes any certificate, but checks that the other side holds its key.
struct Anybody(Arc<CryptoProvider>);

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
