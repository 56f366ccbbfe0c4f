//! The heartbeat of one connection: one stream, opened by the dialling side, beats both ways on it.
//! Also the way of a session's last word.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::tunnel::frame::FrameError;
use gatepost_protocol::tunnel::heartbeat::{Beat, Due, Pulse, SILENCE_MAX};
use gatepost_protocol::tunnel::verb::Request;
use tokio::sync::oneshot;

use super::connection::Link;
use super::wire::Life;
use super::{Stream, StreamError, TunnelError};
use crate::clock::Clock;

/// Time to hand our last word to the multiplexer.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// Where the heartbeat's stream comes from.
pub(super) enum Source {
    /// We open it.
    Ours,
    /// The other side does.
    Theirs(oneshot::Receiver<Stream>),
}

/// Why a pulse stopped.
pub(super) enum Stopped {
    /// It found out that the session is over, and why.
    Over(TunnelError),
    /// Its stream broke; the connection's own task may know why.
    Broken,
    /// It was told that the session is over, and has said goodbye.
    Told,
}

/// Beats until the session ends.
pub(super) async fn beat(link: Arc<Link>, life: Arc<Life>, source: Source, clock: Clock) -> Stopped {
    let mut stream = match open_unless_over(&link, source, &clock).await {
        Ok(stream) => stream,
        Err(stopped) => return stopped,
    };
    let mut pulse = Pulse::new(clock.now());
    loop {
        match step(&link, &life, &mut stream, &mut pulse, &clock).await {
            Ok(()) => {}
            Err(Stopped::Broken) => return last_word(&mut stream).await,
            Err(stopped) => return stopped,
        }
    }
}

async fn open_unless_over(link: &Link, source: Source, clock: &Clock) -> Result<Stream, Stopped> {
    let mut opened = std::pin::pin!(open(link, source, clock));
    tokio::select! {
        biased;
        opened = &mut opened => opened,
        // Over so soon: the other side's stream for the goodbye may just be on its way.
        _ = link.end().wait() => clock.timeout(GOODBYE_DEADLINE, opened).await.unwrap_or(Err(Stopped::Told)),
    }
}

async fn open(link: &Link, source: Source, clock: &Clock) -> Result<Stream, Stopped> {
    match source {
        Source::Ours => link.open(&Request::Heartbeat).await.map_err(|_| Stopped::Broken),
        Source::Theirs(arrives) => match clock.timeout(SILENCE_MAX, arrives).await {
            Some(stream) => stream.map_err(|_| Stopped::Broken),
            None => Err(Stopped::Over(TunnelError::Silent)),
        },
    }
}

/// Does what is due, or waits for what comes first.
async fn step(link: &Link, life: &Life, stream: &mut Stream, pulse: &mut Pulse, clock: &Clock) -> Result<(), Stopped> {
    pulse.heard(life.heard());
    let until = match pulse.due(clock.now()) {
        Due::Dead => return Err(Stopped::Over(TunnelError::Silent)),
        Due::Ping(number) => return send(stream, &Beat::Ping(number), clock).await,
        Due::Wait(until) => until,
    };
    tokio::select! {
        biased;
        beat = stream.record::<Beat>() => match beat {
            Ok(Beat::Ping(number)) => send(stream, &Beat::Pong(number), clock).await,
            Ok(Beat::Pong(number)) => {
                pulse.pong(clock.now(), number);
                if let Some(round_trip) = pulse.round_trip() {
                    link.set_round_trip(round_trip);
                }
                Ok(())
            }
            Ok(Beat::Goodbye(refusal)) => Err(Stopped::Over(TunnelError::Refused(refusal))),
            // A beat of a newer version means nothing to us.
            Err(StreamError::Frame(FrameError::Malformed(_))) => Ok(()),
            Err(_) => Err(Stopped::Broken),
        },
        () = clock.sleep_until(until) => Ok(()),
        reason = link.end().wait() => {
            if let TunnelError::Refused(refusal) = reason {
                // Nobody waits for an answer to it.
                let _ = clock.timeout(GOODBYE_DEADLINE, send(stream, &Beat::Goodbye(refusal), clock)).await;
            }
            Err(Stopped::Told)
        }
    }
}

/// What a broken stream still holds: we may have failed to send before we read a goodbye.
async fn last_word(stream: &mut Stream) -> Stopped {
    loop {
        match stream.record::<Beat>().await {
            Ok(Beat::Goodbye(refusal)) => return Stopped::Over(TunnelError::Refused(refusal)),
            Ok(Beat::Ping(_) | Beat::Pong(_)) | Err(StreamError::Frame(FrameError::Malformed(_))) => {}
            Err(_) => return Stopped::Broken,
        }
    }
}

/// A beat that can't leave for as long as silence is borne counts as silence.
async fn send(stream: &mut Stream, beat: &Beat, clock: &Clock) -> Result<(), Stopped> {
    let sent = async {
        stream.send(beat).await?;
        stream.flush().await
    };
    match clock.timeout(SILENCE_MAX, sent).await {
        Some(sent) => sent.map_err(|_| Stopped::Broken),
        None => Err(Stopped::Over(TunnelError::Silent)),
    }
}
