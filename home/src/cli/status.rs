//! `gatepost-home status`: what the running home does.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Context, Failure, list, pretty, print, text};
use crate::policy;

pub(super) fn show(context: &Context<'_>, json: bool) -> Result<(), Failure> {
    let status = context.ask("status")?;
    print(&if json { pretty(&status) } else { for_people(&status) })
}

fn for_people(status: &Value) -> String {
    let domains: Vec<&str> = list(status, "domains").iter().filter_map(Value::as_str).collect();
    let mut lines = Vec::new();
    for trouble in list(status, "troubles") {
        lines.push(format!("!! {}", text(trouble, "what")));
        lines.push(format!("   {}", text(trouble, "remedy")));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.extend([
        format!(
            "home         {} (gatepost {}), since {}",
            text(status, "hostname"),
            text(status, "version"),
            text(status, "started")
        ),
        format!("key          {}", text(status, "key")),
        format!("domains      {}", domains.join(", ")),
        format!("accounts     {}", text(status, "accounts")),
        format!("submissions  {}", status["submissions"].as_str().unwrap_or("off")),
        format!("certificate  {}", certificate(&status["certificate_ends"])),
        format!("policy       {}", policy::for_people(&status["policy"])),
    ]);
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
    if let Some(relay) = status["relay"].as_str() {
        lines.push(format!("relay        {relay}"));
    }
    let hour = &status["last_hour"];
    lines.push(format!(
        "last hour    {} accepted, {} refused, {} sent",
        text(hour, "accepted"),
        text(hour, "refused"),
        text(hour, "sent")
    ));
    if let Some(free) = status["disk_free_octets"].as_u64() {
        lines.push(format!("disk         {} free", octets(free)));
    }
    lines.extend(queue(&status["queue"]));
    for edge in list(status, "edges") {
        lines.extend(one_edge(edge, &status["directory_version"]));
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

fn certificate(ends: &Value) -> String {
    ends["at"].as_str().map_or_else(|| "self-signed".to_owned(), |at| format!("good until {at}"))
}

fn queue(queue: &Value) -> Vec<String> {
    let mut line = format!("queue        {} message(s)", text(queue, "messages"));
    for (name, words) in [
        ("held", "held"),
        ("recipients_waiting", "recipient(s) to be tried"),
        ("recipients_deferred", "recipient(s) to be tried again"),
    ] {
        if let Some(count) = queue[name].as_u64().filter(|count| *count > 0) {
            let _ = write!(line, ", {count} {words}");
        }
    }
    if let Some(oldest) = queue["oldest"].as_str() {
        let _ = write!(line, ", the oldest since {oldest}");
    }
    let destinations = list(queue, "worst_destinations").iter().map(|destination| {
        format!(
            "             {}: {} recipient(s); it said {}",
            text(destination, "domain"),
            text(destination, "recipients"),
            text(destination, "last")
        )
    });
    std::iter::once(line).chain(destinations).collect()
}

fn one_edge(edge: &Value, directory: &Value) -> Vec<String> {
    let (name, session, report) = (text(edge, "name"), &edge["session"], &edge["report"]);
    if edge["connected"] != true {
        return vec![format!(
            "edge         {name}: not connected to {} ({})",
            text(edge, "address"),
            text(edge, "last_error")
        )];
    }
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(0.0);
    let mut lines = vec![
        format!(
            "edge         {name}: connected to {} since {}, {}, directory {}",
            text(session, "address"),
            text(session, "since"),
            text(session, "key_exchange"),
            if edge["directory_held"] == *directory { "up to date" } else { "on its way" },
        ),
        format!(
            "             {} (protocol {}), round trip {:.1} ms, heard {:.0} s ago",
            text(session, "software"),
            text(session, "protocol"),
            number(session, "round_trip_ms"),
            number(session, "heard_s_ago"),
        ),
    ];
    let Some(told) = report["home"].as_object() else {
        lines.push(format!("             it says no more of itself: {}", text(edge, "report_error")));
        return lines;
    };
    // An edge older than this home does not say.
    if report.get("certificate_ends").is_some() {
        lines.push(format!("             certificate: {}", certificate(&report["certificate_ends"])));
    }
    let (spool, hour) = (&told["spool"], &told["last_hour"]);
    let oldest = spool["oldest"].as_str().map_or_else(String::new, |oldest| format!(", the oldest since {oldest}"));
    lines.push(format!(
        "             spool: {} message(s), {}{oldest}",
        text(spool, "messages"),
        octets(spool["octets"].as_u64().unwrap_or(0))
    ));
    lines.push(format!(
        "             last hour: {} taken, {} refused, {} sealed, {} sent",
        text(hour, "taken"),
        text(hour, "refused"),
        text(hour, "sealed"),
        text(hour, "sent")
    ));
    lines
}

fn octets(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
        None => format!("{count} octets"),
    }
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
    fn what_is_wrong_stands_first_and_an_edge_tells_of_itself() {
        let shown = for_people(&json!({
            "troubles": [{ "what": "edge vps2 is not connected", "remedy": "is it running?" }],
            "directory_version": 3,
            "queue": {
                "messages": 2, "held": 1, "recipients_deferred": 4, "oldest": "12:00",
                "worst_destinations": [{ "domain": "big.example", "recipients": 4, "last": "421 slow down" }],
            },
            "edges": [
                {
                    "name": "vps1", "connected": true, "directory_held": 3,
                    "session": { "address": "192.0.2.1:10025", "round_trip_ms": 12.34, "heard_s_ago": 4.0 },
                    "report": { "home": {
                        "spool": { "messages": 0, "octets": 1536 }, "last_hour": { "taken": 5, "refused": 1 },
                    } },
                },
                { "name": "vps2", "connected": false, "address": "vps2:10025", "last_error": "refused" },
                { "name": "old", "connected": true, "report_error": "it is an older version" },
            ],
        }));
        assert!(shown.starts_with("!! edge vps2 is not connected\n   is it running?\n\nhome "), "{shown}");
        for part in [
            "queue        2 message(s), 1 held, 4 recipient(s) to be tried again, the oldest since 12:00\n",
            "             big.example: 4 recipient(s); it said 421 slow down\n",
            "vps1: connected to 192.0.2.1:10025",
            "directory up to date\n",
            "round trip 12.3 ms, heard 4 s ago\n",
            "spool: 0 message(s), 1.5 KiB\n",
            "last hour: 5 taken, 1 refused",
            "vps2: not connected to vps2:10025 (refused)\n",
            "it says no more of itself: it is an older version\n",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
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
