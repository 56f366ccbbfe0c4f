//! Strikes of clients, what they add up to, and the bans that come of them. Pure; time is the steady time, so that
//! what is kept ages by time that passed. A client is one address of IPv4 or one /64 of IPv6.

use std::collections::HashMap;
use std::net::IpAddr;

use gatepost_protocol::network::Network;

/// At so many points a client is banned.
const BAN_AT: i64 = 1_000_000;
/// How long a client is banned the first time, the second, and so on; the last repeats.
const BAN_MS: [i64; 5] = [10 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS];
/// So long after its last ban ended, a client is new again.
pub const REMEMBERED_MS: i64 = 30 * DAY_MS;
/// Clients with strikes, and clients with bans, that are kept; then the mildest and the oldest make room.
pub const CLIENTS_MAX: usize = 10_000;
/// Bans by hand; more are refused.
pub const BY_HAND_MAX: usize = 1000;
/// One in so many makes room at once, so that a flood does not look through all of them each time.
const ROOM_SHARE: usize = 10;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What a client is struck for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A login that was wrong.
    Login,
    /// A login that could not be checked, for the home is away: it may have been right.
    Unchecked,
    /// A recipient that does not exist.
    Recipient,
    /// A session that was ended because of how the client speaks: too many errors, bare line ends, words before their turn.
    Abuse,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Login, Self::Unchecked, Self::Recipient, Self::Abuse];

    /// Its name, in log lines, lists and the kept file: it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Unchecked => "unchecked",
            Self::Recipient => "recipient",
            Self::Abuse => "abuse",
        }
    }

    /// Points of one strike: 10, 200, 50 and 5 of a kind are a ban. Each weighs a little more than its share, so that
    /// what fades while they come does not count.
    fn points(self) -> i64 {
        match self {
            Self::Login => 111_000,
            Self::Unchecked => 5_020,
            Self::Recipient => 20_400,
            Self::Abuse => 249_000,
        }
    }

    /// In this time the points of a ban fade, steadily.
    fn window_ms(self) -> i64 {
        match self {
            Self::Login | Self::Unchecked | Self::Abuse => HOUR_MS,
            Self::Recipient => 10 * MINUTE_MS,
        }
    }

    /// How long `points` take to fade.
    fn fades_in_ms(self, points: i64) -> i64 {
        points * self.window_ms() / BAN_AT
    }
}

/// A client's strikes: until when those of each kind will have faded.
#[derive(Clone, Copy, Debug, Default)]
struct Suspect([i64; Kind::ALL.len()]);

impl Suspect {
    fn points(&self, now_ms: i64) -> i64 {
        let of = |kind: Kind| (self.0[kind as usize] - now_ms).max(0) * BAN_AT / kind.window_ms();
        Kind::ALL.into_iter().map(of).sum()
    }
}

/// A ban that strikes brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// What for, at last.
    pub kind: Kind,
    /// The how manyth, from 1 on.
    pub offence: u32,
    /// When it began, by the steady time.
    pub since_ms: i64,
    /// When it ends.
    pub until_ms: i64,
}

/// A ban by hand, of a network of any width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// Who.
    pub network: Network,
    /// When it began, by the steady time.
    pub since_ms: i64,
    /// When it ends, if it does.
    pub until_ms: Option<i64>,
}

/// A ban in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Who.
    pub network: Network,
    /// What for; `None`: by hand.
    pub kind: Option<Kind>,
    /// The how manyth.
    pub offence: u32,
    /// When it began, by the steady time.
    pub since_ms: i64,
    /// When it ends, if it does.
    pub until_ms: Option<i64>,
}

/// What lifting came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// These are banned no more.
    These(Vec<Network>),
    /// None: it is part of this wider one, banned by hand.
    Within(Network),
    /// None: there was no such ban.
    None,
}

/// Strikes and bans.
#[derive(Clone, Debug, Default)]
pub struct Strikes {
    suspects: HashMap<Network, Suspect>,
    bans: HashMap<Network, Ban>,
    by_hand: Vec<ByHand>,
}

