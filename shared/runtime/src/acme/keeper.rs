//! Keeps one certificate good: looks when it is to be renewed, orders, serves what came, and tells how it stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost_protocol::renewal::{self, Life, Share, Window};
use instant_acme::{Account, CertificateIdentifier};
use tokio::sync::{Mutex, Notify, watch};
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use super::challenges::Challenges;
use super::client::CaClient;
use super::folder::{Folder, KeptTries};
use super::lineage::Lineage;
use super::names::{self, Names};
use super::order::Ordering;
use super::rollover::{self, Rollover};
use super::settings::Settings;
use super::standing::Standing;
use super::{AcmeError, account, blocking};
use crate::certificate::watched::Watched;
use crate::certificate::{CertificateError, CertificateFiles, Loaded, Place, Served};
use crate::clock::{Clock, rfc3339};
use crate::fetch::Fetcher;
use crate::random;
use crate::resolver::Resolver;
use crate::shutdown::Signal;

/// What is kept, and the date, which may have been corrected, are looked at so often at least.
pub(super) const LOOK_MAX: Duration = Duration::from_mins(10);
/// And at most so often.
pub(super) const LOOK_MIN_S: i64 = 1;
/// What is known of the CA is not held over longer pauses.
const FORGET_AFTER_S: u64 = 120;
/// Files of the owner's are looked at so often.
const FILES_EVERY: Duration = Duration::from_secs(3);
/// A certificate that is not good is shouted about so often.
const SHOUT_EVERY: Duration = Duration::from_hours(24);
/// At least and at most so many seconds pass before a CA is asked again when to renew (RFC 9773 §4.3.3).
const ADVICE_S: (i64, i64) = (60, 24 * 3600);
/// Moments kept that are further ahead than this were written under another date, and count no more.
const NOT_BEFORE_MAX_S: i64 = 8 * 24 * 3600;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Our own, which nobody vouches for.
    SelfSigned,
    /// The owner's.
    Files(CertificateFiles),
    /// A CA's.
    Issued(Arc<Vec<Lineage>>),
}

impl Wanted {
    fn of(origin: &Origin<'_>) -> Self {
        match (origin.acme, origin.files) {
            (Some(settings), _) => Self::Issued(Arc::new(Lineage::all(settings, origin.hostname))),
            (None, Some(files)) => Self::Files(files.clone()),
            (None, None) => Self::SelfSigned,
        }
    }

    /// What is asked of a CA for the host itself.
    pub(super) fn main(&self) -> Option<&Lineage> {
        match self {
            Self::Issued(lineages) => lineages.first(),
            Self::SelfSigned | Self::Files(_) => None,
        }
    }
}

/// Where a keeper is told what is wanted.
#[derive(Debug)]
pub struct Want(watch::Sender<Wanted>);

impl Want {
    /// This from now on. What was begun for it goes on if nothing has changed.
    pub fn set(&self, origin: Origin<'_>) {
        let wanted = Wanted::of(&origin);
        self.0.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
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
    /// Where to ask for new keys.
    pub rollover: Rollover,
    /// Where to say which further names get certificates of their own.
    pub names: Names,
}

/// Keeps a certificate good until draining begins. What is served first is what was kept, however old it is, for one
/// that has ended is still better than one that nobody vouches for. To be called inside the runtime; blocking.
pub fn start(origin: Origin<'_>, resolver: Resolver, clock: Clock, signal: Signal) -> Result<Kept, CertificateError> {
    let wanted = Wanted::of(&origin);
    let kept = |place: Place| {
        let Wanted::Issued(lineages) = &wanted else { return None };
        let lineage = lineages.iter().find(|lineage| lineage.place == place)?;
        let kept = lineage.kept(origin.state);
        kept.inspect_err(|error| warn!(%error, "the kept certificate can't be used, another one is ordered"))
            .ok()?
            .map(|(loaded, _)| loaded)
    };
    let served = Served::new(origin.files, origin.hostname, kept(Place::Main))?;
    served.serve_rsa(kept(Place::Rsa));
    let (challenges, standing) = (Challenges::default(), Standing::default());
    let keeper = Keeper {
        state: origin.state.to_owned(),
        hostname: origin.hostname.to_owned(),
        served: served.clone(),
        challenges: challenges.clone(),
        resolver,
        clock: clock.clone(),
        standing: standing.clone(),
        nudge: Arc::new(Notify::new()),
        turn: Arc::default(),
    };
    let (want, wanted) = watch::channel(wanted);
    let (state, nudge) = (keeper.state.clone(), Arc::clone(&keeper.nudge));
    let rollover = Rollover { state, wanted: wanted.clone(), nudge, clock };
    let names = names::start(keeper.clone(), wanted.clone(), signal.clone());
    tokio::spawn(keeper.keep(wanted, signal));
    Ok(Kept { served, challenges, standing, want: Want(want), rollover, names })
}

#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) state: PathBuf,
    pub(super) hostname: String,
    pub(super) served: Served,
    challenges: Challenges,
    resolver: Resolver,
    pub(super) clock: Clock,
    standing: Standing,
    nudge: Arc<Notify>,
    /// Held while something is ordered: one after the other, and one account.
    turn: Arc<Mutex<()>>,
}

