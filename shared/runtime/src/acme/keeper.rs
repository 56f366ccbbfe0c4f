//! Keeps one certificate good: looks when it is to be renewed, orders, serves what came, and tells how it stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::renewal::{self, Share, Window};
use instant_acme::{Account, CertificateIdentifier};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::challenges::Challenges;
use super::client::CaClient;
use super::folder::{Folder, KeptTries};
use super::names::{self, Beginning, Names};
use super::order::Ordering;
use super::settings::Settings;
use super::{AcmeError, account, blocking, keys};
use crate::certificate::{CertificateError, CertificateFiles, Loaded, Served};
use crate::clock::{Clock, rfc3339};
use crate::fetch::Fetcher;
use crate::random;
use crate::resolver::Resolver;
use crate::shutdown::Signal;

/// The CA is asked at least so often what it would like, and the date is looked at: it may have been corrected.
pub(super) const LOOK_MAX: Duration = Duration::from_hours(6);
/// And at most so often.
pub(super) const LOOK_MIN_S: i64 = 1;
/// What is known of the CA is not held over longer pauses.
const FORGET_AFTER_S: i64 = 600;
/// Moments kept that are further ahead than this were written under another date, and count no more.
const NOT_BEFORE_MAX_S: i64 = 8 * 24 * 3600;

/// What is wanted: a certificate for these names, the host's own first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// From whom, and how.
    settings: Settings,
    /// For what; lower case, at least one.
    pub(super) names: Vec<String>,
}

impl Wanted {
    /// For a host's own name and those its owner adds; nothing where no CA is asked.
    fn of(settings: Option<&Settings>, hostname: &str) -> Option<Arc<Self>> {
        let settings = settings?.clone();
        let mut names = vec![hostname.to_ascii_lowercase()];
        for name in &settings.names {
            let name = name.as_str().to_ascii_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(Arc::new(Self { settings, names }))
    }

    /// The same for one other name alone.
    pub(super) fn for_name(&self, name: &str) -> Self {
        Self { settings: Settings { names: Vec::new(), ..self.settings.clone() }, names: vec![name.to_owned()] }
    }
}

/// Where a keeper is told what is wanted.
#[derive(Debug)]
pub struct Want(watch::Sender<Option<Arc<Wanted>>>);

impl Want {
    /// This from now on. What was begun for it goes on if nothing has changed.
    pub fn set(&self, origin: Origin<'_>) {
        let wanted = Wanted::of(origin.acme, origin.hostname);
        self.0.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }
}

/// How it stands, for `status`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<ArcSwap<Stands>>);

#[derive(Clone, Debug, Default)]
struct Stands {
    ca: String,
    names: Vec<String>,
    account: Option<String>,
    proof: &'static str,
    renewal_unix_s: Option<i64>,
    failures: u32,
    next_unix_s: Option<i64>,
    why: Option<String>,
    alarming: bool,
    elsewhere: bool,
}

impl Standing {
    /// Nothing is known yet but what is wanted.
    pub(super) fn begin(&self, wanted: &Wanted) {
        self.change(|stands| {
            *stands = Stands {
                ca: wanted.settings.directory.clone(),
                names: wanted.names.clone(),
                proof: wanted.settings.proof.name(),
                ..Stands::default()
            };
        });
    }

    /// For `status`, of a further name.
    pub(super) fn of_name(&self) -> Value {
        let stands = self.0.load();
        json!({
            "leads_here": !stands.elsewhere,
            "renewal": stands.renewal_unix_s.map(rfc3339),
            "failures": stands.failures,
            "next_try": stands.next_unix_s.map(rfc3339),
            "why": stands.why,
            "overdue": stands.alarming,
        })
    }

    /// For `status`: `null` where no CA is asked.
    pub fn json(&self) -> Value {
        let stands = self.0.load();
        if stands.ca.is_empty() {
            return Value::Null;
        }
        json!({
            "ca": stands.ca,
            "names": stands.names,
            "account": stands.account,
            "proof": stands.proof,
            "renewal": stands.renewal_unix_s.map(rfc3339),
            "failures": stands.failures,
            "next_try": stands.next_unix_s.map(rfc3339),
            "why": stands.why,
            "overdue": stands.alarming,
        })
    }

