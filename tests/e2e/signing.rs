//! What leaves is signed: by both algorithms, with the sender's domain's keys, so that others who never heard of us
//! agree; keys change without a message between them that nobody can verify.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::peers::dkimpy::{self, Judged};

use super::{ALICE, fields, only_message, pair, started, values};

/// Less than one unanswered question takes.
const QUESTION: Duration = Duration::from_secs(5);

pub(super) const FRIEND: &str = "friend@elsewhere.example";

/// Publishes in a pair's DNS what a home says its domain needs.
pub(super) fn publish(of: &Pair, world: &Pair) {
    let zone = of.home.program.ask(&["dns", "--zone", "--tested"]).expect("told");
    world.add_records(&zone).expect("published");
}

/// An account submits at the home; gives what came to the sink as the `nth` message.
pub(super) fn submit(pair: &Pair, account: &str, mail: &str, message: &[u8], nth: usize) -> Vec<u8> {
    let tls = pair.tls().expect("a client");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, &pair.home_hostname).expect("greeted");
    assert_eq!(client.login(account, &pair.account(account).password).expect("answered").code, 235);
    client.say(mail, 250).expect("taken");
    client.say(&format!("RCPT TO:<{FRIEND}>"), 250).expect("taken");
    client.say("DATA", 354).expect("taken");
    client.send(&gatepost_tests::world::message::stuffed(message)).expect("sent");
    client.expect(250).expect("accepted");
    let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| kept.len() > nth);
    pair.sink.message(&kept[nth]).expect("kept")
}

fn judge(pair: &Pair, message: &[u8]) -> Judged {
    dkimpy::judge(message, pair.dns.address()).expect("judged")
}

/// Both signatures hold.
fn expect_signed(judged: &Judged, domain: &str) {
    let found: Vec<_> = judged.dkim.iter().map(|one| (one.algorithm.as_str(), one.domain.as_str(), one.good)).collect();
    assert_eq!(found, [("rsa-sha256", domain, true), ("ed25519-sha256", domain, true)], "{judged:?}");
}

#[test]
fn what_an_account_sends_is_signed_twice_and_a_stranger_agrees() {
    let pair = pair();
    publish(&pair, &pair);
    let mail = format!("MAIL FROM:<{ALICE}>");
    let header = format!("From: Alice <{ALICE}>\r\nTo: <{FRIEND}>\r\nSubject: x\r\n");
    for (nth, (mail, message)) in [
        (mail.clone(), format!("{header}\r\nhello\r\n")),
        (format!("{mail} BODY=8BITMIME"), format!("{header}Content-Type: text/plain; charset=utf-8\r\n\r\nGr\u{fc}\u{df}e\r\n")),
        (
            format!("{mail} BODY=8BITMIME SMTPUTF8"),
            format!("From: \u{c4}lice <{ALICE}>\r\nTo: <{FRIEND}>\r\nSubject: Gr\u{fc}\u{df}e\r\n\tan alle\r\n\r\n\u{20ac}\r\n"),
        ),
        // A body that ends in lines of white space, and one that is nothing.
        (mail.clone(), format!("{header}\r\nhello\r\n \t\r\n\r\n  \r\n")),
        (mail.clone(), format!("{header}\r\n")),
        (mail.clone(), format!("{header}X: folded\r\n\t twice\r\nCc: <x@y.example>,\r\n <z@y.example>\r\n\r\n.\r\n..\r\n")),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = submit(&pair, ALICE, &mail, message.as_bytes(), nth);
        expect_signed(&judge(&pair, &sent), "example.org");
        if nth == 0 {
            let story = pair.home.program.ask(&["trace", FRIEND]).expect("told");
            assert!(story.contains("signed it for example.org"), "{story}");
            let text = String::from_utf8_lossy(&sent);
            let forged = format!("Subject: another\r\n{text}");
            assert!(judge(&pair, forged.as_bytes()).dkim.iter().all(|one| !one.good), "a field was added");
            let changed = text.replace("hello", "help!");
            assert!(judge(&pair, changed.as_bytes()).dkim.iter().all(|one| !one.good), "the body was changed");
        }
    }
}

