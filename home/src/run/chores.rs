//! What the home does by itself from time to time.

use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::shutdown::Signal;
use tracing::{error, info, warn};

use crate::router::promise::Promises;

/// How often deliveries that could not be finished are tried again.
const FINISH_EVERY: Duration = Duration::from_secs(30);
/// How many of these rounds pass between two prunings of the ledger.
const PRUNE_ROUNDS: u32 = 120;

/// Finishes what could not be finished at first; forgets old outcomes; clears old leftovers once.
pub(super) async fn maintain(promises: Arc<Promises>, clock: Clock, mut signal: Signal) {
    let mut round = 0u32;
    loop {
        let (promises, now) = (Arc::clone(&promises), clock.unix_s());
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
