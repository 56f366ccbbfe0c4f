//! Pairing by one-time code: one paste, and both sides are complete; everything else is refused in words.

use std::process::Output;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::secret::Secret;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::{Program, said};
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, expect_delivered, expect_in_sink, started};

/// Edges that run and know no home, and a home that knows no edge.
fn unpaired() -> Pair {
    let mut pair = Pair::prepare(&Options::story().by_code()).expect("prepared");
    pair.edge_mut().program.start().expect("started");
    observe::until_ok("the edge to run", || pair.edge().program.ask(&["status"]));
    pair
}

fn tried(program: &Program, code: &str) -> Output {
    program.cli(&["pair", code]).output().expect("it runs")
}

/// Refused, with these words.
fn expect_refused(program: &Program, code: &str, exit: i32, words: &str) {
    let output = tried(program, code);
    assert_eq!(output.status.code(), Some(exit), "{}", said(&output));
    let heard = String::from_utf8_lossy(&output.stderr);
    assert!(heard.contains(words), "{words:?} is not in {heard}");
    assert!(!heard.contains(code), "the code itself is told to nobody");
}

fn expect_log(program: &Program, words: &[&str]) {
    observe::until(
        &format!("{} to say {words:?} in one line", program.name),
        || program.said(),
        |said| said.lines().any(|line| words.iter().all(|word| line.contains(word))),
    );
}

/// The same code with another secret.
fn with_secret(code: &str, secret: u8) -> String {
    let code: PairingCode = code.parse().expect("a code");
    PairingCode { secret: Secret::new(vec![secret; 16]), ..code }.reveal().to_string()
}

