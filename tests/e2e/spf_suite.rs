//! The test-suite of RFC 7208, against the real edge: each case comes from its own client address, asks a name server
//! that holds the scenario's zone, and its result is read from the message that was stored. `tests/judging` lists them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use gatepost_tests::client::Client;
use gatepost_tests::fault::lying_dns::{Lie, LyingDns};
use gatepost_tests::fault::namespace;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers;
use gatepost_tests::world::message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::TXT;
use serde_json::Value;

use super::{ALICE, fields, started, values};

/// Sessions at once.
const SESSIONS: usize = 8;
/// The door of the edge, in a namespace where every port is free.
const PORT: u16 = 2525;
/// Where From points: a domain that asks for nothing, so that SPF alone refuses nobody.
const WATCHED: &str = "watched.test";
/// Set, the table is written anew instead of compared.
const WRITE: &str = "GATEPOST_WRITE_RESULTS";

#[test]
fn every_case_of_the_suite_has_the_result_the_table_says() {
    namespace::run_inside("spf_suite::inside_a_namespace_with_every_address", namespace::EVERY_ADDRESS);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_namespace_with_every_address() {
    let suite = suite();
    let options = Options::story().edge_set(&format!("listen.smtp=[::]:{PORT}"));
    let pair = started(&options);
    let mut table = String::from("| scenario | case | expected | Gatepost | |\n|---|---|---|---|---|\n");
    let mut wrong = Vec::new();
    for scenario in &suite {
        let title = scenario["description"].as_str().expect("a title");
        let found = play(&pair, scenario);
        for (case, test) in scenario["tests"].as_object().expect("cases") {
            let expected = words(&test["result"]).join(" or ");
            let got = found.get(case).map_or("no answer", String::as_str);
            let fits = words(&test["result"]).contains(&got);
            let reason = if fits { "" } else { reason(case) };
            if !fits && reason.is_empty() {
                wrong.push(format!("{title}: {case}: expected {expected}, got {got}"));
            }
            let _ = writeln!(table, "| {title} | {case} | {expected} | {got} | {reason} |");
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let path = data("rfc7208-results.md");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &table).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).expect("the table"), table, "{} is not what was found", path.display());
}

/// Why a case may have another result than the suite says.
fn reason(case: &str) -> &'static str {
    match case {
        "toolonglabel" | "emptylabel" => {
            "refused at MAIL: RFC 5321 §4.1.2 knows no such domain (labels: RFC 1035 §2.3.4)"
        }
        "nolocalpart" => "refused at MAIL: RFC 5321 §4.1.2 demands a local part",
        "dorky-sentinel" => "refused at MAIL: RFC 5321 §4.1.2 has no such local part without quotes",
        "null-text" => {
            "RFC 1035 §3.3.14 demands a string in TXT: the answer as a whole can't be read, which is RFC 7208 §2.6.6"
        }
        _ => "",
    }
}

/// Plays all cases of a scenario; what came of each.
fn play(pair: &Pair, scenario: &Value) -> BTreeMap<String, String> {
    let dns = LyingDns::start().expect("a name server");
    for (name, records) in scenario["zonedata"].as_object().expect("a zone") {
        fill(&dns, name, records.as_array().expect("records"));
    }
    dns.text(&format!("_dmarc.{WATCHED}"), "v=DMARC1; p=none");
    ask_at(pair, dns.address());
    let cases: Vec<_> = scenario["tests"].as_object().expect("cases").iter().collect();
    let (next, refused) = (Mutex::new(cases.iter()), Mutex::new(BTreeMap::new()));
    let take = || next.lock().expect("unpoisoned").next();
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS.min(cases.len()) {
            scope.spawn(|| {
                while let Some((case, test)) = take() {
                    if let Err(why) = send(case, test) {
                        refused.lock().expect("unpoisoned").insert((*case).clone(), why);
                    }
                }
            });
        }
    });
    let mut found = refused.into_inner().expect("unpoisoned");
    for file in message::files(&pair.maildir(ALICE)) {
        let stored = String::from_utf8_lossy(&fs::read(&file).expect("readable")).replace("\r\n", "\n");
        let fields = fields(&stored);
        let case = values(&fields, "Subject")[0].to_owned();
        let spf = values(&fields, "Received-SPF")[0].split(' ').next().unwrap_or_default().to_owned();
        found.insert(case, spf);
        fs::remove_file(file).expect("removed");
    }
    found
}

