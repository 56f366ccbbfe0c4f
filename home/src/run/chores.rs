//! What the home does by itself from time to time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::mail::directory::Room;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Signal;
use tracing::{error, info, warn};

use super::store::Store;
use crate::accounts::Accounts;
use crate::delivery::config::Keepers;
use crate::delivery::lmtp::Servers;
use crate::delivery::usage::Usage;
use crate::feedback::Feedback;
use crate::router::promise::Promises;
use crate::signing::Signing;

/// How often deliveries that could not be finished are tried again.
const FINISH_EVERY: Duration = Duration::from_secs(30);
/// How many of these rounds pass between two prunings of the ledger.
const PRUNE_ROUNDS: u32 = 120;

/// How often keys that sign mail are looked after; and, while new ones wait for their records, the DNS.
const KEYS_EVERY: Duration = Duration::from_mins(5);

/// How often full mailboxes are counted: their owners make room, and edges should know soon.
const FULL_EVERY: Duration = Duration::from_secs(2);
/// Room that is less is told as this much, in octets.
const ROOM_STEP_OCTETS: u64 = 4096;
/// In how many of these rounds every mailbox with a quota is counted: mail clients put mail there, too.
const ALL_ROUNDS: u32 = 30;

/// Begins all of them.
pub(super) fn start(store: &Store, clock: &Clock, signal: &Signal) {
    let (accounts, promises) = (store.accounts.clone(), Arc::clone(&store.promises));
    tokio::spawn(watch_quotas(accounts, promises, store.servers.clone(), signal.clone()));
    tokio::spawn(tend_keys(store.signing.clone(), store.resolver.clone(), signal.clone()));
    tokio::spawn(maintain(Arc::clone(&store.promises), store.feedback.clone(), clock.clone(), signal.clone()));
}

/// Keeps the edges' picture of full mailboxes right. Costs nothing where nobody has a quota.
async fn watch_quotas(accounts: Accounts, promises: Arc<Promises>, servers: Servers, mut signal: Signal) {
    let mut round = 0u32;
    loop {
        let (accounts, promises, keepers) = (accounts.clone(), Arc::clone(&promises), servers.keepers());
        let watch =
            move || count_full(&accounts, promises.maildirs().usage(), &keepers, round.is_multiple_of(ALL_ROUNDS));
        if let Err(error) = tokio::task::spawn_blocking(watch).await {
            error!(%error, "a chore failed; this is a bug");
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(FULL_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

/// Counts mailboxes (all, or those that are or may be full) and tells which have little room.
fn count_full(accounts: &Accounts, usage: &Usage, keepers: &Keepers, all: bool) {
    let (book, before) = (accounts.book(), accounts.tight());
    let message_octets_max = accounts.settings().message_octets_max;
    let mut tight = HashMap::new();
    let mut limited = Vec::new();
    for mailbox in book.accounts.keys().filter(|mailbox| keepers.of(mailbox).is_none()) {
        let Some(whole) = accounts.quota(mailbox) else { continue };
        limited.push(mailbox.clone());
        let known = usage.known(mailbox);
        let was_full = before.get(mailbox).is_some_and(|room| room.left == 0);
        let due = all || known.is_none_or(|octets| octets >= whole) || was_full;
        let octets =
            if due { usage.count(mailbox).or_else(|_| known.ok_or(())).unwrap_or(0) } else { known.unwrap_or(0) };
        let left = about(whole.saturating_sub(octets));
        if left < message_octets_max {
            tight.insert(mailbox.clone(), Room { left, whole });
        }
        if (left == 0) != was_full {
            info!(mailbox, is_full = left == 0, "a mailbox became full, or has room again");
        }
    }
    usage.keep_only(limited.into_iter());
    if let Err(error) = accounts.set_tight(tight) {
        warn!(%error, "the edges can't be told which mailboxes are full");
    }
}

/// Never less, and in so few steps that the edges need not be told of each message.
fn about(octets: u64) -> u64 {
    if octets == 0 { 0 } else { octets.checked_next_power_of_two().unwrap_or(u64::MAX).max(ROOM_STEP_OCTETS) }
}

/// Finishes what could not be finished at first; forgets old outcomes; clears old leftovers once.
async fn maintain(promises: Arc<Promises>, feedback: Feedback, clock: Clock, mut signal: Signal) {
    let mut round = 0u32;
    loop {
        let (promises, feedback, now) = (Arc::clone(&promises), feedback.clone(), clock.steady_s());
        let chores = tokio::task::spawn_blocking(move || {
            if round == 0 {
                let swept = promises.maildirs().sweep();
                if swept > 0 {
                    info!(swept, "removed old leftovers from mailboxes' tmp/");
                }
            }
            promises.finish_unfinished();
            if round.is_multiple_of(PRUNE_ROUNDS) {
                if let Err(error) = promises.ledger().prune(now) {
                    warn!(%error, "old outcomes could not be forgotten");
                }
                if let Err(error) = feedback.store().prune(now).and_then(|_| feedback.tls().prune(now)) {
                    warn!(%error, "old reports could not be forgotten");
                }
            }
        });
        if let Err(error) = chores.await {
            error!(%error, "a chore failed; this is a bug");
        }
        round = round.wrapping_add(1);
        tokio::select! {
            () = tokio::time::sleep(FINISH_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

/// Follows keys that sign mail by new ones when it is time, and puts those in use once the DNS shows their records.
async fn tend_keys(signing: Signing, resolver: Resolver, mut signal: Signal) {
    loop {
        let tended = signing.clone();
        match tokio::task::spawn_blocking(move || tended.tend()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                tokio::select! {
                    () = signing.look(&resolver) => {}
                    () = signal.draining() => return,
                }
            }
            Ok(Err(error)) => warn!(%error, "keys that sign mail can't be looked after"),
            Err(error) => error!(%error, "a chore failed; this is a bug"),
        }
        tokio::select! {
            () = tokio::time::sleep(KEYS_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_as_no_less_than_there_is_and_as_none_only_if_there_is_none() {
        for (octets, told) in [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (5 << 20, 8 << 20), (u64::MAX, u64::MAX)]
        {
            assert_eq!(about(octets), told, "{octets}");
        }
    }
}
