//! What `doctor` says is so: each ✗ is of a thing that a test broke, for real, and gone once it is mended.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use gatepost_tests::client::Client;
use gatepost_tests::fault::namespace;
use gatepost_tests::fault::skewed_clock::SkewedClock;
use gatepost_tests::fault::small_disk::SmallDisk;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Addresses, Options};
use gatepost_tests::world::sink::Sink;
use serde_json::Value;

use super::started;

/// The edge's address and a stranger's: public ones, in a network namespace of its own.
const EDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 25));
const STRANGER_AT: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 30));
const PTR: &str = "25.215.184.93.in-addr.arpa";
const LIST: &str = "2.0.0.127.list.example";
/// The home has a word about a disk with less room, in octets.
const WORTH_A_WORD: u64 = 1024 * MEBIBYTE;
const MEBIBYTE: u64 = 1024 * 1024;
const LISTED: &str = "25.215.184.93.list.example";

/// Public addresses that are ours.
const ADDRESSES: &str =
    "ip link set lo up && for last in 25 26 27 30; do ip address add 93.184.215.$last/32 dev lo; done";

/// Runs the story of this name in a network namespace of its own, where public addresses are ours.
fn inside(story: &str) {
    namespace::run_inside(&format!("doctor::inside_a_namespace_{story}"), ADDRESSES);
}

#[test]
fn each_record_that_is_broken_is_found_and_found_mended() {
    inside("records");
}

#[test]
fn what_could_not_be_asked_is_no_fault_of_what_was_asked_about() {
    inside("unasked");
}

#[test]
fn each_machine_that_is_broken_is_found_and_found_mended() {
    inside("machines");
}

#[test]
fn another_edge_judges_whether_the_world_reaches_the_first() {
    inside("second_edge");
}

#[test]
fn a_wrong_date_and_a_full_disk_are_found_and_found_mended() {
    // A disk of its own is mounted.
    namespace::run_inside_as_root("doctor::inside_a_namespace_date_and_disk", ADDRESSES);
}

/// What was found, by what it is of and what was looked at: the worst mark, and all words.
type Found = BTreeMap<(String, String), (String, String)>;

/// A pair whose DNS is as it should be, and a mail host elsewhere.
fn healthy() -> (Pair, Sink) {
    let pair = started(&options());
    let elsewhere = make_healthy(&pair);
    (pair, elsewhere)
}

fn options() -> Options {
    Options { addresses: Addresses { edge: EDGE, ..Addresses::default() }, ..Options::story() }
}

fn make_healthy(pair: &Pair) -> Sink {
    let told = pair.home.program.ask_json(&["dns", "--json"]).expect("told");
    let mut records: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for record in told["records"].as_array().expect("records") {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        if matches!(record["state"].as_str(), Some("publish" | "ask-provider")) {
            let value = if text("type") == "TXT" { quoted(&text("value")) } else { text("value") };
            records.entry((text("name"), text("type"))).or_default().push(value);
        }
    }
    for ((name, kind), values) in &records {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        pair.replace_records(name, kind, &values).expect("published");
    }
    pair.replace_records(LIST, "A", &["127.0.0.2"]).expect("published");
    pair.replace_records("reach.example", "MX", &["10 mx.reach.example."]).expect("published");
    pair.replace_records("mx.reach.example", "A", &["93.184.215.27"]).expect("published");
    set(pair);
    pair.another_sink("elsewhere", ([93, 184, 215, 27], 25).into(), true).expect("a sink")
}

/// A text as a zone file has it, in strings short enough.
fn quoted(text: &str) -> String {
    let parts = text.as_bytes().chunks(250).map(|part| format!("\"{}\"", String::from_utf8_lossy(part)));
    parts.collect::<Vec<_>>().join(" ")
}

/// Whom the doctor asks.
fn set(pair: &Pair) {
    let config = &pair.home.program.config;
    let text = fs::read_to_string(config).expect("readable");
    let server = pair.dns.address();
    let doctor =
        format!("\n[doctor]\nservers = [\"{server}\"]\nlists = [\"list.example\"]\nreaches = [\"reach.example\"]\n");
    fs::write(config, text + &doctor).expect("written");
}

/// Looks once; and whether it ended well.
fn look(pair: &Pair) -> (Found, bool) {
    let ca = pair.ca.display().to_string();
    let output = pair.home.program.cli(&["doctor", "--json", "--ca", &ca]).output().expect("it runs");
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut found = Found::new();
    for finding in told["findings"].as_array().expect("findings") {
        let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let words = format!("{} → {}", text("found"), text("remedy"));
        let entry = found.entry((text("of"), text("check"))).or_insert_with(|| (text("mark"), String::new()));
        if rank(&text("mark")) > rank(&entry.0) {
            entry.0 = text("mark");
        }
        entry.1 += &words;
        entry.1.push('\n');
    }
    (found, output.status.success())
}