/// What is known of the CA while the same thing is wanted.
pub(super) struct Ca {
    client: CaClient,
    account: Option<Account>,
}

/// A lineage, and what is known of it while it is wanted.
pub(super) struct Followed {
    at: usize,
    pub(super) lineage: Lineage,
    share: Share,
    advice: Advice,
    /// When to look again.
    pub(super) next: Instant,
}

impl Followed {
    /// The lineage with this number of its standing, looked at from now on.
    pub(super) fn new(at: usize, lineage: Lineage, now: Instant) -> Self {
        Self { at, lineage, share: Share(u16::from_ne_bytes(random::bytes())), advice: Advice::default(), next: now }
    }
}

/// When the CA would like the certificate to be renewed, as far as it has said so.
#[derive(Default)]
struct Advice {
    /// Of which certificate.
    of: Vec<u8>,
    window: Option<Window>,
    failures: u32,
    /// Not asked before.
    not_before: Option<Instant>,
}

impl Keeper {
    /// The same, telling elsewhere how it stands.
    pub(super) fn telling(&self, standing: Standing) -> Self {
        Self { standing, ..self.clone() }
    }

    /// Whether a CA that looks for a proof would come here.
    async fn leads_here(&self, place: &Place) -> bool {
        let Place::Name(name) = place else { return true };
        let asked = async |name: &str| self.resolver.addresses(name, true).await.unwrap_or_default();
        let (ours, its) = (asked(&self.hostname).await, asked(name).await);
        its.iter().any(|address| ours.contains(address))
    }

