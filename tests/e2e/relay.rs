//! Out to the world: through the edge, by route or by MX, with TLS where it is offered, each recipient's
//! reply kept apart.

use gatepost_tests::client::Client;
use gatepost_tests::fault::namespace;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::world::{message, ports};

use super::{ALICE, expect_in_sink, pair, started};

#[test]
fn mail_goes_out_with_starttls_where_it_is_offered() {
    let pair = pair();
    submit(&pair, 1, &["friend@elsewhere.example"]);
    expect_in_sink(&pair, &[1]);
    let envelope = &pair.sink.envelopes().expect("readable")[0];
    assert_eq!(envelope.tls.as_deref(), Some("TLSv1.3"), "{envelope:?}");
    assert_eq!(envelope.hello, pair.edge_hostname);
    assert_eq!(envelope.sender, ALICE);
}

#[test]
fn mail_goes_out_in_the_clear_where_nothing_else_is_offered() {
    let mut options = Options::story();
    let bare = ports::free();
    options.outbound = Outbound::Routes(vec![("plain.example".to_owned(), bare.to_string())]);
    let pair = started(&options);
    let sink = pair.another_sink("plain", bare, false).expect("a sink");
    submit(&pair, 1, &["friend@plain.example"]);
    observe::until("the message", || message::numbers(sink.maildir()).expect("whole"), |found| *found == [1]);
    assert_eq!(sink.envelopes().expect("readable")[0].tls, None);
    assert!(pair.sink.envelopes().expect("readable").is_empty(), "the more specific route wins");
}

#[test]
fn a_recipient_that_is_deferred_delays_no_other() {
    let pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
    submit(&pair, 1, &["friend@elsewhere.example", "defer@elsewhere.example", "other@elsewhere.example"]);
    let delivered = observe::until(
        "the two that are taken",
        || pair.sink.envelopes().expect("readable"),
        |all| all.iter().map(|envelope| envelope.recipients.len()).sum::<usize>() >= 2,
    );
    let mut recipients: Vec<String> = delivered.into_iter().flat_map(|envelope| envelope.recipients).collect();
    recipients.sort();
    assert_eq!(recipients, ["friend@elsewhere.example", "other@elsewhere.example"]);
    let queue = pair.home.program.ask(&["queue", "list"]).expect("the queue");
    assert!(queue.contains("defer@elsewhere.example"), "{queue}");
}

#[test]
fn what_was_deferred_is_sent_later_and_once() {
    let pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
    pair.sink.defer_all(true);
    for number in 1..=5 {
        submit(&pair, number, &["friend@elsewhere.example"]);
    }
    pair.sink.defer_all(false);
    expect_in_sink(&pair, &[1, 2, 3, 4, 5]);
}

#[test]
fn a_queued_message_survives_kill_of_the_home() {
    let mut pair = started(&Options::story().home_set("queue.retry=[\"1 s\"]"));
    pair.sink.defer_all(true);
    for number in 1..=5 {
        submit(&pair, number, &["friend@elsewhere.example"]);
    }
    pair.home.program.kill();
    pair.sink.defer_all(false);
    pair.home.program.start().expect("started");
    expect_in_sink(&pair, &[1, 2, 3, 4, 5]);
}

#[test]
fn without_a_route_a_private_target_is_never_connected_to() {
    let mut options = Options::story();
    options.outbound = Outbound::ByMx;
    options.zone = "inside.example. 60 IN MX 10 sink.example.\nimplicit.example. 60 IN A 127.0.0.1\n\
                    lan.example. 60 IN MX 10 printer.lan.example.\nprinter.lan.example. 60 IN A 192.168.1.9\n"
        .to_owned();
    let pair = started(&options);
    for domain in ["inside.example", "implicit.example", "lan.example"] {
        bounced(&pair, &format!("someone@{domain}"), &["5.4", "private", "loopback", "not"]);
    }
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}

#[test]
fn a_null_mx_and_a_domain_that_does_not_exist_bounce_at_once() {
    let mut options = Options::story();
    options.outbound = Outbound::ByMx;
    options.zone = "null.example. 60 IN MX 0 .\nnull.example. 60 IN A 127.0.0.1\n".to_owned();
    let pair = started(&options);
    bounced(&pair, "someone@null.example", &["5.1.10"]);
    bounced(&pair, "someone@no-such-domain.example", &["5.1.2"]);
}

#[test]
fn mail_finds_its_way_by_mx_to_port_25_of_public_addresses() {
    // A network namespace of its own, where public addresses can be ours and port 25 is free.
    let inner = "relay::inside_a_namespace_of_its_own";
    // What leaves for the sink has another address than the sink's: else the edge would rightly take it for itself.
    let addresses = "ip link set lo up && ip address add 93.184.215.14/32 dev lo && \
                     ip address add 93.184.215.15/32 dev lo && ip address add 93.184.215.16/32 dev lo && \
                     ip route replace local 93.184.215.14 dev lo table local src 93.184.215.16";
    namespace::run_inside(inner, addresses);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_namespace_of_its_own() {
    let mut options = Options::story().home_set("queue.retry=[\"1 s\"]");
    options.outbound = Outbound::ByMx;
    options.zone = "two.example. 60 IN MX 10 dead.two.example.\ntwo.example. 60 IN MX 20 alive.two.example.\n\
                    dead.two.example. 60 IN A 93.184.215.15\nalive.two.example. 60 IN A 93.184.215.14\n\
                    implicit.example. 60 IN A 93.184.215.14\n"
        .to_owned();
    let pair = started(&options);
    let sink = pair.another_sink("mx", ([93, 184, 215, 14], 25).into(), true).expect("a sink");
    submit(&pair, 1, &["friend@two.example"]);
    observe::until_delivered(sink.maildir(), &[1]);
    submit(&pair, 2, &["friend@implicit.example"]);
    observe::until_delivered(sink.maildir(), &[1, 2]);
    for envelope in sink.envelopes().expect("readable") {
        assert_eq!(envelope.tls.as_deref(), Some("TLSv1.3"), "{envelope:?}");
    }
}

/// Submits to this address and waits for a bounce that names it and holds one of these words.
fn bounced(pair: &Pair, to: &str, words: &[&str]) {
    submit(pair, 1, &[to]);
    let maildir = pair.maildir(ALICE);
    observe::until(
        &format!("a bounce for {to}"),
        || {
            let files = message::files(&maildir);
            files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect::<Vec<_>>()
        },
        |all| {
            all.iter().any(|text| {
                text.contains(&format!("rfc822;{to}").replace(';', "; "))
                    && words.iter().any(|word| text.contains(word))
            })
        },
    );
}

fn submit(pair: &Pair, number: u64, to: &[&str]) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    let sent = message::numbered(number, ALICE, to[0], 2000);
    let answer = client.deliver(ALICE, to, &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}
