//! The outbound queue: durable before 250, retried with backoff, bounced at expiry. What leaves
//! the queue for a local mailbox (a bounce) leaves as an event.

use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::received::TraceId;
use gatepost_runtime::durable::DurableError;

use crate::message::Message;

/// Names one entry: file names begin with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub [u8; 16]);

/// A message to be queued.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its name, chosen by the caller, so that a repeat after a crash is recognised.
    pub id: QueueId,
    /// Its trace id.
    pub trace: TraceId,
    /// Remote recipients only.
    pub envelope: Envelope,
    /// The account it came from; bounces go there. `None` for bounces of ours.
    pub login: Option<String>,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// The queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    _todo: (),
}

/// Written and synced, under temporary names: not yet in the queue. Dropping it forgets it.
#[derive(Debug)]
pub struct Prepared {
    _todo: (),
}

impl Queue {
    /// Writes message and entry, synced, under temporary names. Blocking.
    pub fn prepare(&self, entry: NewEntry, message: &Message) -> Result<Prepared, DurableError> {
        let _ = (entry, message);
        todo!()
    }

    /// Settling after a crash: finishes an entry that was prepared (its files are whole) or tells that it is
    /// already queued or done. `false`: nothing of it exists. Blocking.
    pub fn settle(&self, id: QueueId) -> Result<bool, DurableError> {
        let _ = id;
        todo!()
    }
}

impl Prepared {
    /// Gives the files their names, syncs the directory, wakes the runner. Blocking.
    pub fn commit(self) -> Result<(), DurableError> {
        todo!()
    }
}
