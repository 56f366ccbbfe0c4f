//! The verb `Relay`: one message of a home to one next hop, each recipient's reply back verbatim.
//! The message streams through; its digest is checked before the final dot, and a broken tunnel
//! means that no dot goes out at all.

pub mod attempts;
pub mod exchangers;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, StartTls};
use gatepost_protocol::tunnel::frame::{Frame, FrameError, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferError};
use gatepost_protocol::tunnel::verb::relay::{
    AttemptRequest, AttemptState, Relay, RelayDone, RelayFacts, RelayStep, WireHop, WireHopTls,
};
use gatepost_protocol::tunnel::wire::{WireOutcome, WireReply, WireTls};
use gatepost_runtime::attempt::{Attempt, Started, Target, Tls};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::tunnel::{Stream, StreamError};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use self::attempts::{AttemptError, Attempts, Running};
use self::exchangers::Nowhere;
use crate::homes::{Home, Homes};

/// How long a host may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long hosts may be tried before the home is told to try again later; one that greets is not cut off.
const TRYING_MAX: Duration = Duration::from_mins(10);
/// How long the home may take to send the next bytes of a message.
const HOME_WAIT_MAX: Duration = Duration::from_mins(2);

/// Since this version of the tunnel a home is told [`RelayFacts`].
const FACTS_SINCE: u16 = 2;

/// Messages of a home that may wait for each one that may be going out.
const WAITING_PER_RUNNING: usize = 4;
/// Octets of a `RelayDone` and its `RelayFacts` besides its outcomes, at most: where it was sent, TLS, and the record's own.
const REST_OCTETS_MAX: usize = 4 * 1024;
/// Octets of the host's name and address in it.
const REMOTE_OCTETS_MAX: usize = 1024;
/// Octets of one outcome besides its text: the judgement, codes of at most three octets each, their
/// option, how many lines.
const CODES_OCTETS_MAX: usize = 16;

/// Sends mail into the world for homes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hostname: Domain,
    resolver: Resolver,
    attempts: Attempts,
    clock: Clock,
    ipv6: bool,
    places: Mutex<HashMap<String, Arc<Places>>>,
    relays_max: usize,
    homes: Homes,
    /// Where our own door 25 can be reached, if it is open.
    own_door: OnceLock<SocketAddr>,
}

/// Room for the messages of one home.
#[derive(Debug)]
struct Places {
    running: Semaphore,
    waiting: Semaphore,
}

