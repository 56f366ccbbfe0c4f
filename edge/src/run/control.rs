//! What the commands ask the running edge by the control socket.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::network::Network;
use gatepost_protocol::pairing::code::DialAddress;
use gatepost_runtime::clock::rfc3339;
use serde_json::{Value, json};

use super::reload::Reloader;
use crate::bans::{Bans, Order};
use crate::pairing::Pairing;
use crate::pairing::window::{End, State};
use crate::status::Status;

/// What is answered from.
pub(super) struct Desk {
    pub(super) status: Arc<Status>,
    pub(super) pairing: Pairing,
    pub(super) reloader: Arc<Reloader>,
}

/// One request and its answer; an error is a text for people.
pub(super) async fn answer(desk: Arc<Desk>, request: Value) -> Result<Value, String> {
    match request.get("command").and_then(Value::as_str) {
        Some("status") => Ok(desk.status.json()),
        Some("spool-list") => Ok(desk.status.spool_json()),
        Some("pair") => open(&desk.status, &desk.pairing, &request),
        Some("pair-state") => Ok(state(&desk.pairing, &request)),
        Some("unpair") => {
            let name = request["name"].as_str().unwrap_or_default().to_owned();
            let unpairing = tokio::task::spawn_blocking(move || desk.pairing.unpair(&name).map(|gone| gone.json()));
            unpairing.await.map_err(|error| error.to_string())?
        }
        Some("bans-list") => obey(&desk.status.bans, Order::List).await,
        Some("bans-add") => {
            let span = request["for_s"].as_u64().map(Duration::from_secs);
            obey(&desk.status.bans, Order::Add(network(&request)?, span)).await
        }
        Some("bans-lift") => obey(&desk.status.bans, Order::Lift(network(&request)?)).await,
        Some("certificate-rotate") => desk.status.rotate().await,
        Some("reload") => {
            // In a task of its own: a command that is broken off must not break off a reload.
            let reloaded = tokio::spawn(async move { desk.reloader.reload().await });
            let changes = reloaded.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(json!({ "changes": changes }))
        }
        _ => Err("the running edge does not know this command; is it another version?".into()),
    }
}

/// What an owner asks of the bans, at the edge or from home.
pub(super) async fn obey(bans: &Bans, order: Order) -> Result<Value, String> {
    let bans = bans.clone();
    let obeying = tokio::task::spawn_blocking(move || bans.obey(order));
    obeying.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn network(request: &Value) -> Result<Network, String> {
    named(request["network"].as_str().unwrap_or_default())
}

/// A network as an owner writes it.
pub(super) fn named(text: &str) -> Result<Network, String> {
    text.parse().map_err(|right| format!("{text:?} is no network: write {right}"))
}

fn open(status: &Status, pairing: &Pairing, request: &Value) -> Result<Value, String> {
    let text = |name: &str| request[name].as_str().map(str::to_owned);
    let door = status.doors().tunnel.ok_or("[listen] tunnel is off: no home could reach this edge")?;
    let address = text("address").unwrap_or_else(|| format!("{}:{}", status.hostname, door.port()));
    let address: DialAddress = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
    let opened = pairing.open(address, text("name"))?;
    Ok(json!({
        "id": opened.id,
        "code": *opened.code.reveal(),
        "address": opened.code.address.as_str(),
        "key": opened.code.edge_key.to_string(),
        "expires": rfc3339(opened.until_unix_s),
        "inherits_sealed_mail": opened.inherits,
    }))
}

fn state(pairing: &Pairing, request: &Value) -> Value {
    let (state, home) = pairing.state(request["id"].as_u64().unwrap_or(u64::MAX));
    let (state, wrong) = match state {
        State::Open(wrong) => ("open", wrong),
        State::Over(End::Paired(_)) => ("paired", 0),
        State::Over(End::Expired) => ("expired", 0),
        State::Over(End::GivenUp) => ("given up", 0),
        State::Unknown => ("unknown", 0),
    };
    let home = home.map(|home| {
        json!({
            "name": home.name,
            "domains": home.domains.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "keys": home.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "listed_in": home.origin.to_string(),
        })
    });
    json!({ "state": state, "wrong_codes": wrong, "home": home })
}
