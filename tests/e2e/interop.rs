//! The programs people run: a Postfix on the other side of the world, mutt and Dovecot over our Maildir.

use gatepost_tests::client::Client;
use gatepost_tests::client::load::{Load, OnFailure, PerConnection};
use gatepost_tests::observe;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::pair::program::said;
use gatepost_tests::peers::dovecot::Dovecot;
use gatepost_tests::peers::exim::Exim;
use gatepost_tests::peers::mutt;
use gatepost_tests::peers::postfix::Postfix;
use gatepost_tests::peers::{ServerOptions, clients};
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::{message, ports};

use super::{ALICE, BOB, STRANGER, expect_delivered, fields, only_message, pair, started, values};

#[test]
fn a_postfix_delivers_through_the_edge_with_a_certificate_it_trusts() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    let own = Authority::new(scratch.path()).expect("a CA").issue(&["mx.world.example"]).expect("a certificate");
    let postfix = Postfix::start(&ServerOptions {
        hostname: "mx.world.example",
        domain: "world.example",
        routes: &[("example.org", pair.edge().doors.smtp)],
        certificate: &own,
        ca: &pair.ca,
    })
    .expect("Postfix starts");
    let load = Load {
        address: postfix.smtp,
        sessions: 4,
        first: 1,
        messages: 20,
        octets: 4096,
        from: "user@world.example".to_owned(),
        to: ALICE.to_owned(),
        tls: None,
        per_connection: PerConnection::Many,
        on_failure: OnFailure::Stop,
    };
    assert_eq!(load.run().expect("Postfix takes them").accepted.len(), 20);
    expect_delivered(&pair, ALICE, &(1..=20).collect::<Vec<_>>());
    let log = postfix.said();
    assert!(log.contains("Trusted TLS connection established"), "{log}");
    assert!(log.contains("TLSv1.3"), "{log}");
    let stored = std::fs::read_to_string(&message::files(&pair.maildir(ALICE))[0]).expect("readable");
    let fields = fields(&stored.replace("\r\n", "\n"));
    assert!(values(&fields, "Received")[0].contains("with ESMTPS"), "{fields:?}");

    // What the edge refuses, Postfix reports to its own user.
    let load = Load { first: 100, messages: 1, sessions: 1, to: "nobody@example.org".to_owned(), ..load };
    assert_eq!(load.run().expect("Postfix takes it").accepted.len(), 1);
    observe::until("Postfix's bounce", || postfix.said(), |log| log.contains("dsn=5.1.1, status=bounced"));
}

#[test]
fn a_postfix_receives_from_the_edge_with_starttls() {
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(scratch.path()).expect("a CA");
    let certificate = authority.issue(&["mx.world.example", "127.0.0.1"]).expect("a certificate");
    let postfix = Postfix::start(&ServerOptions {
        hostname: "mx.world.example",
        domain: "world.example",
        routes: &[],
        certificate: &certificate,
        ca: &authority.certificate(),
    })
    .expect("Postfix starts");
    let mut options = Options::story();
    options.outbound = Outbound::Routes(vec![("world.example".to_owned(), postfix.smtp.to_string())]);
    let pair = started(&options);
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    for number in 1..=5 {
        let sent = message::numbered(number, ALICE, "user@world.example", 4096);
        assert_eq!(client.deliver(ALICE, &["user@world.example"], &sent).expect("answered").code, 250);
    }
    let maildir = postfix.maildir();
    observe::until_delivered(&maildir, &[1, 2, 3, 4, 5]);
    let stored = std::fs::read_to_string(&message::files(&maildir)[0]).expect("readable");
    let fields = fields(&stored.replace("\r\n", "\n"));
    let received = values(&fields, "Received")[0];
    assert!(received.contains("with ESMTPS") && received.contains(&pair.edge_hostname), "{received}");

    // What Postfix refuses comes back to Alice.
    let sent = message::numbered(9, ALICE, "nobody@world.example", 500);
    assert_eq!(client.deliver(ALICE, &["nobody@world.example"], &sent).expect("answered").code, 250);
    let report = only_message(&pair, ALICE);
    assert!(report.contains("Final-Recipient: rfc822; nobody@world.example"), "{report}");
    assert!(report.contains("Status: 5.1.1"), "{report}");
}

