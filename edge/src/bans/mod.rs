//! Who is banned from this edge's doors: strikes are counted here, bans are kept over restarts, and some are never
//! banned: the homes themselves, whom they or the config allow, and the machine itself.

pub mod record;
pub mod strikes;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_protocol::network::Network;
use gatepost_runtime::clock::{Clock, rfc3339};
use gatepost_runtime::durable::DurableError;
use gatepost_runtime::kept::Kept;
use gatepost_runtime::metrics::{Counter, Kind as MetricKind, Metric};
use gatepost_runtime::shutdown::Signal;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{debug, error, info, warn};

pub use self::strikes::Kind;
use self::strikes::{BY_HAND_MAX, InForce, Lifted, Strikes};
use crate::config::BanSettings;
use crate::homes::{Home, Homes};

/// Name of the file in the state directory.
const FILE: &str = "bans";
/// Bans that strikes bring about are written down so long after the first of them: a flood is one write, and what a
/// crash forgets is soon earned again.
const GATHER: Duration = Duration::from_secs(5);
/// A message that is taken makes up for so many recipients that do not exist: hosts that bring much mail bring
/// some to people who are gone.
const MADE_UP_BY_MESSAGE: i64 = 10;
/// Bans shown at most, the newest first.
const SHOWN_MAX: usize = 500;
/// The widest networks that are banned by hand, in bits of their prefix.
const IPV4_BITS_MIN: u8 = 8;
const IPV6_BITS_MIN: u8 = 16;
/// Longest ban by hand that ends.
const BY_HAND_SPAN_MAX: Duration = Duration::from_hours(24 * 3660);

/// The bans. Cheap to clone.
#[derive(Clone)]
pub struct Bans(Arc<Inner>);

struct Inner {
    kept: Kept,
    homes: Homes,
    clock: Clock,
    settings: ArcSwap<BanSettings>,
    strikes: Mutex<Strikes>,
    struck: [Counter; Kind::ALL.len()],
    banned: [Counter; Kind::ALL.len()],
}

/// What an owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Which bans are in force?
    List,
    /// Ban a network, for so long or for good.
    Add(Network, Option<Duration>),
    /// Lift a ban.
    Lift(Network),
}

/// Why somebody is never banned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Spared {
    /// The machine itself.
    #[error("it is this machine itself")]
    Loopback,
    /// `bans.never`.
    #[error("it is in {0}, which bans.never in the edge's config lists")]
    Listed(Network),
    /// The access list of the only home.
    #[error("the access list of {0} allows it")]
    Allowed(String),
    /// A home's own address.
    #[error("the home {home} is connected from {address}: its own people would be shut out")]
    Home {
        /// Which.
        home: String,
        /// From where.
        address: IpAddr,
    },
}

/// Why a ban was not made, or not lifted.
#[derive(Debug, Error)]
pub enum BanError {
    /// Somebody in it is never banned.
    #[error("{network} is not banned: {why}")]
    Spared {
        /// What was to be banned.
        network: Network,
        /// Why not.
        why: Spared,
    },
    /// Everybody.
    #[error("{0} is (much of) the internet; ban narrower networks")]
    TooWide(Network),
    /// Too many.
    #[error("there can be {BY_HAND_MAX} bans by hand at most; lift some, or name a wider network")]
    TooMany,
    /// Longer than there is sense in.
    #[error("a ban lasts ten years at most, unless it is for good")]
    TooLong,
    /// Nothing to lift.
    #[error("no ban of {0} is in force; `bans list` shows those that are")]
    NotBanned(Network),
    /// Part of a wider one.
    #[error("{network} is banned as a part of {wider}; lift that one")]
    Within {
        /// What was to be lifted.
        network: Network,
        /// What is banned.
        wider: Network,
    },
    /// Done, but not written down.
    #[error("done, but it will be forgotten at the next start: {0}")]
    Disk(#[from] DurableError),
}

impl Bans {
    /// With what was kept. A file that can't be read is reported and begun anew. Blocking.
    pub fn open(state: &Path, homes: Homes, settings: BanSettings, clock: Clock) -> Self {
        let kept = Kept::new(state.join(FILE), GATHER, clock.clone());
        let strikes = read(&kept, clock.steady_ms());
        Self(Arc::new(Inner {
            kept,
            homes,
            clock,
            settings: ArcSwap::from_pointee(settings),
            strikes: Mutex::new(strikes),
            struck: Default::default(),
            banned: Default::default(),
        }))
    }

