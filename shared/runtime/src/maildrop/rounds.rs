//! When to look into the drop: at start, when something is left, and every minute for what was not seen, or whose
//! writer never asked.

use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::{Maildrop, Name, Watch};
use crate::clock::Clock;
use crate::shutdown::Signal;

/// How often it is looked for what was left behind.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What there is to take, again and again.
#[derive(Debug)]
pub struct Rounds {
    drop: Maildrop,
    // None where the system can't tell: then there is only the minute.
    watch: Option<Watch>,
    clock: Clock,
    signal: Signal,
    due: Option<Due>,
    look_at: Instant,
}

/// What is to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Everything.
    All,
    /// What nobody is about to ask for.
    Unasked,
}

impl Rounds {
    /// Of this drop, which is there. Ends when draining begins. Inside the runtime.
    pub fn new(drop: Maildrop, clock: Clock, signal: Signal) -> Self {
        let watch = drop.watch().inspect_err(|error| {
            tracing::warn!(%error, "the drop can't be watched; it is looked at every minute instead");
        });
        let look_at = clock.now() + LOOK_EVERY;
        Self { drop, watch: watch.ok(), clock, signal, due: Some(Due::All), look_at }
    }

    /// What there is to take; `None` once draining begins. Cancel-safe: what was due stays due.
    pub async fn next(&mut self) -> Option<Vec<Name>> {
        loop {
            if let Some(due) = self.due {
                let drop = self.drop.clone();
                let names = match spawn_blocking(move || drop.names()).await {
                    Ok(Ok(names)) => names,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the drop can't be read");
                        Vec::new()
                    }
                    Err(error) => {
                        tracing::error!(%error, "looking into the drop failed; this is a bug");
                        Vec::new()
                    }
                };
                self.due = None;
                return Some(names.into_iter().filter(|name| due == Due::All || !name.is_asked()).collect());
            }
            tokio::select! {
                () = changed(self.watch.as_ref()) => self.due = Some(Due::Unasked),
                () = self.clock.sleep_until(self.look_at) => {
                    self.look_at = self.clock.now() + LOOK_EVERY;
                    self.due = Some(Due::All);
                }
                () = self.signal.draining() => return None,
            }
        }
    }
}

/// Waits until something is left; for ever where that can't be seen.
async fn changed(watch: Option<&Watch>) {
    if let Some(watch) = watch {
        match watch.changed().await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "the drop can't be watched any more"),
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;

    #[tokio::test]
    async fn what_is_asked_for_is_left_to_who_asks_for_a_while() {
        let state = tempfile::tempdir().unwrap();
        let drop = Maildrop::of(state.path());
        drop.prepare(Duration::from_hours(500_000)).unwrap();
        let before = drop.leave().unwrap().commit(true).unwrap();
        let clock = Clock::still(Duration::from_secs(1));
        let (shutdown, signal) = Shutdown::new();
        let mut rounds = Rounds::new(drop.clone(), clock.clone(), signal);
        assert_eq!(rounds.next().await, Some(vec![before.clone()]), "at start everything is taken");
        let left = drop.leave().unwrap().commit(false).unwrap();
        assert_eq!(rounds.next().await, Some(vec![left.clone()]), "then what nobody asks for");
        clock.turn(LOOK_EVERY);
        assert_eq!(rounds.next().await.unwrap().len(), 2, "and after a minute what nobody has asked for");
        shutdown.drain();
        assert_eq!(rounds.next().await, None);
    }
}
