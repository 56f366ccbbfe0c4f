//! The one adapter: pumps any machine over a stream, upgrades it to TLS, obeys deadlines and
//! back-pressure. The owner asks for the next event and answers on the machine. What the machine
//! says is collected and written at once before anything is awaited. It knows no protocol.
//!
//! An idle connection holds no buffer: input is allocated when bytes are there and freed when
//! they are used up.

mod security;
mod socket;
mod wire;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use gatepost_protocol::machine::{Machine, Output, TlsFacts};
use rustls_pki_types::ServerName;
use thiserror::Error;

use self::security::Session;
pub use self::socket::Socket;
use self::wire::Wire;
use crate::clock::Clock;

/// A TLS handshake may take this long.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(30);
/// A peer may take this long to take what we have to say, [`OUTPUT_OCTETS_MAX`] or one piece of the
/// machine's, whichever is more.
pub const WRITE_WAIT_MAX: Duration = Duration::from_mins(5);
/// Collected output beyond this is written before the machine is asked for more.
pub const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// How this connection becomes secure, when the machine asks for it (or from the first byte).
#[derive(Clone, Debug)]
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
    Broken(#[from] io::Error),
    /// TLS could not be had.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The handshake took too long.
    #[error("the TLS handshake took too long")]
    HandshakeTimeout,
}

/// A machine and the stream it speaks over. One owner, no lock.
pub struct Connection<M: Machine> {
    machine: M,
    /// An event met while flushing, for the next [`Connection::next`].
    event: Option<M::Event>,
    wire: Wire,
    security: Security,
    clock: Clock,
    timer: Option<Timer>,
    /// What the machine wants said, not yet given to TLS or the stream.
    output: Vec<u8>,
    /// Output must be gone by then; set while it is not.
    written_by: Option<Instant>,
    /// A handshake must be over by then; set while one runs.
    secured_by: Option<Instant>,
    /// The peer takes nothing any more. It may have said why, so what it sent is still read.
    mute: bool,
    /// The machine has said *wait* and nothing has changed it since: only now may input follow.
    drained: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The peer closed its sending side, and the machine knows.
    Ended,
    /// The machine wants the connection closed.
    Closing,
    Closed,
}

/// What the machine waits for: [`Output::Wait`].
#[derive(Clone, Copy)]
struct Wait {
    until: Option<Instant>,
    read: bool,
}

/// What ended a wait.
enum Woken {
    Input,
    End,
    Timer,
}

impl<M: Machine> std::fmt::Debug for Connection<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl<M: Machine> Connection<M> {
    /// Takes a connected stream over (and sets `TCP_NODELAY`). Nothing is read or written before [`Connection::next`].
    pub fn new(stream: impl Into<Socket>, machine: M, security: Security, clock: Clock) -> Self {
        let stream = stream.into();
        // Replies are whole when they are written; waiting for more would only delay them.
        stream.hurry();
        Self {
            machine,
            event: None,
            wire: Wire::new(stream),
            security,
            clock,
            timer: None,
            output: Vec::new(),
            written_by: None,
            secured_by: None,
            mute: false,
            drained: false,
            phase: Phase::Open,
        }
    }

    /// Makes the connection secure before the machine says a word (465, implicit TLS). Cancel-safe:
    /// called again, it goes on.
    pub async fn secure_first(&mut self) -> Result<(), DriveError> {
        let facts = self.handshake().await?;
        self.machine.secured(self.clock.now(), facts);
        Ok(())
    }

    /// The machine, to answer it. After any change the next [`Connection::next`] drains it.
    pub fn machine(&mut self) -> &mut M {
        self.drained = false;
        &mut self.machine
    }

    /// The machine, to look at it.
    pub fn view(&self) -> &M {
        &self.machine
    }

