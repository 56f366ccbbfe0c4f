//! Devices of the LAN that can't log in: home:25, for the networks the owner names and for nobody else.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers;
use gatepost_tests::world::message;

use super::{ALICE, BOB, expect_delivered, expect_in_sink, fields, started, values};

const FRIEND: &str = "friend@elsewhere.example";
/// In the network that is trusted here.
const PRINTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
/// In none.
const OUTSIDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, 2));

fn lan() -> Options {
    Options::story().home_set("trusted_networks=[\"127.0.0.0/24\"]")
}

fn relay(pair: &Pair) -> SocketAddr {
    pair.home.relay.expect("home:25")
}

fn printer(pair: &Pair) -> Client {
    let mut client = Client::connect_from(PRINTER, relay(pair)).expect("connected");
    client.expect(220).expect("greeted");
    client.say("EHLO printer", 250).expect("EHLO");
    client
}

/// An outsider hears at once that this is not its door, and nothing it says is heard.
#[test]
fn who_is_outside_is_turned_away_at_once() {
    let pair = started(&lan());
    let mut client = Client::connect_from(OUTSIDER, relay(&pair)).expect("connected");
    let answer = client.expect(554).expect("turned away");
    assert!(answer.text().contains("trusted_networks"), "{answer:?}");
    assert!(client.is_closed());
    // Its neighbour comes in.
    printer(&pair);
}

#[test]
fn the_door_is_shut_unless_somebody_is_trusted() {
    let pair = started(&Options::story().home_set("listen.smtp=127.0.0.1:0"));
    let status = pair.home.program.ask_json(&["status", "--json"]).expect("status");
    assert!(status["relay"].is_null(), "{status:#}");
    assert!(pair.home.program.said().contains("so it stays shut"), "{}", pair.home.program.said());
}

#[test]
fn a_device_reaches_the_world_and_the_house_and_tells_nothing_of_the_lan() {
    let pair = started(&lan());
    let mut client = printer(&pair);
    let sent = message::numbered(1, "printer@example.org", FRIEND, 2000);
    assert_eq!(client.deliver("printer@example.org", &[FRIEND, BOB], &sent).expect("answered").code, 250);
    // What it leaves out is added; its bare name and that of its reader get a domain.
    client.begin("printer", &["alice", "nobody-here"]).expect("begun");
    client.send(b"From: printer\r\nTo: alice\r\nSubject: scan\r\n\r\nHi\r\n.\r\n").expect("sent");
    client.expect(250).expect("taken");
    expect_in_sink(&pair, &[1]);
    expect_delivered(&pair, BOB, &[1]);
    let envelope = &pair.sink.envelopes().expect("readable")[0];
    let text = String::from_utf8(pair.sink.message(envelope).expect("readable")).expect("text").replace("\r\n", "\n");
    let received = fields(&text);
    assert!(values(&received, "Received").iter().all(|field| !field.contains("127.0.0") && !field.contains("printer")));
    let scan = super::only_message(&pair, ALICE);
    let scan = fields(&scan);
    assert_eq!(values(&scan, "From"), ["<printer@example.org>"]);
    assert_eq!(values(&scan, "To"), ["<alice@example.org>"]);
    assert_eq!(values(&scan, "Return-Path"), ["<printer@example.org>"]);
    assert_eq!((values(&scan, "Date").len(), values(&scan, "Message-ID").len()), (1, 1), "{scan:?}");
}

#[test]
fn the_sender_must_be_ours_or_listed() {
    let pair = started(&lan().home_set("trusted_senders=[\"nas.lan\"]"));
    let mut client = printer(&pair);
    for (sender, code) in [
        ("x@example.com", 550),
        ("x@example.org.example.com", 550),
        ("x@nas.lan", 250),
        ("root@localhost", 250),
        ("", 250),
        (ALICE, 250),
    ] {
        client.say(&format!("MAIL FROM:<{sender}>"), code).expect(sender);
        client.say("RSET", 250).expect("RSET");
    }
    // Who is in From counts as well.
    client.begin(ALICE, &[FRIEND]).expect("begun");
    client.send(b"From: stranger@example.com\r\n\r\nHi\r\n.\r\n").expect("sent");
    let answer = client.expect(550).expect("refused");
    assert!(answer.text().contains("trusted_senders"), "{answer:?}");
    client.begin("x@nas.lan", &[FRIEND]).expect("begun");
    client.send(&message::stuffed(&message::numbered(1, "x@nas.lan", FRIEND, 900))).expect("sent");
    client.expect(250).expect("taken");
    expect_in_sink(&pair, &[1]);
    // What can't deliver there comes back to somebody.
    assert_eq!(pair.sink.envelopes().expect("readable")[0].sender, ALICE, "the postmaster's");
}

