//! What the owner is told by another road: an edge that stays away, a cap that was hit. Letters go out by
//! the queue, like any mail; the webhook needs none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_runtime::alarm::{Alarm, Alarms, Letter};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use tokio::sync::{mpsc, watch};
use tracing::error;

use super::Store;
use crate::accounts::caps::OverCap;
use crate::config::Config;
use crate::edges::Edges;
use crate::message::{Body, Message};
use crate::queue::{NewEntry, Queue, QueueId};

/// An edge that is away so long is worth a word…
const AWAY: Duration = Duration::from_hours(1);
/// …looked for so often.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Starts all that raises alarms and all that tells them.
pub(super) fn start(config: &Config, store: &Store, edges: &Edges, clock: &Clock, signal: &Signal) -> Alarms {
    let (alarms, letters) = Alarms::new("gatepost-home", &config.hostname, config.alarm.clone(), clock.clone());
    tokio::spawn(send_letters(letters, store.queue.clone(), config.postmaster.domain().to_string(), clock.clone()));
    tokio::spawn(watch_caps(store.accounts.caps().hits(), alarms.clone()));
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
