//! The doors: each is opened here and hands its connections on. A handshake is never awaited in an
//! accept loop.

pub mod mail;
pub mod tunnel;

use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;

/// A door that could not be opened.
#[derive(Debug, Error)]
#[error("can't listen on {address} for {door}: {source}")]
pub struct DoorError {
    /// `smtp`, `submissions`, `tunnel`.
    pub door: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// The system's words.
    pub source: std::io::Error,
}

/// Opens a door; gives the address it really has (port 0 gets a free one).
pub async fn open(door: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), DoorError> {
    let failed = |source| DoorError { door, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok((listener, real))
}
