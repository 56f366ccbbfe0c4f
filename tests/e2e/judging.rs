//! Who really sent it: what the edge finds out about a message from the world, what it does about it, and what
//! it writes into the message.

use gatepost_tests::client::Client;
use gatepost_tests::fault::lying_dns::{Lie, LyingDns};
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use hickory_proto::op::ResponseCode;

use super::{ALICE, BOB, fields, only_message, started, values};

/// Domains of the world: what each publishes about its mail. All mail of these tests comes from loopback.
const ZONE: &str = "\
good.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 ip6:::1 -all\"
_dmarc.good.example. 60 IN TXT \"v=DMARC1; p=reject\"
strict.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.strict.example. 60 IN TXT \"v=DMARC1; p=reject\"
careful.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.careful.example. 60 IN TXT \"v=DMARC1; p=quarantine\"
watching.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.watching.example. 60 IN TXT \"v=DMARC1; p=none\"
old.example. 60 IN TXT \"v=spf1 -all\"
doubled.example. 60 IN TXT \"v=spf1 -all\"
_dmarc.doubled.example. 60 IN TXT \"v=DMARC1; p=none\"
_dmarc.doubled.example. 60 IN TXT \"v=DMARC1; p=none; sp=reject\"
soft.example. 60 IN TXT \"v=spf1 ~all\"
silent.example. 60 IN MX 10 sink.example.
mute.example. 60 IN MX 0 .
mute.example. 60 IN TXT \"v=spf1 ip4:127.0.0.0/8 -all\"
";

fn pair() -> Pair {
    started(&Options { zone: ZONE.to_owned(), ..Options::story() })
}

/// Sends a message whose From and MAIL FROM are this; the reply to its end.
fn send(pair: &Pair, from: &str, more: &str) -> String {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = format!("{more}From: <{from}>\r\nTo: <{ALICE}>\r\nSubject: x\r\n\r\nhello\r\n");
    let reply = client.deliver(from, &[ALICE], text.as_bytes()).expect("answered");
    format!("{} {}", reply.code, reply.lines.join(" "))
}

#[test]
fn what_was_found_stands_in_front_and_forged_results_do_not() {
    let pair = pair();
    let forged = format!("Authentication-Results: {}; dkim=pass header.d=bank.example\r\n", pair.edge_hostname);
    let other = "Authentication-Results: elsewhere.example; spf=fail\r\n";
    let reply = send(&pair, "bob@good.example", &format!("{forged}{other}"));
    assert!(reply.starts_with("250 "), "{reply}");
    let stored = only_message(&pair, ALICE);
    let fields = fields(&stored);
    let results = values(&fields, "Authentication-Results");
    assert_eq!(results.len(), 2, "{stored}");
    assert!(results[0].starts_with(&format!("{}; dkim=none; spf=pass", pair.edge_hostname)), "{stored}");
    assert!(results[0].contains("dmarc=pass (p=reject) header.from=good.example"), "{stored}");
    assert_eq!(results[1], "elsewhere.example; spf=fail");
    assert!(values(&fields, "Received-SPF")[0].starts_with("pass "), "{stored}");
    assert!(!stored.contains("bank.example"), "{stored}");
}

