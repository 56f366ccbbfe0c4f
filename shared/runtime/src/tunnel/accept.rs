//! The accepting side: who connects proves a key, is looked up, says hello, and waits until the
//! session's three connections are there. The newest whole session of a key wins, never one of its
//! connections.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::{Refusal, Role};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::connection::Side;
use super::greeting::{self, Greeted};
use super::pairing::{Pairing, Visitor};
use super::session::{Session, SessionFacts};
use super::transport::{self, Alpn, Secured, Tls};
use super::{Incoming, TunnelError};
use crate::clock::Clock;
use crate::identity::Identity;

/// Time for all three connections of a session to be there.
const WHOLE_DEADLINE: Duration = Duration::from_secs(15);
/// Sessions of one key that may be waiting for their other connections.
const PARTIAL_PER_KEY_MAX: usize = 4;

/// Who may be pairing at once; more are let go.
const VISITORS_MAX: usize = 8;

/// Refusals of one address are told once in this time.
const REFUSALS_EVERY: Duration = Duration::from_mins(1);
/// Addresses whose refusals are counted.
const REFUSED_ADDRESSES_MAX: usize = 1024;

type Paired = dyn Fn(NodeKey) -> bool + Send + Sync;

/// The accepting side: gathers connections into sessions.
pub struct Acceptor {
    identity: Arc<Identity>,
    node: String,
    paired: Arc<Paired>,
    pairing: Option<Arc<Pairing>>,
    visitors: Semaphore,
    sessions: mpsc::Sender<(Session, mpsc::Receiver<Incoming>)>,
    clock: Clock,
    partial: Mutex<Vec<Partial>>,
    refusals: Mutex<Refusals>,
    // The live session of each key. Held while a new one is announced, so that the last one
    // announced is the one that won.
    live: tokio::sync::Mutex<HashMap<NodeKey, Session>>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acceptor({})", self.node)
    }
}

/// A session that is not whole yet.
struct Partial {
    peer: NodeKey,
    session: [u8; 16],
    until: Instant,
    connections: [Option<Tls>; 3],
    // Of the control connection.
    facts: Option<SessionFacts>,
    /// Whole or dropped: its waiting connection task may go.
    settled: Arc<Notify>,
}

/// Refusals that were told, so that who tries all the time does not fill the log.
#[derive(Default)]
struct Refusals(HashMap<IpAddr, (Instant, u64)>);

impl Refusals {
    /// Counts one. `Some` if it is to be told now: with how many of this address went unsaid since the last.
    fn note(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        let recent = |told: Instant| now.saturating_duration_since(told) < REFUSALS_EVERY;
        if let Some((told, unsaid)) = self.0.get_mut(&address) {
            if recent(*told) {
                *unsaid += 1;
                return None;
            }
            *told = now;
            return Some(std::mem::take(unsaid));
        }
        if self.0.len() >= REFUSED_ADDRESSES_MAX {
            self.0.retain(|_, (told, _)| recent(*told));
        }
        // So many addresses within a minute: more lines would tell nothing more.
        if self.0.len() >= REFUSED_ADDRESSES_MAX {
            return None;
        }
        self.0.insert(address, (now, 0));
        Some(0)
    }
}

/// What a connection has made of its session.
enum Joined {
    /// It is the first: when the others are there, or the session was dropped, this is notified.
    First(Arc<Notify>),
    /// Neither first nor last.
    Another,
    /// The session's three connections are there.
    Whole(Box<[Tls; 3]>, SessionFacts),
}

/// A connection that has said hello and was answered.
struct Joining {
    secured: Secured<Tls>,
    greeted: Greeted,
    session: [u8; 16],
    role: Role,
    address: SocketAddr,
}

impl Acceptor {
    /// `paired` says whether a key is known. Whole new sessions (with the exchanges their homes begin) go
    /// to `sessions`; an older session of the same key is closed as replaced first.
    pub fn new(
        identity: Arc<Identity>,
        node: String,
        paired: Arc<Paired>,
        sessions: mpsc::Sender<(Session, mpsc::Receiver<Incoming>)>,
        clock: Clock,
    ) -> Self {
        Self {
            identity,
            node,
            paired,
            pairing: None,
            visitors: Semaphore::new(VISITORS_MAX),
            sessions,
            clock,
            partial: Mutex::default(),
            refusals: Mutex::default(),
            live: tokio::sync::Mutex::default(),
        }
    }

