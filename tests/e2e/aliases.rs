//! Aliases: to accounts, by pattern, and to other hosts, whose bounces find back through a return path of ours.

use std::net::SocketAddr;

use gatepost_tests::client::Client;
use gatepost_tests::fault::proxy::{Mode, Proxy};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::peers::ServerOptions;
use gatepost_tests::peers::postfix::Postfix;
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::sink::KeptEnvelope;
use gatepost_tests::world::{message, ports};

use super::{ALICE, BOB, STRANGER, expect_delivered, fields, only_message, pair, started, values};

const TEAM: &str = "team@example.org";
const AWAY: &str = "Team.Mate@elsewhere.example";

#[test]
fn mail_for_an_alias_goes_on_under_a_return_path_and_its_bounce_comes_back() {
    let mut pair = pair();
    alias(&pair, &["add", TEAM, AWAY, ALICE]);
    deliver(&pair, 1, STRANGER, TEAM);
    expect_delivered(&pair, ALICE, &[1]);
    let forwarded = in_sink(&pair, 1).remove(0);
    assert_eq!(forwarded.recipients, [AWAY], "as it was written");
    let path = forwarded.sender.clone();
    assert!(path.starts_with("SRS0=") && path.ends_with("=world.example=stranger@example.org"), "{path}");
    let copy = String::from_utf8(pair.sink.message(&forwarded).expect("readable")).expect("text");
    let fields = fields(&copy.replace("\r\n", "\n"));
    assert_eq!(values(&fields, "Delivered-To"), [TEAM]);
    assert!(values(&fields, "From")[0].contains(STRANGER), "{fields:?}");

    // What an account sends, and what is from nobody, goes on as it is.
    let mut client = submitter(&pair);
    let sent = message::numbered(2, ALICE, TEAM, 500);
    assert_eq!(client.deliver(ALICE, &[TEAM], &sent).expect("answered").code, 250);
    deliver(&pair, 3, "", TEAM);
    let mut senders: Vec<String> = in_sink(&pair, 3).into_iter().map(|envelope| envelope.sender).collect();
    senders.sort();
    assert_eq!(senders, ["", &path, ALICE]);

    // Bounces only, and only to what we made; the home being there or not.
    refuses_what_is_no_bounce(&pair, &path);
    deliver(&pair, 4, "", &path);
    assert_eq!(came_back(&pair, 4), [STRANGER]);
    pair.home.program.kill();
    pair.wait_until_down();
    refuses_what_is_no_bounce(&pair, &path);
    // Some systems change the case on the way.
    deliver(&pair, 5, "", &path.to_lowercase());
    assert_eq!(pair.spooled().expect("status"), 1);
    pair.home.program.start().expect("started");
    assert_eq!(came_back(&pair, 5), [STRANGER]);
    let test = alias(&pair, &["test", &path]);
    assert!(test.contains("return path") && test.contains("on to stranger@world.example"), "{test}");
}

fn refuses_what_is_no_bounce(pair: &Pair, path: &str) {
    let forged = path.replace("=stranger@", "=somebody@");
    for (sender, recipient, words) in [
        (STRANGER, path, "bounces only"),
        ("", &forged, "was not made here"),
        ("", "SRS0=x@example.org", "not made here"),
    ] {
        let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
        client.say(&format!("MAIL FROM:<{sender}>"), 250).expect("MAIL");
        let answer = client.say(&format!("RCPT TO:<{recipient}>"), 550).expect("refused");
        assert!(answer.text().starts_with("5.7.1") && answer.text().contains(words), "{answer:?}");
    }
}

#[test]
fn what_can_not_be_forwarded_stays_with_the_postmaster_and_nobody_is_bounced() {
    let pair = pair();
    alias(&pair, &["add", TEAM, "refuse-me@elsewhere.example"]);
    deliver(&pair, 1, STRANGER, TEAM);
    let kept = only_message(&pair, ALICE);
    assert!(kept.contains("X-Undelivered-To: refuse-me@elsewhere.example") && kept.contains("550 5.1.1"), "{kept}");
    expect_delivered(&pair, ALICE, &[1]);
    observe::until("the queue to be empty", || pair.queued().expect("status"), |waiting| *waiting == 0);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}

#[test]
fn a_pattern_is_known_to_the_edge_while_the_home_is_away() {
    let mut pair = pair();
    alias(&pair, &["add", "/^shop-.*$/@example.org", BOB]);
    until_known(pair.edge().doors.smtp, "shop-1@example.org");
    let test = alias(&pair, &["test", "Shop-7@example.org"]);
    assert_eq!(test, "Shop-7@example.org: pattern /^shop-.*$/@example.org\n  to the mailbox of bob@example.org\n");
    pair.home.program.kill();
    pair.wait_until_down();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    client.say("RCPT TO:<my-shop-7@example.org>", 550).expect("refused");
    drop(client);
    deliver(&pair, 1, STRANGER, "SHOP-7@example.org");
    pair.home.program.start().expect("started");
    expect_delivered(&pair, BOB, &[1]);
}

