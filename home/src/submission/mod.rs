//! Submission on the LAN: home:465, implicit TLS (RFC 8314 §3.3), for who logs in; and home:25 for devices of
//! trusted networks, which can't. What they take goes to the router as it came; completing it is the
//! router's.

pub mod networks;
mod session;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::listen::{self, Listening, Places, Refusal};
use gatepost_runtime::pace::Pace;
use gatepost_runtime::shutdown::Signal;

use self::networks::Networks;
use crate::accounts::Accounts;
use crate::router::Router;

/// What a client of 25 hears when the door is full, or shut for good.
static FULL: LazyLock<Vec<u8>> = LazyLock::new(|| Reply::too_many_connections().wire());
static ENDING: LazyLock<Vec<u8>> = LazyLock::new(|| Reply::shutting_down().wire());

/// What sessions need.
#[derive(Clone)]
pub struct Submission {
    /// Our name.
    pub hostname: String,
    /// Bounds of one session.
    pub limits: Limits,
    /// Who may log in.
    pub accounts: Accounts,
    /// Who takes messages.
    pub router: Router,
    /// The certificate.
    pub served: Served,
    /// Who may come in, and send without a login; `None` at the door where everybody logs in.
    pub trust: Option<Trust>,
    /// `incoming/` in the state directory, where large bodies lie, unlinked, while they arrive.
    pub incoming: Arc<Path>,
    /// Time.
    pub clock: Clock,
}

/// Trust in where a client is, not in who it is.
#[derive(Clone, Debug)]
pub struct Trust {
    /// For whom the door is; others hear 554 and are gone.
    pub networks: Networks,
    /// How much each of them may send.
    pub pace: Arc<Pace>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submission")
    }
}

impl Submission {
    /// Serves a listener until it is shut or draining begins. Sessions that are open then end at their next safe point;
    /// each holds a [`Signal`] until it has. `current` is what sessions to come work with.
    pub async fn run(current: Arc<ArcSwap<Self>>, listening: Listening, places: Places, signal: Signal) {
        let trusting = current.load().trust.is_some();
        let sessions = signal.clone();
        let serve = move |admitted| session::serve(current.load_full(), admitted, sessions.clone());
        // Before TLS there is nothing a client of 465 would read.
        let (name, refusal) = if trusting {
            ("relay", Refusal { full: FULL.as_slice(), ending: ENDING.as_slice() })
        } else {
            ("submission", Refusal::SILENT)
        };
        listen::serve(name, listening, places, signal, refusal, serve).await;
    }
}

#[cfg(test)]
mod tests;
