//! What `bans list|add|lift` and `certificate rotate` ask for: of every edge that is connected, for each has bans and keys of its
//! own.

use gatepost_protocol::network::Network;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use serde_json::{Value, json};
use tracing::info;

use super::control::Desk;

impl Desk {
    /// By edge, what it answers or why it does not. An error if no edge did.
    pub(super) async fn bans(&self, command: &str, request: &Value) -> Result<Value, String> {
        let network = || {
            let text = request["network"].as_str().unwrap_or_default();
            text.parse::<Network>().map_err(|right| format!("{text:?} is no network: write {right}"))
        };
        let asked = match command {
            "bans-add" => {
                let for_s = request["for_s"].as_u64();
                AdminRequest::BansAdd { network: network()?.to_string(), for_s }
            }
            "certificate-rotate" => AdminRequest::CertificateRotate,
            "bans-lift" => AdminRequest::BansLift { network: network()?.to_string() },
            _ => AdminRequest::BansList,
        };
        let names = self.edges.names();
        let only = request["edge"].as_str();
        if let Some(only) = only.filter(|only| !names.iter().any(|name| name == only)) {
            return Err(format!("no edge is called {only}; there are: {}", names.join(", ")));
        }
        let answers = self.edges.ask_of(asked, only, &self.clock).await;
        let edges = names.iter().filter(|name| only.is_none_or(|only| only == *name)).map(|name| {
            let answer = answers.iter().find(|(of, _)| of == name).map(|(_, answer)| answer.clone());
            let read = |text: String| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string());
            match answer.unwrap_or_else(|| Err("not connected".to_owned())).and_then(read) {
                Ok(mut answer) => {
                    answer["edge"] = name.as_str().into();
                    answer["error"] = Value::Null;
                    answer
                }
                Err(why) => json!({ "edge": name, "error": why }),
            }
        });
        let edges: Vec<Value> = edges.collect();
        if edges.is_empty() {
            return Err("there is no edge yet; pair with one: gatepost-home pair CODE".to_owned());
        }
        if edges.iter().all(|edge| edge["error"].is_string()) {
            let why = edges.iter().map(|edge| {
                let word = |name: &str| edge[name].as_str().unwrap_or_default();
                format!("{}: {}", word("edge"), word("error"))
            });
            return Err(why.collect::<Vec<_>>().join("; "));
        }
        match command {
            "bans-list" => {}
            "certificate-rotate" => info!(edge = only, "new keys of certificates are made, as the owner asked"),
            _ => info!(command, network = request["network"].as_str(), "bans changed, as the owner asked"),
        }
        Ok(json!({ "edges": edges }))
    }
}
