//! A message through the tunnel to a home that is connected, with a limit on every wait. Any
//! trouble makes it [`Lost`]; whoever owns the message then seals it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::transfer::TransferEnd;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::inbound::Handed;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::tunnel::{Session, Stream, StreamError};

/// The way to the home.
pub struct Through {
    state: State,
    wait_max: Duration,
    clock: Clock,
}

enum State {
    /// Connected; nothing was sent yet, so that a small message goes out as one write.
    Untried(Session),
    /// Under way.
    Open(Stream),
    /// Not (any more).
    Gone(Lost),
}

/// Why a message did not get through.
#[derive(Clone, Debug)]
pub enum Lost {
    /// The home is not connected.
    Away,
    /// It read nothing, or answered nothing, for too long.
    Silent,
    /// The stream broke.
    Broken(StreamError),
}

impl Through {
    /// The way as it is now.
    pub fn new(session: Option<Session>, wait_max: Duration, clock: Clock) -> Self {
        Self { state: session.map_or(State::Gone(Lost::Away), State::Untried), wait_max, clock }
    }

    /// True if nothing gets through any more.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone(_))
    }

    /// Sends a chunk; waits while the home is slow. `request` goes ahead of the first.
    pub async fn data(&mut self, request: impl FnOnce() -> Request, chunk: Bytes) {
        let (clock, wait_max) = (self.clock.clone(), self.wait_max);
        let sent = clock.timeout(wait_max, async {
            let stream = self.stream(request).await?;
            stream.send_data(chunk).await.map_err(Lost::Broken)?;
            stream.flush().await.map_err(Lost::Broken)
        });
        if let Err(lost) = sent.await.unwrap_or(Err(Lost::Silent)) {
            self.state = State::Gone(lost);
        }
    }

    /// Sends the last bytes and the end by one flush, and waits for the home's reply.
    pub async fn end(
        &mut self,
        request: impl FnOnce() -> Request,
        rest: Bytes,
        end: &TransferEnd,
    ) -> Result<Reply, Lost> {
        let (clock, wait_max) = (self.clock.clone(), self.wait_max);
        let answered = clock.timeout(wait_max, async {
            let stream = self.stream(request).await?;
            if !rest.is_empty() {
                stream.send_data(rest).await.map_err(Lost::Broken)?;
            }
            stream.send(end).await.map_err(Lost::Broken)?;
            stream.end_sending().await.map_err(Lost::Broken)?;
            let handed: Handed = stream.record().await.map_err(Lost::Broken)?;
            Ok(Reply::from(handed.reply))
        });
        let answered = answered.await.unwrap_or(Err(Lost::Silent));
        match std::mem::replace(&mut self.state, State::Gone(Lost::Away)) {
            State::Open(stream) if answered.is_ok() => stream.finish().await,
            // Dropped, a stream is reset: the home stops working for nobody, or finds out that nobody waits.
            _ => {}
        }
        answered
    }

    async fn stream(&mut self, request: impl FnOnce() -> Request) -> Result<&mut Stream, Lost> {
        if let State::Untried(session) = &self.state {
            self.state = State::Open(session.open(&request()).await.map_err(Lost::Broken)?);
        }
        match &mut self.state {
            State::Open(stream) => Ok(stream),
            State::Gone(lost) => Err(lost.clone()),
            State::Untried(_) => unreachable!("opened just now"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("the home is away"),
            Self::Silent => f.write_str("the home is silent"),
            Self::Broken(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Untried(_) => "Untried",
            State::Open(_) => "Open",
            State::Gone(_) => "Gone",
        })
    }
}
