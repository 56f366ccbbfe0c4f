//! Accept loop: limits per address and in all, a short pause when descriptors run out. A
//! handshake is never awaited here: each connection gets a task of its own.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::shutdown::Signal;

/// Bounds of one door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub connections_per_address_max: usize,
}

/// A connection that was let in. Dropping it frees its place.
#[derive(Debug)]
pub struct Admitted {
    /// The stream.
    pub stream: TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    _todo: (),
}

/// Why one was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// The door is full.
    Full,
    /// Too many from this address.
    TooManyFromAddress,
}

/// Serves a door until draining begins. `serve` runs in its own task per connection; a panic there is
/// logged as our bug and hurts nobody else. `refusal` is written (best effort) to who is turned away.
pub async fn serve<F, Fut>(
    door: &'static str,
    listener: TcpListener,
    limits: DoorLimits,
    signal: Signal,
    refusal: &'static [u8],
    serve: F,
) where
    F: Fn(Admitted) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let _ = (door, listener, limits, signal, refusal, serve);
    todo!()
}