    /// The next event; `None` when the machine closed the connection (everything was flushed), and
    /// ever after an error. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<M::Event>, DriveError> {
        let result = self.go_on().await;
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result
    }

    /// Writes out what the machine wants sent now, without waiting for input. Used to put back-pressure
    /// on a body: give a chunk, then flush. Stops where [`Connection::next`] has something to tell.
    pub async fn flush(&mut self) -> Result<(), DriveError> {
        let result = self.drain().await;
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result.map(|_| ())
    }

    async fn go_on(&mut self) -> Result<Option<M::Event>, DriveError> {
        loop {
            let wait = self.drain().await?;
            if let Some(event) = self.event.take() {
                return Ok(Some(event));
            }
            match (self.phase, wait) {
                (Phase::Closed, _) => return Ok(None),
                (Phase::Closing, _) => self.close().await?,
                (_, Some(Wait { until, read })) => self.wait(until, read).await?,
                (_, None) => {
                    let facts = self.handshake().await?;
                    self.machine.secured(self.clock.now(), facts);
                }
            }
        }
    }

    /// Asks the machine until it waits, and writes what it says. None if it has to stop earlier: for
    /// an event, a handshake, or the end.
    async fn drain(&mut self) -> Result<Option<Wait>, DriveError> {
        let mut wait = None;
        while wait.is_none() && self.event.is_none() && self.secured_by.is_none() && self.is_open() {
            if self.output.len() >= OUTPUT_OCTETS_MAX {
                self.write_out().await?;
            }
            match self.machine.poll(self.clock.now()) {
                Output::Send(bytes) => self.output.extend_from_slice(&bytes),
                Output::Event(event) => self.event = Some(event),
                Output::Secure => self.begin_handshake(),
                Output::Close => self.phase = Phase::Closing,
                Output::Wait { until, read } => wait = Some(Wait { until, read }),
            }
        }
        self.drained = wait.is_some();
        // Before an event nothing is written: the answer to it often completes what is to be said.
        // Nor before the end, whose goodbye goes along.
        if self.event.is_none() && self.is_open() {
            self.write_out().await?;
        }
        Ok(wait)
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Ended)
    }

    /// Waits for input, its end or the moment, and tells the machine.
    async fn wait(&mut self, until: Option<Instant>, read: bool) -> Result<(), DriveError> {
        if read && self.phase == Phase::Ended {
            // Nothing can come any more, and the machine has heard so.
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let woken = poll_fn(|cx| {
            if read {
                match self.wire.poll_input(cx) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(Woken::Input)),
                    Poll::Ready(Ok(false)) => return Poll::Ready(Ok(Woken::End)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            match until {
                Some(until) => self.poll_timer(cx, until).map(|()| Ok(Woken::Timer)),
                None => Poll::Pending,
            }
        })
        .await?;
        debug_assert!(self.drained, "a machine is polled until it waits before anything else changes it");
        self.drained = false;
        let now = self.clock.now();
        match woken {
            Woken::Input => {
                self.machine.bytes(now, self.wire.input());
                self.wire.consume();
            }
            Woken::End => {
                self.phase = Phase::Ended;
                self.machine.end(now);
            }
            Woken::Timer => self.machine.deadline(now),
        }
        Ok(())
    }

    /// Flushes, says goodbye in TLS, closes.
    async fn close(&mut self) -> Result<(), DriveError> {
        self.wire.say_goodbye(&mut self.output)?;
        self.write_out().await?;
        self.wire.finish();
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Writes everything collected, within [`WRITE_WAIT_MAX`].
    async fn write_out(&mut self) -> Result<(), DriveError> {
        poll_fn(|cx| self.poll_write_out(cx)).await?;
        Ok(())
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.mute {
            self.output = Vec::new();
            return Poll::Ready(Ok(()));
        }
        let Poll::Ready(result) = self.wire.poll_write(cx, &mut self.output) else {
            let by = *self.written_by.get_or_insert_with(|| self.clock.now() + WRITE_WAIT_MAX);
            ready!(self.poll_timer(cx, by));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side takes nothing we say")));
        };
        self.written_by = None;
        match result {
            // What came before the hanging up is still heard; reading then finds the end, or the
            // same error.
            Err(error)
                if self.secured_by.is_none()
                    && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.mute = true;
                self.output = Vec::new();
                Poll::Ready(Ok(()))
            }
            result => Poll::Ready(result),
        }
    }

    fn begin_handshake(&mut self) {
        self.secured_by.get_or_insert_with(|| self.clock.now() + HANDSHAKE_WAIT_MAX);
    }

    /// Runs the handshake, or what is left of it.
    async fn handshake(&mut self) -> Result<TlsFacts, DriveError> {
        self.begin_handshake();
        self.drained = false;
        // What was said in the clear (220 to STARTTLS) goes before.
        self.write_out().await?;
        if !self.wire.is_secure() {
            let session = Session::begin(&self.security).map_err(DriveError::Handshake)?;
            self.wire.secure(session);
        }
        let facts = poll_fn(|cx| {
            if let Poll::Ready(result) = self.wire.poll_handshake(cx) {
                return Poll::Ready(result.map_err(DriveError::Handshake));
            }
            let by = self.secured_by.unwrap_or_else(|| self.clock.now());
            self.poll_timer(cx, by).map(|()| Err(DriveError::HandshakeTimeout))
        })
        .await?;
        self.secured_by = None;
        Ok(facts)
    }

    /// Ready when the clock has come to `until`. One timer serves all: it is set anew only when an
    /// earlier moment is wanted or it rings too early, so that a busy connection seldom touches it.
    fn poll_timer(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        loop {
            let timer = match &mut self.timer {
                Some(timer) if timer.at <= until => timer,
                _ => {
                    let clock = self.clock.clone();
                    let sleep = Box::pin(async move { clock.sleep_until(until).await });
                    self.timer.insert(Timer { at: until, sleep })
                }
            };
            ready!(timer.sleep.as_mut().poll(cx));
            self.timer = None;
            if self.clock.now() >= until {
                return Poll::Ready(());
            }
        }
    }
}

struct Timer {
    at: Instant,
    sleep: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

#[cfg(test)]
mod tests;
