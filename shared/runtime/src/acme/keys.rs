//! Keys of accounts and certificates, and what is signed with them: requests, and the certificate that proves a name
//! on port 443.

use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize,
};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::AcmeError;
use crate::certificate;

/// Kinds of keys of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// ECDSA with P-256.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

impl KeyKind {
    /// As people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA P-256",
            Self::Rsa => "RSA 2048",
        }
    }
}

/// A new key, PEM. One of RSA takes a moment.
pub(super) fn make(kind: KeyKind) -> Result<Zeroizing<String>, AcmeError> {
    let made = match kind {
        KeyKind::Ecdsa => KeyPair::generate(),
        KeyKind::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    };
    let made = made.map_err(|error| wrong(&error))?;
    Ok(Zeroizing::new(made.serialize_pem()))
}

/// The key alone, of a PEM text that holds more.
pub(super) fn of_pem(text: &str) -> Result<Zeroizing<String>, AcmeError> {
    let mut key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(&error))?;
    let written = pem(&key);
    key.zeroize();
    written
}

/// What a TLSA record says of this key (RFC 6698 §2.1: usage 3, selector 1, matching type 1).
pub(super) fn tlsa(key: &str) -> Result<String, AcmeError> {
    let key = KeyPair::from_pem(key).map_err(|error| wrong(&error))?;
    Ok(certificate::tlsa_of(&key.subject_public_key_info()))
}

/// PKCS#8 as PEM.
pub(super) fn pem(pkcs8: &PrivatePkcs8KeyDer<'_>) -> Result<Zeroizing<String>, AcmeError> {
    Ok(Zeroizing::new(KeyPair::try_from(pkcs8).map_err(|error| wrong(&error))?.serialize_pem()))
}

/// A request for a certificate for these names with this key, DER.
pub(super) fn request(names: &[String], key: &str) -> Result<Vec<u8>, AcmeError> {
    let key = KeyPair::from_pem(key).map_err(|error| wrong(&error))?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(|error| wrong(&error))?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(|error| wrong(&error))?;
    Ok(request.der().to_vec())
}

/// What is shown on port 443 to prove `name` (RFC 8737 §3). `digest` is of the key authorization.
pub(super) fn proof(name: &str, digest: &[u8; 32]) -> Result<Arc<CertifiedKey>, AcmeError> {
    let key = KeyPair::generate().map_err(|error| wrong(&error))?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| wrong(&error))?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let made = params.self_signed(&key).map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|error| wrong(&error))?;
    // Not by way of a check that they fit: it would stumble over the extension that is the proof.
    Ok(Arc::new(CertifiedKey::new(vec![made.der().clone()], key)))
}

fn wrong(error: &dyn std::fmt::Display) -> AcmeError {
    AcmeError::Key(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_among_certificates_and_stays_as_it_was() {
        for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
            stays_as_it_was(&make(kind).unwrap());
        }
    }

    fn stays_as_it_was(key: &Zeroizing<String>) {
        let chain = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap().cert.pem();
        for whole in [format!("{}{chain}", **key), format!("{chain}{}", **key)] {
            assert_eq!(&of_pem(&whole).unwrap(), key);
        }
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).unwrap();
        assert_eq!(&pem(&pkcs8).unwrap(), key);
        assert!(of_pem(&chain).is_err());
    }
}