fn rank(mark: &str) -> usize {
    ["good", "unsure", "bad"].iter().position(|known| *known == mark).expect("a mark")
}

/// Looks until only these are marked so. Others may follow from what was broken: they are named.
fn until_only(pair: &Pair, mark: &str, expected: &[(&str, &str)], words: &str) {
    observe::until(
        &format!("{expected:?} alone to be {mark}, with {words:?}"),
        || look(pair),
        |(found, well)| {
            let marked: Vec<(&str, &str)> = found
                .iter()
                .filter(|(_, (found, _))| found == mark)
                .map(|((of, check), _)| (of.as_str(), check.as_str()))
                .collect();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            let said = expected.is_empty() || found.values().any(|(found, told)| found == mark && told.contains(words));
            marked == expected && said && *well == (mark != "bad" || expected.is_empty())
        },
    );
}

fn all_is_well(pair: &Pair) {
    until_only(pair, "bad", &[], "");
}

/// Name, type, what takes its place, what is ✗ then, in these words.
type Case<'a> = (&'a str, &'a str, Vec<&'a str>, Vec<(&'a str, &'a str)>, &'a str);

const OURS: &str = "example.org";
const HOST: &str = "mail.example.org";

#[test]
#[ignore = "run by a test above, in a network namespace"]
fn inside_a_namespace_records() {
    let (pair, _elsewhere) = healthy();
    all_is_well(&pair);
    let told = pair.home.program.ask_json(&["dns", "--json"]).expect("told");
    let value = |name: &str, kind: &str| {
        let records = told["records"].as_array().expect("records");
        let found = records.iter().find(|record| record["name"] == name && record["type"] == kind);
        let value = found.unwrap_or_else(|| panic!("{kind} of {name}"))["value"].as_str().expect("known").to_owned();
        if kind == "TXT" { quoted(&value) } else { value }
    };
    let key = told["records"].as_array().expect("records").iter().find_map(|record| {
        record["name"].as_str().filter(|name| name.contains("._domainkey.") && name.ends_with(OURS)).map(str::to_owned)
    });
    let key = key.expect("a key");
    let dmarc = format!("_dmarc.{OURS}");
    let srv = format!("_submissions._tcp.{OURS}");
    let spf_of_others = "\"v=spf1 ip4:192.0.2.1 -all\"";
    let other_key = "\"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7\"";
    let spf_then = vec![(OURS, "spf")];
    let dkim_then = vec![(OURS, "dkim"), (OURS, "own-mail")];
    let dmarc_then = vec![(OURS, "dmarc"), (OURS, "own-mail")];
    let cases: Vec<Case<'_>> = vec![
        (OURS, "MX", vec![], vec![(OURS, "mx")], "publish example.org. MX 10 mail.example.org."),
        (OURS, "MX", vec!["10 mx.other.example."], vec![(OURS, "mx")], "its mail goes elsewhere: mx.other.example"),
        (HOST, "A", vec![], vec![("edge", "address")], "does not lead to 93.184.215.25"),
        (HOST, "A", vec!["93.184.215.99"], vec![("edge", "address")], "leads to 93.184.215.99, which is not this edge"),
        (HOST, "AAAA", vec!["2001:db8::1"], vec![("edge", "address")], "leads to 2001:db8::1"),
        (PTR, "PTR", vec![], vec![("edge", "ptr")], "93.184.215.25 has no name"),
        (PTR, "PTR", vec!["host-25.provider.example."], vec![("edge", "ptr")], "is called host-25.provider.example."),
        (OURS, "TXT", vec![], spf_then.clone(), "no SPF record"),
        (OURS, "TXT", vec![spf_of_others], spf_then.clone(), "does not let 93.184.215.25 send its mail (fail)"),
        (OURS, "TXT", vec!["\"v=spf1 +all\"", spf_of_others], spf_then.clone(), "it has 2 SPF records"),
        (OURS, "TXT", vec!["\"v=spf1 include:nowhere.example -all\""], spf_then, "(permerror)"),
        (&key, "TXT", vec![], dkim_then.clone(), "is not published"),
        (&key, "TXT", vec![other_key], dkim_then, "holds another key"),
        (&dmarc, "TXT", vec![], dmarc_then.clone(), "no DMARC record"),
        (&dmarc, "TXT", vec!["\"v=DMARC1; p=maybe\""], dmarc_then.clone(), "asks for nothing known"),
        (&dmarc, "TXT", vec!["\"v=DMARC1; p=none\"", "\"v=DMARC1; p=reject\""], dmarc_then, "it has 2 DMARC records"),
        (&srv, "SRV", vec!["0 1 587 mail.example.org."], vec![(OURS, "srv")], "sent elsewhere: 0 1 587"),
        (LISTED, "A", vec!["127.0.0.4"], vec![("edge", "dns-lists")], "is listed by list.example: 127.0.0.4"),
        ("mx.reach.example", "A", vec!["93.184.215.26"], vec![("edge", "port-25-out")], "open port 25 outwards"),
    ];
    for (name, kind, broken, expected, words) in cases {
        pair.replace_records(name, kind, &broken).expect("broken");
        until_only(&pair, "bad", &expected, words);
        let mended = match name {
            LISTED => Vec::new(),
            "mx.reach.example" => vec!["93.184.215.27".to_owned()],
            HOST if kind == "AAAA" => Vec::new(),
            name => vec![value(name, kind)],
        };
        pair.replace_records(name, kind, &mended.iter().map(String::as_str).collect::<Vec<_>>()).expect("mended");
        all_is_well(&pair);
    }
}