fn deliver(pair: &Pair, number: u64, to: &str) {
    let mut client = observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp));
    let sent = message::numbered(number, STRANGER, to, 1000);
    let answer = client.deliver(STRANGER, &[to], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

#[test]
fn two_machines_pair_by_one_code_and_mail_flows() {
    let mut pair = unpaired();
    let (home, edge) = (&pair.home.program, &pair.edge().program);
    let before = std::fs::read_to_string(&home.config).expect("readable") + "\n# a last word\n";
    std::fs::write(&home.config, &before).expect("written");
    for (program, words) in [(home, "no [[edge]]"), (edge, "no home is paired")] {
        let output = program.cli(&["check"]).output().expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    // An edge nobody is behind yet takes nothing, and says so.
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    assert_eq!(client.ask("RCPT TO:<postmaster>").expect("answered").code, 450);
    assert_eq!(client.ask(&format!("RCPT TO:<{ALICE}>")).expect("answered").code, 550);

    let code = pair.code(0).expect("a code");
    assert_eq!(code.split_whitespace().count(), 1, "one word: {code}");
    let told = pair.home.program.ask(&["pair", &code]).expect("paired");
    assert!(told.contains("knows this home as home: example.org"), "{told}");
    let config = std::fs::read_to_string(&home.config).expect("readable");
    let (start, table) = config.split_once("[[edge]]").expect("an edge");
    assert!(before.starts_with(start.trim_end()), "its owner's words stay: {config}");
    assert!(table.contains("# a last word"), "{config}");
    assert!(home.ask(&["check"]).expect("good").contains("1 edge(s)"));
    assert!(edge.ask(&["check"]).expect("good").contains("home home, listed in paired.toml: example.org"));
    let status = edge.ask_json(&["status", "--json"]).expect("status");
    assert_eq!(status["homes"][0]["listed_in"], "paired.toml", "{status:#}");
    assert!(!edge.said().contains(&code) && !home.said().contains(&code), "no log shows a code");

    // In force at once: neither side was started again.
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    deliver(&pair, 1, ALICE);
    expect_delivered(&pair, ALICE, &[1]);
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let door = pair.edge().doors.submissions;
    let mut client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let sent = message::numbered(2, ALICE, "friend@elsewhere.example", 1000);
    assert_eq!(client.deliver(ALICE, &["friend@elsewhere.example"], &sent).expect("answered").code, 250);
    expect_in_sink(&pair, &[2]);
    // And for good.
    pair.edge_mut().program.kill();
    pair.edge_mut().program.start().expect("started");
    deliver(&pair, 3, ALICE);
    expect_delivered(&pair, ALICE, &[1, 3]);
}

#[test]
fn a_running_home_takes_an_edge_in_and_lets_it_go_at_once() {
    let mut pair = unpaired();
    pair.home.program.start().expect("started");
    observe::until_ok("the home to run", || pair.home.program.ask(&["status"]));
    let told = pair.home.program.ask(&["pair", "--json", &pair.code(0).expect("a code")]).expect("paired");
    assert!(told.contains("\"in_force\": true"), "{told}");
    pair.wait_until_up();
    deliver(&pair, 1, ALICE);
    expect_delivered(&pair, ALICE, &[1]);
    let name = pair.home.program.ask_json(&["status", "--json"]).expect("status")["edges"][0]["name"].take();
    let told = pair.home.program.ask(&["unpair", "--json", name.as_str().expect("a name")]).expect("unpaired");
    assert!(told.contains("\"in_force\": true"), "{told}");
    pair.wait_until_down();
    assert_eq!(pair.home.program.ask_json(&["status", "--json"]).expect("status")["edges"], serde_json::json!([]));
    // The edge still holds its mail for it.
    deliver(&pair, 2, ALICE);
    pair.pair_by_code(0).expect("paired again");
    expect_delivered(&pair, ALICE, &[1, 2]);
}

#[test]
fn a_running_edge_tells_who_came_and_a_code_is_good_once() {
    let pair = unpaired();
    let address = pair.edge().doors.tunnel.to_string();
    let waiting = pair.edge().program.cli(&["pair", "--wait", "--json", "--address", &address, "--name", "cottage"]);
    let (codes, code) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        use std::io::{BufRead as _, BufReader};
        let mut waiting = waiting;
        let mut child = waiting.stdout(std::process::Stdio::piped()).spawn().expect("it runs");
        let mut rest = String::new();
        for line in BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok) {
            if let Some(code) = line.trim().strip_prefix("\"code\": \"") {
                codes.send(code.trim_end_matches([',', '"']).to_owned()).expect("somebody waits");
            }
            rest += &line;
        }
        (child.wait().expect("ended"), rest)
    });
    let code = code.recv().expect("a code");
    pair.home.program.ask(&["pair", &code, "--json"]).expect("paired");
    let (status, told) = waiter.join().expect("it ends");
    assert!(status.success() && told.contains("\"cottage\"") && told.contains("\"paired\""), "{told}");

    expect_refused(&pair.home.program, &code, 1, "this code was used already; ask for a new one: gatepost-edge pair");
    // The same home again, by another code: its entry is replaced, here and there.
    let text = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    std::fs::write(&pair.home.program.config, text.replace("[\"example.org\"]", "[\"example.org\", \"example.net\"]"))
        .expect("written");
    pair.pair_by_code(0).expect("paired again");
    let status = pair.edge().program.ask_json(&["status", "--json"]).expect("status");
    assert_eq!(status["homes"].as_array().map(Vec::len), Some(1), "{status:#}");
    assert_eq!(status["homes"][0]["name"], "cottage");
    assert_eq!(status["homes"][0]["domains"], serde_json::json!(["example.org", "example.net"]));
    let text = std::fs::read_to_string(&pair.home.program.config).expect("readable");
    assert_eq!(text.matches("[[edge]]").count(), 1, "{text}");
}

