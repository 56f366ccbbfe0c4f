//! What keeps and counts the events of the program: begun before anything happens, ended after everything has.

use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::event::Events;
use gatepost_runtime::shutdown::{Shutdown, Signal};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Config;
use crate::counts::Counts;
use crate::trace::{Traces, keeper};

/// What was said last may be written down in this time.
const KEEP_MAX: Duration = Duration::from_secs(5);

/// While it lives, what happens is kept and counted.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) traces: Traces,
    pub(super) counts: Arc<Counts>,
    shutdown: Shutdown,
    signal: Signal,
    task: JoinHandle<()>,
}

impl Watching {
    /// Begins. Without events nothing is kept but what edges tell.
    pub(super) fn start(config: &Config, events: Option<Events>, clock: &Clock) -> std::io::Result<Self> {
        let (traces, collector) = Traces::start(config.state.clone(), config.trace, clock.clone())?;
        let (shutdown, signal) = Shutdown::new();
        let counts = Arc::new(Counts::default());
        let (clock, until, counting) = (clock.clone(), signal.clone(), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            if let Some(events) = events {
                keeper::collect(events, collector, clock, until, |event| counting.count(event)).await;
            }
        });
        Ok(Self { traces, counts, shutdown, signal, task })
    }

    /// Resolves its waits when it ends.
    pub(super) fn signal(&self) -> Signal {
        self.signal.clone()
    }

    /// The last words are kept, too; a disk that hangs does not hold the program.
    pub(super) async fn end(self) {
        self.shutdown.end();
        let _ = timeout(KEEP_MAX, self.task).await;
    }
}
