//! The SPF suites of others, against the real edge: each case comes from its own client address, asks a name server that
//! holds its zone, and its result is read from the message that was stored. `tests/judging` lists what was found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
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
/// Set, the tables are written anew instead of compared.
const WRITE: &str = "GATEPOST_WRITE_RESULTS";

/// Cases that share a zone.
struct Scenario {
    title: String,
    dns: LyingDns,
    cases: Vec<Case>,
}

/// One question of a suite.
struct Case {
    name: String,
    client: IpAddr,
    helo: String,
    sender: String,
    /// Any of these is right.
    expected: Vec<String>,
}

/// What the edge found: of the name in EHLO and of MAIL FROM, or the reply by which it refused.
type Findings = BTreeMap<String, Result<(String, String), String>>;

#[test]
fn every_case_of_the_suites_has_the_result_the_tables_say() {
    namespace::run_inside("spf_suite::inside_a_namespace_with_every_address", namespace::EVERY_ADDRESS);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_namespace_with_every_address() {
    // Whether mail could go back there is none of the suites' questions.
    let mut options = Options::story().edge_set(&format!("listen.smtp=[::]:{PORT}"));
    // Hundreds of strangers without names come from a few networks at once, one of them by the pair's own name; few of
    // their domains exist but for their SPF records.
    for setting in [
        "hostname=edge.gatepost.test",
        "admission.greeting_delay=0 s",
        "limits.connections_per_minute_per_network=3000",
    ] {
        options = options.edge_set(setting);
    }
    let pair = started(&options.home_set("policy.unknown_sender=accept"));
    // The suite of the RFC judges MAIL FROM.
    let of_sender = |_: &Case, (_, sender): &(String, String)| sender.clone();
    compare(&pair, "rfc7208-results.md", rfc_suite().iter().map(rfc_scenario), of_sender);
    // The library's own cases judge both, and let a failing EHLO decide.
    let of_both = |case: &Case, (helo, sender): &(String, String)| {
        if case.sender.is_empty() || helo == "fail" { helo.clone() } else { sender.clone() }
    };
    compare(&pair, "mail-auth-spf-results.md", library_scenarios(), of_both);
}

/// Plays the scenarios and compares what came of them with the table of that name.
fn compare(
    pair: &Pair,
    table: &str,
    scenarios: impl Iterator<Item = Scenario>,
    result: impl Fn(&Case, &(String, String)) -> String,
) {
    let mut rows = Vec::new();
    for scenario in scenarios {
        let findings = play(pair, &scenario);
        for case in &scenario.cases {
            let got = match findings.get(&case.name) {
                Some(Ok(found)) => result(case, found),
                Some(Err(refusal)) => refusal.clone(),
                None => "nothing".to_owned(),
            };
            let fits = case.expected.contains(&got);
            let reason = if fits { "" } else { reason(&scenario.title, &case.name) };
            rows.push([scenario.title.clone(), case.name.clone(), case.expected.join(" or "), got, reason.to_owned()]);
        }
    }
    compare_table(table, ["scenario", "case"], &rows);
}

/// Compares rows (two names, what is expected, what was found, why that differs) with the table in the tree.
pub(super) fn compare_table(name: &str, heads: [&str; 2], rows: &[[String; 5]]) {
    let expects = |row: &[String; 5]| row[2].split(" or ").any(|one| one == row[3]);
    let wrong: Vec<_> =
        rows.iter().filter(|row| !expects(row) && row[4].is_empty()).map(|row| row.join(" | ")).collect();
    assert!(wrong.is_empty(), "{} differ without a reason:\n{}", wrong.len(), wrong.join("\n"));
    let differ = rows.iter().filter(|row| !expects(row)).count();
    let mut table = format!("{} cases, {differ} of them with another result than expected.\n\n", rows.len());
    let _ = writeln!(table, "| {} | {} | expected | Gatepost | why |\n|---|---|---|---|---|", heads[0], heads[1]);
    for row in rows {
        let _ = writeln!(table, "| {} |", row.join(" | "));
    }
    let path = data(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &table).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), table, "{} is not what was found", path.display());
}

