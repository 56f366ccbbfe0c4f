//! The verb `Events`: tells a connected home what its journal holds, batch by batch, each forgotten here
//! only after the home has it durably.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::events::{EventBatch, EventsOpen, EventsTaken};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::tunnel::{Session, Stream, StreamError};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::Journal;
use super::ring::Ring;

/// How long the home may take to keep a batch.
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// Wait after an exchange that broke, at first; doubles.
const AGAIN_MIN: Duration = Duration::from_secs(2);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_mins(10);

/// Tells for as long as the session lives; to be dropped with it. A home that speaks an older version hears
/// nothing: its events stay until one comes that does.
pub async fn tell(journal: Arc<Journal>, session: Session, clock: Clock) {
    let mut again = AGAIN_MIN;
    loop {
        match exchange(&journal, &session, &clock).await {
            Ok(()) => again = AGAIN_MIN,
            Err(StreamError::TooOld { .. }) => return std::future::pending().await,
            Err(error) => {
                debug!(%error, "telling events broke off");
                clock.sleep(again).await;
                again = (again * 2).min(AGAIN_MAX);
            }
        }
    }
}

/// One journal to its end; the one that still grows has none.
async fn exchange(journal: &Arc<Journal>, session: &Session, clock: &Clock) -> Result<(), StreamError> {
    let mut grown = journal.grown.subscribe();
    if journal.waiting() == 0 {
        // No stream for nothing. The sender lives in the journal.
        let _ = grown.changed().await;
    }
    let (name, oldest) = within(journal, |ring| Ok(ring.front())).await?;
    let mut stream = session.open(&Request::Events(EventsOpen { oldest, journal: name })).await?;
    stream.flush().await?;
    let mut last = answer(&mut stream, clock).await?;
    loop {
        grown.borrow_and_update();
        let events = within(journal, move |ring| {
            ring.forget(name, last)?;
            ring.read(name, last)
        })
        .await?;
        let Some(newest) = events.last().map(|event| event.number) else {
            if name != journal.ours {
                stream.finish().await;
                return Ok(());
            }
            // Either side's end of the stream ends the wait, too.
            tokio::select! {
                _ = grown.changed() => continue,
                frame = stream.frame() => {
                    frame?;
                    return Err(StreamError::Broken("the home spoke out of turn".to_owned()));
                }
            }
        };
        stream.send(&EventBatch { events }).await?;
        stream.flush().await?;
        let taken = answer(&mut stream, clock).await?;
        if taken < newest {
            return Err(StreamError::Broken("the home did not keep the events".to_owned()));
        }
        last = newest;
    }
}

async fn answer(stream: &mut Stream, clock: &Clock) -> Result<u64, StreamError> {
    let taken = clock.timeout(ANSWER_MAX, stream.record::<EventsTaken>()).await;
    let silent = || Err(StreamError::Broken("the home did not answer in time".to_owned()));
    Ok(taken.unwrap_or_else(silent)?.last)
}

async fn within<T: Send + 'static>(
    journal: &Arc<Journal>,
    work: impl FnOnce(&mut Ring) -> std::io::Result<T> + Send + 'static,
) -> Result<T, StreamError> {
    let journal = Arc::clone(journal);
    let done = spawn_blocking(move || journal.with(work)).await;
    let broken = |why: String| StreamError::Broken(format!("the journal can't be read: {why}"));
    done.map_err(|error| broken(error.to_string()))?.map_err(|error| broken(error.to_string()))
}