    /// From now on this is what the config says.
    pub fn reload(&self, settings: BanSettings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Whether who comes from this address is to hear nothing: for every door that knows the true address.
    pub fn is_banned(&self, client: IpAddr) -> bool {
        let banned = self.strikes().is_banned(self.0.clock.steady_ms(), client);
        // Whom to spare may have changed since the ban.
        banned && self.spares(client).is_none()
    }

    /// A strike. Who is spared has none, so that nobody else who reads the log bans them either.
    pub fn strike(&self, client: IpAddr, kind: Kind) {
        if let Some(why) = self.spares(client) {
            debug!(%client, kind = kind.name(), %why, "no strike");
            return;
        }
        // Read by programs: see edge/fail2ban.
        info!(%client, kind = kind.name(), "strike");
        self.0.struck[kind as usize].one();
        let now_ms = self.0.clock.steady_ms();
        let Some((network, ban)) = self.strikes().strike(now_ms, client, kind) else { return };
        self.0.banned[kind as usize].one();
        let for_s = (ban.until_ms - ban.since_ms) / 1000;
        warn!(%network, %client, kind = kind.name(), offence = ban.offence, for_s, "banned");
        self.0.kept.note();
    }

    /// Whether this client has had strikes lately.
    pub fn is_suspect(&self, client: IpAddr) -> bool {
        self.strikes().is_suspect(self.0.clock.steady_ms(), client)
    }

    /// A message was taken from this client.
    pub fn message_taken(&self, client: IpAddr) {
        self.strikes().make_up(client, Kind::Recipient, MADE_UP_BY_MESSAGE);
    }

    /// Does what an owner asks for. Durable when it returns. Blocking.
    pub fn obey(&self, order: Order) -> Result<Value, BanError> {
        match order {
            Order::List => Ok(self.list()),
            Order::Add(network, span) => self.add(network, span),
            Order::Lift(network) => self.lift(network),
        }
    }

    fn add(&self, network: Network, span: Option<Duration>) -> Result<Value, BanError> {
        if let Some(why) = self.spares_all_of(&network) {
            return Err(BanError::Spared { network, why });
        }
        if network.bits() < if network.address().is_ipv4() { IPV4_BITS_MIN } else { IPV6_BITS_MIN } {
            return Err(BanError::TooWide(network));
        }
        if span.is_some_and(|span| span > BY_HAND_SPAN_MAX) {
            return Err(BanError::TooLong);
        }
        let span_ms = span.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        let now_ms = self.0.clock.steady_ms();
        if !self.strikes().add(now_ms, network, span_ms) {
            return Err(BanError::TooMany);
        }
        info!(%network, for_s = span.map(|span| span.as_secs()), "banned by hand");
        self.0.kept.mark();
        self.keep()?;
        let until = span_ms.map(|span| self.date(now_ms.saturating_add(span)));
        Ok(json!({ "network": network.to_string(), "until": until }))
    }

    fn lift(&self, network: Network) -> Result<Value, BanError> {
        let lifted = self.strikes().lift(self.0.clock.steady_ms(), network);
        match lifted {
            Lifted::None => Err(BanError::NotBanned(network)),
            Lifted::Within(wider) => Err(BanError::Within { network, wider }),
            Lifted::These(lifted) => {
                for network in &lifted {
                    info!(%network, "ban lifted");
                }
                self.0.kept.mark();
                self.keep()?;
                Ok(json!({ "lifted": lifted.iter().map(ToString::to_string).collect::<Vec<_>>() }))
            }
        }
    }

    /// Those in force, the newest first.
    fn list(&self) -> Value {
        let in_force = self.strikes().in_force(self.0.clock.steady_ms());
        let shown = in_force.iter().take(SHOWN_MAX).map(|ban| {
            let InForce { network, kind, offence, since_ms, until_ms } = ban;
            json!({
                "network": network.to_string(),
                "kind": kind.map_or("by hand", Kind::name),
                "offence": offence,
                "since": self.date(*since_ms),
                "until": until_ms.map(|until| self.date(until)),
            })
        });
        json!({ "bans": shown.collect::<Vec<_>>(), "total": in_force.len() })
    }

    /// For the page of metrics: numbers, and no address.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn metrics(&self) -> Vec<Metric> {
        let by_kind = |name, words, counters: &[Counter]| {
            let values = Kind::ALL.into_iter().zip(counters).map(|(kind, counter)| (kind.name(), counter.now() as f64));
            Metric::labelled(MetricKind::Counter, name, words, "kind", values)
        };
        let in_force = self.strikes().in_force(self.0.clock.steady_ms()).len() as f64;
        vec![
            by_kind("gatepost_edge_strikes_total", "Strikes of clients.", &self.0.struck),
            by_kind("gatepost_edge_bans_total", "Bans that strikes brought about.", &self.0.banned),
            Metric::plain(MetricKind::Gauge, "gatepost_edge_bans", "Bans in force.", in_force),
        ]
    }

