//! The library's answers in our own nouns. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gatepost_protocol::mail::verdict::{Arc, Asked, Dkim, Dmarc, Found, Published, Reverse};
use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::{DkimError, Signature};
use mail_auth::dmarc::{self, Alignment, Policy};
use mail_auth::{
    ArcOutput, DkimOutput, DkimResult, DmarcOutput, DmarcResult, Error, IprevOutput, IprevResult, SpfResult,
};

/// What is kept of a name or a reason, in octets.
const TEXT_OCTETS_MAX: usize = 255;
/// Enough of a signature to tell it from another (RFC 6008 §4).
const SIGNATURE_OCTETS: usize = 6;

/// Text of others, cut at its bound, in printable ASCII.
pub(super) fn bounded(text: &str) -> String {
    let printable = |letter: char| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    text.chars().take(TEXT_OCTETS_MAX).map(printable).collect()
}

/// The one domain of all these addresses, or nothing.
pub(super) fn only_domain(from: &[String]) -> String {
    let mut domains = from.iter().filter_map(|address| address.rsplit_once('@')).map(|(_, domain)| domain);
    let first = domains.next().unwrap_or_default();
    if domains.all(|domain| domain == first) { bounded(first) } else { String::new() }
}

pub(super) fn reverse(output: &IprevOutput) -> Reverse {
    let found = match output.result {
        IprevResult::Pass => Found::Pass,
        IprevResult::Fail(_) => Found::Fail,
        IprevResult::TempError(_) => Found::TempError,
        IprevResult::PermError(_) => Found::PermError,
        IprevResult::None => Found::None,
    };
    let name = output.ptr.as_ref().and_then(|names| names.first());
    Reverse { found, name: name.map(|name| bounded(name.trim_end_matches('.'))) }
}

pub(super) fn spf_result(found: Found) -> SpfResult {
    match found {
        Found::Pass => SpfResult::Pass,
        Found::Fail | Found::Policy => SpfResult::Fail,
        Found::SoftFail => SpfResult::SoftFail,
        Found::Neutral => SpfResult::Neutral,
        Found::TempError => SpfResult::TempError,
        Found::PermError => SpfResult::PermError,
        Found::None => SpfResult::None,
    }
}

/// What a signature says of itself; nothing is found of it yet.
pub(super) fn signature(signature: &Signature) -> Dkim {
    let algorithm = match signature.a {
        Algorithm::RsaSha1 => "rsa-sha1",
        Algorithm::RsaSha256 => "rsa-sha256",
        Algorithm::Ed25519Sha256 => "ed25519-sha256",
    };
    let start = &signature.b[..signature.b.len().min(SIGNATURE_OCTETS)];
    Dkim {
        found: Found::None,
        domain: bounded(&signature.d),
        selector: bounded(&signature.s),
        algorithm: algorithm.to_owned(),
        signature: STANDARD_NO_PAD.encode(start),
        why: None,
    }
}

pub(super) fn dkim(output: &DkimOutput<'_>) -> Dkim {
    let (found, why) = result(output.result());
    Dkim { found, why, ..output.signature().map(signature).unwrap_or_default() }
}

pub(super) fn arc(output: &ArcOutput<'_>) -> Arc {
    let (found, why) = match result(output.result()) {
        // A chain is there, whole, or broken (RFC 8617 §4.4).
        (Found::Neutral | Found::PermError, why) => (Found::Fail, why),
        other => other,
    };
    let sealers = output.sets().iter().rev().map(|set| bounded(&set.seal.header.d)).collect();
    Arc { found, sealers, why }
}

pub(super) fn dmarc(output: &DmarcOutput) -> Dmarc {
    let by = |result: &DmarcResult| *result == DmarcResult::Pass;
    let (by_spf, by_dkim) = (by(output.spf_result()), by(output.dkim_result()));
    let unsure = [output.spf_result(), output.dkim_result()].into_iter().any(super::unsure);
    let found = match output.dmarc_record() {
        None if unsure => Found::TempError,
        None => Found::None,
        Some(_) if by_spf || by_dkim => Found::Pass,
        Some(_) if unsure => Found::TempError,
        Some(_) => Found::Fail,
    };
    let asked = asked(output.policy());
    let published = output.dmarc_record().is_some();
    Dmarc { found, from: bounded(output.domain()), published, asked, by_spf, by_dkim, reported: None }
}

fn asked(policy: Policy) -> Asked {
    match policy {
        Policy::Reject => Asked::Reject,
        Policy::Quarantine => Asked::Quarantine,
        Policy::None | Policy::Unspecified => Asked::None,
    }
}

/// What a record says that stands at this domain.
pub(super) fn published(domain: &str, record: &dmarc::Dmarc) -> Published {
    Published {
        domain: bounded(domain),
        policy: asked(record.p),
        below: asked(record.sp),
        absent: asked(record.np),
        strict_dkim: record.adkim == Alignment::Strict,
        strict_spf: record.aspf == Alignment::Strict,
        testing: record.t,
    }
}

fn result(result: &DkimResult) -> (Found, Option<String>) {
    let (found, error) = match result {
        DkimResult::Pass => return (Found::Pass, None),
        DkimResult::None => return (Found::None, None),
        // The library is milder with a wrong body than RFC 6376 §6.1.3.
        DkimResult::Neutral(error @ Error::Dkim(DkimError::FailedBodyHashMatch)) | DkimResult::Fail(error) => {
            (Found::Fail, error)
        }
        DkimResult::Neutral(error) => (Found::Neutral, error),
        DkimResult::PermError(error) => (Found::PermError, error),
        DkimResult::TempError(error) => (Found::TempError, error),
    };
    (found, Some(bounded(&error.to_string())))
}
