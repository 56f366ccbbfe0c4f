//! 993: a mail client's connection is carried to its home as it is. Who is banned is not let in.

use gatepost_runtime::listen::{self, Admitted, DoorLimits, Listening, Places, Refusal};
use gatepost_runtime::shutdown::Signal;

use super::mail::SessionCount;
use crate::config::EdgeLimits;
use crate::splice::Splicer;

/// Connections carried at once at most, over all homes: fewer than the streams one home's session may have open.
const CONNECTIONS_MAX: usize = 240;
/// At most from one address: some people behind one router, each with a telephone and a computer that opens several.
const PER_ADDRESS_MAX: usize = 60;

/// What of the door's limits counts here: never more than can be carried.
pub fn limits(limits: &EdgeLimits) -> DoorLimits {
    DoorLimits {
        connections_max: limits.connections_max.min(CONNECTIONS_MAX),
        connections_per_address_max: limits.connections_per_address_max.clamp(1, PER_ADDRESS_MAX),
    }
}

/// Serves 993 until draining begins; what is carried then is ended, for clients of IMAP come again by themselves.
pub async fn serve(listening: Listening, places: Places, splicer: Splicer, count: SessionCount, signal: Signal) {
    let ending = signal.clone();
    let accept = move |admitted: Admitted| {
        let (splicer, entered, mut ending) = (splicer.clone(), count.enter(), ending.clone());
        async move {
            // Before TLS there is nothing a client would read: who is turned away finds the connection closed.
            if !splicer.is_banned(admitted.peer.ip()) {
                tokio::select! {
                    () = splicer.carry(admitted) => {}
                    () = ending.draining() => {}
                }
            }
            drop(entered);
        }
    };
    listen::serve("imaps", listening, places, signal, Refusal::SILENT, accept).await;
}