    /// Lets homes pair by code too: this serves who comes for it.
    pub fn with_pairing(self, pairing: Arc<Pairing>) -> Self {
        Self { pairing: Some(pairing), ..self }
    }

    /// One accepted connection, until it has become part of a session or was refused. Bounded in time
    /// and memory; who is not paired is told so and costs nothing more.
    pub async fn accept(&self, stream: TcpStream, peer: SocketAddr) {
        // Boxed: a handshake's state is large.
        match Box::pin(self.greet(stream, peer)).await {
            Ok(Some(joining)) => self.join(joining).await,
            Ok(None) => {}
            Err(TunnelError::Refused(refusal)) => {
                if let Some(unsaid) = self.to_be_told(peer) {
                    tracing::warn!(%peer, unsaid, "no tunnel: {refusal}");
                }
            }
            // Whoever scans ports ends here: worth a line to who looks for it.
            Err(error) => tracing::info!(%peer, "no tunnel: {error}"),
        }
    }

    /// `Some` if a refusal of this address is to be told now: with how many went unsaid since the last.
    fn to_be_told(&self, peer: SocketAddr) -> Option<u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).note(peer.ip(), self.clock.now())
    }

    /// Who came to pair has nothing to join.
    async fn greet(&self, tcp: TcpStream, address: SocketAddr) -> Result<Option<Joining>, TunnelError> {
        let mut secured = transport::secure_accepted(tcp, &self.identity, &self.clock).await?;
        if secured.alpn == Alpn::Pairing {
            self.visit(secured, address).await?;
            return Ok(None);
        }
        if !(self.paired)(secured.peer) {
            return self.refuse(secured, |peer| Refusal::NotPaired { got: *peer.as_bytes() }).await;
        }
        let hello = match greeting::hear_hello(&mut secured.io, &self.clock).await {
            Ok(hello) => hello,
            Err(TunnelError::Refused(Refusal::Malformed)) => return self.refuse(secured, |_| Refusal::Malformed).await,
            Err(error) => return Err(error),
        };
        let greeted = match greeting::agree(&hello) {
            Ok(greeted) => greeted,
            Err(refusal) => return self.refuse(secured, |_| refusal).await,
        };
        greeting::accept(&mut secured.io, &self.node, greeted.version, &self.clock).await?;
        Ok(Some(Joining { secured, greeted, session: hello.session, role: hello.role, address }))
    }

    async fn visit(&self, secured: Secured<Tls>, address: SocketAddr) -> Result<(), TunnelError> {
        let (Some(pairing), Ok(_place)) = (&self.pairing, self.visitors.try_acquire()) else { return Ok(()) };
        let visitor = Visitor::new(secured, address, &self.clock)?;
        if let Err(why) = pairing(visitor).await
            && let Some(unsaid) = self.to_be_told(address)
        {
            tracing::warn!(peer = %address, unsaid, "not paired: {why}");
        }
        Ok(())
    }

    async fn refuse<T>(
        &self,
        mut secured: Secured<Tls>,
        refusal: impl FnOnce(NodeKey) -> Refusal,
    ) -> Result<T, TunnelError> {
        let refusal = refusal(secured.peer);
        greeting::refuse(&mut secured.io, &refusal, &self.clock).await;
        transport::linger(secured.io, &self.clock).await;
        Err(TunnelError::Refused(refusal))
    }

    /// Adds a connection to its session. The first one of each waits here for the others.
    async fn join(&self, joining: Joining) {
        let (peer, session) = (joining.secured.peer, joining.session);
        let settled = match self.add(joining) {
            Joined::Whole(connections, facts) => return self.announce(*connections, facts).await,
            Joined::First(settled) => settled,
            Joined::Another => return,
        };
        let in_time = self.clock.timeout(WHOLE_DEADLINE, settled.notified()).await.is_some();
        if !in_time {
            self.partial().retain(|partial| (partial.peer, partial.session) != (peer, session));
            tracing::info!(%peer, "no tunnel: its three connections were not there in time");
        }
    }

    fn add(&self, joining: Joining) -> Joined {
        let Joining { secured: Secured { io, peer, group, alpn: _ }, greeted, session, role, address } = joining;
        let mut partials = self.partial();
        let place = partials.iter().position(|partial| (partial.peer, partial.session) == (peer, session));
        let place = place.unwrap_or_else(|| {
            make_room(&mut partials, peer);
            partials.push(Partial {
                peer,
                session,
                until: self.clock.now() + WHOLE_DEADLINE,
                connections: [None, None, None],
                facts: None,
                settled: Arc::new(Notify::new()),
            });
            partials.len() - 1
        });
        let partial = &mut partials[place];
        let first = partial.connections.iter().all(Option::is_none);
        if role == Role::Control {
            partial.facts = Some(SessionFacts {
                peer,
                node: greeted.node,
                software: greeted.software,
                address,
                since_unix_s: self.clock.unix_s(),
                version: greeted.version,
                group,
            });
        }
        // A second one of the same role takes the place of the first, which is then closed.
        partial.connections[role as usize] = Some(io);
        if partial.connections.iter().any(Option::is_none) {
            return if first { Joined::First(Arc::clone(&partial.settled)) } else { Joined::Another };
        }
        let partial = partials.swap_remove(place);
        partial.settled.notify_one();
        match (partial.connections, partial.facts) {
            ([Some(control), Some(mail), Some(splice)], Some(facts)) => {
                Joined::Whole(Box::new([control, mail, splice]), facts)
            }
            // Cannot be: none is missing, and the facts came with the control connection.
            _ => Joined::Another,
        }
    }

    /// The newest whole session wins.
    async fn announce(&self, connections: [Tls; 3], facts: SessionFacts) {
        let peer = facts.peer;
        let mut live = self.live.lock().await;
        live.retain(|_, session| session.is_alive());
        if let Some(old) = live.remove(&peer) {
            old.close(TunnelError::Refused(Refusal::Replaced));
        }
        let (session, incoming) = Session::start(connections, Side::Accepting, facts, &self.clock);
        live.insert(peer, session.clone());
        if self.sessions.send((session.clone(), incoming)).await.is_err() {
            // We are shutting down: nobody takes sessions any more.
            session.close(TunnelError::Closed);
        }
    }

    /// Sessions that wait for their other connections.
    #[cfg(test)]
    pub(super) fn partial_sessions(&self) -> usize {
        self.partial().len()
    }

    fn partial(&self) -> MutexGuard<'_, Vec<Partial>> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the oldest session of this key that waits for its other connections, if there are many.
