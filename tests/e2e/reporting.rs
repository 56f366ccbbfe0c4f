//! What domains are told of mail in their name: counted for those who ask, sent once a day, read by somebody else's
//! program; nothing to who has not agreed, and nothing unless the owner wants it.

use gatepost_home::database::Database;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::{dkimpy, parsedmarc};
use serde_json::{Value, json};

use super::signing::publish;
use super::{ALICE, fields, started, strangers, values};

/// Domains that ask for reports, at home, elsewhere with consent, elsewhere without; and one that does not ask.
const ZONE: &str = "\
good.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 ip6:::1 -all\"
_dmarc.good.example. 60 IN TXT \"v=DMARC1; p=reject; sp=quarantine; adkim=s; rua=mailto:dmarc@good.example\"
strict.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.strict.example. 60 IN TXT \"v=DMARC1; p=reject; rua=mailto:a@strict.example!1, mailto:b@collector.example!10m\"
strict.example._report._dmarc.collector.example. 60 IN TXT \"v=DMARC1;\"
careful.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.careful.example. 60 IN TXT \"v=DMARC1; p=quarantine; rua=mailto:victim@unasked.example\"
watching.example. 60 IN TXT \"v=spf1 ~all\"
_dmarc.watching.example. 60 IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc@mail.watching.example\"
quiet.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.quiet.example. 60 IN TXT \"v=DMARC1; p=reject\"
";
const ON: &str = "reports.dmarc_aggregate=true";
/// A day, and the hours over which reports are spread.
const YESTERDAY: &str = "UPDATE outgoing_report SET day = day - 1, due = due - 2 * 86400";

/// The code of the reply to a message whose From and MAIL FROM are this.
fn send(pair: &Pair, from: &str) -> u16 {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = format!("From: <{from}>\r\nTo: <{ALICE}>\r\nSubject: x\r\n\r\nhello\r\n");
    client.deliver(from, &[ALICE], text.as_bytes()).expect("answered").code
}

fn listed(pair: &Pair) -> Vec<Value> {
    let listed = pair.home.program.ask_json(&["report", "outgoing", "--json"]).expect("listed");
    listed["reports"].as_array().expect("reports").clone()
}

/// Waits until so many messages are counted: what was refused is told by the edge a moment later.
fn expect_counted(pair: &Pair, messages: i64) {
    let counted = || listed(pair).iter().filter_map(|report| report["messages"].as_i64()).sum::<i64>();
    observe::until("all of them to be counted", counted, |count| *count == messages);
}

/// Does this to the home's database while the home is stopped, then starts it again.
fn meanwhile(pair: &mut Pair, sql: &str) {
    pair.home.program.stop().expect("stopped");
    let sql = sql.to_owned();
    let database = Database::open(&pair.home.program.state).expect("opened");
    database.write(move |connection| connection.execute_batch(&sql)).wait().expect("done");
    drop(database);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
}

/// What came to the sink for this address, once it is there.
fn report_to(pair: &Pair, address: &str) -> Vec<u8> {
    let found = || pair.sink.envelopes().expect("read").into_iter().find(|one| one.recipients == [address]);
    let envelope = observe::until(&format!("a report to {address}"), found, Option::is_some).expect("found");
    assert_eq!(envelope.sender, "", "nobody is told if it can't be delivered");
    pair.sink.message(&envelope).expect("kept")
}

/// The report in a message that came, as parsedmarc reads it.
fn read(message: &[u8]) -> Value {
    let read = parsedmarc::read(message).expect("parsedmarc takes it");
    assert_eq!(read["report_type"], "aggregate", "{read}");
    read["report"].clone()
}

/// Waits until no report waits any more.
fn expect_closed(pair: &Pair) -> Vec<Value> {
    let closed = |reports: &Vec<Value>| reports.iter().all(|report| report["closed"].is_string());
    observe::until("every report to be done", || listed(pair), closed)
}

