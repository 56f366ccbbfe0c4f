//! Delivery to a server that keeps the mailboxes and speaks LMTP (RFC 2033), such as Dovecot: one answer a
//! recipient. Connections are kept for a while and used again. While a server is in trouble nobody waits for it
//! in session: it is looked at again after a pause, and by the queue, which holds what it did not take.
//!
//! Nothing here decides what becomes of a message that was not taken.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, StartTls};
use gatepost_runtime::attempt::{Attempt, Believed, Finding, Started, Target, Tls};
use gatepost_runtime::clock::{Clock, rfc3339};
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::config::{Keepers, Server};

/// Connections to one server at once.
const CONNECTIONS_MAX: usize = 16;
/// Connections kept while nobody needs them.
const IDLE_MAX: usize = 4;
/// How long they are kept: a server closes them by itself after some minutes.
const IDLE_KEPT: Duration = Duration::from_secs(30);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;
/// Connecting to one address may take this long.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Any one answer before the final dot may take this long.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(30);
/// All answers to the final dot may take this long: what is not answered by then is in doubt.
const FINAL_WAIT_MAX: Duration = Duration::from_mins(5);
/// In session, all before the final dot may take this long; it is less than an edge waits for its home.
pub const OFFER_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a server in trouble is left alone at first, and at most.
const TROUBLE_PAUSE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
/// "Service not available, closing transmission channel" (RFC 5321 §4.2.1): about the server, not the message.
const CLOSING: u16 = 421;

/// What tells a server's own filter rules that a copy belongs in Junk: LMTP names no folder.
pub const JUNK_MARK: &str = "X-Spam-Flag: YES\r\n";

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's reply, or ours where it said nothing.
    pub outcome: Outcome,
    /// The final dot was sent and no answer came: it may be stored all the same (RFC 1047).
    pub in_doubt: bool,
}

impl Answer {
    /// Certain.
    pub fn certain(outcome: Outcome) -> Self {
        Self { outcome, in_doubt: false }
    }
}

/// The servers of the config. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Servers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hostname: String,
    resolver: Resolver,
    clock: Clock,
    keepers: Mutex<Arc<Keepers>>,
    pools: Mutex<HashMap<Server, Arc<Pool>>>,
    // Told whenever a server's trouble is over.
    back: Notify,
}

#[derive(Debug)]
struct Pool {
    server: Server,
    places: Arc<Semaphore>,
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    idle: Vec<(Attempt, Instant)>,
    // A task sees to it that idle connections are closed.
    swept: bool,
    trouble: Option<Trouble>,
    // The last trouble that is over: from when to when, by the steady clock, in milliseconds.
    overcome: Option<(i64, i64)>,
}

#[derive(Clone, Debug)]
struct Trouble {
    why: Reply,
    since_unix_s: i64,
    since_ms: i64,
    pause: Duration,
    until: Instant,
}

/// One transaction's connection.
#[derive(Debug)]
pub struct Visit {
    servers: Servers,
    pool: Arc<Pool>,
    attempt: Attempt,
    recipients: usize,
    // It ended before the message; else the message is offered and the dot is missing.
    over: Option<Vec<Outcome>>,
    _place: OwnedSemaphorePermit,
}

