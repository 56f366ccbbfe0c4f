//! Submission on the LAN: home:465.

use std::sync::Arc;

use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::listen::DoorLimits;
use gatepost_runtime::shutdown::Signal;
use tokio::net::TcpListener;

use crate::accounts::Accounts;
use crate::router::Router;

/// What the door needs. The state directory is where bodies over 256 KiB wait (`incoming/`, unlinked).
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
    /// `incoming/` in the state directory; made if missing.
    pub incoming: std::path::PathBuf,
    /// Time.
    pub clock: Clock,
}

impl Submission {
    /// Serves the listener until draining begins and every session has ended.
    pub async fn run(self: Arc<Self>, listener: TcpListener, signal: Signal) {
        let _ = (listener, signal);
        todo!()
    }
}
