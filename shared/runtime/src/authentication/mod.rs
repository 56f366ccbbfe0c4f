//! Who really sent a message: reverse names, SPF, DKIM, ARC and DMARC, asked of the DNS. The one place that knows the
//! library which does it, but for SPF, which is ours; its answers leave as our own nouns. A message's body is never held: its digests are handed in.

mod spf;
mod words;

use std::net::IpAddr;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::canonical::BodyDigest;
use gatepost_protocol::mail::verdict::{Arc, Dkim, Dmarc, Found, Reverse, SenderDomain, Spf};
use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::dkim::Canonicalization;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{AuthenticatedMessage, DmarcResult, MessageAuthenticator, SpfOutput};

use self::spf::Check;
use crate::resolver::{ExchangersAnswer, Resolver};

/// Signatures looked at of one message; the others are passed over.
const SIGNATURES_MAX: usize = 8;
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

    /// The addresses in From.
    pub fn from(&self) -> Vec<String> {
        let all = self.parsed.iter().flat_map(|message| &message.from);
        all.take(SIGNATURES_MAX).map(|from| words::bounded(from)).collect()
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
        let (dkim, arc) = tokio::join!(asker.verify_dkim(parsed), asker.verify_arc(parsed));
        let spf_output = SpfOutput::new(spf.domain.clone()).with_result(words::spf_result(spf.found));
        let dmarc = asker.verify_dmarc(DmarcParameters::new(parsed, &dkim, &spf.domain, &spf_output)).await;
        Authenticated {
            dkim: dkim.iter().take(SIGNATURES_MAX).map(words::dkim).chain(message.weak.iter().cloned()).collect(),
            arc: words::arc(&arc),
            dmarc: words::dmarc(&dmarc),
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

/// Leaves the signatures that are to be verified; those by SHA-1 are none (RFC 8301 §3.1).
fn pick(message: &mut AuthenticatedMessage<'_>) -> Vec<Dkim> {
    let (weak, mut good): (Vec<_>, Vec<_>) =
        message.dkim_headers.drain(..).partition(|signature| signature.header.a == Algorithm::RsaSha1);
    good.truncate(SIGNATURES_MAX);
    message.dkim_headers = good;
    message.errors.truncate(SIGNATURES_MAX);
    if message.ams_headers.len() > SETS_MAX {
        message.has_arc_errors = true;
    }
    let why = Some("SHA-1 proves nothing".to_owned());
    let room = SIGNATURES_MAX.saturating_sub(message.dkim_headers.len());
    let weak = weak.iter().take(room);
    weak.map(|signature| Dkim { found: Found::Policy, why: why.clone(), ..words::signature(&signature.header) })
        .collect()
}

/// The parser saw no body: it is told of it.
fn put_digests(message: &mut AuthenticatedMessage<'_>, body: BodyDigest) {
    for (form, algorithm, _, digest) in &mut message.body_hashes {
        *digest = match (algorithm, form) {
            (HashAlgorithm::Sha256, Canonicalization::Simple) => body.simple.to_vec(),
            (HashAlgorithm::Sha256, Canonicalization::Relaxed) => body.relaxed.to_vec(),
            // No digest of any body: what is signed by it does not verify.
            (HashAlgorithm::Sha1, _) => Vec::new(),
        };
    }
}

/// True if DMARC neither passed nor failed because something could not be asked.
fn unsure(result: &DmarcResult) -> bool {
    matches!(result, DmarcResult::TempError(_))
}
