//! Asks the world: the DNS as others see it, and the edges' doors from here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::canonical::{BodyDigests, Forms};
use gatepost_protocol::mail::verdict::Found;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, Stage, StartTls};
use gatepost_runtime::attempt::{Attempt, Believed, Finding, Target, Tls};
use gatepost_runtime::authentication::{Authenticator, Claims};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;

use super::{Answers, Facts, Signed};
use crate::records::{State, reverse_name};

/// Connecting may take so long.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Whom is asked, and what is believed.
#[derive(Clone, Debug)]
pub struct World {
    /// DNS servers that see what the world sees.
    pub servers: Vec<SocketAddr>,
    /// Trust roots (DER) besides the system's.
    pub roots: Vec<Vec<u8>>,
    /// Our name.
    pub hostname: String,
    /// Time.
    pub clock: Clock,
}

impl World {
    /// Asks all there is to ask about these facts.
    pub async fn ask(&self, facts: &Facts) -> Answers {
        let resolver = Resolver::new(&self.servers);
        let mut answers = Answers::default();
        // All at once: a server that does not answer costs its time-out once.
        let asked = questions(facts).into_iter().map(|(name, kind)| {
            let resolver = resolver.clone();
            async move {
                let told = match kind {
                    "TXT" => resolver.texts(&name).await,
                    kind => resolver.written(&name, kind).await,
                };
                ((name, kind), told.map_err(|error| error.to_string()))
            }
        });
        answers.dns = join_all(asked).await.into_iter().collect();
        let authenticator = Authenticator::new(resolver.clone());
        // Nobody answers: a receiver's questions would only wait as well.
        let deaf = answers.dns.values().all(Result::is_err);
        let signed = if deaf { &[][..] } else { &facts.signed };
        let judged = signed.iter().map(|signed| judge(&authenticator, facts, signed));
        for (signed, (spf, own_mail)) in signed.iter().zip(join_all(judged).await) {
            answers.spf.extend(spf.into_iter().map(|(address, found)| ((signed.domain.clone(), address), found)));
            answers.own_mail.extend(own_mail.map(|found| (signed.domain.clone(), found)));
        }
        for edge in &facts.edges {
            let port = edge.examined.as_ref().and_then(|examined| examined.as_ref().ok()?.submissions_port);
            if let (Some(host), Some(port)) = (&edge.host, port)
                && !answers.submissions.contains_key(host)
            {
                let met = self.meet(host, &edge.addresses, port).await;
                answers.submissions.insert(host.clone(), met);
            }
        }
        answers
    }

    /// Meets port 465 as a mail program does: by its name, believing only whom others vouch for.
    async fn meet(&self, host: &str, addresses: &[IpAddr], port: u16) -> Result<(), String> {
        let mut last = Err("its address is not known".to_owned());
        for address in addresses {
            let target = Target {
                host: host.to_owned(),
                address: SocketAddr::new(*address, port),
                tls: Tls::Implicit,
                roots: self.roots.clone(),
                believed: Believed::ByTls,
                finding: Finding::default(),
                connect_wait_max: CONNECT_WAIT_MAX,
            };
            let config = ClientConfig {
                helo: self.hostname.clone(),
                protocol: Protocol::Smtp,
                starttls: StartTls::Never,
                login: None,
                nonce: random::bytes(),
                limits: ClientLimits::default(),
            };
            last = match Attempt::connect(&target, config, self.clock.clone()).await {
                Ok(attempt) => {
                    attempt.quit().await;
                    return Ok(());
                }
                Err(failure) if failure.stage == Stage::Tls => {
                    Err(format!("certificate or TLS: {}", failure.reply.text()))
                }
                Err(failure) => Err(failure.reply.text()),
            };
        }
        last
    }
}

/// What SPF says of each edge's address, and what DKIM and DMARC say of a domain's own message.
async fn judge(
    asker: &Authenticator,
    facts: &Facts,
    signed: &Signed,
) -> (Vec<(IpAddr, Found)>, Option<(Found, Found)>) {
    let Ok(sender) = Address::parse(&format!("postmaster@{}", signed.domain)) else { return (Vec::new(), None) };
    let sender = &sender;
    let addresses = facts.edges.iter().flat_map(|edge| {
        let helo = edge.host.as_deref().unwrap_or(&signed.domain);
        edge.addresses
            .iter()
            .map(move |address| async move { (*address, asker.spf_mail(*address, helo, sender).await) })
    });
    let spf = join_all(addresses).await;
    let Some((section, body)) = signed.text.split_once("\r\n\r\n") else { return (Vec::new(), None) };
    let section = format!("{section}\r\n\r\n");
    let mut digests = BodyDigests::new(Forms::asked(section.as_bytes()));
    digests.feed(body.as_bytes());
    let claims = Claims::of(section.as_bytes(), digests.finish());
    let first = spf.first().map(|(_, found)| found.clone()).unwrap_or_default();
    let found = asker.message(&claims, &first).await;
    // Some receivers know only one of the algorithms: each signature counts.
    let worst = |found: &Found| *found != Found::Pass;
    let dkim = found.dkim.iter().map(|one| one.found).max_by_key(worst).unwrap_or_default();
    (spf.into_iter().map(|(address, found)| (address, found.found)).collect(), Some((dkim, found.dmarc.found)))
}

/// Names and types to be asked for.
fn questions(facts: &Facts) -> Vec<(String, &'static str)> {
    let mut questions = Vec::new();
    for record in &facts.records {
        let kind = match record.kind.as_str() {
            "MX" => "MX",
            "TXT" => "TXT",
            "SRV" if record.name.starts_with("_submissions.") => "SRV",
            _ => continue,
        };
        if record.state == State::Publish {
            questions.push((record.name.clone(), kind));
        }
    }
    for edge in &facts.edges {
        if let Some(host) = &edge.host {
            questions.extend(["A", "AAAA"].map(|kind| (host.clone(), kind)));
        }
        questions.extend(edge.addresses.iter().map(|address| (reverse_name(*address), "PTR")));
    }
    questions
}
