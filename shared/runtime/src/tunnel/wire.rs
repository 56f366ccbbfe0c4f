//! What stands between the multiplexer and TLS: gathers the multiplexer's many small writes (it
//! writes a frame's header and body apart, and flushes after each) and lets them leave together
//! when it has nothing more to say, which is when it turns to reading. Notes when bytes arrive.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;

/// Octets gathered before they must leave.
const GATHERED_OCTETS_MAX: usize = 64 * 1024;
/// Octets thrown away at once while waiting for the other side's end.
const DISCARD_OCTETS: usize = 4 * 1024;

/// When a connection was last heard of.
#[derive(Debug)]
pub(super) struct Life {
    clock: Clock,
    start: Instant,
    heard_ms: AtomicU64,
}

impl Life {
    pub(super) fn new(clock: Clock) -> Self {
        Self { start: clock.now(), clock, heard_ms: AtomicU64::new(0) }
    }

    /// When the last byte arrived (or the connection began).
    pub(super) fn heard(&self) -> Instant {
        self.start + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    fn hear(&self) {
        let since = self.clock.now().saturating_duration_since(self.start);
        self.heard_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A connection as the multiplexer sees it.
pub(super) struct Wire<IO> {
    io: IO,
    // Gathered; of these, `sent` octets have left already.
    gathered: Vec<u8>,
    sent: usize,
    unflushed: bool,
    shut: bool,
    life: Arc<Life>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(super) fn new(io: IO, life: Arc<Life>) -> Self {
        Self { io, gathered: Vec::new(), sent: 0, unflushed: false, shut: false, life }
    }

    /// Writes out everything gathered.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let octets = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.sent..]))?;
            if octets == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += octets;
            self.unflushed = true;
        }
        self.gathered.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> futures_util::io::AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Neither a blocked nor a broken writing side keeps us from reading: the waker is set, and what
        // still lies here may say why it broke.
        let drained = this.drain(cx);
        let mut into = ReadBuf::new(into);
        match (Pin::new(&mut this.io).poll_read(cx, &mut into), drained) {
            // A program that died did not end its TLS session in form. To us it is an end like any other:
            // what must be whole says so itself.
            (Poll::Ready(Err(error)), _) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
            (Poll::Ready(read), _) => read?,
            (Poll::Pending, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
            (Poll::Pending, _) => return Poll::Pending,
        }
        let octets = into.filled().len();
        if octets > 0 {
            this.life.hear();
        }
        Poll::Ready(Ok(octets))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> futures_util::io::AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() >= GATHERED_OCTETS_MAX {
            ready!(this.drain(cx))?;
        }
        let octets = from.len().min(GATHERED_OCTETS_MAX - this.gathered.len());
        this.gathered.extend_from_slice(&from[..octets]);
        Poll::Ready(Ok(octets))
    }

    /// Leaves the work to the next read: the multiplexer flushes after every frame.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends everything and our end, then reads until the other side's end: closing a socket with
    /// unread bytes would reset it, and take our last words with it. The caller bounds the time.
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(this.drain(cx))?;
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.shut = true;
        }
        loop {
            let mut discarded = [0; DISCARD_OCTETS];
            let mut into = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
