//! The verb `Relay`: one message of a home to one next hop, each recipient's reply back verbatim.
//! The message streams through; its digest is checked before the final dot, and a broken tunnel
//! means that no dot goes out at all.

pub mod attempts;
pub mod exchangers;
mod hosts;
pub mod policies;
mod report;
mod security;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::{Sessions, Vouched};
use gatepost_protocol::smtp::client::reuse::ReuseLimits;
use gatepost_protocol::tunnel::frame::{Frame, FrameError};
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferError};
use gatepost_protocol::tunnel::verb::relay::{AttemptRequest, AttemptState, Relay, RelayStep, WireHop};
use gatepost_protocol::tunnel::wire::WireOutcome;
use gatepost_runtime::attempt::pool::{Place, Pool};
use gatepost_runtime::attempt::{Attempt, Started};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::dnssec::Validator;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::{Stream, StreamError};
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{debug, error, info, warn};

use self::attempts::{AttemptError, Attempts};
use self::hosts::{Finder, Route, Unusable};
use self::policies::Policies;
use self::report::Ended;
use self::security::{Security, Unknown};
use crate::homes::{Home, Homes};

/// How long the home may take to send the next bytes of a message.
const HOME_WAIT_MAX: Duration = Duration::from_mins(2);

/// Messages of a home that may wait or look for a host, for each one that may be going out.
const WAITING_PER_RUNNING: usize = 4;
/// Sends mail into the world for homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    finder: Finder,
    pool: Pool,
    attempts: Attempts,
    clock: Clock,
    places: Mutex<Rooms>,
}

/// Room for the messages of each home.
#[derive(Debug)]
struct Rooms {
    relays_max: usize,
    of: HashMap<String, Arc<Places>>,
}

/// Room for the messages of one home.
#[derive(Debug)]
struct Places {
    /// Those that go out: a host has greeted.
    running: Semaphore,
    /// All of them. Hosts that never answer hold a seat and no place: they keep nobody from going out.
    seats: Semaphore,
}

/// Why an attempt was broken off: no dot was sent, and the home is told nothing (it sees the stream end).
#[derive(Debug, Error)]
enum BrokenOff {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the home sent nothing for too long")]
    Silent,
    #[error("the home gave it up")]
    Aborted,
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("fields to be written in front can't be sent with a message that is under way")]
    Front,
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("the program is ending")]
    Ending,
}

impl Sender {
    /// Sends as `hostname`, at most `relays_max` messages at once for each home.
    pub fn new(
        hostname: Domain,
        (resolver, validator, policies): (Resolver, Validator, Policies),
        attempts: Attempts,
        clock: Clock,
        ipv6: bool,
        homes: Homes,
        relays_max: usize,
    ) -> Self {
        let security = Security::new(validator, policies);
        let finder = Finder::new(hostname, (resolver, security), clock.clone(), ipv6, homes);
        let limits = ReuseLimits::default();
        let limits = ReuseLimits { per_key_max: limits.per_key_max.min(relays_max), ..limits };
        let pool = Pool::new(limits, clock.clone());
        let places = Mutex::new(Rooms { relays_max, of: HashMap::new() });
        Self(Arc::new(Inner { finder, pool, attempts, clock, places }))
    }

    /// What holds from the next message on; those under way keep the places they have.
    pub fn reload(&self, ipv6: bool, relays_max: usize) {
        self.0.finder.set_ipv6(ipv6);
        let mut rooms = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.relays_max != relays_max {
            *rooms = Rooms { relays_max, of: HashMap::new() };
        }
    }

    /// Remembers the attempts of this home too. Blocking.
    pub fn add(&self, home: &str) -> Result<(), gatepost_runtime::durable::DurableError> {
        self.0.attempts.add(home)
    }

    fn places(&self, home: &str) -> Arc<Places> {
        let mut rooms = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let relays_max = rooms.relays_max;
        let new = || {
            Arc::new(Places {
                running: Semaphore::new(relays_max),
                seats: Semaphore::new(relays_max.saturating_mul(1 + WAITING_PER_RUNNING)),
            })
        };
        rooms.of.entry(home.to_owned()).or_insert_with(new).clone()
    }

