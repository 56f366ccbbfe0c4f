//! What comes from elsewhere, given to the part that serves it: sessions of edges, bounces, and reports of ours.

use bytes::Bytes;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::shutdown::Signal;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::Store;
use crate::accounts::Accounts;
use crate::accounts::neighbours::Taken;
use crate::database::DatabaseError;
use crate::edges::{Connected, ask};
use crate::message::{Body, Message};
use crate::queue::{Bounce, ConnectedEdge, Errand};
use crate::reporting::Letter;
use crate::router::spool::Fetcher;
use crate::router::streams::Server;
use crate::router::{Arrival, Origin, Router, Trusted};

/// Each new session gets its server, and its spool is fetched.
pub(super) async fn serve_edges(mut sessions: mpsc::Receiver<Connected>, server: Server, fetcher: Fetcher) {
    let mut signal = server.signal.clone();
    loop {
        let connected = tokio::select! {
            connected = sessions.recv() => connected,
            () = signal.draining() => return,
        };
        let Some(connected) = connected else { return };
        tokio::spawn(learn(server.accounts.clone(), connected.edge.clone(), server.clock.clone()));
        tokio::spawn(fetcher.clone().run(connected.edge.clone()));
        tokio::spawn(server.clone().serve(connected, fetcher.nudges.clone()));
    }
}

/// What an edge calls itself, and where it takes mail programs: what mail programs and other hosts are told follows from it.
async fn learn(accounts: Accounts, edge: ConnectedEdge, clock: Clock) {
    let told = |result: Result<Result<(), DatabaseError>, JoinError>, edge: &str| {
        if let Ok(Err(error)) = result {
            tracing::error!(edge, %error, "the directory can't be made anew");
        }
    };
    let (learning, met) = (accounts.clone(), edge.clone());
    let named = tokio::task::spawn_blocking(move || learning.met(&met.name, &met.session.facts().node));
    told(named.await, &edge.name);
    let Ok(status) = ask::ask_one(&edge, AdminRequest::Status, ask::ANSWER_MAX, &clock).await else { return };
    let Ok(status) = serde_json::from_str::<Value>(&status) else { return };
    let port = |door: &str| status[door].as_u64().and_then(|port| u16::try_from(port).ok());
    let taken = Taken { submissions: port("submissions_port"), imaps: port("imaps_port") };
    let name = edge.name.clone();
    let taken = tokio::task::spawn_blocking(move || accounts.takes(&name, taken));
    told(taken.await, &edge.name);
}

/// What we send by ourselves goes the way of all mail: bounces, and what domains are told of mail in their name.
pub(super) fn serve_ourselves(store: &Store, bounces: mpsc::Receiver<Bounce>, router: &Router, signal: &Signal) {
    tokio::spawn(deliver_bounces(bounces, router.clone(), signal.clone()));
    let (letters, written) = mpsc::channel(1);
    tokio::spawn(store.reporting.clone().run(store.resolver.clone(), letters, signal.clone()));
    tokio::spawn(send_reports(written, router.clone(), signal.clone()));
}

/// Bounces come out of the queue and go in again like any other message.
async fn deliver_bounces(mut bounces: mpsc::Receiver<Bounce>, router: Router, signal: Signal) {
    while let Some(bounce) = bounces.recv().await {
        let arrival = Arrival {
            origin: match bounce.errand {
                Errand::Report => Origin::Bounce { transfer: bounce.id },
                Errand::Stranded { is_junk } => Origin::Returned { transfer: bounce.id, stranded: true, is_junk },
                Errand::Reclaimed { is_junk } => Origin::Returned { transfer: bounce.id, stranded: false, is_junk },
            },
            trace: bounce.trace,
            envelope: bounce.envelope,
            message: bounce.message,
            received_unix_s: bounce.made_unix_s,
        };
        // Who asked may have stopped; the same bounce comes again then.
        let _ = bounce.accepted.send(router.accept(arrival).await);
    }
    drop(signal);
}

/// What domains are told of mail in their name goes out like mail of a program of this machine.
async fn send_reports(mut letters: mpsc::Receiver<Letter>, router: Router, signal: Signal) {
    while let Some(letter) = letters.recv().await {
        let arrival = Arrival {
            origin: Origin::Trusted { by: Trusted::Local, transfer: letter.id },
            trace: letter.trace,
            envelope: letter.envelope,
            message: Message { front: Bytes::new(), body: Body::from(letter.message) },
            received_unix_s: letter.made_unix_s,
        };
        // Who asked may have stopped; the same letter comes again then.
        let _ = letter.accepted.send(router.accept(arrival).await);
    }
    drop(signal);
}
