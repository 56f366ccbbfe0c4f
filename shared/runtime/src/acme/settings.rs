//! The `[acme]` table of both programs: which CA, for whom, proven how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::secret::Secret;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use crate::certificate::CertificateFiles;
use crate::config::{ConfigError, Placed, Source, Span};

/// The CA that is asked if none is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The first pause after a failure, if none is named: with it fewer than five orders fail in an hour, as that CA wants.
const RETRY: Duration = Duration::from_mins(5);
/// Shortest and longest first pause.
const RETRY_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(12));
/// How long the DNS must have shown a new key's record, if nothing else is set: twice as long as most remember one.
const ROLLOVER: Duration = Duration::from_hours(48);
/// Shortest and longest.
const ROLLOVER_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(30 * 24));
/// Further names in the certificate.
const NAMES_MAX: usize = 50;
/// Roots in a file.
const ROOTS_MAX: usize = 100;
/// Octets of the words a CA gives its customers.
const WORD_OCTETS_MAX: usize = 512;

/// `[acme]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAcme {
    email: Placed<String>,
    directory: Option<Placed<String>>,
    root: Option<Placed<PathBuf>>,
    #[serde(default)]
    names: Vec<Placed<String>>,
    challenge: Option<Placed<String>>,
    dns_hook: Option<Placed<PathBuf>>,
    profile: Option<Placed<String>>,
    external_account: Option<RawExternalAccount>,
    retry: Option<Placed<Span>>,
    #[serde(default)]
    rsa: bool,
    rollover: Option<Placed<Span>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExternalAccount {
    id: Placed<String>,
    secret: Placed<String>,
}

/// `[acme]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whom the CA may write to.
    pub email: Address,
    /// The CA's directory.
    pub directory: String,
    /// Roots (DER) that vouch for the directory besides the system's.
    pub roots: Vec<Vec<u8>>,
    /// Names in the certificate besides the host's own.
    pub names: Vec<Domain>,
    /// How it is proven that the names are ours.
    pub proof: Proof,
    /// The CA's profile, such as `shortlived`.
    pub profile: Option<String>,
    /// Who we are to a CA that wants to know its customers.
    pub external_account: Option<ExternalAccount>,
    /// The first pause after a failure; each further one is twice as long.
    pub retry: Duration,
    /// Whether there is one of RSA beside the usual certificate.
    pub rsa: bool,
    /// So long the DNS must have shown the record of a new key before it is used.
    pub rollover: Duration,
}

/// How it is proven that names are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a file on port 80 (RFC 8555 §8.3).
    Http,
    /// By a certificate on port 443 (RFC 8737).
    TlsAlpn,
    /// By a TXT record, which this program of the owner's puts into the DNS: it is called with `add` or `remove`,
    /// the record's name and its value (RFC 8555 §8.4).
    Dns(PathBuf),
}

impl Proof {
    /// As RFC 8555 and RFC 8737 register it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns(_) => "dns-01",
        }
    }
}

/// RFC 8555 §7.3.4.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's name.
    pub id: String,
    /// The key.
    pub key: Secret,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalAccount({})", self.id)
    }
}

impl Settings {
    /// Checks the table, if there is one. Reads the file of roots. `files` are those of `[tls]`, which exclude it;
    /// `alpn` is whether whoever asks has a port 443.
    pub fn check(
        raw: Option<&Placed<RawAcme>>,
        files: Option<&CertificateFiles>,
        alpn: bool,
        source: &Source,
    ) -> Result<Option<Self>, ConfigError> {
        match (raw, files) {
            (None, _) => Ok(None),
            (Some(raw), None) => Self::checked(raw.get_ref(), alpn, source).map(Some),
            (Some(raw), Some(_)) => Err(source.error(
                raw,
                "certificates come from a CA or from the files in [tls], not from both",
                "take out either of them",
            )),
        }
    }

    fn checked(raw: &RawAcme, alpn: bool, source: &Source) -> Result<Self, ConfigError> {
        let email = Address::parse(raw.email.get_ref())
            .map_err(|error| source.error(&raw.email, &error.to_string(), "an address the CA may write to"))?;
        let directory = match &raw.directory {
            None => LETS_ENCRYPT.to_owned(),
            Some(written) => directory(written, source)?,
        };
        let roots = raw.root.as_ref().map_or(Ok(Vec::new()), |written| roots(written, source))?;
        if let Some(one_too_many) = raw.names.get(NAMES_MAX) {
            return Err(source.error(one_too_many, "too many names for one certificate", "at most 50"));
        }
        let names = raw.names.iter().map(|written| {
            let name = Domain::parse(written.get_ref()).ok().filter(|name| name.literal().is_none());
            name.ok_or_else(|| source.error(written, "not a host name", "such as \"mail.example.net\""))
        });
        let external_account = raw.external_account.as_ref().map(|raw| raw.check(source)).transpose()?;
        let profile = raw.profile.as_ref().map(|written| word(written, source)).transpose()?;
        Ok(Self {
            email,
            directory,
            roots,
            names: names.collect::<Result<_, _>>()?,
            proof: raw.proof(alpn, source)?,
            profile,
            external_account,
            retry: retry(raw.retry.as_ref(), source)?,
            rsa: raw.rsa,
            rollover: rollover(raw.rollover.as_ref(), source)?,
        })
    }
}

