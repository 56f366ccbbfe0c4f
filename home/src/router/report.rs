//! Reports of the router's own to accounts: a submission that is not sent after all, and mailboxes here that have
//! what an account wanted to hear of (RFC 3461 §4.1). Strangers are never told: port 25 offers no DSN.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{Notify, Recipient, Ret};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::random;

use super::{Arrival, Destinations, Origin};
use crate::delivery::config::Keepers;
use crate::message::{Body, Message};
use crate::queue::QueueId;
use crate::queue::bounce::{self, Reporter};
use crate::queue::entry::{About, Addressee, Entry, Final, OpenBounce, State};

/// Header octets of a message that go back to its account.
const RETURNED_HEADER_OCTETS_MAX: usize = 64 * 1024;

/// The recipients whose delivery into a Maildir here the sender wants to hear of.
pub(super) fn wanted(arrival: &Arrival, destinations: &Destinations, keepers: &Keepers) -> Vec<Recipient> {
    if arrival.envelope.reverse_path == ReversePath::Null {
        return Vec::new();
    }
    let lies_here = |recipient: &&Recipient| {
        let mut copies = destinations.inbox.iter().filter(|copy| copy.recipient == recipient.address).peekable();
        copies.peek().is_some() && copies.all(|copy| keepers.of(&copy.mailbox).is_none())
    };
    let wishes = arrival.envelope.recipients.iter().filter(|recipient| recipient.notify.on_success());
    wishes.filter(lies_here).cloned().collect()
}

/// Names the report on a delivery, so that one made again for the same hand-over is known for a repeat.
pub(super) fn name(edge: Option<(NodeKey, TransferId)>) -> TransferId {
    let Some((edge, transfer)) = edge else { return TransferId(random::bytes()) };
    let mut name = Context::new(&SHA256);
    name.update(b"delivered");
    name.update(edge.as_bytes());
    name.update(&transfer.0);
    let mut id = TransferId([0; 16]);
    id.0.copy_from_slice(&name.finish().as_ref()[..16]);
    id
}

/// The report on these recipients of a message, as a message to `account`.
pub(super) fn report(
    account: Address,
    transfer: TransferId,
    subject: &Arrival,
    (about, recipients): (About, &[Recipient]),
    reply: Reply,
    reporter: Reporter<'_>,
    now_unix_s: i64,
) -> std::io::Result<Arrival> {
    let last = Final { reply, remote: None, at_unix_ms: now_unix_s.saturating_mul(1000) };
    let told = |recipient: &Recipient| Addressee {
        recipient: recipient.clone(),
        is_junk: false,
        state: match about {
            About::Delivery | About::Relay => State::Delivered { last: last.clone(), told: false },
            About::Failure | About::Delay => State::Failed { last: last.clone(), told: false },
        },
    };
    let entry = Entry {
        id: QueueId(transfer.0),
        trace: subject.trace,
        login: None,
        local: false,
        received_unix_ms: subject.received_unix_s.saturating_mul(1000),
        queued_unix_ms: now_unix_s.saturating_mul(1000),
        octets: subject.message.octets(),
        eight_bit: false,
        sha256: [0; 32],
        reverse_path: ReversePath::Address(account.clone()),
        body: subject.envelope.body,
        smtputf8: subject.envelope.smtputf8,
        ret: Some(Ret::Headers),
        envid: subject.envelope.envid.clone(),
        recipients: recipients.iter().map(told).collect(),
        attempts: Vec::new(),
        bounce: None,
        held: None,
        finished_unix_ms: None,
    };
    let open = OpenBounce {
        about,
        id: transfer,
        trace: subject.trace,
        made_unix_s: now_unix_s,
        recipients: (0..entry.recipients.len()).collect(),
        attempts: 0,
        next_unix_ms: 0,
    };
    let header = subject.message.header(RETURNED_HEADER_OCTETS_MAX)?;
    let text = bounce::report(&entry, &open, reporter, header.as_deref(), 0);
    let mut envelope = subject.envelope.clone();
    envelope.reverse_path = ReversePath::Null;
    envelope.recipients = vec![Recipient { address: account, notify: Notify::Never, orcpt: None }];
    Ok(Arrival {
        origin: Origin::Bounce { transfer },
        trace: subject.trace,
        envelope,
        message: Message { front: Bytes::new(), body: Body::from(text) },
        received_unix_s: now_unix_s,
    })
}
