//! Asks an edge what became of attempts nobody follows any more, before anything of them is tried
//! again; and tells it which it may forget.

use std::time::Duration;

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{AttemptId, AttemptRequest, AttemptState, RelayFacts};
use gatepost_runtime::tunnel::StreamError;

use super::{Context, attempt, jitter, relay};
use crate::queue::entry::{Entry, Place};
use crate::queue::{ConnectedEdge, QueueId};

/// An edge answers such questions from its disk: longer means that it does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Asks about this entry's attempts of this place. Without the edge, or with `place` as the home (which a
/// stop interrupted: its own attempts leave no trace after the final dot), they are in doubt.
pub async fn ask(context: &Context, id: QueueId, place: Option<NodeKey>, edge: Option<ConnectedEdge>) {
    let Some(entry) = context.blocking(move |entries| entries.entry(id)).await else { return };
    let now = context.entries.now_unix_ms();
    for attempt in &entry.attempts {
        let is_here = match (&attempt.place, place) {
            (Place::Edge { key, .. }, Some(place)) => *key == place,
            (Place::Home, None) => true,
            _ => false,
        };
        if !is_here || attempt.ask_unix_ms.is_none_or(|at| at > now) {
            continue;
        }
        match (&edge, place) {
            (Some(edge), _) => ask_one(context, id, &entry, attempt.id, edge).await,
            (None, Some(_)) => {
                doubt(context, id, attempt.id).await;
            }
            (None, None) => {
                let (schedule, attempt) = (context.entries.rules().schedule.clone(), attempt.id);
                context.record(id, move |entry, now| schedule.stays_in_doubt(entry, attempt, now, jitter())).await;
            }
        }
    }
}

async fn ask_one(context: &Context, id: QueueId, entry: &Entry, attempt: AttemptId, edge: &ConnectedEdge) {
    let trace = entry.trace;
    let state = match exchange(context, edge, AttemptRequest::State(attempt)).await {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(%trace, queue = %id, %attempt, edge = edge.name, %error, "an edge can't be asked");
            put_off(context, id, attempt).await;
            return;
        }
    };
    match state {
        AttemptState::Unknown => {
            tracing::info!(%trace, queue = %id, %attempt, edge = edge.name, "an attempt came to nothing");
            let why = Reply::connection_lost("The tunnel broke before the message was whole");
            attempt::nothing(context, id, attempt, why).await;
        }
        AttemptState::Running => put_off(context, id, attempt).await,
        AttemptState::InDoubt => {
            if doubt(context, id, attempt).await {
                forget(context, edge, attempt).await;
            }
        }
        AttemptState::Ended(done) => {
            relay::end(context, id, attempt, (done, RelayFacts::default())).await;
            forget(context, edge, attempt).await;
        }
        AttemptState::EndedWith(done, facts) => {
            relay::end(context, id, attempt, (done, facts)).await;
            forget(context, edge, attempt).await;
        }
    }
}

/// Leaves an attempt in doubt alone until it may be made again. True if it may now.
async fn doubt(context: &Context, id: QueueId, attempt: AttemptId) -> bool {
    let schedule = context.entries.rules().schedule.clone();
    let again = context.record(id, move |entry, now| schedule.doubted(entry, attempt, now)).await == Some(true);
    if again && let Some(entry) = context.blocking(move |entries| entries.entry(id)).await {
        tracing::warn!(
            trace = %entry.trace, queue = %id, %attempt,
            "an attempt stays in doubt: it is made again and may deliver twice"
        );
    }
    again
}

async fn put_off(context: &Context, id: QueueId, attempt: AttemptId) {
    let schedule = context.entries.rules().schedule.clone();
    context
        .blocking(move |entries| {
            let now = entries.now_unix_ms();
            entries.touch(id, |entry| schedule.still_running(entry, attempt, now));
        })
        .await;
}

/// Lets an edge forget an attempt whose outcomes are durable here; now, or when it is back.
pub async fn forget(context: &Context, edge: &ConnectedEdge, attempt: AttemptId) {
    if exchange(context, edge, AttemptRequest::Forget(attempt)).await.is_err() {
        context.owe(edge.key, attempt);
    }
}

/// Lets an edge that is back forget what it was owed.
pub async fn forget_owed(context: &Context, edge: &ConnectedEdge) {
    let mut owed = context.take_owed(edge.key).into_iter();
    while let Some(attempt) = owed.next() {
        if exchange(context, edge, AttemptRequest::Forget(attempt)).await.is_err() {
            // Gone again: the rest waits too.
            std::iter::once(attempt).chain(owed).for_each(|attempt| context.owe(edge.key, attempt));
            return;
        }
    }
}

async fn exchange(
    context: &Context,
    edge: &ConnectedEdge,
    request: AttemptRequest,
) -> Result<AttemptState, StreamError> {
    let exchange = async {
        let mut stream = edge.session.open(&Request::Attempt(request)).await?;
        stream.end_sending().await?;
        stream.record::<AttemptState>().await
    };
    let clock = context.entries.clock();
    clock
        .timeout(ANSWER_MAX, exchange)
        .await
        .unwrap_or_else(|| Err(StreamError::Broken("no answer for 30 s".to_owned())))
}
