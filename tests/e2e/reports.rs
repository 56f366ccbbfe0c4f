//! What others report of our mail: read as each of them packs it, counted once, and never at the cost of a message.

use std::io::{Cursor, Write as _};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use gatepost_protocol::mail::report::reading::{Report, read};
use gatepost_runtime::clock::Clock;
use gatepost_tests::bench::usage::memory;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::{ALICE, started};

const GOOGLE: &str = include_str!("reports/google.xml");
const MICROSOFT: &str = include_str!("reports/microsoft.xml");
const YAHOO: &str = include_str!("reports/yahoo.xml");
const MAILRU: &str = include_str!("reports/mailru.xml");

/// Those who report prove who they are; a forger can't; and one domain publishes nothing but SPF.
const ZONE: &str = "\
google.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
_dmarc.google.example. 60 IN TXT \"v=DMARC1; p=reject\"
microsoft.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
_dmarc.microsoft.example. 60 IN TXT \"v=DMARC1; p=reject\"
yahoo.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
_dmarc.yahoo.example. 60 IN TXT \"v=DMARC1; p=reject\"
mailru.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
watching.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.watching.example. 60 IN TXT \"v=DMARC1; p=none\"
";

/// What the home may need beside what it needs anyway, whatever it is sent to read: what one report may hold.
const GROWTH_KIB_MAX: u64 = 40 * 1024;
/// Where our DMARC record sends them.
const POSTMASTER: &str = "postmaster@example.org";

fn pair() -> Pair {
    started(&Options { zone: ZONE.to_owned(), ..Options::story() })
}

/// A report of yesterday.
fn dated(xml: &str) -> Vec<u8> {
    let now = Clock::real().unix_s();
    let (begin, end) = (now - 36 * 3600, now - 12 * 3600);
    xml.replace("BEGIN", &begin.to_string()).replace("END", &end.to_string()).into_bytes()
}

fn gzip(file: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(file).and_then(|()| encoder.finish()).expect("in memory")
}

fn zip(name: &str, file: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(name, SimpleFileOptions::default()).expect("begun");
    archive.write_all(file).expect("in memory");
    archive.finish().expect("ended").into_inner()
}

fn encoded(file: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(file);
    text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line) + "\r\n").collect()
}

/// A message that is the file, as Google's is.
fn bare(from: &str, media_type: &str, name: &str, file: &[u8]) -> String {
    format!(
        "From: <{from}>\r\nTo: <{POSTMASTER}>\r\nSubject: Report domain: example.org Submitter: x Report-ID: 1\r\n\
         MIME-Version: 1.0\r\nContent-Type: {media_type}; \r\n\tname=\"{name}\"\r\nContent-Disposition: attachment; \r\n\t\
         filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        encoded(file)
    )
}

/// A message with words and the file, as most are.
fn attached(from: &str, media_type: &str, name: &str, file: &[u8]) -> String {
    format!(
        "From: \"DMARC Aggregate Report\" <{from}>\r\nTo: <{POSTMASTER}>\r\nSubject: Report Domain: example.org\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"_mpm_1_\"\r\n\r\nThis is multipart.\r\n\
         --_mpm_1_\r\nContent-Type: multipart/related; boundary=\"_rv_2_\"\r\n\r\n--_rv_2_\r\n\
         Content-Type: text/html; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n<div>A report.</div>\r\n\
         --_rv_2_--\r\n\r\n--_mpm_1_\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Description: {name}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\r\n{}\
         --_mpm_1_--\r\n",
        encoded(file)
    )
}

/// By port 25 of the edge; it is taken.
fn deliver(pair: &Pair, from: &str, text: &str) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let reply = client.deliver(from, &[POSTMASTER], text.as_bytes()).expect("answered");
    assert_eq!(reply.code, 250, "{:?}", reply.lines);
}

fn told(pair: &Pair, more: &[&str]) -> Value {
    pair.home.program.ask_json(&[&["report", "dmarc", "--json"], more].concat()).expect("told")
}

/// Once so many reports are counted.
fn told_of(pair: &Pair, reports: u64) -> Value {
    observe::until(&format!("{reports} reports"), || told(pair, &[]), |told| told["reports"] == reports)
}

