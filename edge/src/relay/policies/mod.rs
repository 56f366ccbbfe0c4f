//! MTA-STS policies of other domains (RFC 8461): looked for in the DNS, fetched from their web host, kept over restarts.
//! Who can't be asked now is believed by what it said before, for as long as it then allowed.

mod cache;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::mta_sts::Mode;
use gatepost_protocol::mail::mta_sts::others::{self, POLICY_OCTETS_MAX, Policy};
use gatepost_protocol::mail::transport::{Failure, FailureKind};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::fetch::{Bounds, FetchError, Fetcher};
use gatepost_runtime::kept::Kept;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use tracing::{error, info, warn};

use self::cache::{Cache, FILE_OCTETS_MAX, Fetched};

/// Name of the file in the state directory.
const FILE: &str = "mta-sts";
/// Policies are written down so long after a new one: what a crash forgets is fetched again.
const GATHER: Duration = Duration::from_secs(5);
/// A policy's web host gets so long (RFC 8461 §3.3 suggests a minute; mail waits meanwhile).
const BOUNDS: Bounds = Bounds { octets_max: POLICY_OCTETS_MAX, wait_max: Duration::from_secs(20) };
/// A domain whose policy could not be fetched is asked again after so long.
const AGAIN_AFTER: Duration = Duration::from_mins(5);
/// Such domains that are remembered; beyond them the memory begins anew.
const FAILED_MAX: usize = 1000;
/// Fetches at once; a domain always falls to the same turn, so nobody asks twice at once.
const TURNS: usize = 16;

/// What is known of a domain's policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// The policy that counts, with its identifier.
    pub(super) policy: Option<(String, Arc<Policy>)>,
    /// Why there is none, or none newer.
    pub(super) failure: Option<Failure>,
}

/// The policies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolver: Resolver,
    clock: Clock,
    kept: Kept,
    cache: Mutex<Cache>,
    failed: Mutex<HashMap<String, (Instant, Failure)>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
}

impl Policies {
    /// With what was kept in this state directory. Blocking.
    pub fn open(state: &Path, resolver: Resolver, clock: Clock) -> Self {
        let kept = Kept::new(state.join(FILE), GATHER, clock.clone());
        let cache = Mutex::new(read(&kept, clock.steady_ms()));
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::default());
        Self(Arc::new(Inner { resolver, clock, kept, cache, failed: Mutex::default(), turns }))
    }

    /// Writes down what is new, until draining begins.
    pub async fn keep_up(self, signal: Signal) {
        let policies = self.clone();
        self.0.kept.keep_up(signal, move || policies.keep()).await;
    }

    /// Writes down what is new. Blocking.
    pub fn keep(&self) {
        let inner = &self.0;
        let text = || inner.cache().write(inner.clock.steady_ms());
        if let Err(error) = inner.kept.write(text) {
            error!(%error, "the MTA-STS policies that were fetched can't be written down");
        }
    }

    /// What counts for this domain now.
    pub(super) async fn of(&self, domain: &Domain) -> Found {
        let inner = &self.0;
        let name = domain.as_str();
        // RFC 8461 §5.1: what the DNS does not say now takes nothing from a policy that is still good.
        let texts = inner.resolver.texts(&format!("_mta-sts.{name}")).await.unwrap_or_default();
        let known = inner.cache().of(name, inner.clock.steady_ms()).cloned();
        let Some(id) = others::id(&texts) else { return found(known, None) };
        if known.as_ref().is_some_and(|known| known.id == id) {
            return found(known, None);
        }
        let turn = name.bytes().fold(0_usize, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet.into())) % TURNS;
        let _turn = inner.turns[turn].lock().await;
        // Somebody else may have fetched it meanwhile, or tried to.
        let known = inner.cache().of(name, inner.clock.steady_ms()).cloned();
        if known.as_ref().is_some_and(|known| known.id == id) {
            return found(known, None);
        }
        if let Some(failure) = inner.failed_lately(name) {
            return found(known, Some(failure));
        }
        // It is large, and seldom needed.
        match Box::pin(inner.fetch(name)).await {
            Ok(policy) => {
                info!(domain = name, id, mode = policy.mode.word(), "an MTA-STS policy was fetched");
                let new = Fetched { id: id.to_owned(), policy: Arc::new(policy), at_ms: inner.clock.steady_ms() };
                inner.cache().put(name, new.clone());
                inner.kept.note();
                found(Some(new), None)
            }
            Err(failure) => {
                warn!(
                    domain = name,
                    id,
                    reason = failure.reason,
                    kept = known.is_some(),
                    "an MTA-STS policy can't be had"
                );
                inner.failed(name, failure.clone());
                found(known, Some(failure))
            }
        }
    }
}

fn found(known: Option<Fetched>, failure: Option<Failure>) -> Found {
    // One that says there is none any more counts as none.
    let policy = known.filter(|known| known.policy.mode != Mode::None).map(|known| (known.id, known.policy));
    Found { policy, failure }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_lately(&self, domain: &str) -> Option<Failure> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, failure) = failed.get(domain)?;
        (self.clock.now().saturating_duration_since(*at) < AGAIN_AFTER).then(|| failure.clone())
    }

    fn failed(&self, domain: &str, failure: Failure) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= FAILED_MAX {
            failed.clear();
        }
        failed.insert(domain.to_owned(), (self.clock.now(), failure));
    }

    /// RFC 8461 §3.3: over HTTPS with a certificate for that very name, no redirect.
    async fn fetch(&self, domain: &str) -> Result<Policy, Failure> {
        let invalid = |reason: String| Failure { kind: FailureKind::StsPolicyInvalid, reason };
        let failed = |reason: String| Failure { kind: FailureKind::StsPolicyFetchError, reason };
        let address = format!("https://mta-sts.{domain}/.well-known/mta-sts.txt");
        let page = async {
            let fetcher = Fetcher::new(&[], self.resolver.clone(), self.clock.clone())?.to_the_public_only();
            fetcher.get(&address, BOUNDS).await
        };
        let page = page.await.map_err(|error| failure(&error))?;
        if page.status != 200 {
            return Err(failed(format!("the web host answers {}", page.status)));
        }
        if page.kind != "text/plain" {
            return Err(invalid(format!("the policy is {:?}, not text/plain", page.kind)));
        }
        Policy::parse(&page.body).map_err(|error| invalid(format!("the policy means nothing: {error}")))
    }
}

/// A web host that can't prove its name is told apart from one that can't be reached (RFC 8460 §4.3.2.2).
fn failure(error: &FetchError) -> Failure {
    let kind = match error {
        error if error.is_of_tls() => FailureKind::StsWebpkiInvalid,
        FetchError::TooLong(_) => FailureKind::StsPolicyInvalid,
        _ => FailureKind::StsPolicyFetchError,
    };
    Failure { kind, reason: error.to_string() }
}

fn read(kept: &Kept, now_ms: i64) -> Cache {
    let text = match kept.read(FILE_OCTETS_MAX) {
        Ok(None) => return Cache::default(),
        Ok(Some(text)) => text,
        Err(error) => {
            error!(%error, path = %kept.path().display(), "the MTA-STS policies can't be read; they are fetched anew");
            return Cache::default();
        }
    };
    match Cache::read(&text, now_ms) {
        Ok((cache, 0)) => cache,
        Ok((cache, damaged)) => {
            warn!(damaged, path = %kept.path().display(), "some MTA-STS policies make no sense and are fetched anew");
            cache
        }
        Err(error) => {
            error!(%error, path = %kept.path().display(), "the MTA-STS policies can't be read; they are fetched anew");
            Cache::default()
        }
    }
}
