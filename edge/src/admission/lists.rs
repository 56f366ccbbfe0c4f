//! The owner's DNS lists, asked about a client all at once. A list counts once it has shown that it can be believed;
//! one that lies or is silent is passed over for a while, and reported once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::dns_list::{self, DnsList, Standing};
use gatepost_protocol::mail::verdict::Listed;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::resolver::{CouldNotTell, Resolver};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::health::{Fault, Health, Use};
use super::locked;

/// The lists. Nothing is asked, and nothing held of answers, before a client comes.
#[derive(Debug)]
pub struct Lists {
    resolver: Resolver,
    clock: Clock,
    zones: ArcSwap<Vec<Arc<Zone>>>,
}

/// One zone of the DNS, asked once a client however many entries of the config weigh its answers.
#[derive(Debug)]
struct Zone {
    origin: Domain,
    lists: Vec<DnsList>,
    /// For IPv4 and IPv6. It stays over a reload.
    health: Arc<[Mutex<Health>; 2]>,
}

impl Lists {
    /// Of these.
    pub fn new(resolver: Resolver, lists: &[DnsList], clock: Clock) -> Self {
        let zones = ArcSwap::from_pointee(zones(lists, &[]));
        Self { resolver, clock, zones }
    }

    /// From now on these.
    pub fn reload(&self, lists: &[DnsList]) {
        self.zones.store(Arc::new(zones(lists, &self.zones.load())));
    }

    /// True if there is none to ask.
    pub fn is_empty(&self) -> bool {
        self.zones.load().is_empty()
    }

    /// What they say of this client by then; who has not answered says nothing.
    pub async fn ask(&self, client: IpAddr, until: Instant) -> Standing {
        let mut asked = JoinSet::new();
        for (place, zone) in self.zones.load().iter().enumerate() {
            let (zone, resolver, clock) = (Arc::clone(zone), self.resolver.clone(), self.clock.clone());
            asked.spawn(async move { (place, zone.ask(&resolver, &clock, client.to_canonical(), until).await) });
        }
        let mut found: Vec<_> = asked.join_all().await;
        found.sort_by_key(|(place, _)| *place);
        Standing { hits: found.into_iter().flat_map(|(_, hits)| hits).collect() }
    }

    /// For `status`: what each is called, and whether it is believed.
    pub fn json(&self) -> Value {
        let state = |health: &Mutex<Health>| {
            let health = *locked(health);
            match health.fault() {
                Some(fault) => fault.to_string(),
                None if health.is_good() => "good".to_owned(),
                None => "not asked yet".to_owned(),
            }
        };
        let zones = self.zones.load();
        let shown = zones.iter().map(|zone| {
            let [ipv4, ipv6] = &*zone.health;
            // Of IPv6 many have nothing.
            let fault = locked(ipv4).fault().map(|fault| fault.to_string());
            json!({ "list": zone.name(), "ipv4": state(ipv4), "ipv6": state(ipv6), "fault": fault })
        });
        Value::Array(shown.collect())
    }
}

/// The entries by zone, in their order; what was known of a zone stays.
fn zones(lists: &[DnsList], before: &[Arc<Zone>]) -> Vec<Arc<Zone>> {
    let mut places = HashMap::new();
    let mut zones: Vec<Zone> = Vec::new();
    for list in lists {
        let place = *places.entry(&list.zone).or_insert_with(|| {
            let known = before.iter().find(|zone| zone.origin == list.zone).map(|zone| Arc::clone(&zone.health));
            zones.push(Zone { origin: list.zone.clone(), lists: Vec::new(), health: known.unwrap_or_default() });
            zones.len() - 1
        });
        zones[place].lists.push(list.clone());
    }
    zones.into_iter().map(Arc::new).collect()
}

impl Zone {
    /// Its zone may be a secret.
    fn name(&self) -> &str {
        self.lists.first().map_or("", |list| &list.name)
    }

    async fn ask(&self, resolver: &Resolver, clock: &Clock, client: IpAddr, until: Instant) -> Vec<Listed> {
        let ipv6 = client.is_ipv6();
        let how = self.health(ipv6).before_asking(clock.now());
        if how == Use::Leave {
            return Vec::new();
        }
        let question = dns_list::question(client, &self.origin);
        let proven = async { if how == Use::Prove { Some(Box::pin(self.proof(resolver, ipv6)).await) } else { None } };
        let asking = async { tokio::join!(proven, Box::pin(resolver.addresses(&question, false))) };
        let left = || until.saturating_duration_since(clock.now());
        let answered = clock.timeout(left(), asking).await;
        let now = clock.now();
        let Some((proof, Ok(codes))) = answered else {
            self.report(ipv6, |health| health.silent(now));
            return Vec::new();
        };
        match proof {
            None => self.health(ipv6).answered(),
            Some(Err(_)) => {
                self.report(ipv6, |health| health.silent(now));
                return Vec::new();
            }
            Some(Ok((listed, unlisted))) => self.report(ipv6, |health| health.proven(now, listed, unlisted)),
        }
        if !self.health(ipv6).is_good() {
            return Vec::new();
        }
        let is_hit = |list: &&DnsList| codes.iter().any(|code| matches!(code, IpAddr::V4(code) if list.is_hit(*code)));
        let hits: Vec<&DnsList> = self.lists.iter().filter(is_hit).collect();
        let words = if hits.iter().any(|list| list.weight > 0) {
            let texts = clock.timeout(left(), Box::pin(resolver.texts(&question))).await;
            texts.and_then(Result::ok).and_then(|texts| dns_list::words(&texts))
        } else {
            None
        };
        let listed = |list: &DnsList| Listed { list: list.name.clone(), weight: list.weight, words: words.clone() };
        hits.into_iter().map(listed).collect()
    }

    /// Whether it has the point every list has, and the one none may have.
    async fn proof(&self, resolver: &Resolver, ipv6: bool) -> Result<(bool, bool), CouldNotTell> {
        let has = async |point| {
            let codes = resolver.addresses(&dns_list::question(point, &self.origin), false).await?;
            Ok(codes.iter().any(|code| matches!(code, IpAddr::V4(code) if dns_list::is_listing(*code))))
        };
        let (listed, unlisted) = dns_list::test_points(ipv6);
        tokio::try_join!(has(listed), has(unlisted))
    }

    fn health(&self, ipv6: bool) -> MutexGuard<'_, Health> {
        locked(&self.health[usize::from(ipv6)])
    }

    fn report(&self, ipv6: bool, change: impl FnOnce(&mut Health) -> Option<Result<(), Fault>>) {
        let Some(news) = change(&mut self.health(ipv6)) else { return };
        let (list, family) = (self.name(), if ipv6 { "IPv6" } else { "IPv4" });
        match news {
            Ok(()) => info!(list, family, "the DNS list can be believed again"),
            Err(Fault::ListsNothing) if ipv6 => info!(list, family, "the DNS list has nothing of this family"),
            Err(fault) => warn!(list, family, %fault, "the DNS list is passed over until it is mended"),
        }
    }
}