    /// Where our own doors are, of those that are open: 25 takes what one of our homes sends to another, and no route
    /// leads to either.
    pub fn own_doors(&self, smtp: Option<SocketAddr>, submissions: Option<SocketAddr>) {
        self.0.finder.own_doors(smtp, submissions);
    }

    /// Writes down what was learnt of other domains, until draining begins.
    pub async fn keep_up(self, signal: Signal) {
        self.0.finder.policies().clone().keep_up(signal).await;
    }

    /// Writes it down now. Blocking.
    pub fn keep(&self) {
        self.0.finder.policies().keep();
    }

    /// Says goodbye on every connection that is kept. What is under way is left alone.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }

    /// Serves one `Relay`, in this version of the tunnel.
    pub async fn relay(&self, home: Arc<Home>, relay: Relay, version: u16, mut stream: Stream) {
        let trace = TraceId::from_random(relay.trace);
        let attempt = relay.attempt;
        let hop = match &relay.hop {
            WireHop::Domain(domain) | WireHop::Demanding { domain, .. } => domain.clone(),
            WireHop::Host { host, port, .. } => format!("{host}:{port}"),
        };
        let begun = self.0.clock.now();
        match self.serve(&home, relay, &mut stream).await {
            Ok(Ended { done, facts, kept }) => {
                let count = |is: fn(&WireOutcome) -> bool| done.outcomes.iter().filter(|outcome| is(outcome)).count();
                let reply = done.outcomes.last().map(|outcome| match outcome {
                    WireOutcome::Accepted(reply) | WireOutcome::Deferred(reply) | WireOutcome::Refused(reply) => {
                        Reply::from(reply.clone()).to_string()
                    }
                });
                let took = self.0.clock.now().saturating_duration_since(begun);
                info!(
                    %trace,
                    %attempt,
                    home = home.name(),
                    hop,
                    remote = done.remote,
                    tls = done.remote.as_ref().map(|_| done.tls.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
                    vouched = done.remote.as_ref().map(|_| Vouched::from(facts.vouched).word()),
                    accepted = count(|outcome| matches!(outcome, WireOutcome::Accepted(_))),
                    deferred = count(|outcome| matches!(outcome, WireOutcome::Deferred(_))),
                    refused = count(|outcome| matches!(outcome, WireOutcome::Refused(_))),
                    reused = facts.reused,
                    took_ms = u64::try_from(took.as_millis()).ok(),
                    reply,
                    "relayed"
                );
                let step = Ended { done, facts, kept: None }.step(version);
                let told = async {
                    // If this does not arrive, the home asks for the attempt.
                    if stream.send(&step).await.is_ok() {
                        stream.finish().await;
                    }
                };
                let durable = async {
                    if let Some(kept) = kept
                        && let Err(error) = kept.durable().await
                    {
                        error!(%trace, %attempt, home = home.name(), %error, "the outcome of an attempt can't be kept");
                    }
                };
                tokio::join!(told, durable);
            }
            Err(error) => warn!(%trace, %attempt, home = home.name(), hop, %error, "relay broken off"),
        }
    }

    /// Serves one `Attempt`, in this version of the tunnel.
    pub async fn attempt(&self, home: Arc<Home>, request: AttemptRequest, version: u16, mut stream: Stream) {
        let state = match request {
            AttemptRequest::State(attempt) => report::told(self.0.attempts.state(home.name(), attempt), version),
            AttemptRequest::Forget(attempt) => {
                self.0.attempts.forget(home.name(), attempt);
                AttemptState::Unknown
            }
        };
        if stream.send(&state).await.is_ok() {
            stream.finish().await;
        }
    }

    async fn serve(&self, home: &Arc<Home>, relay: Relay, stream: &mut Stream) -> Result<Ended, BrokenOff> {
        let mut running = self.0.attempts.begin(home.name(), relay.attempt)?;
        let trace = TraceId::from_random(relay.trace);
        let envelope = Envelope::try_from(relay.envelope).map_err(|error| BrokenOff::Malformed(error.0))?;
        if let Some(sender) = envelope.reverse_path.address()
            && !home.serves(sender.domain())
        {
            // A home speaks for its own domains only, here as in its directory.
            return Ok(Ended::ours(&envelope, Reply::sender_not_of_home(&sender.to_string())));
        }
        let places = self.places(home.name());
        let Ok(_seat) = places.seats.try_acquire() else {
            return Ok(Ended::ours(&envelope, Reply::too_many_relays()));
        };
        let finder = &self.0.finder;
        let route = match while_asked(stream, finder.route(home, relay.hop)).await? {
            Ok(route) => route,
            Err(Unknown { reply, sessions }) => return Ok(Ended::ours(&envelope, reply).after(&sessions)),
        };
        let mut sessions = Sessions::default();
        let destination = route.destination(home, finder.ipv6());
        let Some(mut place) = while_asked(stream, self.0.pool.place(destination)).await? else {
            return Ok(Ended::ours(&envelope, Reply::too_many_relays()));
        };
        let mut kept = place.kept();
        loop {
            let reused = kept.is_some();
            let mut attempt = match kept.take() {
                Some(attempt) => attempt,
                None => {
                    match while_asked(stream, self.connect(home, &route, &mut place, trace, &mut sessions)).await? {
                        Ok(attempt) => attempt,
                        Err(Unusable { outcome, remote }) => {
                            return Ok(Ended::all(&envelope, outcome, remote).after(&sessions));
                        }
                    }
                }
            };
            let _running = while_asked(stream, places.running.acquire()).await?.map_err(|_| BrokenOff::Ending)?;
            let start = attempt.start(envelope.clone(), relay.octets, relay.eight_bit);
            match while_asked(stream, start).await? {
                // Nothing was promised on it: the message goes over a new one.
                Started::Done(_) if reused && !attempt.is_ready() => {
                    debug!(remote = attempt.remote(), "a kept connection was no good any more");
                }
                Started::Done(outcomes) => {
                    let ended = Ended::over(&outcomes, &attempt, reused).after(&sessions);
                    place.give_back(attempt);
                    return Ok(ended);
                }
                Started::Body => {
                    stream.send(&RelayStep::Ready).await?;
                    stream.flush().await?;
                    // Should anything fail from here on, the attempt is dropped: the connection closes
                    // without a final dot, and the remote host forgets the message.
                    pass_on(&self.0.clock, stream, &mut attempt).await?;
                    running.dot().await?;
                    let mut end = Ended::over(&attempt.finish().await, &attempt, reused).after(&sessions);
                    place.give_back(attempt);
                    end.kept = running.ended(&end.done, &end.facts);
                    return Ok(end);
                }
            }
        }
    }

    async fn connect(
        &self,
        home: &Home,
        route: &Route,
        place: &mut Place,
        trace: TraceId,
        sessions: &mut Sessions,
    ) -> Result<Attempt, Unusable> {
        let attempt = self.0.finder.connect(home, route, trace, sessions).await?;
        place.opened();
        Ok(attempt)
    }
}

/// Does what comes before the message for as long as the home's stream is there: nobody is left to send
/// for once it ended.
async fn while_asked<T>(stream: &mut Stream, work: impl Future<Output = T>) -> Result<T, BrokenOff> {
    tokio::select! {
        frame = stream.frame() => match frame {
            Ok(_) => Err(BrokenOff::Malformed("the message came before it was asked for")),
            Err(error) => Err(error.into()),
        },
        done = work => Ok(done),
    }
}

/// Passes the message on as it comes, at the pace of the slower side; returns when it was whole.
async fn pass_on(clock: &Clock, stream: &mut Stream, attempt: &mut Attempt) -> Result<(), BrokenOff> {
    let mut tally = Tally::default();
    loop {
        let frame = clock.timeout(HOME_WAIT_MAX, stream.frame()).await.ok_or(BrokenOff::Silent)??;
        match frame {
            Frame::Data(data) => {
                tally.add(&data);
                attempt.body(data).await;
            }
            Frame::Record(_) => {
                let end: TransferEnd = frame.record().map_err(|error: FrameError| StreamError::from(error))?;
                return match end {
                    TransferEnd::Abort => Err(BrokenOff::Aborted),
                    TransferEnd::Whole(seal) | TransferEnd::Judged(seal, _) if !seal.front.is_empty() => {
                        Err(BrokenOff::Front)
                    }
                    TransferEnd::Whole(seal) | TransferEnd::Judged(seal, _) => Ok(tally.check(&seal)?),
                };
            }
        }
    }
}
