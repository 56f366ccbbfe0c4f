//! What the owner is told by another road: an edge that stays away, a cap that was hit, mail that was given up.
//! Letters go out by the queue, like any mail; the webhook needs none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::hello;
use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::alarm::{Alarm, Alarms, Letter};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};
use tracing::error;

use super::Store;
use crate::accounts::caps::OverCap;
use crate::config::Config;
use crate::edges::Edges;
use crate::message::{Body, Message};
use crate::queue::downgrade::Downgrade;
use crate::queue::given_up::{GivenUp, Heir};
use crate::queue::{NewEntry, Queue, QueueId};

/// An edge that is away so long is worth a word…
const AWAY: Duration = Duration::from_hours(1);
/// …looked for so often.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Starts all that raises alarms and all that tells them.
pub(super) fn start(
    config: &Config,
    store: &Store,
    edges: &Edges,
    certificate: Standing,
    clock: &Clock,
    signal: &Signal,
) -> Alarms {
    let (alarms, letters) = Alarms::new("gatepost-home", &config.hostname, config.alarm.clone(), clock.clone());
    tokio::spawn(send_letters(letters, store.queue.clone(), config.postmaster.domain().to_string(), clock.clone()));
    tokio::spawn(watch_caps(store.accounts.caps().hits(), alarms.clone()));
    tokio::spawn(watch_queue(store.queue.given_up(), alarms.clone()));
    tokio::spawn(watch_downgrades(store.queue.downgrades(), alarms.clone()));
    tokio::spawn(watch_certificate(certificate, alarms.clone(), clock.clone(), signal.clone()));
    tokio::spawn(watch_edges(edges.clone(), alarms.clone(), clock.clone(), signal.clone()));
    alarms
}

/// Raises an alarm for each cap that is hit.
async fn watch_caps(mut hits: watch::Receiver<Option<OverCap>>, alarms: Alarms) {
    while hits.changed().await.is_ok() {
        let Some(over) = hits.borrow_and_update().clone() else { continue };
        alarms.raise(&Alarm {
            kind: "cap-hit",
            text: format!(
                "{} has written to {} recipients in {}, which is all it may. If that was not its owner, change its \
                 passwords (gatepost-home account password, app-password remove) and look at gatepost-home queue list; \
                 if it was, allow more: gatepost-home account cap.",
                over.login, over.limit, over.window
            ),
            about: over.login,
        });
    }
}

