//! The certificate a node serves on 25, 465 and 993: from files, by ACME, or self-signed and loud about it.
//! Swapped without dropping a session. One of RSA may stand beside it, for clients that know nothing newer.

pub mod watched;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::aws_lc_rs::digest::{SHA256, digest};
use arc_swap::{ArcSwap, ArcSwapOption};
use gatepost_protocol::renewal::Life;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::clock::rfc3339;

/// Most certificates in a chain.
const CHAIN_MAX: usize = 16;
/// Session tickets sent after a full TLS 1.3 handshake.
const TICKETS: usize = 1;

/// `[tls]` of a config: files of the owner's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    /// What is wrong, and what helps.
    pub why: String,
}

/// The certificate now served, and those of further names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Served {
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

/// What every handshake asks.
#[derive(Debug)]
struct Current {
    main: ArcSwap<Loaded>,
    rsa: ArcSwapOption<Loaded>,
    /// By name in lower case; for who asks for it by SNI.
    names: ArcSwap<BTreeMap<String, Loaded>>,
}

/// Which of the certificates a node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that every client is shown that asks for no other and can read it.
    Main,
    /// The one of RSA beside it.
    Rsa,
    /// That of a further name, in lower case, for who asks for it.
    Name(String),
}

/// A certificate that was read and can be served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Loaded {
    certified: Arc<CertifiedKey>,
    self_signed: bool,
    // Of ours there is none: it is made anew at each start.
    life: Option<Life>,
}

