//! What the commands ask the running home by the control socket.

use std::sync::Arc;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::maildrop::Name;
use serde_json::{Value, json};

use super::Store;
use crate::administration;
use crate::config::Config;
use crate::counts::Counts;
use crate::edges::Edges;
use crate::pickup::Counter;
use crate::trace::Traces;

/// What the control socket answers from.
pub(super) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) edges: Edges,
    pub(super) traces: Traces,
    pub(super) counts: Arc<Counts>,
    pub(super) started_unix_s: i64,
    pub(super) clock: Clock,
    pub(super) served: Served,
    pub(super) key: String,
    pub(super) submissions: Option<std::net::SocketAddr>,
    pub(super) relay: Option<std::net::SocketAddr>,
    pub(super) letters: Counter,
    pub(super) config: Config,
}

/// One request and its answer; an error is a text for people.
pub(super) async fn answer(desk: Arc<Desk>, mut request: Value) -> Result<Value, String> {
    if let Some(queue) = request.get_mut("queue") {
        return desk.store.queue.control(queue.take()).await;
    }
    if let Some(request) = request.get_mut(administration::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        let performed = tokio::task::spawn_blocking(move || desk.store.administer(request));
        return performed.await.map_err(|error| error.to_string())?;
    }
    if let Some(name) = request.get("letter") {
        let name = name.as_str().and_then(Name::parse).ok_or("this is not the name of a letter")?;
        let reply = desk.letters.take_up(name).await.ok_or("the home is stopping")?;
        let enhanced = reply.enhanced().map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        return Ok(json!({ "code": reply.code(), "text": enhanced + &reply.text() }));
    }
    match request.get("command").and_then(Value::as_str) {
        Some("status") => Ok(desk.status().await),
        Some("trace-flush") => {
            desk.traces.flush().await;
            Ok(Value::Null)
        }
        Some("spool-list") => Ok(desk.spool().await),
        _ => Err("the running home does not know this command; is it another version?".to_owned()),
    }
}