#[test]
fn tls_and_a_login_are_there_for_who_wants_them() {
    let pair = started(&lan());
    let mut client = printer(&pair);
    client.say("AUTH PLAIN AGEAYg==", 530).expect("no login in the clear");
    client.start_tls(&pair.tls().expect("a CA"), "127.0.0.1").expect("TLS with the home's certificate");
    let alice = pair.account(ALICE);
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    // Who has logged in has its own rights, not the network's.
    client.say(&format!("MAIL FROM:<{BOB}>"), 550).expect("not hers");
    let sent = message::numbered(1, ALICE, FRIEND, 900);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
    expect_in_sink(&pair, &[1]);
}

#[test]
fn bare_line_ends_are_refused_with_words_that_help() {
    let pair = started(&lan());
    let mut client = printer(&pair);
    client.begin("printer", &[FRIEND]).expect("begun");
    client.send(b"From: printer\n\nHi\r\n.\r\n").expect("sent");
    let answer = client.expect(550).expect("refused");
    assert!(answer.text().contains("CR LF"), "{answer:?}");
}

#[test]
fn a_device_that_went_mad_is_slowed_down() {
    let pair = started(&lan().home_set("limits.trusted_recipients_per_hour=3"));
    let mut client = printer(&pair);
    client.say("MAIL FROM:<printer>", 250).expect("MAIL");
    for code in [250, 250, 250, 451] {
        client.say(&format!("RCPT TO:<{FRIEND}>"), code).expect("RCPT");
    }
    // Another device has a share of its own.
    let mut other = Client::connect_from("127.0.0.3".parse().expect("valid"), relay(&pair)).expect("connected");
    other.expect(220).expect("greeted");
    other.say("EHLO nas", 250).expect("EHLO");
    other.say("MAIL FROM:<nas>", 250).expect("MAIL");
    other.say(&format!("RCPT TO:<{FRIEND}>"), 250).expect("RCPT");
}

#[test]
fn one_device_takes_not_every_place() {
    let pair = started(&lan().home_set("limits.smtp_connections_per_address=2"));
    let held = [printer(&pair), printer(&pair)];
    let mut third = Client::connect_from(PRINTER, relay(&pair)).expect("connected");
    third.expect(421).expect("too many");
    drop(held);
    observe::until_ok("its place to be free", || {
        Client::connect_from(PRINTER, relay(&pair))?.expect(220)?;
        Ok(())
    });
}

#[test]
fn a_bounce_of_a_devices_mail_comes_to_somebody() {
    let pair = started(&lan());
    let mut client = printer(&pair);
    let sent = message::numbered(1, "printer@example.org", "refuse@elsewhere.example", 900);
    assert_eq!(
        client.deliver("printer@example.org", &["refuse@elsewhere.example"], &sent).expect("answered").code,
        250
    );
    // The printer reads no mail: its postmaster does.
    let report = super::only_message(&pair, ALICE);
    assert!(report.contains("Final-Recipient: rfc822; refuse@elsewhere.example"), "{report}");
}

/// Python's smtplib, from a device inside and from one outside.
#[test]
fn python_sends_from_inside_and_not_from_outside() {
    let pair = started(&lan());
    let script = "import smtplib, sys\n\
        host, port, source, text = sys.argv[1:]\n\
        with smtplib.SMTP(host, int(port), source_address=(source, 0)) as server:\n    \
            server.sendmail('nas@example.org', ['friend@elsewhere.example'], text)\n";
    let run = |source: IpAddr| {
        let text = String::from_utf8(message::numbered(7, "nas@example.org", FRIEND, 900)).expect("text");
        let at = relay(&pair);
        let mut command = Command::new(peers::program("python3"));
        command.args(["-c", script, &at.ip().to_string(), &at.port().to_string(), &source.to_string(), &text]);
        peers::output(&mut command).expect("python runs")
    };
    let outside = run(OUTSIDER);
    assert!(!outside.status.success());
    assert!(String::from_utf8_lossy(&outside.stderr).contains("trusted_networks"), "{outside:?}");
    let inside = run(PRINTER);
    assert!(inside.status.success(), "{inside:?}");
    expect_in_sink(&pair, &[7]);
}
