//! A config edited while the programs run: taken without dropping a session, or refused with the words of `check`.

use std::fs;
use std::process::{Output, Stdio};

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::program::{Program, said};
use gatepost_tests::world::message;
use rustix::process::Signal;

use super::{ALICE, BOB, STRANGER, expect_delivered, pair};

#[test]
fn a_new_domain_flows_after_two_reloads_and_no_session_is_dropped() {
    let pair = pair();
    let (edge, home) = (&pair.edge().program, &pair.home.program);
    let since = || edge.ask_json(&["status", "--json"]).expect("status")["homes"][0]["session"]["since"].clone();
    let before = since();
    let mut open = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    open.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    open.say("RCPT TO:<alice@example.net>", 550).expect("not ours yet");
    for program in [edge, home] {
        rewrite(program, |text| {
            text.replace("domains = [\"example.org\"]", "domains = [\"example.org\", \"example.net\"]")
        });
        let told = program.ask(&["reload"]).expect("taken");
        assert!(told.contains("domains: [example.org] -> [example.org, example.net]"), "{told}");
        assert_eq!(program.ask(&["reload"]).expect("taken"), "nothing has changed\n");
        let json = program.ask_json(&["reload", "--json"]).expect("taken");
        assert!(json["changes"].as_array().is_some_and(Vec::is_empty), "{json}");
    }
    home.ask(&["alias", "add", "alice@example.net", ALICE]).expect("an alias");
    observe::until_ok("the edge to know it", || {
        open.ask("RCPT TO:<alice@example.net>").and_then(|answer| {
            anyhow::ensure!(answer.code == 250, "{answer:?}");
            Ok(())
        })
    });
    open.say("DATA", 354).expect("DATA");
    open.send(&message::stuffed(&message::numbered(1, STRANGER, "alice@example.net", 1000))).expect("sent");
    open.expect(250).expect("taken");
    expect_delivered(&pair, ALICE, &[1]);
    assert_eq!(since(), before, "the tunnel was never cut");
}

#[test]
fn a_bad_config_is_refused_with_the_words_of_check_and_the_old_one_stays() {
    let pair = pair();
    for program in [&pair.edge().program, &pair.home.program] {
        let good = fs::read_to_string(&program.config).expect("readable");
        for bad in [
            "[limits]\nmessage = \"1 furlong\"\n",
            "hostnam = \"x\"\n",
            "[[[",
            "[tls]\ncertificate = \"/no\"\nkey = \"/no\"\n",
        ] {
            let rest = without(&good, if bad.starts_with("[tls]") { "[tls]" } else { "[limits]" });
            fs::write(&program.config, if bad.starts_with('[') { rest + "\n" + bad } else { bad.to_owned() + &rest })
                .expect("written");
            let (check, reload) = (asked(program, &["check"]), asked(program, &["reload"]));
            assert_eq!(check.status.code(), Some(2), "{}", said(&check));
            assert_eq!(reload.status.code(), Some(2), "{}", said(&reload));
            assert_eq!(said(&reload), said(&check));
        }
        // SIGHUP says it in the log.
        program.signal(Signal::HUP).expect("told");
        observe::until_ok("the refusal in the log", || {
            anyhow::ensure!(program.said().contains("the config was not taken"), "{}", program.last_words());
            Ok(())
        });
        fs::write(&program.config, good).expect("written");
        assert_eq!(program.ask(&["reload"]).expect("taken"), "nothing has changed\n");
    }
    deliver(&pair, 1);
    expect_delivered(&pair, BOB, &[1]);
}

/// A setting that is not in any config of the pair, in front.
fn with_a_change(program: &Program, of_edge: bool) -> (String, &'static str) {
    let line = if of_edge { "outbound_ipv6 = true\n" } else { "subaddress_separator = \"-\"\n" };
    let text = fs::read_to_string(&program.config).expect("readable");
    (line.to_owned() + &text, line.split(' ').next().expect("a name"))
}

#[test]
fn a_config_that_is_half_written_is_refused_until_it_is_whole() {
    let pair = pair();
    for (program, of_edge) in [(&pair.edge().program, true), (&pair.home.program, false)] {
        let (whole, name) = with_a_change(program, of_edge);
        let cuts: Vec<usize> = whole.match_indices('=').map(|(at, _)| at + 1).collect();
        assert!(cuts.len() > 5);
        for cut in cuts {
            fs::write(&program.config, &whole[..cut]).expect("written");
            let reload = asked(program, &["reload"]);
            assert_eq!(reload.status.code(), Some(2), "cut at {cut}: {}", said(&reload));
        }
        deliver(&pair, if of_edge { 1 } else { 2 });
        fs::write(&program.config, &whole).expect("written");
        let told = program.ask(&["reload"]).expect("taken");
        assert!(told.contains(name), "{told}");
    }
    expect_delivered(&pair, BOB, &[1, 2]);
}

#[test]
fn of_many_reloads_at_once_one_takes_the_change_and_the_others_find_nothing() {
    let pair = pair();
    for (program, of_edge) in [(&pair.edge().program, true), (&pair.home.program, false)] {
        let (whole, name) = with_a_change(program, of_edge);
        fs::write(&program.config, &whole).expect("written");
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let mut command = program.cli(&["reload", "--json"]);
                command.stdout(Stdio::piped()).spawn().expect("it runs")
            })
            .collect();
        // One more by its other road.
        program.signal(Signal::HUP).expect("told");
        let mut changes = Vec::new();
        for asked in asking {
            let output = asked.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", said(&output));
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            changes.extend(told["changes"].as_array().expect("a list").clone());
        }
        // The signal may have been first.
        assert!(changes.len() <= 1, "{changes:?}");
        let logged = observe::until("the change in the log", || program.said(), |said| said.contains(name));
        assert_eq!(logged.matches(&format!("{name}: ")).count(), 1, "{logged}");
        assert_eq!(program.ask(&["reload"]).expect("taken"), "nothing has changed\n");
    }
    deliver(&pair, 1);
    expect_delivered(&pair, BOB, &[1]);
}

#[test]
fn sighup_takes_it_too_and_says_each_change_in_the_log() {
    let pair = pair();
    let program = &pair.home.program;
    rewrite(program, |text| "subaddress_separator = \"-\"\n".to_owned() + &text);
    program.signal(Signal::HUP).expect("told");
    observe::until_ok("the change in the log", || {
        anyhow::ensure!(program.said().contains("subaddress_separator: '+' -> '-'"), "{}", program.last_words());
        Ok(())
    });
    observe::until_ok("the edge to know it", || {
        let mut client = Client::greeted(pair.edge().doors.smtp)?;
        client.say(&format!("MAIL FROM:<{STRANGER}>"), 250)?;
        client.say("RCPT TO:<bob-lists@example.org>", 250).map(drop)
    });
}

fn without(text: &str, table: &str) -> String {
    let Some(start) = text.find(table) else { return text.to_owned() };
    let end = text[start + 1..].find("\n[").map_or(text.len(), |at| start + 1 + at);
    text[..start].to_owned() + &text[end..]
}

fn rewrite(program: &Program, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(&program.config).expect("readable");
    fs::write(&program.config, change(text)).expect("written");
}

fn asked(program: &Program, arguments: &[&str]) -> Output {
    program.cli(arguments).output().expect("it runs")
}

fn deliver(pair: &Pair, number: u64) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(number, STRANGER, BOB, 1000);
    assert_eq!(client.deliver(STRANGER, &[BOB], &sent).expect("answered").code, 250);
}