#[test]
#[ignore = "run by a test above, in a network namespace"]
fn inside_a_namespace_unasked() {
    let (pair, _elsewhere) = healthy();
    // A list that lists everything, one that does not even list its test entry.
    pair.replace_records("1.0.0.127.list.example", "A", &["127.0.0.2"]).expect("published");
    let unverified = [("edge", "port-25-in")];
    let unsure = |more: (&'static str, &'static str)| [unverified[0], more];
    until_only(&pair, "unsure", &unsure(("edge", "dns-lists")), "it lists everything");
    pair.replace_records("1.0.0.127.list.example", "A", &[]).expect("taken away");
    pair.replace_records(LIST, "A", &["127.255.255.254"]).expect("published");
    until_only(&pair, "unsure", &unsure(("edge", "dns-lists")), "the error 127.255.255.254");
    pair.replace_records(LIST, "A", &["127.0.0.2"]).expect("mended");
    until_only(&pair, "unsure", &unverified, "nobody from outside has come by it yet");
    // A resolver that answers nobody: nothing is ✗ for it.
    let text = fs::read_to_string(&pair.home.program.config).expect("readable");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let dead = silent.local_addr().expect("bound").to_string();
    fs::write(
        &pair.home.program.config,
        text.replace(
            &format!("servers = [\"{}\"]\nlists", pair.dns.address()),
            &format!("servers = [\"{dead}\"]\nlists"),
        ),
    )
    .expect("written");
    let (found, well) = look(&pair);
    assert!(well, "{found:?}");
    let mx = &found[&(OURS.to_owned(), "mx".to_owned())];
    assert!(mx.0 == "unsure" && mx.1.contains("could not be asked"), "{mx:?}");
}

#[test]
#[ignore = "run by a test above, in a network namespace"]
fn inside_a_namespace_machines() {
    let (mut pair, _elsewhere) = healthy();
    // 465: its door, then its certificate.
    let config = pair.edge().program.config.clone();
    let good = fs::read_to_string(&config).expect("readable");
    let away = good.replace(&format!("submissions = \"{}\"", pair.edge().doors.submissions), "submissions = \"off\"");
    assert_ne!(good, away);
    fs::write(&config, &away).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    let (found, _) = look(&pair);
    assert!(!found.contains_key(&("edge".to_owned(), "port-465".to_owned())), "it is not offered: {found:?}");
    fs::write(&config, &good).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    all_is_well(&pair);

    let other = pair.home.program.config.clone();
    let home = fs::read_to_string(&other).expect("readable");
    let line = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    let (mut borrowed, of_home) = (good.clone(), home.clone());
    for name in ["certificate = ", "key = \"/"] {
        borrowed = borrowed.replace(&line(&good, name), &line(&of_home, name));
    }
    fs::write(&config, &borrowed).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    until_only(&pair, "bad", &[("edge", "port-465")], "give the edge a certificate");
    fs::write(&config, &good).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    all_is_well(&pair);

    // The edge itself.
    pair.edge_mut().program.kill();
    until_only(&pair, "bad", &[("edge", "tunnel"), ("this home", "status")], "not connected");
    pair.edge_mut().program.start().expect("started");
    all_is_well(&pair);

    // Somebody else listens where its name leads, and takes everything.
    let relay = TcpListener::bind((Ipv4Addr::new(93, 184, 215, 26), pair.edge().doors.smtp.port())).expect("a port");
    std::thread::spawn(move || {
        for stream in relay.incoming().flatten() {
            std::thread::spawn(move || {
                use std::io::{BufRead as _, BufReader, Write as _};
                let mut out = stream.try_clone().expect("a clone");
                let _ = out.write_all(b"220 open to all\r\n");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let reply: &[u8] = if line == "QUIT" { b"221 bye\r\n" } else { b"250 as you like\r\n" };
                    let _ = out.write_all(reply);
                }
            });
        }
    });
    pair.replace_records(HOST, "A", &["93.184.215.26"]).expect("moved");
    until_only(&pair, "bad", &[("edge", "address"), ("edge", "open-relay")], "a stranger's \"RCPT TO:<");
    pair.replace_records(HOST, "A", &["93.184.215.25"]).expect("moved back");
    all_is_well(&pair);
    drop(Client::connect_from(STRANGER_AT, pair.edge().doors.smtp).expect("let in"));
    observe::until(
        "the stranger to count",
        || look(&pair).0,
        |found| found[&("edge".to_owned(), "port-25-in".to_owned())].0 == "good",
    );
    let text = pair.home.program.cli(&["doctor", "--ca", &pair.ca.display().to_string()]).output().expect("it runs");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for line in ["  ✓ mx: its mail comes by mail.example.org", "  ✓ port-25-in: somebody came by it", "All is well."]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