/// Why an attempt was broken off: no dot was sent, and the home is told nothing (it sees the stream end).
#[derive(Debug, Error)]
enum BrokenOff {
    #[error("{0}")]
    Stream(#[from] StreamError),
    #[error("the home sent nothing for too long")]
    Silent,
    #[error("the home gave it up")]
    Aborted,
    #[error("{0}")]
    Transfer(#[from] TransferError),
    #[error("fields to be written in front can't be sent with a message that is under way")]
    Front,
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Disk(#[from] gatepost_runtime::durable::DurableError),
    #[error("the program is ending")]
    Ending,
}

/// How an attempt ended, and what else is known of it.
#[derive(Debug)]
struct Ended {
    done: RelayDone,
    facts: RelayFacts,
}

impl Ended {
    /// As it is told in this version of the tunnel.
    fn step(self, version: u16) -> RelayStep {
        if version >= FACTS_SINCE { RelayStep::Ended(self.done, self.facts) } else { RelayStep::Done(self.done) }
    }
}

/// A state as it is told in this version of the tunnel.
fn told(state: AttemptState, version: u16) -> AttemptState {
    match state {
        AttemptState::EndedWith(done, _) if version < FACTS_SINCE => AttemptState::Ended(done),
        state => state,
    }
}

impl From<RelayDone> for Ended {
    /// No host was spoken to, or none that matters.
    fn from(done: RelayDone) -> Self {
        Self { done, facts: RelayFacts::default() }
    }
}

/// A host to try.
struct Hop {
    host: String,
    address: SocketAddr,
    tls: Tls,
    login: Option<(String, Secret)>,
}

impl Sender {
    /// Sends as `hostname`, at most `relays_max` messages at once for each home.
    pub fn new(
        hostname: Domain,
        resolver: Resolver,
        attempts: Attempts,
        clock: Clock,
        ipv6: bool,
        homes: Homes,
        relays_max: usize,
    ) -> Self {
        let (places, own_door) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Inner { hostname, resolver, attempts, clock, ipv6, places, relays_max, homes, own_door }))
    }

    /// Remembers the attempts of this home too. Blocking.
    pub fn add(&self, home: &str) -> Result<(), gatepost_runtime::durable::DurableError> {
        self.0.attempts.add(home)
    }

    fn places(&self, home: &str) -> Arc<Places> {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Places {
                running: Semaphore::new(self.0.relays_max),
                waiting: Semaphore::new(self.0.relays_max.saturating_mul(WAITING_PER_RUNNING)),
            })
        };
        places.entry(home.to_owned()).or_insert_with(new).clone()
    }

    /// Our own door 25 is open here: it takes what one of our homes sends to another. Said once.
    pub fn own_door(&self, bound: SocketAddr) {
        let ip = if bound.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound.ip() };
        let _ = self.0.own_door.set(SocketAddr::new(ip, bound.port()));
    }

    /// Serves one `Relay`, in this version of the tunnel.
    pub async fn relay(&self, home: Arc<Home>, relay: Relay, version: u16, mut stream: Stream) {
        let trace = TraceId::from_random(relay.trace);
        let attempt = relay.attempt;
        let hop = match &relay.hop {
            WireHop::Domain(domain) => domain.clone(),
            WireHop::Host { host, port, .. } => format!("{host}:{port}"),
        };
        let begun = self.0.clock.now();
        match self.serve(&home, relay, &mut stream).await {
            Ok(Ended { done, facts }) => {
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
                    accepted = count(|outcome| matches!(outcome, WireOutcome::Accepted(_))),
                    deferred = count(|outcome| matches!(outcome, WireOutcome::Deferred(_))),
                    refused = count(|outcome| matches!(outcome, WireOutcome::Refused(_))),
                    took_ms = u64::try_from(took.as_millis()).ok(),
                    reply,
                    "relayed"
                );
                // If this does not arrive, the home asks for the attempt.
                if stream.send(&Ended { done, facts }.step(version)).await.is_ok() {
                    stream.finish().await;
                }
            }
            Err(error) => warn!(%trace, %attempt, home = home.name(), hop, %error, "relay broken off"),
        }
    }

    /// Serves one `Attempt`, in this version of the tunnel.
    pub async fn attempt(&self, home: Arc<Home>, request: AttemptRequest, version: u16, mut stream: Stream) {
        let state = match request {
            AttemptRequest::State(attempt) => told(self.0.attempts.state(home.name(), attempt), version),
            AttemptRequest::Forget(attempt) => {
                let (sender, name) = (self.clone(), home.name().to_owned());
                match spawn_blocking(move || sender.0.attempts.forget(&name, attempt)).await {
                    Ok(Ok(())) => AttemptState::Unknown,
                    Ok(Err(error)) => {
                        warn!(%attempt, home = home.name(), %error, "an attempt can't be forgotten");
                        return;
                    }
                    Err(_) => return,
                }
            }
        };
        if stream.send(&state).await.is_ok() {
            stream.finish().await;
        }
    }

    async fn serve(&self, home: &Arc<Home>, relay: Relay, stream: &mut Stream) -> Result<Ended, BrokenOff> {
        let trace = TraceId::from_random(relay.trace);
        let running = self.0.attempts.begin(home.name(), relay.attempt)?;
        let envelope = Envelope::try_from(relay.envelope).map_err(|error| BrokenOff::Malformed(error.0))?;
        if let Some(sender) = envelope.reverse_path.address()
            && !home.serves(sender.domain())
        {
            // A home speaks for its own domains only, here as in its directory.
            return Ok(all(&envelope, &Reply::sender_not_of_home(&sender.to_string())).into());
        }
        let places = self.places(home.name());
        let _place = if let Ok(place) = places.running.try_acquire() {
            place
        } else {
            let Ok(_seat) = places.waiting.try_acquire() else {
                return Ok(all(&envelope, &Reply::too_many_relays()).into());
            };
            while_asked(stream, places.running.acquire()).await?.map_err(|_| BrokenOff::Ending)?
        };
        let named = matches!(relay.hop, WireHop::Host { .. });
        let hops = match while_asked(stream, self.hops(home, relay.hop)).await? {
            Ok(hops) => hops,
            Err(reply) => return Ok(all(&envelope, &reply).into()),
        };
        let (mut attempt, exchanger) = match while_asked(stream, self.connect(trace, home, hops)).await? {
            Ok(connected) => connected,
            Err(Unusable { reply, remote }) => {
                let outcome = unusable(reply, named);
                return Ok(fitted(&vec![outcome; envelope.recipients.len()], remote, None).into());
            }
        };
        match while_asked(stream, attempt.start(envelope, relay.octets, relay.eight_bit)).await? {
            Started::Done(outcomes) => {
                let ended = done(&outcomes, &attempt, exchanger);
                tokio::spawn(attempt.quit());
                Ok(ended)
            }
            Started::Body => {
                stream.send(&RelayStep::Ready).await?;
                stream.flush().await?;
                // Should anything fail from here on, the attempt is dropped: the connection closes
                // without a final dot, and the remote host forgets the message.
                pass_on(&self.0.clock, stream, &mut attempt).await?;
                let running = dot(running).await?;
                let end = done(&attempt.finish().await, &attempt, exchanger);
                tokio::spawn(attempt.quit());
                ended(running, end).await
            }
        }
    }

    async fn hops(&self, home: &Home, hop: WireHop) -> Result<Vec<Hop>, Reply> {
        let inner = &self.0;
        match hop {
            WireHop::Domain(name) => {
                let domain = Domain::parse(&name).map_err(|_| Reply::no_such_domain(&name))?;
                let targets = match exchangers::find(&inner.resolver, &domain, &inner.hostname, inner.ipv6).await {
                    Ok(targets) => targets,
                    Err(Nowhere::Reply(reply)) => return Err(reply),
                    Err(Nowhere::Ourselves) => vec![self.to_neighbour(home, &domain)?],
                };
                let hop = |target: exchangers::Target| Hop {
                    host: target.host,
                    address: target.address,
                    tls: Tls::Opportunistic,
                    login: None,
                };
                Ok(targets.into_iter().map(hop).collect())
            }
            // Named by the home's owner.
            WireHop::Host { host, port, tls, login } => {
                let mut addresses = if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
                    vec![ip]
                } else {
                    let found = inner.resolver.addresses(&host, true).await;
                    found.map_err(|error| Reply::dns_failed(&error.to_string()))?
                };
                if addresses.is_empty() {
                    return Err(Reply::dns_failed(&format!("{host} has no address")));
                }
                if !home.private_routes() {
                    // Beside other homes, it may be a guest's: this machine and its network are not theirs.
                    addresses.retain(|ip| exchangers::is_public(*ip));
                    if addresses.is_empty() {
                        return Err(Reply::private_route(&host));
                    }
                }
                // Whether this machine reaches IPv6 is what `outbound_ipv6` says; still, a host may have nothing else.
                addresses.sort_by_key(|ip| ip.is_ipv6() && !inner.ipv6);
                let tls = match tls {
                    WireHopTls::Opportunistic => Tls::Opportunistic,
                    WireHopTls::StartTls => Tls::StartTls,
                    WireHopTls::Implicit => Tls::Implicit,
                    WireHopTls::Off => Tls::Off,
                };
                let login = login.map(|(name, password)| (name, Secret::new(password)));
                let hop =
                    |ip| Hop { host: host.clone(), address: SocketAddr::new(ip, port), tls, login: login.clone() };
                Ok(addresses.into_iter().take(exchangers::TARGETS_MAX).map(hop).collect())
            }
        }
    }

    /// A domain whose mail comes to this edge: another home's goes in by our own door, like all mail from
    /// the world; anybody else's would go in circles.
    fn to_neighbour(&self, home: &Home, domain: &Domain) -> Result<exchangers::Target, Reply> {
        let neighbour = self.0.homes.of_domain(domain).filter(|owner| owner.name() != home.name());
        if neighbour.is_none() {
            return Err(Reply::forbidden_target(domain.as_str()));
        }
        let address = self.0.own_door.get().ok_or_else(|| Reply::own_door_shut(domain.as_str()))?;
        Ok(exchangers::Target { host: self.0.hostname.to_string(), address: *address })
    }

    /// Tries hosts in order until one greets, with the group of receivers it belongs to; else the reply that decides, and which host's it was.
    async fn connect(&self, trace: TraceId, home: &Home, hops: Vec<Hop>) -> Result<(Attempt, String), Unusable> {
        let mut decisive = Unusable { reply: Reply::unreachable("No host to send to"), remote: None };
        let mut tried = 0;
        let begun = self.0.clock.now();
        for hop in hops {
            if self.0.clock.now().saturating_duration_since(begun) > TRYING_MAX {
                let late = Reply::unreachable("The hosts tried so far were not usable, the others are for later");
                return Err(decisive.or(Unusable { reply: late, remote: None }, tried));
            }
            let config = ClientConfig {
                helo: self.0.hostname.to_string(),
                protocol: Protocol::Smtp,
                // The attempt sets it by the target's TLS.
                starttls: StartTls::Opportunistic,
                login: hop.login,
                nonce: random::bytes(),
                limits: ClientLimits::default(),
            };
            let remote = format!("{} [{}]:{}", hop.host, hop.address.ip(), hop.address.port());
            let target = Target {
                host: hop.host,
                address: hop.address,
                tls: hop.tls,
                roots: Vec::new(),
                connect_wait_max: CONNECT_MAX,
            };
            match Attempt::connect(&target, config, self.0.clock.clone()).await {
                Ok(attempt) => return Ok((attempt, exchangers::group(&target.host, target.address.ip()))),
                Err(failure) => {
                    info!(%trace, home = home.name(), remote, stage = ?failure.stage, reply = %failure.reply, "a mail host was not usable");
                    decisive = decisive.or(Unusable { reply: failure.reply, remote: Some(remote) }, tried);
                    tried += 1;
                }
            }
        }
        Err(decisive)
    }
}

