//! Several homes behind one edge, homes that come and go, and keys that change: nobody sees a
//! neighbour's mail, and no mail is lost on the way.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::{Program, said};
use gatepost_tests::world::message;
use serde_json::Value;

use super::{ALICE, STRANGER, expect_delivered, pair, started};

const CAROL: &str = "carol@cabin.example";

fn greeted(pair: &Pair) -> Client {
    observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp))
}

fn deliver(pair: &Pair, number: u64, to: &str) {
    let sent = message::numbered(number, STRANGER, to, 1000);
    let answer = greeted(pair).deliver(STRANGER, &[to], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

fn expect_said(program: &Program, words: &[&str]) {
    let what = format!("{} to say {words:?} in one line", program.name);
    observe::until(
        &what,
        || program.said(),
        |said| said.lines().any(|line| words.iter().all(|word| line.contains(word))),
    );
}

fn homes(pair: &Pair) -> Value {
    pair.edge().program.ask_json(&["status", "--json"]).expect("status")["homes"].take()
}

#[test]
fn homes_behind_one_edge_see_nothing_of_each_other() {
    let pair = pair();
    let mut cabin = pair.another_home("cabin", "cabin.example").expect("a config");
    cabin.join(&pair, CAROL, "a hut in the woods").expect("joined");
    assert_eq!(homes(&pair)[1]["name"], "cabin");

    // One transaction is for one home; the recipient of the other is taken in the next.
    let mut client = greeted(&pair);
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.say(&format!("RCPT TO:<{ALICE}>"), 250).expect("RCPT");
    let answer = client.ask(&format!("RCPT TO:<{CAROL}>")).expect("answered");
    assert_eq!((answer.code, answer.text().starts_with("4.5.3")), (452, true), "{answer:?}");
    client.say("RSET", 250).expect("RSET");
    for (number, to) in [(1, ALICE), (2, CAROL)] {
        let sent = message::numbered(number, STRANGER, to, 1000);
        assert_eq!(client.deliver(STRANGER, &[to], &sent).expect("answered").code, 250);
    }
    expect_delivered(&pair, ALICE, &[1]);
    observe::until_delivered(&cabin.maildir(CAROL), &[2]);

    // What is sealed for one is nothing to the other; nor is anything else of it.
    let carols = cabin.submission_password(CAROL).expect("a password");
    cabin.program.kill();
    observe::until("the edge to see it go", || homes(&pair), |homes| homes[1]["connected"] == false);
    deliver(&pair, 3, CAROL);
    deliver(&pair, 4, ALICE);
    expect_delivered(&pair, ALICE, &[1, 4]);
    let home = &pair.home.program;
    for listing in [&["status", "--json"][..], &["spool", "list", "--json"], &["queue", "list", "--json"]] {
        let told = home.ask(listing).expect("a listing");
        assert!(!told.contains("cabin"), "{listing:?}: {told}");
    }
    let spool = home.ask_json(&["spool", "list", "--json"]).expect("a listing");
    assert_eq!(spool["edges"][0]["messages"], 0, "{spool:#}");
    let sealed = pair.edge().program.ask_json(&["spool", "list", "--json"]).expect("a listing");
    assert_eq!(sealed.as_array().map(|items| items.iter().filter(|item| item["home"] == "cabin").count()), Some(1));
    cabin.program.start().expect("started");
    observe::until_delivered(&cabin.maildir(CAROL), &[2, 3]);

    // Whoever logs in to one sends as that one only.
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(CAROL, &carols).expect("answered").code, 235);
    let forged = message::numbered(5, ALICE, "friend@elsewhere.example", 1000);
    let answer = client.deliver(ALICE, &["friend@elsewhere.example"], &forged).expect("answered");
    assert!(answer.code >= 500, "{answer:?}");
}

#[test]
fn a_home_asks_in_vain_for_the_domain_of_another_and_its_code_stays_good() {
    let pair = pair();
    let mut thief = pair.another_home("thief", "cabin.example").expect("a config");
    let honest = std::fs::read_to_string(&thief.program.config).expect("readable");
    let greedy = honest.replace("[\"cabin.example\"]", "[\"cabin.example\", \"example.org\"]");
    std::fs::write(&thief.program.config, &greedy).expect("written");
    let code = pair.code(0).expect("a code");
    let output = thief.program.cli(&["pair", &code]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the domain example.org belongs to another home of this edge"), "{}", said(&output));
    assert!(!said(&output).contains("cottage"), "whose it is, is not its business");
    expect_said(&pair.edge().program, &["asks for the domain of another", "cottage"]);
    assert_eq!(homes(&pair).as_array().map(Vec::len), Some(1));
    std::fs::write(&thief.program.config, honest).expect("written");
    thief.program.ask(&["pair", &code]).expect("paired");
    assert_eq!(homes(&pair)[1]["domains"], serde_json::json!(["cabin.example"]));
    thief.program.kill();
}

#[test]
fn an_unpaired_home_is_cut_off_at_once_and_gets_its_sealed_mail_when_it_pairs_again() {
    let mut pair = started(&Options::story().by_code());
    let told = pair.edge().program.ask(&["unpair", "home"]).expect("unpaired");
    assert!(told.contains("home is no longer paired (example.org)"), "{told}");
    expect_said(&pair.home.program, &["edge not connected", "not paired"]);
    assert_eq!(homes(&pair), serde_json::json!([]));
    let mut client = greeted(&pair);
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    assert_eq!(client.ask(&format!("RCPT TO:<{ALICE}>")).expect("answered").code, 550);
    pair.pair_by_code(0).expect("paired again");
    pair.wait_until_up();
    // And with mail that waits: while the edge runs, and while it does not.
    for (number, stopped) in [(1, false), (2, true)] {
        pair.home.program.kill();
        pair.wait_until_down();
        deliver(&pair, number, ALICE);
        if stopped {
            pair.edge_mut().program.kill();
        }
        let output = pair.edge().program.cli(&["unpair", "home"]).output().expect("it runs");
        assert!(output.status.success() && said(&output).contains("sealed mail waits for it in"), "{}", said(&output));
        if stopped {
            pair.edge_mut().program.start().expect("started");
            expect_said(&pair.edge().program, &["sealed mail lies here for a home that is not paired (any more)"]);
        }
        pair.pair_by_code(0).expect("paired again");
        assert_eq!(homes(&pair)[0]["name"], "home", "it gets its name back");
        pair.home.program.start().expect("started");
        expect_delivered(&pair, ALICE, &(1..=number).collect::<Vec<_>>());
    }
    // Another home gets neither the name nor what lies under it, unless the edge's owner says so.
    pair.edge().program.ask(&["unpair", "home"]).expect("unpaired");
    let other = pair.another_home("other", "example.org").expect("a config");
    let config = std::fs::read_to_string(&other.program.config).expect("readable");
    std::fs::write(&other.program.config, config.replace("other.example.org", "home.example.org")).expect("written");
    let told = other.program.ask(&["pair", &pair.code(0).expect("a code")]).expect("paired");
    assert!(told.contains("knows this home as home-2"), "{told}");
}

#[test]
fn who_stands_in_the_config_is_named_by_file_and_line_and_stays() {
    let pair = pair();
    let edge = &pair.edge().program;
    let config = std::fs::read_to_string(&edge.config).expect("readable");
    let line = 1 + config.lines().position(|line| line.contains("\"cottage\"")).expect("it is there");
    let place = format!("{}:{line}", edge.config.display());
    let output = edge.cli(&["unpair", "cottage"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&format!("cottage stands in {place}")), "{}", said(&output));
    assert_eq!(homes(&pair)[0]["listed_in"], place.as_str());
    // It may pair by code, if there is nothing to change.
    let told = pair.pair_by_code(0).expect("paired");
    assert!(told.contains("knows this home as cottage"), "{told}");
    assert_eq!(homes(&pair).as_array().map(Vec::len), Some(1));
    let text = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    std::fs::write(&pair.home.program.config, text.replace("[\"example.org\"]", "[\"example.org\", \"example.net\"]"))
        .expect("written");
    let output = pair.home.program.cli(&["pair", &pair.code(0).expect("a code")]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("stands in the edge's own config"), "{}", said(&output));
    assert!(said(&output).contains(&place), "{}", said(&output));
}

#[test]
fn both_sides_change_their_keys_and_no_mail_is_lost() {
    let mut pair = started(&Options::story().by_code());
    let key = |program: &Program| program.ask(&["key"]).expect("a key").trim().to_owned();
    let (old_home, old_edge) = (key(&pair.home.program), key(&pair.edge().program));
    deliver(&pair, 1, ALICE);

    let next_home = pair.home.program.ask(&["key", "--new"]).expect("made").trim().to_owned();
    assert_ne!(next_home, old_home);
    assert_eq!(key(&pair.home.program), old_home, "the old one stays in force");
    pair.pair_by_code(0).expect("paired again");
    deliver(&pair, 2, ALICE);
    assert_eq!(pair.home.program.ask(&["key", "--switch"]).expect("switched").trim(), next_home);
    pair.home.program.stop().expect("ended");
    pair.wait_until_down();
    deliver(&pair, 3, ALICE);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    assert_eq!(homes(&pair)[0]["session"]["key"], next_home.as_str());

    let next_edge = pair.edge().program.ask(&["key", "--new"]).expect("made").trim().to_owned();
    pair.pair_by_code(0).expect("paired again");
    let config = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    assert!(config.contains(&format!("[\"{old_edge}\", \"{next_edge}\"]")), "{config}");
    deliver(&pair, 4, ALICE);
    assert_eq!(pair.edge().program.ask(&["key", "--switch"]).expect("switched").trim(), next_edge);
    pair.edge_mut().program.stop().expect("ended");
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    deliver(&pair, 5, ALICE);
    expect_delivered(&pair, ALICE, &[1, 2, 3, 4, 5]);

    // Paired once more, each forgets the other's old key.
    pair.pair_by_code(0).expect("paired again");
    let config = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    assert!(config.contains(&next_edge) && !config.contains(&old_edge), "{config}");
    let paired = std::fs::read_to_string(pair.edge().program.state.join("paired.toml")).expect("readable");
    assert!(paired.contains(&next_home) && !paired.contains(&old_home), "{paired}");
}
