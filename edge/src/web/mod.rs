//! What the edge says on 80 and 443: answers to the challenges of CAs, its own and its homes', and what homes have it tell
//! other mail hosts and mail programs. Everything else is not found. It keeps nothing of who asks.

mod documents;
pub mod names;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::challenge::{Challenge, ChallengeAnswer, is_token};
use gatepost_runtime::acme::challenges::Challenges;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::tunnel::StreamError;
use gatepost_runtime::web::{Asked, Page};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use crate::admission::rates::Rate;
use crate::config::{EdgeLimits, PerMinute};
use crate::homes::{Home, Homes};

/// Where a CA looks (RFC 8555 §8.3).
const CHALLENGE: &str = "/.well-known/acme-challenge/";
/// A home that does not know the answer in this time does not know it: CAs wait some ten seconds.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Questions carried to homes at once: a CA asks from some five places at once, a flood is told to come again.
const ASKING_MAX: usize = 32;

/// Connections in a minute are so many times what 25 allows: a mail program comes once in its life, a CA some ten
/// times for each name.
const PER_MINUTE_TIMES: usize = 2;

/// The answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Site {
    challenges: Challenges,
    homes: Homes,
    asking: Arc<Semaphore>,
    rate: Arc<Mutex<(Rate, PerMinute)>>,
    clock: Clock,
}

impl Site {
    /// `challenges` are the edge's own.
    pub fn new(challenges: Challenges, homes: Homes, limits: &EdgeLimits, clock: Clock) -> Self {
        let rate = Arc::new(Mutex::new((Rate::default(), per_minute(limits))));
        Self { challenges, homes, asking: Arc::new(Semaphore::new(ASKING_MAX)), rate, clock }
    }

    /// From now on, other limits.
    pub fn set_limits(&self, limits: &EdgeLimits) {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).1 = per_minute(limits);
    }

    /// What is proven here by certificate.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether one more connection may come from there now; if so, it is counted.
    pub fn may_come(&self, client: IpAddr) -> bool {
        // Each change is whole in itself.
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, per_minute) = &mut *rate;
        rate.take(self.clock.now(), client, *per_minute)
    }

    /// The answer.
    pub async fn answer(&self, asked: Asked) -> Page {
        match asked.path.strip_prefix(CHALLENGE) {
            Some(token) if !asked.post && is_token(token) => self.challenge(token, &asked.host).await,
            Some(_) => Page::not_found(),
            None => self.document(&asked).unwrap_or_else(Page::not_found),
        }
    }

    /// What the home of the domain says that the host is of.
    fn document(&self, asked: &Asked) -> Option<Page> {
        documents::sites(&asked.host).find_map(|(domain, site)| {
            let directory = self.homes.of_domain(&domain)?.directory()?;
            // A home that no longer serves a domain says nothing of it.
            directory.domains.contains_key(&domain).then_some(())?;
            documents::answer(asked, &domain, site, &directory)
        })
    }

    async fn challenge(&self, token: &str, host: &str) -> Page {
        const KIND: &str = "application/octet-stream";
        if let Some(authorization) = self.challenges.file(token) {
            return Page::new(KIND, authorization);
        }
        let Ok(_asking) = self.asking.try_acquire() else { return Page::unavailable() };
        let mut asked: JoinSet<_> = self
            .homes
            .all()
            .into_iter()
            .map(|home| ask(home, Challenge { token: token.to_owned() }, self.clock.clone()))
            .collect();
        while let Some(answered) = asked.join_next().await {
            if let Ok(Some(authorization)) = answered {
                debug!(host, "a home answered a CA");
                return Page::new(KIND, authorization);
            }
        }
        Page::not_found()
    }
}

fn per_minute(limits: &EdgeLimits) -> PerMinute {
    let PerMinute { network, all } = limits.connections_per_minute;
    PerMinute { network: network * PER_MINUTE_TIMES, all: all * PER_MINUTE_TIMES }
}

/// What a home that is connected says in time.
async fn ask(home: Arc<Home>, challenge: Challenge, clock: Clock) -> Option<String> {
    let session = home.session()?;
    let answered = async {
        let mut stream = session.open(&Request::Challenge(challenge)).await?;
        stream.flush().await?;
        let answer = stream.record::<ChallengeAnswer>().await?;
        stream.finish().await;
        Ok::<_, StreamError>(answer)
    };
    clock.timeout(ANSWER_WAIT_MAX, answered).await?.ok()?.shown()
}
