//! What the commands ask the running home by the control socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatepost_runtime::acme::standing::Standing;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::maildrop::Name;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Store;
use super::doctor;
use super::probe;
use super::records;
use super::reload::Reloader;
use super::reports;
use crate::administration;
use crate::counts::Counts;
use crate::edges::Edges;
use crate::pickup::Counter;
use crate::reporting;
use crate::router::Router;
use crate::router::spool::Fetcher;
use crate::signing::rotation;
use crate::trace::Traces;

/// The longest an owner waits for the DNS.
pub(super) const DNS_WAIT_MAX: Duration = Duration::from_secs(3);

/// What the control socket answers from.
pub(super) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) router: Router,
    pub(super) edges: Edges,
    pub(super) traces: Traces,
    pub(super) counts: Arc<Counts>,
    pub(super) started_unix_s: i64,
    pub(super) clock: Clock,
    pub(super) served: Served,
    /// How it stands with the CA.
    pub(super) acme: Standing,
    pub(super) key: String,
    pub(super) letters: Counter,
    pub(super) fetcher: Fetcher,
    pub(super) hostname: String,
    pub(super) state: PathBuf,
    pub(super) reloader: Arc<Reloader>,
    /// Told, the program drains and ends.
    pub(super) drain: mpsc::Sender<()>,
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
    if let Some(request) = request.get_mut(rotation::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        return desk.dkim(request).await;
    }
    if let Some(request) = request.get_mut(reporting::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        let answered = tokio::task::spawn_blocking(move || desk.store.reporting.answer(&request));
        return answered.await.map_err(|error| error.to_string())?;
    }
    if let Some(request) = request.get_mut(records::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        return desk.dns(request).await;
    }
    if let Some(request) = request.get_mut(reports::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        return desk.reports(request).await;
    }
    if let Some(request) = request.get_mut(doctor::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        return desk.doctor(request).await;
    }
    if let Some(request) = request.get_mut(probe::KEY) {
        let request = serde_json::from_value(request.take()).map_err(|error| error.to_string())?;
        return desk.probe(request).await;
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
        Some("spool-fetch") => Ok(desk.fetch(&request).await),
        Some("spool-drop") => desk.drop_sealed(&request).await,
        Some(command @ ("bans-list" | "bans-add" | "bans-lift" | "certificate-rotate")) => {
            desk.bans(command, &request).await
        }
        Some("reload") => {
            // In a task of its own: a command that is broken off must not break off a reload.
            let reloaded = tokio::spawn(async move { desk.reloader.reload().await });
            let changes = reloaded.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(json!({ "changes": changes }))
        }
        Some("drain") => {
            // Full means that it was told already.
            let _ = desk.drain.try_send(());
            Ok(json!({ "draining": true }))
        }
        _ => Err("the running home does not know this command; is it another version?".to_owned()),
    }
}

impl Desk {
    /// Keys that sign mail. Those that wait are looked for in the DNS at once.
    async fn dkim(&self, request: rotation::Request) -> Result<Value, String> {
        let (signing, wanted) = (self.store.signing.clone(), request.clone());
        let begun = tokio::task::spawn_blocking(move || signing.begin(&wanted));
        begun.await.map_err(|error| error.to_string())??;
        // What the DNS does not tell now, it will tell the chore that asks again.
        let _ = tokio::time::timeout(DNS_WAIT_MAX, self.store.signing.look(&self.store.resolver)).await;
        self.store.signing.list(&request)
    }
}