    /// Writes down what strikes bring about, until draining begins.
    pub async fn keep_up(self, signal: Signal) {
        let bans = self.clone();
        self.0.kept.keep_up(signal, move || bans.keep_or_say()).await;
    }

    /// Writes them down if they have changed; a failure is logged. Blocking.
    pub fn keep_or_say(&self) {
        if let Err(error) = self.keep() {
            error!(%error, "the bans can't be written down; they are forgotten at the next start");
        }
    }

    fn keep(&self) -> Result<(), DurableError> {
        self.0.kept.write(|| record::write(&self.strikes(), self.0.clock.steady_ms()))
    }

    /// Why this client is never banned.
    fn spares(&self, client: IpAddr) -> Option<Spared> {
        let network = Network::of_client(client);
        let settings = self.0.settings.load();
        if Network::of_host(client).is_loopback() && !settings.loopback {
            return Some(Spared::Loopback);
        }
        if let Some(listed) = settings.never.iter().find(|listed| listed.contains(client)) {
            return Some(Spared::Listed(*listed));
        }
        if let Some(home) = self.only_home()
            && home.directory().is_some_and(|directory| directory.access.spares(client))
        {
            return Some(Spared::Allowed(home.name().to_owned()));
        }
        self.home_in(&network)
    }

    /// Why this network is not banned by hand: all of it is spared, or a home is in it.
    fn spares_all_of(&self, network: &Network) -> Option<Spared> {
        let settings = self.0.settings.load();
        if network.is_loopback() && !settings.loopback {
            return Some(Spared::Loopback);
        }
        if let Some(listed) = settings.never.iter().find(|listed| network.is_within(listed)) {
            return Some(Spared::Listed(*listed));
        }
        if let Some(home) = self.only_home()
            && home.directory().is_some_and(|directory| directory.access.spares_all_of(network))
        {
            return Some(Spared::Allowed(home.name().to_owned()));
        }
        self.home_in(network)
    }

    /// Whose access list counts: a home that shares the edge must not open it to who guesses others' passwords.
    fn only_home(&self) -> Option<Arc<Home>> {
        match self.0.homes.all().as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    fn home_in(&self, network: &Network) -> Option<Spared> {
        self.0.homes.all().into_iter().find_map(|home| {
            let address = home.session()?.facts().address.ip();
            let own = Network::of_client(address);
            let found = own.is_within(network) || network.is_within(&own);
            found.then(|| Spared::Home { home: home.name().to_owned(), address })
        })
    }

    /// A moment of the steady time as a date.
    fn date(&self, steady_ms: i64) -> String {
        let ahead_ms = steady_ms.saturating_sub(self.0.clock.steady_ms());
        rfc3339(self.0.clock.unix_ms().saturating_add(ahead_ms).div_euclid(1000))
    }

    fn strikes(&self) -> MutexGuard<'_, Strikes> {
        self.0.strikes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(kept: &Kept, now_ms: i64) -> Strikes {
    let path = kept.path().display();
    let text = match kept.read(record::OCTETS_MAX) {
        Ok(Some(text)) => text,
        Ok(None) => return Strikes::default(),
        Err(error) => {
            error!(%path, %error, "the bans can't be read; they begin anew");
            return Strikes::default();
        }
    };
    match record::read(&text, now_ms) {
        Ok(record::Read { strikes, damaged }) => {
            if damaged > 0 {
                error!(%path, damaged, "lines of the bans can't be read; the others count");
            }
            strikes
        }
        Err(error) => {
            error!(%path, %error, "the bans can't be read; they begin anew");
            Strikes::default()
        }
    }
}

impl std::fmt::Debug for Bans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bans")
    }
}