fn make_room(partials: &mut Vec<Partial>, peer: NodeKey) {
    let mine = || partials.iter().enumerate().filter(|(_, partial)| partial.peer == peer);
    if mine().count() < PARTIAL_PER_KEY_MAX {
        return;
    }
    if let Some(oldest) = mine().min_by_key(|(_, partial)| partial.until).map(|(place, _)| place) {
        partials.swap_remove(oldest).settled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn refusals_are_told_once_a_minute_for_each_address() {
        let mut refusals = Refusals::default();
        let clock = Clock::still(Duration::ZERO);
        let address = |bits: u32| IpAddr::from(Ipv4Addr::from_bits(bits));
        assert_eq!(refusals.note(address(1), clock.now()), Some(0));
        assert_eq!(refusals.note(address(1), clock.now()), None);
        assert_eq!(refusals.note(address(1), clock.now()), None);
        assert_eq!(refusals.note(address(2), clock.now()), Some(0));
        clock.turn(REFUSALS_EVERY);
        assert_eq!(refusals.note(address(1), clock.now()), Some(2));
        let told = (0..2000).filter(|bits| refusals.note(address(10 + bits), clock.now()).is_some()).count();
        assert_eq!((told, refusals.0.len()), (REFUSED_ADDRESSES_MAX - 1, REFUSED_ADDRESSES_MAX));
        clock.turn(REFUSALS_EVERY);
        assert_eq!(refusals.note(address(5), clock.now()), Some(0), "those of the last minute make room");
    }
}
