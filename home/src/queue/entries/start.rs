//! What the start of the queue reads: an outline of each entry, filed by when it is due and where it goes. Moments
//! that can't be right are mended before anything waits for them.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::clock::Clock;
use tokio::sync::Notify;

use super::table::{Lanes, Slot, Table};
use super::{Entries, Rules, STRIPES};
use crate::database::Database;
use crate::queue::config::Settings;
use crate::queue::downgrade::Watch;
use crate::queue::given_up::Teller;
use crate::queue::next_hop::Routes;
use crate::queue::store::{Outline, Store, StoreError};
use crate::queue::{QueueId, SetAside};

/// Moments this far ahead are believed: after a crash the steady time may have lost what was not written down.
const AHEAD_MAX: Duration = Duration::from_hours(2);

impl Entries {
    /// Reads what is needed to choose.
    pub fn open(
        state: &Path,
        database: Database,
        settings: Settings,
        routes: Routes,
        clock: Clock,
    ) -> Result<(Self, Vec<SetAside>), StoreError> {
        let entries = Self {
            watch: Arc::new(Watch::open(state, clock.clone())),
            store: Store::open(state, database)?,
            started: clock.now(),
            clock,
            rules: Mutex::new(Arc::new(Rules::new(settings, routes))),
            table: Mutex::default(),
            ready: Mutex::default(),
            servers: OnceLock::new(),
            changing: (0..STRIPES).map(|_| Mutex::default()).collect(),
            changed: Notify::new(),
            given_up: Teller::default(),
        };
        let rules = entries.rules();
        let mut unknown = Vec::new();
        let loaded = {
            let mut table = entries.table();
            let loaded = entries.store.load(|outline| put_outline(&mut table, &outline, &rules, &mut unknown))?;
            table.finished = loaded.finished;
            table.unfinished = loaded.unfinished;
            loaded.set_aside
        };
        entries.read_lanes(&unknown, &rules)?;
        entries.mend_moments(&rules)?;
        Ok((entries, loaded))
    }

    /// Entries that an older build wrote on a wrong date wait no longer for it.
    fn mend_moments(&self, rules: &Rules) -> Result<(), StoreError> {
        let now = self.now_unix_ms();
        let pause_max = i64::try_from(rules.schedule.pause_max().as_millis()).unwrap_or(i64::MAX);
        let late = now.saturating_add(i64::try_from(AHEAD_MAX.as_millis()).unwrap_or(i64::MAX));
        let is_odd = |slot: &Slot| {
            let tried = slot.try_unix_ms.is_some_and(|at| at > late.saturating_add(pause_max));
            slot.queued_unix_ms > late || tried
        };
        let odd: Vec<QueueId> = self.table().ids().filter(|(_, slot)| is_odd(slot)).map(|(id, _)| id).collect();
        for id in odd {
            tracing::warn!(queue = %id, "its dates lie ahead: it goes on as if it had come now");
            match self.update(id, |entry| entry.mend_moments(now, pause_max)) {
                Err(error) if error.is_damage() => self.set_aside(id, &error.to_string()),
                mended => mended.map(drop)?,
            }
        }
        Ok(())
    }
}

/// Files an entry by what its row says beside the text. Where a route is for single addresses, that does
/// not tell its lanes: they are to be read.
fn put_outline(table: &mut Table, outline: &Outline, rules: &Rules, unknown: &mut Vec<QueueId>) {
    let domains: Vec<Domain> = outline.domains.split(' ').filter_map(|name| Domain::parse(name).ok()).collect();
    let is_to_be_read = domains.iter().any(|domain| rules.routes.is_by_address(domain));
    let lanes = if is_to_be_read || outline.local {
        if !outline.local {
            unknown.push(outline.id);
        }
        Lanes::None
    } else {
        table.lanes(domains.iter().map(|domain| rules.routes.hop_of_domain(domain).lane()))
    };
    let slot = Slot {
        row: outline.row,
        try_unix_ms: outline.try_unix_ms,
        look_unix_ms: if outline.held { None } else { Some(rules.schedule.look_of_outline(outline)) },
        lanes,
        queued_unix_ms: outline.queued_unix_ms,
        deferred: outline.deferred,
        untried: outline.waiting.saturating_sub(outline.deferred),
        held: outline.held,
        local: outline.local,
    };
    table.loaded_row_max = table.loaded_row_max.max(outline.row);
    table.put(outline.id, slot);
}
