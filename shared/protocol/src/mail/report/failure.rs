//! Reports of single messages (ARF, RFC 5965): mail that failed in a domain's name (RFC 6591), or that somebody did not
//! want. Only what tells about the way it came is taken: of the message itself nothing but who it is from.

use std::net::IpAddr;

use super::parts::Part;
use crate::mail::header;

/// Octets kept of one text.
const TEXT_OCTETS_MAX: usize = 256;
/// Messages one report may stand for.
const INCIDENTS_MAX: u64 = 1_000_000_000;

/// What a report says of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind: `auth-failure`, `abuse`, … (RFC 5965 §7.3), in lower case.
    pub kind: String,
    /// What failed: `dmarc`, `dkim`, `spf`, … (RFC 6591 §3.3), in lower case.
    pub failed: Option<String>,
    /// Whose name was used.
    pub domain: Option<String>,
    /// Who brought it.
    pub source: Option<IpAddr>,
    /// MAIL FROM.
    pub envelope_from: Option<String>,
    /// The domain in the message's From.
    pub header_from: Option<String>,
    /// What was done with it: `delivered`, `spam`, `policy`, `reject`, … (RFC 6591 §3.2.2).
    pub delivery: Option<String>,
    /// What fits From: `none`, `spf`, `dkim`, or both (RFC 9991 §4).
    pub aligned: Option<String>,
    /// For how many messages it stands.
    pub incidents: u64,
}

/// The report among the parts of a message.
pub(super) fn read(parts: &[Part<'_>]) -> Option<Failure> {
    let report = parts.iter().find(|part| part.media_type == "message/feedback-report")?;
    let mut failure = Failure { incidents: 1, ..Failure::default() };
    for field in header::fields(&with_line_end(&report.decoded())) {
        let text = text(field.value());
        if text.is_empty() {
            continue;
        }
        if field.is("Feedback-Type") {
            failure.kind = text.to_ascii_lowercase();
        } else if field.is("Auth-Failure") {
            failure.failed = Some(text.to_ascii_lowercase());
        } else if field.is("Reported-Domain") {
            failure.domain = Some(text.trim_end_matches('.').to_lowercase());
        } else if field.is("Source-IP") {
            // Some write its name behind it.
            let address = text.split_whitespace().next().and_then(|address| address.parse().ok());
            failure.source = address.map(|address: IpAddr| address.to_canonical());
        } else if field.is("Original-Mail-From") {
            failure.envelope_from = Some(text.trim_matches(['<', '>']).to_owned());
        } else if field.is("Delivery-Result") {
            failure.delivery = Some(text.to_ascii_lowercase());
        } else if field.is("Identity-Alignment") {
            failure.aligned = Some(text.to_ascii_lowercase());
        } else if field.is("Incidents") {
            failure.incidents = text.parse().unwrap_or(1).min(INCIDENTS_MAX);
        }
    }
    if failure.kind.is_empty() {
        return None;
    }
    let original = ["message/rfc822", "text/rfc822-headers", "message/global", "message/rfc822-headers"];
    if let Some(message) = parts.iter().find(|part| original.contains(&part.media_type.as_str())) {
        let message = with_line_end(&message.decoded());
        let from = header::fields(&message).find(|field| field.is("From")).map(|from| text(from.value()));
        failure.header_from = from.as_deref().and_then(domain_of);
    }
    Some(failure)
}

impl Failure {
    /// Whose name it is about: as the report says, else as the message did.
    pub fn about(&self) -> Option<&str> {
        let mail_from = || self.envelope_from.as_deref()?.rsplit_once('@').map(|(_, domain)| domain);
        self.domain.as_deref().or(self.header_from.as_deref()).or_else(mail_from)
    }
}

/// The last field of a part may lack its line end.
fn with_line_end(section: &[u8]) -> Vec<u8> {
    [section.trim_ascii_start(), b"\r\n"].concat()
}

/// Printable and short.
fn text(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(4 * TEXT_OCTETS_MAX)]).into_owned();
    let mut kept = String::new();
    for letter in text.trim().chars().filter(|letter| !letter.is_control()) {
        if kept.len() + letter.len_utf8() > TEXT_OCTETS_MAX {
            break;
        }
        kept.push(letter);
    }
    kept
}

/// The domain of the last address in a text.
fn domain_of(text: &str) -> Option<String> {
    let (_, domain) = text.rsplit_once('@')?;
    let end = domain.find(['>', ' ', '\t', '"', '(', ',']);
    let domain = domain[..end.unwrap_or(domain.len())].trim_end_matches('.').to_lowercase();
    (!domain.is_empty()).then_some(domain)
}
