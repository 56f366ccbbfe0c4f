//! Keys of accounts and certificates, and what is signed with them: requests, and the certificate that proves a name
//! on port 443.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::AcmeError;

/// Characters of a line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// A new ECDSA P-256 key, PEM.
pub(super) fn make() -> Result<Zeroizing<String>, AcmeError> {
    let made = KeyPair::generate().map_err(|error| wrong(&error))?;
    Ok(Zeroizing::new(made.serialize_pem()))
}

/// The key alone, of a PEM text that holds more.
pub(super) fn of_pem(text: &str) -> Result<Zeroizing<String>, AcmeError> {
    let mut key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(&error))?;
    let written = pem(key.secret_pkcs8_der());
    key.zeroize();
    Ok(written)
}

/// PKCS#8 as PEM.
pub(super) fn pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(pkcs8));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / PEM_LINE + 64));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (at, character) in body.chars().enumerate() {
        pem.push(character);
        if (at + 1).is_multiple_of(PEM_LINE) {
            pem.push('\n');
        }
    }
    if !body.len().is_multiple_of(PEM_LINE) {
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
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
    fn pem_is_read_back() {
        for length in [1, 47, 48, 49, 138] {
            let key = vec![7; length];
            let read = PrivatePkcs8KeyDer::from_pem_slice(pem(&key).as_bytes()).unwrap();
            assert_eq!(read.secret_pkcs8_der(), key);
        }
    }
}
