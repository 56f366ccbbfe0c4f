//! Pairing by code: opens codes for the edge's owner, admits the home that comes with one, writes it
//! down in `paired.toml`, and takes homes off that list again. The config is never written.

pub mod window;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::{DialAddress, PairingCode, SECRET_OCTETS};
use gatepost_protocol::pairing::exchange::{
    DOMAINS_MAX, EXPORTER_OCTETS, MORE_KEYS_MAX, Paired, PairingAnswer, PairingRefusal, PairingRequest, Side,
    is_proven, prove,
};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::hello::printable;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::tunnel::{Visitor, software};
use serde_json::{Value, json};
use tracing::{info, warn};

use self::window::{Good, State, Windows};
use crate::config::homes::{NAME_OCTETS_MAX, is_home_name};
use crate::config::paired::{HOMES_MAX, PairedFile};
use crate::config::{HomeConfig, Origin};
use crate::homes::Homes;
use crate::spool::Spool;

/// How long a refusal takes.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// What a home is called that does not say its name.
const NAMELESS: &str = "home";

/// Brings a list of homes into force; an error is a text for people. Blocking.
pub type Apply = dyn Fn(&[HomeConfig]) -> Result<(), String> + Send + Sync;

/// What pairing works with.
pub struct Parts {
    /// State directory.
    pub state: PathBuf,
    /// Our host name.
    pub node: Domain,
    /// Our key.
    pub key: NodeKey,
    /// Our key file, beside which the next key lies while it is changed.
    pub identity: PathBuf,
    /// The homes.
    pub homes: Homes,
    /// What is held for them.
    pub spool: Spool,
    /// Brings homes into force.
    pub apply: Box<Apply>,
    /// Time.
    pub clock: Clock,
}

/// Pairing. Cheap to clone.
#[derive(Clone)]
pub struct Pairing(Arc<Inner>);

struct Inner {
    parts: Parts,
    // Held while the list of homes changes.
    state: Mutex<Lists>,
}

struct Lists {
    windows: Windows,
    /// Those of the config.
    own: Vec<HomeConfig>,
    file: PairedFile,
}

/// A code that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// Sealed mail of a former home lies under the name that was asked for: whoever pairs is offered it.
    pub inherits: bool,
    /// Names it, for [`Pairing::state`].
    pub id: u64,
    /// What it says.
    pub code: PairingCode,
    /// Until when it is good, seconds since 1970.
    pub until_unix_s: i64,
}

/// A home that was unpaired.
#[derive(Debug)]
pub struct Gone {
    /// Its name was.
    pub name: String,
    /// Its domains were.
    pub domains: Vec<Domain>,
    /// Sealed mail is kept for it.
    pub sealed: bool,
}

impl Gone {
    /// For the command that asked.
    pub fn json(&self) -> Value {
        let domains: Vec<_> = self.domains.iter().map(ToString::to_string).collect();
        json!({ "name": self.name, "domains": domains, "sealed_mail_kept": self.sealed })
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parts({})", self.node)
    }
}

impl std::fmt::Debug for Pairing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pairing({})", self.0.parts.node)
    }
}

impl Pairing {
    /// `homes` are those in force now.
    pub fn new(parts: Parts, homes: &[HomeConfig]) -> Self {
        let (file, own) = homes.iter().cloned().partition(|home| home.origin == Origin::Paired);
        // Those unpaired are read again before the file is written.
        let file = PairedFile { homes: file, unpaired: Vec::new() };
        Self(Arc::new(Inner { parts, state: Mutex::new(Lists { windows: Windows::default(), own, file }) }))
    }