/// Once the program has said so often what becomes of reports it does not count.
fn said(pair: &Pair, words: &str, times: usize) {
    let said = || pair.home.program.said().matches(words).count();
    observe::until(words, said, |found| *found >= times);
}

const TLS: &str = include_str!("reports/tls.json");
const TLS_GOOGLE: &str = include_str!("reports/tls_google.json");

/// As RFC 8460 §5.3 has it.
fn of_tls(from: &str, file: &[u8], media_type: &str) -> String {
    format!(
        "From: <{from}>\r\nTo: <{POSTMASTER}>\r\nSubject: Report Domain: example.org Submitter: x Report-ID: <1@x>\r\n\
         TLS-Report-Domain: example.org\r\nTLS-Report-Submitter: x\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"b1\"\r\n\r\n--b1\r\n\
         Content-Type: text/plain; charset=\"us-ascii\"\r\n\r\nThis is an aggregate TLS report.\r\n\r\n--b1\r\n\
         Content-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n \
         filename=\"x!example.org!1!2!001.json.gz\"\r\n\r\n{}\r\n--b1--\r\n",
        encoded(file)
    )
}

#[test]
fn reports_of_tls_are_added_up_and_each_failure_is_explained() {
    let pair = pair();
    let yesterday = gatepost_runtime::clock::rfc3339(Clock::real().unix_s() - 86_400);
    let (first, second) = (TLS.replace("YESTERDAY", &yesterday), TLS_GOOGLE.replace("YESTERDAY", &yesterday));
    let microsoft = "tlsreports@microsoft.example";
    deliver(&pair, microsoft, &of_tls(microsoft, &gzip(first.as_bytes()), "application/tlsrpt+gzip"));
    let google = "noreply-smtp-tls-reporting@google.example";
    deliver(&pair, google, &of_tls(google, second.as_bytes(), "application/tlsrpt+json"));
    // It comes again, somebody forges one, and something else is JSON.
    deliver(&pair, google, &of_tls(google, second.as_bytes(), "application/tlsrpt+json"));
    let forger = "noreply@watching.example";
    deliver(&pair, forger, &of_tls(forger, first.as_bytes(), "application/tlsrpt+json"));
    deliver(&pair, google, &bare(google, "application/json", "settings.json", b"{\"a\": [1, 2"));
    let told = || pair.home.program.ask_json(&["report", "tls", "--json"]).expect("told");
    let shown = observe::until("both", told, |told| {
        told["sessions"].as_array().is_some_and(|sessions| sessions.iter().any(|seen| seen["reports"] == 2))
    });
    said(&pair, "it came before", 1);
    said(&pair, "a report does not count", 2);
    let sts = &shown["sessions"][0];
    assert_eq!((&sts["domain"], &sts["policy"]), (&json!("example.org"), &json!("sts")), "{shown:#}");
    assert_eq!((&sts["good"], &sts["bad"], &sts["reporters"]), (&json!(5330), &json!(304), &json!(2)), "{shown:#}");
    assert_eq!(shown["sessions"].as_array().map(Vec::len), Some(1), "domains of others are left out: {shown:#}");
    let failures = &shown["failures"];
    assert_eq!(
        (&failures[0]["kind"], &failures[0]["count"]),
        (&json!("starttls-not-supported"), &json!(200)),
        "{shown:#}"
    );
    assert_eq!(
        (&failures[1]["kind"], &failures[1]["count"]),
        (&json!("certificate-expired"), &json!(101)),
        "{shown:#}"
    );
    assert_eq!(failures[1]["reporters"].as_array().map(Vec::len), Some(2), "{shown:#}");
    let text = pair.home.program.ask(&["report", "tls"]).expect("told");
    assert!(text.contains("certificate-expired") && text.contains("gatepost-home status says"), "{text}");
    assert_eq!(delivered(&pair), 5, "each is a letter as well");
}

fn delivered(pair: &Pair) -> usize {
    message::files(&pair.maildir(ALICE)).len()
}