/// No host of a message's was usable: the reply that decides, and whose it was.
struct Unusable {
    reply: Reply,
    remote: Option<String>,
}

impl Unusable {
    /// Of `tried` hosts so far `self` decides; now there is another. While one of them may still take
    /// the message nothing is final (RFC 5321 §5.1), so the last temporary failure wins, else the last.
    fn or(self, another: Self, tried: usize) -> Self {
        let is_final = |one: &Self| one.reply.class() == Class::Permanent;
        if tried > 0 && !is_final(&self) && is_final(&another) { self } else { another }
    }
}

/// What a host's words before any transaction come to. A host the owner named speaks about the owner's
/// config then: never the message's fault, so never final.
fn unusable(reply: Reply, named: bool) -> Outcome {
    if named { Outcome::Deferred(reply) } else { Outcome::of(reply) }
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
                    TransferEnd::Whole(seal) if !seal.front.is_empty() => Err(BrokenOff::Front),
                    TransferEnd::Whole(seal) => Ok(tally.check(&seal)?),
                };
            }
        }
    }
}

async fn dot(mut running: Running) -> Result<Running, BrokenOff> {
    let dotted = spawn_blocking(move || running.dot().map(|()| running)).await;
    Ok(dotted.map_err(|_| BrokenOff::Ending)??)
}

