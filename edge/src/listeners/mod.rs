//! The doors: each hands its connections on. A handshake is never awaited in an accept loop.

pub mod mail;
pub mod tunnel;

use std::net::SocketAddr;

use gatepost_runtime::listen;
use tokio::net::TcpListener;

/// Opens a door; gives the address it really has (port 0 gets a free one).
pub fn open(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = listen::bind(address)?;
    let real = listener.local_addr()?;
    Ok((listener, real))
}
