//! Submission on the LAN: home:465, implicit TLS (RFC 8314 §3.3). What it takes goes to the router as
//! it came; completing it is the router's.

mod session;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, DurableError};
use gatepost_runtime::listen::{self, DoorLimits};
use gatepost_runtime::shutdown::Signal;
use tokio::net::TcpListener;

use crate::accounts::Accounts;
use crate::router::Router;

/// What the door needs.
pub struct Submission {
    /// Our name.
    pub hostname: String,
    /// Bounds of one session.
    pub limits: Limits,
    /// Bounds of the door.
    pub door: DoorLimits,
    /// Who may log in.
    pub accounts: Accounts,
    /// Who takes messages.
    pub router: Router,
    /// The certificate.
    pub served: Served,
    /// `incoming/` in the state directory, where large bodies lie, unlinked, while they arrive; made if missing.
    pub incoming: Arc<Path>,
    /// Time.
    pub clock: Clock,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submission")
    }
}

impl Submission {
    /// Serves the listener until draining begins. Sessions that are open then end at their next safe point;
    /// each holds a [`Signal`] until it has.
    pub async fn run(self: Arc<Self>, listener: TcpListener, signal: Signal) -> Result<(), DurableError> {
        durable::create_directory(&self.incoming)?;
        let limits = self.door;
        let sessions = signal.clone();
        let serve = move |admitted| session::serve(Arc::clone(&self), admitted, sessions.clone());
        // Before TLS there is nothing a client would read.
        listen::serve("submission", listener, limits, signal, b"", serve).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
