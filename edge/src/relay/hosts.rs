//! Which hosts may take a message, and a connection to one of them: by MX or named by the home's owner,
//! in the order to try, never to ourselves and never to a place that is not the home's to reach.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::demand::Floor;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::mail::transport::Sessions;
use gatepost_protocol::network::is_public;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, Stage, StartTls};
use gatepost_protocol::tunnel::verb::relay::{WireHop, WireHopTls};
use gatepost_runtime::attempt::pool::Destination;
use gatepost_runtime::attempt::{Attempt, Target, Tls};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::resolver::Resolver;
use tracing::info;

use super::exchangers::{self, Nowhere};
use super::policies::Policies;
use super::security::{Held, Known, Security, Unknown};
use crate::homes::{Home, Homes};

/// How long a host may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long hosts may be tried before the home is told to try again later; one that greets is not cut off.
const TRYING_MAX: Duration = Duration::from_mins(10);
/// A host that did not answer is tried after all others for so long.
const LAST_FOR: Duration = Duration::from_mins(2);
/// Hosts remembered for that; beyond them the memory begins anew.
const LAST_MAX: usize = 1000;

/// Where one message goes.
#[derive(Debug)]
pub(super) struct Route {
    hosts: Hosts,
    port: u16,
    tls: Tls,
    login: Option<(String, Secret)>,
    /// What is known of the domain; nothing of a host the owner named, and of our own door.
    known: Option<Known>,
}

#[derive(Debug)]
enum Hosts {
    /// The exchangers of a domain, in the order they are to be tried.
    Exchangers(Domain, Vec<String>),
    /// One that the home's owner named.
    Named(String),
    /// Our own door: the domain is another home's.
    Neighbour(Domain),
}

/// No host of a message's was usable: what that comes to, and whose words decided.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) outcome: Outcome,
    pub(super) remote: Option<String>,
}

/// Finds hosts and connects to them.
#[derive(Debug)]
pub(super) struct Finder {
    hostname: Domain,
    resolver: Resolver,
    security: Security,
    clock: Clock,
    ipv6: AtomicBool,
    homes: Homes,
    doors: Mutex<OwnDoors>,
    last: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Route {
    /// What this message must share with another to go over the same connection.
    pub(super) fn destination(&self, home: &Home, ipv6: bool) -> Destination {
        let mut hosts = match &self.hosts {
            Hosts::Exchangers(_, names) => names.clone(),
            Hosts::Named(host) => vec![host.clone()],
            // No host has an empty name.
            Hosts::Neighbour(_) => vec![String::new()],
        };
        hosts.sort();
        let (owner, login) = (home.name().to_owned(), self.login.clone());
        let demands = self.known.as_ref().map(Known::key).unwrap_or_default();
        Destination { owner, hosts, port: self.port, tls: self.tls, demands, roots: Vec::new(), login, ipv6 }
    }

    fn is_named(&self) -> bool {
        matches!(self.hosts, Hosts::Named(_))
    }
}

/// Where mail comes to this edge, of the doors that are open.
#[derive(Clone, Copy, Debug, Default)]
struct OwnDoors {
    smtp: Option<SocketAddr>,
    submissions: Option<SocketAddr>,
}

impl OwnDoors {
    fn has(self, port: u16) -> bool {
        [self.smtp, self.submissions].into_iter().flatten().any(|door| door.port() == port)
    }
}

impl Finder {
    pub(super) fn new(
        hostname: Domain,
        (resolver, security): (Resolver, Security),
        clock: Clock,
        ipv6: bool,
        homes: Homes,
    ) -> Self {
        let (doors, last) = (Mutex::default(), Mutex::default());
        Self { hostname, resolver, security, clock, ipv6: AtomicBool::new(ipv6), homes, doors, last }
    }

    /// Where our own doors are, of those that are open.
    pub(super) fn own_doors(&self, smtp: Option<SocketAddr>, submissions: Option<SocketAddr>) {
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = OwnDoors { smtp, submissions };
    }

