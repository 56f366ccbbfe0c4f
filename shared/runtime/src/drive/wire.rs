//! The stream below a machine, in the clear or under TLS: one read a wake, one write a flush, no
//! buffer while nothing moves.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use gatepost_protocol::machine::TlsFacts;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::security::Session;
use super::socket::Socket;

/// Octets asked of one read.
const READ_OCTETS: usize = 32 * 1024;
/// A buffer for output is kept between flushes up to this capacity.
const KEPT_OCTETS_MAX: usize = 1024;
/// Octets thrown away at the end so that our last words are not lost to a reset.
const DISCARDED_OCTETS_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    stream: Socket,
    session: Option<Box<Session>>,
    /// What was read and not yet used: plain bytes, or TLS records before decryption.
    received: Vec<u8>,
    /// How much of `received` TLS has taken.
    taken: usize,
    /// How much of the output the stream has taken, without TLS.
    written: usize,
}

impl Wire {
    pub(super) fn new(stream: Socket) -> Self {
        Self { stream, session: None, received: Vec::new(), taken: 0, written: 0 }
    }

    /// Octets of memory that its buffers hold.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.received.capacity()
    }

    pub(super) fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// What is read and written from now on belongs to TLS. Input that came before was the machine's.
    pub(super) fn secure(&mut self, session: Session) {
        debug_assert!(self.received.is_empty() && self.written == 0, "nothing of the clear is left over");
        self.received = Vec::new();
        self.session = Some(Box::new(session));
    }

    /// Ready with true when [`Wire::input`] has bytes, with false when the peer has ended its side.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(session) = &mut self.session else {
            if self.received.is_empty() {
                ready!(poll_read(&mut self.stream, &mut self.received, cx))?;
            }
            return Poll::Ready(Ok(!self.received.is_empty()));
        };
        loop {
            if let Some(more) = session.has_plaintext() {
                return Poll::Ready(Ok(more));
            }
            if self.taken < self.received.len() {
                self.taken += session.take(&self.received[self.taken..], &mut self.stream, cx)?;
                continue;
            }
            self.received = Vec::new();
            self.taken = 0;
            if ready!(poll_read(&mut self.stream, &mut self.received, cx))? == 0 {
                session.end();
            }
        }
    }

    /// The bytes that [`Wire::poll_input`] found.
    pub(super) fn input(&mut self) -> &[u8] {
        match &mut self.session {
            None => &self.received,
            Some(session) => session.plaintext(),
        }
    }

    /// The bytes of [`Wire::input`] were used.
    pub(super) fn consume(&mut self) {
        match &mut self.session {
            None => self.received = Vec::new(),
            Some(session) => session.consume(),
        }
    }

    /// Writes `output` (which is empty when this is ready) and what TLS itself has to say.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Vec<u8>) -> Poll<io::Result<()>> {
        if let Some(session) = &mut self.session {
            if !output.is_empty() {
                session.encrypt(output)?;
                release(output);
            }
            return session.poll_flush(&mut self.stream, cx);
        }
        while self.written < output.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &output[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        release(output);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ready when the handshake is over. A server's tickets wait for its first words.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TlsFacts>> {
        let Some(session) = &mut self.session else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            // Asked on both sides of a flush: a server's last words are tickets, which wait, a
            // client's are part of the handshake.
            if let Some(facts) = session.facts() {
                return Poll::Ready(Ok(facts));
            }
            ready!(session.poll_flush(&mut self.stream, cx))?;
            if let Some(facts) = session.facts() {
                return Poll::Ready(Ok(facts));
            }
            if self.taken == self.received.len() {
                self.received = Vec::new();
                self.taken = 0;
                if ready!(poll_read(&mut self.stream, &mut self.received, cx))? == 0 {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")));
                }
            }
            self.taken += session.take(&self.received[self.taken..], &mut self.stream, cx)?;
        }
    }

    /// Queues the last output and the goodbye of TLS behind it, for one write.
    pub(super) fn say_goodbye(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.encrypt(output)?;
            release(output);
            session.say_goodbye();
        }
        Ok(())
    }

    /// Ends our side. If the peer has sent what nobody will read, the system would reset the
    /// connection when it is dropped and our last words might be lost: so it is read and thrown away.
    pub(super) fn finish(&mut self) {
        self.received = Vec::new();
        let Some(socket) = self.stream.descriptor() else {
            // All was flushed, so this only queues the end; what the client still sends the edge throws away.
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
            return;
        };
        // Best effort: a peer that is already gone needs no end.
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
        let mut rest = Vec::with_capacity(READ_OCTETS);
        let mut discarded = 0;
        while discarded < DISCARDED_OCTETS_MAX {
            rest.clear();
            // Past tokio, which may not have heard of these bytes; the stream never blocks.
            match rustix::io::read(socket, rustix::buffer::spare_capacity(&mut rest)) {
                Ok(count) if count > 0 => discarded += count,
                _ => break,
            }
        }
    }
}

/// Reads once. The buffer is allocated when the stream is readable, not before.
fn poll_read(stream: &mut Socket, buffer: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    ready!(stream.poll_read_ready(cx))?;
    buffer.reserve_exact(READ_OCTETS);
    let result = pin!(stream.read_buf(buffer)).poll(cx);
    if result.is_pending() {
        *buffer = Vec::new();
    }
    result
}

/// Empties a buffer, and gives it back if it is large.
fn release(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_OCTETS_MAX {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}
