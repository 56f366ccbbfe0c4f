//! What is found out about a client as such, from the moment it connects on: what the DNS lists say of it, whether its
//! address has a name, whether its network has brought good mail before. Who sends what is for `policy` and
//! `session/judging`. Clients of private networks are nobody's business, and never asked about.

mod greylist;
mod health;
mod lists;
pub mod rates;
pub mod regulars;
mod tally;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::dns_list::Standing;
use gatepost_protocol::mail::verdict::{Found, Reverse};
use gatepost_protocol::network::Network;
use gatepost_runtime::authentication::Authenticator;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::kept::Kept;
use gatepost_runtime::metrics::Metric;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, error};

use self::greylist::Greylist;
use self::lists::Lists;
use self::rates::Rate;
use self::regulars::Regulars;
pub use self::tally::Hold;
use self::tally::Tally;
use crate::config::admission::AdmissionSettings;
use crate::config::{EdgeLimits, PerMinute};

/// Name of the file of regulars in the state directory.
const FILE: &str = "regulars";
/// They are written down so long after something new: what a crash forgets is soon learnt again.
const GATHER: Duration = Duration::from_mins(10);
/// From the moment of connection on, answers of DNS lists are waited for so long.
const LISTS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Before the greeting, anything the DNS says is waited for so long; who is not known to be suspect by then is greeted.
const GREETING_WAIT_MAX: Duration = Duration::from_secs(2);

/// Unknown recipients of one session that are told at once.
const UNKNOWN_FREE: u32 = 3;
/// The wait for the others doubles so often at most: with the session's bound on errors, it ends within minutes.
const TARPIT_DOUBLINGS_MAX: u32 = 4;

/// Who finds out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ArcSwap<AdmissionSettings>,
    per_minute: ArcSwap<Rates>,
    connections: Mutex<Rate>,
    messages: Mutex<Rate>,
    greylist: Mutex<Greylist>,
    lists: Lists,
    tally: Tally,
    authenticator: Authenticator,
    clock: Clock,
    kept: Kept,
    regulars: Mutex<Regulars>,
}

/// What may come in a minute.
#[derive(Clone, Copy, Debug)]
struct Rates {
    connections: PerMinute,
    messages: PerMinute,
}

impl Rates {
    fn of(limits: &EdgeLimits) -> Self {
        Self { connections: limits.connections_per_minute, messages: limits.messages_per_minute }
    }
}

/// A client that has come, and what is being found out about it.
#[derive(Debug, Default)]
pub struct Arrival {
    /// None: nothing is asked, and it is greeted at once.
    asking: Option<Asking>,
}

/// Dropped, it asks no further.
#[derive(Debug)]
struct Asking {
    since: Instant,
    told: watch::Receiver<Told>,
    task: JoinHandle<()>,
}

