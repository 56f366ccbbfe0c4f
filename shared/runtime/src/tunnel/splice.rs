//! Opaque bytes over one exchange: at the edge between a client's socket and the stream ([`carry`]), at home as the
//! stream a connection is driven over ([`Spliced`]). While nothing moves, neither side holds a buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use gatepost_protocol::tunnel::frame::{DATA_OCTETS_MAX, Frame};
use gatepost_protocol::tunnel::verb::splice::SpliceNote;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Stream, StreamError};
use crate::clock::Clock;

/// Octets read from a client at once.
const PIECE_OCTETS: usize = 16 * 1024;
/// A note is a few octets; a record that claims more is none.
const NOTE_OCTETS_MAX: usize = 64;

/// How the carrying of a client's bytes came to its end.
#[derive(Debug)]
pub enum Carried {
    /// The home ended the connection, and the client has heard all of it.
    ByHome,
    /// Whoever listens to the home's notes wants it ended.
    Stopped,
    /// Nothing moved for too long.
    Idle,
    /// The client's connection broke.
    Client(io::Error),
    /// The tunnel, or the exchange.
    Tunnel(StreamError),
}

/// Carries bytes both ways between a client and the home until either ends, or nothing moves for `idle_max` (to twice
/// that). `first` is what was read from the client already. `noted` hears what the home says of the client; once it
/// answers false the connection is over.
pub async fn carry(
    client: TcpStream,
    mut exchange: Stream,
    first: &[u8],
    idle_max: Duration,
    clock: &Clock,
    noted: impl FnMut(SpliceNote) -> bool,
) -> Carried {
    // What arrives is whole records of TLS; waiting for more would only delay them.
    let _ = client.set_nodelay(true);
    if !first.is_empty() {
        exchange.queue_data(first);
    }
    let mut carrier =
        Carrier { client, exchange, down: Bytes::new(), up_ended: false, down_ended: false, moved: false, noted };
    loop {
        carrier.moved = false;
        match clock.timeout(idle_max, poll_fn(|cx| carrier.poll(cx))).await {
            Some(end) => return end,
            None if carrier.moved => {}
            None => return Carried::Idle,
        }
    }
}

struct Carrier<F> {
    client: TcpStream,
    exchange: Stream,
    /// From the home, not taken by the client yet.
    down: Bytes,
    up_ended: bool,
    down_ended: bool,
    moved: bool,
    noted: F,
}

impl<F: FnMut(SpliceNote) -> bool> Carrier<F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Carried> {
        loop {
            match (self.poll_up(cx), self.poll_down(cx)) {
                (Poll::Ready(Err(over)), _) | (_, Poll::Ready(Err(over))) => return Poll::Ready(over),
                (Poll::Pending, Poll::Pending) => {
                    self.exchange.rest();
                    return Poll::Pending;
                }
                _ => self.moved = true,
            }
        }
    }

    /// Ready when something went up: the client is read only when the home has room.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Carried>> {
        if self.up_ended {
            ready!(self.exchange.poll_end_sending(cx)).map_err(Carried::Tunnel)?;
            // Nothing more goes up; the wait is for what comes down.
            return Poll::Pending;
        }
        ready!(self.exchange.poll_flush(cx)).map_err(Carried::Tunnel)?;
        ready!(self.client.poll_read_ready(cx)).map_err(Carried::Client)?;
        let mut piece = [0; PIECE_OCTETS];
        match self.client.try_read(&mut piece) {
            Ok(0) => self.up_ended = true,
            Ok(count) => self.exchange.queue_data(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(Carried::Client(error))),
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when something came down: a frame is read only when the client has taken the one before.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Carried>> {
        if !self.down.is_empty() {
            let count = ready!(Pin::new(&mut self.client).poll_write(cx, &self.down)).map_err(Carried::Client)?;
            self.down.advance(count);
            return Poll::Ready(Ok(()));
        }
        if self.down_ended {
            ready!(Pin::new(&mut self.client).poll_shutdown(cx)).map_err(Carried::Client)?;
            return Poll::Ready(Err(Carried::ByHome));
        }
        match ready!(self.exchange.poll_frame(cx, NOTE_OCTETS_MAX)) {
            Ok(Frame::Data(data)) => self.down = data,
            Ok(note @ Frame::Record(_)) => match note.record() {
                Ok(note) if (self.noted)(note) => {}
                Ok(_) => return Poll::Ready(Err(Carried::Stopped)),
                Err(error) => return Poll::Ready(Err(Carried::Tunnel(error.into()))),
            },
            Err(StreamError::Ended) => self.down_ended = true,
            Err(error) => return Poll::Ready(Err(Carried::Tunnel(error))),
        }
        Poll::Ready(Ok(()))
    }
}

/// What the home has to say of a client; it leaves in front of whatever is written to the client next.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<AtomicU32>);

impl Notes {
    /// The client's login was wrong.
    pub fn wrong_login(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One of those that wait.
    fn take(&self) -> Option<SpliceNote> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| waiting.checked_sub(1));
        taken.ok().map(|_| SpliceNote::WrongLogin)
    }
}

/// A client's bytes at home: what it sent is read, what is written it gets.
#[derive(Debug)]
pub struct Spliced {
    exchange: Stream,
    arrived: Bytes,
    ended: bool,
    notes: Notes,
}

impl Spliced {
    /// Takes an exchange over, and tells the edge so with the next flush.
    pub async fn take(mut exchange: Stream) -> Result<Self, StreamError> {
        exchange.send(&SpliceNote::Taken).await?;
        exchange.flush().await?;
        Ok(Self { exchange, arrived: Bytes::new(), ended: false, notes: Notes::default() })
    }

    /// For what is to be said of the client.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Ready when there are bytes, or there will never be more.
    pub(crate) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.arrived.is_empty() && !self.ended {
            let frame = match self.exchange.poll_frame(cx, NOTE_OCTETS_MAX) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    self.exchange.rest();
                    return Poll::Pending;
                }
            };
            match frame {
                Ok(Frame::Data(data)) => self.arrived = data,
                Ok(Frame::Record(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Err(StreamError::Ended) => self.ended = true,
                Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Spliced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let spliced = self.get_mut();
        ready!(spliced.poll_read_ready(cx))?;
        let count = spliced.arrived.len().min(buffer.remaining());
        buffer.put_slice(&spliced.arrived[..count]);
        spliced.arrived.advance(count);
        if spliced.arrived.is_empty() {
            spliced.arrived = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Spliced {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let spliced = self.get_mut();
        ready!(spliced.exchange.poll_flush(cx)).map_err(broken)?;
        while let Some(note) = spliced.notes.take() {
            spliced.exchange.queue(&note, NOTE_OCTETS_MAX).map_err(broken)?;
        }
        // It leaves with the next flush, together with what else is written until then.
        let piece = &bytes[..bytes.len().min(DATA_OCTETS_MAX)];
        spliced.exchange.queue_data(piece);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().exchange.poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().exchange.poll_end_sending(cx).map_err(broken)
    }
}

fn broken(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
