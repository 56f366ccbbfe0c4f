//! When the owner is told by another road than the tunnel: a home that stays away, a spool that fills up.
//! What is to be told follows from what was seen, purely; letters go straight to the exchangers of the
//! owner's other address, for there is nobody else here to send them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::mail::address::{Domain, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient};
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, StartTls};
use gatepost_runtime::acme::names::NameStandings;
use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::alarm::{Alarm, Alarms, Letter};
use gatepost_runtime::attempt::{Attempt, Believed, Finding, Started, Target, Tls};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::homes::Homes;
use crate::relay::exchangers::{self, Nowhere};
use crate::spool::Spool;

/// A home that is away so long is worth a word…
const AWAY: Duration = Duration::from_hours(1);
/// …and a louder one after a day.
const AWAY_LONG: Duration = Duration::from_hours(24);
/// Looked for so often.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// A spool this full, in hundredths of what it may hold, is worth a word…
const FULL: u64 = 50;
/// …and below this it is worth one again.
const RELIEVED: u64 = 40;
/// Pauses between the tries of one letter; then it is given up.
const TRIES: [Duration; 5] =
    [Duration::ZERO, Duration::from_mins(1), Duration::from_mins(10), Duration::from_hours(1), Duration::from_hours(6)];
/// How long a host may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// What is seen of one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub home: String,
    /// How long it has been away; nothing while it is connected.
    pub away: Duration,
    /// Octets sealed for it.
    pub held_octets: u64,
    /// Octets that may be.
    pub held_octets_max: u64,
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tell the owner.
    Raise(Alarm),
    /// It is over.
    Clear(&'static str, String),
}

/// Judges one look at every home.
pub fn look(seen: &[Seen]) -> Vec<Verdict> {
    seen.iter().flat_map(|seen| [away(seen), full(seen)]).flatten().collect()
}

fn away(seen: &Seen) -> Option<Verdict> {
    let home = &seen.home;
    if seen.away.is_zero() {
        return Some(Verdict::Clear("home-away", home.clone()));
    }
    let (length, about) = if seen.away >= AWAY_LONG {
        ("a day", format!("{home} for a day"))
    } else if seen.away >= AWAY {
        ("an hour", home.clone())
    } else {
        return None;
    };
    Some(Verdict::Raise(Alarm {
        kind: "home-away",
        about,
        text: format!(
            "The home {home} has not been connected for {length} or more. Its mail is kept here, sealed, until it is \
             back. At home, gatepost-home status says what is wrong."
        ),
    }))
}

fn full(seen: &Seen) -> Option<Verdict> {
    let hundredths = seen.held_octets.saturating_mul(100) / seen.held_octets_max.max(1);
    let home = &seen.home;
    if hundredths >= FULL {
        return Some(Verdict::Raise(Alarm {
            kind: "spool-half-full",
            about: home.clone(),
            text: format!(
                "Mail sealed for the home {home} takes up {hundredths} % of what it may. When it is full, senders are asked to \
                 come back later, and give up after some days. Bring the home back, or raise [limits] spool."
            ),
        }));
    }
    (hundredths < RELIEVED).then(|| Verdict::Clear("spool-half-full", home.clone()))
}

/// Looks at the homes until draining begins: first after a while, so that a home has the time to come back to an
/// edge that was started again.
pub async fn watch(
    homes: Homes,
    spool: Spool,
    certificate: Standing,
    names: NameStandings,
    alarms: Alarms,
    clock: Clock,
    mut signal: Signal,
) {
    loop {
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = signal.draining() => return,
        }
        alarms.hold("certificate-overdue", "certificate", certificate.overdue());
        for (name, overdue) in names.overdue() {
            alarms.hold("certificate-overdue", name.as_str(), overdue);
        }
        let (held_octets_max, now) = (spool.octets_max(), clock.now());
        let seen: Vec<Seen> = homes
            .all()
            .iter()
            .map(|home| Seen {
                home: home.name().to_owned(),
                away: home.away(now),
                held_octets: spool.held(home.name()).octets,
                held_octets_max,
            })
            .collect();
        for verdict in look(&seen) {
            match verdict {
                Verdict::Raise(alarm) => alarms.raise(&alarm),
                Verdict::Clear(kind, about) => alarms.clear(kind, &about),
            }
        }
    }
}

/// Sends letters of alarms.
#[derive(Debug)]
pub struct Postman {
    /// Our name.
    pub hostname: Domain,
    /// Finds exchangers.
    pub resolver: Resolver,
    /// Whether IPv6 is used.
    pub ipv6: AtomicBool,
    /// Time.
    pub clock: Clock,
}

impl Postman {
    /// Sends what comes, each letter in a task of its own.
    pub async fn serve(self: Arc<Self>, mut letters: mpsc::Receiver<Letter>) {
        while let Some(letter) = letters.recv().await {
            let postman = Arc::clone(&self);
            tokio::spawn(async move { postman.send(letter).await });
        }
    }