    /// Opens a code for a home that shall dial `address`, and be called `name` if it is given.
    pub fn open(&self, address: DialAddress, name: Option<String>) -> Result<Opened, String> {
        if let Some(name) = name.as_ref().filter(|name| !is_home_name(name)) {
            return Err(format!(
                "{name:?} is no name for a home; lower-case letters, digits and hyphens, at most {NAME_OCTETS_MAX}, such as \"cottage\""
            ));
        }
        let inherits = name.as_ref().is_some_and(|name| {
            self.0.parts.homes.all().iter().all(|home| home.name() != name) && self.0.parts.spool.holds_mail(name)
        });
        let secret = Secret::new(random::bytes::<SECRET_OCTETS>().to_vec());
        let clock = &self.0.parts.clock;
        let opened = self.lists().windows.open(clock.now(), secret.clone(), name);
        let id = opened.ok_or_else(|| {
            format!("{} codes are open already; use one of them, or wait until one has expired", window::OPEN_MAX)
        })?;
        let until_unix_s = clock.unix_s().saturating_add_unsigned(window::OPEN_FOR.as_secs());
        info!(address = address.as_str(), "a pairing code is open for an hour");
        Ok(Opened { inherits, id, code: PairingCode { address, edge_key: self.0.parts.key, secret }, until_unix_s })
    }

    /// What became of a code, and the home that used it.
    pub fn state(&self, id: u64) -> (State, Option<HomeConfig>) {
        let mut lists = self.lists();
        let state = lists.windows.state(self.0.parts.clock.now(), id);
        let home = match &state {
            State::Over(window::End::Paired(name)) => {
                lists.file.homes.iter().chain(&lists.own).find(|home| home.name == *name).cloned()
            }
            _ => None,
        };
        (state, home)
    }

    /// The config was read again: these are its homes now, with those that were paired by code. Blocking.
    pub fn reload(&self, homes: &[HomeConfig], apply: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let mut lists = self.lists();
        apply()?;
        (lists.file.homes, lists.own) = homes.iter().cloned().partition(|home| home.origin == Origin::Paired);
        Ok(())
    }

