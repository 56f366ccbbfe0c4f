//! Mail to domains with an MTA-STS policy, whose web host is real: in each mode, with hosts that can prove their name and
//! hosts that can't, and with web hosts that misbehave.

use std::net::SocketAddr;

use gatepost_tests::client::Client;
use gatepost_tests::fault::namespace;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::peers::policy_host::PolicyHost;
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::message;
use gatepost_tests::world::sink::Sink;

use super::{ALICE, started};

/// A mail host whose certificate a CA vouches for.
const GOOD: &str = "93.184.215.14";
/// One whose certificate nobody vouches for.
const BAD: &str = "93.184.215.15";
/// The web host of all policies.
const WEB: &str = "93.184.215.17";
const ADDRESSES: &str = "ip link set lo up && for last in 14 15 16 17; do ip address add 93.184.215.$last/32 dev lo; done && \
     for last in 14 15 17; do ip route replace local 93.184.215.$last dev lo table local src 93.184.215.16; done";

fn policy(mode: &str, mx: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n")
}

/// A domain that says it has a policy, and its two hosts.
fn zone(name: &str, host: &str) -> String {
    format!(
        "{name}.test. 1 IN MX 10 mx.{name}.test.\nmx.{name}.test. 1 IN A {host}\n\
         _mta-sts.{name}.test. 1 IN TXT \"v=STSv1; id=1;\"\nmta-sts.{name}.test. 1 IN A {WEB}\n"
    )
}

/// The world of one story: an edge that trusts one CA, the web host, both mail hosts.
struct World {
    pair: Pair,
    web: PolicyHost,
    good: Sink,
    bad: Sink,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(domains: &[(&str, &str)], floors: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(&folder.path().join("ca")).expect("a CA");
        let names = |prefix: &str| domains.iter().map(|(name, _)| format!("{prefix}.{name}.test")).collect::<Vec<_>>();
        let issue = |authority: &Authority, names: &[String]| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            authority.issue(&names).expect("a certificate")
        };
        let web = PolicyHost::start(WEB, &issue(&authority, &names("mta-sts"))).expect("a web host");
        let mut options = Options::story().home_set("queue.retry=[\"1 s\"]").home_set(&format!("queue.tls={floors}"));
        options.outbound = Outbound::ByMx;
        options.zone = domains.iter().map(|(name, host)| zone(name, host)).collect();
        let trusted = format!("SSL_CERT_FILE={}", authority.certificate().display());
        options.edge_wrapper = vec!["env".to_owned(), trusted];
        let pair = started(&options);
        let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), 25);
        let good = pair.sink_with("good", at(GOOD), &issue(&authority, &names("mx"))).expect("a sink");
        let stranger = Authority::new(&folder.path().join("stranger")).expect("a CA");
        let bad = pair.sink_with("bad", at(BAD), &issue(&stranger, &names("mx"))).expect("a sink");
        Self { pair, web, good, bad, _folder: folder }
    }

    fn send(&self, number: u64, domain: &str) {
        submit(&self.pair, number, &format!("friend@{domain}.test"));
    }

    /// Waits for a story of mail to this domain with this word.
    fn told(&self, domain: &str, word: &str) -> String {
        observe::until(
            &format!("mail to {domain}: {word}"),
            || self.pair.home.program.ask(&["trace", &format!("friend@{domain}.test")]).expect("trace answers"),
            |story| story.contains(word),
        )
    }
}