#[test]
fn a_circle_is_refused_when_it_is_made_and_broken_when_another_host_makes_it() {
    let pair = pair();
    alias(&pair, &["add", "one@example.org", ALICE]);
    alias(&pair, &["add", "two@example.org", "one@example.org"]);
    let refused = pair.home.program.ask(&["alias", "add", "one@example.org", "two@example.org"]).expect_err("a circle");
    assert!(refused.to_string().contains("one@example.org → two@example.org → one@example.org"), "{refused:#}");
    let refused = pair.home.program.ask(&["alias", "add", "/a(/@example.org", ALICE]).expect_err("no pattern");
    assert!(refused.to_string().contains("unclosed group"), "{refused:#}");

    // The other host sends it back to where it came from.
    alias(&pair, &["add", TEAM, AWAY]);
    deliver(&pair, 1, STRANGER, TEAM);
    let forwarded = in_sink(&pair, 1).remove(0);
    let copy = pair.sink.message(&forwarded).expect("readable");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let answer = client.deliver(&forwarded.sender, &[TEAM], &copy).expect("answered");
    assert_eq!((answer.code, answer.text().contains("5.4.6")), (554, true), "{answer:?}");
}

#[test]
fn a_postfix_that_can_not_deliver_what_was_forwarded_reaches_the_sender() {
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(scratch.path()).expect("a CA");
    let certificate = authority.issue(&["mx.world.example", "127.0.0.1"]).expect("a certificate");
    let doors = ports::free();
    // Postfix speaks to the edge by way of a host that refuses connections as long as we like.
    let way = Proxy::start(doors).expect("a proxy");
    way.set(Mode::Refuse);
    let mut options = Options::story().edge_set(&format!("listen.smtp={doors}"));
    let pair_ca = scratch.path().join("pair-ca.pem");
    std::fs::copy(authority.certificate(), &pair_ca).expect("copied");
    let postfix = Postfix::start(&ServerOptions {
        hostname: "mx.world.example",
        domain: "world.example",
        // Where it sends the copy, the copy is refused: that is a host that knows nobody of none.invalid.
        routes: &[("example.org", way.address()), ("none.invalid", doors)],
        certificate: &certificate,
        ca: &pair_ca,
    })
    .expect("Postfix starts");
    options.outbound = Outbound::Routes(vec![("none.invalid".to_owned(), postfix.smtp.to_string())]);
    let mut pair = started(&options);
    pair.home.program.ask(&["alias", "add", TEAM, "mate@none.invalid"]).expect("added");
    until_known(doors, TEAM);
    deliver_at(doors, 1, "writer@source.example", TEAM);
    observe::until("Postfix to bounce", || postfix.said(), |log| log.contains("status=bounced"));
    pair.home.program.kill();
    pair.wait_until_down();
    way.set(Mode::Pass);
    observe::until_ok("the edge to take the bounce", || {
        anyhow::ensure!(pair.spooled()? == 1, "{}", postfix.said());
        Ok(())
    });
    pair.home.program.start().expect("started");
    let back = in_sink(&pair, 1).remove(0);
    assert_eq!((back.sender.as_str(), &back.recipients[..]), ("", &["writer@source.example".to_owned()][..]));
    let bounce = String::from_utf8(pair.sink.message(&back).expect("readable")).expect("text");
    assert!(bounce.contains("We don't relay for that domain") && bounce.contains("Subject: number 1"), "{bounce}");
}

fn alias(pair: &Pair, arguments: &[&str]) -> String {
    let said = pair.home.program.ask(&[&["alias"], arguments].concat()).expect("done");
    if arguments[0] == "add" && arguments[1].contains('@') && !arguments[1].starts_with('/') {
        until_known(pair.edge().doors.smtp, arguments[1]);
    }
    said
}

/// The edge hears of a change a moment later.
fn until_known(door: SocketAddr, address: &str) {
    observe::until_ok("the edge to know it", || {
        let mut client = Client::greeted(door)?;
        client.say(&format!("MAIL FROM:<{STRANGER}>"), 250)?;
        client.say(&format!("RCPT TO:<{address}>"), 250)
    });
}

fn deliver(pair: &Pair, number: u64, from: &str, to: &str) {
    deliver_at(pair.edge().doors.smtp, number, from, to);
}

fn deliver_at(door: SocketAddr, number: u64, from: &str, to: &str) {
    let mut client = Client::greeted(door).expect("greeted");
    let sent = message::numbered(number, if from.is_empty() { "mailer-daemon@far.example" } else { from }, to, 500);
    let answer = client.deliver(from, &[to], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}

fn submitter(pair: &Pair) -> Client {
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    client
}

/// What the sink has, once it is so much.
fn in_sink(pair: &Pair, count: usize) -> Vec<KeptEnvelope> {
    observe::until("the sink's mail", || pair.sink.envelopes().expect("readable"), |all| all.len() == count)
}

/// To whom the message of this number went, from nobody.
fn came_back(pair: &Pair, number: usize) -> Vec<String> {
    let subject = format!("Subject: number {number}\r\n");
    let all = in_sink(pair, number);
    let is_it = |envelope: &&KeptEnvelope| {
        let text = pair.sink.message(envelope).expect("readable");
        String::from_utf8_lossy(&text).contains(&subject)
    };
    let back = all.iter().find(is_it).expect("it is among them");
    assert_eq!(back.sender, "");
    back.recipients.clone()
}
