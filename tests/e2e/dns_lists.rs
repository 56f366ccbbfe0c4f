//! DNS block and allow lists: what they say of a client decides what becomes of its mail, and a list that can't be
//! believed decides nothing. All clients are of this machine, so `admission.loopback` makes strangers of them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use gatepost_tests::client::{Answer, Client};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::{message, ports};
use serde_json::Value;

use super::{ALICE, started};

/// Of a list that works: its test point, and two clients.
const ZONE: &str = "\
*.example. 60 IN MX 10 sink.example.
2.0.0.127.block.example. 60 IN A 127.0.0.2
66.0.0.127.block.example. 60 IN A 127.0.0.4
66.0.0.127.block.example. 60 IN TXT \"spam was seen, see https://block.example/66\"
67.0.0.127.block.example. 60 IN A 127.0.0.9
2.0.0.127.minor.example. 60 IN A 127.0.0.2
66.0.0.127.minor.example. 60 IN A 127.0.0.2
68.0.0.127.minor.example. 60 IN A 127.0.0.2
69.0.0.127.minor.example. 60 IN A 127.255.255.254
70.0.0.127.minor.example. 60 IN A 192.0.2.1
2.0.0.127.allow.example. 60 IN A 127.0.0.2
68.0.0.127.allow.example. 60 IN A 127.0.5.2
";

