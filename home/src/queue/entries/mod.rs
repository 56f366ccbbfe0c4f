//! The entries that wait, as on disk, and when each is due. One change of an entry at a time; a change is on
//! disk before anyone sees it. In memory is what the runner needs to choose ([`table`]); the rest is read when
//! an entry's turn comes. Methods that read or write are blocking.

mod local;
mod start;
mod table;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{Draft, DurableError};
use tokio::sync::Notify;

use self::table::{Slot, Table};
use super::config::Settings;
use super::downgrade::Watch;
use super::entry::{Entry, Final};
use super::given_up::Teller;
use super::next_hop::Routes;
use super::pace::Limits;
use super::ready::{Bounds, Lane, Past, Ready, Shown};
use super::schedule::{self, Schedule};
use super::store::{Cleared, Store, StoreError};
use super::summary::{self, Summary};
use super::{NewEntry, QueueId};
use crate::delivery::lmtp::Servers;
use crate::message::Message;

/// How long a finished entry is remembered after the start that could still ask for it.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Finished entries remembered at most, the latest.
const REMEMBERED_MAX: usize = 1_000_000;
/// Locks over changes: entries that share one wait for each other.
const STRIPES: usize = 256;

/// What the config rules.
#[derive(Debug)]
pub struct Rules {
    /// Bounds and names.
    pub settings: Settings,
    /// The times.
    pub schedule: Schedule,
    /// Next hops.
    pub routes: Routes,
}

/// All entries.
#[derive(Debug)]
pub struct Entries {
    store: Store,
    clock: Clock,
    started: std::time::Instant,
    rules: Mutex<Arc<Rules>>,
    table: Mutex<Table>,
    ready: Mutex<Ready>,
    servers: OnceLock<Servers>,
    // Held while a change is made and written, so that changes of one entry follow one another.
    changing: Vec<Mutex<()>>,
    /// Told at every change.
    pub changed: Notify,
    /// Hears of what is given up.
    pub given_up: Teller,
    /// How secure mail to each domain is, and usually is.
    pub watch: Arc<Watch>,
}

impl Rules {
    fn new(settings: Settings, routes: Routes) -> Self {
        Self { schedule: Schedule::from(&settings), settings, routes }
    }

    /// What any destination is allowed.
    pub fn limits(&self) -> Limits {
        Limits {
            concurrency_max: u32::try_from(self.settings.attempts_per_destination_max).unwrap_or(u32::MAX),
            per_minute_max: self.settings.per_minute_per_destination_max,
        }
    }
}

impl Entries {
    /// The lanes that the recipients of an entry wait for. Until it is known who keeps mailboxes, none for those.
    fn lanes_of(&self, entry: &Entry, rules: &Rules) -> Vec<Lane> {
        let servers = self.servers.get();
        let keepers = servers.filter(|_| entry.local).map(Servers::keepers);
        entry
            .waiting()
            .filter_map(|address| match &keepers {
                Some(keepers) => Some(Lane::Mailboxes(keepers.of(&address.lookup_key()).cloned())),
                None if entry.local => None,
                None => Some(rules.routes.hop(address).lane()),
            })
            .collect()
    }

    fn read_lanes(&self, ids: &[QueueId], rules: &Rules) -> Result<(), StoreError> {
        for id in ids {
            let Some(entry) = self.read(*id)? else { continue };
            let mut table = self.table();
            let lanes = table.lanes(self.lanes_of(&entry, rules));
            if let Some(slot) = table.slot(*id).cloned() {
                table.put(*id, Slot { lanes, ..slot });
            }
        }
        Ok(())
    }

