//! What is found out about who sends a message, while it comes, and what is done with it in the end. Asking begins with
//! MAIL, so that most answers are there before the message is.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::canonical::BodyDigest;
use gatepost_protocol::mail::header;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::results::Results;
use gatepost_protocol::mail::verdict::{Dmarc, Evidence, Found, Reverse, Spf, Verdict};
use gatepost_runtime::authentication::{Authenticated, Authenticator};
use gatepost_runtime::clock::Clock;
use tokio::task::JoinHandle;

use crate::homes::Home;
use crate::policy::deferrals::Deferrals;
use crate::policy::judge::{self, Case, Judgement, Rules};

/// All answers together may take so long; what is not there by then counts as *could not be asked*.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(20);

/// What judges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judging {
    authenticator: Authenticator,
    hostname: String,
    clock: Clock,
    deferrals: Arc<Mutex<Deferrals>>,
}

/// Questions about who sends, under way.
#[derive(Debug)]
pub struct Inquiry {
    client: IpAddr,
    helo: String,
    sender: ReversePath,
    asking: Asking,
}

/// Dropped, it asks no further.
#[derive(Debug)]
struct Asking(JoinHandle<(Reverse, Spf, Spf)>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is done with a message, and what goes with it.
#[derive(Debug)]
pub struct Judged {
    /// What was found, as it travels home.
    pub verdict: Verdict,
    /// Header fields to be put in front.
    pub fields: String,
    /// The refusal, if it is one.
    pub refused: Option<Reply>,
    /// In a few words, for the log.
    pub words: String,
}

impl Judging {
    /// By these answers, in this name.
    pub fn new(authenticator: Authenticator, hostname: String, clock: Clock) -> Self {
        Self { authenticator, hostname, clock, deferrals: Arc::default() }
    }

    /// Begins to ask.
    pub fn begin(&self, client: IpAddr, helo: &str, sender: &ReversePath) -> Inquiry {
        let asker = self.authenticator.clone();
        let (name, from) = (helo.to_owned(), sender.clone());
        let asking = tokio::spawn(async move {
            let helo = name.as_str();
            tokio::join!(asker.reverse(client), asker.spf_helo(client, helo), asker.spf_mail(client, helo, &from))
        });
        Inquiry { client, helo: helo.to_owned(), sender: sender.clone(), asking: Asking(asking) }
    }

    /// Judges a whole message: its header section as it came, the digests of its body.
    pub async fn judge(&self, inquiry: Inquiry, home: &Home, hops: u16, section: &[u8], body: BodyDigest) -> Judged {
        let Inquiry { client, helo, sender, mut asking } = inquiry;
        let mut evidence = unasked();
        let mut from = Vec::new();
        let asked = async {
            if let Ok((reverse, spf_helo, spf_mail)) = (&mut asking.0).await {
                (evidence.reverse, evidence.spf_helo, evidence.spf_mail) = (reverse, spf_helo, spf_mail);
            }
            let found = self.authenticator.message(section, body, &evidence.spf_mail).await;
            let Authenticated { dkim, arc, dmarc, from: addresses } = found;
            (evidence.dkim, evidence.arc, evidence.dmarc, from) = (dkim, arc, dmarc, addresses);
        };
        let in_time = self.clock.timeout(ANSWERS_WAIT_MAX, asked).await.is_some();
        if !in_time {
            from = vec![evidence.dmarc.from.clone()];
        }
        let list = header::fields(section).find(|field| field.is("List-Id")).and_then(|field| list_id(field.value()));
        let ours = |address: &String| {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            home.directory().is_some_and(|directory| directory.domains.keys().any(|own| own.as_str() == domain))
        };
        let from_ours = from.iter().any(ours);
        let case = Case { evidence: &evidence, client, from: &from, from_ours, list: list.as_deref() };
        let (judgement, _would) = judge::judge(&case, &Rules::default());
        let words = format!(
            "spf={} dkim={} dmarc={}",
            evidence.spf_mail.found,
            best(&evidence),
            evidence.dmarc.found
        );
        let results = Results { host: &self.hostname, client, helo: &helo, sender: &sender, evidence: &evidence };
        let fields = results.fields();
        let (refused, junk) = match judgement {
            Judgement::Accept => (None, None),
            Judgement::Junk(why) => (None, Some(why)),
            Judgement::Defer(reply) => {
                let domain = if evidence.dmarc.from.is_empty() { &evidence.spf_mail.domain } else { &evidence.dmarc.from };
                let mut deferrals = self.deferrals.lock().unwrap_or_else(PoisonError::into_inner);
                (deferrals.may(self.clock.now(), domain, client).then_some(reply), None)
            }
            Judgement::Refuse(reply) => (Some(reply), None),
        };
        Judged { verdict: Verdict { hops, evidence: Some(Box::new(evidence)), junk }, fields, refused, words }
    }
}

/// Nothing is known yet.
fn unasked() -> Evidence {
    let spf = || Spf { found: Found::TempError, domain: String::new() };
    Evidence {
        reverse: Reverse { found: Found::TempError, name: None },
        spf_helo: spf(),
        spf_mail: spf(),
        dmarc: Dmarc { found: Found::TempError, ..Dmarc::default() },
        ..Evidence::default()
    }
}

/// The result of the signature that counts most.
fn best(evidence: &Evidence) -> Found {
    let all = || evidence.dkim.iter().map(|one| one.found);
    all().find(|found| *found == Found::Pass).or_else(|| all().next()).unwrap_or_default()
}

/// The host name of a List-Id (RFC 2919 §2).
fn list_id(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let (_, rest) = text.rsplit_once('<')?;
    let (id, _) = rest.split_once('>')?;
    let good = !id.is_empty() && id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b".-_+".contains(&octet));
    good.then(|| id.to_lowercase())
}