impl RawAcme {
    fn proof(&self, alpn: bool, source: &Source) -> Result<Proof, ConfigError> {
        let choice = if alpn { "\"http-01\", \"tls-alpn-01\" or \"dns-01\"" } else { "\"http-01\" or \"dns-01\"" };
        let Some(written) = &self.challenge else {
            return match &self.dns_hook {
                None => Ok(Proof::Http),
                Some(hook) => Err(source.error(hook, "the hook is for dns-01", "add: challenge = \"dns-01\"")),
            };
        };
        match (written.get_ref().as_str(), &self.dns_hook) {
            ("dns-01", Some(hook)) if hook.get_ref().is_absolute() => Ok(Proof::Dns(hook.get_ref().clone())),
            ("dns-01", Some(hook)) => {
                Err(source.error(hook, "not a whole path", "such as \"/usr/local/bin/set-txt-record\""))
            }
            ("dns-01", None) => Err(source.error(
                written,
                "nobody puts its record into the DNS",
                "name the program with dns_hook = \"/…\"",
            )),
            (_, Some(hook)) => Err(source.error(hook, "the hook is for dns-01", "set challenge = \"dns-01\"")),
            ("http-01", None) => Ok(Proof::Http),
            ("tls-alpn-01", None) if alpn => Ok(Proof::TlsAlpn),
            (_, None) => Err(source.error(written, "not a challenge that can be answered here", choice)),
        }
    }
}

impl RawExternalAccount {
    fn check(&self, source: &Source) -> Result<ExternalAccount, ConfigError> {
        let written = self.secret.get_ref().trim_end_matches('=');
        let key = URL_SAFE_NO_PAD.decode(written).ok().filter(|key| !key.is_empty() && key.len() <= WORD_OCTETS_MAX);
        let key =
            key.ok_or_else(|| source.error(&self.secret, "not a key", "the HMAC key in base64url, as the CA gave it"))?;
        Ok(ExternalAccount { id: word(&self.id, source)?, key: Secret::new(key) })
    }
}

fn directory(written: &Placed<String>, source: &Source) -> Result<String, ConfigError> {
    let uri: Option<hyper::Uri> = written.get_ref().parse().ok();
    let host = uri.filter(|uri| uri.scheme_str() == Some("https")).and_then(|uri| uri.host().map(str::to_owned));
    match host {
        Some(host) if !host.is_empty() => Ok(written.get_ref().clone()),
        _ => Err(source.error(written, "not the address of an ACME directory", &format!("such as {LETS_ENCRYPT:?}"))),
    }
}

fn roots(written: &Placed<PathBuf>, source: &Source) -> Result<Vec<Vec<u8>>, ConfigError> {
    let wrong = |why: String| source.error(written, &why, "a PEM file with the root of the CA's own web server");
    let read = CertificateDer::pem_file_iter(written.get_ref())
        .map_err(|error| wrong(format!("can't be read: {error}")))?
        .take(ROOTS_MAX)
        .map(|root| root.map(|root| root.as_ref().to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("is no PEM file: {error}")))?;
    if read.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(read) }
}

fn word(written: &Placed<String>, source: &Source) -> Result<String, ConfigError> {
    let word = written.get_ref();
    let good = (1..=WORD_OCTETS_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(word.clone()) } else { Err(source.error(written, "not a word", "the CA's own, without blanks")) }
}

fn retry(written: Option<&Placed<Span>>, source: &Source) -> Result<Duration, ConfigError> {
    match written {
        None => Ok(RETRY),
        Some(written) if (RETRY_RANGE.0..=RETRY_RANGE.1).contains(&written.get_ref().0) => Ok(written.get_ref().0),
        Some(written) => Err(source.error(written, "out of range", "between \"1 s\" and \"12 h\"")),
    }
}

fn rollover(written: Option<&Placed<Span>>, source: &Source) -> Result<Duration, ConfigError> {
    match written {
        None => Ok(ROLLOVER),
        Some(written) if (ROLLOVER_RANGE.0..=ROLLOVER_RANGE.1).contains(&written.get_ref().0) => {
            Ok(written.get_ref().0)
        }
        Some(written) => Err(source.error(written, "out of range", "between \"1 s\" and \"30 d\"")),
    }
}
