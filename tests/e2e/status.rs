//! `status` and the metrics show home and edges in one view, and tell the truth when something is wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::{message, ports};
use rustix::process::Signal;
use serde_json::Value;

use super::{ALICE, STRANGER, expect_delivered, started};

fn status(pair: &Pair) -> Value {
    pair.home.program.ask_json(&["status", "--json"]).expect("status")
}

fn troubles(status: &Value) -> String {
    status["troubles"].to_string()
}

fn deliver(pair: &Pair, number: u64) {
    let sent = message::numbered(number, STRANGER, ALICE, 3000);
    let answer =
        Client::greeted(pair.edge().doors.smtp).and_then(|mut client| client.deliver(STRANGER, &[ALICE], &sent));
    assert_eq!(answer.expect("answered").code, 250);
}

pub(super) fn page(address: SocketAddr) -> String {
    observe::until_ok("the page of metrics", || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: home\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        anyhow::ensure!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        Ok(page)
    })
}

#[test]
fn home_and_edge_are_seen_in_one_view_and_counted_in_one_page() {
    let metrics = ports::free();
    let pair = started(&Options::story().home_set(&format!("metrics.listen=\"{metrics}\"")));
    deliver(&pair, 1);
    deliver(&pair, 2);
    expect_delivered(&pair, ALICE, &[1, 2]);
    let seen = observe::until(
        "the last hour to be told of",
        || status(&pair),
        |status| {
            status["edges"][0]["report"]["home"]["last_hour"]["taken"] == 2 && status["last_hour"]["accepted"] == 2
        },
    );
    let edge = &seen["edges"][0];
    assert_eq!(edge["session"]["protocol"], 2, "{seen:#}");
    assert!(edge["session"]["heard_s_ago"].as_f64().is_some_and(|age| age < 60.0), "{seen:#}");
    assert_eq!(edge["report"]["home"]["directory_version"], seen["directory_version"], "{seen:#}");
    assert_eq!(edge["report"]["home"]["spool"]["messages"], 0, "{seen:#}");
    assert_eq!(seen["database"], "good", "{seen:#}");
    assert_eq!(seen["troubles"], serde_json::json!([]), "{seen:#}");
    let text = pair.home.program.ask(&["status"]).expect("status");
    assert!(text.contains("last hour: 2 taken, 0 refused, 0 sealed, 0 sent"), "{text}");
    // The last day of both certificates, on both machines.
    let end = "2044-01-01T00:00:00Z";
    assert_eq!(text.matches(&format!("good until {end}")).count(), 2, "{text}");
    for ends in [&seen["certificate_ends"], &edge["report"]["certificate_ends"]] {
        assert!(ends["at"] == end && ends["days_left"].as_i64().is_some_and(|days| days > 1000), "{ends}");
    }
    let text = pair.edge().program.ask(&["status"]).expect("status");
    assert!(text.contains(&format!("certificate  good until {end}")), "{text}");

    let page = page(metrics);
    for line in [
        "gatepost_home_messages_total{outcome=\"accepted\"} 2\n",
        "gatepost_home_copies_total 2\n",
        "gatepost_home_delivery_seconds_count 2\n",
        "gatepost_home_edge_up{edge=\"edge\"} 1\n",
        "gatepost_edge_messages_total{edge=\"edge\",outcome=\"accepted\"} 2\n",
        "gatepost_edge_spool_messages{edge=\"edge\"} 0\n",
        "# TYPE gatepost_edge_message_seconds histogram\n",
        "gatepost_home_certificate_end_time_seconds 2335219200\n",
        "gatepost_edge_certificate_end_time_seconds{edge=\"edge\"} 2335219200\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains('@'), "no address is in it: {page}");
}

#[test]
fn an_edge_that_is_away_or_silent_is_the_first_thing_status_says() {
    let mut pair = started(&Options::story());
    // It stands still: the session lives on for a while, and it is asked in vain.
    pair.edge().program.signal(Signal::STOP).expect("stopped");
    let seen = status(&pair);
    assert_eq!(seen["edges"][0]["connected"], true, "{seen:#}");
    assert!(troubles(&seen).contains("does not say how it is: no answer within 2 s"), "{seen:#}");
    pair.edge().program.signal(Signal::CONT).expect("running again");
    pair.edge_mut().program.kill();
    let seen = observe::until("the loss", || status(&pair), |status| status["edges"][0]["connected"] == false);
    let first = seen["troubles"][0]["remedy"].as_str().unwrap_or_default();
    assert!(first.starts_with("is the edge running"), "{seen:#}");
    let text = pair.home.program.ask(&["status"]).expect("status");
    assert!(text.starts_with("!! edge edge is not connected"), "{text}");
}

#[test]
fn several_edges_tell_their_home_each_for_itself() {
    let mut options = Options::story();
    options.edges = 2;
    let pair = started(&options);
    for (index, number) in [(0, 1), (1, 2)] {
        let sent = message::numbered(number, STRANGER, ALICE, 3000);
        let client = Client::greeted(pair.edges[index].doors.smtp);
        let answer = client.and_then(|mut client| client.deliver(STRANGER, &[ALICE], &sent)).expect("answered");
        assert_eq!(answer.code, 250);
    }
    let story = observe::until(
        "both stories",
        || pair.home.program.ask(&["trace", STRANGER]).expect("trace"),
        |story| story.contains("  edge  took a message") && story.contains("  edge2  took a message"),
    );
    assert_eq!(story.matches("=> delivered to").count(), 2, "{story}");
    let seen = status(&pair);
    for edge in seen["edges"].as_array().expect("edges") {
        assert!(edge["report"]["home"].is_object(), "{seen:#}");
    }
}