#[ignore = "run by a test above, in a network namespace"]
fn inside_a_namespace_second_edge() {
    let mut pair = started(&Options { edges: 2, ..options() });
    // The second one has a name of its own; nobody logs in there.
    let config = pair.edges[1].program.config.clone();
    let text = fs::read_to_string(&config).expect("readable");
    let other = text
        .replace("hostname = \"mail.example.org\"", "hostname = \"mail2.example.org\"")
        .replace(&format!("submissions = \"{}\"", pair.edges[1].doors.submissions), "submissions = \"off\"");
    fs::write(&config, other).expect("written");
    pair.edges[1].program.kill();
    pair.edges[1].program.start().expect("started");
    observe::until_ok("the home to know the second edge's name", || {
        let told = pair.home.program.ask(&["dns", "--json"])?;
        anyhow::ensure!(told.contains("20 mail2.example.org."), "{told}");
        Ok(())
    });
    let _elsewhere = make_healthy(&pair);
    all_is_well(&pair);
    let (found, _) = look(&pair);
    let of = |check: &str| found[&("edge".to_owned(), check.to_owned())].clone();
    assert!(of("port-25-in").0 == "good" && of("port-25-in").1.contains("edge2 reached it: 220 "), "{found:?}");

    // It listens, but where only its own machine reaches it.
    let config = pair.edge().program.config.clone();
    let good = fs::read_to_string(&config).expect("readable");
    let smtp = pair.edge().doors.smtp;
    let shut = good.replace(&format!("\"{smtp}\""), &format!("\"127.0.0.1:{}\"", smtp.port()));
    assert_ne!(good, shut);
    fs::write(&config, shut).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    let words = format!("edge2 did not reach mail.example.org:{}", smtp.port());
    until_only(&pair, "bad", &[("edge", "port-25-in")], &words);
    fs::write(&config, good).expect("written");
    pair.edge().program.ask(&["reload"]).expect("taken");
    all_is_well(&pair);
}

#[test]
#[ignore = "run by a test above, in a network namespace"]
fn inside_a_namespace_date_and_disk() {
    let clock = SkewedClock::new().expect("a clock");
    let disk = SmallDisk::mount(WORTH_A_WORD + 64 * MEBIBYTE).expect("a small disk");
    let home_state = Some(disk.path().join("home"));
    let pair = started(&Options { edge_wrapper: clock.wrapper(), home_state, ..options() });
    let _elsewhere = make_healthy(&pair);
    all_is_well(&pair);

    clock.set(90).expect("set");
    until_only(&pair, "bad", &[("edge", "clock")], "s ahead of this home's");
    clock.set(-20).expect("set");
    until_only(&pair, "unsure", &[("edge", "clock"), ("edge", "port-25-in")], "s behind this home's");
    clock.set(0).expect("set");
    all_is_well(&pair);
    until_only(&pair, "unsure", &[("edge", "port-25-in")], "");

    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 96 << 20]).expect("written");
    until_only(&pair, "bad", &[("this home", "status")], "the disk is nearly full");
    fs::remove_file(&filler).expect("removed");
    all_is_well(&pair);
}