/// Sends the message of a case; an error is the reply that refused it.
fn send(case: &str, test: &Value) -> Result<(), String> {
    let text = |key: &str| test[key].as_str().expect("text");
    let host: IpAddr = text("host").parse().expect("an address");
    let host = host.to_canonical();
    let door: SocketAddr =
        if host.is_ipv4() { ([127, 0, 0, 1], PORT).into() } else { (std::net::Ipv6Addr::LOCALHOST, PORT).into() };
    let mut client = Client::connect_from(host, door).map_err(|error| format!("{error:#}"))?;
    let steps = [
        (None, 220),
        (Some(format!("EHLO {}", text("helo"))), 250),
        (Some(format!("MAIL FROM:<{}>", text("mailfrom"))), 250),
        (Some(format!("RCPT TO:<{ALICE}>")), 250),
        (Some("DATA".to_owned()), 354),
        (Some(format!("From: x@{WATCHED}\r\nSubject: {case}\r\n\r\nx\r\n.")), 250),
    ];
    for (say, code) in steps {
        let answer = match say {
            Some(say) => client.ask(&say),
            None => client.answer(),
        };
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        if answer.code != code {
            return Err(format!("{} {}", answer.code, answer.text()));
        }
    }
    Ok(())
}

/// From now on the edge asks there, and has forgotten all answers.
fn ask_at(pair: &Pair, server: SocketAddr) {
    let edge = &pair.edge().program;
    let mut config: toml::Table = fs::read_to_string(&edge.config).expect("readable").parse().expect("TOML");
    config["dns"]["servers"] = vec![server.to_string()].into();
    fs::write(&edge.config, config.to_string()).expect("written");
    edge.ask(&["reload"]).expect("taken");
}

/// Fills a zone as the suite's own driver does: what is given for type SPF is published as TXT where there is no TXT.
fn fill(dns: &LyingDns, name: &str, records: &[Value]) {
    let has_text = records.iter().any(|record| record.get("TXT").is_some());
    for record in records {
        if record == "TIMEOUT" {
            // For types that are not named before it; TXT and addresses never stand together with one.
            if !records.iter().any(|record| record.get("TXT").is_some_and(|text| text != "NONE")) {
                dns.lie(name, Lie::Code(ResponseCode::ServFail));
            }
            continue;
        }
        for (kind, value) in record.as_object().expect("a record") {
            match kind.as_str() {
                "TXT" if value == "NONE" => {}
                "SPF" if has_text => {}
                "TXT" | "SPF" => {
                    let strings: Vec<Vec<u8>> = words(value).iter().map(|text| octets(text)).collect();
                    dns.add(name, RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect())));
                }
                "A" | "AAAA" => dns.host(name, value.as_str().and_then(|text| text.parse().ok()).expect("an address")),
                "MX" => {
                    let preference = value[0].as_u64().and_then(|number| u16::try_from(number).ok());
                    dns.exchanger(name, preference.expect("a number"), value[1].as_str().expect("a name"));
                }
                "PTR" => dns.pointer(name, value.as_str().expect("a name")),
                "CNAME" => dns.alias(name, value.as_str().expect("a name")),
                other => panic!("{other} of {name}"),
            }
        }
    }
}

/// One text, or several.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// The suite writes octets as the letters with their numbers.
fn octets(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("an octet")).collect()
}

/// The suite's scenarios, in its order.
fn suite() -> Vec<Value> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new(peers::program("python3"));
    let json = peers::run(python.args(["-c", read]).arg(data("rfc7208-tests.yml"))).expect("python3 with yaml");
    serde_json::from_str(&json).expect("JSON")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("judging").join(name)
}