/// Why a case may have another result than its suite says.
fn reason(title: &str, case: &str) -> &'static str {
    match (title, case) {
        (_, "toolonglabel" | "emptylabel") | ("Malformed Domains", _) => {
            "refused at MAIL: RFC 5321 §4.1.2 knows no such domain (sizes: RFC 1035 §2.3.4)"
        }
        (_, "nolocalpart") => "refused at MAIL: RFC 5321 §4.1.2 demands a local part",
        (_, "dorky-sentinel") => "refused at MAIL: RFC 5321 §4.1.2 has no such local part without quotes",
        (_, "null-text") => {
            "RFC 1035 §3.3.14 demands a string in TXT: the answer as a whole can't be read, which is RFC 7208 §2.6.6"
        }
        (_, case) if case.contains(" ff0") => "RFC 4291 §2.7: a multicast address is no client's",
        ("All test", _) => "RFC 7208 §4.6: `ip:` is no mechanism, and an error anywhere in a record spoils it",
        ("DNS Lookup Limits", case) if case.starts_with("1 ") => {
            "RFC 7208 §4.6.4: more than two of the names do not exist"
        }
        ("DNS Lookup Limits", _) => "RFC 7208 §4.6.4: more than 10 mail hosts, whichever of them is asked for first",
        ("Exists" | "Macro expansion 2", _) => "RFC 7208 §5.7: an A record is looked for, whatever the client's family",
        ("IPv6 match", _) => {
            "RFC 7208 §5.6, and the RFC's suite (cidr6-ip4): a client by IPv4 is in no network of IPv6"
        }
        _ => "",
    }
}

/// Plays all cases of a scenario; what came of each.
fn play(pair: &Pair, scenario: &Scenario) -> Findings {
    scenario.dns.text(&format!("_dmarc.{WATCHED}"), "v=DMARC1; p=none");
    pair.ask_dns_at(scenario.dns.address());
    let (next, findings) = (Mutex::new(scenario.cases.iter()), Mutex::new(Findings::new()));
    let take = || next.lock().expect("unpoisoned").next();
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS.min(scenario.cases.len()) {
            scope.spawn(|| {
                while let Some(case) = take() {
                    if let Err(refusal) = send(case) {
                        findings.lock().expect("unpoisoned").insert(case.name.clone(), Err(refusal));
                    }
                }
            });
        }
    });
    let mut findings = findings.into_inner().expect("unpoisoned");
    for file in message::files(&pair.maildir(ALICE)) {
        let stored = String::from_utf8_lossy(&fs::read(&file).expect("readable")).replace("\r\n", "\n");
        let fields = fields(&stored);
        let results = values(&fields, "Authentication-Results")[0];
        let of = |identity: &str| {
            let found = results.split("; ").find(|part| part.starts_with("spf=") && part.contains(identity));
            found.and_then(|part| part[4..].split(' ').next()).unwrap_or("nothing").to_owned()
        };
        let (helo, sender) = (of("smtp.helo"), of("smtp.mailfrom"));
        let received_spf = values(&fields, "Received-SPF")[0].split(' ').next().unwrap_or_default();
        assert_eq!(received_spf, sender, "the two fields agree");
        findings.insert(values(&fields, "Subject")[0].to_owned(), Ok((helo, sender)));
        fs::remove_file(file).expect("removed");
    }
    findings
}

