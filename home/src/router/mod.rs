//! Every message that comes to the home goes through here, wherever it comes from: its recipients are
//! sorted, its sender's rights checked, and it is kept before anybody hears 250. What can't be
//! refused any more (it waited at an edge) is kept all the same: in Junk, with the postmaster, or
//! as a bounce to the account that sent it; never as a bounce to the world.

mod account;
pub mod awaited;
pub mod completion;
mod flights;
mod forward;
mod handing;
pub mod intake;
pub mod ledger;
mod loops;
pub mod promise;
pub mod recipients;
mod report;
mod room;
mod signed;
pub mod spool;
pub mod streams;
mod work;
mod world;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::clock::Clock;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::awaited::Awaited;
use self::completion::{Author, Submitted};
use self::flights::Flights;
use self::forward::Undone;
use self::ledger::HandOver;
use self::loops::Past;
use self::promise::{Kept, PromiseError, Promises};
use self::recipients::{COPIES_MAX, Forward, LocalCopy, Sorted};
use crate::accounts::Accounts;
use crate::accounts::addresses::Leads;
use crate::delivery::config::Keepers;
use crate::delivery::lmtp::Servers;
use crate::delivery::workers::Workers;
use crate::feedback::Feedback;
use crate::message::Message;
use crate::queue::bounce::Reporter;
use crate::queue::entry::About;
use crate::reporting::Reporting;
use crate::signing::Signing;

/// A whole message, digest checked, and where it comes from.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where from.
    pub origin: Origin,
    /// Its trace id.
    pub trace: TraceId,
    /// Who sent it, who gets it.
    pub envelope: Envelope,
    /// The bytes.
    pub message: Message,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// Who brought a message to an edge.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: String,
}

/// Where a message comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The world, by way of an edge: repeats are known by transfer id.
    World {
        /// Which edge.
        edge: NodeKey,
        /// Names the hand-over.
        transfer: TransferId,
        /// Pulled from the spool: no refusal can reach the sender any more.
        spooled: bool,
        /// Who brought it to the edge.
        client: Client,
        /// What the edge found out about it.
        verdict: Arc<Verdict>,
    },
    /// An account, verified.
    Account {
        /// Who logged in.
        login: String,
        /// By way of an edge, with its transfer id; `None` on the LAN.
        edge: Option<(NodeKey, TransferId)>,
        /// Pulled from the spool: a refusal becomes a bounce to the account.
        spooled: bool,
    },
    /// A device or program of the LAN, without a login.
    Trusted {
        /// Which.
        by: Trusted,
        /// Names the hand-over: what comes again under the same name is not sent again.
        transfer: TransferId,
    },
    /// Ourselves: a bounce.
    Bounce {
        /// Names it: a repeat after a crash comes under the same id.
        transfer: TransferId,
    },
    /// Our queue, with a whole message that mailboxes here were promised: never refused again.
    Returned {
        /// Names it: a repeat after a crash comes under the same id.
        transfer: TransferId,
        /// Its mailboxes refused it for good: the postmaster gets it. Else they get it now.
        stranded: bool,
        /// Their Junk was promised it.
        is_junk: bool,
    },
}

/// Who sends without a login, trusted for where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// A device of a network the owner trusts.
    Network {
        /// How it came (RFC 3848).
        with: &'static str,
    },
    /// A program on this machine.
    Local,
}

impl Trusted {
    /// For our Received field. Whose address or number it was is nobody's business outside.
    fn with(self) -> &'static str {
        match self {
            Self::Network { with } => with,
            Self::Local => "local",
        }
    }
}

/// Takes messages. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    hostname: String,
    accounts: Accounts,
    promises: Arc<Promises>,
    servers: Servers,
    signing: Signing,
    feedback: Feedback,
    reporting: Reporting,
    workers: Workers,
    flights: Flights,
    awaited: Awaited,
    clock: Clock,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

/// Where the copies of a message go.
#[derive(Debug, Default)]
struct Destinations {
    inbox: Vec<LocalCopy>,
    junk: Vec<LocalCopy>,
    remote: Vec<Recipient>,
    forwards: Vec<Forward>,
    /// Why what goes elsewhere is not to be sent yet.
    held: Option<String>,
}

