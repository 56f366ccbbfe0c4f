//! One key that signs mail: made here, kept in a file here, never told to anybody. Its public half is a DNS record.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_protocol::mail::signature::Algorithm;
use gatepost_runtime::durable;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::SigningError;

/// Largest key file that is read, in octets; an RSA key of 2048 bits has about 1700.
const FILE_OCTETS_MAX: u64 = 16 * 1024;
/// Characters of a line of PEM (RFC 7468 §2).
const PEM_COLUMNS: usize = 64;

/// A private key.
pub struct Key(Pair);

enum Pair {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, [secret])", self.algorithm().word())
    }
}

impl Key {
    /// Makes one (RSA: 2048 bits) and writes it to a file, 0600, durably. Blocking.
    pub fn make(algorithm: Algorithm, path: &Path) -> Result<Self, SigningError> {
        let failed = |_| SigningError::Crypto { what: "make a key" };
        let (pair, der) = match algorithm {
            Algorithm::RsaSha256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let der: Pkcs8V1Der<'static> = pair.as_der().map_err(failed)?;
                let bytes = Zeroizing::new(der.as_ref().to_vec());
                (Pair::Rsa(pair), bytes)
            }
            Algorithm::Ed25519Sha256 => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                // The first form of PKCS #8, which every tool reads.
                let bytes = Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec());
                (Pair::Ed25519(pair), bytes)
            }
        };
        durable::write_file(path, pem(&der).as_bytes())?;
        Ok(Self(pair))
    }

    /// Reads one. Blocking.
    pub fn load(algorithm: Algorithm, path: &Path) -> Result<Self, SigningError> {
        let unreadable = |source| SigningError::Read { path: path.to_owned(), source };
        // Room for all of it at once: growing would leave copies of the key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(FILE_OCTETS_MAX).unwrap_or(0)));
        let file = File::open(path).map_err(unreadable)?;
        file.take(FILE_OCTETS_MAX).read_to_end(&mut text).map_err(unreadable)?;
        let malformed = || SigningError::Malformed { path: path.to_owned() };
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| malformed())?;
        let pair = match algorithm {
            Algorithm::RsaSha256 => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map(Pair::Rsa),
            Algorithm::Ed25519Sha256 => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map(Pair::Ed25519)
            }
        };
        der.zeroize();
        pair.map(Self).map_err(|_| malformed())
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Signs as DKIM wants it.
    pub fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signed = match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &digest(&SHA256, input), &mut signature).map(|()| signature)
            }
            Pair::Ed25519(pair) => {
                pair.try_sign(digest(&SHA256, input).as_ref()).map(|signature| signature.as_ref().to_vec())
            }
        };
        signed.map_err(|Unspecified| SigningError::Crypto { what: "sign a message" })
    }

    /// The text of its DNS record (RFC 6376 §3.6.1, RFC 8463 §4).
    pub fn record(&self) -> Result<String, SigningError> {
        let failed = |_| SigningError::Crypto { what: "read the public half of a key" };
        Ok(match &self.0 {
            Pair::Rsa(pair) => {
                let public: PublicKeyX509Der<'static> = pair.public_key().as_der().map_err(failed)?;
                format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(public.as_ref()))
            }
            Pair::Ed25519(pair) => format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(pair.public_key().as_ref())),
        })
    }
}

/// PKCS #8 as text.
fn pem(der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / PEM_COLUMNS + 64));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_COLUMNS));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_the_same_after_it_was_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
            let path = folder.path().join("key.pem");
            let made = Key::make(algorithm, &path).expect("made");
            let permissions = std::fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(permissions & 0o777, 0o600);
            let loaded = Key::load(algorithm, &path).expect("loaded");
            assert_eq!(loaded.algorithm(), algorithm);
            assert_eq!(made.record().expect("public"), loaded.record().expect("public"));
            // Both algorithms are deterministic.
            assert_eq!(made.sign(b"x").expect("signed"), loaded.sign(b"x").expect("signed"));
            assert!(!format!("{made:?}").contains("p="));
        }
    }

    #[test]
    fn another_tool_reads_the_key_and_finds_the_same_public_half() {
        let folder = tempfile::tempdir().expect("a folder");
        for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
            let path = folder.path().join("key.pem");
            let record = Key::make(algorithm, &path).and_then(|key| key.record()).expect("made");
            let (_, public) = record.split_once("p=").expect("a key");
            let pkey = ["pkey", "-pubout", "-outform", "DER", "-in"];
            let output = std::process::Command::new("openssl").args(pkey).arg(&path).output().expect("openssl runs");
            // An Ed25519 record holds the 32 octets alone.
            let expected = STANDARD.decode(public).expect("base64");
            assert!(!expected.is_empty() && output.stdout.ends_with(&expected), "{output:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key.pem");
        let load = || Key::load(Algorithm::RsaSha256, &path).expect_err("no key").to_string();
        assert!(load().contains("can't read"), "{}", load());
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).expect("written");
            assert!(load().contains("holds no key"), "{}", load());
        }
        Key::make(Algorithm::Ed25519Sha256, &path).expect("made");
        assert!(load().contains("holds no key"), "of another kind: {}", load());
    }
}
