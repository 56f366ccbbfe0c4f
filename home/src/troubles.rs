//! What is wrong, by what `status` knows, the worst first, each with what to do about it. Pure.

use serde_json::{Value, json};

/// Free disk below which it is worth a word, in octets.
const DISK_LOW_OCTETS: u64 = 1024 * 1024 * 1024;
/// Free disk below which mail will soon be refused, in octets.
const DISK_OUT_OCTETS: u64 = 100 * 1024 * 1024;
/// Recipients that are deferred at one destination before that is worth a word.
const STUCK_MIN: u64 = 10;
/// Silence on the tunnel that is not usual, in seconds: heartbeats come every 20.
const SILENT_S: f64 = 45.0;

/// Days before a certificate ends at which it should long have been renewed.
const CERTIFICATE_DAYS_MIN: i64 = 7;

/// The list, for `status`.
pub fn of(status: &Value) -> Vec<Value> {
    let mut found: Vec<(u8, String, String)> = Vec::new();
    let mut add = |rank: u8, what: String, remedy: &str| found.push((rank, what, remedy.to_owned()));
    here(status, &mut add);
    for edge in list(&status["edges"]) {
        one_edge(edge, &status["directory_version"], &mut add);
    }
    queue(&status["queue"], &mut add);
    found.sort_by_key(|(rank, _, _)| *rank);
    found.into_iter().map(|(rank, what, remedy)| json!({ "rank": rank, "what": what, "remedy": remedy })).collect()
}

fn here(status: &Value, add: &mut impl FnMut(u8, String, &str)) {
    if status["disk_free_octets"].as_u64().is_some_and(|free| free < DISK_OUT_OCTETS) {
        add(0, "the disk is full: mail can't be stored".to_owned(), "make room where the state directory lies");
    } else if status["disk_free_octets"].as_u64().is_some_and(|free| free < DISK_LOW_OCTETS) {
        add(3, "the disk is nearly full".to_owned(), "make room where the state directory lies");
    }
    if let Some(why) = status["database"].as_str().filter(|health| *health != "good") {
        add(0, format!("home.db is not well: {why}"), "stop the program, keep a copy of it, and restore a backup");
    }
    if status["trace"] == "failing" {
        add(
            6,
            "what happens can't be kept for trace (trace.db)".to_owned(),
            "look into the log for why; mail is not touched by it",
        );
    }
    if status["accounts"] == 0 {
        add(2, "there is no account yet".to_owned(), "make one: gatepost-home account add you@your.domain");
    }
    if status["certificate_self_signed"] == true {
        let remedy = self_signed_remedy(&status["acme"], "home.toml");
        add(5, "the certificate is self-signed: no mail program can verify it".to_owned(), &remedy);
    }
    authority("your home", &status["acme"], add);
    files("your home", &status["certificate_files"], add);
    let waiting = list(&status["dkim_waiting"]).len();
    if waiting > 0 {
        add(
            6,
            format!("{waiting} new key(s) that sign mail wait for their DNS records; the old ones sign until then"),
            "publish the records that \"gatepost-home dkim list\" shows as waiting",
        );
    }
    certificate("the certificate", "home", &status["certificate_ends"], add);
    for server in list(&status["mailbox_servers"]) {
        if let (Some(name), Some(why)) = (server["server"].as_str(), server["trouble"].as_str()) {
            add(
                1,
                format!("the mailbox server {name} takes no mail: {why}"),
                "see that it runs; what waits is delivered then",
            );
        }
    }
    let damaged = list(&status["damaged"]).len() + list(&status["queue"]["damaged"]).len();
    if damaged > 0 {
        add(
            4,
            format!("{damaged} damaged file(s) were set aside"),
            "look at them in damaged/ and queue/damaged/ of the state directory",
        );
    }
}

