//! Entries for mailboxes here: which server each waits for, and what is due once one is back.

use super::super::QueueId;
use super::super::ready::Lane;
use super::Entries;
use super::table::Slot;
use crate::delivery::lmtp::Servers;

impl Entries {
    /// From now on it is known who keeps mailboxes.
    pub fn know_servers(&self, servers: Servers) {
        if self.servers.set(servers).is_ok() {
            self.find_keepers();
        }
    }

    /// Who keeps mailboxes has changed, perhaps.
    pub(super) fn find_keepers(&self) {
        let local: Vec<QueueId> = self.table().ids().filter(|(_, slot)| slot.local).map(|(id, _)| id).collect();
        if let Err(error) = self.read_lanes(&local, &self.rules()) {
            tracing::error!(%error, "entries for mailboxes here can't be read");
        }
        for id in local {
            self.file_again(id);
        }
    }

    /// A server of mailboxes is back: what waits for it is due, or as its entry says once its turn comes.
    pub fn hurry_to(&self, is_back: impl Fn(&Lane) -> bool) {
        let now = self.now_unix_ms();
        let mut table = self.table();
        let waits = |slot: &Slot| {
            slot.local && slot.try_unix_ms.is_some() && slot.lanes.as_slice().iter().any(|lane| is_back(lane))
        };
        let waiting: Vec<(QueueId, Slot)> =
            table.ids().filter(|(_, slot)| waits(slot)).map(|(id, slot)| (id, slot.clone())).collect();
        for (id, slot) in waiting {
            table.put(id, Slot { try_unix_ms: Some(now), ..slot });
        }
        drop(table);
        self.changed.notify_one();
    }

    /// How many of those that wait are for mailboxes here.
    pub fn waiting_local(&self) -> usize {
        self.table().ids().filter(|(_, slot)| slot.local).count()
    }
}