#[test]
fn a_policy_is_kept_to_in_each_mode() {
    namespace::run_inside("mta_sts_outbound::inside_a_world_of_policies", ADDRESSES);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_world_of_policies() {
    let domains = [
        ("enforced", GOOD),
        ("impostor", BAD),
        ("unlisted", GOOD),
        ("tested", BAD),
        ("ended", BAD),
        ("unheard", BAD),
        // These have no policy, but the owner's floor.
        ("demanded", BAD),
        ("vouched", GOOD),
        ("danish", GOOD),
    ];
    let mut world = World::new(
        &domains,
        "{\"demanded.test\"=\"verify\", \"*.test\"=\"none\", \"vouched.test\"=\"verify\", \"danish.test\"=\"dane\"}",
    );
    let answer = |domain: &str, text: &str| world.web.answer(&format!("{domain}.test"), "200", text).expect("written");
    answer("enforced", &policy("enforce", "*.enforced.test"));
    answer("impostor", &policy("enforce", "mx.impostor.test"));
    answer("unlisted", &policy("enforce", "other.unlisted.test"));
    answer("tested", &policy("testing", "mx.tested.test"));
    answer("ended", &policy("none", "mx.ended.test"));
    for (number, (domain, _)) in (1..).zip(&domains) {
        world.send(number, domain);
    }
    let story = world.told("enforced", "=> sent");
    assert!(story.contains("verified by MTA-STS"), "{story}");
    for domain in ["tested", "ended", "unheard"] {
        let story = world.told(domain, "=> sent");
        assert!(story.contains(", unverified"), "{domain}: {story}");
    }
    let story = world.told("impostor", "could not yet hand it over");
    assert!(story.contains("TLS could not be had") && !story.contains("=> sent"), "{story}");
    let story = world.told("unlisted", "could not yet hand it over");
    assert!(story.contains("policy does not list mx.unlisted.test"), "{story}");
    let story = world.told("vouched", "=> sent");
    assert!(story.contains(", verified"), "{story}");
    let story = world.told("demanded", "could not yet hand it over");
    assert!(story.contains("TLS could not be had") && !story.contains("=> sent"), "{story}");
    let story = world.told("danish", "could not yet hand it over");
    assert!(story.contains("DANE is demanded for this domain"), "{story}");
    assert_eq!(world.good.envelopes().expect("readable").len(), 2);
    assert_eq!(world.bad.envelopes().expect("readable").len(), 3);

    // Fetched once, kept over a restart, also while the web host is in no mood.
    assert_eq!(world.web.asked("enforced.test"), 1);
    let kept = world.pair.edges[0].program.state.join("mta-sts");
    let is_kept = |text: &String| text.contains("enforced.test");
    observe::until("the policies to be written down", || std::fs::read_to_string(&kept).unwrap_or_default(), is_kept);
    world.pair.edges[0].program.kill();
    world.web.answer("enforced.test", "500", "").expect("written");
    world.pair.edges[0].program.start().expect("started");
    world.pair.wait_until_up();
    world.send(10, "enforced");
    observe::until_delivered(world.good.maildir(), &[1, 8, 10]);
    assert_eq!(world.web.asked("enforced.test"), 1, "what was kept is still good");
}

#[test]
fn a_web_host_that_misbehaves_is_no_policy_and_stops_no_mail() {
    namespace::run_inside("mta_sts_outbound::inside_a_world_of_bad_web_hosts", ADDRESSES);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_world_of_bad_web_hosts() {
    let domains = [("moved", BAD), ("huge", BAD), ("endless", BAD), ("garbage", BAD), ("html", BAD), ("broken", BAD)];
    let world = World::new(&domains, "{}");
    let good = |domain: &str| policy("enforce", &format!("mx.{domain}.test"));
    for (domain, how, text) in [
        ("moved", "moved", good("moved")),
        ("huge", "huge", good("huge")),
        ("endless", "endless", good("endless")),
        ("garbage", "200", "\u{1}<html>mode: enforce".to_owned()),
        ("html", "html", good("html")),
        ("broken", "500", good("broken")),
    ] {
        world.web.answer(&format!("{domain}.test"), how, &text).expect("written");
    }
    for (number, (domain, _)) in (1..).zip(&domains) {
        world.send(number, domain);
    }
    for (domain, _) in domains {
        let story = world.told(domain, "=> sent");
        assert!(story.contains(", unverified"), "{domain}: {story}");
        assert_eq!(world.web.asked(&format!("{domain}.test")), 1, "{domain}");
    }
}

fn submit(pair: &Pair, number: u64, to: &str) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.password).expect("answered").code, 235);
    let sent = message::numbered(number, ALICE, to, 2000);
    let answer = client.deliver(ALICE, &[to], &sent).expect("answered");
    assert_eq!(answer.code, 250, "{answer:?}");
}