fn one_edge(edge: &Value, directory: &Value, add: &mut impl FnMut(u8, String, &str)) {
    let name = edge["name"].as_str().unwrap_or("?");
    if edge["connected"] != true {
        let why = edge["last_error"].as_str().unwrap_or("not reached yet");
        let what =
            format!("edge {name} is not connected ({why}): mail for you is sealed there, and none is sent through it");
        let remedy = if why.contains("not paired") || why.contains("key") {
            "compare the keys: gatepost-home key and gatepost-edge key print them, and each config lists the other's"
        } else if why.contains("version") {
            "bring both to the same version"
        } else {
            "is the edge running, its address right, and its port 10025 open?"
        };
        add(1, what, remedy);
        return;
    }
    if edge["session"]["heard_s_ago"].as_f64().is_some_and(|silent| silent > SILENT_S) {
        add(
            2,
            format!("edge {name} has not been heard for a while"),
            "if it stays away, it is dialled anew by itself within a minute",
        );
    }
    if edge["directory_held"] != *directory {
        add(
            3,
            format!("edge {name} does not know the newest accounts and addresses yet"),
            "wait a moment; if it lasts, look into its log",
        );
    }
    if let Some(why) = edge["report_error"].as_str() {
        add(6, format!("edge {name} does not say how it is: {why}"), "bring it to the version of this home");
    }
    let report = &edge["report"];
    if report["draining"] == true {
        add(3, format!("edge {name} is stopping"), "start it again: gatepost-edge run");
    }
    let spool = &report["home"]["spool"];
    let (held, most) = (spool["octets"].as_u64().unwrap_or(0), spool["octets_max"].as_u64().unwrap_or(u64::MAX));
    if held > most / 2 {
        add(
            1,
            format!("the spool of edge {name} is more than half full"),
            "see what holds it: gatepost-home spool list",
        );
    }
    if spool["damaged"].as_u64().is_some_and(|count| count > 0) {
        add(
            4,
            format!("edge {name} has set damaged sealed mail aside"),
            "look into spool/…/damaged of its state directory",
        );
    }
    if report["self_signed_certificate"] == true {
        let remedy = self_signed_remedy(&report["acme"], "edge.toml");
        add(5, format!("the certificate of edge {name} is self-signed"), &remedy);
    }
    authority(&format!("edge {name}"), &report["acme"], add);
    web(name, report, add);
    files(&format!("edge {name}"), &report["certificate_files"], add);
    match report["dnssec"]["state"].as_str() {
        Some("missing") => add(
            6,
            format!(
                "mail that leaves by edge {name} goes without DANE: its DNS servers pass no signatures (DNSSEC) on"
            ),
            "name servers that do in dns.servers of edge.toml, such as a local unbound",
        ),
        Some("lost") => add(
            3,
            format!("the DNS servers of edge {name} have stopped passing signatures (DNSSEC) on: mail waits"),
            "mend them; after an hour mail goes without DANE",
        ),
        _ => {}
    }
    for list in list(&report["dns_lists"]) {
        if let Some(why) = list["fault"].as_str() {
            let list = list["list"].as_str().unwrap_or("?");
            let words = format!("edge {name} passes over the DNS list {list}: {why}");
            add(
                6,
                words,
                "see whether it still exists and answers your server's resolver; else take it out of edge.toml",
            );
        }
    }
    certificate(&format!("the certificate of edge {name}"), "edge", &report["certificate_ends"], add);
}

/// What it can't open for the web, and which further names get no certificate.
fn web(edge: &str, report: &Value, add: &mut impl FnMut(u8, String, &str)) {
    for (door, why) in report["doors_waiting"].as_object().into_iter().flatten() {
        let what = format!("edge {edge} can't open its door {door}: {}", why.as_str().unwrap_or("?"));
        add(3, what, "mail is not affected, but certificates may not be renewed; it is tried again every half minute");
    }
    for named in list(&report["names"]) {
        authority(&format!("{} at edge {edge}", named["name"].as_str().unwrap_or("?")), named, add);
    }
}

fn self_signed_remedy(acme: &Value, file: &str) -> String {
    if acme.is_null() {
        format!("have a CA issue one with acme = {{ email = … }} in {file}, or name files of yours in [tls]")
    } else {
        "the CA is asked for one; if it lasts, status says why".to_owned()
    }
}

/// What is wrong with files of the owner's.
fn files(whose: &str, files: &Value, add: &mut impl FnMut(u8, String, &str)) {
    let Some(why) = files["why"].as_str() else { return };
    let rank = if files["overdue"] == true { 2 } else { 5 };
    let what = format!("the certificate's files of {whose} can't be served: {why}");
    add(rank, what, "mend them; what was served before is served until then, and they are taken up by themselves");
}