    fn own(&self) -> OwnDoors {
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn policies(&self) -> &Policies {
        &self.security.policies
    }

    pub(super) fn ipv6(&self) -> bool {
        self.ipv6.load(Ordering::Relaxed)
    }

    pub(super) fn set_ipv6(&self, ipv6: bool) {
        self.ipv6.store(ipv6, Ordering::Relaxed);
    }

    /// Where this hop leads. What the DNS said lately it is not asked again.
    pub(super) async fn route(&self, home: &Home, hop: WireHop) -> Result<Route, Unknown> {
        let no = |reply| Unknown { reply, sessions: Sessions::default() };
        let (name, floor) = match hop {
            WireHop::Domain(name) => (name, Floor::None),
            WireHop::Demanding { domain, floor } => (domain, floor.into()),
            WireHop::Host { host, port, tls, login } => {
                let tls = match tls {
                    WireHopTls::Opportunistic => Tls::Opportunistic,
                    WireHopTls::StartTls => Tls::StartTls,
                    WireHopTls::Implicit => Tls::Implicit,
                    WireHopTls::Off => Tls::Off,
                };
                let login = login.map(|(name, password)| (name, Secret::new(password)));
                return Ok(Route { hosts: Hosts::Named(host), port, tls, login, known: None });
            }
        };
        let domain = Domain::parse(&name).map_err(|_| no(Reply::no_such_domain(&name)))?;
        let (names, known) = if domain.literal().is_some() {
            // RFC 5321 §5.1: an address literal is its own exchanger.
            (Ok(vec![domain.to_string()]), Known::of_literal(domain.clone(), floor))
        } else {
            let (answer, known) = self.security.exchangers(&self.resolver, &domain, floor).await?;
            (exchangers::in_order(answer, &domain, &self.hostname), known)
        };
        let (hosts, known) = match names {
            Ok(names) => (Hosts::Exchangers(domain, names), Some(known)),
            Err(Nowhere::Reply(reply)) => return Err(no(reply)),
            Err(Nowhere::Ourselves) => (self.neighbour(home, domain).map_err(no)?, None),
        };
        Ok(Route { hosts, port: exchangers::PORT, tls: Tls::Opportunistic, login: None, known })
    }

    /// A domain whose mail comes to this edge: another home's goes in by our own door, like all mail from
    /// the world; anybody else's would go in circles.
    fn neighbour(&self, home: &Home, domain: Domain) -> Result<Hosts, Reply> {
        match self.homes.of_domain(&domain) {
            Some(owner) if owner.name() != home.name() => Ok(Hosts::Neighbour(domain)),
            _ => Err(Reply::loops_back(domain.as_str(), self.hostname.as_str())),
        }
    }

    /// Where our own door is reached.
    fn door(&self, domain: &Domain) -> Result<Vec<exchangers::Target>, Reply> {
        let bound = self.own().smtp.ok_or_else(|| Reply::own_door_shut(domain.as_str()))?;
        let ip = if bound.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { bound.ip() };
        let address = SocketAddr::new(ip, bound.port());
        Ok(vec![exchangers::Target { host: self.hostname.to_string(), address }])
    }

    /// The addresses of a route's hosts, in the order to try, and whether they are our own door.
    async fn targets(&self, home: &Home, route: &Route) -> Result<(Vec<exchangers::Target>, bool), Reply> {
        match &route.hosts {
            Hosts::Neighbour(domain) => Ok((self.door(domain)?, true)),
            Hosts::Named(host) => Ok((self.named(home, host, route.port).await?, false)),
            Hosts::Exchangers(domain, names) => {
                match exchangers::targets(&self.resolver, domain, names, &self.hostname, self.ipv6()).await {
                    Ok(targets) => Ok((targets, false)),
                    Err(Nowhere::Reply(reply)) => Err(reply),
                    Err(Nowhere::Ourselves) => {
                        self.neighbour(home, domain.clone())?;
                        Ok((self.door(domain)?, true))
                    }
                }
            }
        }
    }

    async fn named(&self, home: &Home, host: &str, port: u16) -> Result<Vec<exchangers::Target>, Reply> {
        let mut addresses = if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            vec![ip]
        } else {
            let found = self.resolver.addresses(host, true).await;
            found.map_err(|error| Reply::dns_failed(&error.to_string()))?
        };
        if addresses.is_empty() {
            return Err(Reply::dns_failed(&format!("{host} has no address")));
        }
        if !home.private_routes() {
            // Beside other homes, it may be a guest's: this machine and its network are not theirs.
            addresses.retain(|ip| is_public(*ip));
            if addresses.is_empty() {
                return Err(Reply::private_route(host));
            }
        }
        if self.own().has(port) {
            let own = exchangers::own_addresses(&self.resolver, &self.hostname).await;
            if addresses.iter().any(|ip| own.contains(ip)) {
                return Err(Reply::loops_back(host, self.hostname.as_str()));
            }
        }
        let mut addresses = exchangers::by_turns(addresses);
        // Whether this machine reaches IPv6 is what `outbound_ipv6` says; still, a host may have nothing else.
        addresses.sort_by_key(|ip| ip.is_ipv6() && !self.ipv6());
        let target = |ip| exchangers::Target { host: host.to_owned(), address: SocketAddr::new(ip, port) };
        Ok(addresses.into_iter().take(exchangers::TARGETS_MAX).map(target).collect())
    }