#[test]
fn an_exim_delivers_through_the_edge_and_receives_from_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(scratch.path()).expect("a CA");
    let certificate = authority.issue(&["mx.island.example"]).expect("a certificate");
    let doors = ports::free();
    let mut options = Options::story().edge_set(&format!("listen.smtp={doors}"));
    let exim = {
        let routes = [("example.org", doors)];
        let server = ServerOptions {
            hostname: "mx.island.example",
            domain: "island.example",
            routes: &routes,
            certificate: &certificate,
            ca: &authority.certificate(),
        };
        Exim::start(&server).expect("Exim starts")
    };
    options.outbound = Outbound::Routes(vec![("island.example".to_owned(), exim.smtp.to_string())]);
    let pair = started(&options);
    let load = Load {
        address: exim.smtp,
        sessions: 4,
        first: 1,
        messages: 20,
        octets: 4096,
        from: "user@island.example".to_owned(),
        to: ALICE.to_owned(),
        tls: None,
        per_connection: PerConnection::Many,
        on_failure: OnFailure::Stop,
    };
    assert_eq!(load.run().expect("Exim takes them").accepted.len(), 20);
    expect_delivered(&pair, ALICE, &(1..=20).collect::<Vec<_>>());
    let stored = std::fs::read_to_string(&message::files(&pair.maildir(ALICE))[0]).expect("readable");
    let received = fields(&stored.replace("\r\n", "\n"));
    let received = values(&received, "Received")[0];
    assert!(received.contains("with ESMTPS") && received.contains("mx.island.example"), "{received}");
    // What the edge refuses, Exim reports to its own user.
    let load = Load { first: 100, messages: 1, sessions: 1, to: "nobody@example.org".to_owned(), ..load };
    assert_eq!(load.run().expect("Exim takes it").accepted.len(), 1);
    observe::until("Exim's bounce", || exim.said(), |log| log.contains("550 5.1.1"));

    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let before = message::files(&exim.maildir()).len();
    for number in 201..=205 {
        let sent = message::numbered(number, ALICE, "user@island.example", 4096);
        assert_eq!(client.deliver(ALICE, &["user@island.example"], &sent).expect("answered").code, 250);
    }
    let arrived = || {
        let files = message::files(&exim.maildir());
        let numbers =
            files.iter().filter_map(|file| std::fs::read(file).ok().and_then(|bytes| message::check(&bytes).ok()));
        numbers.filter(|number| *number > 200).count()
    };
    observe::until("Exim's mailbox", arrived, |count| *count == 5);
    assert!(message::files(&exim.maildir()).len() > before);
    // What Exim refuses comes back to Alice.
    let sent = message::numbered(209, ALICE, "nobody@island.example", 500);
    assert_eq!(client.deliver(ALICE, &["nobody@island.example"], &sent).expect("answered").code, 250);
    let reported = || {
        let files = message::files(&pair.maildir(ALICE));
        files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).find(|text| text.contains("Final-Recipient"))
    };
    observe::until("the report", reported, Option::is_some);
    let report = reported().expect("there");
    assert!(report.contains("nobody@island.example") && report.contains("Status: 5.1.1"), "{report}");
}

#[test]
fn dovecot_and_mutt_read_the_maildir_we_write() {
    let pair = pair();
    let scratch = tempfile::tempdir().expect("a directory");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    for number in 1..=10 {
        let sent = message::numbered(number, STRANGER, BOB, 3000);
        assert_eq!(client.deliver(STRANGER, &[BOB], &sent).expect("answered").code, 250);
    }
    let maildir = pair.maildir(BOB);
    let dovecot = Dovecot::start(&maildir).expect("Dovecot starts");
    let messages =
        clients::imap_messages(dovecot.imap, "bob").unwrap_or_else(|error| panic!("{error:#}\n{}", dovecot.said()));
    let mut numbers: Vec<u64> = messages.iter().map(|bytes| message::check(bytes).expect("whole")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let seen = message::files(dovecot.maildir());
    assert!(seen.iter().all(|file| file.to_string_lossy().ends_with(":2,S")), "Dovecot keeps flags there: {seen:?}");

    let mbox = mutt::read_all(&maildir, scratch.path()).expect("mutt reads").replace("\r\n", "\n");
    for number in 1..=10 {
        assert!(mbox.contains(&format!("X-Test-Number: {number}\n")), "mutt did not see {number}");
    }
}

#[test]
fn swaks_sees_an_mx_it_can_talk_to() {
    let pair = pair();
    for tls in [false, true] {
        let output = clients::swaks_to_mx(pair.edge().doors.smtp, STRANGER, ALICE, tls).expect("swaks runs");
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(message::files(&pair.maildir(ALICE)).len(), 2);
    // A port nobody serves, so that the check above can fail.
    assert!(!clients::swaks_to_mx(ports::free(), STRANGER, ALICE, false).expect("swaks runs").status.success());
}
