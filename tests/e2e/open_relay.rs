//! Who may send where: every door, every way to write an address that ever made some host relay, over IPv4 and IPv6, in
//! the clear and under TLS, the home there and away, networks trusted and not. What must not leave does not; the
//! legitimate neighbours in the same tables pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gatepost_tests::client::Client;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, started};

/// Not ours, and not to be reached by strangers.
const VICTIM: &str = "victim@other.example";

/// What a stranger may write behind RCPT TO: and what becomes of it. `250` leads to a mailbox here; everything else is a
/// refusal. No digit stands for "any refusal".
const RECIPIENTS: [(&str, u16); 49] = [
    // The neighbours.
    ("<alice@example.org>", 250),
    ("<ALICE@EXAMPLE.ORG>", 250),
    ("<alice+shop@example.org>", 250),
    ("<\"alice\"@example.org>", 250),
    ("<\"al\\ice\"@example.org>", 250),
    ("<postmaster@example.org>", 250),
    ("<Postmaster>", 250),
    ("<@relay.example:alice@example.org>", 250),
    ("<@a.example,@[IPv6:::1]:alice@example.org>", 250),
    ("<alice@xn--bcher-kva.example>", 250),
    // Elsewhere, plainly.
    ("<victim@other.example>", 550),
    ("<postmaster@other.example>", 550),
    ("<VICTIM@OTHER.EXAMPLE>", 550),
    ("<alice@sub.example.org>", 550),
    ("<alice@example.org.other.example>", 550),
    ("<alice@xample.org>", 550),
    ("<alice@[127.0.0.1]>", 550),
    ("<alice@[IPv6:::1]>", 550),
    ("<alice@[IPv6:::ffff:127.0.0.1]>", 550),
    ("<alice@localhost>", 550),
    ("<alice@mail.example.org>", 550),
    ("<alice@bücher.example>", 553),
    ("<victim@öther.example>", 553),
    // By way of us.
    ("<victim%other.example@example.org>", 550),
    ("<victim%other.example%mail.example.org@example.org>", 550),
    ("<victim%other.example@[127.0.0.1]>", 550),
    ("<\"victim@other.example\"@example.org>", 550),
    ("<\"victim%other.example\"@example.org>", 550),
    ("<\"victim\\@other.example\"@example.org>", 550),
    ("<\"\\\"victim@other.example\\\"\"@example.org>", 550),
    ("<other.example!victim@example.org>", 550),
    ("<\"other.example!victim\"@example.org>", 550),
    ("<example.org!other.example!victim>", 501),
    ("<@example.org:victim@other.example>", 550),
    ("<@example.org,@mail.example.org:victim@other.example>", 550),
    ("<@example.org:@other.example:victim@example.org>", 501),
    ("<victim@other.example@example.org>", 501),
    ("<victim@example.org@other.example>", 501),
    ("<victim\\@other.example@example.org>", 501),
    // Nobody, and what is no address.
    ("<>", 501),
    ("<@>", 501),
    ("<@example.org>", 501),
    ("<victim>", 501),
    ("<alice@example.org.>", 501),
    ("<alice(comment)@example.org>", 501),
    ("<alice@example.org(comment)>", 501),
    ("<alice@example.org> <victim@other.example>", 501),
    ("<alice@example.org>,<victim@other.example>", 501),
    ("victim@other.example", 501),
];

/// Senders a stranger may claim. Its own name or ours, it opens no way out.
const SENDERS: [&str; 6] = [STRANGER, "", ALICE, "nobody@example.org", "postmaster@other.example", "alice@[127.0.0.1]"];

fn options() -> Options {
    let mut options = Options::story();
    options.domains = vec!["example.org".to_owned(), "xn--bcher-kva.example".to_owned()];
    options
}

/// With an alias that makes the U-label's domain lead somewhere.
fn begun(options: &Options) -> Pair {
    let pair = started(options);
    pair.home.program.ask(&["alias", "add", "alice@xn--bcher-kva.example", ALICE]).expect("an alias");
    gatepost_tests::observe::until(
        "the edge to know the alias",
        || {
            let mut client = Client::greeted(at(edge_door(&pair), Ipv4Addr::LOCALHOST.into())).expect("greeted");
            client.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
            client.ask("RCPT TO:<alice@xn--bcher-kva.example>").expect("answered").code
        },
        |code| *code == 250,
    );
    pair
}