const LISTS: &str = "dnslist=[
{ zone = \"key123.block.example\", name = \"block.example\", weight = 3, codes = [\"127.0.0.4\"] },
{ zone = \"minor.example\" },
{ zone = \"allow.example\", weight = -1 },
]";

fn pair(zone: &str, lists: &str) -> Pair {
    let options = Options { zone: zone.to_owned(), ..Options::story() };
    started(&options.edge_set("admission.loopback=true").edge_set(&lists.replace('\n', "")))
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

fn greeted(pair: &Pair, from: IpAddr) -> Client {
    let mut client = Client::connect_from(from, pair.edge().doors.smtp).expect("connected");
    client.expect(220).expect("greeted");
    client.say("EHLO client.example", 250).expect("EHLO");
    client
}

/// Sends a message in this session; the first reply that is a refusal, or the last.
fn sent(mut client: Client, to: &str) -> String {
    let shown = |answer: &Answer| format!("{} {}", answer.code, answer.lines.join(" "));
    for command in ["MAIL FROM:<eve@b.example>", &format!("RCPT TO:<{to}>"), "DATA"] {
        let answer = client.ask(command).expect("answered");
        if answer.code >= 400 {
            return shown(&answer);
        }
    }
    client.send(format!("From: <eve@b.example>\r\nTo: <{to}>\r\n\r\nhello\r\n.\r\n").as_bytes()).expect("sent");
    shown(&client.answer().expect("answered"))
}

fn send(pair: &Pair, from: IpAddr, to: &str) -> String {
    sent(greeted(pair, from), to)
}

fn junk(pair: &Pair) -> usize {
    message::files(&pair.maildir(ALICE).join(".Junk")).len()
}

fn inbox(pair: &Pair) -> usize {
    message::files(&pair.maildir(ALICE)).len()
}

fn dns_lists(pair: &Pair) -> Value {
    pair.edge().program.ask_json(&["status", "--json"]).expect("status")["dns_lists"].clone()
}

#[test]
fn who_is_listed_is_refused_with_the_lists_words_or_sent_to_junk_and_reaches_postmaster() {
    let zone = ZONE.replace(".block.example", ".key123.block.example");
    let pair = pair(&zone, LISTS);
    let heard = send(&pair, ip(66), ALICE);
    assert_eq!(
        heard,
        "554 5.7.1 block.example lists your address 127.0.0.66 (spam was seen, see https://block.example/66); ask it to be \
         taken off, or write to postmaster here"
    );
    assert_eq!(junk(&pair) + inbox(&pair), 0, "nothing of it was taken");
    for (last, why) in [(67, "its code is not asked for"), (68, "allowed"), (69, "an error"), (70, "no code")] {
        let before = inbox(&pair);
        assert!(send(&pair, ip(last), ALICE).starts_with("250 "), "{why}");
        assert_eq!((inbox(&pair) - before, junk(&pair)), (1, 0), "{why}");
    }
    assert!(send(&pair, ip(66), "postmaster@example.org").starts_with("250 "));
    assert_eq!(junk(&pair), 1, "alice is postmaster");

    pair.home.program.ask(&["access", "add", "allow", "127.0.0.66"]).expect("allowed");
    observe::until("the edge to know", || send(&pair, ip(66), ALICE), |heard| heard.starts_with("250 "));
    assert_eq!(junk(&pair), 1, "the owner's word counts more");
    let said = pair.edge().program.said();
    assert!(said.contains("lists=\"block.example+3 minor.example+1\""), "{said}");
    let lists = dns_lists(&pair);
    assert_eq!((&lists[0]["list"], &lists[0]["ipv4"]), (&"block.example".into(), &"good".into()), "{lists}");
    assert!(!lists.to_string().contains("key123") && !said.contains("key123"), "the key is nobody's business");
}

#[test]
fn clients_of_ipv6_are_asked_for_by_their_nibbles_once_the_list_shows_that_it_has_such() {
    let zeros = "0.".repeat(20);
    let zone = format!(
        "*.example. 60 IN MX 10 sink.example.\n2.0.0.127.four.example. 60 IN A 127.0.0.2\n2.0.0.0.0.0.f.7.f.f.f.f.{zeros}six.example. 60 IN A 127.0.0.2\n\
         1.{zeros}0.0.0.0.0.0.0.0.0.0.0.six.example. 60 IN A 127.0.0.2\n\
         1.{zeros}0.0.0.0.0.0.0.0.0.0.0.four.example. 60 IN A 127.0.0.2\n"
    );
    let options = Options { zone, ..Options::story() };
    let door = SocketAddr::from((Ipv6Addr::LOCALHOST, ports::free().port()));
    let lists = "dnslist=[{ zone = \"four.example\", weight = 9 }, { zone = \"six.example\" }]";
    let pair = started(
        &options.edge_set("admission.loopback=true").edge_set(lists).edge_set(&format!("listen.smtp=\"{door}\"")),
    );
    assert!(sent(Client::greeted(door).expect("greeted"), ALICE).starts_with("250 "));
    assert_eq!((inbox(&pair), junk(&pair)), (0, 1), "one minor list means Junk");
    let lists = dns_lists(&pair);
    assert!(lists[0]["ipv6"].as_str().is_some_and(|state| state.starts_with("it does not list")), "{lists}");
    assert_eq!((&lists[1]["ipv6"], &lists[1]["ipv4"]), (&"good".into(), &"not asked yet".into()), "{lists}");
}

#[test]
fn a_list_that_lists_everything_is_silent_or_is_gone_decides_nothing_and_is_told_of_once() {
    // Everything is listed in the first; the second has no test point; the third is nobody's.
    let zone = format!("{ZONE}*.all.example. 60 IN A 127.0.0.2\n66.0.0.127.gone.example. 60 IN A 127.0.0.2\n");
    let lists = "dnslist=[
{ zone = \"all.example\", weight = 9 },
{ zone = \"gone.example\", weight = 9 },
{ zone = \"minor.example\", weight = -9 },
]";
    let pair = pair(&zone, lists);
    for _ in 0..3 {
        assert!(send(&pair, ip(66), ALICE).starts_with("250 "));
    }
    assert_eq!((inbox(&pair), junk(&pair)), (3, 0));
    let said = pair.edge().program.said();
    for (list, why) in [("all.example", "it lists 127.0.0.1"), ("gone.example", "it does not list 127.0.0.2")] {
        let told = said.lines().filter(|line| line.contains(list) && line.contains(why)).count();
        assert_eq!(told, 1, "{list}: {said}");
    }
    let lists = dns_lists(&pair);
    let state = |place: usize| lists[place]["ipv4"].as_str().expect("a text").to_owned();
    assert!(state(0).starts_with("it lists 127.0.0.1") && state(1).starts_with("it does not list"), "{lists}");
    assert_eq!(state(2), "good");
}