    /// Takes changed rules. Blocking for as long as it takes to index the queue anew.
    pub fn reload(&self, settings: Settings, routes: Routes) -> Result<(), StoreError> {
        let rules = Arc::new(Rules::new(settings, routes));
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rules);
        let drained = self.ready().drain();
        let mut unknown = Vec::new();
        self.store.outlines(|outline| {
            let domains: Vec<Domain> = outline.domains.split(' ').filter_map(|name| Domain::parse(name).ok()).collect();
            if outline.local || domains.iter().any(|domain| rules.routes.is_by_address(domain)) {
                unknown.push(outline.id);
                return;
            }
            let mut table = self.table();
            let lanes = table.lanes(domains.iter().map(|domain| rules.routes.hop_of_domain(domain).lane()));
            if let Some(slot) = table.slot(outline.id).cloned() {
                let look_unix_ms = slot.look_unix_ms.map(|at| at.min(rules.schedule.look_of_outline(&outline)));
                table.put(outline.id, Slot { look_unix_ms, lanes, ..slot });
            }
        })?;
        self.read_lanes(&unknown, &rules)?;
        self.find_keepers();
        for id in drained {
            self.file_again(id);
        }
        self.table().forget_lanes();
        self.changed.notify_one();
        Ok(())
    }

    /// What was filed, and taken without any change of the entry, is due as it was.
    pub fn file_again(&self, id: QueueId) {
        let now = self.now_unix_ms();
        let mut table = self.table();
        if let Some(slot) = table.slot(id).filter(|slot| !slot.held && slot.try_unix_ms.is_none()).cloned() {
            table.put(id, Slot { try_unix_ms: Some(now), ..slot });
        }
        drop(table);
        self.changed.notify_one();
    }

    /// What was filed, and found not to be due, is due when its entry says.
    pub fn file_later(&self, id: QueueId) {
        let Some(entry) = self.entry(id) else { return };
        let mut table = self.table();
        if let Some(slot) = table.slot(id).filter(|slot| slot.try_unix_ms.is_none()).cloned() {
            table.put(id, Slot { try_unix_ms: schedule::try_unix_ms(&entry), ..slot });
        }
        drop(table);
        self.changed.notify_one();
    }

    /// The rules now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Now, by the steady time: what every moment in an entry is of, but when it was received.
    pub fn now_unix_ms(&self) -> i64 {
        self.clock.steady_ms()
    }

    /// How far the date is ahead of that: what makes dates of such moments, for people and reports.
    pub fn date_ahead_ms(&self) -> i64 {
        self.clock.date_ahead_ms()
    }

    /// Now, by a clock that is never set back: milliseconds since the queue was opened.
    pub fn now_ms(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The files and rows.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// See [`super::Queue::prepare`].
    pub fn prepare(
        &self,
        new: NewEntry,
        message: &Message,
        begin: impl FnOnce(&mut Entry),
    ) -> Result<(Entry, Draft), StoreError> {
        if self.waiting() >= self.rules().settings.messages_max {
            let source = io::Error::new(io::ErrorKind::StorageFull, "the queue holds as many messages as it may");
            return Err(DurableError { action: "queue", path: new.id.to_string().into(), source }.into());
        }
        self.store.prepare(new, message, self.now_unix_ms(), begin)
    }

    /// See [`super::Prepared::commit`].
    pub fn commit(&self, entry: Entry, draft: Draft) -> Result<(), StoreError> {
        let row = self.store.commit(&entry, draft)?;
        tracing::info!(
            trace = %entry.trace,
            queue = %entry.id,
            sender = %entry.reverse_path,
            recipients = entry.recipients.len(),
            octets = entry.octets,
            "{}",
            if entry.local { "waits for its mailboxes" } else { "queued" }
        );
        self.put(row, Arc::new(entry));
        self.changed.notify_one();
        Ok(())
    }

    /// Indexes an entry as it is on disk.
    fn put(&self, row: i64, entry: Arc<Entry>) {
        let rules = self.rules();
        let held = entry.held.is_some();
        let mut table = self.table();
        let lanes = table.lanes(self.lanes_of(&entry, &rules));
        let slot = Slot {
            row,
            try_unix_ms: schedule::try_unix_ms(&entry),
            look_unix_ms: rules.schedule.look_unix_ms(&entry),
            lanes,
            queued_unix_ms: entry.queued_unix_ms,
            deferred: entry.deferred(),
            untried: count(entry.waiting().count()).saturating_sub(entry.deferred()),
            held,
            local: entry.local,
        };
        table.put(entry.id, slot);
        table.keep(entry);
    }

    /// See [`super::Queue::has`].
    pub fn has(&self, id: QueueId) -> bool {
        let table = self.table();
        table.slot(id).is_some() || table.finished.contains_key(&id)
    }

    /// See [`super::Queue::settle`].
    pub fn settle(&self, id: QueueId) -> Result<bool, StoreError> {
        if self.has(id) {
            return Ok(true);
        }
        self.table().unfinished.remove(&id);
        let Some((row, entry)) = self.store.settle(id)? else { return Ok(false) };
        tracing::info!(trace = %entry.trace, queue = %id, "queued, finishing what a crash cut short");
        self.put(row, Arc::new(entry));
        self.changed.notify_one();
        Ok(true)
    }

    /// Clears up what was prepared before the last stop and never committed: nobody was told that it is here.
    pub fn sweep_unfinished(&self) {
        let unfinished = std::mem::take(&mut self.table().unfinished);
        for id in unfinished {
            match self.store.clear(id) {
                Ok(Cleared::Removed) => tracing::info!(queue = %id, "removed a message that was never wholly taken"),
                Ok(Cleared::Found(row, entry)) => {
                    let why = entry.held.as_deref().unwrap_or_default();
                    tracing::error!(trace = %entry.trace, queue = %id, why, "a message is held");
                    self.put(row, Arc::from(entry));
                }
                Ok(Cleared::SetAside) => {}
                Err(error) => tracing::warn!(queue = %id, %error, "the remains of a message could not be removed"),
            }
        }
    }

    /// Forgets entries that finished long ago, and destinations of which nothing is worth knowing.
    pub fn sweep(&self) {
        let oldest = self.now_unix_ms().saturating_sub(i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX));
        let old: Vec<(QueueId, i64)> = {
            let table = self.table();
            let mut by_age: Vec<(i64, QueueId, i64)> =
                table.finished.iter().map(|(id, (row, at))| (*at, *id, *row)).collect();
            by_age.sort_unstable();
            let beyond = by_age.len().saturating_sub(REMEMBERED_MAX);
            by_age
                .iter()
                .enumerate()
                .filter(|(nth, (at, _, _))| *nth < beyond || *at < oldest)
                .map(|(_, (_, id, row))| (*id, *row))
                .collect()
        };
        let rows: Vec<i64> = old.iter().map(|(_, row)| *row).collect();
        match self.store.remove_finished(&rows) {
            Ok(()) => {
                let mut table = self.table();
                for (id, _) in old {
                    table.finished.remove(&id);
                }
            }
            Err(error) => tracing::warn!(%error, "finished entries could not be removed"),
        }
        self.ready().sweep();
        self.table().forget_lanes();
    }

    /// An entry as it is now. `None`: there is no such entry (any more).
    pub fn read(&self, id: QueueId) -> Result<Option<Arc<Entry>>, StoreError> {
        let row = {
            let table = self.table();
            if let Some(entry) = table.whole(id) {
                return Ok(Some(entry));
            }
            let Some(slot) = table.slot(id) else { return Ok(None) };
            slot.row
        };
        match self.store.entry(row) {
            Ok(entry) if entry.id == id => Ok(Some(Arc::new(entry))),
            Ok(_) => Ok(None),
            // It may have come to its end meanwhile.
            Err(error) if error.is_damage() && self.table().slot(id).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same where there is nobody to tell of a failure: one is logged, and damage set aside.
    pub fn entry(&self, id: QueueId) -> Option<Arc<Entry>> {
        match self.read(id) {
            Ok(entry) => entry,
            Err(error) if error.is_damage() => {
                self.set_aside(id, &error.to_string());
                None
            }
            Err(error) => {
                tracing::error!(queue = %id, %error, "an entry of the queue can't be read");
                None
            }
        }
    }

    /// The names of all that wait, in the order they came.
    pub fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<(i64, QueueId)> = self.table().ids().map(|(id, slot)| (slot.row, id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The entries with attempts of which something is in memory only.
    pub fn pinned(&self) -> Vec<Arc<Entry>> {
        self.table().pinned().map(Arc::clone).collect()
    }

    /// The lanes an entry waits for.
    pub fn lanes(&self, id: QueueId) -> Vec<Arc<Lane>> {
        self.table().slot(id).map(|slot| slot.lanes.as_slice().to_vec()).unwrap_or_default()
    }

    /// How many are held.
    pub fn held(&self) -> usize {
        self.table().ids().filter(|(_, slot)| slot.held).count()
    }

    /// What waits, in a few numbers.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        // For each lane how many recipients are deferred, and an entry to ask for the last words.
        let mut stuck: HashMap<Arc<Lane>, (usize, QueueId)> = HashMap::new();
        for (id, slot) in self.table().ids() {
            summary.messages += 1;
            summary.held += usize::from(slot.held);
            summary.deferred += slot.deferred as usize;
            summary.waiting += slot.untried as usize;
            let oldest = summary.oldest_unix_ms.unwrap_or(i64::MAX).min(slot.queued_unix_ms);
            summary.oldest_unix_ms = Some(oldest);
            for lane in slot.lanes.as_slice().iter().filter(|_| slot.deferred > 0) {
                stuck.entry(Arc::clone(lane)).or_insert((0, id)).0 += slot.deferred as usize;
            }
        }
        let mut stuck: Vec<_> = stuck.into_iter().collect();
        stuck.sort_by(|(one, (few, _)), (other, (many, _))| many.cmp(few).then_with(|| one.cmp(other)));
        for (lane, (count, id)) in stuck.into_iter().take(summary::DESTINATIONS_MAX) {
            let last = self.entry(id).and_then(|entry| entry.last_words()).unwrap_or_default();
            summary.destinations.push((lane.to_string(), count, last));
        }
        summary.oldest_unix_ms = summary.oldest_unix_ms.map(|at| at.saturating_add(self.date_ahead_ms()));
        summary
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.table().len()
    }

    /// Changes an entry: durable when this returns, unchanged if it fails. One that is done by that is
    /// finished: its message is removed. `None`: there is no such entry (any more).
    pub fn update<R>(&self, id: QueueId, change: impl FnOnce(&mut Entry) -> R) -> Result<Option<R>, StoreError> {
        self.change(id, true, change)
    }

    /// Changes what need not be kept. Waits for a write of the same entry under way.
    pub fn touch<R>(&self, id: QueueId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.change(id, false, change).ok().flatten()
    }

    fn change<R>(
        &self,
        id: QueueId,
        durably: bool,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Result<Option<R>, StoreError> {
        let _guard = self.changing(id);
        let Some(before) = self.read(id)? else { return Ok(None) };
        let Some(row) = self.table().slot(id).map(|slot| slot.row) else { return Ok(None) };
        let mut entry = (*before).clone();
        let result = change(&mut entry);
        if entry == *before {
            return Ok(Some(result));
        }
        if durably && entry.is_done() && entry.finished_unix_ms.is_none() {
            entry.finished_unix_ms = Some(self.now_unix_ms());
        }
        if durably {
            self.store.write(row, &entry)?;
            self.given_up.tell(&before, &entry);
        }
        match entry.finished_unix_ms {
            None => self.put(row, Arc::new(entry)),
            Some(at) => {
                {
                    let mut table = self.table();
                    table.remove(id);
                    table.finished.insert(id, (row, at));
                }
                tracing::info!(trace = %entry.trace, queue = %id, "done, leaves the queue");
                if let Err(error) = self.store.remove_message(id) {
                    tracing::warn!(trace = %entry.trace, queue = %id, %error, "a finished message could not be removed");
                }
            }
        }
        self.changed.notify_one();
        Ok(Some(result))
    }

    /// Takes an entry that is damaged out of the queue; what is left of it goes to `damaged/`.
    pub fn set_aside(&self, id: QueueId, why: &str) {
        let _guard = self.changing(id);
        let Some(row) = self.table().slot(id).map(|slot| slot.row) else { return };
        self.store.set_entry_aside(id, row, why);
        self.table().remove(id);
    }

    fn changing(&self, id: QueueId) -> MutexGuard<'_, ()> {
        let stripe = usize::from(id.0[15]) % STRIPES;
        self.changing[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files what is due into its lanes, and gives what is to be looked at for another reason: at most so many
    /// of each.
    pub fn file_due(&self, files_max: usize, looks_max: usize) -> Vec<QueueId> {
        let now = self.now_unix_ms();
        let mut table = self.table();
        let mut ready = self.ready();
        for (id, lanes, past) in std::iter::from_fn(|| table.take_try(now)).take(files_max) {
            for lane in lanes.as_slice() {
                ready.push(lane, id, past);
            }
        }
        std::iter::from_fn(|| table.take_look(now)).take(looks_max).collect()
    }

    /// Files an entry into a lane that is not for messages.
    pub fn file(&self, lane: Lane, id: QueueId) {
        let lane = Arc::new(lane);
        self.ready().push(&lane, id, Past::Untried);
        self.changed.notify_one();
    }

    /// The next entry whose turn it is, and its lane.
    pub fn take(&self, edge_up: bool) -> Option<(Arc<Lane>, QueueId)> {
        let rules = self.rules();
        let bounds = Bounds { attempts_max: rules.settings.attempts_max, destination: rules.limits(), edge_up };
        let now = self.now_ms();
        self.ready().take(bounds, now)
    }

    /// How long until something is due, if anything is.
    pub fn next_due(&self) -> Option<Duration> {
        let (unix, now) = (self.now_unix_ms(), self.now_ms());
        let by_date = self.table().next_due().map(|at| u64::try_from(at.saturating_sub(unix)).unwrap_or(0));
        let by_pace = self.ready().next_ms().map(|at| at.saturating_sub(now));
        by_date.into_iter().chain(by_pace).min().map(Duration::from_millis)
    }

    /// Looks at an entry again at this moment, whatever it says itself.
    pub fn look_again(&self, id: QueueId, at_unix_ms: i64) {
        let mut table = self.table();
        if let Some(slot) = table.slot(id).cloned() {
            let at = slot.look_unix_ms.map_or(at_unix_ms, |known| known.min(at_unix_ms));
            table.put(id, Slot { look_unix_ms: Some(at), ..slot });
        }
    }

    /// The lanes and the paces of their destinations.
    pub fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the lane of a recipient of this entry.
    pub fn shown(&self, entry: &Entry, place: usize) -> Option<Shown> {
        let address = &entry.recipients.get(place)?.recipient.address;
        let lane = Arc::new(self.rules().routes.hop(address).lane());
        let now = self.now_ms();
        self.ready().shown(&lane, now)
    }

    /// What was heard last where a recipient's mail goes, if it waits because of that.
    pub fn last_heard(&self, entry: &Entry, place: usize) -> Option<Final> {
        self.shown(entry, place)?.last
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No holder of this lock can leave it half changed: a poisoned one is as good.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