impl Loaded {
    /// A private key and a chain, leaf first, in one PEM text. `name` is what an error calls it.
    pub fn of_pem(pem: &str, name: &str) -> Result<Self, CertificateError> {
        let wrong = |why: String| CertificateError { path: name.to_owned(), why };
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .take(CHAIN_MAX)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(pem_trouble(&error)))?;
        if chain.is_empty() {
            return Err(wrong("it holds no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(pem_trouble(&error)))?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| wrong(format!("can't be served: {error}")))?;
        let life = certified.cert.first().and_then(life_of);
        Ok(Self { certified: Arc::new(certified), self_signed: false, life })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// From when to when it is good; `None` for one that is self-signed, or that can't be read so far.
    pub fn life(&self) -> Option<Life> {
        self.life
    }

    /// The first of the chain.
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.certified.cert.first()
    }

    /// What a TLSA record says of its key (RFC 6698); none of one that is self-signed, whose key goes with the program.
    pub fn tlsa(&self) -> Option<String> {
        let (_, leaf) = X509Certificate::from_der(self.leaf().filter(|_| !self.self_signed)?).ok()?;
        Some(tlsa_of(leaf.public_key().raw))
    }

    /// True if it is good for each of these names.
    pub fn covers(&self, names: &[String]) -> bool {
        let Some((_, leaf)) = self.leaf().and_then(|leaf| X509Certificate::from_der(leaf).ok()) else { return false };
        let Ok(Some(written)) = leaf.subject_alternative_name() else { return false };
        names.iter().all(|name| {
            written.value.general_names.iter().any(|written| match written {
                GeneralName::DNSName(written) => written.eq_ignore_ascii_case(name),
                _ => false,
            })
        })
    }

    /// True if it is the first of that chain, PEM.
    pub fn is_leaf_of(&self, chain: &str) -> bool {
        CertificateDer::from_pem_slice(chain.as_bytes()).is_ok_and(|leaf| Some(&leaf) == self.leaf())
    }
}

impl Served {
    /// What is `kept` of a CA's; else from files; or self-signed for `hostname` where there are none.
    pub fn new(
        files: Option<&CertificateFiles>,
        hostname: &str,
        kept: Option<Loaded>,
    ) -> Result<Self, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let first = kept.map_or_else(|| load(files, hostname, &provider), Ok)?;
        let (main, rsa, names) = (ArcSwap::from_pointee(first), ArcSwapOption::empty(), ArcSwap::default());
        let current = Arc::new(Current { main, rsa, names });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        // Sessions are resumed by tickets alone: nothing is kept here. Their keys turn by themselves, every six hours,
        // and the one before is good for as long again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| internal(hostname, &error))?;
        config.send_tls13_tickets = TICKETS;
        Ok(Self { current, config: Arc::new(config) })
    }

    /// True while a self-signed one is served.
    pub fn is_self_signed(&self) -> bool {
        self.current.main.load().self_signed
    }

    /// True if this is what is served there.
    pub fn is_serving(&self, place: &Place, loaded: &Loaded) -> bool {
        match place {
            Place::Name(name) => self.current.names.load().get(name).is_some_and(|current| current.is_same(loaded)),
            Place::Main => self.current.main.load().is_same(loaded),
            Place::Rsa => self.current.rsa.load().as_ref().is_some_and(|current| current.is_same(loaded)),
        }
    }

    /// From when to when the one from files or of a CA is good; `None` while a self-signed one is served.
    pub fn life(&self) -> Option<Life> {
        self.current.main.load().life
    }

    /// Until when it is good, seconds since 1970.
    pub fn ends_unix_s(&self) -> Option<i64> {
        self.life().map(|life| life.ends)
    }

    /// The same for `status`: when, and in how many whole days from `now_unix_s`; below zero once it has ended.
    pub fn end_json(&self, now_unix_s: i64) -> Value {
        self.ends_unix_s().map_or(
            Value::Null,
            |ends| json!({ "at": rfc3339(ends), "days_left": ends.saturating_sub(now_unix_s).div_euclid(24 * 3600) }),
        )
    }

    /// Reads files without serving them yet; `None` if what they hold is served already, or would be self-signed as
    /// what is served is.
    pub fn read(&self, files: Option<&CertificateFiles>, hostname: &str) -> Result<Option<Loaded>, CertificateError> {
        let current = self.current.main.load();
        if files.is_none() && current.self_signed {
            return Ok(None);
        }
        let loaded = load(files, hostname, self.config.crypto_provider())?;
        let same = loaded.is_same(&current) && !current.self_signed;
        Ok((!same || files.is_none()).then_some(loaded))
    }

    /// What TLSA records say of the keys that are served.
    pub fn tlsa(&self) -> Vec<String> {
        let rsa = self.current.rsa.load().as_ref().and_then(|rsa| rsa.tlsa());
        self.current.main.load().tlsa().into_iter().chain(rsa).collect()
    }

    /// Serves this from the next handshake on; sessions that are open go on.
    pub fn serve(&self, loaded: Loaded) {
        self.current.main.store(Arc::new(loaded));
    }

    /// The same for any.
    pub fn serve_at(&self, place: &Place, loaded: Loaded) {
        match place {
            Place::Main => self.serve(loaded),
            Place::Rsa => self.serve_rsa(Some(loaded)),
            Place::Name(name) => {
                self.current.names.rcu(|names| {
                    let mut names = BTreeMap::clone(names);
                    names.insert(name.clone(), loaded.clone());
                    names
                });
            }
        }
    }

    /// Who asks for this name gets the host's own again.
    pub fn forget(&self, name: &str) {
        let name = name.to_ascii_lowercase();
        self.current.names.rcu(|names| {
            let mut names = BTreeMap::clone(names);
            names.remove(&name);
            names
        });
    }

    /// Until when the certificate of this name is good, seconds since 1970; `None` if it has none of its own.
    pub fn ends_of(&self, name: &str) -> Option<i64> {
        self.current.names.load().get(name)?.life.map(|life| life.ends)
    }

    /// The same for the one of RSA beside it; `None`: there is none any more.
    pub fn serve_rsa(&self, loaded: Option<Loaded>) {
        self.current.rsa.store(loaded.map(Arc::new));
    }

    /// TLS 1.2 and 1.3, X25519MLKEM768 preferred, this certificate. It stays good over a reload.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Many senders of mail ask for no name, or for one of another host: they get ours.
        let names = self.names.load();
        let own =
            hello.server_name().filter(|_| !names.is_empty()).and_then(|name| names.get(&name.to_ascii_lowercase()));
        if let Some(own) = own {
            return Some(own.certified.clone());
        }
        let main = self.main.load();
        if main.certified.key.choose_scheme(hello.signature_schemes()).is_none()
            && let Some(rsa) = self.rsa.load().as_ref()
        {
            return Some(rsa.certified.clone());
        }
        Some(main.certified.clone())
    }
}

fn load(
    files: Option<&CertificateFiles>,
    hostname: &str,
    provider: &CryptoProvider,
) -> Result<Loaded, CertificateError> {
    let certified = match files {
        Some(files) => from_files(files, provider)?,
        None => self_signed(hostname, provider)?,
    };
    if files.is_none() {
        tracing::warn!(
            hostname,
            "serving a self-signed certificate: mail programs will warn or refuse; have a CA issue one with acme = {{ email = … }}, or name files with tls = {{ certificate = …, key = … }}"
        );
    }
    let life = files.and_then(|_| life_of(certified.cert.first()?));
    Ok(Loaded { certified: Arc::new(certified), self_signed: files.is_none(), life })
}