/// Sends the message of a case; an error is the reply that refused it.
fn send(case: &Case) -> Result<(), String> {
    let local = if case.client.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { Ipv6Addr::LOCALHOST.into() };
    let connected = Client::connect_from(case.client, SocketAddr::new(local, PORT));
    let mut client = connected.map_err(|_| "no client can connect from there".to_owned())?;
    let steps = [
        (None, 220),
        (Some(format!("EHLO {}", case.helo)), 250),
        (Some(format!("MAIL FROM:<{}>", case.sender)), 250),
        (Some(format!("RCPT TO:<{ALICE}>")), 250),
        (Some("DATA".to_owned()), 354),
        (Some(format!("From: x@{WATCHED}\r\nSubject: {}\r\n\r\nx\r\n.", case.name)), 250),
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

/// A scenario of the RFC's suite.
fn rfc_scenario(scenario: &Value) -> Scenario {
    let dns = LyingDns::start().expect("a name server");
    for (name, records) in scenario["zonedata"].as_object().expect("a zone") {
        fill(&dns, name, records.as_array().expect("records"));
    }
    let cases = scenario["tests"].as_object().expect("cases").iter().map(|(name, test)| {
        let text = |key: &str| test[key].as_str().expect("text").to_owned();
        let client: IpAddr = text("host").parse().expect("an address");
        let expected = words(&test["result"]).into_iter().map(str::to_owned).collect();
        let (helo, sender) = (text("helo"), text("mailfrom"));
        Case { name: name.clone(), client: client.to_canonical(), helo, sender, expected }
    });
    let title = scenario["description"].as_str().expect("a title").to_owned();
    Scenario { title, cases: cases.collect(), dns }
}

/// Fills a zone as the suite's own driver does: what is given for type SPF is published as TXT where there is no TXT.
fn fill(dns: &LyingDns, name: &str, records: &[Value]) {
    let has_text = records.iter().any(|record| record.get("TXT").is_some());
    for record in records {
        if record == "TIMEOUT" {
            // For all types that have no record, and none of these zones asks a name for several.
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
pub(super) fn octets(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("an octet")).collect()
}

/// The RFC suite's scenarios, in its order.
fn rfc_suite() -> Vec<Value> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new(peers::program("python3"));
    let json = peers::run(python.args(["-c", read]).arg(data("rfc7208-tests.yml"))).expect("python3 with yaml");
    serde_json::from_str(&json).expect("JSON")
}

/// The library's scenarios, file by file. They look like YAML and are read line by line, as the library does it.
fn library_scenarios() -> impl Iterator<Item = Scenario> {
    let mut files: Vec<_> =
        fs::read_dir(data("mail-auth")).expect("a folder").flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    let texts = files.into_iter().map(|file| fs::read_to_string(file).expect("readable"));
    let parts = texts.flat_map(|text| text.split("---\n").map(str::to_owned).collect::<Vec<_>>());
    parts.flat_map(|text| LibraryReader::default().read(&text))
}

/// Records of the library's files by kind and name.
type Records = BTreeMap<(String, String), String>;

/// Reads a part of such a file: records, cases, other records in place of the first, cases.
struct LibraryReader {
    title: String,
    records: Records,
    cases: Vec<Case>,
    helo: String,
    sender: String,
    client: IpAddr,
    count: usize,
    done: Vec<(Records, Vec<Case>)>,
}

impl Default for LibraryReader {
    fn default() -> Self {
        Self {
            title: String::new(),
            records: Records::new(),
            cases: Vec::new(),
            helo: String::new(),
            sender: String::new(),
            client: IpAddr::from([127, 0, 0, 1]),
            count: 0,
            done: Vec::new(),
        }
    }
}

impl LibraryReader {
    fn read(mut self, text: &str) -> impl Iterator<Item = Scenario> + use<> {
        for line in text.lines().map(|line| line.trim().trim_start_matches('-').trim()) {
            let Some((key, value)) = line.split_once(':').map(|(key, value)| (key, value.trim())) else { continue };
            self.line(key, value);
        }
        self.finish();
        let title = self.title;
        self.done.into_iter().map(move |(records, cases)| Scenario { title: title.clone(), dns: zone(&records), cases })
    }

    fn line(&mut self, key: &str, value: &str) {
        match key {
            "name" => value.clone_into(&mut self.title),
            "spf" | "exp" | "a" | "aaaa" | "ptr" | "mx" => {
                if !self.cases.is_empty() {
                    self.finish();
                }
                let (name, data) = value.split_once(' ').expect("a record");
                self.records.insert((key.to_owned(), name.to_owned()), data.trim().to_owned());
            }
            "domain" => value.clone_into(&mut self.helo),
            "sender" => value.clone_into(&mut self.sender),
            "ip" => self.client = value.parse::<IpAddr>().expect("an address").to_canonical(),
            "expect" => {
                self.count += 1;
                // What follows the result is an explanation.
                let expected = vec![value.split(' ').next().unwrap_or_default().to_lowercase()];
                let name = format!("{} {} {} {}", self.count, self.client, self.helo, self.sender).trim().to_owned();
                let (helo, sender) = (self.helo.clone(), self.sender.clone());
                self.cases.push(Case { name, client: self.client, helo, sender, expected });
            }
            _ => {}
        }
    }

    fn finish(&mut self) {
        self.done.push((self.records.clone(), std::mem::take(&mut self.cases)));
    }
}

/// A name server with the library's records.
fn zone(records: &Records) -> LyingDns {
    let dns = LyingDns::start().expect("a name server");
    // The names its cases mean to fail.
    for name in ["_dns_error.org", "_dns_error.test.org"] {
        dns.lie(name, Lie::Code(ResponseCode::ServFail));
    }
    for ((kind, name), data) in records {
        let addresses = || data.split(',').map(|one| one.trim().parse::<IpAddr>().expect("an address"));
        match kind.as_str() {
            "spf" | "exp" => dns.text(name, data),
            "ptr" => data.split(',').for_each(|host| dns.reverse(name.parse().expect("an address"), host.trim())),
            "mx" => addresses().zip(1..).for_each(|(address, number)| {
                let host = format!("mx{number}.{name}");
                dns.host(&host, address);
                dns.exchanger(name, number, &host);
            }),
            _ => addresses().for_each(|address| dns.host(name, address)),
        }
    }
    dns
}

/// A file of `tests/judging`.
pub(super) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("judging").join(name)
}