/// Puts every recipient to the door, each sender in turn; sessions are renewed before their errors end them.
fn battery(open: &dyn Fn() -> Client, expected: &dyn Fn(u16) -> u16) {
    let mut wrong = Vec::new();
    for sender in SENDERS {
        for recipients in RECIPIENTS.chunks(8) {
            let mut client = open();
            client.say(&format!("MAIL FROM:<{sender}>"), 250).expect("MAIL");
            for (recipient, code) in recipients {
                let answer = client.ask(&format!("RCPT TO:{recipient}")).expect("answered");
                if answer.code != expected(*code) {
                    wrong.push(format!("<{sender}> {recipient}: {answer:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A transaction with good recipients and bad ones mixed: the good get it, and only they.
fn mixed(open: &dyn Fn() -> Client, number: u64) {
    let mut client = open();
    client.say("MAIL FROM:<>", 250).expect("MAIL");
    for (recipient, code) in
        [(VICTIM, 550), (ALICE, 250), ("victim%other.example@example.org", 550), (BOB, 250), (VICTIM, 550)]
    {
        client.say(&format!("RCPT TO:<{recipient}>"), code).expect(recipient);
    }
    client.say("DATA", 354).expect("DATA");
    // What the header says leads nowhere.
    let text = message::numbered(number, STRANGER, VICTIM, 900);
    client.send(&message::stuffed(&text)).expect("sent");
    client.expect(250).expect("taken");
}

fn at(address: SocketAddr, ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, address.port())
}

/// The edge's 25, wherever it really is.
fn edge_door(pair: &Pair) -> SocketAddr {
    let status = pair.edge().program.ask_json(&["status", "--json"]).expect("status");
    status["listen"]["smtp"].as_str().expect("open").parse().expect("an address")
}

/// A stranger at the edge's 25, in the clear or under TLS.
fn stranger(pair: &Pair, address: SocketAddr, tls: bool) -> Client {
    let mut client = Client::greeted(address).expect("greeted");
    if tls {
        client.start_tls(&pair.tls().expect("a CA"), "127.0.0.1").expect("TLS");
    }
    client
}

fn nothing_left(pair: &Pair) {
    assert!(pair.sink.envelopes().expect("readable").is_empty(), "{:?}", pair.sink.envelopes());
    assert_eq!(pair.queued().expect("listed"), 0);
}

#[test]
fn the_edge_relays_for_no_stranger_whatever_it_writes() {
    let mut pair =
        begun(&options().edge_set("listen.smtp=\"[::]:0\"").home_set("trusted_networks=[\"127.0.0.0/8\", \"::1\"]"));
    let door = edge_door(&pair);
    let ways: Vec<(IpAddr, bool)> = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
        .into_iter()
        .flat_map(|ip| [(ip, false), (ip, true)])
        .collect();
    let mut number = 0;
    for (ip, tls) in &ways {
        let open = || stranger(&pair, at(door, *ip), *tls);
        battery(&open, &|code| code);
        number += 1;
        mixed(&open, number);
    }
    super::expect_delivered(&pair, ALICE, &[1, 2, 3, 4]);
    super::expect_delivered(&pair, BOB, &[1, 2, 3, 4]);
    // A domain in its own letters is the same domain, ours or not.
    let mut client = stranger(&pair, at(door, Ipv4Addr::LOCALHOST.into()), false);
    client.say("MAIL FROM:<> SMTPUTF8", 250).expect("MAIL");
    client.say("RCPT TO:<alice@BÜCHER.example>", 250).expect("ours");
    client.say("RCPT TO:<nobody@bücher.example>", 550).expect("nobody");
    client.say("RCPT TO:<victim@öther.example>", 550).expect("not ours");
    // The same while the home is away: the edge alone says the same.
    pair.home.program.stop().expect("stopped");
    pair.wait_until_down();
    for (ip, tls) in &ways[1..3] {
        let open = || stranger(&pair, at(door, *ip), *tls);
        battery(&open, &|code| code);
        number += 1;
        mixed(&open, number);
    }
    pair.home.program.start().expect("started");
    super::expect_delivered(&pair, ALICE, &[1, 2, 3, 4, 5, 6]);
    nothing_left(&pair);
}

#[test]
fn no_account_no_relay_at_either_465() {
    let mut pair = begun(&options());
    let tls = pair.tls().expect("a CA");
    let doors = [pair.edge().doors.submissions, pair.home.submissions];
    for door in doors {
        for sender in SENDERS {
            let mut client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
            client.say(&format!("MAIL FROM:<{sender}>"), 530).expect("nothing without a login");
            client.say(&format!("RCPT TO:<{VICTIM}>"), 503).expect("no transaction");
            client.say("DATA", 503).expect("no transaction");
        }
    }
    // An account writes as itself only, and may write to all the world: the neighbour.
    let alice = pair.account(ALICE).submission_password.clone();
    for (number, door) in (1..).zip(doors) {
        let mut client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
        assert_eq!(client.login(ALICE, &alice).expect("answered").code, 235);
        for sender in [
            STRANGER,
            BOB,
            "alice@other.example",
            "alice%other.example@example.org",
            "\"alice@example.org\"@other.example",
        ] {
            let mut answer = client.ask(&format!("MAIL FROM:<{sender}>")).expect("answered");
            if answer.code == 250 {
                client.say(&format!("RCPT TO:<{VICTIM}>"), 250).expect("RCPT");
                client.say("DATA", 354).expect("DATA");
                client.send(&message::stuffed(&message::numbered(99, sender, VICTIM, 900))).expect("sent");
                answer = client.answer().expect("answered");
            }
            assert!((500..600).contains(&answer.code), "{sender}: {answer:?}");
            client.say("RSET", 250).expect("RSET");
        }
        for (recipient, _) in RECIPIENTS.iter().filter(|(_, code)| *code == 501) {
            client.say("RSET", 250).expect("RSET");
            client.say(&format!("MAIL FROM:<{ALICE}>"), 250).expect("MAIL");
            let answer = client.ask(&format!("RCPT TO:{recipient}")).expect("answered");
            assert!((500..600).contains(&answer.code) || answer.code == 421, "{recipient}: {answer:?}");
            if answer.code == 421 || client.ask("NOOP").map_or(true, |answer| answer.code == 421) {
                client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
                assert_eq!(client.login(ALICE, &alice).expect("answered").code, 235);
            }
        }
        let mut client = Client::greeted_tls(door, &tls, "127.0.0.1").expect("greeted");
        assert_eq!(client.login(ALICE, &alice).expect("answered").code, 235);
        let sent = message::numbered(number, ALICE, VICTIM, 900);
        assert_eq!(client.deliver(ALICE, &[VICTIM], &sent).expect("answered").code, 250);
    }
    super::expect_in_sink(&pair, &[1, 2]);
    // While the home is away, the edge takes no login it can't verify, and no mail without one.
    pair.home.program.stop().expect("stopped");
    pair.wait_until_down();
    let mut client = Client::greeted_tls(doors[0], &tls, "127.0.0.1").expect("greeted");
    client.say(&format!("MAIL FROM:<{ALICE}>"), 530).expect("nothing without a login");
    let answer = client.login(ALICE, "guessed").expect("answered");
    assert!([454, 535].contains(&answer.code), "{answer:?}");
    client.say(&format!("MAIL FROM:<{ALICE}>"), 530).expect("nothing without a login");
}

#[test]
fn the_homes_25_relays_for_its_networks_and_for_no_stranger() {
    let pair =
        begun(&options().home_set("trusted_networks=[\"127.0.0.2/32\", \"::1\"]").home_set("listen.smtp=\"[::]:0\""));
    let status = pair.home.program.ask_json(&["status", "--json"]).expect("status");
    let door: SocketAddr = status["relay"].as_str().expect("open").parse().expect("an address");
    let trusted = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    for (from, inside) in [
        (trusted, true),
        (Ipv6Addr::LOCALHOST.into(), true),
        (Ipv4Addr::LOCALHOST.into(), false),
        (Ipv4Addr::new(127, 0, 0, 3).into(), false),
        (Ipv4Addr::new(127, 2, 0, 0).into(), false),
    ] {
        let to = at(door, if from.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        let mut client = Client::connect_from(from, to).expect("connected");
        assert_eq!(client.answer().expect("answered").code, if inside { 220 } else { 554 }, "{from}");
        assert_eq!(client.ask("EHLO x").is_ok(), inside, "{from}");
    }
    // From inside: who is named must be an address; our own must exist; bare names are ours; senders must be ours.
    let open = |tls: bool| {
        let mut client = Client::connect_from(trusted, at(door, Ipv4Addr::LOCALHOST.into())).expect("connected");
        client.expect(220).expect("greeted");
        client.say("EHLO printer", 250).expect("EHLO");
        if tls {
            client.start_tls(&pair.tls().expect("a CA"), "127.0.0.1").expect("TLS");
        }
        client
    };
    for tls in [false, true] {
        for (sender, code) in [
            (STRANGER, 550),
            ("postmaster@other.example", 550),
            ("alice@[127.0.0.1]", 550),
            ("alice@example.org@other.example", 501),
            ("@example.org:x@other.example", 550),
            ("\"x@example.org\"@other.example", 550),
            ("alice%example.org@other.example", 550),
            ("nobody@example.org", 250),
            ("", 250),
        ] {
            let mut client = open(tls);
            client.say(&format!("MAIL FROM:<{sender}>"), code).expect(sender);
        }
        for (recipient, code) in [
            ("<victim@other.example>", 250),
            ("<alice@example.org>", 250),
            ("<alice>", 250),
            ("<alice@localhost>", 250),
            // A relay is no router of others' routes: these are names at our domain, and nobody's.
            ("<victim%other.example@example.org>", 550),
            ("<\"victim@other.example\"@example.org>", 550),
            ("<other.example!victim@example.org>", 550),
            ("<>", 501),
            ("<victim@other.example@example.org>", 501),
        ] {
            let mut client = open(tls);
            client.say("MAIL FROM:<printer>", 250).expect("MAIL");
            client.say(&format!("RCPT TO:{recipient}"), code).expect(recipient);
        }
    }
    nothing_left(&pair);
}

/// With nobody trusted there is no such door, and the edge is no way round it.
#[test]
fn with_nobody_trusted_the_homes_25_is_not_there() {
    let pair = begun(&options());
    assert!(pair.home.relay.is_none());
    let status = pair.home.program.ask_json(&["status", "--json"]).expect("status");
    assert!(status["relay"].is_null(), "{status:#}");
    let open = || stranger(&pair, pair.edge().doors.smtp, false);
    battery(&open, &|code| code);
    nothing_left(&pair);
}
