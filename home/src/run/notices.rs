//! What the postmaster is told by mail: that a certificate, here or at an edge, should long have been renewed. Beside the
//! alarms, which go elsewhere, and only to who named an elsewhere.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::hello::printable;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::alarm::Letter;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use serde_json::Value;
use tracing::{info, warn};

use super::Store;
use crate::accounts::Accounts;
use crate::config::Config;
use crate::edges::Edges;
use crate::message::{Body, Message};
use crate::router::{Arrival, Origin, Router, Trusted};

/// Looked for so often.
const LOOK_EVERY: Duration = Duration::from_mins(15);
/// The first look leaves edges the time to connect.
const LOOK_FIRST: Duration = Duration::from_secs(20);
/// The same thing is written once within so many seconds, also over restarts.
const AGAIN_S: i64 = 3 * 24 * 3600;
/// Characters of what an edge says that are passed on.
const SAID_MAX: usize = 1000;

/// Who writes to the postmaster.
pub(super) struct Notices {
    hostname: String,
    router: Router,
    accounts: Accounts,
    edges: Edges,
    certificate: Standing,
    clock: Clock,
}

impl Notices {
    pub(super) fn of(
        config: &Config,
        store: &Store,
        router: &Router,
        edges: &Edges,
        certificate: &Standing,
        clock: &Clock,
    ) -> Self {
        Self {
            hostname: config.hostname.clone(),
            router: router.clone(),
            accounts: store.accounts.clone(),
            edges: edges.clone(),
            certificate: certificate.clone(),
            clock: clock.clone(),
        }
    }

    /// Looks until draining begins.
    pub(super) fn start(self, signal: &Signal) {
        tokio::spawn(self.run(signal.clone()));
    }

    async fn run(self, mut signal: Signal) {
        let mut pause = LOOK_FIRST;
        loop {
            tokio::select! {
                () = self.clock.sleep(pause) => {}
                () = signal.draining() => return,
            }
            pause = LOOK_EVERY;
            if let Some(said) = self.certificate.overdue() {
                self.write("your home", &said).await;
            }
            for (edge, answer) in self.edges.ask(AdminRequest::Status, &self.clock).await {
                let told: Value = answer.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                if let Some(said) = told["certificate_overdue"].as_str() {
                    let said: String = printable(said).chars().take(SAID_MAX).collect();
                    self.write(&format!("edge {edge}"), &said).await;
                }
            }
        }
    }

    async fn write(&self, whose: &str, said: &str) {
        let now = self.clock.unix_s();
        let name = format!("certificate overdue\0{}\0{whose}\0{}", self.hostname, now.div_euclid(AGAIN_S));
        let mut transfer = [0; 16];
        transfer.copy_from_slice(&digest(&SHA256, name.as_bytes()).as_ref()[..16]);
        let to = self.accounts.settings().postmaster.clone();
        let letter = Letter {
            to: to.clone(),
            subject: format!("[gatepost] The certificate of {whose} is not renewed"),
            text: format!(
                "Of {whose}:\n\n{said}\n\ngatepost-home status shows how it stands. While it lasts you are told again in {} days.\n",
                AGAIN_S / (24 * 3600)
            ),
        };
        let message = letter.message(to.domain().as_str(), now, &random::bytes());
        let arrival = Arrival {
            origin: Origin::Trusted { by: Trusted::Local, transfer: TransferId(transfer) },
            trace: TraceId::from_random(random::bytes()),
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                recipients: vec![Recipient::plain(to.clone())],
                body: BodyKind::EightBit,
                smtputf8: to.needs_utf8(),
                ret: None,
                envid: None,
            },
            message: Message { front: Bytes::new(), body: Body::from(message) },
            received_unix_s: now,
        };
        let trace = arrival.trace;
        let reply = self.router.accept(arrival).await;
        if reply.is_positive() {
            info!(%trace, recipient = %to, about = whose, "the postmaster is told that a certificate is not renewed");
        } else {
            warn!(%trace, recipient = %to, about = whose, %reply, "the postmaster can't be told that a certificate is not renewed");
        }
    }
}