    /// Does what is wanted, and what is wanted instead as soon as that changes.
    async fn keep(self, mut wanted: watch::Receiver<Wanted>, mut signal: Signal) {
        loop {
            let now = wanted.borrow_and_update().clone();
            let follow = async {
                match &now {
                    Wanted::Issued(lineages) => Box::pin(self.follow(lineages)).await,
                    Wanted::Files(files) => self.watch(files).await,
                    Wanted::SelfSigned => {
                        self.standing.of_files(None);
                        self.served.serve_rsa(None);
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = follow => {}
                changed = wanted.changed() => if changed.is_err() { return },
                () = signal.draining() => return,
            }
        }
    }

    /// Serves what the owner's files hold, whenever they hold something else.
    async fn watch(&self, files: &CertificateFiles) {
        self.standing.of_files(Some(files));
        self.served.serve_rsa(None);
        let mut watched = Watched::new(files.clone());
        let (mut why, mut shouted) = (None, None);
        loop {
            let (served, hostname) = (self.served.clone(), self.hostname.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let found = watched.look(&served, &hostname);
                (watched, found)
            });
            let Ok((back, found)) = looked.await else { return };
            watched = back;
            match found {
                None => {}
                Some(Ok(None)) => why = None,
                Some(Ok(Some(loaded))) => {
                    let ends = loaded.life().map(|life| rfc3339(life.ends));
                    self.served.serve(loaded);
                    let file = watched.files().certificate.display().to_string();
                    info!(file, ends, "the certificate's files have changed: what they hold now is served");
                    why = None;
                }
                Some(Err(error)) => {
                    warn!(%error, "the certificate's files have changed and can't be served; what was served before still is");
                    why = Some(error.to_string());
                }
            }
            let (life, now) = (self.served.life(), self.clock.unix_s());
            let alarming = life.is_some_and(|life| life.is_neglected(now));
            self.standing.of_files_now(life.map(|life| life.ends), alarming, why.as_deref());
            self.shout(life, &mut shouted);
            self.clock.sleep(FILES_EVERY).await;
        }
    }

    /// Says loudly, once a day, that what is served has ended or is not good yet.
    fn shout(&self, life: Option<Life>, shouted: &mut Option<Instant>) {
        let (now, at) = (self.clock.unix_s(), self.clock.now());
        let Some(life) = life.filter(|life| !(life.begins..life.ends).contains(&now)) else {
            *shouted = None;
            return;
        };
        if shouted.is_some_and(|before| at.saturating_duration_since(before) < SHOUT_EVERY) {
            return;
        }
        *shouted = Some(at);
        error!(
            begins = rfc3339(life.begins),
            ends = rfc3339(life.ends),
            "the certificate that is served is not good now: mail programs refuse it; renew it, or set the clock right if that is wrong"
        );
    }

    /// Keeps each lineage good, one after the other: they share an account.
    async fn follow(&self, lineages: &[Lineage]) {
        self.standing.of_ca(lineages);
        if !lineages.iter().any(|lineage| lineage.place == Place::Rsa) {
            self.served.serve_rsa(None);
        }
        let now = self.clock.now();
        let followed = lineages.iter().enumerate().map(|(at, lineage)| Followed::new(at, lineage.clone(), now));
        let mut followed: Vec<Followed> = followed.collect();
        let (mut ca, mut shouted) = (None, None);
        loop {
            for one in &mut followed {
                if one.next > self.clock.now() {
                    continue;
                }
                let wait_s = self.round(one, &mut ca).await.clamp(LOOK_MIN_S, LOOK_MAX.as_secs().cast_signed());
                one.next = self.clock.now() + Duration::from_secs(wait_s.unsigned_abs());
            }
            self.shout(self.served.life(), &mut shouted);
            let next = followed.iter().map(|one| one.next).min().unwrap_or_else(|| self.clock.now() + LOOK_MAX);
            if next.saturating_duration_since(self.clock.now()).as_secs() > FORGET_AFTER_S {
                ca = None;
            }
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.nudge.notified() => followed.iter_mut().for_each(|one| one.next = self.clock.now()),
            }
        }
    }

