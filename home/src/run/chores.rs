//! What the home does by itself from time to time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::shutdown::Signal;
use tracing::{error, info, warn};

use crate::accounts::Accounts;
use crate::delivery::config::Keepers;
use crate::delivery::lmtp::Servers;
use crate::delivery::usage::Usage;
use crate::router::promise::Promises;

/// How often deliveries that could not be finished are tried again.
const FINISH_EVERY: Duration = Duration::from_secs(30);
/// How many of these rounds pass between two prunings of the ledger.
const PRUNE_ROUNDS: u32 = 120;

/// How often full mailboxes are counted: their owners make room, and edges should know soon.
const FULL_EVERY: Duration = Duration::from_secs(2);
/// In how many of these rounds every mailbox with a quota is counted: mail clients put mail there, too.
const ALL_ROUNDS: u32 = 30;

/// Keeps the edges' picture of full mailboxes right. Costs nothing where nobody has a quota.
pub(super) async fn watch_quotas(accounts: Accounts, promises: Arc<Promises>, servers: Servers, mut signal: Signal) {
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

/// Counts mailboxes (all, or those that are or may be full) and tells which are full.
fn count_full(accounts: &Accounts, usage: &Usage, keepers: &Keepers, all: bool) {
    let (book, before) = (accounts.book(), accounts.full());
    let mut full = HashSet::new();
    let mut limited = Vec::new();
    for mailbox in book.accounts.keys().filter(|mailbox| keepers.of(mailbox).is_none()) {
        let Some(octets_max) = accounts.quota(mailbox) else { continue };
        limited.push(mailbox.clone());
        let known = usage.known(mailbox);
        let due = all || known.is_none_or(|octets| octets >= octets_max) || before.contains(mailbox);
        let octets =
            if due { usage.count(mailbox).or_else(|_| known.ok_or(())).unwrap_or(0) } else { known.unwrap_or(0) };
        if octets >= octets_max {
            full.insert(mailbox.clone());
        }
    }
    for (mailbox, is_full) in
        before.difference(&full).map(|m| (m, false)).chain(full.difference(&before).map(|m| (m, true)))
    {
        info!(mailbox, is_full, "a mailbox became full, or has room again");
    }
    usage.keep_only(limited.into_iter());
    if let Err(error) = accounts.set_full(full) {
        warn!(%error, "the edges can't be told which mailboxes are full");
    }
}

/// Finishes what could not be finished at first; forgets old outcomes; clears old leftovers once.
pub(super) async fn maintain(promises: Arc<Promises>, clock: Clock, mut signal: Signal) {
    let mut round = 0u32;
    loop {
        let (promises, now) = (Arc::clone(&promises), clock.steady_s());
        let chores = tokio::task::spawn_blocking(move || {
            if round == 0 {
                let swept = promises.maildirs().sweep();
                if swept > 0 {
                    info!(swept, "removed old leftovers from mailboxes' tmp/");
                }
            }
            promises.finish_unfinished();
            if round.is_multiple_of(PRUNE_ROUNDS)
                && let Err(error) = promises.ledger().prune(now)
            {
                warn!(%error, "old outcomes could not be forgotten");
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
