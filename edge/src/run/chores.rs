//! What the edge does by itself from time to time.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use tracing::info;

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