/// Raises an alarm for mail that was given up, by the domain it did not get to.
async fn watch_queue(mut given_up: broadcast::Receiver<GivenUp>, alarms: Alarms) {
    loop {
        match given_up.recv().await {
            Ok(one) => {
                if let Some(alarm) = expired(&one) {
                    alarms.raise(&alarm);
                }
            }
            // The log has told of them.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Raises an alarm for mail that goes to a domain less securely than is usual, or waits rather than to.
async fn watch_downgrades(mut downgrades: broadcast::Receiver<Downgrade>, alarms: Alarms) {
    loop {
        match downgrades.recv().await {
            Ok(one) => alarms.raise(&downgraded(&one)),
            // The log has told of them.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn downgraded(one: &Downgrade) -> Alarm {
    let (domain, usual) = (&one.domain, one.usual.words());
    let text = match one.had {
        Some(had) => format!(
            "Mail to {domain} has always gone with {usual}, and now went with {}. Somebody on the way may be reading it, or \
             its host has changed. To hold such mail back: hold_downgrades = true in [queue] of home.toml.",
            had.words()
        ),
        None => format!(
            "Mail to {domain} has always gone with {usual}, which is not to be had now: it waits. If its host has changed, \
             let it go with tls = {{ \"{domain}\" = \"none\" }} in [queue] of home.toml."
        ),
    };
    Alarm { kind: "tls-downgrade", about: domain.to_string(), text }
}

/// A report or an alarm that expires is none: its letter might expire as well, and so on for ever.
fn expired(one: &GivenUp) -> Option<Alarm> {
    if one.sender == ReversePath::Null && one.heir == Heir::Nobody {
        return None;
    }
    let heard = match one.heir {
        Heir::Sender => "Its sender is told.",
        Heir::Postmaster => "The postmaster gets it.",
        Heir::Nobody => "Its sender wished to hear nothing of that.",
    };
    Some(Alarm {
        kind: "queue-expired",
        about: one.recipient.domain().to_string(),
        text: format!(
            "A message from <{}> to <{}> could not be delivered in time: {}. {heard} gatepost-home trace {} tells its story, \
             gatepost-home queue list what else waits.",
            one.sender,
            one.recipient,
            hello::printable(&one.why),
            one.trace
        ),
    })
}

/// Raises an alarm for a certificate that should long have been renewed.
async fn watch_certificate(certificate: Standing, alarms: Alarms, clock: Clock, mut signal: Signal) {
    loop {
        alarms.hold("certificate-overdue", "certificate", certificate.overdue());
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

/// Raises an alarm for each edge that stays away.
async fn watch_edges(edges: Edges, alarms: Alarms, clock: Clock, mut signal: Signal) {
    let connected = edges.connected();
    let mut away: HashMap<String, Instant> = HashMap::new();
    loop {
        let up: Vec<String> = connected.borrow().iter().map(|edge| edge.name.clone()).collect();
        let names = edges.names();
        away.retain(|name, _| names.contains(name));
        for name in names {
            if up.contains(&name) {
                if away.remove(&name).is_some() {
                    alarms.clear("edge-away", &name);
                }
                continue;
            }
            let since = *away.entry(name.clone()).or_insert_with(|| clock.now());
            if clock.now().saturating_duration_since(since) >= AWAY {
                alarms.raise(&Alarm {
                    kind: "edge-away",
                    text: format!(
                        "The edge {name} can't be reached for an hour or more. Mail from the world waits there, or with its \
                         senders; gatepost-home status says why."
                    ),
                    about: name,
                });
            }
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = signal.draining() => return,
        }
    }
}

/// Sends letters by the queue, from nobody.
async fn send_letters(mut letters: mpsc::Receiver<Letter>, queue: Queue, from: String, clock: Clock) {
    while let Some(letter) = letters.recv().await {
        let (queue, now) = (queue.clone(), clock.unix_s());
        let message = letter.message(&from, now, &random::bytes());
        let entry = NewEntry {
            id: QueueId(random::bytes()),
            trace: TraceId::from_random(random::bytes()),
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                recipients: vec![Recipient { address: letter.to, notify: Notify::Never, orcpt: None }],
                body: BodyKind::EightBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            login: None,
            received_unix_s: now,
            held: None,
        };
        let message = Message { front: Bytes::new(), body: Body::from(message) };
        let queued = tokio::task::spawn_blocking(move || queue.prepare(entry, &message)?.commit()).await;
        match queued {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "an alarm could not be written"),
            Err(error) => error!(%error, "writing an alarm failed; this is a bug"),
        }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::address::Address;

    use super::*;

    #[test]
    fn an_alarm_that_expires_raises_none() {
        let address = Address::parse("owner@another.example").expect("valid");
        let one = |sender: &ReversePath, heir| GivenUp {
            trace: TraceId::from_random([1; 10]),
            sender: sender.clone(),
            recipient: address.clone(),
            why: "550 5.4.7 Given up\u{7}".to_owned(),
            heir,
        };
        assert_eq!(expired(&one(&ReversePath::Null, Heir::Nobody)), None);
        let alice = ReversePath::Address(Address::parse("alice@example.org").expect("valid"));
        for (sender, heir, says) in [
            (&alice, Heir::Sender, "Its sender is told."),
            (&alice, Heir::Nobody, "wished to hear nothing"),
            (&ReversePath::Null, Heir::Postmaster, "The postmaster gets it."),
        ] {
            let alarm = expired(&one(sender, heir)).expect("an alarm");
            assert_eq!((alarm.kind, alarm.about.as_str()), ("queue-expired", "another.example"));
            assert!(alarm.text.contains(says) && alarm.text.contains("Given up?."), "{}", alarm.text);
        }
    }
}
