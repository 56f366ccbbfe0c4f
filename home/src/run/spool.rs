//! What `spool list|fetch|drop` ask for: of every edge that is connected, and of what was set aside here.

use gatepost_protocol::tunnel::hello;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::spool::SpoolItem;
use gatepost_runtime::clock::rfc3339;
use serde_json::{Value, json};
use tracing::warn;

use super::control::Desk;
use super::shown::files;
use crate::queue::ConnectedEdge;
use crate::router::spool::ask::{self, Held};
use crate::router::spool::{self, Step};

impl Desk {
    /// What every edge holds, what is damaged there, and what was set aside here.
    pub(super) async fn spool(&self) -> Value {
        let mut edges = Vec::new();
        for name in self.edges.names() {
            let listed = match self.connected_edge(&name) {
                Some(edge) => ask::list(&edge).await.map_err(|error| error.to_string()),
                None => Err("not connected".to_owned()),
            };
            edges.push(match listed {
                Ok(held) => listed_at(&name, &held),
                Err(error) => json!({ "edge": name, "error": error }),
            });
        }
        json!({ "edges": edges, "damaged": files(&self.state.join(spool::DAMAGED)) })
    }

    /// One page of each edge, beginning where `after` says for it (`{"after": {"vps1": "…"}}`; with `after`, an edge
    /// that is not in it is done). Whoever asks goes on while an edge has a `next`.
    pub(super) async fn fetch(&self, request: &Value) -> Value {
        let mut edges = Vec::new();
        for name in self.edges.names() {
            let after = match request.get("after") {
                None | Some(Value::Null) => "",
                Some(places) => match places[&name].as_str() {
                    Some(place) => place,
                    None => continue,
                },
            };
            edges.push(match self.connected_edge(&name) {
                None => json!({ "edge": name, "error": "not connected" }),
                Some(edge) => match self.fetcher.step(&edge, after).await {
                    Ok(step) => fetched_from(&name, step),
                    Err(error) => json!({ "edge": name, "error": error.to_string() }),
                },
            });
        }
        json!({ "edges": edges })
    }

    /// One message, for good: at its edge, and what was set aside of it here.
    pub(super) async fn drop_sealed(&self, request: &Value) -> Result<Value, String> {
        let name = request["edge"].as_str().unwrap_or_default();
        let transfer = request["transfer"].as_str().and_then(TransferId::parse);
        let transfer =
            transfer.ok_or("not the id of a sealed message: 32 hexadecimal digits, as `spool list` shows them")?;
        if !self.edges.names().iter().any(|known| known == name) {
            return Err(format!("no edge is called {name}; there are: {}", self.edges.names().join(", ")));
        }
        let (state, of) = (self.state.clone(), name.to_owned());
        let here = tokio::task::spawn_blocking(move || spool::drop_aside(&state, &of, transfer)).await;
        let here = here.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let there = match self.connected_edge(name) {
            Some(edge) => ask::drop_for_good(&edge, transfer).await.map_err(|error| error.to_string())?,
            None if here => false,
            None => return Err(format!("{name} is not connected, and nothing of this message was set aside here")),
        };
        if !here && !there {
            return Err(format!("{name} holds no such message (any more)"));
        }
        warn!(edge = name, %transfer, at_edge = there, set_aside = here, "a sealed message was dropped for good, as its owner asked");
        Ok(json!({ "edge": name, "transfer": transfer.to_string(), "at_edge": there, "set_aside": here }))
    }

    fn connected_edge(&self, name: &str) -> Option<ConnectedEdge> {
        self.edges.connected().borrow().iter().find(|edge| edge.name == name).cloned()
    }
}

fn listed_at(name: &str, held: &Held) -> Value {
    let damaged = held.damaged.iter().map(|file| {
        json!({
            "transfer": file.transfer.map(|transfer| transfer.to_string()),
            "file": hello::printable(&file.name),
            "octets": file.octets,
        })
    });
    json!({
        "edge": name,
        "messages": held.total,
        "octets": held.total_octets,
        "entries": held.entries.iter().map(entry).collect::<Vec<_>>(),
        "damaged": damaged.collect::<Vec<_>>(),
        "damaged_total": held.damaged_total,
        "error": null,
    })
}

fn fetched_from(name: &str, step: Step) -> Value {
    let failed = step.failed.into_iter().map(|(item, why)| {
        let mut failed = entry(&item);
        failed["why"] = why.into();
        failed
    });
    json!({
        "edge": name,
        "held": step.held,
        "taken": step.taken.iter().map(entry).collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "next": step.next,
        "error": null,
    })
}

fn entry(item: &SpoolItem) -> Value {
    json!({
        "transfer": item.transfer.to_string(),
        "octets": item.octets,
        "sealed": rfc3339(item.sealed_unix_s),
    })
}
