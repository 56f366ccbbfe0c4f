//! 10025: the homes.

use std::sync::Arc;

use gatepost_runtime::listen::{self, Admitted, DoorLimits, Listening, Places, Refusal};
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Acceptor;

/// Of connections that are not part of a session yet, for a session's leave these counts once it is whole.
/// A home brings three, and may begin again before the first are given up; strangers may hold what they
/// take for the time of a handshake, so one address gets few and there are many.
pub const LIMITS: DoorLimits = DoorLimits { connections_max: 400, connections_per_address_max: 8 };

/// Serves the tunnel's door until draining begins.
pub async fn serve(listening: Listening, places: Places, acceptor: Arc<Acceptor>, signal: Signal) {
    let accept = move |admitted: Admitted| {
        let acceptor = acceptor.clone();
        async move {
            let Admitted { stream, peer, .. } = admitted;
            acceptor.accept(stream, peer).await;
        }
    };
    listen::serve("tunnel", listening, places, signal, Refusal::SILENT, accept).await;
}