impl Strikes {
    /// One strike; the ban, if this was one too many.
    pub fn strike(&mut self, now_ms: i64, client: IpAddr, kind: Kind) -> Option<(Network, Ban)> {
        let network = Network::of_client(client);
        if self.bans.get(&network).is_some_and(|ban| ban.until_ms > now_ms) {
            return None;
        }
        self.make_room_for_suspects(now_ms, network);
        let suspect = self.suspects.entry(network).or_default();
        let full_until = &mut suspect.0[kind as usize];
        *full_until = (*full_until).max(now_ms).saturating_add(kind.fades_in_ms(kind.points()));
        if suspect.points(now_ms) < BAN_AT {
            return None;
        }
        self.suspects.remove(&network);
        self.make_room_for_bans(now_ms, network);
        let before = self.bans.get(&network).filter(|ban| now_ms.saturating_sub(ban.until_ms) < REMEMBERED_MS);
        let offence = before.map_or(1, |ban| ban.offence.saturating_add(1));
        let step = usize::try_from(offence - 1).unwrap_or(usize::MAX).min(BAN_MS.len() - 1);
        let ban = Ban { kind, offence, since_ms: now_ms, until_ms: now_ms.saturating_add(BAN_MS[step]) };
        self.bans.insert(network, ban);
        Some((network, ban))
    }

    /// Whether it has strikes that have not faded, or had a ban not long ago.
    pub fn is_suspect(&self, now_ms: i64, client: IpAddr) -> bool {
        let network = Network::of_client(client);
        self.suspects.get(&network).is_some_and(|suspect| suspect.points(now_ms) > 0)
            || self.bans.get(&network).is_some_and(|ban| now_ms.saturating_sub(ban.until_ms) < REMEMBERED_MS)
    }

    /// Something good makes up for so many strikes of a kind.
    pub fn make_up(&mut self, client: IpAddr, kind: Kind, strikes: i64) {
        if self.suspects.is_empty() {
            return;
        }
        if let Some(suspect) = self.suspects.get_mut(&Network::of_client(client)) {
            suspect.0[kind as usize] -= kind.fades_in_ms(kind.points() * strikes);
        }
    }

    /// Whether a client is banned.
    pub fn is_banned(&self, now_ms: i64, client: IpAddr) -> bool {
        let struck = !self.bans.is_empty()
            && self.bans.get(&Network::of_client(client)).is_some_and(|ban| ban.until_ms > now_ms);
        struck || self.by_hand.iter().any(|ban| ban.is_in_force(now_ms) && ban.network.contains(client))
    }

    /// Bans a network, for so long or for good, in the place of an earlier ban by hand. False if there are too many.
    pub fn add(&mut self, now_ms: i64, network: Network, for_ms: Option<i64>) -> bool {
        self.by_hand.retain(|ban| ban.is_in_force(now_ms) && ban.network != network);
        if self.by_hand.len() >= BY_HAND_MAX {
            return false;
        }
        let until_ms = for_ms.map(|span| now_ms.saturating_add(span));
        self.by_hand.push(ByHand { network, since_ms: now_ms, until_ms });
        true
    }

    /// Lifts what lies within this network, and what strikes brought upon the clients it belongs to. Their strikes are
    /// forgotten.
    pub fn lift(&mut self, now_ms: i64, network: Network) -> Lifted {
        let meant = |of: &Network| of.is_within(&network) || network.is_within(of);
        let mut lifted: Vec<Network> =
            self.bans.iter().filter(|(of, ban)| meant(of) && ban.until_ms > now_ms).map(|(of, _)| *of).collect();
        self.bans.retain(|of, _| !meant(of));
        self.suspects.retain(|of, _| !meant(of));
        let by_hand = self.by_hand.iter().filter(|ban| ban.is_in_force(now_ms));
        lifted.extend(by_hand.map(|ban| ban.network).filter(|of| of.is_within(&network)));
        self.by_hand.retain(|ban| !ban.network.is_within(&network));
        lifted.sort();
        lifted.dedup();
        let wider = self.by_hand.iter().find(|ban| ban.is_in_force(now_ms) && network.is_within(&ban.network));
        match (lifted.is_empty(), wider) {
            (true, None) => Lifted::None,
            (true, Some(wider)) => Lifted::Within(wider.network),
            (false, _) => Lifted::These(lifted),
        }
    }