#[test]
fn wrong_codes_are_refused_in_words_and_after_a_few_the_right_one_is_given_up() {
    let pair = unpaired();
    let (home, edge) = (&pair.home.program, &pair.edge().program);
    let code = pair.code(0).expect("a code");
    let mut mistyped = code.clone();
    mistyped.replace_range(20..21, if &code[20..21] == "q" { "p" } else { "q" });
    expect_refused(home, &mistyped, 2, "checksum");
    expect_refused(home, edge.ask(&["key"]).expect("a key").trim(), 2, "this is a key, not a pairing code");
    expect_refused(home, "hunter2", 2, "starts with gpair1");
    // Another machine answers there than the one that made the code: it hears nothing.
    let parsed: PairingCode = code.parse().expect("a code");
    let elsewhere = PairingCode { edge_key: NodeKey::of_spki(b"another"), ..parsed };
    expect_refused(home, &elsewhere.reveal(), 1, "another machine than the one that made this code");
    assert!(!edge.said().contains(home.ask(&["key"]).expect("a key").trim()), "{}", edge.said());
    for secret in 1..=5 {
        expect_refused(home, &with_secret(&code, secret), 1, "the edge has no such code open");
    }
    expect_log(edge, &["a home was not paired", "no such code"]);
    expect_refused(home, &code, 1, "given up after too many wrong ones");
    assert!(!std::fs::read_to_string(&home.config).expect("readable").contains("[[edge]]"), "nothing was written");
    // The next code is as good as any.
    pair.pair_by_code(0).expect("paired");
}

#[test]
fn codes_open_at_once_are_few_and_addresses_are_looked_at() {
    let pair = unpaired();
    let edge = &pair.edge().program;
    let codes: Vec<_> = (0..4).map(|_| edge.ask(&["pair"]).expect("a code")).collect();
    assert!(codes.iter().all(|code| codes.iter().filter(|other| *other == code).count() == 1), "each its own");
    let parsed: PairingCode = codes[0].parse().expect("a code");
    assert_eq!(parsed.address.as_str(), format!("mail.example.org:{}", pair.edge().doors.tunnel.port()));
    for (arguments, words) in [
        (&["pair"][..], "4 codes are open already"),
        (&["pair", "--address", "mail.example.org"], "not an address to dial"),
        (&["pair", "--name", "My Home"], "no name for a home"),
        (&["unpair", "cottage"], "no home is called cottage"),
    ] {
        let output = edge.cli(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn a_home_pairs_by_hand_where_its_config_can_not_be_written() {
    let pair = unpaired();
    // No name is left for the file that would take its place.
    let long = pair.directory().join("h".repeat(250) + ".toml");
    std::fs::copy(&pair.home.program.config, &long).expect("copied");
    let mut program = Program::new("home", &pair.home.program.binary, pair.directory(), None, &[]);
    program.config.clone_from(&long);
    let output = tried(&program, &pair.code(0).expect("a code"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let (paste, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(words.contains("the edge has this home now, but can't"), "{words}");
    let text = std::fs::read_to_string(&long).expect("readable");
    assert!(!text.contains("[[edge]]"), "{text}");
    std::fs::write(&pair.home.program.config, format!("{text}\n{paste}")).expect("written");
    assert!(pair.home.program.ask(&["check"]).expect("good").contains("1 edge(s)"));
}

#[test]
fn a_configs_mode_stays_and_a_link_is_followed() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = unpaired();
    let config = &pair.home.program.config;
    let real = pair.directory().join("real.toml");
    std::fs::copy(config, &real).expect("copied");
    std::fs::remove_file(config).expect("removed");
    std::os::unix::fs::symlink(&real, config).expect("linked");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).expect("set");
    pair.pair_by_code(0).expect("paired");
    assert!(std::fs::symlink_metadata(config).expect("there").is_symlink());
    let found = std::fs::metadata(&real).expect("there");
    assert_eq!(found.permissions().mode() & 0o777, 0o640);
    pair.home.program.ask(&["unpair", "edge"]).expect("unpaired");
    assert!(!std::fs::read_to_string(&real).expect("readable").contains("[[edge]]"));
    let output = pair.home.program.cli(&["unpair", "edge"]).output().expect("it runs");
    assert!(said(&output).contains("no [[edge]] is called edge"), "{}", said(&output));
}

#[test]
fn two_edges_pair_by_code_and_each_is_as_good_as_the_other() {
    let mut options = Options::story().by_code().home_set("queue.retry=[\"1 s\"]");
    options.edges = 2;
    let mut pair = started(&options);
    pair.edge_mut().program.kill();
    let mut client = Client::greeted(pair.edges[1].doors.smtp).expect("greeted");
    let sent = message::numbered(1, STRANGER, ALICE, 1000);
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
    expect_delivered(&pair, ALICE, &[1]);
}
