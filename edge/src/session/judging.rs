//! What is found out about who sends a message, while it comes, and what is done with it in the end. Asking begins with
//! MAIL, so that most answers are there before the message is.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::canonical::BodyDigest;
use gatepost_protocol::mail::dns_list::Standing;
use gatepost_protocol::mail::header;
use gatepost_protocol::mail::policy::Policy;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::results::Results;
use gatepost_protocol::mail::verdict::{Dkim, Evidence, Found, Oddity, Reverse, SenderDomain, Spf, Verdict};
use gatepost_runtime::authentication::{Authenticated, Authenticator, Claims};
use gatepost_runtime::clock::Clock;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::homes::Home;
use crate::policy::access::Allowed;
use crate::policy::deferrals::Deferrals;
use crate::policy::judge::{self, Case, Decision, Judgement};

/// Each answer about who sends may take so long (RFC 7208 §4.6.4); it counts as *could not be asked* if it takes longer.
const SENDER_WAIT_MAX: Duration = Duration::from_secs(20);
/// All answers together may take so long once the message is there: some more, so that a slow domain in MAIL FROM keeps
/// nobody from asking the one in From.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(30);
/// The same, while our resolver is known not to answer anything: mail goes on.
const DEAF_WAIT_MAX: Duration = Duration::from_secs(2);
/// While it is not known to be dead, questions may stay open for so long from MAIL on, before it is asked for a sign of
/// life.
const SILENCE_MAX: Duration = Duration::from_secs(5);
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
    since: Instant,
    about: Client,
}

/// What is known of a client as such.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// What DNS lists say of it.
    pub standing: Standing,
    /// What is odd about its name.
    pub oddity: Option<Oddity>,
    /// Why what it brings belongs into Junk, if it does.
    pub suspect: Option<String>,
}

impl Inquiry {
    /// What is known of the client.
    pub fn note_client(&mut self, about: Client) {
        self.about = about;
    }
}

/// Dropped, it asks no further.
#[derive(Debug)]
struct Asking(JoinHandle<(Reverse, Spf, Spf, SenderDomain)>);

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
    /// The same for the log.
    pub told: Told,
}

/// What the log tells of a message that was judged, each in a few words; nothing of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// SPF of MAIL FROM.
    pub spf: Option<&'static str>,
    /// The signatures that hold, else one that does not.
    pub dkim: Option<String>,
    /// The ARC chain, and who sealed it last.
    pub arc: Option<String>,
    /// DMARC.
    pub dmarc: Option<&'static str>,
    /// DNS lists that know the client.
    pub lists: Option<String>,
    /// What is odd about the client's name in EHLO.
    pub odd: Option<&'static str>,
    /// What was done.
    pub done: Option<&'static str>,
    /// Why it is in Junk.
    pub why: Option<String>,
    /// Why no more was done, and what that would have been.
    pub spared: Option<String>,
}

/// What is wanted of a judgement.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose mail it is.
    pub home: &'a Home,
    /// What its access list says.
    pub allowed: Allowed,
    /// How far its owner goes.
    pub policy: &'a Policy,
}

impl Judging {
    /// By these answers, in this name.
    pub fn new(authenticator: Authenticator, hostname: String, clock: Clock) -> Self {
        Self { authenticator, hostname, clock, deferrals: Arc::default(), deaf: Arc::default() }
    }

    /// Begins to ask.
    pub fn begin(&self, client: IpAddr, helo: &str, sender: &ReversePath) -> Inquiry {
        let (asker, clock) = (self.authenticator.clone(), self.clock.clone());
        let (name, from) = (helo.to_owned(), sender.clone());
        let asking = tokio::spawn(async move {
            let helo = name.as_str();
            let Evidence { reverse, spf_helo, spf_mail: late, sender: domain, .. } = unasked(&from);
            let spf_mail = async {
                match &from {
                    // It stands for whoever says EHLO, who is checked anyway.
                    ReversePath::Null => None,
                    ReversePath::Address(address) => {
                        Some(in_time(&clock, asker.spf_mail(client, helo, address), late).await)
                    }
                }
            };
            let (reverse, spf_helo, spf_mail, domain) = tokio::join!(
                in_time(&clock, asker.reverse(client), reverse),
                in_time(&clock, asker.spf_helo(client, helo), spf_helo),
                spf_mail,
                in_time(&clock, asker.sender_domain(&from), domain)
            );
            let spf_mail = spf_mail.unwrap_or_else(|| spf_helo.clone());
            (reverse, spf_helo, spf_mail, domain)
        });
        Inquiry {
            client,
            helo: helo.to_owned(),
            sender: sender.clone(),
            asking: Asking(asking),
            since: self.clock.now(),
            about: Client::default(),
        }
    }