    /// Tries a route's hosts until one greets, those that did not answer lately last.
    pub(super) async fn connect(
        &self,
        home: &Home,
        route: &Route,
        trace: TraceId,
        sessions: &mut Sessions,
    ) -> Result<Attempt, Unusable> {
        if let Some(known) = &route.known {
            known.note(sessions);
        }
        let (mut targets, own_door) = match self.targets(home, route).await {
            Ok(found) => found,
            Err(reply) => return Err(Unusable { outcome: Outcome::of(reply), remote: None }),
        };
        let begun = self.clock.now();
        targets.sort_by_key(|target| self.is_last(target.address, begun));
        let mut decisive = None;
        // What hosts are held to, each asked for once.
        let mut held: Vec<(String, Result<Option<Held>, Reply>)> = Vec::new();
        for target in targets {
            if self.clock.now().saturating_duration_since(begun) > TRYING_MAX {
                let late = Reply::unreachable("The hosts tried so far were not usable, the others are for later");
                return Err(decide(decisive, Unusable { outcome: Outcome::of(late), remote: None }));
            }
            let remote = format!("{} [{}]:{}", target.host, target.address.ip(), target.address.port());
            let known = route.known.as_ref().filter(|_| !own_door);
            let place = held.iter().position(|(host, _)| *host == target.host).unwrap_or(held.len());
            if place == held.len() {
                let wanted = match known {
                    Some(known) => self.security.held(known, &target.host, self.ipv6(), sessions).await.map(Some),
                    None => Ok(None),
                };
                if let Err(reply) = &wanted {
                    info!(%trace, home = home.name(), remote, %reply, "a mail host was not usable");
                }
                held.push((target.host.clone(), wanted));
            }
            let another = match &held[place].1 {
                // Each try finds out for itself what is wrong.
                Ok(held) => {
                    let held = held.as_ref().map(Held::afresh);
                    match self.try_host(home, route, target, (own_door, held), trace, sessions).await {
                        Ok(attempt) => return Ok(attempt),
                        Err(outcome) => Unusable { outcome, remote: Some(remote) },
                    }
                }
                Err(reply) => Unusable { outcome: Outcome::of(reply.clone()), remote: Some(remote) },
            };
            decisive = Some(decide(decisive, another));
        }
        let nothing = || Outcome::of(Reply::unreachable("No host to send to"));
        Err(decisive.unwrap_or_else(|| Unusable { outcome: nothing(), remote: None }))
    }

