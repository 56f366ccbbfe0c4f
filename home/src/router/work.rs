//! What a message becomes once it is sorted: copies for Maildirs of ours, transactions with servers that keep
//! mailboxes, entries of the queue.

use std::collections::BTreeMap;

use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{Envelope, Recipient};
use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::random;

use super::forward;
use super::handing::{self, Handing};
use super::ledger::HandOver;
use super::loops::Past;
use super::promise::{PlacedCopy, Refusal, Work};
use super::recipients::{Forward, LocalCopy};
use super::{Arrival, Destinations, Inner, Origin, is_junk};
use crate::delivery::config::Server;
use crate::delivery::maildir::Folder;
use crate::queue::{NewEntry, QueueId};

impl Inner {
    /// Where mail of the world goes. An error is the reply to a sender who still listens.
    pub(super) async fn of_world(&self, arrival: &Arrival, spooled: bool) -> Result<Destinations, Reply> {
        let undone = self.undo_return_paths(&arrival.envelope).await?;
        let past = Past::of(&arrival.message).await.map_err(|error| {
            tracing::error!(trace = %arrival.trace, %error, "a message that arrived can't be read");
            Reply::local_error()
        })?;
        let destinations = self.sort_from_world(arrival, undone, spooled)?;
        let destinations = self.break_loops(&past, destinations, spooled)?;
        if !spooled {
            self.judge_room(arrival, &destinations).await?;
        }
        Ok(destinations)
    }

    /// Where that goes which mailboxes here were promised: to them, or to the postmaster.
    pub(super) fn sort_returned(&self, arrival: &Arrival, stranded: bool) -> Destinations {
        let mut destinations = Destinations::default();
        for Recipient { address, .. } in &arrival.envelope.recipients {
            if stranded {
                self.to_postmaster(address, &mut destinations.inbox);
            } else {
                let mailbox = address.lookup_key();
                destinations.inbox.push(LocalCopy { mailbox, recipient: address.clone() });
            }
        }
        if is_junk(&arrival.origin) {
            destinations.junk.append(&mut destinations.inbox);
        }
        destinations
    }

    /// All that is to be kept of it, each part named; what goes to other hosts goes under `sender`. Connects to the servers it needs.
    pub(super) async fn work(
        &self,
        hand_over: HandOver,
        arrival: Arrival,
        mut destinations: Destinations,
        sender: ReversePath,
    ) -> Work {
        let login = match &arrival.origin {
            Origin::Account { login, .. } => Some(login.clone()),
            Origin::World { .. } | Origin::Trusted { .. } | Origin::Bounce { .. } | Origin::Returned { .. } => None,
        };
        let refusal = match &arrival.origin {
            Origin::World { spooled: false, .. } | Origin::Account { spooled: false, .. } | Origin::Trusted { .. } => {
                Refusal::Tell
            }
            Origin::World { .. } | Origin::Account { .. } | Origin::Bounce { .. } => Refusal::Hold,
            Origin::Returned { .. } => Refusal::Store,
        };
        let handings = self.handings(&arrival.envelope, &mut destinations).await;
        let octets = arrival.message.octets();
        let copy = |folder: Folder, to: LocalCopy| -> PlacedCopy {
            let fields = fields(&arrival.envelope.reverse_path, &to);
            let place = self.promises.maildirs().place(folder, octets + fields.len() as u64);
            PlacedCopy { place, fields, to }
        };
        let inbox = std::mem::take(&mut destinations.inbox).into_iter();
        let junk = std::mem::take(&mut destinations.junk).into_iter();
        let inbox = inbox.map(|to| copy(Folder::inbox(&to.mailbox), to));
        let copies: Vec<PlacedCopy> = inbox.chain(junk.map(|to| copy(Folder::junk(&to.mailbox), to))).collect();
        let entry = |reverse_path, recipients| NewEntry {
            id: QueueId(random::bytes()),
            trace: arrival.trace,
            envelope: Envelope { recipients, reverse_path, ..arrival.envelope.clone() },
            login: login.clone(),
            received_unix_s: arrival.received_unix_s,
            held: None,
        };
        let Destinations { mut remote, forwards, held: reason, .. } = destinations;
        for Forward { recipient, via } in &forwards {
            tracing::info!(trace = %arrival.trace, alias = %via, recipient = %recipient.address, %sender, "forwarding");
        }
        let queued_fields = forward::fields(&forwards);
        remote.extend(forwards.into_iter().map(|forward| forward.recipient));
        let queued = (!remote.is_empty()).then(|| NewEntry { held: reason, ..entry(sender, remote) });
        // What is for one mailbox only is kept or not.
        let is_divisible = !handings.is_empty() || copies.len() + usize::from(queued.is_some()) > 1;
        let held = is_divisible.then(|| entry(arrival.envelope.reverse_path.clone(), Vec::new()));
        Work {
            hand_over,
            trace: arrival.trace,
            copies,
            queued,
            queued_fields,
            handings,
            held,
            refusal,
            message: arrival.message,
        }
    }

    /// Takes out the copies for mailboxes that servers keep, and connects to those.
    async fn handings(&self, envelope: &Envelope, destinations: &mut Destinations) -> Vec<Handing> {
        let keepers = self.servers.keepers();
        let mut groups: BTreeMap<(Server, bool), Vec<Recipient>> = BTreeMap::new();
        for (copies, is_junk) in [(&mut destinations.inbox, false), (&mut destinations.junk, true)] {
            copies.retain(|copy| {
                let kept = keepers.of(&copy.mailbox).and_then(|server| Some((server, handing::recipient(copy)?)));
                let Some((server, recipient)) = kept else { return true };
                groups.entry((server.clone(), is_junk)).or_default().push(recipient);
                false
            });
        }
        let mut handings = Vec::with_capacity(groups.len());
        for ((server, is_junk), recipients) in groups {
            let envelope = Envelope { recipients, ..envelope.clone() };
            handings.push(Handing::begin(&self.servers, &self.clock, server, envelope, is_junk).await);
        }
        handings
    }
}

/// What delivery puts in front (RFC 5321 §4.4): the sender, the mailbox, and the recipient as it was written
/// where that is another address.
fn fields(sender: &ReversePath, copy: &LocalCopy) -> Vec<u8> {
    let mut fields = format!("Return-Path: <{sender}>\r\nDelivered-To: {}\r\n", copy.mailbox);
    if copy.recipient.lookup_key() != copy.mailbox {
        fields += &["X-Original-To: ", &copy.recipient.to_string(), "\r\n"].concat();
    }
    fields.into_bytes()
}