    /// Judges a whole message: its header section as it came, the digests of its body.
    pub async fn judge(
        &self,
        inquiry: Inquiry,
        wanted: Wanted<'_>,
        hops: u16,
        section: &[u8],
        body: BodyDigest,
    ) -> Judged {
        let Inquiry { client, helo, sender, mut asking, since, about } = inquiry;
        let claims = Claims::of(section, body);
        let from = claims.from();
        let Wanted { home, allowed, policy } = wanted;
        let mut evidence = unasked(&sender);
        let answered = |evidence: &mut Evidence, found: Authenticated| {
            (evidence.dkim, evidence.arc, evidence.dmarc) = (found.dkim, found.arc, found.dmarc);
        };
        answered(&mut evidence, claims.unanswered());
        let asked = async {
            if let Ok((reverse, spf_helo, spf_mail, sender)) = (&mut asking.0).await {
                (evidence.reverse, evidence.spf_helo, evidence.spf_mail) = (reverse, spf_helo, spf_mail);
                evidence.sender = sender;
            }
            let found = self.authenticator.message(&claims, &evidence.spf_mail).await;
            answered(&mut evidence, found);
        };
        // What was not told in time could not be asked.
        let wait = if self.deaf.load(Ordering::Relaxed) { DEAF_WAIT_MAX } else { ANSWERS_WAIT_MAX };
        let is_dead = tokio::select! {
            _ = self.clock.timeout(wait, asked) => false,
            () = Box::pin(self.dies(since)) => true,
        };
        let deaf = self.is_deaf(&evidence, is_dead).await;
        let list = header::fields(section).find(|field| field.is("List-Id")).and_then(|field| list_id(field.value()));
        let ours = |address: &String| {
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            home.directory().is_some_and(|directory| directory.domains.keys().any(|own| own.as_str() == domain))
        };
        let from_ours = from.iter().any(ours);
        let (list, suspect) = (list.as_deref(), about.suspect.as_deref());
        evidence.lists.clone_from(&about.standing.hits);
        evidence.oddity = about.oddity;
        let case = Case { evidence: &evidence, client, from: &from, from_ours, deaf, list, allowed, suspect };
        let Decision { mut judgement, spared } = judge::judge(&case, policy);
        if let Judgement::Defer(_) = judgement {
            let domain = if evidence.dmarc.from.is_empty() { &evidence.spf_mail.domain } else { &evidence.dmarc.from };
            let mut deferrals = self.deferrals.lock().unwrap_or_else(PoisonError::into_inner);
            if !deferrals.may(self.clock.now(), domain, client) {
                judgement = judge::at_last(&case);
            }
        }
        let why_spared = spared.as_ref().map(|(why, else_done)| format!("{}, else {else_done}", why.word()));
        let results = Results {
            host: &self.hostname,
            client,
            helo: &helo,
            sender: &sender,
            evidence: &evidence,
            spared: why_spared.as_deref(),
        };
        let fields = results.fields();
        let told = Told {
            spf: Some(evidence.spf_mail.found.word()),
            dkim: Some(of_signatures(&evidence.dkim)),
            arc: (evidence.arc.found != Found::None).then(|| {
                let sealer = evidence.arc.sealers.first().map_or("nobody", String::as_str);
                format!("{} by {sealer}", evidence.arc.found)
            }),
            dmarc: Some(evidence.dmarc.found.word()),
            lists: (!about.standing.hits.is_empty()).then(|| about.standing.brief()),
            odd: about.oddity.map(Oddity::word),
            done: Some(judgement.word()),
            why: if let Judgement::Junk(why) = &judgement { Some(why.clone()) } else { None },
            spared: why_spared,
        };
        let (refused, junk) = match judgement {
            Judgement::Accept => (None, None),
            Judgement::Junk(why) => (None, Some(why)),
            Judgement::Defer(reply) | Judgement::Refuse(reply) => (Some(reply), None),
        };
        let spared = spared.map(|(why, _)| why);
        Judged { verdict: Verdict { hops, evidence: Some(Box::new(evidence)), junk, spared }, fields, refused, told }
    }
}