    async fn try_host(
        &self,
        home: &Home,
        route: &Route,
        target: exchangers::Target,
        (own_door, held): (bool, Option<Held>),
        trace: TraceId,
        sessions: &mut Sessions,
    ) -> Result<Attempt, Outcome> {
        let config = ClientConfig {
            helo: self.hostname.to_string(),
            protocol: Protocol::Smtp,
            // The attempt sets it by the target's TLS.
            starttls: StartTls::Opportunistic,
            login: route.login.clone(),
            nonce: random::bytes(),
            limits: ClientLimits::default(),
        };
        let target = Target {
            host: target.host,
            address: target.address,
            tls: held.as_ref().map_or(route.tls, |held| held.tls),
            roots: Vec::new(),
            believed: held.as_ref().map(|held| held.believed.clone()).unwrap_or_default(),
            finding: held.as_ref().map(|held| held.finding.clone()).unwrap_or_default(),
            connect_wait_max: CONNECT_MAX,
        };
        let failure = match Attempt::connect(&target, config, self.clock.clone()).await {
            Ok(attempt) if !own_door && self.is_ourselves(route, &attempt) => {
                let told = match &route.hosts {
                    Hosts::Exchangers(domain, _) | Hosts::Neighbour(domain) => domain.as_str(),
                    Hosts::Named(host) => host,
                };
                let looped = Reply::loops_back(told, &attempt.remote());
                tokio::spawn(attempt.quit());
                return Err(Outcome::of(looped));
            }
            Ok(attempt) => {
                if let Some(held) = &held {
                    held.had(&attempt, sessions);
                }
                return Ok(attempt);
            }
            Err(failure) => failure,
        };
        if let Some(held) = &held {
            held.failed(&target.host, target.address.ip(), &failure, sessions);
        }
        let (remote, address) =
            (format!("{} [{}]:{}", target.host, target.address.ip(), target.address.port()), target.address);
        info!(%trace, home = home.name(), remote, stage = ?failure.stage, reply = %failure.reply, "a mail host was not usable");
        if failure.stage == Stage::Hello {
            self.to_the_end(address);
        }
        // A host the owner named speaks about the owner's config: never the message's fault, so never final.
        Err(if route.is_named() { Outcome::Deferred(failure.reply) } else { Outcome::of(failure.reply) })
    }

    /// Nobody else greets with our name (RFC 5321 §6.3), and nobody else has our address. What an owner
    /// named may be another program on this machine.
    fn is_ourselves(&self, route: &Route, attempt: &Attempt) -> bool {
        if route.is_named() {
            attempt.is_local() && self.own().has(route.port)
        } else {
            attempt.is_local() || attempt.server_name().eq_ignore_ascii_case(self.hostname.as_str())
        }
    }

    fn is_last(&self, address: SocketAddr, now: Instant) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&address).is_some_and(|until| now < *until)
    }

    fn to_the_end(&self, address: SocketAddr) {
        let now = self.clock.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= LAST_MAX {
            last.retain(|_, until| now < *until);
        }
        if last.len() >= LAST_MAX {
            *last = HashMap::new();
        }
        last.insert(address, now + LAST_FOR);
    }
}

/// Of the hosts so far `former` decides; now there is another. While one of them may still take the
/// message nothing is final (RFC 5321 §5.1), so the last temporary failure wins, else the last.
fn decide(former: Option<Unusable>, another: Unusable) -> Unusable {
    let is_final = |one: &Unusable| one.outcome.reply().class() == Class::Permanent;
    match former {
        Some(former) if !is_final(&former) && is_final(&another) => former,
        _ => another,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_that_may_still_take_it_keeps_the_rest_from_being_final() {
        let (never, later) = (Reply::unknown_recipient(), Reply::no_room());
        let decided = |replies: &[&Reply]| {
            let unusable = |&reply: &&Reply| Unusable { outcome: Outcome::of(reply.clone()), remote: None };
            let last = replies.iter().map(unusable).fold(None, |former, another| Some(decide(former, another)));
            last.expect("some").outcome.reply().clone()
        };
        assert_eq!(decided(&[&later, &never]), later);
        assert_eq!(decided(&[&never, &later, &never]), later);
        assert_eq!(decided(&[&never, &never]), never);
        assert_eq!(decided(&[&never]), never);
    }
}
