//! What the edge does by itself from time to time.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use tracing::info;

use crate::homes::Homes;
use crate::homes::presence::KEEP_EVERY;
use crate::relay::attempts::Attempts;

/// Time between looks for attempts nobody asks for any more.
const SWEEP_EVERY: Duration = Duration::from_hours(24);

/// Forgets attempts no home will ask for any more, at start and every day.
pub(super) async fn sweep_daily(attempts: Attempts, clock: Clock) {
    loop {
        let forgotten = attempts.sweep();
        if forgotten > 0 {
            info!(forgotten, "forgot attempts no home has asked for in a month");
        }
        clock.sleep(SWEEP_EVERY).await;
    }
}

/// Writes down, from time to time, how long homes have been away.
pub(super) async fn note_absence(homes: Homes, clock: Clock) {
    loop {
        clock.sleep(KEEP_EVERY).await;
        let homes = homes.clone();
        let _ = tokio::task::spawn_blocking(move || homes.keep_presence(false)).await;
    }
}
