//! What `status` and `spool list` show, as JSON.

use std::path::Path;

use serde_json::{Value, json};

use super::control::Desk;
use crate::queue;
use crate::router::spool;

impl Desk {
    pub(super) fn status(&self) -> Value {
        let domains: Vec<&str> =
            self.config.domains.iter().map(gatepost_protocol::mail::address::Domain::as_str).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": self.config.hostname,
            "key": self.key,
            "domains": domains,
            "accounts": self.store.accounts.book().accounts.len(),
            "directory_version": self.store.accounts.directory().borrow().version(),
            "submissions": self.submissions.map(|address| address.to_string()),
            "relay": self.relay.map(|address| address.to_string()),
            "certificate_self_signed": self.served.is_self_signed(),
            "edges": self.edges.status(),
            "queue": {
                "messages": self.store.queue.waiting(),
                "local": self.store.queue.waiting_local(),
                "damaged": files(&self.config.state.join(queue::DAMAGED)),
            },
            "mailbox_servers": self.store.servers.status(),
            "damaged": files(&self.config.state.join(spool::DAMAGED)),
        })
    }

    pub(super) async fn spool(&self) -> Value {
        let connected = self.edges.connected().borrow().clone();
        let mut edges = Vec::new();
        for settings in &self.config.edges {
            let listed = match connected.iter().find(|edge| edge.name == settings.name) {
                Some(edge) => spool::list(edge).await.map_err(|error| error.to_string()),
                None => Err("not connected".to_owned()),
            };
            edges.push(match listed {
                Ok(listing) => {
                    let entries = listing.entries.iter().map(|item| {
                        json!({
                            "transfer": item.transfer.to_string(),
                            "octets": item.octets,
                            "sealed": gatepost_runtime::clock::rfc3339(item.sealed_unix_s),
                        })
                    });
                    json!({
                        "edge": settings.name, "messages": listing.total, "octets": listing.total_octets,
                        "entries": entries.collect::<Vec<_>>(), "error": null,
                    })
                }
                Err(error) => json!({ "edge": settings.name, "error": error }),
            });
        }
        json!({ "edges": edges, "damaged": files(&self.config.state.join(spool::DAMAGED)) })
    }
}

/// What was set aside in a folder: the names, sorted.
fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
