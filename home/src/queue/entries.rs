//! The entries that wait, in memory as on disk, and when each is due. One change of an entry at a
//! time; a change is on disk before anyone sees it. Methods that write are blocking.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::DurableError;
use tokio::sync::Notify;

use super::config::Settings;
use super::entry::Entry;
use super::next_hop::Routes;
use super::schedule::{self, Schedule};
use super::store::{Drafts, Store};
use super::{NewEntry, QueueId, SetAside};
use crate::message::Message;

/// How long a finished entry is remembered after the start that could still ask for it.
const REMEMBERED: Duration = Duration::from_hours(24);

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
    rules: Mutex<Arc<Rules>>,
    state: Mutex<Table>,
    /// Told at every change.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<QueueId, Slot>,
    due: BTreeSet<(i64, QueueId)>,
    finished: HashMap<QueueId, i64>,
    unfinished: BTreeSet<QueueId>,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    // Held while a change is made and written, so that changes follow one another.
    changing: Arc<Mutex<()>>,
    due: Option<i64>,
}

impl Entries {
    /// Reads the directory.
    pub fn open(
        state: &Path,
        settings: Settings,
        routes: Routes,
        clock: Clock,
    ) -> Result<(Self, Vec<SetAside>), DurableError> {
        let store = Store::open(state)?;
        let loaded = store.load()?;
        let entries = Self {
            store,
            clock,
            rules: Mutex::new(Arc::new(rules(settings, routes))),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        {
            let mut table = entries.table();
            table.finished = loaded.finished.into_iter().collect();
            table.unfinished = loaded.unfinished;
            for entry in loaded.entries {
                table.insert(entry);
            }
        }
        Ok((entries, loaded.set_aside))
    }

    /// Takes changed rules.
    pub fn reload(&self, settings: Settings, routes: Routes) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules(settings, routes));
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

    /// Now, in milliseconds since 1970.
    pub fn now_unix_ms(&self) -> i64 {
        i64::try_from(self.clock.unix().as_millis()).unwrap_or(i64::MAX)
    }

    /// The files.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// See [`super::Queue::prepare`].
    pub fn prepare(
        &self,
        new: NewEntry,
        message: &Message,
        begin: impl FnOnce(&mut Entry),
    ) -> Result<(Entry, Drafts), DurableError> {
        if self.waiting() >= self.rules().settings.messages_max {
            let source = io::Error::new(io::ErrorKind::StorageFull, "the queue holds as many messages as it may");
            return Err(DurableError { action: "queue", path: new.id.to_string().into(), source });
        }
        self.store.prepare(new, message, self.now_unix_ms(), begin)
    }

    /// See [`super::Prepared::commit`].
    pub fn commit(&self, entry: Entry, drafts: Drafts) -> Result<(), DurableError> {
        self.store.commit(entry.id, drafts)?;
        tracing::info!(
            trace = %entry.trace,
            queue = %entry.id,
            sender = %entry.reverse_path,
            recipients = entry.recipients.len(),
            octets = entry.octets,
            "{}",
            if entry.local { "waits for the server of its mailboxes" } else { "queued" }
        );
        self.table().insert(entry);
        self.changed.notify_one();
        Ok(())
    }

    /// See [`super::Queue::has`].
    pub fn has(&self, id: QueueId) -> bool {
        let table = self.table();
        table.live.contains_key(&id) || table.finished.contains_key(&id)
    }

    /// See [`super::Queue::settle`].
    pub fn settle(&self, id: QueueId) -> Result<bool, DurableError> {
        if self.has(id) {
            return Ok(true);
        }
        self.table().unfinished.remove(&id);
        let Some(entry) = self.store.settle(id)? else { return Ok(false) };
        tracing::info!(trace = %entry.trace, queue = %id, "queued, finishing what a crash cut short");
        self.table().insert(entry);
        self.changed.notify_one();
        Ok(true)
    }

    /// Removes what was prepared before the last stop and never committed: nobody was told that it is here.
    pub fn sweep_unfinished(&self) {
        let unfinished = std::mem::take(&mut self.table().unfinished);
        for id in unfinished {
            match self.store.remove(id) {
                Ok(()) => tracing::info!(queue = %id, "removed a message that was never wholly taken"),
                Err(error) => tracing::warn!(queue = %id, %error, "the remains of a message could not be removed"),
            }
        }
    }

