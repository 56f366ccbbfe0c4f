//! The promise behind 250: every copy of a message is durable, once, whatever stops when.
//!
//! ```text
//! intent ─┐ (group commit, beside the writing)
//! write ──┴─> rename into new/ ─> sync directories ─> commit to the queue ─> 250, settle lazily
//! ```
//! A copy that can't be written (its Maildir is broken, or on a disk that is full) costs the others nothing: the plan
//! is noted anew without it, and it is held by the queue before the first rename.
//!
//! A server that keeps mailboxes is offered its copies up to the final dot while the intent is committed, and
//! gets the dot before the first rename. What it does not take is held by the queue before anybody hears 250; its
//! answers are noted durably, at once: a stop between them and the note is the one moment after which a copy may
//! come twice (RFC 1047), and a repeat says so in the log.
//!
//! No file is seen before the intent that names it is durable. A repeat, and every start, settles what was
//! left open by looking for those names: if any is there, or the queue has its part, the rest is finished
//! (all were written and synced, with their temporary names, before the first was renamed); if none is,
//! nothing was promised and all is forgotten. Once one copy is durable the answer is 250: the intent is
//! too, so the others follow, and a sender who tried again would only double that one.

mod settle;

use std::io;
use std::sync::{Mutex, PoisonError};

use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{Draft, DurableError};
use thiserror::Error;

use super::handing::{self, Handed, Handing};
use super::ledger::{Begun, HandOver, HandedOver, Known, Ledger, Plan};
use super::recipients::LocalCopy;
use crate::database::DatabaseError;
use crate::delivery::lmtp::Answer;
use crate::delivery::maildir::{Folder, Found, Maildirs, Place};
use crate::message::Message;
use crate::queue::{Left, NewEntry, Prepared, Queue, StoreError};
use crate::signing::SigningError;

/// Why a promise can't be given now.
#[derive(Debug, Error)]
pub enum PromiseError {
    /// A file.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The ledger.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] StoreError),
    /// What leaves can't be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// A folder can't be looked through.
    #[error("can't look through {folder:?}: {source}")]
    Look {
        /// Which.
        folder: Folder,
        /// The system's words.
        source: io::Error,
    },
    /// The same hand-over was settled again and again without an end; a bug of ours.
    #[error("the ledger gives no answer")]
    Unsettled,
}

impl PromiseError {
    /// True if the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Durable(error) => error.is_full(),
            Self::Database(error) => error.is_full(),
            Self::Queue(error) => error.is_full(),
            Self::Signing(_) | Self::Look { .. } | Self::Unsettled => false,
        }
    }
}

/// A message and everywhere it goes.
#[derive(Debug)]
pub struct Work {
    /// Names the hand-over.
    pub hand_over: HandOver,
    /// The message's trace id.
    pub trace: TraceId,
    /// Copies for Maildirs of ours.
    pub copies: Vec<PlacedCopy>,
    /// What goes to other hosts.
    pub queued: Option<NewEntry>,
    /// The fields that go in front there.
    pub queued_fields: Vec<u8>,
    /// Copies for mailboxes that servers keep.
    pub handings: Vec<Handing>,
    /// What the queue holds of those that are not taken, and of copies that can't be written; its recipients are put
    /// in then. Always there if there is more than one part.
    pub held: Option<NewEntry>,
    /// What a refusal of all of them means.
    pub refusal: Refusal,
    /// The bytes.
    pub message: Message,
}

/// One copy for a Maildir of ours.
#[derive(Debug)]
pub struct PlacedCopy {
    /// Where it will lie.
    pub place: Place,
    /// The fields that go in front there.
    pub fields: Vec<u8>,
    /// Whose it is.
    pub to: LocalCopy,
}

/// What it means that every mailbox is refused for good by its server, and nobody else gets the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Who brought it is told, and keeps it.
    Tell,
    /// It was promised before: the queue sees to it.
    Hold,
    /// It was promised before, and this was the last way: it goes into our own Maildir of that name.
    Store,
}

/// How a promise came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Now, but for the copies of these mailboxes: the queue holds them, and tries again.
    Now(Vec<String>),
    /// Before, under this trace id: this was a repeat.
    Before(TraceId),
    /// Not at all: the server of every mailbox refused it, in these words.
    Refused(Reply),
}

/// What settling found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Everything is there.
    Done,
    /// Nothing was promised; nothing is left.
    Forgotten,
}

/// Gives promises and keeps them. Everything here blocks.
#[derive(Debug)]
pub struct Promises {
    maildirs: Maildirs,
    ledger: Ledger,
    queue: Queue,
    clock: Clock,
    // Some of its copies are delivered and others could not be yet: to be finished.
    unfinished: Mutex<Vec<Known>>,
}