impl Router {
    /// Over these parts; every open intent has been settled.
    pub fn new(
        hostname: String,
        accounts: Accounts,
        promises: Arc<Promises>,
        servers: Servers,
        signing: Signing,
        (feedback, reporting): (Feedback, Reporting),
        clock: Clock,
    ) -> Self {
        let (workers, flights, awaited) = (Workers::default(), Flights::default(), Awaited::default());
        let inner = Inner {
            hostname,
            accounts,
            promises,
            servers,
            signing,
            feedback,
            reporting,
            workers,
            flights,
            awaited,
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where one can wait for mail.
    pub fn awaited(&self) -> &Awaited {
        &self.inner.awaited
    }

    /// Delivers, queues or refuses. A positive reply means: durable.
    pub async fn accept(&self, arrival: Arrival) -> Reply {
        match arrival.origin.clone() {
            Origin::World { edge, transfer, spooled, client, verdict } => {
                match self.inner.of_world(&arrival, spooled).await {
                    Ok(destinations) => {
                        let hand_over = HandOver::from_edge(edge, transfer);
                        self.keep_of_world(hand_over, (client.address, &verdict), arrival, destinations).await
                    }
                    Err(reply) => refused(&arrival, reply),
                }
            }
            Origin::Account { login, edge, spooled } => self.accept_submission(login, edge, spooled, arrival).await,
            Origin::Trusted { by, transfer } => self.accept_trusted(by, transfer, arrival).await,
            Origin::Bounce { transfer } => {
                let destinations = self.inner.sort_bounce(&arrival);
                self.keep(HandOver::our_own(transfer), arrival, destinations).await
            }
            Origin::Returned { transfer, stranded, .. } => {
                let destinations = self.inner.sort_returned(&arrival, stranded);
                self.keep(HandOver::our_own(transfer), arrival, destinations).await
            }
        }
    }

    /// Whether an account may send to this address now: local and known, or remote.
    #[expect(clippy::unused_async, reason = "callers are ready for an answer that needs a query")]
    pub async fn check_recipient(&self, address: &Address) -> Result<(), Reply> {
        match self.inner.accounts.lead(address) {
            Leads::Here(_) | Leads::Remote => Ok(()),
            Leads::Nowhere => Err(Reply::unknown_recipient()),
        }
    }

    /// Whether a hand-over of this edge is already kept, for good.
    pub async fn is_kept(&self, edge: NodeKey, transfer: TransferId) -> bool {
        let promises = Arc::clone(&self.inner.promises);
        let hand_over = HandOver::from_edge(edge, transfer);
        let found = tokio::task::spawn_blocking(move || promises.ledger().find(hand_over)).await;
        matches!(found, Ok(Ok(Some(known))) if known.plan.is_none())
    }

    /// Tells an account that what it sent by way of an edge is not sent, and why.
    pub async fn refuse_submission(
        &self,
        login: &str,
        (edge, transfer): (NodeKey, TransferId),
        arrival: Arrival,
        reply: Reply,
    ) -> Reply {
        let Some(account) = self.inner.accounts.book().accounts.get(login).map(|account| account.address.clone())
        else {
            return reply;
        };
        tracing::warn!(trace = %arrival.trace, login, %reply, "a spooled submission is refused; its account is told");
        let failed = (About::Failure, arrival.envelope.recipients.clone());
        self.report(account, (HandOver::from_edge(edge, transfer), transfer), arrival, failed, reply).await
    }

    /// Tells the sender of what a local program left here that it is not sent, and why: a mailbox of ours, or else the
    /// postmaster.
    pub async fn refuse_local(&self, transfer: TransferId, arrival: Arrival, reply: Reply) -> Reply {
        let postmaster = || self.inner.accounts.settings().postmaster.clone();
        let to = arrival.envelope.reverse_path.address().cloned().unwrap_or_else(postmaster);
        tracing::warn!(trace = %arrival.trace, sender = %to, %reply, "mail of a local program is refused; its sender is told");
        let failed = (About::Failure, arrival.envelope.recipients.clone());
        self.report(to, (HandOver::our_own(transfer), transfer), arrival, failed, reply).await
    }

    /// Delivers a report on a message.
    async fn report(
        &self,
        to: Address,
        (hand_over, transfer): (HandOver, TransferId),
        arrival: Arrival,
        (about, recipients): (About, Vec<Recipient>),
        reply: Reply,
    ) -> Reply {
        let hostname = self.inner.hostname.clone();
        let postmaster = self.inner.accounts.settings().postmaster.clone();
        let now = self.inner.clock.unix_s();
        let made = tokio::task::spawn_blocking(move || {
            let reporter = Reporter { hostname: &hostname, postmaster: &postmaster };
            report::report(to, transfer, &arrival, (about, &recipients), reply, reporter, now)
        });
        let Ok(Ok(arrival)) = made.await else { return Reply::local_error() };
        let sorted = recipients::sort(&self.inner.accounts.book().addresses, &arrival.envelope.recipients);
        let destinations = self.inner.kept_here(sorted);
        self.keep(hand_over, arrival, destinations).await
    }

    /// Tells the account that sent it that a message lies in mailboxes here.
    async fn tell_delivered(&self, transfer: TransferId, arrival: Arrival, told: Vec<Recipient>, reply: Reply) {
        let trace = arrival.trace;
        let Some(to) = arrival.envelope.reverse_path.address().cloned() else { return };
        let hand_over = (HandOver::our_own(transfer), transfer);
        let reply = Box::pin(self.report(to, hand_over, arrival, (About::Delivery, told), reply)).await;
        if !reply.is_positive() {
            tracing::warn!(%trace, %reply, "the sender could not be told of the delivery");
        }
    }

    async fn accept_trusted(&self, by: Trusted, transfer: TransferId, mut arrival: Arrival) -> Reply {
        match self.inner.complete_trusted(by, &mut arrival).await {
            Ok(destinations) => self.keep(HandOver::our_own(transfer), arrival, destinations).await,
            Err(reply) => refused(&arrival, reply),
        }
    }

    async fn keep(&self, hand_over: HandOver, arrival: Arrival, destinations: Destinations) -> Reply {
        self.keep_once(hand_over, arrival, destinations).await.0
    }

    /// And, if it was kept now and not before, the mailboxes whose copies wait in the queue.
    async fn keep_once(
        &self,
        hand_over: HandOver,
        arrival: Arrival,
        destinations: Destinations,
    ) -> (Reply, Option<Vec<String>>) {
        let inner = &self.inner;
        let begun = inner.clock.now();
        let sender = match inner.forwarded_sender(&arrival.envelope.reverse_path, &destinations.forwards).await {
            Ok(sender) => sender,
            Err(reply) => return (refused(&arrival, reply), None),
        };
        let mut facts = Facts::of(&arrival, &destinations, &inner.servers.keepers());
        // One at a time: an edge may bring the same hand-over again while we are still busy with it.
        let turn = inner.flights.enter(hand_over).await;
        let message = arrival.message.clone();
        let (awaited, tokens) = (inner.awaited.clone(), inner.awaited.of(&arrival));
        let offer = inner.offer(&arrival).map(|offer| (offer, inner.feedback.clone(), Handle::current()));
        let purpose = inner.purpose(&arrival, &destinations);
        let mut work = inner.work(hand_over, arrival, destinations, sender).await;
        let (sender, receiver) = oneshot::channel();
        let (promises, signing) = (Arc::clone(&inner.promises), inner.signing.clone());
        inner.workers.run(move || {
            let kept = signed::sign(&signing, &mut work, purpose.as_ref())
                .and_then(|signer| promises.keep(work).map(|kept| (kept, signer)));
            drop(turn);
            // Here, for who asked may be gone; and what came before was seen before.
            if let Ok((Kept::Now(_), _)) = &kept {
                awaited.offer(&tokens, &message);
                if let Some((offer, feedback, runtime)) = offer {
                    feedback.offer(offer, &runtime);
                }
            }
            // What was kept is kept, and a repeat will hear so.
            let _ = sender.send((kept, message.message_id()));
        });
        let took_ms = || inner.clock.now().saturating_duration_since(begun).as_millis();
        let Ok((kept, message_id)) = receiver.await else { return (Reply::local_error(), None) };
        match kept {
            Ok((Kept::Now(held), signer)) => {
                facts.leave_out(&held);
                facts.signer = signer.map(|domain| domain.to_string());
                facts.log_kept(message_id.as_deref(), took_ms());
                (Reply::accepted(&facts.trace.to_string()), Some(held))
            }
            Ok((Kept::Before(trace), _)) => {
                tracing::info!(trace = %facts.trace, before = %trace, "already here: the same hand-over again");
                (Reply::accepted(&trace.to_string()), None)
            }
            Ok((Kept::Refused(reply), _)) => {
                tracing::info!(trace = %facts.trace, sender = facts.sender, %reply, "refused by the server of the mailbox");
                (reply, None)
            }
            Err(error) => (facts.log_failed(&error), None),
        }
    }
}

impl Inner {
    /// What the world sent. Spooled: nobody can be refused any more.
    fn sort_from_world(&self, arrival: &Arrival, undone: Undone, spooled: bool) -> Result<Destinations, Reply> {
        let octets_max = self.accounts.settings().message_octets_max;
        // What the edge put in front is not the sender's to answer for.
        let too_big = arrival.message.body.octets() > octets_max;
        let sorted = recipients::sort(&self.accounts.book().addresses, &undone.recipients);
        if too_big && !spooled {
            return Err(Reply::too_big(octets_max));
        }
        let mut destinations = self.place_from_world(sorted, undone, spooled)?;
        if too_big || is_junk(&arrival.origin) {
            destinations.junk.append(&mut destinations.inbox);
        }
        Ok(destinations)
    }

    fn place_from_world(&self, sorted: Sorted, undone: Undone, spooled: bool) -> Result<Destinations, Reply> {
        if !spooled {
            if !sorted.beyond.is_empty() {
                return Err(Reply::too_many_copies(COPIES_MAX));
            }
            if sorted.local.is_empty() && sorted.forwards.is_empty() && undone.returned.is_empty() {
                let nobody = if sorted.unknown.is_empty() { Reply::relay_denied() } else { Reply::unknown_recipient() };
                return Err(undone.why.unwrap_or(nobody));
            }
        }
        let mut destinations = self.kept_here(sorted);
        destinations.remote = undone.returned;
        // What pretends to be a bounce is no letter to the postmaster.
        for recipient in undone.refused.iter().filter(|_| spooled) {
            self.to_postmaster(&recipient.address, &mut destinations.junk);
        }
        Ok(destinations)
    }

    /// Everything stays here but what aliases lead elsewhere; what has no mailbox, or too many, goes to the
    /// postmaster.
    fn kept_here(&self, sorted: Sorted) -> Destinations {
        let mut inbox = sorted.local;
        for recipient in sorted.unknown.into_iter().chain(sorted.remote).chain(sorted.beyond) {
            self.to_postmaster(&recipient.address, &mut inbox);
        }
        Destinations { inbox, forwards: sorted.forwards, ..Destinations::default() }
    }

    fn to_postmaster(&self, recipient: &Address, folder: &mut Vec<LocalCopy>) {
        for mailbox in self.postmaster() {
            if folder.iter().all(|copy| copy.mailbox != mailbox) {
                folder.push(LocalCopy { mailbox, recipient: recipient.clone() });
            }
        }
    }

    fn postmaster(&self) -> Vec<String> {
        let postmaster = &self.accounts.settings().postmaster;
        match self.accounts.lead(postmaster) {
            Leads::Here(ends) if !ends.mailboxes.is_empty() => ends.mailboxes,
            // Its mailbox waits for its account.
            Leads::Here(_) | Leads::Nowhere | Leads::Remote => vec![postmaster.lookup_key()],
        }
    }

    /// Sender's rights, completion, recipients. The arrival's message becomes what is sent.
    async fn complete_submission(&self, login: &str, arrival: &mut Arrival) -> Result<Destinations, Reply> {
        if let ReversePath::Address(sender) = &arrival.envelope.reverse_path
            && !self.accounts.may_send_as(login, sender).await
        {
            return Err(Reply::sender_not_yours(&sender.to_string()));
        }
        // RFC 3848, RFC 6531 §4.3: a login is always under TLS.
        let with = if arrival.envelope.smtputf8 { "UTF8SMTPSA" } else { "ESMTPSA" };
        self.complete(Author::Account(login), with, arrival).await
    }

    /// The same for what comes without a login.
    async fn complete_trusted(&self, by: Trusted, arrival: &mut Arrival) -> Result<Destinations, Reply> {
        let sender = arrival.envelope.reverse_path.clone();
        if let ReversePath::Address(sender) = &sender
            && !self.accounts.is_trusted_sender(sender)
        {
            return Err(Reply::sender_not_trusted(&sender.to_string()));
        }
        let destinations = self.complete(Author::Trusted(&sender), by.with(), arrival).await?;
        let settings = self.accounts.settings();
        if sender.address().is_some_and(|sender| !settings.domains.contains(sender.domain())) {
            // No edge sends in the name of a domain that is not ours, and its bounces would reach nobody.
            arrival.envelope.reverse_path = ReversePath::Address(settings.postmaster.clone());
        }
        Ok(destinations)
    }

    /// Size, recipients, completion.
    async fn complete(&self, author: Author<'_>, with: &str, arrival: &mut Arrival) -> Result<Destinations, Reply> {
        let octets_max = self.accounts.settings().message_octets_max;
        if arrival.message.body.octets() > octets_max {
            return Err(Reply::too_big(octets_max));
        }
        if Past::of(&arrival.message).await.is_ok_and(|past| past.is_endless()) {
            return Err(Reply::mail_loop());
        }
        let sorted = recipients::sort(&self.accounts.book().addresses, &arrival.envelope.recipients);
        if !sorted.unknown.is_empty() {
            return Err(Reply::unknown_recipient());
        }
        if !sorted.beyond.is_empty() {
            return Err(Reply::too_many_copies(COPIES_MAX));
        }
        let submitted = Submitted {
            author,
            hostname: &self.hostname,
            with,
            trace: arrival.trace,
            received_unix_s: arrival.received_unix_s,
        };
        arrival.message = completion::complete(&self.accounts, submitted, arrival.message.clone()).await?;
        let Sorted { local: inbox, remote, forwards, .. } = sorted;
        Ok(Destinations { inbox, junk: Vec::new(), remote, forwards, held: None })
    }
}

fn refused(arrival: &Arrival, reply: Reply) -> Reply {
    tracing::info!(trace = %arrival.trace, sender = %arrival.envelope.reverse_path, %reply, "refused");
    reply
}

/// What is told of a message once its fate is known.
struct Facts {
    trace: TraceId,
    sender: String,
    to: String,
    octets: u64,
    queued: usize,
    /// The domain that signed what is queued.
    signer: Option<String>,
}

/// Mailboxes named in one log line.
const NAMED_MAX: usize = 5;

impl Facts {
    /// Mailboxes that a server keeps have lines of their own.
    fn of(arrival: &Arrival, destinations: &Destinations, keepers: &Keepers) -> Self {
        let mut to = String::new();
        let copies = destinations
            .inbox
            .iter()
            .map(|copy| (copy, ""))
            .chain(destinations.junk.iter().map(|copy| (copy, "/Junk")))
            .filter(|(copy, _)| keepers.of(&copy.mailbox).is_none());
        for (i, (copy, folder)) in copies.enumerate() {
            if i == NAMED_MAX {
                to.push_str(" …");
                break;
            }
            if i > 0 {
                to.push(' ');
            }
            to.push_str(&copy.mailbox);
            to.push_str(folder);
        }
        Self {
            trace: arrival.trace,
            sender: arrival.envelope.reverse_path.to_string(),
            to,
            octets: arrival.message.octets(),
            queued: destinations.remote.len() + destinations.forwards.len(),
            signer: None,
        }
    }

    /// These wait in the queue, and have lines of their own.
    fn leave_out(&mut self, held: &[String]) {
        if !held.is_empty() {
            let is_kept = |name: &&str| !held.iter().any(|held| name.trim_end_matches("/Junk") == held);
            self.to = self.to.split(' ').filter(is_kept).collect::<Vec<_>>().join(" ");
        }
    }

    fn log_kept(&self, message_id: Option<&str>, took_ms: u128) {
        tracing::info!(
            trace = %self.trace, sender = self.sender, message_id, mailboxes = self.to, queued = self.queued,
            signer = self.signer, octets = self.octets, took_ms, "accepted"
        );
    }

    fn log_failed(&self, error: &PromiseError) -> Reply {
        tracing::error!(trace = %self.trace, sender = self.sender, mailboxes = self.to, %error, "not accepted");
        if error.is_full() { Reply::no_room() } else { Reply::local_error() }
    }
}

/// True for what its edge judged to belong there, now or when it first came.
fn is_junk(origin: &Origin) -> bool {
    match origin {
        Origin::World { verdict, .. } => verdict.junk.is_some(),
        Origin::Returned { is_junk, .. } => *is_junk,
        Origin::Account { .. } | Origin::Trusted { .. } | Origin::Bounce { .. } => false,
    }
}

#[cfg(test)]
mod tests;
