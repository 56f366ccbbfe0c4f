//! How far the owner goes with what is found about mail: for all domains and for each, at once and without a restart.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::said;
use gatepost_tests::world::{message, ports};

use super::{ALICE, fields, only_message, started, status, values};

const ZONE: &str = "\
strict.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.strict.example. 60 IN TXT \"v=DMARC1; p=reject\"
careful.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.careful.example. 60 IN TXT \"v=DMARC1; p=quarantine\"
old.example. 60 IN TXT \"v=spf1 -all\"
";
const CAROL: &str = "carol@example.net";

fn options() -> Options {
    let mut options = Options { zone: ZONE.to_owned(), ..Options::story() };
    options.accounts.push((CAROL.to_owned(), "carol's password".to_owned()));
    options
}

/// Sends a message whose From and MAIL FROM are this; the reply to its end.
fn send(pair: &Pair, from: &str, to: &str) -> String {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: x\r\n\r\nhello\r\n");
    let reply = client.deliver(from, &[to], text.as_bytes()).expect("answered");
    format!("{} {}", reply.code, reply.lines.join(" "))
}

fn inbox(pair: &Pair, address: &str) -> usize {
    message::files(&pair.maildir(address)).len()
}

fn junk(pair: &Pair, address: &str) -> usize {
    message::files(&pair.maildir(address).join(".Junk")).len()
}

/// Puts these tables at the end of the home's config, and waits until the edge goes by them.
fn reload(pair: &mut Pair, tables: &str) -> String {
    let program = &pair.home.program;
    let before = std::fs::read_to_string(&program.config).expect("readable");
    let before = before.split("# policy\n").next().unwrap_or_default().to_owned();
    std::fs::write(&program.config, format!("{before}\n# policy\n{tables}")).expect("written");
    let told = program.ask(&["reload"]).expect("taken");
    pair.wait_until_up();
    told
}

#[test]
fn a_newcomer_only_watches_and_hears_what_would_have_been_done() {
    let pair = started(&options().home_set("policy.monitor=true"));
    for from in ["bob@strict.example", "bob@old.example", "bob@gone.example", "bob@careful.example", "bob@example.org"]
    {
        assert!(send(&pair, from, ALICE).starts_with("250 "), "{from}");
    }
    assert_eq!((inbox(&pair, ALICE), junk(&pair, ALICE)), (5, 0));
    let told = pair.edge().program.said();
    for would in [
        "monitor, else 550 5.7.26 Neither SPF nor DKIM shows that this message is from strict.example",
        "monitor, else 550 5.7.23 old.example does not let 127.0.0.1 send its mail",
        "monitor, else 550 5.1.8 The sender's domain gone.example does not exist",
        "monitor, else Junk: DMARC fails, and careful.example asks for Junk",
        "monitor, else 550 5.7.1 Mail from example.org comes from its own servers",
    ] {
        assert!(told.contains(would), "{would}\n{told}");
    }
    let output = pair.home.program.cli(&["check"]).output().expect("it runs");
    assert!(
        said(&output).contains("note: policy.monitor: what is found about mail for all domains"),
        "{}",
        said(&output)
    );
    let status = pair.home.program.ask(&["status"]).expect("a status");
    assert!(status.contains("policy       monitor only; else SPF fail: refuse"), "{status}");
}

#[test]
fn what_would_have_been_done_stands_in_the_message_the_trace_and_the_metrics() {
    let metrics = ports::free();
    let listen = format!("metrics.listen=\"{metrics}\"");
    let pair = started(&options().home_set("policy.monitor=true").home_set(&listen));
    let reply = send(&pair, "bob@strict.example", ALICE);
    let stored = only_message(&pair, ALICE);
    let fields = fields(&stored);
    let results = values(&fields, "Authentication-Results")[0];
    let expected = "dmarc=fail (p=reject) header.from=strict.example (monitor, else 550 5.7.26 Neither SPF nor DKIM";
    assert!(results.contains(expected), "{stored}");
    let trace = reply.rsplit(' ').next().expect("a trace id");
    let story = observe::until(
        "the edge's part",
        || pair.home.program.ask(&["trace", trace]).unwrap_or_default(),
        |story| story.contains("found SPF fail"),
    );
    assert!(
        story.contains("found SPF fail, DKIM none, DMARC fail; no more than that for this reason: monitor"),
        "{story}"
    );
    let counted = status::page(metrics);
    let spared = "gatepost_edge_judged_total{edge=\"edge\",outcome=\"spared\"} 1\n";
    assert!(counted.contains(spared), "{counted}");
    assert!(!counted.contains("strict.example"), "no name is in it: {counted}");
}

