//! From whom the owner takes mail whatever else is found, and from whom never.

use std::net::IpAddr;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::pair::program::said;
use gatepost_tests::world::message;

use super::{ALICE, started};

const ZONE: &str = "\
strict.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.strict.example. 60 IN TXT \"v=DMARC1; p=reject\"
*.example. 60 IN MX 10 sink.example.
";

fn pair() -> Pair {
    started(&Options { zone: ZONE.to_owned(), ..Options::story() }.edge_set("bans.loopback=true"))
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

/// Changes the list, and waits until the edge holds it.
fn change(pair: &mut Pair, words: &[&str]) -> String {
    let told = pair.home.program.ask(&[&["access"], words].concat()).expect("changed");
    pair.wait_until_up();
    told
}

/// The first refusal a message from there meets, or the reply to its end.
fn sent(pair: &Pair, client: IpAddr, from: &str, to: &str) -> String {
    let mut connection = Client::connect_from(client, pair.edge().doors.smtp).expect("connected");
    let heard = |answer: gatepost_tests::client::Answer| (answer.code, format!("{} {}", answer.code, answer.text()));
    let (code, words) = heard(connection.answer().expect("a word"));
    if code != 220 {
        return words;
    }
    connection.say("EHLO client.example", 250).expect("EHLO");
    for command in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".to_owned()] {
        let (code, words) = heard(connection.ask(&command).expect("answered"));
        if code >= 400 {
            return format!("{}: {words}", &command[..4]);
        }
    }
    connection.send(format!("From: <{from}>\r\n\r\nhello\r\n.\r\n").as_bytes()).expect("sent");
    heard(connection.answer().expect("answered")).1
}

#[test]
fn a_refused_client_hears_so_instead_of_a_greeting_and_the_most_specific_rule_counts() {
    let mut pair = pair();
    assert_eq!(change(&mut pair, &["add", "refuse", "127.0.0.64/28"]), "127.0.0.64/28 is refused now.\n");
    let refused = "554 5.7.1 Mail from 127.0.0.66 is refused by the access list of all who could get it here";
    assert_eq!(sent(&pair, ip(66), "bob@b.example", ALICE), refused);
    assert!(sent(&pair, ip(80), "bob@b.example", ALICE).starts_with("250 "));

    change(&mut pair, &["add", "allow", "127.0.0.66"]);
    assert!(sent(&pair, ip(66), "bob@b.example", ALICE).starts_with("250 "));
    assert_eq!(sent(&pair, ip(67), "bob@b.example", ALICE), refused.replace("66", "67"));
    // The edge remembers it while its home is away.
    pair.home.program.kill();
    pair.wait_until_down();
    assert!(sent(&pair, ip(66), "bob@b.example", ALICE).starts_with("250 "));
    assert_eq!(sent(&pair, ip(67), "bob@b.example", ALICE), refused.replace("66", "67"));
}

#[test]
fn senders_are_refused_and_allowed_by_address_domain_and_what_they_write_to() {
    let mut pair = pair();
    for rule in [
        &["add", "refuse", "b.example"][..],
        &["add", "refuse", "*.b.example", "--to", "example.org"],
        &["add", "allow", "friend@b.example"],
    ] {
        change(&mut pair, rule);
    }
    let refused = |who: &str| format!("550 5.7.1 Mail from {who} is refused by its recipient's access list");
    let early = format!("MAIL: {}", refused("bob@b.example"));
    assert_eq!(sent(&pair, ip(66), "bob@b.example", ALICE), early);
    let at_rcpt = format!("RCPT: {}", refused("bob@news.b.example"));
    assert_eq!(sent(&pair, ip(66), "bob@news.b.example", ALICE), at_rcpt, "it depends on the recipient");
    assert!(sent(&pair, ip(66), "Friend@B.example", ALICE).starts_with("250 "));
    assert!(sent(&pair, ip(66), "bob@c.example", ALICE).starts_with("250 "));

    let list = pair.home.program.ask(&["access", "list"]).expect("listed");
    assert!(list.contains("friend@b.example") && list.contains("*.b.example"), "{list}");
    let rules = pair.home.program.ask_json(&["access", "list", "--json"]).expect("listed");
    assert_eq!(rules["rules"].as_array().map(Vec::len), Some(3), "{rules:#}");
    assert_eq!(change(&mut pair, &["remove", "b.example"]), "Removed b.example.\n");
    assert!(sent(&pair, ip(66), "bob@b.example", ALICE).starts_with("250 "));
}

#[test]
fn who_is_allowed_is_neither_refused_for_what_is_found_nor_banned() {
    let mut pair = pair();
    let strict = "bob@strict.example";
    assert!(sent(&pair, ip(66), strict, ALICE).starts_with("550 5.7.26 "));
    // Anybody can write a name: what only a name speaks for lies in Junk.
    change(&mut pair, &["add", "allow", strict]);
    assert!(sent(&pair, ip(66), strict, ALICE).starts_with("250 "));
    let junk = pair.maildir(ALICE).join(".Junk");
    observe::until("it to lie in Junk", || message::files(&junk).len(), |count| *count == 1);
    change(&mut pair, &["remove", strict]);
    change(&mut pair, &["add", "allow", "127.0.0.66"]);
    assert!(sent(&pair, ip(66), strict, ALICE).starts_with("250 "));
    observe::until("it to lie in the inbox", || message::files(&pair.maildir(ALICE)).len(), |count| *count == 1);

    for unknown in 0..60 {
        let heard = sent(&pair, ip(66), "x@b.example", &format!("nobody{unknown}@example.org"));
        assert!(heard.starts_with("RCPT: 550 5.1.1"), "{heard}");
    }
    let output = pair.home.program.cli(&["bans", "add", "127.0.0.66"]).output().expect("it runs");
    assert!(said(&output).contains("the access list of cottage allows it"), "{}", said(&output));
    // Whom it spares it spares also from a ban that was there before.
    change(&mut pair, &["remove", "127.0.0.66"]);
    pair.home.program.ask(&["bans", "add", "127.0.0.66"]).expect("banned");
    assert!(sent(&pair, ip(66), "x@b.example", ALICE).starts_with("554 5.7.1 Too much abuse"));
    change(&mut pair, &["add", "allow", "127.0.0.66"]);
    assert!(sent(&pair, ip(66), "x@b.example", ALICE).starts_with("250 "));
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let pair = pair();
    for (words, remedy) in [
        (&["add", "refuse", "192.0.2.7/24"][..], "a network without host bits: \"192.0.2.0/24\""),
        (&["add", "refuse", "bob smith@b.example"], "write an IP address or network, an address, a domain"),
        (&["add", "allow", "0.0.0.0/0"], "(much of) the internet"),
        (&["add", "refuse", "b.example", "--to", "elsewhere.example"], "is not in a domain of this home"),
        (&["remove", "b.example"], "the access list says nothing of b.example"),
    ] {
        let output = pair.home.program.cli(&[&["access"], words].concat()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(remedy), "{words:?}: {}", said(&output));
    }
}
