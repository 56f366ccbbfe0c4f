//! Certificates of further names, each a lineage of its own: one that can't be had holds up no other, nor the host's own.
//! One order at a time, and none for a name that does not lead here: a CA counts what fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::keeper::{Followed, Keeper, LOOK_MAX, LOOK_MIN_S, Wanted};
use super::lineage::Lineage;
use super::standing::Standing;
use crate::certificate::Served;
use crate::clock::rfc3339;
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

/// Keeps them until draining begins. To be called inside the runtime. The settings of the host's own certificate are
/// everybody's.
pub(super) fn start(keeper: Keeper, wanted: watch::Receiver<Wanted>, signal: Signal) -> Names {
    let (sender, names) = watch::channel(BTreeSet::new());
    let stands = NameStandings { all: Arc::default(), served: keeper.served.clone() };
    let book = Book { keeper, wanted, lineages: BTreeMap::new(), stands: stands.clone() };
    tokio::spawn(book.keep(names, signal));
    Names { wanted: sender, stands }
}

struct Book {
    keeper: Keeper,
    wanted: watch::Receiver<Wanted>,
    lineages: BTreeMap<Domain, (Followed, Standing)>,
    stands: NameStandings,
}

impl Book {
    async fn keep(mut self, mut names: watch::Receiver<BTreeSet<Domain>>, mut signal: Signal) {
        let mut wanted = self.wanted.clone();
        loop {
            let host = wanted.borrow_and_update().main().cloned();
            let now = names.borrow_and_update().clone();
            self.follow(host.as_ref(), &now).await;
            let next = self.next();
            tokio::select! {
                () = self.keeper.clock.sleep(next) => {}
                changed = wanted.changed() => if changed.is_err() { return } else { continue },
                changed = names.changed() => if changed.is_err() { return } else { continue },
                () = signal.draining() => return,
            }
            // What has begun is not broken off because another name comes or goes.
            tokio::select! {
                () = self.look() => {}
                () = signal.draining() => return,
            }
        }
    }

    /// These are the names now. One that has gone is served no more; what is kept of it stays, should it come back.
    async fn follow(&mut self, host: Option<&Lineage>, names: &BTreeSet<Domain>) {
        // Who is in the host's certificate needs none.
        let own = |name: &Domain| host.is_some_and(|host| !host.names.iter().any(|known| known == name.as_str()));
        let wanted: BTreeMap<Domain, Lineage> = names
            .iter()
            .filter(|name| own(name))
            .filter_map(|name| Some((name.clone(), host?.for_name(name.as_str()))))
            .collect();
        let served = &self.keeper.served;
        self.lineages.retain(|name, (followed, _)| {
            let stays = wanted.get(name).is_some_and(|wanted| *wanted == followed.lineage);
            if !wanted.contains_key(name) {
                served.forget(name.as_str());
                info!(%name, "this name gets no certificate any more");
            }
            stays
        });
        let now = self.keeper.clock.now();
        for (name, wanted) in wanted {
            if self.lineages.contains_key(&name) {
                continue;
            }
            self.serve_kept(&wanted).await;
            let standing = Standing::default();
            standing.of_ca(std::slice::from_ref(&wanted));
            self.lineages.insert(name, (Followed::new(0, wanted, now), standing));
        }
        let standings = self.lineages.iter().map(|(name, (_, standing))| (name.clone(), standing.clone()));
        self.stands.all.store(Arc::new(standings.collect()));
    }

    /// What is kept is served at once, before anybody else's turn.
    async fn serve_kept(&self, lineage: &Lineage) {
        let (state, of) = (self.keeper.state.clone(), lineage.clone());
        let read = tokio::task::spawn_blocking(move || of.kept(&state)).await;
        if let Ok(Ok(Some((loaded, _)))) = read {
            self.keeper.served.serve_at(&lineage.place, loaded);
        }
    }

    /// Until somebody's turn.
    fn next(&self) -> Duration {
        let now = self.keeper.clock.now();
        let first = self.lineages.values().map(|(followed, _)| followed.next).min();
        first.map_or(LOOK_MAX, |first| first.saturating_duration_since(now).min(LOOK_MAX))
    }

    /// Looks after the one whose turn it is.
    async fn look(&mut self) {
        let now = self.keeper.clock.now();
        let first = self.lineages.values_mut().min_by_key(|(followed, _)| followed.next);
        let Some((followed, standing)) = first.filter(|(followed, _)| followed.next <= now) else { return };
        let keeper = self.keeper.telling(standing.clone());
        // What is known of the CA is not held: there are long hours between two questions.
        let wait_s = keeper.round(followed, &mut None).await;
        let wait_s = wait_s.clamp(LOOK_MIN_S, LOOK_MAX.as_secs().cast_signed());
        followed.next = keeper.clock.now() + Duration::from_secs(wait_s.unsigned_abs());
    }
}