    /// What there is to say once less than a third of a certificate's life is left and it is not renewed.
    pub fn overdue(&self) -> Option<String> {
        let stands = self.0.load();
        let why = stands.why.as_deref().filter(|_| stands.alarming)?;
        Some(format!(
            "The certificate for {} should long have been renewed, and was not: {why}. Once it has ended mail programs refuse it. \
             It is tried again by itself; what the CA names has to be mended until then.",
            stands.names.join(", ")
        ))
    }

    fn change(&self, change: impl FnOnce(&mut Stands)) {
        let mut stands = Stands::clone(&self.0.load());
        change(&mut stands);
        self.0.store(Arc::new(stands));
    }
}

/// Where a program's certificate comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Files of the owner's; if there are any, no CA is asked.
    pub files: Option<&'a CertificateFiles>,
    /// The CA that is asked.
    pub acme: Option<&'a Settings>,
    /// The host's own name.
    pub hostname: &'a str,
    /// The program's state directory.
    pub state: &'a Path,
}

impl Origin<'_> {
    /// What a changed config wants to be served at once instead of what is; nothing where a CA is asked, for what is
    /// served stays until that has issued another one. Blocking.
    pub fn read(&self, served: &Served) -> Result<Option<Loaded>, CertificateError> {
        if self.acme.is_some() { Ok(None) } else { served.read(self.files, self.hostname) }
    }
}

/// A program's certificate, and what goes with it.
#[derive(Debug)]
pub struct Kept {
    /// What is served.
    pub served: Served,
    /// What CAs are to be answered.
    pub challenges: Challenges,
    /// How it stands with the CA.
    pub standing: Standing,
    /// Where to say that something else is wanted.
    pub want: Want,
    /// Where to say which further names get certificates of their own.
    pub names: Names,
}

/// Keeps a certificate good until draining begins. What is served first is what was kept, however old it is, for one
/// that has ended is still better than one that nobody vouches for. To be called inside the runtime; blocking.
pub fn start(origin: Origin<'_>, resolver: Resolver, clock: Clock, signal: Signal) -> Result<Kept, CertificateError> {
    let wanted = Wanted::of(origin.acme, origin.hostname);
    let first = wanted.as_deref().and_then(|wanted| {
        kept(origin.state, wanted)
            .inspect_err(|error| warn!(%error, "the kept certificate can't be used, another one is ordered"))
            .ok()?
            .map(|(loaded, _)| loaded)
    });
    let served = Served::new(origin.files, origin.hostname, first)?;
    let (challenges, standing) = (Challenges::default(), Standing::default());
    let keeper = Keeper {
        state: origin.state.to_owned(),
        place: Place::Host,
        served: served.clone(),
        challenges: challenges.clone(),
        resolver,
        clock: clock.clone(),
        standing: standing.clone(),
        turn: Arc::default(),
    };
    let (want, wanted) = watch::channel(wanted);
    let beginning = Beginning { wanted: wanted.clone(), keeper: keeper.clone(), state: origin.state.to_owned(), clock };
    let names = names::start(beginning, served.clone(), signal.clone());
    tokio::spawn(keeper.keep(wanted, signal));
    Ok(Kept { served, challenges, standing, want: Want(want), names })
}

/// Whose certificate it is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The host's own, which everybody gets who asks for no other.
    Host,
    /// That of a further name, which is only ordered while it leads where the host's name leads.
    Name { name: Domain, host: String },
}

#[derive(Clone, Debug)]
pub(super) struct Keeper {
    state: PathBuf,
    place: Place,
    served: Served,
    challenges: Challenges,
    resolver: Resolver,
    clock: Clock,
    standing: Standing,
    /// Held while something is ordered: one after the other, and one account.
    turn: Arc<Mutex<()>>,
}

