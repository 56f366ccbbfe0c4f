//! The one adapter: pumps any machine over a TCP stream, upgrades it to TLS, obeys deadlines and
//! back-pressure. The owner asks for the next event and answers on the machine.

use std::sync::Arc;

use gatepost_protocol::machine::Machine;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;

use crate::clock::Clock;

/// How this connection becomes secure, when the machine asks for it (or from the first byte).
#[derive(Clone)]
pub enum Security {
    /// Never.
    None,
    /// As a TLS server.
    Server(Arc<rustls::ServerConfig>),
    /// As a TLS client that asks for this name.
    Client(Arc<rustls::ClientConfig>, ServerName<'static>),
}

/// Why a connection ended other than by the machine's own wish.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The network.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    /// TLS could not be had.
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    /// The handshake took too long.
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
}

/// A machine and the stream it speaks over. One owner, no lock.
pub struct Connection<M> {
    machine: M,
    _todo: (),
}

impl<M: Machine> Connection<M> {
    /// Takes a connected stream over (and sets TCP_NODELAY). Nothing is read or written before [`Connection::next`].
    pub fn new(stream: TcpStream, machine: M, security: Security, clock: Clock) -> Self {
        let _ = (stream, security, clock);
        let _ = machine;
        todo!()
    }

    /// Makes the connection secure before the machine says a word (465, implicit TLS).
    pub async fn secure_first(&mut self) -> Result<(), DriveError> {
        todo!()
    }

    /// The machine, to answer it. After any change the next [`Connection::next`] drains it.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The next event; `None` when the machine closed the connection (everything was flushed).
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<M::Event>, DriveError> {
        todo!()
    }

    /// Writes out what the machine wants sent now, without waiting for input. Used to put back-pressure
    /// on a body: give a chunk, then flush.
    pub async fn flush(&mut self) -> Result<(), DriveError> {
        todo!()
    }
}
