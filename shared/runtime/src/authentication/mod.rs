//! Who really sent a message: reverse names, SPF, DKIM, ARC and DMARC, asked of the DNS. The one place that knows the
//! library which does it, but for SPF, which is ours; its answers leave as our own nouns. A message's body is never held: its digests are handed in.

mod doubled;
pub mod reporting;
mod spf;
mod words;

use std::net::IpAddr;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::canonical::BodyDigest;
use gatepost_protocol::mail::verdict::{Arc, Dkim, Dmarc, Found, Reverse, SenderDomain, Spf};
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::common::to_a_label;
use mail_auth::dkim::Canonicalization;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{AuthenticatedMessage, DmarcResult, MessageAuthenticator, Parameters, SpfOutput};

use self::doubled::Doubled;
use self::spf::Check;
use crate::resolver::{ExchangersAnswer, Resolver};

/// Signatures looked at of one message; the others are passed over.
const SIGNATURES_MAX: usize = 8;
/// Domains of From that are told of: a second one is one too many.
const DOMAINS_MAX: usize = 8;
/// Names of signed fields, times fields, that are compared for one message: what finding the signed ones costs.
const COMPARISONS_MAX: usize = 1_000_000;
/// ARC sets of one message; a longer chain is a broken one.
const SETS_MAX: usize = 20;

/// Asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authenticator {
    resolver: Resolver,
}

/// What the DNS says of a message's own fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authenticated {
    /// DKIM signatures.
    pub dkim: Vec<Dkim>,
    /// The ARC chain.
    pub arc: Arc,
    /// DMARC.
    pub dmarc: Dmarc,
}

/// What a message says of itself, before anybody is asked.
#[derive(Debug)]
pub struct Claims<'a> {
    parsed: Option<AuthenticatedMessage<'a>>,
    weak: Vec<Dkim>,
}

impl<'a> Claims<'a> {
    /// Of a message's header section as it came, and the digests of its body.
    pub fn of(section: &'a [u8], body: BodyDigest) -> Self {
        let mut parsed = AuthenticatedMessage::parse_with_opts(section, None, true);
        let weak = parsed.as_mut().map(pick).unwrap_or_default();
        if let Some(message) = &mut parsed {
            put_digests(message, body);
        }
        Self { parsed, weak }
    }

    /// The addresses in From, one of each domain: of many domains some.
    pub fn from(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for from in self.parsed.iter().flat_map(|message| &message.from) {
            let domain = |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_owned());
            if found.len() < DOMAINS_MAX && found.iter().all(|other| domain(other) != domain(from)) {
                found.push(words::bounded(from));
            }
        }
        found
    }

    /// What is known of it while nobody answers.
    pub fn unanswered(&self) -> Authenticated {
        let dkim = self.parsed.iter().flat_map(|message| &message.dkim_headers);
        let dkim = dkim.map(|one| Dkim { found: Found::TempError, ..words::signature(&one.header) }).collect();
        let sealed = self.parsed.as_ref().is_some_and(|message| !message.as_headers.is_empty());
        let arc = if sealed { Found::TempError } else { Found::None };
        let from = self.parsed.as_ref().map(|message| words::only_domain(&message.from)).unwrap_or_default();
        let dmarc = Dmarc { found: Found::TempError, from, ..Dmarc::default() };
        Authenticated { dkim, arc: Arc { found: arc, ..Arc::default() }, dmarc }
    }
}

impl Authenticator {
    /// Asks by `resolver`.
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// Whether the address has a name that leads back to it.
    pub async fn reverse(&self, client: IpAddr) -> Reverse {
        let Ok(asker) = self.asker() else { return Reverse { found: Found::TempError, name: None } };
        words::reverse(&asker.verify_iprev(client).await)
    }

    /// SPF of the name in EHLO; nothing is checked where it is no domain.
    pub async fn spf_helo(&self, client: IpAddr, helo: &str) -> Spf {
        self.spf(client, helo, "", helo).await
    }

    /// SPF of MAIL FROM; the null sender stands for `postmaster` at the name in EHLO (RFC 7208 §2.4), which
    /// [`Self::spf_helo`] has checked.
    pub async fn spf_mail(&self, client: IpAddr, helo: &str, sender: &Address) -> Spf {
        self.spf(client, helo, sender.local().as_str(), sender.domain().as_str()).await
    }

    /// Whether mail can go back to where it says that it comes from.
    pub async fn sender_domain(&self, sender: &ReversePath) -> SenderDomain {
        let Some(domain) = sender.address().map(Address::domain).filter(|domain| domain.literal().is_none()) else {
            return SenderDomain::None;
        };
        match self.resolver.exchangers(domain).await {
            // RFC 7505 §3.
            Ok(ExchangersAnswer::Found(found)) if found.iter().all(|exchanger| exchanger.host.is_empty()) => {
                SenderDomain::NullMx
            }
            Ok(ExchangersAnswer::Found(_) | ExchangersAnswer::None) => SenderDomain::Exists,
            Ok(ExchangersAnswer::NoSuchDomain) => SenderDomain::Unknown,
            Err(_) => SenderDomain::TempError,
        }
    }

    async fn spf(&self, client: IpAddr, helo: &str, local_part: &str, domain: &str) -> Spf {
        let found = Check::new(&self.resolver, client, helo, local_part, domain).run().await;
        Spf { found, domain: words::bounded(domain) }
    }