async fn ended(running: Running, end: Ended) -> Result<Ended, BrokenOff> {
    spawn_blocking(move || {
        running.ended(&end.done, &end.facts);
        end
    })
    .await
    .map_err(|_| BrokenOff::Ending)
}

fn done(outcomes: &[Outcome], attempt: &Attempt, exchanger: String) -> Ended {
    let facts = RelayFacts { dsn: attempt.offered().dsn, reused: false, exchanger: Some(exchanger) };
    Ended { done: fitted(outcomes, Some(attempt.remote()), attempt.tls().map(WireTls::from)), facts }
}

/// The same for every recipient.
fn all(envelope: &Envelope, reply: &Reply) -> RelayDone {
    fitted(&vec![Outcome::of(reply.clone()); envelope.recipients.len()], None, None)
}

/// Within the bound of a record for certain: one that is too big would never reach the home, which
/// would ask for ever. Each reply keeps its codes and as much of its text as is its share.
fn fitted(outcomes: &[Outcome], remote: Option<String>, tls: Option<WireTls>) -> RelayDone {
    let share = (RECORD_OCTETS_MAX - REST_OCTETS_MAX) / outcomes.len().max(1);
    let cut = |outcome: &Outcome| {
        let cut = |reply: &Reply| WireReply::from(&reply.clone().cut(share.saturating_sub(CODES_OCTETS_MAX)));
        match outcome {
            Outcome::Accepted(reply) => WireOutcome::Accepted(cut(reply)),
            Outcome::Deferred(reply) => WireOutcome::Deferred(cut(reply)),
            Outcome::Refused(reply) => WireOutcome::Refused(cut(reply)),
        }
    };
    let mut remote = remote;
    if let Some(remote) = &mut remote {
        remote.truncate(remote.floor_char_boundary(REMOTE_OCTETS_MAX));
    }
    RelayDone { outcomes: outcomes.iter().map(cut).collect(), remote, tls }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::reply::{Enhanced, REPLY_LINES_MAX, REPLY_OCTETS_MAX};
    use gatepost_protocol::tunnel::frame;
    use gatepost_protocol::tunnel::verb::relay::AttemptState;
    use gatepost_protocol::tunnel::wire::RECIPIENTS_MAX;

    use super::*;

    #[test]
    fn whatever_the_remote_host_says_the_outcome_fits_a_record() {
        let line = "\u{fc}".repeat(REPLY_OCTETS_MAX / REPLY_LINES_MAX / 2);
        let long = Reply::new(599, Some(Enhanced(5, 999, 999)), vec![line; REPLY_LINES_MAX]);
        for text in [long, Reply::new(550, Some(Enhanced(5, 999, 999)), vec![String::new(); REPLY_LINES_MAX])] {
            for recipients in [1, 100, RECIPIENTS_MAX] {
                let outcomes = vec![Outcome::of(text.clone()); recipients];
                let name = || "x".repeat(64);
                let tls = WireTls { version: name(), cipher: name(), group: name() };
                let done = fitted(&outcomes, Some("h".repeat(RECORD_OCTETS_MAX)), Some(tls));
                let mut record = bytes::BytesMut::new();
                frame::put_record(&mut record, &AttemptState::Ended(done.clone()), RECORD_OCTETS_MAX).expect("fits");
                let WireOutcome::Refused(reply) = done.outcomes[recipients - 1].clone() else { panic!("refused") };
                assert_eq!(Reply::from(reply).code(), text.code());
            }
        }
    }

    #[test]
    fn one_host_that_may_still_take_it_keeps_the_rest_from_being_final() {
        let (never, later) = (Reply::unknown_recipient(), Reply::no_room());
        let decided = |replies: &[&Reply]| {
            let mut decisive = Unusable { reply: Reply::unreachable("nobody asked yet"), remote: None };
            for (tried, &reply) in replies.iter().enumerate() {
                decisive = decisive.or(Unusable { reply: reply.clone(), remote: None }, tried);
            }
            decisive.reply
        };
        assert_eq!(decided(&[&later, &never]), later);
        assert_eq!(decided(&[&never, &later, &never]), later);
        assert_eq!(decided(&[&never, &never]), never);
        assert_eq!(decided(&[&never]), never);
    }

    #[test]
    fn an_outcome_of_usual_size_is_kept_verbatim() {
        let outcome = Outcome::of(Reply::new(550, None, vec!["x".repeat(200)]));
        let done = fitted(&vec![outcome.clone(); RECIPIENTS_MAX], Some("mx [192.0.2.1]:25".into()), None);
        assert_eq!(done.outcomes[0], WireOutcome::from(&outcome));
        assert_eq!(done.remote.as_deref(), Some("mx [192.0.2.1]:25"));
    }

    #[test]
    fn a_home_of_the_first_version_is_told_no_word_it_does_not_know() {
        let done = || RelayDone { outcomes: Vec::new(), remote: None, tls: None };
        let facts = || RelayFacts { dsn: true, ..RelayFacts::default() };
        let ended = || Ended { done: done(), facts: facts() };
        assert_eq!(ended().step(1), RelayStep::Done(done()));
        assert_eq!(ended().step(2), RelayStep::Ended(done(), facts()));
        assert_eq!(told(AttemptState::EndedWith(done(), facts()), 1), AttemptState::Ended(done()));
        assert_eq!(told(AttemptState::EndedWith(done(), facts()), 2), AttemptState::EndedWith(done(), facts()));
        assert_eq!(told(AttemptState::Ended(done()), 2), AttemptState::Ended(done()));
    }
}