#[test]
fn an_edge_of_ours_believes_what_we_signed() {
    let mut options = Options::story();
    options.accounts.truncate(1);
    options.accounts[0].0 = "carol@other.example".to_owned();
    let other = started(&options);
    let edge = other.edge().doors.smtp.to_string();
    let ours =
        started(&Options { outbound: Outbound::Routes(vec![("other.example".to_owned(), edge)]), ..Options::story() });
    publish(&ours, &other);
    let tls = ours.tls().expect("a client");
    let mut client = Client::greeted_tls(ours.home.submissions, &tls, &ours.home_hostname).expect("greeted");
    assert_eq!(client.login(ALICE, &ours.account(ALICE).password).expect("answered").code, 235);
    let text = format!("From: Alice <{ALICE}>\r\nTo: <carol@other.example>\r\nSubject: x\r\n\r\nhello\r\n \r\n");
    client.deliver(ALICE, &["carol@other.example"], text.as_bytes()).expect("accepted");
    let stored = only_message(&other, "carol@other.example");
    let fields = fields(&stored);
    let results = values(&fields, "Authentication-Results")[0];
    for part in [
        "dkim=pass header.d=example.org header.s=",
        "header.a=rsa-sha256",
        "header.a=ed25519-sha256",
        "dmarc=pass (p=reject) header.from=example.org",
    ] {
        assert!(results.contains(part), "{part}: {results}");
    }
    assert_eq!(results.matches("dkim=pass").count(), 2, "{results}");
}

#[test]
fn new_keys_sign_once_the_dns_shows_them_and_not_before() {
    let pair = pair();
    publish(&pair, &pair);
    let keys = |command: &str| {
        let listed = pair.home.program.ask_json(&["dkim", command, "--json"]).expect("listed");
        let keys = listed["keys"].as_array().expect("keys").iter();
        keys.map(|key| key["state"].as_str().expect("a state").to_owned()).collect::<Vec<_>>()
    };
    let mail = format!("MAIL FROM:<{ALICE}>");
    let text = format!("From: <{ALICE}>\r\n\r\nhello\r\n");
    let selectors = |nth| {
        let judged = judge(&pair, &submit(&pair, ALICE, &mail, text.as_bytes(), nth));
        expect_signed(&judged, "example.org");
        judged.dkim.into_iter().map(|one| one.selector).collect::<Vec<_>>()
    };
    let old = selectors(0);
    assert_eq!(keys("rotate"), ["signs", "signs", "waiting", "waiting"]);
    let status = pair.home.program.ask(&["status"]).expect("told");
    assert!(status.contains("2 new key(s) that sign mail wait"), "{status}");
    assert_eq!(selectors(1), old, "the new ones are not published");
    publish(&pair, &pair);
    observe::until("the new keys to sign", || keys("list"), |keys| *keys == ["retired", "retired", "signs", "signs"]);
    let new = selectors(2);
    assert!(new.iter().all(|selector| !old.contains(selector)), "{old:?} {new:?}");
}

#[test]
fn a_subdomain_is_signed_for_by_its_domain_and_what_is_not_ours_by_nobody() {
    let options = Options::story()
        .home_set("trusted_networks=[\"127.0.0.0/8\"]")
        .home_set("trusted_senders=[\"nas.example.org\", \"printer.lan\"]");
    let pair = started(&options);
    publish(&pair, &pair);
    for (nth, (from, signed)) in [("root@nas.example.org", true), ("scan@printer.lan", false)].into_iter().enumerate() {
        let mut client = Client::greeted(pair.home.relay.expect("a door")).expect("greeted");
        let text = format!("From: {from}\r\nTo: {FRIEND}\r\nSubject: x\r\n\r\nhello\r\n");
        let reply = client.deliver(from, &[FRIEND], text.as_bytes()).expect("answered");
        assert_eq!(reply.code, 250, "{reply:?}");
        let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| kept.len() > nth);
        let judged = judge(&pair, &pair.sink.message(&kept[nth]).expect("kept"));
        if signed { expect_signed(&judged, "example.org") } else { assert!(judged.dkim.is_empty(), "{judged:?}") }
    }
}