    /// DKIM, ARC and DMARC of a message; what SPF said of its sender is known already.
    pub async fn message(&self, message: &Claims<'_>, spf: &Spf) -> Authenticated {
        let Some(parsed) = &message.parsed else { return Authenticated::default() };
        let Ok(asker) = self.asker() else { return message.unanswered() };
        let from = words::only_domain(&parsed.from);
        let from = to_a_label(&from);
        let doubled = Doubled::above(&self.resolver, &from);
        let (dkim, arc, doubled) = tokio::join!(asker.verify_dkim(parsed), asker.verify_arc(parsed), doubled);
        let spf_output = SpfOutput::new(spf.domain.clone()).with_result(words::spf_result(spf.found));
        let dmarc = match &doubled {
            Ok(doubled) => {
                let about = DmarcParameters::new(parsed, &dkim, &spf.domain, &spf_output);
                let dmarc = asker.verify_dmarc(Parameters::new(about).with_txt_cache(doubled)).await;
                Dmarc { reported: self.reported(&dmarc).await, ..words::dmarc(&dmarc) }
            }
            Err(_) => Dmarc { found: Found::TempError, from: words::bounded(&from), ..Dmarc::default() },
        };
        Authenticated {
            dkim: dkim.iter().take(SIGNATURES_MAX).map(words::dkim).chain(message.weak.iter().cloned()).collect(),
            arc: words::arc(&arc),
            dmarc,
        }
    }

    /// Whether anybody answers questions at all.
    pub async fn is_answered(&self) -> bool {
        self.resolver.answers().await
    }

    fn asker(&self) -> Result<MessageAuthenticator, ()> {
        self.resolver.hickory().map(MessageAuthenticator).map_err(drop)
    }
}

/// Leaves the signatures that are to be verified; the others are told of, some of them. Those by SHA-1 are none
/// (RFC 8301 §3.1), and some would cost more than any honest one does.
fn pick(message: &mut AuthenticatedMessage<'_>) -> Vec<Dkim> {
    let fields = message.raw_parsed_headers().len();
    let mut comparisons = COMPARISONS_MAX;
    let (mut good, mut passed_over) = (Vec::new(), Vec::new());
    for mut signature in std::mem::take(&mut message.dkim_headers) {
        let cost = signature.header.h.len().saturating_mul(fields);
        let why = match signature.header.a {
            Algorithm::RsaSha1 => Some("SHA-1 proves nothing"),
            _ if cost > comparisons => Some("it would cost too much to verify"),
            _ => None,
        };
        match why {
            None if good.len() < SIGNATURES_MAX => {
                comparisons -= cost;
                // Nobody is reported to, and nobody else's word is taken for it: neither is asked for.
                (signature.header.r, signature.header.atps) = (false, None);
                good.push(signature);
            }
            Some(why) if passed_over.len() < SIGNATURES_MAX => {
                let why = Some(why.to_owned());
                passed_over.push(Dkim { found: Found::Policy, why, ..words::signature(&signature.header) });
            }
            _ => {}
        }
    }
    passed_over.truncate(SIGNATURES_MAX - good.len());
    message.dkim_headers = good;
    message.errors.truncate(SIGNATURES_MAX);
    let last = message.ams_headers.iter().map(|signature| signature.header.h.len()).max().unwrap_or(0);
    if message.ams_headers.len() > SETS_MAX || last.saturating_mul(fields) > COMPARISONS_MAX {
        message.has_arc_errors = true;
    }
    passed_over
}

/// The parser saw no body: it is told of it.
fn put_digests(message: &mut AuthenticatedMessage<'_>, body: BodyDigest) {
    for (form, algorithm, _, digest) in &mut message.body_hashes {
        let found = match (algorithm, form) {
            (HashAlgorithm::Sha256, Canonicalization::Simple) => body.simple,
            (HashAlgorithm::Sha256, Canonicalization::Relaxed) => body.relaxed,
            (HashAlgorithm::Sha1, _) => None,
        };
        // No digest of any body: what is signed by it does not verify.
        *digest = found.map(Vec::from).unwrap_or_default();
    }
}

/// True if DMARC neither passed nor failed because something could not be asked.
fn unsure(result: &DmarcResult) -> bool {
    matches!(result, DmarcResult::TempError(_))
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::canonical::Forms;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of two readers of a signature the one decides what is digested, the other what is verified.
        #[test]
        fn every_digest_that_is_verified_by_is_made(
            tags in "((;| |\r\n |\t){0,2}(v=1|a=rsa-sha256|d=x\\.org|s=s|h=from|bh=YWJj|b=YWJjc=|b=Yw==|c|C|=|/| ?relaxed|simple ?|c=|c ?= ?Relaxed/|x=c=)){0,14}",
            name in "(DKIM-Signature|dkim-signature|ARC-Message-Signature|DKIM-Signature ?)",
        ) {
            for prefix in ["", "v=1; i=1; a=rsa-sha256; d=x.org; s=s; h=from; bh=YWJj; b=YWJj; "] {
                let section = format!("From: <a@x.org>\r\n{name}: {prefix}{tags}\r\n\r\n");
                let asked = Forms::asked(section.as_bytes());
                let Some(message) = AuthenticatedMessage::parse_with_opts(section.as_bytes(), None, true) else { continue };
                for (form, ..) in &message.body_hashes {
                    let is_made = match form {
                        Canonicalization::Simple => asked.simple,
                        Canonicalization::Relaxed => asked.relaxed,
                    };
                    prop_assert!(is_made, "{form:?} of {section:?}");
                }
            }
        }
    }
}
