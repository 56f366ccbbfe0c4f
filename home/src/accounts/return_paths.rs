//! Return paths of forwarded mail (SRS): made, checked and undone here, with keys that lie in `home.db`. A sender
//! that does not fit into a local part is kept there too, until nothing can come back for it.

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::hmac;
use gatepost_protocol::mail::address::{Address, Domain, LocalPart};
use gatepost_protocol::mail::directory::SrsVerifier;
use gatepost_protocol::mail::srs::{Day, KEYS_MAX, LIFETIME_DAYS, Origin, ReturnPath, SrsKey};
use gatepost_runtime::random;
use rusqlite::{Connection, OptionalExtension};
use zeroize::Zeroizing;

use super::Accounts;
use super::administration::AdministrationError;
use crate::database::{Database, DatabaseError};

/// Name of the keys among the settings of `home.db`.
const SETTING: &str = "return_path_keys";
/// How long a return path is good for, in seconds, with the day it was made on.
const LIFETIME_S: i64 = (LIFETIME_DAYS as i64 + 1) * 24 * 3600;
/// Senders kept at once; beyond them the oldest are forgotten.
pub const KEPT_MAX: usize = 20_000;
/// Octets of one generation of keys as it is stored: when it was made, the edges' key, our own.
const GENERATION_OCTETS: usize = 8 + 32 + 32;
/// Octets that name a sender that is kept.
const ID_OCTETS: usize = 10;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Keys that are used together.
#[derive(Clone)]
struct Generation {
    made_unix_s: i64,
    edge: SrsKey,
    home: SrsKey,
}

/// The keys: those in use first, then those whose addresses may still come back.
pub(super) struct Keys(RwLock<Vec<Generation>>);

impl Generation {
    fn new(made_unix_s: i64) -> Self {
        Self { made_unix_s, edge: SrsKey::new(random::bytes()), home: SrsKey::new(random::bytes()) }
    }
}

impl Keys {
    /// Reads them; makes them on first start. Blocking.
    pub(super) fn open(database: &Database, now_unix_s: i64) -> Result<Self, DatabaseError> {
        let fresh = encode(&[Generation::new(now_unix_s)]);
        let stored = database
            .write(move |connection| {
                connection.execute("INSERT OR IGNORE INTO setting VALUES (?1, ?2)", (SETTING, &fresh[..]))?;
                stored(connection)
            })
            .wait()?;
        Ok(Self(RwLock::new(decode(&stored))))
    }

    fn all(&self) -> Vec<Generation> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What edges check with.
    pub(super) fn verifier(&self, now_unix_s: i64) -> SrsVerifier {
        SrsVerifier { keys: live(self.all(), now_unix_s).into_iter().map(|keys| keys.edge).collect() }
    }
}

/// Those that still count: a generation does for as long after the next one was made as its addresses live.
fn live(mut generations: Vec<Generation>, now_unix_s: i64) -> Vec<Generation> {
    let mut followed_unix_s = None;
    generations.retain(|keys| {
        let good = followed_unix_s.is_none_or(|followed: i64| now_unix_s.saturating_sub(followed) <= LIFETIME_S);
        followed_unix_s = Some(keys.made_unix_s);
        good
    });
    generations
}

impl Accounts {
    /// True if this is an address of ours that can only be a return path.
    pub fn is_return_path(&self, address: &Address) -> bool {
        ReturnPath::is_like(address.local())
            && self.settings().domains.contains(address.domain())
            && !self.book().addresses.has(&address.lookup_key())
    }

    /// The return path at `domain` for mail of this sender that is forwarded. Durable when this returns. Blocking.
    pub fn rewrite(&self, sender: &Address, domain: &Domain) -> Result<Address, DatabaseError> {
        let now = self.inner.clock.steady_s();
        let Some(keys) = self.inner.return_paths.all().into_iter().next() else {
            return Ok(sender.clone());
        };
        let written =
            |origin| ReturnPath::new(origin, Day::of(self.inner.clock.latest_s()), &keys.edge, &keys.home).local_part();
        let local = match written(Origin::of(sender)) {
            Some(local) => Some(local),
            None => written(Origin::Kept { id: self.keep_sender(&keys.home, sender, now)? }),
        };
        let local = local.unwrap_or_else(|| LocalPart::parse("postmaster").expect("an atom is a local part"));
        Ok(Address::new(local, domain.clone()))
    }