/// What a CA refuses, or why it can't be asked.
fn authority(whose: &str, acme: &Value, add: &mut impl FnMut(u8, String, &str)) {
    for beside in list(&acme["beside"]) {
        authority(whose, beside, add);
    }
    let Some(why) = acme["why"].as_str() else { return };
    let again = acme["next_try"].as_str().unwrap_or("soon");
    let rank = if acme["overdue"] == true { 2 } else { 5 };
    let what = format!("{whose} gets no certificate: {why}");
    add(rank, what, &format!("it is tried again at {again}; mend what the CA names until then"));
}

fn certificate(whose: &str, program: &str, ends: &Value, add: &mut impl FnMut(u8, String, &str)) {
    let (Some(at), Some(days)) = (ends["at"].as_str(), ends["days_left"].as_i64()) else { return };
    let remedy = format!("renew it; gatepost-{program} status there says what keeps it from being renewed");
    if days < 0 {
        add(1, format!("{whose} has ended on {at}: mail programs refuse it"), &remedy);
    } else if days < CERTIFICATE_DAYS_MIN {
        add(3, format!("{whose} ends on {at}"), &remedy);
    }
}

fn queue(queue: &Value, add: &mut impl FnMut(u8, String, &str)) {
    if let Some(held) = queue["held"].as_u64().filter(|held| *held > 0) {
        add(
            4,
            format!("{held} message(s) are held in the queue"),
            "gatepost-home queue list shows why; release or drop them",
        );
    }
    for destination in list(&queue["worst_destinations"]) {
        let stuck = destination["recipients"].as_u64().unwrap_or(0);
        if stuck >= STUCK_MIN {
            let domain = destination["domain"].as_str().unwrap_or("?");
            let last = destination["last"].as_str().unwrap_or("nothing");
            add(
                4,
                format!("{stuck} recipients at {domain} wait: it said {last}"),
                "gatepost-home queue show explains one of them",
            );
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Value {
        json!({
            "disk_free_octets": 50_000_000_000_u64, "database": "good", "trace": "good", "accounts": 1, "dkim_waiting": [],
            "certificate_ends": { "at": "2027-01-01T00:00:00Z", "days_left": 7 },
            "certificate_self_signed": false, "acme": null, "certificate_files": null, "directory_version": 5, "damaged": [],
            "queue": { "held": 0, "damaged": [], "worst_destinations": [] },
            "edges": [{
                "name": "vps1", "connected": true, "directory_held": 5, "session": { "heard_s_ago": 3.0 },
                "report": {
                    "draining": false, "self_signed_certificate": false, "acme": null, "dnssec": null,
                    "certificate_ends": { "at": "2027-01-01T00:00:00Z", "days_left": 90 },
                    "dns_lists": [{ "list": "list.example", "fault": null }], "doors_waiting": {},
                    "names": [{ "name": "autoconfig.example.org", "leads_here": false, "why": null }],
                    "home": { "spool": { "octets": 0, "octets_max": 100, "damaged": 0 } },
                },
            }],
        })
    }

    #[test]
    fn what_is_well_is_not_complained_of() {
        assert_eq!(of(&well()), Vec::<Value>::new());
    }

    #[test]
    fn each_trouble_is_told_with_its_remedy_the_worst_first() {
        let edge = "/edges/0";
        for (place, value, told, remedy) in [
            ("/disk_free_octets", json!(5), "the disk is full", "make room"),
            ("/disk_free_octets", json!(900_000_000), "nearly full", "make room"),
            ("/database", json!("database disk image is malformed"), "home.db is not well", "restore"),
            ("/trace", json!("failing"), "trace.db", "log"),
            ("/accounts", json!(0), "no account", "account add"),
            ("/dkim_waiting", json!(["x._domainkey.example.org"]), "wait for their DNS records", "dkim list"),
            ("/certificate_self_signed", json!(true), "self-signed", "[tls]"),
            (
                "/acme",
                json!({ "why": "the CA refused (rateLimited): too many", "next_try": "2027-01-01T00:00:00Z", "overdue": false }),
                "your home gets no certificate: the CA refused (rateLimited): too many",
                "tried again at 2027-01-01",
            ),
            (
                "/edges/0/report/acme",
                json!({ "why": "no", "next_try": "2027-01-01T00:00:00Z", "overdue": true }),
                "edge vps1 gets no certificate: no",
                "mend what the CA names",
            ),
            (
                "/certificate_files",
                json!({ "why": "key.pem: this key does not belong", "overdue": false }),
                "the certificate's files of your home can't be served: key.pem",
                "taken up by themselves",
            ),
            ("/certificate_ends/days_left", json!(6), "the certificate ends on 2027", "gatepost-home status"),
            ("/certificate_ends/days_left", json!(-1), "the certificate has ended on 2027", "gatepost-home status"),
            ("/edges/0/report/certificate_ends/days_left", json!(-1), "of edge vps1 has ended", "gatepost-edge status"),
            (
                "/edges/0/report/doors_waiting",
                json!({ "http": "can't listen on [::]:80: port 80 is taken" }),
                "vps1 can't open its door http: can't listen on [::]:80",
                "every half minute",
            ),
            (
                "/edges/0/report/names",
                json!([{ "name": "mta-sts.example.org", "leads_here": true, "why": "no", "next_try": "2027-01-01T00:00:00Z" }]),
                "mta-sts.example.org at edge vps1 gets no certificate: no",
                "mend what the CA names",
            ),
            ("/damaged", json!(["x"]), "set aside", "damaged/"),
            ("/queue/held", json!(2), "2 message(s) are held", "queue list"),
            ("/edges/0/connected", json!(false), "vps1 is not connected", "10025"),
            ("/edges/0/session/heard_s_ago", json!(50.0), "has not been heard", "by itself"),
            ("/edges/0/directory_held", json!(4), "does not know the newest", "wait"),
            ("/edges/0/report_error", json!("no answer within 2 s"), "does not say how it is: no answer", "version"),
            (
                "/edges/0/report/dns_lists",
                json!([{ "list": "list.example", "fault": "it does not answer" }]),
                "passes over the DNS list list.example: it does not answer",
                "edge.toml",
            ),
            ("/edges/0/report/dnssec", json!({ "state": "missing" }), "goes without DANE", "unbound"),
            ("/edges/0/report/dnssec", json!({ "state": "lost" }), "mail waits", "an hour"),
            ("/edges/0/report/draining", json!(true), "is stopping", "start"),
            ("/edges/0/report/home/spool/octets", json!(51), "half full", "spool list"),
            ("/edges/0/report/home/spool/damaged", json!(1), "damaged sealed mail", "damaged"),
            ("/edges/0/report/self_signed_certificate", json!(true), "self-signed", "edge.toml"),
        ] {
            let mut status = well();
            match status.pointer_mut(place) {
                Some(at) => *at = value,
                None => status.pointer_mut(edge).unwrap()["report_error"] = value,
            }
            let found = of(&status);
            assert_eq!(found.len(), 1, "{place}: {found:?}");
            assert!(found[0]["what"].as_str().unwrap().contains(told), "{place}: {found:?}");
            assert!(found[0]["remedy"].as_str().unwrap().contains(remedy), "{place}: {found:?}");
        }
        let mut status = well();
        status["certificate_self_signed"] = json!(true);
        status["edges"][0]["connected"] = json!(false);
        status["edges"][0]["last_error"] = json!("wrong key: expected gp1x, got gp1y");
        let found = of(&status);
        assert!(found[0]["what"].as_str().unwrap().contains("not connected"), "{found:?}");
        assert!(found[0]["remedy"].as_str().unwrap().contains("compare the keys"), "{found:?}");
    }

    #[test]
    fn a_mailbox_server_in_trouble_is_named_with_its_words() {
        let mut status = well();
        status["mailbox_servers"] = json!([
            { "server": "unix:/run/lmtp", "trouble": "451 4.4.1 gone" }, { "server": "other", "trouble": null },
        ]);
        let found = of(&status);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]["what"].as_str().unwrap().contains("unix:/run/lmtp takes no mail: 451 4.4.1 gone"),
            "{found:?}"
        );
    }

    #[test]
    fn a_destination_where_much_sticks_is_named_with_its_words() {
        let mut status = well();
        let one = |count: u64| json!([{ "domain": "big.example", "recipients": count, "last": "421 4.7.0 slow down" }]);
        status["queue"]["worst_destinations"] = one(STUCK_MIN - 1);
        assert!(of(&status).is_empty());
        status["queue"]["worst_destinations"] = one(STUCK_MIN);
        let told = of(&status)[0]["what"].to_string();
        assert!(told.contains("big.example") && told.contains("421 4.7.0 slow down"), "{told}");
    }
}
