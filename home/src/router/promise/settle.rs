//! Finds out how far a hand-over had come that was cut short, by a stop or a disk, and finishes or forgets it.

use super::{PromiseError, Promises, Settled};
use crate::delivery::maildir::Found;
use crate::router::ledger::{HandedOver, Known, Plan};

impl Promises {
    /// Settles what a stop left open; to be called before anything else moves files, and before the queue
    /// runs. Gives how many were finished and how many forgotten.
    pub fn settle_all(&self) -> Result<(usize, usize), PromiseError> {
        let (mut done, mut forgotten) = (0, 0);
        for known in self.ledger.open_intents()? {
            if self.is_doubtful(&known)? {
                // Whether it comes again is up to who brought it; if it does, the doubt is worth a word.
                continue;
            }
            match self.settle(&known) {
                Ok(Settled::Done) => done += 1,
                Ok(Settled::Forgotten) => forgotten += 1,
                // One broken Maildir must not keep the whole home from starting.
                Err(error @ (PromiseError::Durable(_) | PromiseError::Look { .. })) => {
                    tracing::error!(trace = %known.trace, %error, "remaining copies still can't be delivered");
                    self.unfinished().push(known);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((done, forgotten))
    }

    /// Tries again to finish what could not be finished when it was promised.
    pub fn finish_unfinished(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished());
        for known in unfinished {
            match self.settle(&known) {
                Ok(_) => tracing::info!(trace = %known.trace, "delivered the remaining copies"),
                Err(error) => {
                    tracing::error!(trace = %known.trace, %error, "remaining copies still can't be delivered");
                    self.unfinished().push(known);
                }
            }
        }
    }

    /// True if all there is of a hand-over is a final dot that may have been sent. If what was not taken is there to
    /// be held, every answer was, too.
    fn is_doubtful(&self, known: &Known) -> Result<bool, PromiseError> {
        let Some(Plan { places, queue: None, handed: Some(HandedOver::Open(id)) }) = &known.plan else {
            return Ok(false);
        };
        Ok(places.is_empty() && !self.queue.settle(*id)?)
    }

    /// Finds out how far a hand-over had come, and finishes or forgets it.
    pub fn settle(&self, known: &Known) -> Result<Settled, PromiseError> {
        let Some(plan) = &known.plan else { return Ok(Settled::Done) };
        let found = self.delivered(plan)?;
        let answered = match plan.handed {
            None => false,
            Some(HandedOver::Answered) => true,
            // What was not taken is prepared only after every answer was there.
            Some(HandedOver::Open(id) | HandedOver::Held(id)) => self.queue.settle(id)?,
        };
        let seen = answered || found.contains(&Found::Delivered) || plan.queue.is_some_and(|id| self.queue.has(id));
        let only_queued = plan.places.is_empty() && plan.handed.is_none();
        if !seen && !only_queued {
            if matches!(plan.handed, Some(HandedOver::Open(_))) {
                tracing::warn!(
                    trace = %known.trace,
                    "a stop cut off the answers of a server of mailboxes: the next try may deliver twice"
                );
            }
            return self.forget(known, plan);
        }
        for (place, found) in plan.places.iter().zip(found) {
            match found {
                Found::Delivered => {}
                Found::Written => self.maildirs.deliver(place)?,
                Found::Nowhere => tracing::warn!(
                    trace = %known.trace, folder = ?place.folder, name = place.name,
                    "a copy is gone: its owner removed it meanwhile, or the disk lost it"
                ),
            }
        }
        self.sync(plan)?;
        if let Some(id) = plan.queue
            && !self.queue.settle(id)?
        {
            // Copies here may come twice then; the recipients elsewhere must not go without.
            if !only_queued {
                tracing::error!(trace = %known.trace, queue = %id, "the queue's part of a message is gone");
            }
            return self.forget(known, plan);
        }
        self.ledger.settle(known.id).wait()?;
        tracing::info!(trace = %known.trace, copies = plan.places.len(), "finished a delivery that was cut short");
        Ok(Settled::Done)
    }

    pub(super) fn forget(&self, known: &Known, plan: &Plan) -> Result<Settled, PromiseError> {
        for place in &plan.places {
            if let Err(error) = self.maildirs.forget(place) {
                // Nobody sees it there, and it is swept some day.
                tracing::warn!(%error, "what was written of a message that is not kept could not be removed");
            }
        }
        self.ledger.forget(known.id).wait()?;
        tracing::info!(trace = %known.trace, "forgot a delivery that was cut short before it was promised");
        Ok(Settled::Forgotten)
    }
}
