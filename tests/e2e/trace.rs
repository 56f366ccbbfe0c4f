//! `trace` tells what happened to a message over both machines, also when the link broke in the middle.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_delivered, expect_in_sink, fields, only_message, pair, started, values};

/// Waits until the only story of this word holds all these, and gives it.
fn told(pair: &Pair, what: &str, parts: &[&str]) -> String {
    observe::until(
        &format!("a story with {parts:?}"),
        || pair.home.program.ask(&["trace", what]).expect("trace answers"),
        |story| parts.iter().all(|part| story.contains(part)),
    )
}

fn deliver(pair: &Pair, number: u64) {
    let sent = message::numbered(number, STRANGER, ALICE, 4096);
    let mut client = observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp));
    let answer = client.deliver(STRANGER, &[ALICE], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

/// As it stands in the one message alice has.
fn message_id(pair: &Pair) -> String {
    let message = only_message(pair, ALICE);
    values(&fields(&message), "Message-ID").first().map(|id| (*id).to_owned()).expect("the message has one")
}

#[test]
fn a_delivered_message_is_told_from_both_machines() {
    let pair = pair();
    deliver(&pair, 1);
    expect_delivered(&pair, ALICE, &[1]);
    let story = told(&pair, "stranger@", &["  edge", "  home", "answered 250", "without TLS", "[127.0.0.1]"]);
    assert!(story.contains(&format!("=> delivered to {ALICE}'s inbox")), "{story}");
    assert_eq!(story.matches("answered 250").count(), 1, "one message, told once: {story}");
    let trace = story.split_whitespace().next().expect("an id").to_owned();
    assert_eq!(told(&pair, &trace, &[]), story, "by its id, too");
    assert_eq!(told(&pair, "ALICE@EXAMPLE", &[]), story, "in whatever case, and by the recipient");
    assert_eq!(told(&pair, &message_id(&pair), &[]), story, "by its Message-ID");
    let json = pair.home.program.ask_json(&["trace", &trace, "--json"]).expect("json");
    let machines: Vec<&str> = json["messages"][0]["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["machine"].as_str())
        .collect();
    assert!(machines.contains(&"edge") && machines.contains(&"home"), "{json:#}");
    assert!(pair.home.program.ask(&["trace", "nobody@nowhere"]).expect("answers").contains("Nothing is known"));
}

#[test]
fn a_message_sealed_while_the_home_was_away_says_so_then_and_afterwards() {
    let mut pair = pair();
    pair.home.program.kill();
    pair.wait_until_down();
    deliver(&pair, 1);
    // The edge is restarted, too: what it did is not forgotten by that.
    pair.edge_mut().program.stop().expect("ended");
    pair.edge_mut().program.start().expect("started");
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1]);
    let parts = ["sealed it to the home's key", "fetched it from edge", "=> delivered to alice@example.org's inbox"];
    let story = told(&pair, STRANGER, &parts);
    let at = |part: &str| story.find(part).expect("it is there");
    assert!(at(parts[0]) < at(parts[1]) && at(parts[1]) < at(parts[2]), "in the order of time: {story}");
    // And while nothing runs here.
    pair.home.program.stop().expect("ended");
    assert_eq!(pair.home.program.ask(&["trace", STRANGER]).expect("answers"), story);
}

#[test]
fn a_message_on_its_way_out_tells_what_the_next_host_said() {
    let pair = started(&Options::story().home_set("queue.retry=[\"1 s\", \"1 h\"]"));
    pair.sink.defer_all(true);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    let sent = message::numbered(1, ALICE, "friend@elsewhere.example", 2000);
    let answer = client.deliver(ALICE, &["friend@elsewhere.example"], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
    let parts =
        ["logged in as alice@example.org", "could not yet hand it over for friend@elsewhere.example", "attempt 2"];
    let story = told(&pair, "friend@elsewhere", &parts);
    assert!(story.contains("=> waiting in the queue for friend@elsewhere.example: next attempt "), "{story}");
    assert!(story.contains("because 4"), "the host's own words: {story}");
    pair.sink.defer_all(false);
    pair.home.program.ask(&["queue", "retry"]).expect("tried");
    expect_in_sink(&pair, &[1]);
    let story = told(&pair, "friend@elsewhere", &["=> sent to friend@elsewhere.example", "over TLSv1.3"]);
    assert!(story.contains("X25519MLKEM768"), "{story}");
    assert!(!story.contains("waiting in the queue"), "{story}");
}

#[test]
fn a_refused_stranger_is_told_of_and_nothing_else_is_invented() {
    let pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.say("RCPT TO:<nobody@example.org>", 550).expect("refused");
    let story = told(&pair, "nobody@example.org", &["refused the recipient nobody@example.org", "=> refused"]);
    assert!(story.contains("550"), "{story}");
}

#[test]
fn a_message_that_was_cut_off_in_the_middle_is_told_and_nothing_of_it_is_kept() {
    let pair = pair();
    let sent = message::stuffed(&message::numbered(1, STRANGER, ALICE, 300_000));
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.begin(STRANGER, &[ALICE]).expect("MAIL, RCPT, DATA");
    client.send(&sent[..200_000]).expect("sent");
    drop(client);
    let parts = ["heard no more after 200000 octets from client.example", "=> not taken: whoever sent it broke off"];
    let story = told(&pair, "stranger@", &parts);
    assert!(!story.contains("answered") && !story.contains("delivered"), "{story}");
    // Its sender tries again, and that is another story.
    deliver(&pair, 1);
    expect_delivered(&pair, ALICE, &[1]);
    let both = pair.home.program.ask_json(&["trace", "stranger@", "--json"]).expect("json");
    assert_eq!(both["messages"].as_array().map(Vec::len), Some(2), "{both:#}");
}

#[test]
fn a_submission_that_was_cut_off_at_home_is_told_too() {
    let pair = pair();
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    client.begin(ALICE, &["friend@elsewhere.example"]).expect("MAIL, RCPT, DATA");
    let sent = message::stuffed(&message::numbered(1, ALICE, "friend@elsewhere.example", 300_000));
    client.send(&sent[..100_000]).expect("sent");
    drop(client);
    let story = told(&pair, "friend@", &["heard no more after", "=> not taken: whoever sent it broke off"]);
    assert!(!story.contains("queue"), "{story}");
}
