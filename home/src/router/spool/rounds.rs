//! When an edge's spool is looked at again: at once if the edge says that it has just sealed something (as it does
//! when we were too slow for a moment), else every now and then; and ever more rarely while something can't be taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How often an edge is asked that says nothing by itself.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(30);
/// First pause after something could not be taken; doubles, up to [`ASK_EVERY`].
const AGAIN_MIN: Duration = Duration::from_secs(2);

/// Tells who fetches from an edge that there is something. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Nudges(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

impl Nudges {
    /// The edge of this name has sealed something.
    pub fn nudge(&self, edge: &str) {
        self.of(edge).notify_one();
    }

    /// What is told of this edge.
    pub fn of(&self, edge: &str) -> Arc<Notify> {
        let mut of = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(of.entry(edge.to_owned()).or_default())
    }
}

/// The pauses between the rounds at one edge.
#[derive(Debug)]
pub(super) struct Rounds {
    // Something could not be taken in this round.
    failed: bool,
    again: Duration,
}

/// How long to wait for the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub at_most: Duration,
    /// It ends when the edge has sealed something.
    pub ends_early: bool,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { failed: false, again: AGAIN_MIN }
    }
}

impl Rounds {
    /// Something stays at the edge for now.
    pub fn failed(&mut self) {
        self.failed = true;
    }

    /// All there was has been looked at.
    pub fn over(&mut self) -> Pause {
        if std::mem::take(&mut self.failed) {
            let at_most = self.again;
            self.again = (self.again * 2).min(ASK_EVERY);
            return Pause { at_most, ends_early: false };
        }
        self.again = AGAIN_MIN;
        Pause { at_most: ASK_EVERY, ends_early: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_taken_is_asked_for_ever_more_rarely_whatever_the_edge_says() {
        let mut rounds = Rounds::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            rounds.failed();
            let pause = rounds.over();
            assert!(!pause.ends_early);
            pauses.push(pause.at_most.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30]);
        assert_eq!(rounds.over(), Pause { at_most: ASK_EVERY, ends_early: true });
        rounds.failed();
        assert_eq!(rounds.over().at_most, AGAIN_MIN, "it begins anew");
    }

    #[tokio::test]
    async fn a_nudge_is_heard_by_whoever_listens_next_and_by_no_other_edge() {
        let nudges = Nudges::default();
        nudges.nudge("vps1");
        nudges.nudge("vps1");
        nudges.of("vps1").notified().await;
        for edge in ["vps1", "vps2"] {
            let early = tokio::time::timeout(Duration::from_millis(1), nudges.of(edge).notified()).await;
            assert!(early.is_err(), "{edge}");
        }
    }
}