#[test]
fn each_domain_is_judged_by_what_it_publishes() {
    let pair = pair();
    for (from, reply) in [
        (
            "bob@strict.example",
            "550 5.7.26 Neither SPF nor DKIM shows that this message is from strict.example, and strict.example asks that \
             such mail be refused",
        ),
        (
            "bob@old.example",
            "550 5.7.23 old.example does not let 127.0.0.1 send its mail (SPF), and no signature says otherwise",
        ),
        // Two DMARC records are none (RFC 7489 §6.6.3).
        (
            "bob@doubled.example",
            "550 5.7.23 doubled.example does not let 127.0.0.1 send its mail (SPF), and no signature says otherwise",
        ),
        ("bob@mute.example", "550 5.7.27 mute.example takes no mail (null MX), so it sends none either"),
        ("bob@gone.example", "550 5.1.8 The sender's domain gone.example does not exist in the DNS"),
        (
            "bob@example.org",
            "550 5.7.1 Mail from example.org comes from its own servers, not from elsewhere; if you are its user, log in \
             and send by port 465",
        ),
    ] {
        assert_eq!(send(&pair, from, ""), reply);
    }
    let two = "From: <x@other.example>\r\n";
    assert_eq!(
        send(&pair, "bob@good.example", two),
        "550 5.6.0 The message has no usable From field: it names several domains"
    );
    assert!(gatepost_tests::world::message::files(&pair.maildir(ALICE)).is_empty(), "nothing of it was taken");
    for from in ["bob@watching.example", "bob@soft.example", "bob@silent.example"] {
        assert!(send(&pair, from, "").starts_with("250 "), "{from}");
    }
}

#[test]
fn what_its_domain_wants_in_junk_lies_there() {
    let pair = pair();
    let reply = send(&pair, "bob@careful.example", "");
    assert!(reply.starts_with("250 "), "{reply}");
    let junk = pair.maildir(ALICE).join(".Junk");
    assert_eq!(gatepost_tests::world::message::files(&junk).len(), 1);
    assert!(gatepost_tests::world::message::files(&pair.maildir(ALICE)).is_empty());
}

#[test]
fn what_belongs_in_junk_and_has_to_wait_for_its_maildir_lies_there_in_the_end() {
    let pair = started(&Options { zone: ZONE.to_owned(), ..Options::story() }.home_set("queue.retry=[\"200 ms\"]"));
    let broken = pair.maildir(BOB);
    std::fs::remove_dir_all(&broken).expect("removed");
    std::fs::write(&broken, "in the way").expect("written");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = "From: <x@careful.example>\r\n\r\nhello\r\n";
    let reply = client.deliver("x@careful.example", &[ALICE, BOB], text.as_bytes()).expect("answered");
    assert_eq!(reply.code, 250, "{:?}", reply.lines);
    let junk = |address: &str| gatepost_tests::world::message::files(&pair.maildir(address).join(".Junk")).len();
    assert_eq!((junk(ALICE), pair.queued().expect("asked")), (1, 1));
    std::fs::remove_file(&broken).expect("mended");
    observe::until("the copy that waited", || junk(BOB), |count| *count == 1);
    assert!(gatepost_tests::world::message::files(&pair.maildir(BOB)).is_empty());
}

#[test]
fn what_the_dns_can_not_tell_is_put_off_where_it_matters_and_nowhere_else() {
    let pair = pair();
    let dns = LyingDns::start().expect("a name server");
    let servfail = || Lie::Code(ResponseCode::ServFail);
    dns.exchanger("hidden.example", 10, "mx.example");
    dns.lie("_dmarc.hidden.example", servfail());
    // Whether it asks for anything is known, whether it exists is not.
    dns.lie("away.example", servfail());
    dns.text("_dmarc.away.example", "v=DMARC1; p=none");
    dns.text("_dmarc.list.example", "v=DMARC1; p=reject");
    dns.text("list.example", "v=spf1 ip4:127.0.0.0/8 -all");
    pair.ask_dns_at(dns.address());
    let put_off = |domain: &str| {
        format!("451 4.7.24 The DNS could not tell whether this message is from {domain}, try again later")
    };
    assert_eq!(send(&pair, "bob@hidden.example", ""), put_off("hidden.example"));
    assert_eq!(send(&pair, "bob@away.example", ""), put_off("away.example"));
    assert_eq!(send(&pair, "bob@hidden.example", ""), put_off("hidden.example"), "for hours");
    assert!(send(&pair, "bob@list.example", "").starts_with("250 "), "it has shown who it is");
    assert_eq!(gatepost_tests::world::message::files(&pair.maildir(ALICE)).len(), 1);
}