#[test]
fn a_report_of_ours_that_leaves_is_signed() {
    let pair = pair();
    publish(&pair, &pair);
    // Who sends by this address hears of failures elsewhere, too.
    pair.home.program.ask(&["alias", "add", "team@example.org", FRIEND, ALICE]).expect("an alias");
    let mut client = Client::greeted_tls(pair.home.submissions, &pair.tls().expect("a client"), &pair.home_hostname)
        .expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    let text = "From: <team@example.org>\r\nTo: <refuse-me@elsewhere.example>\r\nSubject: x\r\n\r\nhello\r\n";
    let reply =
        client.deliver("team@example.org", &["refuse-me@elsewhere.example"], text.as_bytes()).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
    let kept =
        observe::until("the report in the sink", || pair.sink.envelopes().expect("read"), |kept| !kept.is_empty());
    assert_eq!(kept[0].sender, "", "{kept:?}");
    let report = pair.sink.message(&kept[0]).expect("kept");
    assert!(String::from_utf8_lossy(&report).contains("report-type=delivery-status"));
    expect_signed(&judge(&pair, &report), "example.org");
    let stored = only_message(&pair, ALICE);
    assert!(values(&fields(&stored), "DKIM-Signature").is_empty(), "what stays here needs none: {stored}");
}

#[test]
fn what_goes_on_is_sealed_at_every_home_and_the_chain_holds() {
    let mut options = Options::story();
    options.accounts.truncate(1);
    options.accounts[0].0 = "carol@other.example".to_owned();
    let mut second = started(&options);
    let edge = second.edge().doors.smtp.to_string();
    let outbound = Outbound::Routes(vec![("other.example".to_owned(), edge)]);
    let mut first = started(&Options { outbound, ..Options::story() });
    for world in [&first, &second] {
        world
            .add_records(
                "world.example. 1 IN TXT \"v=spf1 ip4:127.0.0.1 -all\"\nworld.example. 1 IN A 127.0.0.1\n\
                 _dmarc.world.example. 1 IN TXT \"v=DMARC1; p=none\"\nexample.org. 1 IN MX 10 mail.example.org.\n",
            )
            .expect("published");
    }
    publish(&first, &second);
    publish(&second, &second);
    first
        .home
        .program
        .ask(&["alias", "add", "team@example.org", "list@other.example", "one@elsewhere.example"])
        .expect("an alias");
    second.home.program.ask(&["alias", "add", "list@other.example", FRIEND, "carol@other.example"]).expect("an alias");
    first.wait_until_up();
    second.wait_until_up();
    let mut client = Client::greeted(first.edge().doors.smtp).expect("greeted");
    let text = "From: <stranger@world.example>\r\nTo: <team@example.org>\r\nSubject: x\r\n\r\nhello\r\n \r\n";
    client.deliver("stranger@world.example", &["team@example.org"], text.as_bytes()).expect("accepted");

    let sent = |pair: &Pair| {
        let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| !kept.is_empty());
        pair.sink.message(&kept[0]).expect("kept")
    };
    let once = sent(&first);
    let judged = judge(&second, &once);
    assert_eq!((judged.arc.as_str(), judged.sets, judged.dkim.len()), ("pass", 1, 0), "{judged:?}");
    let twice = sent(&second);
    let judged = judge(&second, &twice);
    assert_eq!((judged.arc.as_str(), judged.sets), ("pass", 2), "{judged:?}");
    let text = String::from_utf8_lossy(&twice).replace("\r\n", "\n");
    let found = fields(&text);
    let results = values(&found, "ARC-Authentication-Results");
    assert!(
        results[0].starts_with("i=2; home.other.example; dkim=none;")
            && results[0].contains("arc=pass smtp.remote-ip=127.0.0.1;"),
        "{results:?}"
    );
    assert!(
        results[1].starts_with("i=1; home.example.org; dkim=none; spf=pass smtp.mailfrom=world.example")
            && results[1].contains("policy.iprev=127.0.0.1"),
        "{results:?}"
    );
    let stored = only_message(&second, "carol@other.example");
    assert!(values(&fields(&stored), "Authentication-Results")[0].contains("arc=pass"), "our own verifier: {stored}");

    // Changed on the way, the chain is broken, and nobody claims otherwise.
    let changed = String::from_utf8(once).expect("text").replace("Subject: x", "Subject: [list] x");
    assert_eq!(judge(&second, changed.as_bytes()).arc, "fail");
    let mut client = Client::greeted(second.edge().doors.smtp).expect("greeted");
    client.deliver("stranger@world.example", &["list@other.example"], changed.as_bytes()).expect("accepted");
    let kept = observe::until("it in the sink", || second.sink.envelopes().expect("read"), |kept| kept.len() > 1);
    let broken = String::from_utf8(second.sink.message(&kept[1]).expect("kept")).expect("text");
    let found = fields(&broken.replace("\r\n", "\n"));
    assert!(
        values(&found, "ARC-Seal")[0].contains("i=2;") && values(&found, "ARC-Seal")[0].contains("cv=fail"),
        "{broken}"
    );
}

