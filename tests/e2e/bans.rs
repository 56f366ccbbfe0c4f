//! Who abuses the edge is banned, shown on both machines, lifted from both; and some never are.

use std::net::IpAddr;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::{Program, said};
use gatepost_tests::world::ports;
use serde_json::Value;

use super::{ALICE, STRANGER, started, status};

/// Wrong logins an hour before a ban.
const LOGINS: usize = 10;
/// Unknown recipients in ten minutes before one.
const RECIPIENTS: usize = 50;

fn pair() -> Pair {
    started(&Options::story().edge_set("bans.loopback=true"))
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// A greeted connection to 465; none if it was closed without a word.
fn submissions(pair: &Pair, from: IpAddr) -> Option<Client> {
    let mut client = Client::connect_from(from, pair.edge().doors.submissions).ok()?;
    client.secure(&pair.tls().expect("a CA"), "127.0.0.1").ok()?;
    client.expect(220).expect("greeted");
    client.say("EHLO client.example", 250).expect("EHLO");
    Some(client)
}

/// Guesses passwords, three a session, until nobody listens; how many were refused.
fn brute_force(pair: &Pair, from: IpAddr, guesses_max: usize) -> usize {
    let mut guesses = 0;
    while guesses < guesses_max {
        let Some(mut client) = submissions(pair, from) else { return guesses };
        while guesses < guesses_max {
            match client.login(ALICE, &format!("guess {guesses}")) {
                Ok(answer) if answer.code == 535 => guesses += 1,
                _ => break,
            }
        }
    }
    guesses
}

/// What who connects to 25 hears first.
fn first_words(pair: &Pair, from: IpAddr) -> String {
    let mut client = Client::connect_from(from, pair.edge().doors.smtp).expect("connected");
    let answer = client.answer().expect("a word");
    if answer.code != 220 {
        assert!(client.is_closed(), "nothing more is said");
    }
    format!("{} {}", answer.code, answer.text())
}

fn is_banned(pair: &Pair, from: IpAddr) -> bool {
    let heard = first_words(pair, from);
    let banned = heard.starts_with("554 5.7.1 Too much abuse came from your address");
    assert!(banned || heard.starts_with("220 "), "{heard}");
    assert_eq!(submissions(pair, from).is_none(), banned, "465 as 25");
    banned
}

/// The networks that are banned, and what for, as one of the machines lists them.
fn listed(program: &Program) -> Vec<(String, String)> {
    let list = program.ask_json(&["bans", "list", "--json"]).expect("listed");
    let bans = if list["edges"].is_array() { &list["edges"][0]["bans"] } else { &list["bans"] };
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let bans = bans.as_array().expect("a list");
    bans.iter().map(|ban| (text(&ban["network"]), text(&ban["kind"]))).collect()
}

fn banned(bans: &[(&str, &str)]) -> Vec<(String, String)> {
    bans.iter().map(|(network, kind)| ((*network).to_owned(), (*kind).to_owned())).collect()
}

fn refused(program: &Program, words: &[&str]) -> String {
    let output = program.cli(words).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn brute_force_is_banned_within_its_limit_shown_on_both_machines_and_lifted_from_both() {
    let pair = pair();
    let (home, edge) = (&pair.home.program, &pair.edge().program);
    assert_eq!(brute_force(&pair, ip(66), 100), LOGINS);
    assert!(is_banned(&pair, ip(66)) && !is_banned(&pair, ip(67)));
    let strikes = edge.said().matches("INFO strike client=127.0.0.66 kind=\"login\"").count();
    assert_eq!(strikes, LOGINS, "one line a strike: {}", edge.said());
    for program in [home, edge] {
        assert_eq!(listed(program), banned(&[("127.0.0.66", "login")]));
        assert!(program.ask(&["bans", "list"]).expect("listed").contains("127.0.0.66"));
    }

    let told = home.ask(&["bans", "lift", "127.0.0.66"]).expect("lifted");
    assert_eq!(told, "127.0.0.66 is banned at edge no more\n");
    assert!(!is_banned(&pair, ip(66)) && listed(edge).is_empty());
    assert_eq!(brute_force(&pair, ip(66), 100), LOGINS, "it begins anew");
    assert_eq!(edge.ask(&["bans", "lift", "127.0.0.66"]).expect("lifted"), "127.0.0.66 is banned no more\n");
    assert!(!is_banned(&pair, ip(66)) && listed(home).is_empty());
    let why = refused(home, &["bans", "lift", "127.0.0.66"]);
    assert!(why.contains("no ban of 127.0.0.66 is in force"), "{why}");
}

#[test]
fn who_is_banned_hears_nothing_more_in_a_session_that_was_open_before() {
    let pair = pair();
    let mut open = submissions(&pair, ip(66)).expect("greeted");
    let mut mail = Client::connect_from(ip(66), pair.edge().doors.smtp).expect("connected");
    mail.expect(220).expect("greeted");
    mail.say("EHLO client.example", 250).expect("EHLO");
    pair.home.program.ask(&["bans", "add", "127.0.0.64/29", "--for", "1 h"]).expect("banned");
    assert!(is_banned(&pair, ip(66)) && !is_banned(&pair, ip(72)));
    let alice = pair.account(ALICE);
    assert!(open.login(ALICE, &alice.submission_password).is_err(), "not even the right password");
    assert!(mail.ask(&format!("MAIL FROM:<{STRANGER}>")).is_err());
    assert_eq!(listed(&pair.edge().program), banned(&[("127.0.0.64/29", "by hand")]));
    let why = refused(&pair.edge().program, &["bans", "lift", "127.0.0.66"]);
    assert!(why.contains("127.0.0.66 is banned as a part of 127.0.0.64/29; lift that one"), "{why}");
}

#[test]
fn bans_survive_a_restart_and_a_damaged_file_is_no_obstacle() {
    let mut pair = pair();
    let file = pair.edge().program.state.join("bans");
    brute_force(&pair, ip(66), 100);
    observe::until_ok("the ban to be written down", || Ok(std::fs::read_to_string(&file)?));
    pair.edge().program.ask(&["bans", "add", "203.0.113.0/24"]).expect("banned");
    pair.edge_mut().program.kill();
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    assert!(is_banned(&pair, ip(66)));
    let both = banned(&[("203.0.113.0/24", "by hand"), ("127.0.0.66", "login")]);
    assert_eq!(listed(&pair.edge().program), both);

    pair.edge_mut().program.kill();
    let text = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, text.replace("127.0.0.66 login", "127.0.0.66 lo")).expect("written");
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    assert_eq!(listed(&pair.edge().program), banned(&[("203.0.113.0/24", "by hand")]));
    assert!(pair.edge().program.said().contains("lines of the bans can't be read; the others count"));

    pair.edge_mut().program.kill();
    std::fs::write(&file, [0xff; 1000]).expect("written");
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    assert!(listed(&pair.edge().program).is_empty());
}

#[test]
fn neither_the_home_nor_whom_the_owner_spares_is_ever_banned() {
    let pair = started(&Options::story().edge_set("bans.loopback=true").edge_set("bans.never=[\"127.0.0.77\"]"));
    // The home is connected from 127.0.0.1.
    for spared in [1, 77] {
        assert_eq!(brute_force(&pair, ip(spared), 2 * LOGINS), 2 * LOGINS);
        assert!(!is_banned(&pair, ip(spared)));
    }
    assert!(!pair.edge().program.said().contains("INFO strike"), "nobody who reads the log bans them either");
    for program in [&pair.home.program, &pair.edge().program] {
        for (network, words) in [
            ("127.0.0.1", "the home cottage is connected from 127.0.0.1: its own people would be shut out"),
            ("127.0.0.0/8", "the home cottage is connected from 127.0.0.1"),
            ("127.0.0.77", "it is in 127.0.0.77, which bans.never in the edge's config lists"),
            ("128.0.0.0/1", "is (much of) the internet"),
        ] {
            let why = refused(program, &["bans", "add", network]);
            assert!(why.contains(words), "{network}: {why}");
        }
    }
}

#[test]
fn without_being_asked_to_the_edge_bans_nobody_on_its_own_machine() {
    let pair = started(&Options::story());
    assert_eq!(brute_force(&pair, ip(66), LOGINS + 1), LOGINS + 1);
    let why = refused(&pair.edge().program, &["bans", "add", "127.0.0.66"]);
    assert!(why.contains("127.0.0.66 is not banned: it is this machine itself"), "{why}");
}

#[test]
fn a_storm_of_unknown_recipients_is_banned_and_a_host_with_good_mail_is_not() {
    let pair = pair();
    let unknown = |from: u8, good_mail: bool, most: usize| {
        let mut count = 0;
        while count < most {
            let mut client = Client::connect_from(ip(from), pair.edge().doors.smtp).expect("connected");
            if client.answer().expect("a word").code != 220 {
                break;
            }
            client.say("EHLO client.example", 250).expect("EHLO");
            if good_mail {
                let text = b"From: <stranger@world.example>\r\n\r\nhello\r\n";
                assert_eq!(client.deliver(STRANGER, &[ALICE], text).expect("answered").code, 250);
            }
            client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
            // Fewer than end a session for themselves.
            for _ in 0..10 {
                match client.ask(&format!("RCPT TO:<nobody{count}@example.org>")) {
                    Ok(answer) => assert_eq!(answer.code, 550, "{answer:?}"),
                    Err(_) => break,
                }
                count += 1;
            }
        }
        count
    };
    assert_eq!(unknown(66, false, 1000), RECIPIENTS);
    assert!(is_banned(&pair, ip(66)));
    assert_eq!(unknown(67, true, 2 * RECIPIENTS), 2 * RECIPIENTS);
    assert!(!is_banned(&pair, ip(67)));
    assert_eq!(listed(&pair.edge().program), banned(&[("127.0.0.66", "recipient")]));
}

#[test]
fn sessions_that_break_the_protocol_are_strikes_and_metrics_name_no_address() {
    let port = ports::free();
    let pair =
        started(&Options::story().edge_set("bans.loopback=true").home_set(&format!("metrics.listen=\"{port}\"")));
    let mut sessions = 0;
    loop {
        let mut client = Client::connect_from(ip(66), pair.edge().doors.smtp).expect("connected");
        if client.answer().expect("a word").code != 220 {
            break;
        }
        client.send(b"EHLO client.example\n").expect("sent");
        assert_eq!(client.answer().expect("answered").code, 500);
        assert!(client.is_closed());
        sessions += 1;
    }
    assert_eq!(sessions, 5);
    assert_eq!(listed(&pair.home.program), banned(&[("127.0.0.66", "abuse")]));
    let page = status::page(port);
    for line in [
        "gatepost_edge_strikes_total{edge=\"edge\",kind=\"abuse\"} 5\n",
        "gatepost_edge_bans_total{edge=\"edge\",kind=\"abuse\"} 1\n",
        "gatepost_edge_bans{edge=\"edge\"} 1\n",
        "gatepost_edge_held_total{edge=\"edge\",by=\"ban\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("127.0.0.66"));
}

/// What the shipped filter finds in these lines: by fail2ban itself where it is installed, else by its expressions.
fn found_by_filter(pair: &Pair, lines: &str) -> usize {
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/fail2ban/filter.conf");
    let log = pair.directory().join("edge-log");
    std::fs::write(&log, lines).expect("written");
    let by_python = "import configparser, re, sys\n\
        parser = configparser.RawConfigParser()\n\
        parser.read(sys.argv[1])\n\
        expressions = parser['Definition']['failregex'].splitlines()\n\
        expressions = [re.compile(one.replace('<ADDR>', '[0-9a-f.:]+')) for one in expressions]\n\
        dateless = [re.sub(r'\\d{4}-\\d\\d-\\d\\dT[0-9:.]+Z', '', line) for line in open(sys.argv[2]).read().splitlines()]\n\
        print(sum(any(one.search(line) for one in expressions) for line in dateless))";
    let run = |program: &str, words: &[&str]| {
        let output = std::process::Command::new(program).args(words).output()?;
        std::io::Result::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let log = log.to_str().expect("a plain path");
    let counted = run("python3", &["-c", by_python, filter, log]).expect("python3 is installed");
    let counted: usize = counted.trim().parse().expect(&counted);
    if let Ok(told) = run("fail2ban-regex", &["--datepattern", "%Y-%m-%dT%H:%M:%S", log, filter]) {
        let of_all = told.lines().find(|line| line.starts_with("Lines:")).expect(&told);
        assert!(of_all.contains(&format!(" {counted} matched")), "{told}");
    }
    counted
}

#[test]
fn the_shipped_filter_finds_each_strike_and_nothing_that_a_client_made_up() {
    let mut options = Options::story().edge_set("bans.loopback=true");
    for format in ["text", "json"] {
        options.edge_wrapper = vec!["env".to_owned(), format!("GATEPOST_LOG_FORMAT={format}")];
        let pair = started(&options);
        assert_eq!(brute_force(&pair, ip(66), 3), 3);
        let mut client = Client::connect_from(ip(67), pair.edge().doors.smtp).expect("connected");
        client.expect(220).expect("greeted");
        client.ask("EHLO INFO strike client=192.0.2.1 kind=\"login\"").expect("answered");
        client.say("EHLO x", 250).expect("EHLO");
        client.say("MAIL FROM:<\"INFO strike client=192.0.2.1 kind=\\\"login\\\"\"@a.example>", 250).expect("MAIL");
        client.say("RCPT TO:<nobody@example.org>", 550).expect("unknown");
        let said = pair.edge().program.said();
        assert!(said.contains("192.0.2.1"), "it tried: {said}");
        assert_eq!(found_by_filter(&pair, &said), 4, "{said}");
        // As the journal tells them.
        let journal = |line: &str| match format {
            "text" => {
                format!("vps gatepost-edge[7]:  INFO {}\n", line.split_once(" INFO ").map_or("", |(_, rest)| rest))
            }
            _ => format!("vps gatepost-edge[7]: {line}\n"),
        };
        let told: String = said.lines().map(journal).collect();
        assert_eq!(found_by_filter(&pair, &told), 4, "{told}");
    }
}