impl Servers {
    /// For this config. `hostname` is what they hear in LHLO.
    pub fn new(hostname: &str, keepers: Keepers, resolver: Resolver, clock: Clock) -> Self {
        let keepers = Mutex::new(Arc::new(keepers));
        let hostname = hostname.to_owned();
        let (pools, back) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { hostname, resolver, clock, keepers, pools, back }) }
    }

    /// For tests: these keepers, addresses instead of names.
    #[cfg(test)]
    pub fn of(keepers: Keepers, clock: Clock) -> Self {
        Self::new("home.example.org", keepers, Resolver::new(&[]), clock)
    }

    /// Takes a changed config; what is under way goes on as it began.
    pub fn reload(&self, keepers: Keepers) {
        let mut pools = self.pools();
        pools.retain(|server, _| keepers.servers().contains(&server));
        *self.inner.keepers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keepers);
    }

    /// Who keeps which mailbox.
    pub fn keepers(&self) -> Arc<Keepers> {
        Arc::clone(&self.inner.keepers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why this server is not to be waited for now, if it is in trouble.
    pub fn trouble(&self, server: &Server) -> Option<Reply> {
        let now = self.inner.clock.now();
        let pool = self.pool(server);
        let state = pool.state();
        state.trouble.as_ref().filter(|trouble| now < trouble.until).map(|trouble| trouble.why.clone())
    }

    /// How long a server that is in trouble is left alone from now on.
    pub fn pause(&self, server: &Server) -> Duration {
        self.pool(server).state().trouble.as_ref().map_or(TROUBLE_PAUSE[0], |trouble| trouble.pause)
    }

    /// Waits until a server is back from trouble.
    pub async fn back(&self) {
        self.inner.back.notified().await;
    }

    /// The last trouble of this server that is over: from when to when, in [`Clock::steady_ms`].
    pub fn overcome(&self, server: &Server) -> Option<(i64, i64)> {
        self.pool(server).state().overcome
    }

    /// Connects, or takes a connection that was kept, and waits for a place. An error is why there is none; it is
    /// never about a message, so never final.
    pub async fn visit(&self, server: &Server) -> Result<Visit, Reply> {
        let pool = self.pool(server);
        let place = Arc::clone(&pool.places).acquire_owned().await.map_err(|_| Reply::local_error())?;
        let (attempt, _) = self.connection(&pool, true).await?;
        Ok(Visit { servers: self.clone(), pool, attempt, recipients: 0, over: None, _place: place })
    }

    /// The same, for whoever is waited for: not beyond [`OFFER_WAIT_MAX`], and not at all while it is in trouble.
    pub async fn visit_soon(&self, server: &Server) -> Result<Visit, Reply> {
        if let Some(why) = self.trouble(server) {
            return Err(why);
        }
        let clock = &self.inner.clock;
        clock.timeout(OFFER_WAIT_MAX, self.visit(server)).await.unwrap_or_else(|| {
            let why = Reply::unreachable(&format!("{server} has no time for us"));
            self.pool(server).failed(&why, clock);
            Err(why)
        })
    }

    /// For `status`: one object a server.
    pub fn status(&self) -> Value {
        let keepers = self.keepers();
        let servers = keepers.servers().into_iter().map(|server| {
            let trouble = self.pool(server).state().trouble.clone();
            json!({
                "server": server.to_string(),
                "trouble": trouble.as_ref().map(|trouble| trouble.why.to_string()),
                "since": trouble.as_ref().map(|trouble| rfc3339(trouble.since_unix_s)),
            })
        });
        Value::Array(servers.collect())
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<Server, Arc<Pool>>> {
        self.inner.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, server: &Server) -> Arc<Pool> {
        let mut pools = self.pools();
        let pool = pools.entry(server.clone()).or_insert_with(|| {
            let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            Arc::new(Pool { server: server.clone(), places, state: Mutex::default() })
        });
        Arc::clone(pool)
    }

    /// A connection, and whether it was used before.
    async fn connection(&self, pool: &Pool, kept: bool) -> Result<(Attempt, bool), Reply> {
        let now = self.inner.clock.now();
        while kept && let Some((mut attempt, since)) = pool.state().idle.pop() {
            if now.saturating_duration_since(since) < IDLE_KEPT && !attempt.is_over() {
                return Ok((attempt, true));
            }
        }
        match self.connect(&pool.server).await {
            Ok(attempt) => Ok((attempt, false)),
            Err(why) => {
                pool.failed(&why, &self.inner.clock);
                Err(why)
            }
        }
    }

    async fn connect(&self, server: &Server) -> Result<Attempt, Reply> {
        match server {
            Server::Local(path) => self.connect_local(path).await,
            Server::Host { host, port } => {
                let found = self.inner.resolver.addresses(host, true).await;
                let addresses = found.map_err(|error| Reply::dns_failed(&error.to_string()))?;
                let mut last = Reply::unreachable(&format!("{host} has no address"));
                for address in addresses.into_iter().take(ADDRESSES_MAX) {
                    let target = Target {
                        host: host.clone(),
                        address: SocketAddr::new(address, *port),
                        tls: Tls::Opportunistic,
                        roots: Vec::new(),
                        believed: Believed::ByTls,
                        finding: Finding::default(),
                        connect_wait_max: CONNECT_WAIT_MAX,
                    };
                    match Attempt::connect(&target, self.client(), self.inner.clock.clone()).await {
                        Ok(attempt) => return Ok(attempt),
                        Err(failure) => last = failure.reply,
                    }
                }
                Err(last)
            }
        }
    }

    async fn connect_local(&self, path: &Path) -> Result<Attempt, Reply> {
        let connecting = Attempt::connect_local(path, CONNECT_WAIT_MAX, self.client(), self.inner.clock.clone());
        connecting.await.map_err(|failure| failure.reply)
    }

    fn client(&self) -> ClientConfig {
        ClientConfig {
            helo: self.inner.hostname.clone(),
            protocol: Protocol::Lmtp,
            starttls: StartTls::Never,
            login: None,
            nonce: random::bytes(),
            limits: ClientLimits {
                reply_wait_max: REPLY_WAIT_MAX,
                final_wait_max: FINAL_WAIT_MAX,
                ..ClientLimits::default()
            },
        }
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections that nobody needed for a while, until none is left.
    async fn sweep(&self, clock: &Clock) {
        loop {
            clock.sleep(IDLE_KEPT).await;
            let now = clock.now();
            let (over, more) = {
                let mut state = self.state();
                let old = |(_, since): &mut (Attempt, Instant)| now.saturating_duration_since(*since) >= IDLE_KEPT;
                let over: Vec<Attempt> = state.idle.extract_if(.., old).map(|(attempt, _)| attempt).collect();
                state.swept = !state.idle.is_empty();
                (over, state.swept)
            };
            for attempt in over {
                attempt.quit().await;
            }
            if !more {
                return;
            }
        }
    }

    /// It does its work: whatever trouble it had is over. True if it had any.
    fn works(&self, clock: &Clock) -> bool {
        let mut state = self.state();
        let Some(trouble) = state.trouble.take() else { return false };
        state.overcome = Some((trouble.since_ms, clock.steady_ms()));
        let since = rfc3339(trouble.since_unix_s);
        tracing::info!(server = %self.server, since, "the server of the mailboxes is back");
        true
    }

    /// It is left alone for a while, twice as long each time.
    fn failed(&self, why: &Reply, clock: &Clock) {
        let mut state = self.state();
        let now = clock.now();
        let [first, most] = TROUBLE_PAUSE;
        let (since, pause) = match &state.trouble {
            // Others found the same at the same time.
            Some(trouble) if now < trouble.until => ((trouble.since_unix_s, trouble.since_ms), trouble.pause),
            Some(trouble) => ((trouble.since_unix_s, trouble.since_ms), (trouble.pause * 2).min(most)),
            None => {
                tracing::error!(server = %self.server, reply = %why, "the server of the mailboxes is in trouble; mail waits for it");
                ((clock.unix_s(), clock.steady_ms()), first)
            }
        };
        state.trouble =
            Some(Trouble { why: why.clone(), since_unix_s: since.0, since_ms: since.1, pause, until: now + pause });
    }
}

impl Visit {
    /// MAIL, RCPT…, DATA. True if the server waits for the message: [`Visit::body`]. A kept connection that turns
    /// out to be dead is replaced.
    pub async fn start(&mut self, envelope: &Envelope, octets: u64, eight_bit: bool) -> bool {
        self.recipients = envelope.recipients.len();
        for fresh in [false, true] {
            match self.attempt.start(envelope.clone(), octets, eight_bit).await {
                Started::Body => {
                    self.over = None;
                    return true;
                }
                Started::Done(outcomes) => self.over = Some(outcomes),
            }
            let is_dead = self.attempt.is_over();
            if fresh || !is_dead || self.answered() {
                break;
            }
            match self.servers.connection(&self.pool, false).await {
                Ok((attempt, _)) => self.attempt = attempt,
                Err(_) => break,
            }
        }
        false
    }

    /// The next bytes; waits while the server is slow.
    pub async fn body(&mut self, bytes: Bytes) {
        self.attempt.body(bytes).await;
    }

    /// The final dot, if the message was wanted, and an answer for each recipient.
    pub async fn finish(mut self) -> Vec<Answer> {
        let (outcomes, dotted) = match self.over.take() {
            Some(outcomes) => (outcomes, false),
            None => (self.attempt.finish().await, true),
        };
        let lost = self.attempt.doubt().map(Outcome::Deferred);
        // One that is told to stop while it stores a message answers so, whether it has stored it or not, as
        // Dovecot does: that is no word about the message.
        let is_doubtful =
            |outcome: &Outcome| lost.as_ref() == Some(outcome) || (dotted && outcome.reply().code() == CLOSING);
        let answers: Vec<Answer> =
            outcomes.into_iter().map(|outcome| Answer { in_doubt: is_doubtful(&outcome), outcome }).collect();
        let clock = &self.servers.inner.clock;
        let is_closing = answers.iter().any(|answer| answer.outcome.reply().code() == CLOSING);
        if lost.is_none() && !is_closing && !self.attempt.is_over() {
            if self.pool.works(clock) {
                self.servers.inner.back.notify_one();
            }
            self.keep();
        } else if answers.iter().all(|answer| matches!(answer.outcome, Outcome::Deferred(_))) {
            let why = answers.first().map_or_else(Reply::local_error, |answer| answer.outcome.reply().clone());
            self.pool.failed(&why, clock);
        }
        answers
    }

    /// Takes too long: the connection ends without a final dot, so nothing was stored for sure.
    pub fn give_up(self) -> Vec<Answer> {
        let why = Reply::unreachable(&format!("{} took too long over a message", self.pool.server));
        self.pool.failed(&why, &self.servers.inner.clock);
        vec![Answer::certain(Outcome::Deferred(why)); self.recipients]
    }

    /// Its name, for people.
    pub fn remote(&self) -> String {
        self.attempt.remote()
    }

    /// The server itself has said what it thinks of at least one recipient.
    fn answered(&self) -> bool {
        let outcomes = self.over.as_deref().unwrap_or_default();
        outcomes.iter().any(|outcome| !matches!(outcome, Outcome::Deferred(_)))
    }

    /// Keeps the connection for the next; one that nobody needed is closed after a while.
    fn keep(self) {
        let Self { servers, pool, attempt, .. } = self;
        let clock = servers.inner.clock.clone();
        {
            let mut state = pool.state();
            if state.idle.len() >= IDLE_MAX {
                return;
            }
            state.idle.push((attempt, clock.now()));
            if std::mem::replace(&mut state.swept, true) {
                return;
            }
        }
        tokio::spawn(async move { pool.sweep(&clock).await });
    }
}

#[cfg(test)]
pub mod tests;
