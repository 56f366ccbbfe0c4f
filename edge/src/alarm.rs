//! When the owner is told by another road than the tunnel: a home that stays away, a spool that fills up.
//! What is to be told follows from what was seen, purely; letters go straight to the exchangers of the
//! owner's other address, for there is nobody else here to send them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::mail::address::{Domain, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient};
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, StartTls};
use gatepost_runtime::alarm::{Alarm, Alarms, Letter};
use gatepost_runtime::attempt::{Attempt, Started, Target, Tls};
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
    /// It has a session now.
    pub connected: bool,
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

/// What was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    away_since: HashMap<String, Instant>,
}

impl Watch {
    /// Judges one look at every home.
    pub fn look(&mut self, seen: &[Seen], now: Instant) -> Vec<Verdict> {
        self.away_since.retain(|name, _| seen.iter().any(|seen| seen.home == *name));
        seen.iter().flat_map(|seen| [self.away(seen, now), full(seen)]).flatten().collect()
    }

    fn away(&mut self, seen: &Seen, now: Instant) -> Option<Verdict> {
        let home = &seen.home;
        if seen.connected {
            return self.away_since.remove(home).map(|_| Verdict::Clear("home-away", home.clone()));
        }
        let away = now.saturating_duration_since(*self.away_since.entry(home.clone()).or_insert(now));
        let (length, about) = if away >= AWAY_LONG {
            ("a day", format!("{home} for a day"))
        } else if away >= AWAY {
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

/// Looks at the homes until draining begins.
pub async fn watch(homes: Homes, spool: Spool, alarms: Alarms, clock: Clock, mut signal: Signal) {
    let mut watch = Watch::default();
    loop {
        let held_octets_max = spool.octets_max();
        let seen: Vec<Seen> = homes
            .all()
            .iter()
            .map(|home| Seen {
                home: home.name().to_owned(),
                connected: home.session().is_some(),
                held_octets: spool.held(home.name()).octets,
                held_octets_max,
            })
            .collect();
        for verdict in watch.look(&seen, clock.now()) {
            match verdict {
                Verdict::Raise(alarm) => alarms.raise(&alarm),
                Verdict::Clear(kind, about) => alarms.clear(kind, &about),
            }
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = signal.draining() => return,
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

    fn seen(connected: bool, held_octets: u64) -> Seen {
        Seen { home: "cottage".into(), connected, held_octets, held_octets_max: 1000 }
    }

    /// The names of what is raised.
    fn raised(watch: &mut Watch, seen: &Seen, now: Instant) -> Vec<String> {
        let raised = watch.look(std::slice::from_ref(seen), now).into_iter().filter_map(|verdict| match verdict {
            Verdict::Raise(alarm) => Some(format!("{} {}", alarm.kind, alarm.about)),
            Verdict::Clear(..) => None,
        });
        raised.collect()
    }

    #[test]
    fn a_home_that_stays_away_is_told_after_an_hour_and_after_a_day() {
        let start = Clock::real().now();
        let mut watch = Watch::default();
        for (connected, hours_later, told) in [
            (true, 0, &[][..]),
            (false, 1, &[]),
            (false, 2, &["home-away cottage"]),
            (false, 24, &["home-away cottage"]),
            (false, 25, &["home-away cottage for a day"]),
            (true, 26, &[]),
            (false, 27, &[]),
            (false, 28, &["home-away cottage"]),
        ] {
            let now = start + Duration::from_hours(hours_later);
            assert_eq!(raised(&mut watch, &seen(connected, 0), now), told, "{hours_later} h");
        }
    }

    #[test]
    fn a_spool_is_told_of_when_it_is_half_full_and_forgiven_when_it_is_not() {
        let now = Clock::real().now();
        let mut watch = Watch::default();
        assert!(raised(&mut watch, &seen(true, 499), now).is_empty());
        assert_eq!(raised(&mut watch, &seen(true, 500), now), ["spool-half-full cottage"]);
        let clear = Verdict::Clear("spool-half-full", "cottage".into());
        assert!(!watch.look(&[seen(true, 450)], now).contains(&clear));
        assert!(watch.look(&[seen(true, 399)], now).contains(&clear));
    }
}