#[test]
fn reports_are_read_as_four_receivers_pack_them() {
    let mut pair = pair();
    let name = "google.example!example.org!1763596800!1763683199";
    let google = zip(&format!("{name}.xml"), &dated(GOOGLE));
    let support = "noreply-dmarc-support@google.example";
    deliver(&pair, support, &bare(support, "application/zip", &format!("{name}.zip"), &google));
    let support = "dmarcreport@microsoft.example";
    let microsoft = gzip(&dated(MICROSOFT));
    deliver(&pair, support, &attached(support, "application/gzip", "m!example.org!1!2.xml.gz", &microsoft));
    let support = "dmarchelp@yahoo.example";
    deliver(&pair, support, &attached(support, "application/octet-stream", "y!e!1!2.xml.gz", &gzip(&dated(YAHOO))));
    let support = "dmarc_support@mailru.example";
    deliver(&pair, support, &attached(support, "text/xml", "mail.ru!example.org!1!2.xml", &dated(MAILRU)));

    let shown = told_of(&pair, 4);
    assert_eq!(
        (&shown["messages"], &shown["passed"], &shown["dkim"], &shown["spf"]),
        (&json!(19), &json!(15), &json!(14), &json!(13))
    );
    assert_eq!(shown["done"], json!({ "none": 16, "quarantine": 3 }));
    assert_eq!(shown["overrides"], json!({ "local_policy": 1 }));
    let sources: Vec<_> = shown["sources"]
        .as_array()
        .expect("sources")
        .iter()
        .map(|source| (source["network"].clone(), source["whose"].clone(), source["messages"].clone()))
        .collect();
    let expected = [
        (json!("127.0.0.1"), json!("edge"), json!(13)),
        (json!("198.51.100.0/24"), json!("stranger"), json!(4)),
        (json!("2001:db8:40:1::/64"), json!("signed"), json!(2)),
    ];
    assert_eq!(sources, expected);
    assert_eq!(shown["sources"][2]["signers"], json!(["example.org", "list.example"]));
    assert_eq!(shown["sources"][1]["reporters"], json!(["google.example", "mailru.example"]));
    assert_eq!(delivered(&pair), 4, "each is delivered, too");

    assert_eq!(told(&pair, &["--days", "1", "--domain", "example.org"])["reports"], 4);
    assert_eq!(told(&pair, &["--domain", "example.net"])["reports"], 0);
    let people = pair.home.program.ask(&["report", "dmarc"]).expect("told");
    for words in
        ["your edge edge ", "a stranger", "sends on what you signed", "19 messages in 30 days", "by 4 reports of 4"]
    {
        assert!(people.contains(words), "{words}\n{people}");
    }

    pair.home.program.stop().expect("stopped");
    let alone = told(&pair, &[]);
    assert_eq!((&alone["reports"], &alone["messages"]), (&json!(4), &json!(19)));
}

#[test]
fn what_proves_nothing_or_is_not_about_us_is_delivered_and_not_counted() {
    let pair = pair();
    let support = "dmarchelp@yahoo.example";
    let yahoo = gzip(&dated(YAHOO));
    let good = attached(support, "application/gzip", "y.xml.gz", &yahoo);
    // Nobody vouches for this sender.
    let forged = "dmarchelp@watching.example";
    deliver(&pair, forged, &attached(forged, "application/gzip", "y.xml.gz", &yahoo));
    said(&pair, "it does not come from whom it says (DMARC)", 1);
    let foreign = gzip(&dated(&YAHOO.replace("<domain>example.org", "<domain>bank.example")));
    deliver(&pair, support, &attached(support, "application/gzip", "y.xml.gz", &foreign));
    said(&pair, "it is about a domain that is not ours", 1);
    deliver(&pair, support, &good);
    deliver(&pair, support, &good);
    said(&pair, "it came before", 1);
    let shown = told_of(&pair, 1);
    assert_eq!((&shown["messages"], &shown["reporters"][0]["domain"]), (&json!(1), &json!("yahoo.example")));
    assert_eq!(delivered(&pair), 4);
}