#[test]
fn each_domain_goes_as_far_as_its_owner_wants_and_a_reload_is_enough() {
    let mut pair = started(&options());
    assert!(send(&pair, "bob@strict.example", ALICE).starts_with("550 5.7.26 "));
    let told = reload(
        &mut pair,
        "[policy]\ndmarc_fail = \"junk\"\n[policy.domains.\"example.net\"]\ndmarc_fail = \"accept\"\nspf_fail = \"accept\"\n\
         unknown_sender = \"junk\"\n",
    );
    assert!(told.contains("policy.dmarc_fail: refuse -> junk") && told.contains("policy.domains: changed"), "{told}");
    for (from, to, code) in [
        ("bob@strict.example", ALICE, "250 "),
        ("bob@strict.example", CAROL, "250 "),
        ("bob@careful.example", CAROL, "250 "),
        ("bob@old.example", ALICE, "550 5.7.23 "),
        ("bob@old.example", CAROL, "250 "),
        ("bob@gone.example", ALICE, "550 5.1.8 "),
        ("bob@gone.example", CAROL, "250 "),
    ] {
        let reply = send(&pair, from, to);
        assert!(reply.starts_with(code), "{from} to {to}: {reply}");
    }
    assert_eq!((inbox(&pair, ALICE), junk(&pair, ALICE)), (0, 1));
    assert_eq!((inbox(&pair, CAROL), junk(&pair, CAROL)), (3, 1));

    reload(&mut pair, "");
    assert!(send(&pair, "bob@strict.example", CAROL).starts_with("550 5.7.26 "));
    // The edge goes by it while its home is away, too.
    reload(&mut pair, "[policy]\nmonitor = true\n");
    pair.home.program.kill();
    pair.wait_until_down();
    assert!(send(&pair, "bob@strict.example", CAROL).starts_with("250 "));
}

#[test]
fn recipients_of_different_policies_come_one_after_the_other() {
    let pair = started(&options().home_set("policy.domains={ \"example.net\" = { monitor = true } }"));
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say("EHLO client.example", 250).expect("EHLO");
    client.say("MAIL FROM:<bob@strict.example>", 250).expect("MAIL");
    client.say(&format!("RCPT TO:<{ALICE}>"), 250).expect("RCPT");
    let other = client.ask(&format!("RCPT TO:<{CAROL}>")).expect("answered");
    assert_eq!((other.code, other.text().starts_with("4.5.3 ")), (452, true), "{}", other.text());
    client.say("RSET", 250).expect("RSET");
    assert!(send(&pair, "bob@strict.example", ALICE).starts_with("550 "), "what one watches the other refuses");
    assert!(send(&pair, "bob@strict.example", CAROL).starts_with("250 "));
}

#[test]
fn results_in_the_name_of_any_edge_of_ours_are_taken_out() {
    let mut options = Options::story();
    options.edges = 2;
    let pair = started(&options);
    let names: Vec<String> = pair.home.program.ask_json(&["status", "--json"]).expect("a status")["edges"]
        .as_array()
        .expect("edges")
        .iter()
        .map(|edge| edge["session"]["node"].as_str().expect("connected").to_owned())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let forged: String = names
        .iter()
        .map(|name| format!("Authentication-Results: {name}; dkim=pass header.d=bank.example\r\n"))
        .collect::<Vec<_>>()
        .concat();
    let other = "Authentication-Results: elsewhere.example; dkim=pass header.d=other.example\r\n";
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = format!("{forged}{other}From: <x@world.example>\r\n\r\nhello\r\n");
    assert_eq!(client.deliver("x@world.example", &[ALICE], text.as_bytes()).expect("answered").code, 250);
    let stored = only_message(&pair, ALICE);
    assert!(!stored.contains("bank.example"), "{stored}");
    assert!(stored.contains("other.example"), "{stored}");
}