    /// All bans in force, the newest first.
    pub fn in_force(&self, now_ms: i64) -> Vec<InForce> {
        let struck = self.bans.iter().filter(|(_, ban)| ban.until_ms > now_ms).map(|(network, ban)| InForce {
            network: *network,
            kind: Some(ban.kind),
            offence: ban.offence,
            since_ms: ban.since_ms,
            until_ms: Some(ban.until_ms),
        });
        let by_hand = self.by_hand.iter().filter(|ban| ban.is_in_force(now_ms)).map(|ban| InForce {
            network: ban.network,
            kind: None,
            offence: 1,
            since_ms: ban.since_ms,
            until_ms: ban.until_ms,
        });
        let mut all: Vec<_> = struck.chain(by_hand).collect();
        all.sort_by_key(|ban| (std::cmp::Reverse(ban.since_ms), ban.network));
        all
    }

    /// What is kept: bans in force or remembered, and those by hand.
    pub fn kept(&self, now_ms: i64) -> (Vec<(Network, Ban)>, Vec<ByHand>) {
        let remembered = |ban: &Ban| now_ms.saturating_sub(ban.until_ms) < REMEMBERED_MS;
        let mut bans: Vec<_> =
            self.bans.iter().filter(|(_, ban)| remembered(ban)).map(|(of, ban)| (*of, *ban)).collect();
        bans.sort_by_key(|(of, _)| *of);
        (bans, self.by_hand.iter().filter(|ban| ban.is_in_force(now_ms)).copied().collect())
    }

    /// With what was kept. No ban is longer from now than it can be, whatever became of the file or the date.
    pub fn resumed(now_ms: i64, bans: Vec<(Network, Ban)>, mut by_hand: Vec<ByHand>) -> Self {
        let most = now_ms.saturating_add(BAN_MS[BAN_MS.len() - 1]);
        let within = |(of, ban): (Network, Ban)| (of, Ban { until_ms: ban.until_ms.min(most), ..ban });
        by_hand.truncate(BY_HAND_MAX);
        Self { suspects: HashMap::new(), bans: bans.into_iter().take(CLIENTS_MAX).map(within).collect(), by_hand }
    }

    fn make_room_for_suspects(&mut self, now_ms: i64, coming: Network) {
        if self.suspects.len() < CLIENTS_MAX || self.suspects.contains_key(&coming) {
            return;
        }
        let cut = mildest(self.suspects.values().map(|suspect| suspect.points(now_ms)));
        // Many may be as mild as that: they go, too, for nothing tells them apart.
        self.suspects.retain(|_, suspect| suspect.points(now_ms) > cut);
        self.suspects.shrink_to(CLIENTS_MAX);
    }

    fn make_room_for_bans(&mut self, now_ms: i64, coming: Network) {
        if self.bans.len() < CLIENTS_MAX || self.bans.contains_key(&coming) {
            return;
        }
        let cut = mildest(self.bans.values().map(|ban| ban.until_ms));
        self.bans.retain(|_, ban| ban.until_ms > cut && now_ms.saturating_sub(ban.until_ms) < REMEMBERED_MS);
    }
}

impl ByHand {
    fn is_in_force(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until| until > now_ms)
    }
}

/// What a tenth of these lies at or below.
fn mildest(values: impl Iterator<Item = i64>) -> i64 {
    let mut values: Vec<i64> = values.collect();
    let place = values.len() / ROOM_SHARE;
    if place >= values.len() {
        return i64::MIN;
    }
    *values.select_nth_unstable(place).1
}

#[cfg(test)]
mod tests;
