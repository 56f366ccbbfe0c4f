//! One at a time for each hand-over: an edge that sealed a message while we were still busy with it brings
//! it again, and the second has to see what became of the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::ledger::HandOver;

/// The hand-overs under way.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<HashMap<HandOver, Arc<tokio::sync::Mutex<()>>>>>);

/// A hand-over's turn; the next one's begins when it is dropped.
#[derive(Debug)]
pub struct Turn {
    flights: Flights,
    hand_over: HandOver,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Flights {
    /// Waits until nobody else is busy with this hand-over.
    pub async fn enter(&self, hand_over: HandOver) -> Turn {
        let flight = Arc::clone(self.lock().entry(hand_over).or_default());
        let guard = flight.lock_owned().await;
        Turn { flights: self.clone(), hand_over, guard: Some(guard) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<HandOver, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        self.guard = None;
        // Only the map holds it: nobody waits, and nobody can come while we hold the map.
        if flights.get(&self.hand_over).is_some_and(|flight| Arc::strong_count(flight) == 1) {
            flights.remove(&self.hand_over);
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::tunnel::transfer::TransferId;

    use super::*;

    #[tokio::test]
    async fn the_same_hand_over_waits_and_others_pass() {
        let flights = Flights::default();
        let one = HandOver::our_own(TransferId([1; 16]));
        let turn = flights.enter(one).await;
        let second = tokio::spawn({
            let flights = flights.clone();
            async move { flights.enter(one).await }
        });
        drop(flights.enter(HandOver::our_own(TransferId([2; 16]))).await);
        while Arc::strong_count(&flights.lock()[&one]) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(turn);
        drop(second.await.expect("no panic"));
        assert!(flights.lock().is_empty(), "nothing is remembered");
    }
}