fn from_files(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let wrong = |path: &Path, why: String| CertificateError { path: path.display().to_string(), why };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .map_err(|error| wrong(&files.certificate, pem_trouble(&error)))?
        .take(CHAIN_MAX)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&files.certificate, pem_trouble(&error)))?;
    if chain.is_empty() {
        return Err(wrong(&files.certificate, "it holds no certificate; a PEM chain is wanted, leaf first".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, pem_trouble(&error)))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong(&files.key, format!("this key does not belong to the certificate in {}", files.certificate.display()))
        }
        error => wrong(&files.certificate, format!("can't be served: {error}")),
    })
}

/// What a TLSA record says of a key, given as SubjectPublicKeyInfo: the host's own, by its SHA-256 (RFC 6698 §2.1).
pub(crate) fn tlsa_of(key: &[u8]) -> String {
    let hash = digest(&SHA256, key);
    hash.as_ref().iter().fold("3 1 1 ".to_owned(), |mut text, octet| {
        // Writing to a string can't fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// From when to when a certificate is good. One that can't be read so far is served all the same: clients judge it.
fn life_of(leaf: &CertificateDer<'_>) -> Option<Life> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let validity = parsed.validity();
    Some(Life { begins: validity.not_before.timestamp(), ends: validity.not_after.timestamp() })
}

fn pem_trouble(error: &rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(error) => format!("can't be read: {error}"),
        rustls_pki_types::pem::Error::NoItemsFound => "it holds no private key in PEM form".to_owned(),
        error => format!("is no PEM file: {error}"),
    }
}

fn self_signed(hostname: &str, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let made =
        rcgen::generate_simple_self_signed(vec![hostname.to_owned()]).map_err(|error| internal(hostname, &error))?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    CertifiedKey::from_der(vec![made.cert.der().clone()], key, provider).map_err(|error| internal(hostname, &error))
}

fn internal(hostname: &str, error: &dyn std::fmt::Display) -> CertificateError {
    CertificateError { path: format!("self-signed certificate for {hostname}"), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
    use rustls_pki_types::ServerName;

    use super::*;

    /// A key seals tickets for half of it, in seconds.
    const TICKET_LIFE_S: u32 = 12 * 3600;

    struct Made {
        directory: tempfile::TempDir,
        files: CertificateFiles,
    }

    fn files(name: &str) -> Made {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files =
            CertificateFiles { certificate: directory.path().join("chain.pem"), key: directory.path().join("key.pem") };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        Made { directory, files }
    }

    fn reload(served: &Served, files: &CertificateFiles) -> Result<bool, CertificateError> {
        let loaded = served.read(Some(files), "mail.example.org")?;
        let fresh = loaded.is_some();
        if let Some(loaded) = loaded {
            served.serve(loaded);
        }
        Ok(fresh)
    }

    /// Shakes hands; true if the client believes that it speaks with `name`. Gives the server's tickets too.
    fn believed(served: &Served, made: &Made, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&made.files.certificate).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut near = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut far = ServerConnection::new(served.server_config()).unwrap();
        let mut wire = Vec::new();
        while near.is_handshaking() || far.is_handshaking() {
            while near.wants_write() {
                near.write_tls(&mut wire).unwrap();
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                far.read_tls(&mut rest).unwrap();
                far.process_new_packets().unwrap();
            }
            wire.clear();
            while far.wants_write() {
                far.write_tls(&mut wire).unwrap();
            }
            let mut rest = &wire[..];
            while !rest.is_empty() {
                near.read_tls(&mut rest).unwrap();
                if near.process_new_packets().is_err() {
                    return false;
                }
            }
            wire.clear();
        }
        let group = far.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
        true
    }

    #[test]
    fn a_reload_serves_the_new_certificate_to_the_next_handshake() {
        let (old, new) = (files("mail.example.org"), files("mail.example.org"));
        let served = Served::new(Some(&old.files), "mail.example.org", None).unwrap();
        assert!(!served.is_self_signed());
        assert!(believed(&served, &old, "mail.example.org"));
        assert!(!believed(&served, &new, "mail.example.org"));
        reload(&served, &new.files).unwrap();
        assert!(believed(&served, &new, "mail.example.org"));
        assert!(!believed(&served, &old, "mail.example.org"));
    }

    #[test]
    fn who_asks_for_a_further_name_gets_its_certificate_and_everybody_else_the_hosts() {
        let (host, further) = (files("mail.example.org"), files("mta-sts.example.org"));
        let served = Served::new(Some(&host.files), "mail.example.org", None).unwrap();
        let read = |made: &Made| {
            let text = |path: &Path| fs::read_to_string(path).unwrap();
            Loaded::of_pem(&[text(&made.files.key), text(&made.files.certificate)].concat(), "made").unwrap()
        };
        let loaded = read(&further);
        let place = Place::Name("mta-sts.example.org".to_owned());
        served.serve_at(&place, loaded.clone());
        assert!(believed(&served, &further, "mta-sts.example.org"));
        assert!(believed(&served, &host, "mail.example.org"));
        assert!(!believed(&served, &further, "autoconfig.example.org"));
        assert!(served.is_serving(&place, &loaded) && !served.is_serving(&Place::Main, &loaded));
        served.forget("mta-sts.example.org");
        assert!(!believed(&served, &further, "mta-sts.example.org"));
    }

    #[test]
    fn tickets_are_good_for_twelve_hours_and_each_program_seals_its_own() {
        let made = files("mail.example.org");
        let config = Served::new(Some(&made.files), "mail.example.org", None).unwrap().server_config();
        assert!(config.ticketer.enabled());
        assert_eq!(config.ticketer.lifetime(), TICKET_LIFE_S);
        let sealed = config.ticketer.encrypt(b"a session").unwrap();
        assert_eq!(config.ticketer.decrypt(&sealed).as_deref(), Some(&b"a session"[..]));
        // Each program has its own.
        let other = Served::new(Some(&made.files), "mail.example.org", None).unwrap().server_config();
        assert_eq!(other.ticketer.decrypt(&sealed), None);
    }

    #[test]
    fn a_bad_reload_changes_nothing() {
        let good = files("mail.example.org");
        let served = Served::new(Some(&good.files), "mail.example.org", None).unwrap();
        let bad = CertificateFiles { key: good.directory.path().join("missing.pem"), ..good.files.clone() };
        let error = reload(&served, &bad).unwrap_err().to_string();
        assert!(error.contains("missing.pem: can't be read: No such file"), "{error}");
        assert!(believed(&served, &good, "mail.example.org"));
    }

    #[test]
    fn without_files_it_is_self_signed_and_says_so() {
        let served = Served::new(None, "mail.example.org", None).unwrap();
        assert!(served.is_self_signed());
        let real = files("mail.example.org");
        reload(&served, &real.files).unwrap();
        assert!(!served.is_self_signed());
    }

    #[test]
    fn it_is_known_until_when_it_is_good() {
        let made = files("mail.example.org");
        let mut params = rcgen::CertificateParams::new(vec!["mail.example.org".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(&made.files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&made.files.key, key.serialize_pem()).unwrap();
        let served = Served::new(Some(&made.files), "mail.example.org", None).unwrap();
        let end = 1_798_761_600;
        assert_eq!(served.ends_unix_s(), Some(end));
        let day = 24 * 3600;
        for (now, days_left) in [(end - 3 * day, 3), (end - 3 * day + 1, 2), (end - 1, 0), (end, 0), (end + 1, -1)] {
            assert_eq!(served.end_json(now), json!({ "at": "2027-01-01T00:00:00Z", "days_left": days_left }), "{now}");
        }
        assert_eq!(Served::new(None, "mail.example.org", None).unwrap().end_json(0), Value::Null);
    }

    #[test]
    fn each_way_to_be_wrong_is_told() {
        let (one, other) = (files("a.example.org"), files("b.example.org"));
        let told = |files: &CertificateFiles| Served::new(Some(files), "a.example.org", None).unwrap_err().to_string();
        let mixed = CertificateFiles { key: other.files.key.clone(), ..one.files.clone() };
        assert!(told(&mixed).contains("this key does not belong to the certificate in"), "{}", told(&mixed));
        let swapped = CertificateFiles { certificate: one.files.key.clone(), key: one.files.certificate.clone() };
        assert!(told(&swapped).contains("it holds no certificate"), "{}", told(&swapped));
        let no_key = CertificateFiles { key: one.files.certificate.clone(), ..one.files.clone() };
        assert!(told(&no_key).contains("it holds no private key"), "{}", told(&no_key));
        fs::write(&one.files.certificate, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(told(&one.files).contains("is no PEM file"), "{}", told(&one.files));
    }
}
