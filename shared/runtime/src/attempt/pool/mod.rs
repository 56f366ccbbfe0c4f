//! Connections kept for the next message to the same destination. What is kept, for whom and how long
//! is decided by `protocol/smtp/client/reuse`; here are the sockets, the clock, and those who wait.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::future;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::client::reuse::{After, Carried, Reuse, ReuseLimits, Ticket, Turn};
use tokio::sync::oneshot;

use super::{Attempt, Tls};
use crate::clock::Clock;

/// All that two messages must share to go over one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Whose mail it is. Nobody ever uses a connection of somebody else's.
    pub owner: String,
    /// The hosts that may take it, sorted.
    pub hosts: Vec<String>,
    /// Their port.
    pub port: u16,
    /// Which TLS they must speak.
    pub tls: Tls,
    /// What else is demanded of them; who demands something else goes over another connection.
    pub demands: String,
    /// Whose certificates are believed, besides the system's roots (DER).
    pub roots: Vec<Vec<u8>>,
    /// Who we log in as.
    pub login: Option<(String, Secret)>,
    /// Whether IPv6 may be used.
    pub ipv6: bool,
}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not the password: what is hashed is compared in time that tells of it.
        let login = self.login.as_ref().map(|(name, _)| name);
        (&self.owner, &self.hosts, self.port, self.tls, &self.demands, &self.roots, login, self.ipv6).hash(state);
    }
}

/// A connection and its past.
type Used = (Attempt, Carried);

/// The connections of a program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    reuse: Reuse<Destination, Attempt>,
    waiting: HashMap<Ticket, oneshot::Sender<Option<Used>>>,
    /// A task closes what expires; it ends when nothing is kept.
    swept: bool,
}

impl Pool {
    /// Empty.
    pub fn new(limits: ReuseLimits, clock: Clock) -> Self {
        let state = State { reuse: Reuse::new(limits), waiting: HashMap::new(), swept: false };
        Self(Arc::new(Inner { state: Mutex::new(state), clock }))
    }

    /// A place among the connections to this destination; waits while all are taken. `None`: as many wait
    /// as may. Cancel-safe.
    pub async fn place(&self, destination: Destination) -> Option<Place> {
        let now = self.0.clock.now();
        let waiting = {
            let mut state = self.lock();
            match state.reuse.ask(&destination, now) {
                Turn::Kept(attempt, carried) => {
                    drop(state);
                    return Some(self.granted(destination, Some((attempt, carried))));
                }
                Turn::Open => {
                    drop(state);
                    return Some(self.granted(destination, None));
                }
                Turn::Full => return None,
                Turn::Wait(ticket) => {
                    let (sender, granted) = oneshot::channel();
                    state.waiting.insert(ticket, sender);
                    Waiting { pool: self, destination: Some(destination), ticket, granted }
                }
            }
        };
        Some(waiting.turn().await)
    }

    /// Closes everything that is kept, politely and briefly.
    pub async fn close(&self) {
        let kept = self.lock().reuse.drain();
        future::join_all(kept.into_iter().map(Attempt::quit)).await;
    }

    /// Connections kept unused.
    pub fn kept(&self) -> usize {
        self.lock().reuse.kept()
    }

    fn granted(&self, destination: Destination, kept: Option<Used>) -> Place {
        Place { pool: self.clone(), destination: Some(destination), kept, carried: None }
    }

    fn done(&self, destination: &Destination, back: Option<Used>) {
        let now = self.0.clock.now();
        let mut state = self.lock();
        let After { next, closed } = state.reuse.done(destination, back, now);
        if let Some((ticket, used)) = next
            && let Some(waiting) = state.waiting.remove(&ticket)
        {
            // Sent while the state is locked, so that who gives up sees either its ticket or its turn.
            let unsent = waiting.send(used);
            debug_assert!(unsent.is_ok(), "who waits takes its ticket back before it goes");
        }
        let sweep = state.reuse.kept() > 0 && !state.swept;
        state.swept |= sweep;
        drop(state);
        if sweep {
            tokio::spawn(sweep_expired(Arc::downgrade(&self.0)));
        }
        if let Some((_, attempt)) = closed {
            tokio::spawn(attempt.quit());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what rested too long, until nothing is kept.
async fn sweep_expired(pool: Weak<Inner>) {
    loop {
        let Some(inner) = pool.upgrade() else { return };
        let (expired, next) = {
            let mut state = inner.lock();
            let expired = state.reuse.expire(inner.clock.now());
            let next = state.reuse.next_expiry();
            state.swept = next.is_some();
            (expired, next)
        };
        for attempt in expired {
            tokio::spawn(attempt.quit());
        }
        let Some(next) = next else { return };
        let clock = inner.clock.clone();
        // Asleep, it must not keep the pool alive.
        drop(inner);
        clock.sleep_until(next).await;
    }
}

/// Who waits for a turn; dropped, it waits no more.
struct Waiting<'a> {
    pool: &'a Pool,
    destination: Option<Destination>,
    ticket: Ticket,
    granted: oneshot::Receiver<Option<Used>>,
}

impl Waiting<'_> {
    async fn turn(mut self) -> Place {
        // The sender is in the pool until the turn comes, and we hold the pool.
        let used = (&mut self.granted).await.unwrap_or_default();
        let destination = self.destination.take().expect("taken here and on drop only");
        self.pool.granted(destination, used)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(destination) = self.destination.take() else { return };
        let mut state = self.pool.lock();
        if state.waiting.remove(&self.ticket).is_some() {
            state.reuse.give_up(&destination, self.ticket);
        } else {
            drop(state);
            // The turn came at the same moment: it goes to the next.
            let used = self.granted.try_recv().ok().flatten();
            self.pool.done(&destination, used);
        }
    }
}

/// One connection's place towards a destination. Dropped, the next message may have it.
#[derive(Debug)]
pub struct Place {
    pool: Pool,
    destination: Option<Destination>,
    kept: Option<Used>,
    /// Of the connection that is out.
    carried: Option<Carried>,
}

impl Place {
    /// The connection kept from an earlier message, if there is one and the host has not closed it.
    pub fn kept(&mut self) -> Option<Attempt> {
        let (mut attempt, carried) = self.kept.take()?;
        if !attempt.is_open() {
            return None;
        }
        self.carried = Some(carried);
        Some(attempt)
    }

    /// A connection was opened (in place of the kept one, if there was one).
    pub fn opened(&mut self) {
        self.carried = Some(Carried { messages: 0, since: self.pool.0.clock.now() });
    }

    /// Gives the connection back after a message. One that can carry no other is not kept.
    pub fn give_back(mut self, mut attempt: Attempt) {
        let now = self.pool.0.clock.now();
        let Carried { messages, since } = self.carried.take().unwrap_or(Carried { messages: 0, since: now });
        if attempt.is_open() {
            self.kept = Some((attempt, Carried { messages: messages.saturating_add(1), since }));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(destination) = self.destination.take() {
            self.pool.done(&destination, self.kept.take());
        }
    }
}

#[cfg(test)]
mod tests;