    /// One look, and an order if it is time. Gives in how many seconds to look again.
    pub(super) async fn round(&self, one: &mut Followed, ca: &mut Option<Ca>) -> i64 {
        let folder = one.lineage.folder(&self.state);
        let now = self.clock.unix_s();
        let (state, of, tries) = (self.state.clone(), one.lineage.clone(), folder.clone());
        let read = blocking(move || Ok((of.kept(&state), believable(tries.tries(), now)))).await;
        let (kept, tries) = match read {
            Ok((Ok(kept), tries)) => (kept, tries),
            Ok((Err(error), tries)) => {
                warn!(%error, "the kept certificate can't be used, another one is ordered");
                (None, tries)
            }
            Err(error) => {
                warn!(%error, "what is kept of certificates can't be read");
                return one.lineage.settings.retry.as_secs().cast_signed();
            }
        };
        if let Some((loaded, _)) =
            kept.as_ref().filter(|(loaded, _)| !self.served.is_serving(&one.lineage.place, loaded))
        {
            self.served.serve_at(&one.lineage.place, loaded.clone());
        }
        let current = kept.as_ref().map(|(_, key)| key.as_str());
        let following = rollover::look(&one.lineage, &folder, current, &self.resolver, now).await;
        let fits = kept.as_ref().filter(|(loaded, _)| loaded.covers(&one.lineage.names));
        let fits = fits.and_then(|(loaded, _)| loaded.life().map(|life| (loaded, life)));
        let (due, look_s) = match fits {
            None => (now, i64::MAX),
            Some((loaded, life)) => {
                let window = self.window(one, &folder, ca, loaded, life).await;
                let due = life.renewal(window, one.share);
                let is_ready = following.as_ref().is_some_and(|following| following.ready.is_some());
                // A short life is looked at often enough, and so is a key that waits a short time.
                let look_s = match &following {
                    Some(_) => (life.length() / 10).min(one.lineage.settings.rollover.as_secs().cast_signed()),
                    None => life.length() / 10,
                };
                (if is_ready { due.min(now) } else { due }, look_s)
            }
        };
        let alarming = fits.is_some_and(|(_, life)| life.is_alarming(now));
        self.standing.change_one(one.at, |stands| {
            stands.renewal_unix_s = fits.map(|_| due);
            stands.following = following.as_ref().map(|following| (following.tlsa.clone(), following.shown_since));
            stands.failures = tries.failures;
            stands.why.clone_from(&tries.why);
            stands.alarming = alarming && tries.failures > 0;
            stands.next_unix_s = (due <= now || tries.failures > 0).then(|| due.max(tries.not_before));
        });
        let moment = due.max(tries.not_before);
        if moment > now {
            return moment.saturating_sub(now).min(look_s);
        }
        let elsewhere = !self.leads_here(&one.lineage.place).await;
        self.standing.change_one(one.at, |stands| stands.elsewhere = elsewhere);
        if elsewhere {
            // No failure, and nothing to say aloud: most domains never let it lead here.
            return one.lineage.settings.retry.as_secs().cast_signed();
        }
        let key = following.and_then(|following| following.ready).map(|next| next.key);
        let kept = kept.map(|(loaded, current)| (loaded, key.unwrap_or(current)));
        let _turn = self.turn.lock().await;
        self.order(one, &folder, ca, kept.as_ref(), &tries).await
    }

    /// Orders. Gives in how many seconds to look again.
    async fn order(
        &self,
        one: &Followed,
        folder: &Folder,
        ca: &mut Option<Ca>,
        kept: Option<&(Loaded, Zeroizing<String>)>,
        tries: &KeptTries,
    ) -> i64 {
        let retry_s = one.lineage.settings.retry.as_secs().cast_signed();
        let names = one.lineage.names.join(" ");
        // Kept before the CA hears of it: neither a crash in here nor a disk that takes nothing asks it again and again.
        let now = self.clock.unix_s();
        let begun = KeptTries { not_before: now.saturating_add(retry_s), at: now, ..tries.clone() };
        let keeping = folder.clone();
        if let Err(error) = blocking(move || keeping.keep_tries(&begun)).await {
            let why = AcmeError::to_string(&error);
            warn!(names, next_try_s = retry_s, %error, "no certificate");
            self.standing.change_one(one.at, |stands| {
                (stands.failures, stands.why) = (stands.failures.saturating_add(1), Some(why));
            });
            return retry_s;
        }
        let obtained = match self.obtain(&one.lineage, folder, ca, kept).await {
            Ok(loaded) => self.accepted(&one.lineage.place, loaded, &names),
            Err(error) => Err(error),
        };
        let now = self.clock.unix_s();
        let tries = match obtained {
            Ok(()) => KeptTries { failures: 0, not_before: now.saturating_add(retry_s), at: now, why: None },
            Err(error) => {
                let asked_s = ca.as_ref().map_or(0, |ca| ca.client.asked_to_wait_s());
                let failures = tries.failures.saturating_add(1);
                let pause_s = renewal::pause(failures, retry_s, asked_s, one.share);
                if let Err(error) = account::forget_if_unknown(&error, folder).await {
                    warn!(%error, "what is kept of the CA's account can't be removed");
                }
                // The next try begins afresh: with the directory as it is then.
                *ca = None;
                warn!(names, failures, next_try_s = pause_s, %error, "no certificate");
                KeptTries { failures, not_before: now.saturating_add(pause_s), at: now, why: Some(error.to_string()) }
            }
        };
        self.standing.change_one(one.at, |stands| {
            stands.failures = tries.failures;
            stands.why.clone_from(&tries.why);
            stands.next_unix_s = (tries.failures > 0).then_some(tries.not_before);
        });
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
        lineage: &Lineage,
        folder: &Folder,
        ca: &mut Option<Ca>,
        kept: Option<&(Loaded, Zeroizing<String>)>,
    ) -> Result<Loaded, AcmeError> {
        let account = self.account(lineage, folder, ca).await?;
        // Nothing is ordered under a date by which what comes of it would be good for nothing.
        if let Some(days) = ca.as_ref().and_then(|ca| ca.client.date_off_days()) {
            return Err(AcmeError::Date { days });
        }
        let ordering = Ordering {
            account: &account,
            settings: &lineage.settings,
            names: &lineage.names,
            kind: lineage.kind,
            folder,
            challenges: &self.challenges,
            clock: &self.clock,
            current: kept.map(|(loaded, _)| loaded),
            key: kept.map(|(_, key)| key.clone()),
        };
        ordering.obtain().await
    }

