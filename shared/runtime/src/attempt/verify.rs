//! Our own judgement of certificates: by TLSA records, and by others while what was wrong is told to whoever asks.

use std::fmt;
use std::sync::{Arc, OnceLock};

use gatepost_protocol::mail::dane::Certificate;
use gatepost_protocol::mail::transport::{Failure, FailureKind};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Dane;

/// Certificates of a chain that are looked at.
const CHAIN_MAX: usize = 16;

/// What was wrong with a certificate, once one was seen. Cheap to clone; the clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Finding(Arc<OnceLock<Failure>>);

impl Finding {
    /// What it was.
    pub fn get(&self) -> Option<&Failure> {
        self.0.get()
    }

    fn tell(&self, error: &Error) {
        // The first is the one that counts.
        let _ = self.0.set(failure(error));
    }
}

/// In the words of reports (RFC 8460 §4.3).
fn failure(error: &Error) -> Failure {
    let kind = match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => FailureKind::CertificateExpired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FailureKind::CertificateHostMismatch
            }
            CertificateError::ApplicationVerificationFailure => FailureKind::TlsaInvalid,
            _ => FailureKind::CertificateNotTrusted,
        },
        _ => FailureKind::ValidationFailure,
    };
    Failure { kind, reason: error.to_string() }
}

/// Judges as another does and tells what was wrong; what is wrong counts only if `strict`.
#[derive(Debug)]
pub(super) struct Telling {
    judge: Arc<dyn ServerCertVerifier>,
    finding: Finding,
    strict: bool,
}

impl Telling {
    pub(super) fn new(judge: Arc<dyn ServerCertVerifier>, finding: Finding, strict: bool) -> Self {
        Self { judge, finding, strict }
    }
}

impl ServerCertVerifier for Telling {
    fn verify_server_cert(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.verify_server_cert(host, others, name, ocsp, now).or_else(|error| {
            self.finding.tell(&error);
            if self.strict { Err(error) } else { Ok(ServerCertVerified::assertion()) }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// Judges by TLSA records (RFC 7672 §3).
pub(super) struct ByRecords {
    dane: Arc<Dane>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ByRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByRecords").field(&self.dane).finish()
    }
}

impl ByRecords {
    pub(super) fn new(dane: Arc<Dane>, provider: Arc<CryptoProvider>) -> Self {
        Self { dane, provider }
    }

    /// By certificates that the records name as vouching for others: one of the chain's, or one that stands in the DNS.
    fn by_authority(
        &self,
        host: &ParsedCertificate<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let named = &self.dane.named;
        let is_named = |der: &&CertificateDer<'_>| {
            let Ok(parsed) = ParsedCertificate::try_from(*der) else { return false };
            let public_key = parsed.subject_public_key_info();
            named.is_authority(Certificate { whole: der, public_key: public_key.as_ref() })
        };
        let sent = others.iter().filter(is_named).map(|der| der.clone().into_owned());
        let published = named.authorities().map(|der| CertificateDer::from(der.to_vec()));
        let mut anchors = RootCertStore::empty();
        anchors.add_parsable_certificates(sent.chain(published));
        if anchors.is_empty() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(host, &anchors, others, now, algorithms)?;
        let has_name = |name: &String| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(host, &name).is_ok())
        };
        if self.dane.names.iter().any(has_name) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

impl ServerCertVerifier for ByRecords {
    fn verify_server_cert(
        &self,
        host: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let others = others.get(..CHAIN_MAX).unwrap_or(others);
        let parsed = ParsedCertificate::try_from(host)?;
        let public_key = parsed.subject_public_key_info();
        let certificate = Certificate { whole: host, public_key: public_key.as_ref() };
        if !self.dane.named.is_host(certificate) {
            self.by_authority(&parsed, others, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