    /// The sender this return path was made from; `None` if it is forged, expired, or not one of ours. Blocking.
    pub fn reverse(&self, address: &Address) -> Result<Option<Address>, DatabaseError> {
        let now = self.inner.clock.steady_s();
        let Some(path) = ReturnPath::parse(address.local()) else { return Ok(None) };
        let generations = live(self.inner.return_paths.all(), now);
        let good =
            |good, keys: &Generation| good | path.is_good(&keys.edge, &keys.home, Day::of(self.inner.clock.latest_s()));
        if !generations.iter().fold(false, good) {
            return Ok(None);
        }
        let Origin::Kept { id } = path.origin() else { return Ok(path.origin().address()) };
        let id = id.to_ascii_lowercase();
        let kept: Option<String> = self.inner.database.read(|connection| {
            connection
                .prepare_cached("SELECT address FROM return_path WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()
        })?;
        Ok(kept.and_then(|text| Address::parse(&text).ok()))
    }

    /// New keys from now on; what was made with the old ones stays good until it expires. Blocking.
    pub fn rotate_return_path_keys(&self) -> Result<(), AdministrationError> {
        let now = self.inner.clock.steady_s();
        let mut generations = live(self.inner.return_paths.all(), now);
        if generations.len() >= KEYS_MAX {
            return Err(AdministrationError::KeysChangedOften);
        }
        generations.insert(0, Generation::new(now));
        let bytes = encode(&generations);
        let stored = self.inner.database.write_statement(move |connection| {
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?1, ?2)", (SETTING, &bytes[..])).map(|_| ())
        });
        stored.wait()?;
        *self.inner.return_paths.0.write().unwrap_or_else(PoisonError::into_inner) = generations;
        self.refresh(None)?;
        Ok(())
    }

    /// Keeps a sender for as long as something may come back to it; the same one again costs nothing that day.
    fn keep_sender(&self, key: &SrsKey, sender: &Address, now: i64) -> Result<String, DatabaseError> {
        let address = sender.to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let tag = hmac::sign(&key, ["gatepost kept sender ", &address].concat().as_bytes());
        let id = base32(&tag.as_ref()[..ID_OCTETS]);
        let today = now.div_euclid(24 * 3600);
        let found: Option<i64> = self.inner.database.read(|connection| {
            connection
                .prepare_cached("SELECT made FROM return_path WHERE id = ?1")?
                .query_row([&id], |row| row.get(0))
                .optional()
        })?;
        if found.is_none_or(|made| made.div_euclid(24 * 3600) < today) {
            let row = (id.clone(), address, now);
            let kept = self.inner.database.write(move |connection| {
                connection.prepare_cached("INSERT OR REPLACE INTO return_path VALUES (?1, ?2, ?3)")?.execute(row)?;
                connection
                    .prepare_cached("DELETE FROM return_path WHERE made < ?1")?
                    .execute([now.saturating_sub(LIFETIME_S)])?;
                connection
                    .prepare_cached(
                        "DELETE FROM return_path WHERE id IN
                         (SELECT id FROM return_path ORDER BY made DESC LIMIT -1 OFFSET ?1)",
                    )?
                    .execute([i64::try_from(KEPT_MAX).unwrap_or(i64::MAX)])
            });
            kept.wait()?;
        }
        Ok(id)
    }
}

fn stored(connection: &Connection) -> rusqlite::Result<Zeroizing<Vec<u8>>> {
    connection.query_row("SELECT value FROM setting WHERE name = ?1", [SETTING], |row| row.get(0)).map(Zeroizing::new)
}

fn encode(generations: &[Generation]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(generations.len() * GENERATION_OCTETS));
    for keys in generations {
        bytes.extend_from_slice(&keys.made_unix_s.to_be_bytes());
        bytes.extend_from_slice(keys.edge.expose());
        bytes.extend_from_slice(keys.home.expose());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Vec<Generation> {
    let generation = |bytes: &[u8]| {
        let (made, keys) = bytes.split_first_chunk::<8>()?;
        let (edge, home) = keys.split_first_chunk::<32>()?;
        let home = home.first_chunk::<32>()?;
        let made_unix_s = i64::from_be_bytes(*made);
        Some(Generation { made_unix_s, edge: SrsKey::new(*edge), home: SrsKey::new(*home) })
    };
    bytes.chunks(GENERATION_OCTETS).filter_map(generation).take(KEYS_MAX).collect()
}

/// Five bits a letter.
fn base32(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0u16, 0);
    for octet in octets {
        bits = bits << 8 | u16::from(*octet);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(ALPHABET[usize::from(bits >> count & 31)]));
        }
        bits &= (1 << count) - 1;
    }
    text
}
