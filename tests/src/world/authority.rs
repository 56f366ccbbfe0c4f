//! A private CA, made anew for each state directory, and the certificates it gives to edge, home and
//! every other server of a test. Clients trust its one certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A CA whose certificates are files below one directory.
pub struct Authority {
    directory: PathBuf,
    // None when the certificates of an earlier run are used again.
    issuer: Option<Issuer<'static, KeyPair>>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a CA in `directory`, or finds the one an earlier run made there.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
        let authority = Self { directory: directory.to_owned(), issuer: None };
        if authority.certificate().exists() {
            return Ok(authority);
        }
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Gatepost test CA");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2044, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(authority.certificate(), certificate.pem())?;
        Ok(Self { issuer: Some(Issuer::new(params, key)), ..authority })
    }

    /// The file clients trust (PEM).
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate for these names, which may be addresses. The first names the files.
    pub fn issue(&self, names: &[&str]) -> anyhow::Result<Issued> {
        self.issue_until(names, 2044)
    }

    /// The same, good until this year begins.
    pub fn issue_until(&self, names: &[&str], year: i32) -> anyhow::Result<Issued> {
        let first = names.first().context("a certificate needs a name")?;
        let files = Issued {
            certificate: self.directory.join(format!("{first}.pem")),
            key: self.directory.join(format!("{first}.key")),
        };
        let Some(issuer) = &self.issuer else {
            anyhow::ensure!(files.key.exists(), "{} has no certificate for {first}", self.directory.display());
            return Ok(files);
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, *first);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, issuer)?;
        fs::write(&files.certificate, leaf.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }
}

impl Issued {
    /// A TLS server with this certificate.
    pub fn server_config(&self) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&self.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

/// A TLS client that trusts this CA and nobody else.
pub fn client_config(ca: &Path) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
