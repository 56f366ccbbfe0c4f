//! 10025: the homes.

use std::sync::Arc;

use gatepost_runtime::listen::{self, Admitted, DoorLimits};
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Acceptor;
use tokio::net::TcpListener;

/// Each home has three connections, twice that while it replaces a session; the rest is room for
/// strangers, who are refused at once.
pub const LIMITS: DoorLimits = DoorLimits { connections_max: 200, connections_per_address_max: 50 };

/// Serves the tunnel's door until draining begins.
pub async fn serve(listener: TcpListener, acceptor: Acceptor, signal: Signal) {
    let acceptor = Arc::new(acceptor);
    let accept = move |admitted: Admitted| {
        let acceptor = acceptor.clone();
        async move {
            let Admitted { stream, peer, .. } = admitted;
            acceptor.accept(stream, peer).await;
        }
    };
    listen::serve("tunnel", listener, LIMITS, signal, b"", accept).await;
}