    /// Forgets entries that finished long ago.
    pub fn sweep_finished(&self) {
        let oldest = self.now_unix_ms().saturating_sub(i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX));
        let old: Vec<QueueId> = {
            let table = self.table();
            table.finished.iter().filter(|(_, at)| **at < oldest).map(|(id, _)| *id).collect()
        };
        for id in old {
            match self.store.remove_finished(id) {
                Ok(()) => {
                    self.table().finished.remove(&id);
                }
                Err(error) => tracing::warn!(queue = %id, %error, "a finished entry could not be removed"),
            }
        }
    }

    /// An entry as it is now.
    pub fn entry(&self, id: QueueId) -> Option<Arc<Entry>> {
        self.table().live.get(&id).map(|slot| Arc::clone(&slot.entry))
    }

    /// All entries as they are now.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.table().live.values().map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.table().live.len()
    }

    /// How many of them are for mailboxes here.
    pub fn waiting_local(&self) -> usize {
        self.table().live.values().filter(|slot| slot.entry.local).count()
    }

    /// Changes an entry: durable when this returns, unchanged if it fails. One that is done by that is
    /// finished: its message is removed. `None`: there is no such entry (any more).
    pub fn update<R>(&self, id: QueueId, change: impl FnOnce(&mut Entry) -> R) -> Result<Option<R>, DurableError> {
        self.change(id, true, change)
    }

    /// Changes what need not be kept. Waits for a write of the same entry under way.
    pub fn touch<R>(&self, id: QueueId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        // Without a write nothing can fail.
        self.change(id, false, change).ok().flatten()
    }

    fn change<R>(
        &self,
        id: QueueId,
        durably: bool,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Result<Option<R>, DurableError> {
        let Some(changing) = self.table().live.get(&id).map(|slot| Arc::clone(&slot.changing)) else {
            return Ok(None);
        };
        let guard = changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = self.entry(id) else { return Ok(None) };
        let mut entry = (*before).clone();
        let result = change(&mut entry);
        if entry == *before {
            return Ok(Some(result));
        }
        if durably && entry.is_done() && entry.bounce.is_none() && entry.finished_unix_ms.is_none() {
            entry.finished_unix_ms = Some(self.now_unix_ms());
        }
        if durably {
            self.store.write(&entry)?;
        }
        let finished = entry.finished_unix_ms;
        let trace = entry.trace;
        {
            let mut table = self.table();
            table.remove(id);
            match finished {
                Some(at) => {
                    table.finished.insert(id, at);
                }
                None => table.put(id, Slot { entry: Arc::new(entry), changing: Arc::clone(&changing), due: None }),
            }
        }
        if finished.is_some() {
            tracing::info!(%trace, queue = %id, "done, leaves the queue");
            if let Err(error) = self.store.remove_message(id) {
                tracing::warn!(%trace, queue = %id, %error, "a finished message could not be removed");
            }
        }
        drop(guard);
        self.changed.notify_one();
        Ok(Some(result))
    }

    /// Takes an entry whose message is damaged out of the queue; its files go to `damaged/`.
    pub fn set_aside(&self, id: QueueId, why: &str) {
        let Some(changing) = self.table().live.get(&id).map(|slot| Arc::clone(&slot.changing)) else { return };
        let _guard = changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.set_entry_aside(id, why);
        self.table().remove(id);
    }

    /// Takes the entries that are due out of the index; what happens to them puts them back.
    pub fn take_due(&self, now_unix_ms: i64) -> Vec<Arc<Entry>> {
        let mut table = self.table();
        let mut taken = Vec::new();
        while let Some((at, id)) = table.due.first().copied() {
            if at > now_unix_ms {
                break;
            }
            table.due.pop_first();
            if let Some(slot) = table.live.get_mut(&id) {
                slot.due = None;
                taken.push(Arc::clone(&slot.entry));
            }
        }
        taken
    }

    /// When the next entry is due.
    pub fn next_due(&self) -> Option<i64> {
        self.table().due.first().map(|(at, _)| *at)
    }

    /// Puts an entry back into the index.
    pub fn reindex(&self, id: QueueId) {
        let mut table = self.table();
        if let Some(slot) = table.remove(id) {
            table.put(id, slot);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No holder of this lock can leave it half changed: a poisoned one is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, entry: Entry) {
        self.remove(entry.id);
        self.put(entry.id, Slot { entry: Arc::new(entry), changing: Arc::default(), due: None });
    }

    fn put(&mut self, id: QueueId, mut slot: Slot) {
        slot.due = schedule::due(&slot.entry);
        if let Some(due) = slot.due {
            self.due.insert((due, id));
        }
        self.live.insert(id, slot);
    }

    fn remove(&mut self, id: QueueId) -> Option<Slot> {
        let slot = self.live.remove(&id)?;
        if let Some(due) = slot.due {
            self.due.remove(&(due, id));
        }
        Some(slot)
    }
}

fn rules(settings: Settings, routes: Routes) -> Rules {
    Rules { schedule: Schedule::from(&settings), settings, routes }
}
