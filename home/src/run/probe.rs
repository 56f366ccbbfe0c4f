//! Sends a probe for `doctor --mail`, by the way all mail goes, and hands over what comes back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_runtime::clock::mail_date;
use gatepost_runtime::random;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control::Desk;
use super::records;
use crate::accounts::addresses::Leads;
use crate::doctor::probe::Probe;
use crate::message::{Body, Message};
use crate::router::{Arrival, Origin, Trusted};

/// The key under which a request travels.
pub const KEY: &str = "probe";
/// Answers are waited for so long at most.
pub const WAIT_MAX: Duration = Duration::from_hours(1);
/// One look waits so long at most.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Send one; the answer is a [`Probe`].
    Send {
        /// To whom.
        to: String,
        /// From an address here; from the postmaster if none is named.
        from: Option<String>,
        /// So long answers to it are kept, in seconds.
        wait_s: u64,
    },
    /// What has come beyond the first `seen` messages, in base64, or nothing within this time.
    Look {
        /// Of which.
        token: String,
        /// How many are known.
        seen: usize,
        /// So long, in milliseconds.
        wait_ms: u64,
    },
    /// Nobody waits for it any more.
    End {
        /// Which.
        token: String,
    },
}

impl Desk {
    pub(super) async fn probe(&self, request: Request) -> Result<Value, String> {
        let awaited = self.router.awaited();
        match request {
            Request::Send { to, from, wait_s } => {
                let probe = self.send_probe(&to, from.as_deref(), Duration::from_secs(wait_s).min(WAIT_MAX)).await?;
                serde_json::to_value(probe).map_err(|error| error.to_string())
            }
            Request::Look { token, seen, wait_ms } => {
                let wait = Duration::from_millis(wait_ms).min(LOOK_WAIT_MAX);
                let found = awaited.look(&token, seen, wait, &self.clock).await;
                let found = found.ok_or("nobody waits for answers to this probe any more")?;
                Ok(json!({ "answers": found.iter().map(|message| STANDARD.encode(message)).collect::<Vec<_>>() }))
            }
            Request::End { token } => {
                awaited.end(&token);
                Ok(Value::Null)
            }
        }
    }

    async fn send_probe(&self, to: &str, from: Option<&str>, wait: Duration) -> Result<Probe, String> {
        let accounts = &self.store.accounts;
        let read = |text: &str| Address::parse(text).map_err(|error| format!("{text:?} is no address: {error}"));
        let to = read(to)?;
        let from = from.map_or_else(|| Ok(accounts.settings().postmaster.clone()), read)?;
        if !matches!(accounts.lead(&to), Leads::Remote) {
            return Err(format!("{to} is in a domain of this home: what the world makes of a probe is seen elsewhere"));
        }
        if !matches!(accounts.lead(&from), Leads::Here(_)) {
            return Err(format!("{from} is no address of this home: no answer would come here"));
        }
        // Nobody can guess it.
        let token = format!("{:032x}", u128::from_be_bytes(random::bytes()));
        let trace = TraceId::from_random(random::bytes());
        let now = self.clock.now();
        self.router.awaited().begin(&token, &from, now + wait, now).map_err(|error| error.to_string())?;
        let arrival = Arrival {
            // Like a letter of a program on this machine: signed, queued, relayed.
            origin: Origin::Trusted { by: Trusted::Local, transfer: TransferId(random::bytes()) },
            trace,
            envelope: Envelope {
                reverse_path: ReversePath::Address(from.clone()),
                recipients: vec![Recipient::plain(to.clone())],
                body: BodyKind::SevenBit,
                smtputf8: from.needs_utf8() || to.needs_utf8(),
                ret: None,
                envid: None,
            },
            message: Message { front: Bytes::new(), body: Body::from(self.letter(&from, &to, &token).into_bytes()) },
            received_unix_s: self.clock.unix_s(),
        };
        tracing::info!(%trace, sender = %from, recipient = %to, "a probe of the doctor");
        let reply = self.router.accept(arrival).await;
        if !reply.is_positive() {
            self.router.awaited().end(&token);
            return Err(format!("the probe was not taken: {reply}"));
        }
        Ok(Probe {
            token,
            from: from.to_string(),
            to: to.to_string(),
            trace: trace.to_string(),
            ours: self.ours().await,
        })
    }

    /// Names under which hosts of ours write what they found.
    async fn ours(&self) -> Vec<String> {
        let told = self.edges.ask(AdminRequest::Status, &self.clock).await;
        let known = self.records(&records::Request { domain: None, tested: false }, &told).await;
        let edges = known.map(|known| known.edges).unwrap_or_default();
        let mut ours: Vec<String> =
            edges.into_iter().filter_map(|edge| edge.host).map(|host| host.to_string()).collect();
        ours.push(self.hostname.to_lowercase());
        ours
    }

    fn letter(&self, from: &Address, to: &Address, token: &str) -> String {
        let domain = from.domain();
        format!(
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: How does mail from {domain} arrive? ({token})\r\nDate: {}\r\n\
             Message-ID: <probe.{token}@{domain}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             The mail server of {domain} sent this to see how its mail arrives with you,\r\nand reads the answer.\r\n\r\n\
             Number of this probe: {token}\r\n",
            mail_date(self.clock.unix_s())
        )
    }
}