    /// Serves whoever comes to the tunnel's door to pair.
    pub fn serve(&self, visitor: Visitor) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        Box::pin(self.clone().visit(visitor))
    }

    async fn visit(self, mut visitor: Visitor) -> Result<(), String> {
        let request = visitor.request().await.map_err(|error| error.to_string())?;
        let (peer, exporter, address) = (visitor.peer(), *visitor.exporter(), visitor.address());
        let admitting = {
            let pairing = self.clone();
            tokio::task::spawn_blocking(move || pairing.admit(peer, &exporter, &request))
        };
        match admitting.await.map_err(|error| error.to_string())? {
            Ok(paired) => {
                info!(home = paired.home, %address, key = %peer, again = paired.again, "paired by code");
                if let Err(error) = visitor.answer(&PairingAnswer::Paired(paired)).await {
                    warn!(%address, %error, "the home may not have heard that it is paired; if so, pair it again with another code");
                }
                Ok(())
            }
            Err(Turned { refusal, while_open }) => {
                let words = format!("{refusal}");
                if while_open {
                    // Bounded: a few of these, and no code is open any more.
                    warn!(%address, key = %peer, "a home was not paired: {words}");
                }
                self.0.parts.clock.sleep(REFUSAL_DELAY).await;
                // If it can't be told, it is logged here all the same.
                let _ = visitor.answer(&PairingAnswer::Refused(refusal)).await;
                if while_open { Ok(()) } else { Err(words) }
            }
        }
    }

    /// Looks at the code, and lists the home. Blocking.
    fn admit(
        &self,
        peer: NodeKey,
        exporter: &[u8; EXPORTER_OCTETS],
        request: &PairingRequest,
    ) -> Result<Paired, Turned> {
        let mut lists = self.lists();
        let now = self.0.parts.clock.now();
        let while_open = lists.windows.open_now() > 0;
        let good = lists.windows.judge(now, |secret| is_proven(secret, Side::Home, exporter, &request.proof));
        let Good { id, secret, name } = good.map_err(|refusal| Turned { refusal, while_open })?;
        let listed = self.list(&mut lists, peer, request, name);
        let (home, again) = listed.map_err(|refusal| Turned { refusal, while_open })?;
        lists.windows.used(id, &home);
        Ok(Paired {
            proof: prove(&secret, Side::Edge, exporter),
            software: software(),
            node: self.0.parts.node.to_string(),
            home,
            more_keys: self.more_keys().iter().map(|key| *key.as_bytes()).collect(),
            again,
        })
    }

    /// Writes a home down and lets it in; gives its name, and whether it was known.
    fn list(
        &self,
        lists: &mut Lists,
        peer: NodeKey,
        request: &PairingRequest,
        name: Option<String>,
    ) -> Result<(String, bool), PairingRefusal> {
        let domains = domains(&request.domains)?;
        let keys = keys(peer, &request.more_keys)?;
        let shares_a_key = |home: &&HomeConfig| home.keys.iter().any(|key| keys.contains(key));
        if let Some(home) = lists.own.iter().find(shares_a_key) {
            let complete = keys.iter().all(|key| home.keys.contains(key))
                && domains.iter().all(|domain| home.domains.contains(domain));
            return if complete {
                Ok((home.name.clone(), true))
            } else {
                Err(PairingRefusal::ByHand(home.origin.to_string()))
            };
        }
        let mut known = lists.file.homes.iter().filter(shares_a_key);
        let old = known.next();
        if known.next().is_some() {
            return Err(PairingRefusal::Malformed("its keys belong to two homes".to_owned()));
        }
        let others = || {
            let paired = lists.file.homes.iter().filter(|home| old.is_none_or(|old| old.name != home.name));
            lists.own.iter().chain(paired)
        };
        for domain in &domains {
            if let Some(other) = others().find(|home| home.domains.contains(domain)) {
                warn!(%domain, home = other.name, listed_in = %other.origin, "a home that wants to pair asks for the domain of another");
                return Err(PairingRefusal::DomainTaken(domain.to_string()));
            }
        }
        let mut file = PairedFile::read(&self.0.parts.state).map_err(failed)?;
        let again = old.is_some();
        let private_routes = old.and_then(|old| old.private_routes);
        let name = match old {
            Some(old) => old.name.clone(),
            None if file.homes.len() >= HOMES_MAX => {
                return Err(PairingRefusal::Failed(format!("it has {HOMES_MAX} homes, as many as it may")));
            }
            None => self.name_for(&file, &keys, name, &request.node, |name| others().any(|home| home.name == name))?,
        };
        if !again {
            // What a home of this name once said may not be this one's.
            self.0.parts.homes.discard_directory(&name).map_err(failed)?;
        }
        file.put(HomeConfig { name: name.clone(), keys, domains, private_routes, origin: Origin::Paired });
        self.write(lists, file).map_err(PairingRefusal::Failed)?;
        Ok((name, again))
    }

    /// What a new home is called: what the owner said, the name it had before it was unpaired, or after
    /// its own name; unasked never one that another home had before, since mail of that one may lie there.
    fn name_for(
        &self,
        file: &PairedFile,
        keys: &[NodeKey],
        wanted: Option<String>,
        node: &str,
        taken: impl Fn(&str) -> bool,
    ) -> Result<String, PairingRefusal> {
        let before = file.unpaired.iter().find(|old| old.keys.iter().any(|key| keys.contains(key)));
        if let Some(before) = before.filter(|before| !taken(&before.name)) {
            return Ok(before.name.clone());
        }
        let free = |name: &str| !taken(name) && !self.0.parts.spool.knows(name);
        match wanted {
            // The edge's owner may give a name again, with whatever lies under it.
            Some(name) if !taken(&name) => Ok(name),
            Some(name) => Err(PairingRefusal::Failed(format!("another home of it is called {name}"))),
            None => {
                let base = called_after(node);
                let numbered = (2..).map(|number: u32| format!("{base}-{number}"));
                let mut names = std::iter::once(base.clone()).chain(numbered);
                Ok(names.find(|name| free(name)).expect("the numbers do not end"))
            }
        }
    }

    /// Takes a home off the list: its session ends, its sealed mail is kept. An error is a text for
    /// people. Blocking.
    pub fn unpair(&self, name: &str) -> Result<Gone, String> {
        let mut lists = self.lists();
        let parts = &self.0.parts;
        let mut file = PairedFile::read(&parts.state).map_err(|error| error.to_string())?;
        let sealed = parts.spool.holds_mail(name);
        let gone = file.remove(name).ok_or_else(|| not_listed(name, &lists.own, &file))?;
        self.write(&mut lists, file)?;
        parts.homes.discard_directory(name).map_err(|error| error.to_string())?;
        info!(home = name, sealed, "unpaired");
        Ok(Gone { name: gone.name, domains: gone.domains, sealed })
    }

    /// Writes the list and brings it into force; else all is as it was.
    fn write(&self, lists: &mut Lists, file: PairedFile) -> Result<(), String> {
        let parts = &self.0.parts;
        let before = PairedFile::read(&parts.state).map_err(|error| error.to_string())?;
        file.write(&parts.state).map_err(|error| error.to_string())?;
        let homes: Vec<_> = lists.own.iter().chain(&file.homes).cloned().collect();
        if let Err(error) = (parts.apply)(&homes) {
            before.write(&parts.state).map_err(|error| error.to_string())?;
            return Err(error);
        }
        lists.file = file;
        Ok(())
    }

    /// The key we change to, if there is one.
    fn more_keys(&self) -> Vec<NodeKey> {
        match gatepost_runtime::identity::next_key(&self.0.parts.identity) {
            Ok(key) => key.into_iter().collect(),
            Err(error) => {
                warn!(%error, "the next key can't be read, so the home is not told of it");
                Vec::new()
            }
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a home off the list while the edge does not run. `own` are the homes of the config. Blocking.
pub fn unpair_offline(state: &Path, name: &str, own: &[HomeConfig]) -> anyhow::Result<Gone> {
    let _lock = gatepost_runtime::durable::StateLock::take(state)?;
    let mut file = PairedFile::read(state)?;
    let sealed = crate::spool::holds_mail(&state.join("spool").join(name));
    let Some(gone) = file.remove(name) else { anyhow::bail!(not_listed(name, own, &file)) };
    file.write(state)?;
    crate::homes::directory::Shelf::discard(&state.join("directory"), name)?;
    Ok(Gone { name: gone.name, domains: gone.domains, sealed })
}

/// Somebody who was turned away.
struct Turned {
    refusal: PairingRefusal,
    /// A code was open.
    while_open: bool,
}

fn not_listed(name: &str, own: &[HomeConfig], file: &PairedFile) -> String {
    if let Some(home) = own.iter().find(|home| home.name == name && home.origin != Origin::Paired) {
        return format!("{name} stands in {}: take that [[home]] out there, then: gatepost-edge reload", home.origin);
    }
    let names: Vec<_> = file.homes.iter().map(|home| home.name.as_str()).collect();
    if names.is_empty() {
        return format!("no home is called {name}: none was paired by code");
    }
    format!("no home is called {name}; paired by code are: {}", names.join(", "))
}

fn failed(error: impl std::fmt::Display) -> PairingRefusal {
    PairingRefusal::Failed(error.to_string())
}

fn domains(texts: &[String]) -> Result<Vec<Domain>, PairingRefusal> {
    let malformed = |what: &str| PairingRefusal::Malformed(what.to_owned());
    if texts.is_empty() || texts.len() > DOMAINS_MAX {
        return Err(malformed(&format!("it lists {} domains; between 1 and {DOMAINS_MAX} are right", texts.len())));
    }
    let mut domains = Vec::with_capacity(texts.len());
    for text in texts {
        let domain = Domain::parse(text).ok().filter(|domain| domain.literal().is_none());
        let domain = domain.ok_or_else(|| malformed("it lists something that is no domain name"))?;
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    Ok(domains)
}

fn keys(peer: NodeKey, more: &[[u8; 32]]) -> Result<Vec<NodeKey>, PairingRefusal> {
    if more.len() > MORE_KEYS_MAX {
        return Err(PairingRefusal::Malformed("it lists too many keys".to_owned()));
    }
    let mut keys = vec![peer];
    for key in more.iter().map(|key| NodeKey::from_bytes(*key)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// A name for a home after its host name: its first label, or what of it can be in a name.
fn called_after(node: &str) -> String {
    let node = printable(node).to_ascii_lowercase();
    let label = node.split('.').next().unwrap_or_default();
    let kept: String = label.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect();
    // Room for a number behind it.
    let name = kept.trim_matches('-').chars().take(NAME_OCTETS_MAX - 12).collect::<String>();
    if is_home_name(&name) { name } else { NAMELESS.to_owned() }
}