/// What is known of the CA while the same thing is wanted.
pub(super) struct Ca {
    client: CaClient,
    account: Option<Account>,
}

impl Keeper {
    /// The same for another place.
    pub(super) fn elsewhere(&self, place: Place, standing: Standing) -> Self {
        Self { place, standing, ..self.clone() }
    }

    fn is_serving(&self, loaded: &Loaded) -> bool {
        match &self.place {
            Place::Host => self.served.is_serving(loaded),
            Place::Name { name, .. } => self.served.is_serving_name(name.as_str(), loaded),
        }
    }

    fn serve(&self, loaded: Loaded) {
        match &self.place {
            Place::Host => self.served.serve(loaded),
            Place::Name { name, .. } => self.served.serve_name(name.as_str(), loaded),
        }
    }

    /// Whether a CA that looks for a proof would come here.
    async fn leads_here(&self) -> bool {
        let Place::Name { name, host } = &self.place else { return true };
        let asked = async |name: &str| self.resolver.addresses(name, true).await.unwrap_or_default();
        let (ours, its) = (asked(host).await, asked(name.as_str()).await);
        its.iter().any(|address| ours.contains(address))
    }

    /// Does what is wanted, and what is wanted instead as soon as that changes.
    async fn keep(self, mut wanted: watch::Receiver<Option<Arc<Wanted>>>, mut signal: Signal) {
        loop {
            let now = wanted.borrow_and_update().clone();
            let follow = async {
                if let Some(wanted) = &now {
                    self.follow(wanted).await;
                } else {
                    self.standing.change(|stands| *stands = Stands::default());
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = follow => {}
                changed = wanted.changed() => if changed.is_err() { return },
                () = signal.draining() => return,
            }
        }
    }

    async fn follow(&self, wanted: &Wanted) {
        let share = Share(u16::from_ne_bytes(random::bytes()));
        self.standing.begin(wanted);
        let mut ca = None;
        loop {
            let wait_s = self.round(wanted, &mut ca, share).await.clamp(LOOK_MIN_S, LOOK_MAX.as_secs().cast_signed());
            if wait_s > FORGET_AFTER_S {
                ca = None;
            }
            self.clock.sleep(Duration::from_secs(wait_s.unsigned_abs())).await;
        }
    }

    /// One look, and an order if it is time. Gives in how many seconds to look again.
    pub(super) async fn round(&self, wanted: &Wanted, ca: &mut Option<Ca>, share: Share) -> i64 {
        let folder = folder(&self.state, wanted);
        let now = self.clock.unix_s();
        let (keeper, of) = (self.clone(), wanted.clone());
        let read = blocking(move || Ok((kept(&keeper.state, &of), keeper.tries(&of, now)))).await;
        let (kept, tries) = match read {
            Ok((Ok(kept), tries)) => (kept, tries),
            Ok((Err(error), tries)) => {
                warn!(%error, "the kept certificate can't be used, another one is ordered");
                (None, tries)
            }
            Err(error) => {
                warn!(%error, "what is kept of certificates can't be read");
                return wanted.settings.retry.as_secs().cast_signed();
            }
        };
        if let Some((loaded, _)) = kept.as_ref().filter(|(loaded, _)| !self.is_serving(loaded)) {
            self.serve(loaded.clone());
        }
        let fits = kept.as_ref().filter(|(loaded, _)| loaded.covers(&wanted.names));
        let (due, look_s) = match fits.and_then(|(loaded, _)| loaded.life().map(|life| (loaded, life))) {
            None => (now, i64::MAX),
            Some((loaded, life)) => {
                let (window, look_s) = self.window(wanted, &folder, ca, loaded).await;
                // A short life is looked at often enough.
                (life.renewal(window, share), look_s.min(life.length() / 10))
            }
        };
        let alarming = fits.and_then(|(loaded, _)| loaded.life()).is_some_and(|life| life.is_alarming(now));
        self.standing.change(|stands| {
            stands.renewal_unix_s = fits.map(|_| due);
            stands.failures = tries.failures;
            stands.why.clone_from(&tries.why);
            stands.alarming = alarming && tries.failures > 0;
            stands.next_unix_s = (due <= now || tries.failures > 0).then(|| due.max(tries.not_before));
        });
        let moment = due.max(tries.not_before);
        if moment > now {
            return moment.saturating_sub(now).min(look_s);
        }
        let elsewhere = !self.leads_here().await;
        self.standing.change(|stands| stands.elsewhere = elsewhere);
        if elsewhere {
            // No failure, and nothing to say aloud: most domains never let it lead here.
            return wanted.settings.retry.as_secs().cast_signed();
        }
        let _turn = self.turn.lock().await;
        self.order(wanted, &folder, ca, kept.as_ref(), &tries, share).await
    }

    /// Orders. Gives in how many seconds to look again.
    async fn order(
        &self,
        wanted: &Wanted,
        folder: &Folder,
        ca: &mut Option<Ca>,
        kept: Option<&(Loaded, Zeroizing<String>)>,
        tries: &KeptTries,
        share: Share,
    ) -> i64 {
        let retry_s = wanted.settings.retry.as_secs().cast_signed();
        // Kept before the CA hears of it: neither a crash in here nor a disk that takes nothing asks it again and again.
        let now = self.clock.unix_s();
        let begun = KeptTries { not_before: now.saturating_add(retry_s), at: now, ..tries.clone() };
        let keeping = folder.clone();
        if let Err(error) = blocking(move || keeping.keep_tries(&begun)).await {
            let why = AcmeError::to_string(&error);
            warn!(names = wanted.names.join(" "), next_try_s = retry_s, %error, "no certificate");
            self.standing
                .change(|stands| (stands.failures, stands.why) = (stands.failures.saturating_add(1), Some(why)));
            return retry_s;
        }
        let obtained = match self.obtain(wanted, folder, ca, kept).await {
            Ok(loaded) => self.accepted(loaded, &wanted.names.join(" ")),
            Err(error) => Err(error),
        };
        let now = self.clock.unix_s();
        let tries = match obtained {
            Ok(()) => KeptTries { failures: 0, not_before: now.saturating_add(retry_s), at: now, why: None },
            Err(error) => {
                let asked_s = ca.as_ref().map_or(0, |ca| ca.client.asked_to_wait_s());
                let failures = tries.failures.saturating_add(1);
                let pause_s = renewal::pause(failures, retry_s, asked_s, share);
                if let Err(error) = account::forget_if_unknown(&error, folder).await {
                    warn!(%error, "what is kept of the CA's account can't be removed");
                }
                // The next try begins afresh: with the directory as it is then.
                *ca = None;
                warn!(names = wanted.names.join(" "), failures, next_try_s = pause_s, %error, "no certificate");
                KeptTries { failures, not_before: now.saturating_add(pause_s), at: now, why: Some(error.to_string()) }
            }
        };
        let (keeping, kept) = (folder.clone(), tries.clone());
        if let Err(error) = blocking(move || keeping.keep_tries(&kept)).await {
            warn!(%error, "how often a CA was asked can't be kept");
            // Not kept, and still obeyed.
            return tries.not_before.saturating_sub(now);
        }
        0
    }

    async fn obtain(
        &self,
        wanted: &Wanted,
        folder: &Folder,
        ca: &mut Option<Ca>,
        kept: Option<&(Loaded, Zeroizing<String>)>,
    ) -> Result<Loaded, AcmeError> {
        let account = self.account(wanted, folder, ca).await?;
        let ordering = Ordering {
            account: &account,
            settings: &wanted.settings,
            names: &wanted.names,
            folder,
            challenges: &self.challenges,
            clock: &self.clock,
            current: kept.map(|(loaded, _)| loaded),
            key: kept.map(|(_, key)| key.clone()),
        };
        ordering.obtain().await
    }

    /// Serves it, unless it is good for nothing: by a wrong date of ours even a fresh one may seem so.
    fn accepted(&self, loaded: Loaded, names: &str) -> Result<(), AcmeError> {
        let now = self.clock.unix_s();
        let life = loaded.life();
        let ends = life.map_or(0, |life| life.ends);
        self.serve(loaded);
        info!(names, ends = rfc3339(ends), "a new certificate is served");
        match life {
            Some(life) if (life.begins..life.ends).contains(&now) => Ok(()),
            Some(life) => Err(AcmeError::Useless(format!(
                "by this machine's date a fresh certificate, good from {} to {}, is not good now; set the clock right",
                rfc3339(life.begins),
                rfc3339(life.ends)
            ))),
            None => Err(AcmeError::Useless("it does not say until when it is good".to_owned())),
        }
    }

    /// When the CA would like the certificate to be renewed, if it says so, and in how many seconds to ask again.
    async fn window(
        &self,
        wanted: &Wanted,
        folder: &Folder,
        ca: &mut Option<Ca>,
        loaded: &Loaded,
    ) -> (Option<Window>, i64) {
        let known = blocking({
            let folder = folder.clone();
            move || folder.account()
        });
        let Some(identifier) = loaded.leaf().and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) else {
            return (None, i64::MAX);
        };
        // Who is not its customer yet does not become one by a question.
        if !matches!(known.await, Ok(Some(_))) {
            return (None, i64::MAX);
        }
        let asked =
            async { Ok::<_, AcmeError>(self.account(wanted, folder, ca).await?.renewal_info(&identifier).await?) };
        match asked.await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let window = Window { start: window.start.unix_timestamp(), end: window.end.unix_timestamp() };
                (Some(window), i64::try_from(again.as_secs()).unwrap_or(i64::MAX).max(60))
            }
            Err(error) => {
                debug!(%error, "the CA does not say when to renew");
                (None, i64::MAX)
            }
        }
    }

    async fn account(&self, wanted: &Wanted, folder: &Folder, ca: &mut Option<Ca>) -> Result<Account, AcmeError> {
        let ca = if let Some(ca) = ca {
            ca
        } else {
            let fetcher = Fetcher::new(&wanted.settings.roots, self.resolver.clone(), self.clock.clone())?;
            ca.insert(Ca { client: CaClient::new(fetcher, self.clock.clone()), account: None })
        };
        if let Some(account) = &ca.account {
            return Ok(account.clone());
        }
        let account = account::open(&wanted.settings, folder, &ca.client).await?;
        self.standing.change(|stands| stands.account = Some(account.id().to_owned()));
        Ok(ca.account.insert(account).clone())
    }

    /// How it went lately. Blocking.
    fn tries(&self, wanted: &Wanted, now: i64) -> KeptTries {
        let tries = folder(&self.state, wanted).tries();
        // Written under a date that was wrong, then or now: nobody waits for years.
        let misdated = tries.at > now.saturating_add(3600) || tries.not_before > now.saturating_add(NOT_BEFORE_MAX_S);
        if misdated { KeptTries { not_before: 0, ..tries } } else { tries }
    }
}

/// What is kept for this: the certificate, and its key as PEM. Blocking.
pub(super) fn kept(state: &Path, wanted: &Wanted) -> Result<Option<(Loaded, Zeroizing<String>)>, CertificateError> {
    let folder = folder(state, wanted);
    let path = folder.certificate_path().display().to_string();
    let wrong = |why: String| CertificateError { path: path.clone(), why };
    let Some(pem) = folder.certificate().map_err(|error| wrong(error.to_string()))? else { return Ok(None) };
    let loaded = Loaded::of_pem(&pem, &path)?;
    let key = keys::of_pem(&pem).map_err(|error| wrong(error.to_string()))?;
    Ok(Some((loaded, key)))
}

fn folder(state: &Path, wanted: &Wanted) -> Folder {
    Folder::new(state, &wanted.settings.directory, wanted.names.first().map_or("certificate", String::as_str))
}