#[test]
fn what_is_broken_or_a_bomb_is_delivered_like_any_mail() {
    let pair = pair();
    let home = pair.home.program.pid().expect("it runs");
    let at_rest_kib = memory(home).expect("told").now_kib;
    let support = "dmarchelp@yahoo.example";
    let yahoo = dated(YAHOO);
    let cut = &gzip(&yahoo)[..300];
    let entities = [&b"<!DOCTYPE x [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>"[..], &yahoo[22..]].concat();
    let bomb = vec![b' '; 64 * 1024 * 1024];
    let deep = format!("<feedback>{}", "<record>".repeat(100_000)).into_bytes();
    for (nth, file) in [cut, &gzip(&entities), &gzip(&bomb), &zip("a.xml", &bomb), &gzip(&deep)].into_iter().enumerate()
    {
        deliver(&pair, support, &attached(support, "application/gzip", "y.xml.gz", file));
        said(&pair, "what looks like a report can't be read", nth + 1);
        assert_eq!(delivered(&pair), nth + 1);
    }
    // As much as one may hold, and then some.
    let record = |n: u32| {
        let [a, b, c, d] = (n.wrapping_mul(2_654_435_761)).to_be_bytes();
        format!("<record><row><source_ip>{a}.{b}.{c}.{d}</source_ip><count>1</count></row></record>")
    };
    let many = String::from_utf8_lossy(&yahoo)
        .replace("<record>", &((0..90_000).map(record).collect::<String>() + "<record>"));
    deliver(&pair, support, &attached(support, "application/gzip", "y.xml.gz", &gzip(many.as_bytes())));
    let shown = told_of(&pair, 1);
    assert_eq!((&shown["messages"], &shown["reporters"][0]["rows_left_out"]), (&json!(5000), &json!(85_001)));
    let peak_kib = memory(home).expect("told").peak_kib;
    assert!(peak_kib < at_rest_kib + GROWTH_KIB_MAX, "the home needed {at_rest_kib} KiB at rest, then {peak_kib} KiB");
}

#[test]
fn a_report_that_waited_at_the_edge_counts_once_the_home_is_back() {
    let mut pair = pair();
    pair.home.program.stop().expect("stopped");
    let support = "dmarchelp@yahoo.example";
    deliver(&pair, support, &attached(support, "application/gzip", "y.xml.gz", &gzip(&dated(YAHOO))));
    pair.home.program.start().expect("started");
    pair.wait_until_connected();
    assert_eq!(told_of(&pair, 1)["messages"], 1);
}

/// A file of reports that others collected.
fn collected(path: &std::path::Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).expect("readable");
    if path.extension().is_some_and(|extension| extension == "xml") {
        return format!("Content-Type: text/xml\r\n\r\n{text}").into_bytes();
    }
    text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

/// Each of them, and what the library that carries them finds in it.
fn each_collected(folder: &str) -> Vec<(String, Vec<u8>, Value)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("judging/mail-auth").join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension != "json") {
            let json = std::fs::read_to_string(path.with_extension("json")).expect("what is in it");
            found.push((path.display().to_string(), collected(&path), serde_json::from_str(&json).expect("JSON")));
        }
    }
    found
}