#[test]
fn each_domain_that_asks_hears_once_what_came_in_its_name() {
    let mut pair = started(&Options { zone: ZONE.to_owned(), ..Options::story() }.home_set(ON));
    publish(&pair, &pair);
    for (from, code) in [
        ("bob@good.example", 250),
        ("bob@good.example", 250),
        ("bob@strict.example", 550),
        ("bob@strict.example", 550),
        ("bob@strict.example", 550),
        ("bob@careful.example", 250),
        ("bob@watching.example", 250),
        ("bob@quiet.example", 550),
        // Our own, which asks for reports, too.
        ("bob@example.org", 250),
    ] {
        assert_eq!(send(&pair, from), code, "{from}");
    }
    expect_counted(&pair, 7);
    let shown = pair.home.program.ask(&["report", "outgoing", "watching.example"]).expect("shown");
    assert!(shown.contains("<header_from>watching.example</header_from>"), "{shown}");
    assert!(pair.sink.envelopes().expect("read").is_empty(), "the day is not over");

    meanwhile(&mut pair, YESTERDAY);
    let good = report_to(&pair, "dmarc@good.example");
    let judged = dkimpy::judge(&good, pair.dns.address()).expect("judged");
    assert!(
        judged.dkim.len() == 2 && judged.dkim.iter().all(|one| one.good && one.domain == "example.org"),
        "{judged:?}"
    );
    let text = String::from_utf8_lossy(&good).replace("\r\n", "\n");
    let found = fields(&text);
    assert_eq!(values(&found, "From"), ["postmaster@example.org"]);
    let subject = values(&found, "Subject")[0];
    assert!(subject.starts_with("Report Domain: good.example Submitter: example.org Report-ID: <"), "{subject}");

    let report = read(&good);
    assert_eq!(report["policy_published"]["p"], "reject", "{report}");
    assert_eq!(report["policy_published"]["sp"], "quarantine", "{report}");
    assert_eq!(report["policy_published"]["adkim"], "s", "{report}");
    assert_eq!(report["report_metadata"]["org_name"], "example.org", "{report}");
    assert_eq!(report["report_metadata"]["errors"], json!([]), "{report}");
    let [record] = report["records"].as_array().expect("records").as_slice() else { panic!("{report}") };
    assert_eq!((&record["count"], &record["source"]["ip_address"]), (&json!(2), &json!("127.0.0.1")), "{report}");
    assert_eq!(record["alignment"], json!({ "spf": true, "dkim": false, "dmarc": true }), "{report}");
    assert_eq!(record["policy_evaluated"]["disposition"], "pass", "{report}");
    assert_eq!(record["identifiers"]["header_from"], "good.example", "{report}");
    assert_eq!(record["identifiers"]["envelope_from"], "good.example", "{report}");
    assert_eq!(record["auth_results"]["spf"][0]["result"], "pass", "{report}");

    let report = read(&report_to(&pair, "b@collector.example"));
    let [record] = report["records"].as_array().expect("records").as_slice() else { panic!("{report}") };
    assert_eq!(
        (&record["count"], &record["policy_evaluated"]["disposition"]),
        (&json!(3), &json!("reject")),
        "{report}"
    );
    assert_eq!(record["auth_results"]["spf"][0]["result"], "fail", "{report}");

    let report = read(&report_to(&pair, "dmarc@mail.watching.example"));
    let [record] = report["records"].as_array().expect("records").as_slice() else { panic!("{report}") };
    assert_eq!(record["policy_evaluated"]["disposition"], "none", "{report}");
    assert_eq!(record["alignment"]["dmarc"], false, "{report}");

    let outcomes: Vec<(String, String)> = expect_closed(&pair)
        .iter()
        .map(|report| [&report["domain"], &report["outcome"]].map(|text| text.as_str().expect("a text").to_owned()))
        .map(|[domain, outcome]| (domain, outcome))
        .collect();
    let expected = [
        ("strict.example", "sent to b@collector.example"),
        ("good.example", "sent to dmarc@good.example"),
        ("careful.example", "nobody takes it"),
        ("watching.example", "sent to dmarc@mail.watching.example"),
    ];
    for (domain, outcome) in expected {
        assert!(outcomes.contains(&(domain.to_owned(), outcome.to_owned())), "{outcomes:?}");
    }
    assert_eq!(outcomes.len(), expected.len(), "{outcomes:?}");
    assert_eq!(pair.sink.envelopes().expect("read").len(), 3, "each once, and none to who has not agreed");
}