/// How far carrying out a plan came.
#[derive(Debug, Default)]
struct Carried {
    /// At least one copy, or the queue's part, is durable.
    durable: bool,
    /// At least one copy can be seen in its mailbox, or may be.
    seen: bool,
    /// What failed first.
    failed: Option<PromiseError>,
}

impl Carried {
    fn fails(&mut self, error: impl Into<PromiseError>) {
        self.failed.get_or_insert(error.into());
    }
}

/// Written and synced, not seen yet.
#[derive(Debug)]
pub(super) struct Written {
    drafts: Vec<Draft>,
    prepared: Option<Prepared>,
    unwritten: Vec<Unwritten>,
}

/// A copy that could not be written.
#[derive(Debug)]
struct Unwritten {
    // Among the copies of its message.
    nth: usize,
    handed: Handed,
}

impl Promises {
    /// Over these parts.
    pub fn new(maildirs: Maildirs, ledger: Ledger, queue: Queue, clock: Clock) -> Self {
        Self { maildirs, ledger, queue, clock, unfinished: Mutex::default() }
    }

    /// The mailboxes.
    pub fn maildirs(&self) -> &Maildirs {
        &self.maildirs
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps a message, or finds that it was kept before. One hand-over at a time: the caller sees to it.
    pub fn keep(&self, mut work: Work) -> Result<Kept, PromiseError> {
        let plan = work.plan();
        let mut intent = self.ledger.begin(work.hand_over, work.trace, &plan, self.clock.steady_s());
        let written = self.write(&mut work);
        if written.is_ok() {
            work.handings.iter_mut().for_each(|handing| handing.offer(&work.message));
        }
        for _ in 0..3 {
            let known = match intent.wait()? {
                Begun::New(id) => return self.fulfil(Known { id, trace: work.trace, plan: Some(plan) }, written, work),
                Begun::Known(known) => known,
            };
            if self.settle(&known)? == Settled::Done {
                return Ok(Kept::Before(known.trace));
            }
            intent = self.ledger.begin(work.hand_over, work.trace, &plan, self.clock.steady_s());
        }
        Err(PromiseError::Unsettled)
    }

    /// Step: all copies, written and synced, unseen. Those that can't be are left to the queue, unless nobody else
    /// gets the message either.
    pub(super) fn write(&self, work: &mut Work) -> Result<Written, PromiseError> {
        let (mut drafts, mut unwritten) = (Vec::with_capacity(work.copies.len()), Vec::new());
        let is_alone = work.held.is_none() || (work.queued.is_none() && work.handings.is_empty());
        for (nth, PlacedCopy { place, fields, to }) in work.copies.iter_mut().enumerate() {
            match self.maildirs.write(place, std::mem::take(fields), &work.message) {
                Ok(draft) => drafts.push(draft),
                Err(error) => unwritten.push((nth, place.folder.is_junk(), handing::recipient(to), error)),
            }
        }
        if is_alone
            && drafts.is_empty()
            && let Some((.., error)) = unwritten.pop()
        {
            return Err(error.into());
        }
        let prepared = match work.queued.take() {
            Some(entry) => Some(self.queue.prepare(entry, &work.message.with_fields(&work.queued_fields))?),
            None => None,
        };
        let mut held = Vec::with_capacity(unwritten.len());
        for (nth, is_junk, recipient, error) in unwritten {
            let Some(recipient) = recipient.filter(|_| work.held.is_some()) else { return Err(error.into()) };
            tracing::error!(
                trace = %work.trace, recipient = %recipient.address, %error,
                "a copy can't be written; it waits while the others are delivered"
            );
            let reply = if error.is_full() { Reply::no_room() } else { Reply::local_error() };
            let answer = Answer::certain(Outcome::Deferred(reply));
            held.push(Unwritten { nth, handed: Handed { recipient, answer, is_junk } });
        }
        Ok(Written { drafts, prepared, unwritten: held })
    }

    /// Steps after the intent is durable: rename, sync, queue. From the first rename on there is no way
    /// back, only onwards.
    fn fulfil(
        &self,
        mut known: Known,
        written: Result<Written, PromiseError>,
        work: Work,
    ) -> Result<Kept, PromiseError> {
        let mut plan = known.plan.clone().unwrap_or_default();
        let written = match written {
            Ok(written) => written,
            // Nothing was renamed, so nothing was promised.
            Err(error) => return self.forget(&known, &plan).and(Err(error)),
        };
        let Written { drafts, prepared, unwritten } = written;
        let mailbox = |unwritten: &Unwritten| unwritten.handed.recipient.address.lookup_key();
        let held = unwritten.iter().map(mailbox).collect();
        let planned = self.plan_without(&unwritten, known.id, &mut plan, &work);
        if let Err(error) = planned.and_then(|()| self.release(&plan, drafts)) {
            return self.forget(&known, &plan).and(Err(error));
        }
        let handed = plan.handed.is_some();
        if handed {
            match self.hand_over(&known, &plan, work, unwritten) {
                Ok(None) => {}
                Ok(Some(refused)) => {
                    self.ledger.forget(known.id).wait()?;
                    return Ok(Kept::Refused(refused));
                }
                Err(error) => return self.forget(&known, &plan).and(Err(error)),
            }
            plan.handed = Some(HandedOver::Answered);
            if plan.parts() == 1 {
                self.answered(&known);
                return Ok(Kept::Now(held));
            }
            known.plan = Some(plan.clone());
            // Only worth a word in the log after a stop: the copies are with their server, or held.
            if let Err(error) = self.ledger.note(known.id, &plan).wait() {
                tracing::warn!(trace = %known.trace, %error, "what a server of mailboxes answered could not be noted");
            }
        }
        let Carried { durable, seen, failed } = self.carry_out(&plan, prepared, handed);
        let Some(error) = failed else {
            self.ledger.settle_lazily(known.id);
            return Ok(Kept::Now(held));
        };
        if durable {
            tracing::error!(
                trace = %known.trace, %error,
                "some copies could not be kept with the others; they will be tried again"
            );
            self.unfinished().push(known);
            return Ok(Kept::Now(held));
        }
        if seen {
            return self.leave_unfinished(known, error);
        }
        match self.withdraw(&known, &plan) {
            Ok(_) => Err(error),
            Err(_) => self.leave_unfinished(known, error),
        }
    }

    /// Step: what could not be written is the queue's to hold, and no file is looked for; durable before anything of
    /// the message is seen.
    fn plan_without(&self, unwritten: &[Unwritten], id: i64, plan: &mut Plan, work: &Work) -> Result<(), PromiseError> {
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut nth = 0;
        plan.places.retain(|_| {
            nth += 1;
            unwritten.iter().all(|copy| copy.nth + 1 != nth)
        });
        plan.handed = plan.handed.or(work.held.as_ref().map(|entry| HandedOver::Held(entry.id)));
        Ok(self.ledger.note(id, plan).wait()?)
    }

    /// Step: the final dots, then what was not taken or could not be written is held. Gives the refusal, if all is refused, nobody else
    /// gets it, and who brought it can still be told. An error: something could not be held, and no 250 is due.
    fn hand_over(
        &self,
        known: &Known,
        plan: &Plan,
        work: Work,
        unwritten: Vec<Unwritten>,
    ) -> Result<Option<Reply>, PromiseError> {
        let Work { handings, held, refusal, message, .. } = work;
        let handed = handings.into_iter().flat_map(|handing| handing.finish(known.trace));
        let handed = handed.chain(unwritten.into_iter().map(|copy| copy.handed));
        let is_taken = |handed: &Handed| matches!(handed.answer.outcome, Outcome::Accepted(_));
        let (taken, mut left): (Vec<Handed>, Vec<Handed>) = handed.into_iter().partition(is_taken);
        let is_refused = |handed: &Handed| matches!(handed.answer.outcome, Outcome::Refused(_));
        if refusal == Refusal::Tell && taken.is_empty() && plan.parts() == 1 && left.iter().all(is_refused) {
            let first = left.into_iter().next();
            return Ok(first.map(|handed| handed.answer.outcome.reply().clone()));
        }
        if refusal == Refusal::Store {
            for handed in left.extract_if(.., |handed| is_refused(handed)) {
                self.store(known.trace, &handed, &message)?;
            }
        }
        if let Some(mut entry) = held.filter(|_| !left.is_empty()) {
            let held: Vec<_> =
                left.iter().map(|one| Left { answer: one.answer.clone(), is_junk: one.is_junk }).collect();
            entry.envelope.recipients = left.into_iter().map(|handed| handed.recipient).collect();
            let doubled = !taken.is_empty() || held.iter().any(|left| left.answer.in_doubt);
            let id = entry.id;
            let kept = self.queue.prepare_local(entry, &held, &message).and_then(Prepared::commit);
            if let Err(error) = kept {
                self.queue.withdraw(id)?;
                if doubled {
                    tracing::warn!(trace = %known.trace, "its sender will try again, and some copies may come twice");
                }
                return Err(error.into());
            }
        }
        Ok(None)
    }

    /// The last way for what was promised: a Maildir of ours, whoever reads it.
    fn store(&self, trace: TraceId, handed: &Handed, message: &Message) -> Result<(), PromiseError> {
        let mailbox = handed.recipient.address.lookup_key();
        let fields = format!("Delivered-To: {mailbox}\r\n").into_bytes();
        let folder = if handed.is_junk { Folder::junk(&mailbox) } else { Folder::inbox(&mailbox) };
        let place = self.maildirs.place(folder, message.octets() + fields.len() as u64);
        self.maildirs.write(&place, fields, message)?.release();
        self.maildirs.deliver(&place)?;
        self.maildirs.sync(&place.folder)?;
        tracing::error!(
            %trace, recipient = mailbox, reply = %handed.answer.outcome.reply(),
            path = %self.maildirs.path(&place.folder).display(),
            "the server of the mailbox refuses what was promised: it lies in a Maildir here"
        );
        Ok(())
    }

    /// Everything is with a server, or held.
    fn answered(&self, known: &Known) {
        if let Err(error) = self.ledger.settle(known.id).wait() {
            // It is kept all the same, and a repeat finds it open.
            tracing::warn!(trace = %known.trace, %error, "what a server of mailboxes answered could not be noted");
        }
    }

    /// Step: what was written outlives this call from here on, under its temporary names.
    pub(super) fn release(&self, plan: &Plan, drafts: Vec<Draft>) -> Result<(), PromiseError> {
        drafts.into_iter().for_each(Draft::release);
        if plan.parts() > 1 {
            // One that is delivered tells that the others can be finished: their names must outlive it.
            for_each_folder(plan, |folder| self.maildirs.sync_written(folder))?;
            if plan.queue.is_some() {
                self.queue.sync_prepared()?;
            }
        }
        Ok(())
    }

    /// Steps: the copies become visible, one by one, their names durable, and the queue gets its part. What
    /// fails keeps nothing else from being done, but for what nobody has seen yet: the first of all.
    fn carry_out(&self, plan: &Plan, prepared: Option<Prepared>, handed: bool) -> Carried {
        // What a server has, or the queue for it, is as good as a copy of ours.
        let mut carried = Carried { durable: handed, ..Carried::default() };
        let mut delivered: Vec<&Folder> = Vec::with_capacity(plan.places.len());
        for place in &plan.places {
            match self.maildirs.deliver(place) {
                Ok(()) => delivered.push(&place.folder),
                Err(error) => carried.fails(error),
            }
        }
        // A rename that failed says nothing for sure: only a look does.
        let is_seen = || self.delivered(plan).map_or(true, |found| found.contains(&Found::Delivered));
        carried.seen = handed || !delivered.is_empty() || (!plan.places.is_empty() && is_seen());
        if !plan.places.is_empty() && !carried.seen {
            return carried;
        }
        delivered.sort_unstable();
        delivered.dedup();
        for folder in delivered {
            match self.maildirs.sync(folder) {
                Ok(()) => carried.durable = true,
                Err(error) => carried.fails(error),
            }
        }
        match prepared.map(Prepared::commit) {
            None => {}
            Some(Ok(())) => carried.durable = true,
            Some(Err(error)) => carried.fails(error),
        }
        carried
    }

    /// Takes back what nobody has seen.
    fn withdraw(&self, known: &Known, plan: &Plan) -> Result<Settled, PromiseError> {
        if let Some(id) = plan.queue {
            self.queue.withdraw(id)?;
        }
        self.forget(known, plan)
    }

    /// Step: their names become durable.
    pub(super) fn sync(&self, plan: &Plan) -> Result<(), DurableError> {
        for_each_folder(plan, |folder| self.maildirs.sync(folder))
    }

    fn delivered(&self, plan: &Plan) -> Result<Vec<Found>, PromiseError> {
        let look = |place: &Place| {
            self.maildirs.find(place).map_err(|source| PromiseError::Look { folder: place.folder.clone(), source })
        };
        plan.places.iter().map(look).collect()
    }

    /// The intent stays open: a later try, a repeat or the next start finishes it. Not durable yet, so no 250.
    fn leave_unfinished(&self, known: Known, error: PromiseError) -> Result<Kept, PromiseError> {
        tracing::error!(trace = %known.trace, %error, "a delivery could not be finished; it will be tried again");
        self.unfinished().push(known);
        Err(error)
    }

    fn unfinished(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Once for each folder a plan names.
fn for_each_folder(plan: &Plan, mut sync: impl FnMut(&Folder) -> Result<(), DurableError>) -> Result<(), DurableError> {
    let mut folders: Vec<&Folder> = plan.places.iter().map(|place| &place.folder).collect();
    folders.sort_unstable();
    folders.dedup();
    folders.into_iter().try_for_each(&mut sync)
}

impl Work {
    pub(super) fn plan(&self) -> Plan {
        Plan {
            places: self.copies.iter().map(|copy| copy.place.clone()).collect(),
            queue: self.queued.as_ref().map(|entry| entry.id),
            handed: self.held.as_ref().filter(|_| !self.handings.is_empty()).map(|entry| HandedOver::Open(entry.id)),
        }
    }
}

#[cfg(test)]
mod tests;