    /// Serves it, unless it is good for nothing: by a wrong date of ours even a fresh one may seem so.
    fn accepted(&self, place: &Place, loaded: Loaded, names: &str) -> Result<(), AcmeError> {
        let now = self.clock.unix_s();
        let life = loaded.life();
        let ends = life.map_or(0, |life| life.ends);
        self.served.serve_at(place, loaded);
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

    /// When the CA would like the certificate to be renewed, if it ever said so. It is asked again when it said it
    /// likes to be (RFC 9773 §4.3): in a day at the latest, once a minute at most, and ten times in a short life.
    async fn window(
        &self,
        one: &mut Followed,
        folder: &Folder,
        ca: &mut Option<Ca>,
        loaded: &Loaded,
        life: Life,
    ) -> Option<Window> {
        let leaf = loaded.leaf()?;
        if one.advice.of != leaf.as_ref() {
            one.advice = Advice { of: leaf.to_vec(), ..Advice::default() };
        }
        if one.advice.not_before.is_some_and(|not_before| self.clock.now() < not_before) {
            return one.advice.window;
        }
        let identifier = CertificateIdentifier::try_from(leaf).ok()?;
        let known = blocking({
            let folder = folder.clone();
            move || folder.account()
        });
        // Who is not its customer yet does not become one by a question.
        if !matches!(known.await, Ok(Some(_))) {
            return one.advice.window;
        }
        let asked = async {
            Ok::<_, AcmeError>(self.account(&one.lineage, folder, ca).await?.renewal_info(&identifier).await?)
        };
        let again_s = match asked.await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let window = Window { start: window.start.unix_timestamp(), end: window.end.unix_timestamp() };
                (one.advice.window, one.advice.failures) = (Some(window), 0);
                i64::try_from(again.as_secs()).unwrap_or(i64::MAX)
            }
            Err(error) => {
                debug!(%error, "the CA does not say when to renew");
                one.advice.failures = one.advice.failures.saturating_add(1);
                renewal::pause(one.advice.failures, ADVICE_S.0, 0, one.share)
            }
        };
        let again_s = again_s.min(ADVICE_S.1).min(life.length() / 10).max(ADVICE_S.0);
        one.advice.not_before = Some(self.clock.now() + Duration::from_secs(again_s.unsigned_abs()));
        one.advice.window
    }

    async fn account(&self, lineage: &Lineage, folder: &Folder, ca: &mut Option<Ca>) -> Result<Account, AcmeError> {
        let ca = if let Some(ca) = ca {
            ca
        } else {
            let fetcher = Fetcher::new(&lineage.settings.roots, self.resolver.clone(), self.clock.clone())?;
            ca.insert(Ca { client: CaClient::new(fetcher, self.clock.clone()), account: None })
        };
        if let Some(account) = &ca.account {
            return Ok(account.clone());
        }
        let account = account::open(&lineage.settings, folder, &ca.client).await?;
        self.standing.has_account(account.id());
        Ok(ca.account.insert(account).clone())
    }
}

/// Without what was written under a date that was wrong, then or now: nobody waits for years.
fn believable(tries: KeptTries, now: i64) -> KeptTries {
    let misdated = tries.at > now.saturating_add(3600) || tries.not_before > now.saturating_add(NOT_BEFORE_MAX_S);
    if misdated { KeptTries { not_before: 0, ..tries } } else { tries }
}