#[test]
fn nobody_hears_anything_unless_the_owner_wants_it() {
    let mut pair = started(&Options { zone: ZONE.to_owned(), ..Options::story() });
    assert_eq!((send(&pair, "bob@good.example"), send(&pair, "bob@strict.example")), (250, 550));
    let trace = || pair.home.program.ask(&["trace", "bob@strict.example"]).unwrap_or_default();
    observe::until("the edge's part of the story", trace, |story| story.contains("DMARC fail"));
    assert!(listed(&pair).is_empty());
    meanwhile(&mut pair, YESTERDAY);
    let told = pair.home.program.ask(&["report", "outgoing"]).expect("told");
    assert!(told.contains("reports.dmarc_aggregate is not set"), "{told}");
    assert!(pair.sink.envelopes().expect("read").is_empty());
}

#[test]
fn a_report_that_was_queued_but_not_noted_goes_out_once() {
    let mut pair = started(&Options { zone: ZONE.to_owned(), ..Options::story() }.home_set(ON));
    assert_eq!(send(&pair, "bob@good.example"), 250);
    expect_counted(&pair, 1);
    // What was known before it was noted that it is queued, kept aside: what a crash at that moment leaves.
    meanwhile(&mut pair, &[YESTERDAY, "; CREATE TABLE before AS SELECT * FROM outgoing_row"].concat());
    report_to(&pair, "dmarc@good.example");
    expect_closed(&pair);
    meanwhile(
        &mut pair,
        "INSERT INTO outgoing_row SELECT * FROM before; UPDATE outgoing_report SET closed = NULL, outcome = NULL",
    );
    expect_closed(&pair);
    observe::until("an empty queue", || pair.queued().expect("asked"), |queued| *queued == 0);
    assert_eq!(pair.sink.envelopes().expect("read").len(), 1, "the ledger knows it");
    assert!(pair.home.program.said().contains("already here: the same hand-over again"));
}

#[test]
fn what_waited_sealed_counts_when_it_is_fetched_and_a_list_is_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let (key, record) = strangers::key(folder.path());
    let zone = format!(
        "{ZONE}lists.example. 60 IN TXT \"v=spf1 ip4:127.0.0.1 -all\"\nlists.example. 60 IN MX 10 sink.example.\n\
         s1._domainkey.lists.example. 60 IN {record}\n"
    );
    let mut pair = started(&Options { zone, ..Options::story() }.home_set(ON));
    pair.home.program.kill();
    pair.wait_until_down();
    let text = "List-Id: <dev.lists.example>\r\nFrom: <a@strict.example>\r\nTo: <dev@lists.example>\r\nSubject: x\r\n\r\nhello\r\n";
    let signed = dkimpy::sign(text.as_bytes(), "lists.example", "s1", &key).expect("signed");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    assert_eq!(client.deliver("dev@lists.example", &[ALICE], &signed).expect("answered").code, 250);
    assert_eq!(send(&pair, "bob@strict.example"), 550);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    expect_counted(&pair, 2);
    meanwhile(&mut pair, YESTERDAY);
    let report = read(&report_to(&pair, "b@collector.example"));
    let records = report["records"].as_array().expect("records");
    let by_list = records.iter().find(|record| record["identifiers"]["envelope_from"] == "lists.example");
    let by_list = by_list.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(by_list["policy_evaluated"]["disposition"], "quarantine", "{report}");
    assert_eq!(by_list["policy_evaluated"]["policy_override_reasons"][0]["type"], "mailing_list", "{report}");
    assert_eq!(by_list["auth_results"]["dkim"][0]["domain"], "lists.example", "{report}");
    assert_eq!(records.len(), 2, "{report}");
}
