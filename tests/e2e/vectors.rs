//! Signed and sealed messages of others, against the real edge: those dkimpy's own tests verify, the library's, and the
//! examples of the RFCs. The edge asks a name server that holds their keys; what it found is read from what was stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use gatepost_tests::client::Client;
use gatepost_tests::fault::lying_dns::LyingDns;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use serde_json::Value;

use super::spf_suite::{compare_table, data, octets};
use super::{ALICE, fields, started, values};

/// A message, its DNS, and what is to be found.
struct Vector {
    source: String,
    name: String,
    dns: BTreeMap<String, Vec<u8>>,
    message: Vec<u8>,
    method: &'static str,
    expected: String,
}

#[test]
fn every_message_has_the_result_the_table_says() {
    let pair = started(&Options::story().home_set("policy.unknown_sender=accept"));
    let vectors: Vec<_> = dkimpys().into_iter().chain(of_folder("mail-auth")).chain(of_folder("rfc")).collect();
    let mut found = BTreeMap::new();
    for group in groups(&vectors) {
        let dns = LyingDns::start().expect("a name server");
        for (name, text) in group.zone {
            dns.octets(name, text);
        }
        // Who sends them exists.
        dns.text("vectors.test", "v=spf1 ?all");
        pair.ask_dns_at(dns.address());
        for index in group.members {
            let refusal = send(&pair, index, &vectors[index].message);
            found.extend(refusal.map(|refusal| (index, refusal)));
        }
    }
    for file in message::files(&pair.maildir(ALICE)) {
        let stored = String::from_utf8_lossy(&fs::read(&file).expect("readable")).replace("\r\n", "\n");
        let fields = fields(&stored);
        let path = values(&fields, "Return-Path")[0];
        let index: usize =
            path.trim_matches(['<', '>']).split('@').next().and_then(|text| text.parse().ok()).expect("ours");
        let vector = &vectors[index];
        let results = values(&fields, "Authentication-Results")[0];
        found.insert(index, result(vector, results));
    }
    let rows: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let got = found.remove(&index).unwrap_or_else(|| "nothing".to_owned());
            let expected = if vector.expected == "no pass" { unproven(&got) } else { vector.expected.clone() };
            let reason = if expected == got { "" } else { reason(&vector.name) };
            let name = format!("{} {}", index + 1, vector.name);
            [vector.source.clone(), name, expected, got, reason.to_owned()]
        })
        .collect();
    compare_table("vectors-results.md", ["source", "message"], &rows);
}

/// dkimpy says only that it does not verify: any of the words for that will do.
fn unproven(got: &str) -> String {
    let words = ["fail", "neutral", "permerror", "none"];
    let refused = got.starts_with("550 5.6.0 ");
    if words.contains(&got) || refused { got.to_owned() } else { "no pass".to_owned() }
}

/// Why a message may have another result than its source says.
fn reason(name: &str) -> &'static str {
    if name.contains("test_l_verify") || name.contains("test_add_body_length") {
        "l= leaves room for a stranger's text behind what is signed: not counted as a signature (RFC 6376 §8.2)"
    } else if name.contains("test_dkim_signature_canonicalization") {
        "RFC 8301 §3.2: a key of 512 bits proves nothing (the test lowers its own bound)"
    } else if name.contains("dkim-005") {
        "x= is past by now (RFC 6376 §3.5); it was not when the message was written"
    } else {
        ""
    }
}

/// Sends it; the reply if it was refused.
fn send(pair: &Pair, index: usize, message: &[u8]) -> Option<String> {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.deliver(&format!("{index}@vectors.test"), &[ALICE], message).expect("answered");
    (answer.code != 250).then(|| format!("{} {}", answer.code, answer.text()))
}

/// What the results say of this message's chain, or of its first signature that can be found in them, else of the first.
fn result(vector: &Vector, results: &str) -> String {
    let method = vector.method;
    let found: Vec<&str> =
        results.split("; ").filter_map(|part| part.strip_prefix(method)?.strip_prefix('=')).collect();
    let message: String =
        vector.message.iter().map(|octet| char::from(*octet)).filter(|letter| !letter.is_whitespace()).collect();
    let place = |part: &&&str| {
        let (_, start) = part.split_once("header.b=")?;
        let start = start.trim_matches('"').split(['"', ' ']).next()?;
        message.find(&format!("b={start}"))
    };
    let first = found.iter().filter(|part| place(part).is_some()).min_by_key(place).or(found.first());
    first.and_then(|part| part.split(' ').next()).unwrap_or("none").to_owned()
}

/// Records of one zone, and the vectors that need them.
#[derive(Default)]
struct Group<'a> {
    zone: BTreeMap<&'a String, &'a Vec<u8>>,
    members: Vec<usize>,
}

/// Vectors whose records can stand in one zone.
fn groups(vectors: &[Vector]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (index, vector) in vectors.iter().enumerate() {
        let fits = |group: &Group<'_>| {
            vector.dns.iter().all(|(name, text)| group.zone.get(name).is_none_or(|other| *other == text))
        };
        let at = groups.iter().position(fits).unwrap_or_else(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        groups[at].zone.extend(&vector.dns);
        groups[at].members.push(index);
    }
    groups
}

/// What dkimpy's own tests verify.
fn dkimpys() -> Vec<Vector> {
    let text = fs::read_to_string(data("dkimpy-vectors.json")).expect("readable");
    let all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let vector = |value: &Value| {
        let text = |key: &str| value[key].as_str().expect("text");
        let dns = value["dns"].as_object().expect("records").iter();
        Vector {
            source: "dkimpy".to_owned(),
            name: text("test").replace("TestSignAndVerify.", ""),
            dns: dns.map(|(name, value)| (name.clone(), octets(value.as_str().expect("text").trim_end()))).collect(),
            message: with_crlf(&octets(text("message"))),
            method: if text("method") == "arc" { "arc" } else { "dkim" },
            expected: text("expected").to_owned(),
        }
    };
    all.iter().map(vector).collect()
}

/// Files of records, an empty line, and a message; all of them pass.
fn of_folder(folder: &str) -> Vec<Vector> {
    let files = fs::read_dir(data(folder)).expect("a folder").flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|name| name == "txt")).collect();
    files.sort();
    let vector = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("readable");
        let (records, message) = text.split_once("\n\n").expect("records and a message");
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let record = |line: &str| line.split_once(' ').map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        Vector {
            source: folder.to_owned(),
            method: if name.starts_with("arc") { "arc" } else { "dkim" },
            name,
            dns: records.lines().filter_map(record).collect(),
            message: with_crlf(message.as_bytes()),
            expected: "pass".to_owned(),
        }
    };
    files.iter().map(vector).collect()
}

/// The message as it goes over the wire: every line ended by CR LF, the last one too.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + text.len() / 32 + 2);
    for octet in text {
        if *octet == b'\n' && wire.last() != Some(&b'\r') {
            wire.push(b'\r');
        }
        wire.push(*octet);
    }
    if !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire
}