impl Judging {
    /// Ends if our resolver, asked after a silence, gives no sign of life: then nobody need wait for answers to the end.
    async fn dies(&self, since: Instant) {
        self.clock.sleep_until(since + SILENCE_MAX).await;
        if self.is_answered(SIGN_OF_LIFE_WAIT_MAX).await {
            std::future::pending::<()>().await;
        }
    }

    /// Whether our resolver answers anything within this time. Asked twice: one packet may be lost.
    async fn is_answered(&self, wait: Duration) -> bool {
        let ask = || self.clock.timeout(wait, self.authenticator.is_answered());
        let (mut one, mut other) = (pin!(ask()), pin!(ask()));
        tokio::select! {
            alive = &mut one => alive == Some(true) || other.await == Some(true),
            alive = &mut other => alive == Some(true) || one.await == Some(true),
        }
    }

    /// Whether what could not be asked is our own resolver's fault; it may be known to be dead. Said in the log when that
    /// changes.
    async fn is_deaf(&self, evidence: &Evidence, is_dead: bool) -> bool {
        let Evidence { spf_mail, dmarc, dkim, sender, .. } = evidence;
        let unsure = |found: Found| found == Found::TempError;
        let in_question = unsure(spf_mail.found)
            || unsure(dmarc.found)
            || *sender == SenderDomain::TempError
            || dkim.iter().any(|one| unsure(one.found));
        let was = self.deaf.load(Ordering::Relaxed);
        let deaf = in_question
            && (is_dead || {
                let wait = if was { DEAF_WAIT_MAX } else { SIGN_OF_LIFE_WAIT_MAX };
                !Box::pin(self.is_answered(wait)).await
            });
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

/// What is asked about who sends, or what is known of it if that takes too long.
async fn in_time<T>(clock: &Clock, asked: impl Future<Output = T>, late: T) -> T {
    clock.timeout(SENDER_WAIT_MAX, asked).await.unwrap_or(late)
}

/// Nothing is known yet of who sends.
fn unasked(sender: &ReversePath) -> Evidence {
    let domain = sender.address().map(|address| address.domain().to_string()).unwrap_or_default();
    Evidence {
        reverse: Reverse { found: Found::TempError, name: None },
        spf_helo: Spf { found: Found::TempError, domain: String::new() },
        sender: if domain.is_empty() { SenderDomain::None } else { SenderDomain::TempError },
        spf_mail: Spf { found: Found::TempError, domain },
        ..Evidence::default()
    }
}

/// Who signed it so that it holds; else what became of the first signature.
fn of_signatures(dkim: &[Dkim]) -> String {
    let mut good: Vec<&str> =
        dkim.iter().filter(|one| one.found == Found::Pass).map(|one| one.domain.as_str()).collect();
    good.dedup();
    match (good.is_empty(), dkim.first()) {
        (false, _) => format!("pass by {}", good.join(", ")),
        (true, Some(first)) => format!("{} by {}", first.found, first.domain),
        (true, None) => Found::None.to_string(),
    }
}

/// The host name of a List-Id (RFC 2919 §2).
fn list_id(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let (_, rest) = text.rsplit_once('<')?;
    let (id, _) = rest.split_once('>')?;
    let good = !id.is_empty() && id.bytes().all(|octet| octet.is_ascii_alphanumeric() || b".-_+".contains(&octet));
    good.then(|| id.to_lowercase())
}