/// What is known so far.
#[derive(Clone, Debug, Default)]
struct Told {
    standing: Option<Arc<Standing>>,
    /// Its address has no name.
    nameless: Option<bool>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Admission {
    /// By these settings, with the regulars that were kept. Blocking.
    pub fn open(
        state: &Path,
        resolver: Resolver,
        settings: AdmissionSettings,
        limits: &EdgeLimits,
        clock: Clock,
    ) -> Self {
        let kept = Kept::new(state.join(FILE), GATHER, clock.clone());
        let regulars = Mutex::new(read(&kept, clock.steady_ms()));
        Self(Arc::new(Inner {
            lists: Lists::new(resolver.clone(), &settings.lists, clock.clone()),
            authenticator: Authenticator::new(resolver),
            settings: ArcSwap::from_pointee(settings),
            per_minute: ArcSwap::from_pointee(Rates::of(limits)),
            tally: Tally::default(),
            connections: Mutex::default(),
            messages: Mutex::default(),
            greylist: Mutex::default(),
            clock,
            kept,
            regulars,
        }))
    }

    /// From now on these settings.
    pub fn reload(&self, settings: AdmissionSettings, limits: &EdgeLimits) {
        self.0.per_minute.store(Arc::new(Rates::of(limits)));
        self.0.lists.reload(&settings.lists);
        self.0.settings.store(Arc::new(settings));
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<AdmissionSettings> {
        self.0.settings.load_full()
    }

    /// Whether this client is none of ours: who is, is never asked about nor kept waiting.
    pub fn is_stranger(&self, client: IpAddr) -> bool {
        let network = Network::of_host(client);
        !network.is_private() || network.is_loopback() && self.0.settings.load().loopback
    }

    /// Begins to ask about who has just connected to 25.
    pub fn begin(&self, client: IpAddr) -> Arrival {
        if !self.is_stranger(client) {
            return Arrival::default();
        }
        let inner = Arc::clone(&self.0);
        let hurried = inner.settings.load().greeting_delay.is_zero() || self.is_regular(client);
        if hurried && inner.lists.is_empty() {
            return Arrival::default();
        }
        let since = inner.clock.now();
        let (tell, told) = watch::channel(Told { nameless: hurried.then_some(false), ..Told::default() });
        let task = tokio::spawn(async move {
            let lists = async {
                let standing = inner.lists.ask(client, since + LISTS_WAIT_MAX).await;
                if !standing.hits.is_empty() {
                    debug!(%client, lists = standing.brief(), "listed");
                }
                tell.send_modify(|told| told.standing = Some(Arc::new(standing)));
            };
            let name = async {
                if !hurried {
                    let found = inner.authenticator.reverse(client).await;
                    tell.send_modify(|told| told.nameless = Some(is_nameless(&found)));
                }
            };
            tokio::join!(Box::pin(lists), Box::pin(name));
        });
        Arrival { asking: Some(Asking { since, told, task }) }
    }

    /// Ends when the client is to be greeted: later if its address is listed or has no name, or if it had strikes,
    /// unless its network has brought good mail.
    pub fn patience(&self, arrival: &Arrival, client: IpAddr, struck: bool) -> impl Future<Output = ()> + use<> {
        let delay = self.0.settings.load().greeting_delay;
        let wait = arrival.asking.as_ref().filter(|_| !delay.is_zero() && !self.is_regular(client));
        let wait = wait.map(|asking| (asking.since, asking.told.clone()));
        let inner = Arc::clone(&self.0);
        async move {
            let Some((since, mut told)) = wait else { return };
            let known = async {
                let told = told.wait_for(|told| struck || told.is_suspect() || told.is_whole()).await;
                told.is_ok_and(|told| told.is_suspect())
            };
            let suspect = inner.clock.timeout(GREETING_WAIT_MAX, known).await.unwrap_or(false);
            if struck || suspect {
                debug!(%client, struck, "greeted late");
                inner.tally.count(Hold::Greeting);
                inner.clock.sleep_until(since + delay).await;
            }
        }
    }

    /// Whether one more connection of this client may come; if so, it is counted.
    pub fn takes_connection(&self, client: IpAddr) -> bool {
        let most = self.0.per_minute.load().connections;
        self.counted(!self.is_stranger(client) || locked(&self.0.connections).take(self.0.clock.now(), client, most))
    }

    /// Whether one more message of this client may come; if so, it is counted.
    pub fn takes_message(&self, client: IpAddr) -> bool {
        let most = self.0.per_minute.load().messages;
        self.counted(!self.is_stranger(client) || locked(&self.0.messages).take(self.0.clock.now(), client, most))
    }

    fn counted(&self, taken: bool) -> bool {
        if !taken {
            self.held(Hold::Rate);
        }
        taken
    }

    /// A client was kept out by something that is not decided here.
    pub fn held(&self, by: Hold) {
        self.0.tally.count(by);
    }

    /// For the page of metrics.
    pub fn metric(&self) -> Metric {
        self.0.tally.metric()
    }

    /// For how long a message is put off, because this client is not known and has not come back yet.
    pub fn greylisted(&self, client: IpAddr, sender: &str, recipient: &str) -> Option<Duration> {
        let delay = self.0.settings.load().greylist;
        if delay.is_zero() || !self.is_stranger(client) || self.is_regular(client) {
            return None;
        }
        let puts_off = locked(&self.0.greylist).puts_off(self.0.clock.now(), client, sender, recipient, delay);
        puts_off.then(|| {
            self.held(Hold::Greylist);
            delay
        })
    }

    /// How long the reply waits to a client that has named so many recipients in a session who do not exist.
    pub fn tarpit(&self, client: IpAddr, unknown: u32) -> Duration {
        let first = self.0.settings.load().tarpit;
        match unknown.checked_sub(UNKNOWN_FREE) {
            Some(doublings @ 1..) if !first.is_zero() && self.is_stranger(client) => {
                self.held(Hold::Tarpit);
                first * (1 << (doublings - 1).min(TARPIT_DOUBLINGS_MAX))
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether this client's network has brought good mail.
    pub fn is_regular(&self, client: IpAddr) -> bool {
        self.regulars().knows(self.0.clock.steady_ms(), client)
    }

    /// A message of this client was taken, and not into Junk.
    pub fn note_good(&self, client: IpAddr) {
        if self.is_stranger(client) && self.regulars().note(self.0.clock.steady_ms(), client) {
            self.0.kept.note();
        }
    }

    /// Writes down what is learnt, until draining begins.
    pub async fn keep_up(self, signal: Signal) {
        let admission = self.clone();
        self.0.kept.keep_up(signal, move || admission.keep()).await;
    }

    /// Writes down what is learnt, if there is something; a failure is logged. Blocking.
    pub fn keep(&self) {
        if let Err(error) = self.0.kept.write(|| self.regulars().write(self.0.clock.steady_ms())) {
            error!(%error, "who brings good mail can't be written down; it is forgotten at the next start");
        }
    }

    /// For `status`.
    pub fn json(&self) -> Value {
        self.0.lists.json()
    }

    fn regulars(&self) -> MutexGuard<'_, Regulars> {
        locked(&self.0.regulars)
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrival {
    /// What the lists say, once all have answered or time is up; none if nothing is asked.
    pub async fn standing(&mut self) -> Option<Arc<Standing>> {
        let told = &mut self.asking.as_mut()?.told;
        // An error: whoever asks has failed, and says nothing.
        told.wait_for(|told| told.standing.is_some()).await.ok()?.standing.clone()
    }
}

impl Told {
    fn is_suspect(&self) -> bool {
        self.nameless == Some(true) || self.standing.as_ref().is_some_and(|standing| standing.score() > 0)
    }

    fn is_whole(&self) -> bool {
        self.nameless.is_some() && self.standing.is_some()
    }
}

fn is_nameless(reverse: &Reverse) -> bool {
    reverse.name.is_none() && reverse.found != Found::TempError
}

fn read(kept: &Kept, now_ms: i64) -> Regulars {
    let path = kept.path().display();
    let read = match kept.read(regulars::OCTETS_MAX) {
        Ok(Some(text)) => Regulars::read(&text, now_ms).map_err(|error| error.to_string()),
        Ok(None) => return Regulars::default(),
        Err(error) => Err(error.to_string()),
    };
    match read {
        Ok((regulars, 0)) => regulars,
        Ok((regulars, damaged)) => {
            error!(%path, damaged, "lines of the regulars can't be read; the others count");
            regulars
        }
        Err(error) => {
            error!(%path, error, "who brings good mail can't be read; it is learnt anew");
            Regulars::default()
        }
    }
}
