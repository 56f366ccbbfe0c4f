//! `gatepost-home status`: what the running home does.

use serde_json::Value;

use super::{Context, Failure, list, pretty, print, text};

pub(super) fn show(context: &Context<'_>, json: bool) -> Result<(), Failure> {
    let status = context.ask("status")?;
    print(&if json { pretty(&status) } else { for_people(&status) })
}

fn for_people(status: &Value) -> String {
    let domains: Vec<&str> = list(status, "domains").iter().filter_map(Value::as_str).collect();
    let mut lines = vec![
        format!("home         {} (gatepost {})", text(status, "hostname"), text(status, "version")),
        format!("key          {}", text(status, "key")),
        format!("domains      {}", domains.join(", ")),
        format!("accounts     {}", text(status, "accounts")),
        format!("submissions  {}", status["submissions"].as_str().unwrap_or("off")),
        format!("queue        {} message(s)", text(&status["queue"], "messages")),
    ];
    for server in list(status, "mailbox_servers") {
        let name = text(server, "server");
        lines.push(match server["trouble"].as_str() {
            Some(why) => format!("mailboxes    {name}: in trouble since {}: {why}", text(server, "since")),
            None => format!("mailboxes    kept by {name}"),
        });
    }
    if status["queue"]["local"].as_u64().is_some_and(|waiting| waiting > 0) {
        lines.push(format!("mailboxes    {} message(s) wait for delivery", text(&status["queue"], "local")));
    }
    if status["certificate_self_signed"] == true {
        lines.push("certificate  self-signed: no client can verify it; name yours in [tls]".to_owned());
    }
    for edge in list(status, "edges") {
        let (name, session) = (text(edge, "name"), &edge["session"]);
        lines.push(if edge["connected"] == true {
            format!(
                "edge         {name}: connected to {} since {}, {}, directory {}",
                text(session, "address"),
                text(session, "since"),
                text(session, "key_exchange"),
                if edge["directory_held"] == status["directory_version"] { "up to date" } else { "on its way" },
            )
        } else {
            format!("edge         {name}: not connected to {} ({})", text(edge, "address"), text(edge, "last_error"))
        });
    }
    if list(status, "edges").is_empty() {
        lines.push("edge         none configured".to_owned());
    }
    for name in list(status, "damaged").iter().filter_map(Value::as_str) {
        lines.push(format!("set aside    damaged/{name}: could not be opened"));
    }
    for name in list(&status["queue"], "damaged").iter().filter_map(Value::as_str) {
        lines.push(format!("set aside    queue/damaged/{name}: waited to be sent, and is damaged"));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_what_is_wrong_with_the_server_of_their_mailboxes() {
        let shown = for_people(&json!({
            "queue": { "messages": 3, "local": 2 },
            "mailbox_servers": [
                { "server": "unix:/run/lmtp", "trouble": "451 4.4.1 gone", "since": "2026-11-20T12:00:00Z" },
            ],
        }));
        for words in ["unix:/run/lmtp: in trouble since 2026-11-20T12:00:00Z: 451 4.4.1 gone", "2 message(s) wait for"]
        {
            assert!(shown.contains(words), "{shown}");
        }
    }

    #[test]
    fn people_see_every_file_that_was_set_aside_and_where() {
        let shown = for_people(&json!({
            "queue": { "messages": 1, "damaged": ["01.eml"] },
            "damaged": ["vps1-02.sealed"],
        }));
        for name in [" queue/damaged/01.eml:", " damaged/vps1-02.sealed:"] {
            assert!(shown.contains(name), "{shown}");
        }
    }
}