#[test]
fn aggregate_reports_that_others_collected_are_read_as_they_read_them() {
    let all = each_collected("dmarc-feedback");
    assert_eq!(all.len(), 10);
    for (name, message, expected) in all {
        let Ok(Some(Report::Aggregate { report, left_out: 0 })) = read(&message) else { panic!("{name} is not read") };
        let (metadata, rows) = (&expected["report_metadata"], expected["record"].as_array().expect("records"));
        assert_eq!(metadata["report_id"], report.metadata.id, "{name}");
        assert_eq!(metadata["org_name"], report.metadata.organisation, "{name}");
        assert_eq!(metadata["date_range"]["begin"], report.metadata.begin_unix_s, "{name}");
        assert_eq!(metadata["date_range"]["end"], report.metadata.end_unix_s, "{name}");
        assert_eq!(expected["policy_published"]["domain"], report.published.domain, "{name}");
        assert_eq!(rows.len(), report.rows.len(), "{name}");
        for (expected, row) in rows.iter().zip(&report.rows) {
            let result = |passed: bool| if passed { "Pass" } else { "Fail" };
            let evaluated = &expected["row"]["policy_evaluated"];
            assert_eq!(expected["row"]["source_ip"], row.source.to_string(), "{name}");
            assert_eq!(expected["row"]["count"], row.count, "{name}");
            let disposition = evaluated["disposition"].as_str().expect("a word").to_lowercase();
            assert_eq!(disposition, row.disposition.word(), "{name}");
            assert_eq!(
                (&evaluated["dkim"], &evaluated["spf"]),
                (&json!(result(row.dkim)), &json!(result(row.spf))),
                "{name}"
            );
            assert_eq!(evaluated["reason"].as_array().map(Vec::len), Some(row.reasons.len()), "{name}");
            assert_eq!(expected["identifiers"]["header_from"], row.header_from, "{name}");
            let found = &expected["auth_results"];
            let words = |method: &str| -> Vec<(String, String)> {
                let all = found[method].as_array().expect("results").iter();
                let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_lowercase();
                all.map(|one| (text(one, "domain"), text(one, "result"))).collect()
            };
            let dkim = row.dkim_results.iter().map(|one| (one.domain.clone(), one.found.word().to_owned()));
            assert_eq!(words("dkim"), dkim.collect::<Vec<_>>(), "{name}");
            let spf = row.spf_results.iter().map(|one| (one.domain.clone(), one.found.word().to_owned()));
            assert_eq!(words("spf"), spf.collect::<Vec<_>>(), "{name}");
        }
    }
}

#[test]
fn reports_of_single_messages_that_others_collected_are_read_as_they_read_them() {
    let all = each_collected("arf");
    assert_eq!(all.len(), 5);
    for (name, message, expected) in all {
        let Ok(Some(Report::Failure(failure))) = read(&message) else { panic!("{name} is not read") };
        let word = |name: &str| expected[name].as_str().unwrap_or_default().to_lowercase();
        assert_eq!(word("feedback_type"), failure.kind.replace('-', ""), "{name}");
        let failed = failure.failed.unwrap_or_else(|| "unspecified".to_owned());
        assert_eq!(word("auth_failure"), failed, "{name}");
        assert_eq!(word("source_ip"), failure.source.map(|source| source.to_string()).unwrap_or_default(), "{name}");
        let domain = expected["reported_domain"][0].as_str();
        assert_eq!(domain, failure.domain.as_deref(), "{name}");
        assert_eq!(expected["incidents"], failure.incidents, "{name}");
    }
}

#[test]
fn reports_of_single_messages_are_shown() {
    let pair = pair();
    let support = "dmarc@google.example";
    let text = format!(
        "From: <{support}>\r\nTo: <{POSTMASTER}>\r\nSubject: FW: You have won\r\nMIME-Version: 1.0\r\nContent-Type: \
         multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nIt \
         failed.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: auth-failure\r\nVersion: 1\r\n\
         User-Agent: x/1\r\nSource-IP: 192.0.2.99\r\nReported-Domain: example.org\r\nAuth-Failure: dmarc\r\n\
         Delivery-Result: reject\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nFrom: <{ALICE}>\r\n\
         Subject: You have won\r\n\r\n--b--\r\n"
    );
    deliver(&pair, support, &text);
    let ask = || pair.home.program.ask_json(&["report", "failures", "--json"]).expect("told");
    let shown = observe::until("the report", ask, |told| told["failures"] != json!([]));
    let failure = &shown["failures"][0];
    for (name, value) in [
        ("reporter", "google.example"),
        ("domain", "example.org"),
        ("kind", "auth-failure"),
        ("failed", "dmarc"),
        ("source", "192.0.2.99"),
        ("header_from", "example.org"),
        ("delivery", "reject"),
    ] {
        assert_eq!(failure[name], value, "{name}");
    }
    let people = pair.home.program.ask(&["report", "failures"]).expect("told");
    assert!(people.contains("192.0.2.99") && !people.contains("won"), "{people}");
    assert_eq!(told(&pair, &[])["reports"], 0);
}
