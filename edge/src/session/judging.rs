//! What is found out about who sends a message, while it comes, and what is done with it in the end. Asking begins with
//! MAIL, so that most answers are there before the message is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::canonical::BodyDigest;
use gatepost_protocol::mail::dns_list::Standing;
use gatepost_protocol::mail::header;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::results::Results;
use gatepost_protocol::mail::verdict::{Evidence, Found, Reverse, Spf, Verdict};
use gatepost_runtime::authentication::{Authenticated, Authenticator, Claims};
use gatepost_runtime::clock::Clock;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::homes::Home;
use crate::policy::access::Allowed;
use crate::policy::deferrals::Deferrals;
use crate::policy::judge::{self, Case, Judgement, Rules};

/// All answers together may take so long; what is not there by then counts as *could not be asked*.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(20);
/// The same, while our resolver is known not to answer anything: mail goes on.
const DEAF_WAIT_MAX: Duration = Duration::from_secs(2);
/// So long is waited to hear whether it answers anything.
const SIGN_OF_LIFE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What judges. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judging {
    authenticator: Authenticator,
    hostname: String,
    clock: Clock,
    deferrals: Arc<Mutex<Deferrals>>,
    /// Our resolver answered nothing, the last time it was in question.
    deaf: Arc<AtomicBool>,
}

/// Questions about who sends, under way.
#[derive(Debug)]
pub struct Inquiry {
    client: IpAddr,
    helo: String,
    sender: ReversePath,
    asking: Asking,
    // Of the client as such.
    standing: Option<Arc<Standing>>,
    suspect: Option<String>,
}

impl Inquiry {
    /// What DNS lists say of the client, and why what it brings belongs into Junk, if it does.
    pub fn note_standing(&mut self, standing: Arc<Standing>, suspect: Option<String>) {
        (self.standing, self.suspect) = (Some(standing), suspect);
    }
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
        Self { authenticator, hostname, clock, deferrals: Arc::default(), deaf: Arc::default() }
    }

    /// Begins to ask.
    pub fn begin(&self, client: IpAddr, helo: &str, sender: &ReversePath) -> Inquiry {
        let asker = self.authenticator.clone();
        let (name, from) = (helo.to_owned(), sender.clone());
        let asking = tokio::spawn(async move {
            let helo = name.as_str();
            let spf_mail = async {
                match &from {
                    // It stands for whoever says EHLO, who is checked anyway.
                    ReversePath::Null => None,
                    ReversePath::Address(address) => Some(asker.spf_mail(client, helo, address).await),
                }
            };
            let (reverse, spf_helo, spf_mail) =
                tokio::join!(asker.reverse(client), asker.spf_helo(client, helo), spf_mail);
            let spf_mail = spf_mail.unwrap_or_else(|| spf_helo.clone());
            (reverse, spf_helo, spf_mail)
        });
        Inquiry {
            client,
            helo: helo.to_owned(),
            sender: sender.clone(),
            asking: Asking(asking),
            standing: None,
            suspect: None,
        }
    }

    /// Judges a whole message: its header section as it came, the digests of its body.
    pub async fn judge(
        &self,
        inquiry: Inquiry,
        home: &Home,
        allowed: Allowed,
        hops: u16,
        section: &[u8],
        body: BodyDigest,
    ) -> Judged {
        let Inquiry { client, helo, sender, mut asking, standing, suspect } = inquiry;
        let claims = Claims::of(section, body);
        let from = claims.from();
        let mut evidence = unasked();
        let answered = |evidence: &mut Evidence, found: Authenticated| {
            (evidence.dkim, evidence.arc, evidence.dmarc) = (found.dkim, found.arc, found.dmarc);
        };
        answered(&mut evidence, claims.unanswered());
        let asked = async {
            if let Ok((reverse, spf_helo, spf_mail)) = (&mut asking.0).await {
                (evidence.reverse, evidence.spf_helo, evidence.spf_mail) = (reverse, spf_helo, spf_mail);
            }
            let found = self.authenticator.message(&claims, &evidence.spf_mail).await;
            answered(&mut evidence, found);
        };
        // What was not told in time could not be asked.
        let wait = if self.deaf.load(Ordering::Relaxed) { DEAF_WAIT_MAX } else { ANSWERS_WAIT_MAX };
        let _ = self.clock.timeout(wait, asked).await;
        let deaf = self.is_deaf(&evidence).await;
        let list = header::fields(section).find(|field| field.is("List-Id")).and_then(|field| list_id(field.value()));
        let ours = |address: &String| {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            home.directory().is_some_and(|directory| directory.domains.keys().any(|own| own.as_str() == domain))
        };
        let from_ours = from.iter().any(ours);
        let (list, suspect) = (list.as_deref(), suspect.as_deref());
        evidence.lists = standing.as_ref().map(|standing| standing.hits.clone()).unwrap_or_default();
        let case = Case { evidence: &evidence, client, from: &from, from_ours, deaf, list, allowed, suspect };
        let (judgement, _would) = judge::judge(&case, &Rules::default());
        let mut words =
            format!("spf={} dkim={} dmarc={}", evidence.spf_mail.found, best(&evidence), evidence.dmarc.found);
        if let Some(standing) = standing.filter(|standing| !standing.hits.is_empty()) {
            words = format!("{words} lists={}", standing.brief());
        }
        let results = Results { host: &self.hostname, client, helo: &helo, sender: &sender, evidence: &evidence };
        let fields = results.fields();
        let (refused, junk) = match judgement {
            Judgement::Accept => (None, None),
            Judgement::Junk(why) => (None, Some(why)),
            Judgement::Defer(reply) => {
                let domain =
                    if evidence.dmarc.from.is_empty() { &evidence.spf_mail.domain } else { &evidence.dmarc.from };
                let mut deferrals = self.deferrals.lock().unwrap_or_else(PoisonError::into_inner);
                (deferrals.may(self.clock.now(), domain, client).then_some(reply), None)
            }
            Judgement::Refuse(reply) => (Some(reply), None),
        };
        Judged { verdict: Verdict { hops, evidence: Some(Box::new(evidence)), junk }, fields, refused, words }
    }
}

impl Judging {
    /// Whether what could not be asked is our own resolver's fault. Said in the log when that changes.
    async fn is_deaf(&self, evidence: &Evidence) -> bool {
        let Evidence { spf_mail, dmarc, dkim, .. } = evidence;
        let unsure = |found: Found| found == Found::TempError;
        let in_question = unsure(spf_mail.found) || unsure(dmarc.found) || dkim.iter().any(|one| unsure(one.found));
        let was = self.deaf.load(Ordering::Relaxed);
        let deaf = in_question && {
            let wait = if was { DEAF_WAIT_MAX } else { SIGN_OF_LIFE_WAIT_MAX };
            !self.clock.timeout(wait, self.authenticator.is_answered()).await.unwrap_or(false)
        };
        if self.deaf.swap(deaf, Ordering::Relaxed) != deaf {
            if deaf {
                warn!("the DNS answers nothing: mail is taken without a judgement until it does; see `dns.servers`");
            } else {
                info!("the DNS answers again");
            }
        }
        deaf
    }
}

/// Nothing is known yet.
fn unasked() -> Evidence {
    let spf = || Spf { found: Found::TempError, domain: String::new() };
    Evidence {
        reverse: Reverse { found: Found::TempError, name: None },
        spf_helo: spf(),
        spf_mail: spf(),
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