#[test]
fn what_leaves_is_signed_and_sealed_though_no_name_server_answers() {
    // It takes every question and answers none.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let dns = format!("dns.servers=[\"{}\"]", silent.local_addr().expect("bound"));
    let pair = started(&Options::story().home_set(&dns));
    publish(&pair, &pair);
    pair.home.program.ask(&["alias", "add", "team@example.org", FRIEND]).expect("an alias");
    let (mail, text) = (format!("MAIL FROM:<{ALICE}>"), format!("From: <{ALICE}>\r\n\r\nhello\r\n"));
    let promptly = |place| {
        let clock = Clock::real();
        let began = clock.now();
        let sent = submit(&pair, ALICE, &mail, text.as_bytes(), place);
        let took = clock.now() - began;
        assert!(took < QUESTION, "{took:?}: somebody waited for an answer");
        sent
    };
    let sent = promptly(0);
    expect_signed(&judge(&pair, &sent), "example.org");
    // New keys wait for as long as nobody says that their records are there.
    let listed = pair.home.program.ask_json(&["dkim", "rotate", "--json"]).expect("answered");
    assert_eq!(listed["keys"][3]["state"], "waiting", "{listed}");
    let sent = promptly(1);
    expect_signed(&judge(&pair, &sent), "example.org");
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = b"From: <stranger@world.example>\r\n\r\nhello\r\n";
    let reply = client.deliver("stranger@world.example", &["team@example.org"], text).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
    let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| kept.len() == 3);
    let judged = judge(&pair, &pair.sink.message(&kept[2]).expect("kept"));
    assert_eq!((judged.arc.as_str(), judged.sets), ("pass", 1), "{judged:?}");
}

#[test]
fn a_message_of_50_mb_is_signed_and_never_held_whole() {
    let pair = pair();
    publish(&pair, &pair);
    let message = gatepost_tests::world::message::numbered(1, ALICE, FRIEND, 50_000_000);
    let sent = submit(&pair, ALICE, &format!("MAIL FROM:<{ALICE}>"), &message, 0);
    expect_signed(&judge(&pair, &sent), "example.org");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pair.home.program.pid().expect("it runs")))
        .expect("its status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak_kib < 64 * 1024, "{peak_kib} KiB");
}
