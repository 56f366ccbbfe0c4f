//! Certificates of further names, each a lineage of its own: one that can't be had holds up no other, nor the host's own.
//! One order at a time, and none for a name that does not lead here: a CA counts what fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::renewal::Share;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::keeper::{Keeper, LOOK_MAX, LOOK_MIN_S, Place, Standing, Wanted, kept};
use crate::certificate::Served;
use crate::clock::{Clock, rfc3339};
use crate::random;
use crate::shutdown::Signal;

/// Names that get certificates of their own: three or four of each domain.
pub const NAMES_MAX: usize = 200;

/// Where it is told which names there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Names {
    wanted: watch::Sender<BTreeSet<Domain>>,
    stands: NameStandings,
}

impl Names {
    /// These from now on; beyond [`NAMES_MAX`] the last by their letters go without.
    pub fn set(&self, names: BTreeSet<Domain>) {
        if names.len() > NAMES_MAX {
            warn!(names = names.len(), max = NAMES_MAX, "not every name gets a certificate of its own");
        }
        let names: BTreeSet<Domain> = names.into_iter().take(NAMES_MAX).collect();
        self.wanted.send_if_modified(|before| {
            let changed = *before != names;
            *before = names;
            changed
        });
    }

    /// How each stands.
    pub fn standings(&self) -> &NameStandings {
        &self.stands
    }
}

/// How each name stands, for `status`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NameStandings {
    all: Arc<ArcSwap<Vec<(Domain, Standing)>>>,
    served: Served,
}

impl NameStandings {
    /// For `status`: of those that `is_told` picks.
    pub fn json(&self, now_unix_s: i64, is_told: impl Fn(&Domain) -> bool) -> Value {
        let all = self.all.load();
        let told = all.iter().filter(|(name, _)| is_told(name)).map(|(name, standing)| {
            let mut told = standing.of_name();
            told["name"] = name.as_str().into();
            told["ends"] = json!(self.served.ends_of(name.as_str()).map(rfc3339));
            told["good"] = self.served.ends_of(name.as_str()).is_some_and(|ends| ends > now_unix_s).into();
            told
        });
        Value::Array(told.collect())
    }

    /// What there is to say of names that should long have been renewed.
    pub fn overdue(&self) -> Vec<(Domain, Option<String>)> {
        self.all.load().iter().map(|(name, standing)| (name.clone(), standing.overdue())).collect()
    }
}

/// What every lineage works with.
pub(super) struct Beginning {
    /// Of the host's own certificate: its settings are everybody's.
    pub(super) wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// A keeper whose place and standing each lineage replaces by its own.
    pub(super) keeper: Keeper,
    pub(super) state: PathBuf,
    pub(super) clock: Clock,
}

struct Lineage {
    wanted: Arc<Wanted>,
    standing: Standing,
    share: Share,
    look_unix_s: i64,
}

/// Keeps them until draining begins. To be called inside the runtime.
pub(super) fn start(beginning: Beginning, served: Served, signal: Signal) -> Names {
    let (sender, names) = watch::channel(BTreeSet::new());
    let stands = NameStandings { all: Arc::default(), served: served.clone() };
    let book = Book { beginning, served, lineages: BTreeMap::new(), stands: stands.clone() };
    tokio::spawn(book.keep(names, signal));
    Names { wanted: sender, stands }
}

struct Book {
    beginning: Beginning,
    served: Served,
    lineages: BTreeMap<Domain, Lineage>,
    stands: NameStandings,
}

impl Book {
    async fn keep(mut self, mut names: watch::Receiver<BTreeSet<Domain>>, mut signal: Signal) {
        let mut wanted = self.beginning.wanted.clone();
        loop {
            let host = wanted.borrow_and_update().clone();
            let now = names.borrow_and_update().clone();
            self.follow(host.as_deref(), &now).await;
            let next = self.next();
            tokio::select! {
                () = self.beginning.clock.sleep(next) => {}
                changed = wanted.changed() => if changed.is_err() { return } else { continue },
                changed = names.changed() => if changed.is_err() { return } else { continue },
                () = signal.draining() => return,
            }
            // What has begun is not broken off because another name comes or goes.
            tokio::select! {
                () = self.look(host.as_deref()) => {}
                () = signal.draining() => return,
            }
        }
    }

    /// These are the names now. One that has gone is served no more; what is kept of it stays, should it come back.
    async fn follow(&mut self, host: Option<&Wanted>, names: &BTreeSet<Domain>) {
        // Who is in the host's certificate needs none.
        let own = |name: &Domain| host.is_some_and(|host| !host.names.iter().any(|known| known == name.as_str()));
        let wanted: BTreeMap<Domain, Arc<Wanted>> = names
            .iter()
            .filter(|name| own(name))
            .filter_map(|name| Some((name.clone(), Arc::new(host?.for_name(name.as_str())))))
            .collect();
        let served = &self.served;
        self.lineages.retain(|name, lineage| {
            let stays = wanted.get(name).is_some_and(|wanted| *wanted == lineage.wanted);
            if !wanted.contains_key(name) {
                served.forget(name.as_str());
                info!(%name, "this name gets no certificate any more");
            }
            stays
        });
        let now = self.beginning.clock.unix_s();
        for (name, wanted) in wanted {
            if self.lineages.contains_key(&name) {
                continue;
            }
            self.serve_kept(&name, &wanted).await;
            let standing = Standing::default();
            standing.begin(&wanted);
            let share = Share(u16::from_ne_bytes(random::bytes()));
            self.lineages.insert(name, Lineage { wanted, standing, share, look_unix_s: now });
        }
        let standings = self.lineages.iter().map(|(name, lineage)| (name.clone(), lineage.standing.clone()));
        self.stands.all.store(Arc::new(standings.collect()));
    }

    /// What is kept is served at once, before anybody else's turn.
    async fn serve_kept(&self, name: &Domain, wanted: &Arc<Wanted>) {
        let (state, wanted) = (self.beginning.state.clone(), Arc::clone(wanted));
        let read = tokio::task::spawn_blocking(move || kept(&state, &wanted)).await;
        if let Ok(Ok(Some((loaded, _)))) = read {
            self.served.serve_name(name.as_str(), loaded);
        }
    }

    /// Until somebody's turn.
    fn next(&self) -> Duration {
        let now = self.beginning.clock.unix_s();
        let first = self.lineages.values().map(|lineage| lineage.look_unix_s).min();
        let wait_s = first.map_or(i64::MAX, |first| first.saturating_sub(now));
        Duration::from_secs(wait_s.clamp(0, LOOK_MAX.as_secs().cast_signed()).unsigned_abs())
    }

    /// Looks after the one whose turn it is.
    async fn look(&mut self, host: Option<&Wanted>) {
        let now = self.beginning.clock.unix_s();
        let first = self.lineages.iter_mut().min_by_key(|(_, lineage)| lineage.look_unix_s);
        let (Some((name, lineage)), Some(host)) = (first, host) else { return };
        if lineage.look_unix_s > now {
            return;
        }
        let place = Place::Name { name: name.clone(), host: host.names.first().cloned().unwrap_or_default() };
        let keeper = self.beginning.keeper.elsewhere(place, lineage.standing.clone());
        // What is known of the CA is not held: there are long hours between two questions.
        let wait_s = keeper.round(&lineage.wanted, &mut None, lineage.share).await;
        let wait_s = wait_s.clamp(LOOK_MIN_S, LOOK_MAX.as_secs().cast_signed());
        lineage.look_unix_s = self.beginning.clock.unix_s().saturating_add(wait_s);
    }
}
