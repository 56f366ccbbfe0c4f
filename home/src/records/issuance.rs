//! Who may issue certificates for our host names: CAA records that name the CA and our own account there (RFC 8659,
//! RFC 8657), so that not even somebody who holds the edge gets one for the home. They stand at each host's own name, and
//! leave everything else of the domain alone. Pure.

use serde_json::Value;

use super::{Making, State};

/// By which name a CA is known in CAA records, by the end of its directory's host name: as the CAs say of themselves.
const IDENTITIES: [(&str, &str); 5] = [
    ("letsencrypt.org", "letsencrypt.org"),
    ("zerossl.com", "sectigo.com"),
    ("buypass.com", "buypass.com"),
    ("pki.goog", "pki.goog"),
    ("ssl.com", "ssl.com"),
];

/// Whom a host asks for its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issuance {
    /// The CA's directory.
    pub directory: String,
    /// The account there, once there is one.
    pub account: Option<String>,
    /// How names are proven, such as `http-01`.
    pub proof: Option<String>,
}

impl Issuance {
    /// As a program's status tells it; `None` where no CA is asked.
    pub fn of_status(acme: &Value) -> Option<Self> {
        let text = |key: &str| acme[key].as_str().map(str::to_owned);
        Some(Self { directory: text("ca")?, account: text("account"), proof: text("proof") })
    }

    fn identity(&self) -> Option<&'static str> {
        let host = self.directory.split("://").nth(1)?.split(['/', ':']).next()?;
        let known = IDENTITIES
            .iter()
            .find(|(end, _)| host.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.')));
        known.map(|(_, identity)| *identity)
    }
}

/// The records of one host, whoever of several machines answers to its name.
pub(super) fn caa(making: &mut Making, host: &str, issuances: &[Issuance]) {
    if issuances.is_empty() {
        return making.later(host, "CAA", "it names an account at a CA, and none is asked: see [acme]");
    }
    for issuance in issuances {
        let Some(identity) = issuance.identity() else {
            let why =
                format!("by which name CAA records know the CA of {} is not known: ask the CA", issuance.directory);
            making.unknown(host, "CAA", &why);
            continue;
        };
        let Some(account) = &issuance.account else {
            making.unknown(host, "CAA", "the CA has no account for us yet: ask again once it has issued a certificate");
            continue;
        };
        let mut value = format!("0 issue \"{identity}; accounturi={account}");
        if let Some(proof) = &issuance.proof {
            value.push_str("; validationmethods=");
            value.push_str(proof);
        }
        value.push('"');
        let note = "nobody else may get a certificate for this name".to_owned();
        making.push(host, "CAA", Some(value), State::Publish, Some(note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuance(directory: &str) -> Issuance {
        Issuance { directory: directory.to_owned(), account: Some("https://ca/acct/1".to_owned()), proof: None }
    }

    #[test]
    fn a_ca_is_known_by_its_name_and_no_look_alike_is() {
        assert_eq!(issuance("https://acme-v02.api.letsencrypt.org/directory").identity(), Some("letsencrypt.org"));
        assert_eq!(issuance("https://dv.acme-v02.api.pki.goog/directory").identity(), Some("pki.goog"));
        for stranger in
            ["https://notletsencrypt.org/x", "https://letsencrypt.org.example/x", "https://127.0.0.1:14000/dir", ""]
        {
            assert_eq!(issuance(stranger).identity(), None, "{stranger}");
        }
    }
}