    async fn send(&self, letter: Letter) {
        let message = letter.message(self.hostname.as_str(), self.clock.unix_s(), &random::bytes());
        let message = Bytes::from(message);
        for pause in TRIES {
            self.clock.sleep(pause).await;
            match self.try_once(&letter, message.clone()).await {
                Outcome::Accepted(reply) => {
                    info!(recipient = %letter.to, %reply, "an alarm was written");
                    return;
                }
                Outcome::Deferred(reply) => warn!(recipient = %letter.to, %reply, "an alarm can't be sent now"),
                Outcome::Refused(reply) => {
                    warn!(recipient = %letter.to, %reply, "an alarm is refused where it was to go");
                    return;
                }
            }
        }
        warn!(recipient = %letter.to, "an alarm is given up: nobody took it");
    }

    async fn try_once(&self, letter: &Letter, message: Bytes) -> Outcome {
        let targets = match self.targets(letter.to.domain()).await {
            Ok(targets) => targets,
            Err(Nowhere::Reply(reply)) => return Outcome::of(reply),
            Err(Nowhere::Ourselves) => return Outcome::Refused(Reply::relay_denied()),
        };
        let mut last = Outcome::Deferred(Reply::unreachable("no exchanger was tried"));
        for target in targets {
            let target = Target {
                host: target.host,
                address: target.address,
                tls: Tls::Opportunistic,
                roots: Vec::new(),
                believed: Believed::ByTls,
                finding: Finding::default(),
                connect_wait_max: CONNECT_MAX,
            };
            match self.hand_over(&target, letter, message.clone()).await {
                deferred @ Outcome::Deferred(_) => last = deferred,
                settled => return settled,
            }
        }
        last
    }

    async fn targets(&self, domain: &Domain) -> Result<Vec<exchangers::Target>, Nowhere> {
        let names = exchangers::names(&self.resolver, domain, &self.hostname).await?;
        exchangers::targets(&self.resolver, domain, &names, &self.hostname, self.ipv6.load(Ordering::Relaxed)).await
    }

    /// One transaction with one host.
    async fn hand_over(&self, target: &Target, letter: &Letter, message: Bytes) -> Outcome {
        let config = ClientConfig {
            helo: self.hostname.to_string(),
            protocol: Protocol::Smtp,
            starttls: StartTls::Opportunistic,
            login: None,
            nonce: random::bytes(),
            limits: ClientLimits::default(),
        };
        let mut attempt = match Attempt::connect(target, config, self.clock.clone()).await {
            Ok(attempt) => attempt,
            Err(failure) => return Outcome::Deferred(failure.reply),
        };
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient { address: letter.to.clone(), notify: Notify::Never, orcpt: None }],
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        };
        let outcomes = match attempt.start(envelope, message.len() as u64, !message.is_ascii()).await {
            Started::Done(outcomes) => outcomes,
            Started::Body => {
                attempt.body(message).await;
                attempt.finish().await
            }
        };
        attempt.quit().await;
        outcomes.into_iter().next().unwrap_or_else(|| Outcome::Deferred(Reply::local_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(away: Duration, held_octets: u64) -> Seen {
        Seen { home: "cottage".into(), away, held_octets, held_octets_max: 1000 }
    }

    /// The names of what is raised.
    fn raised(seen: &Seen) -> Vec<String> {
        let raised = look(std::slice::from_ref(seen)).into_iter().filter_map(|verdict| match verdict {
            Verdict::Raise(alarm) => Some(format!("{} {}", alarm.kind, alarm.about)),
            Verdict::Clear(..) => None,
        });
        raised.collect()
    }

    #[test]
    fn a_home_that_stays_away_is_told_after_an_hour_and_after_a_day() {
        for (away, told) in [
            (Duration::ZERO, &[][..]),
            (Duration::from_secs(3599), &[]),
            (AWAY, &["home-away cottage"]),
            (Duration::from_secs(86_399), &["home-away cottage"]),
            (AWAY_LONG, &["home-away cottage for a day"]),
        ] {
            assert_eq!(raised(&seen(away, 0)), told, "{away:?}");
        }
    }

    #[test]
    fn a_home_that_is_back_is_forgiven() {
        let clear = Verdict::Clear("home-away", "cottage".into());
        assert!(look(&[seen(Duration::ZERO, 0)]).contains(&clear));
        assert!(!look(&[seen(Duration::from_secs(1), 0)]).contains(&clear), "it is not back yet");
    }

    #[test]
    fn a_spool_is_told_of_when_it_is_half_full_and_forgiven_when_it_is_not() {
        let here = |held_octets| seen(Duration::ZERO, held_octets);
        assert!(raised(&here(499)).is_empty());
        assert_eq!(raised(&here(500)), ["spool-half-full cottage"]);
        let clear = Verdict::Clear("spool-half-full", "cottage".into());
        assert!(!look(&[here(450)]).contains(&clear));
        assert!(look(&[here(399)]).contains(&clear));
    }
}
