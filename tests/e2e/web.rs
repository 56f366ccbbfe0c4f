//! What the edge serves on 80 and 443 for its homes: the policy for other mail hosts, the settings for mail programs, each
//! under a certificate of its own name.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::mta_sts::{Mode, StsPolicy};
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Certificates, Options};
use gatepost_tests::peers::clients::curl_status;
use gatepost_tests::peers::pebble::{Ca, Manner, Pebble, Proofs};
use gatepost_tests::peers::thunderbird::{self, Person};
use gatepost_tests::peers::web::Web;
use gatepost_tests::world::{message, ports};
use serde_json::{Value, json};

use super::{ALICE, STRANGER, expect_delivered};
use crate::certificates::{Scene, status};

const POLICY: &str = "https://mta-sts.example.org/.well-known/mta-sts.txt";
const SETTINGS: &str = "https://autoconfig.example.org/mail/config-v1.1.xml";
const OUTLOOK: &str = "https://autodiscover.example.org/Autodiscover/Autodiscover.xml";

/// A pair whose names lead to the edge but for one, and that has had the CA issue for the others.
fn served() -> (Scene, Pebble) {
    let mut scene = Scene::prepared(Some(""), None);
    scene
        .pair
        .add_records("mta-sts.example.org. 1 IN A 127.0.0.1\nautoconfig.example.org. 1 IN A 127.0.0.1\n")
        .expect("records");
    let pebble = scene.start(&Manner::default());
    scene.run();
    for name in ["mta-sts.example.org", "autoconfig.example.org"] {
        wait_for(&scene, name, |named| named["good"] == true);
    }
    (scene, pebble)
}

fn named(status: &Value, name: &str) -> Value {
    let names = status["names"].as_array().map_or(&[][..], Vec::as_slice);
    names.iter().find(|named| named["name"] == name).cloned().unwrap_or_default()
}

fn wait_for(scene: &Scene, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    observe::until(
        "the certificate of a name",
        || named(&status(&scene.pair.edge().program), name),
        |named| is_so(named),
    )
}

fn web<'a>(scene: &Scene, pebble: &'a Pebble) -> Web<'a> {
    Web { http: scene.http, https: scene.https, root: pebble.root() }
}

#[test]
fn each_name_has_its_certificate_and_says_what_its_readers_look_for() {
    let (scene, pebble) = served();
    let web = web(&scene, &pebble);
    let get = |url: &str| web.curl(url, &[]).expect("answered");

    let policy = get(POLICY);
    let host = Domain::parse(scene.edge_name()).expect("valid");
    let expected = StsPolicy::new(Mode::Testing, 7 * 86_400, vec![host]).expect("good");
    assert_eq!((policy.status, policy.body.as_str()), (200, expected.text().as_str()));
    assert!(policy.head.contains("content-type: text/plain") && !policy.head.contains("server:"), "{}", policy.head);
    let imaps = scene.pair.edge().doors.imaps.port();
    let records = scene.pair.home.program.ask_json(&["dns", "--json"]).expect("records");
    let record = |kind: &str, name: &str| {
        let records = records["records"].as_array().expect("a list");
        records.iter().find(|record| record["type"] == kind && record["name"] == name).map(|r| r["value"].clone())
    };
    assert_eq!(record("TXT", "_mta-sts.example.org"), Some(expected.record().into()), "{records:#}");
    assert_eq!(record("CNAME", "mta-sts.example.org"), Some(format!("{}.", scene.edge_name()).into()), "{records:#}");
    assert_eq!(
        record("SRV", "_imaps._tcp.example.org"),
        Some(format!("0 1 {imaps} home.example.org.").into()),
        "{records:#}"
    );

    let settings = get(SETTINGS);
    assert_eq!(settings.status, 200, "{settings:?}");
    let submissions = scene.pair.edge().doors.submissions.port();
    for expected in ["<hostname>home.example.org</hostname>", &format!("<port>{submissions}</port>"), "%EMAILADDRESS%"]
    {
        assert!(settings.body.contains(expected), "{expected}\n{}", settings.body);
    }
    let same = get(&format!("{}?emailaddress=alice%40example.org", SETTINGS.replace("https", "http")));
    assert_eq!(same.body, settings.body, "with an address and without TLS");
    assert_eq!(web.curl(SETTINGS, &["--head"]).expect("answered").status, 200);

    let profile = get("https://autoconfig.example.org/mail/apple.mobileconfig?address=alice%40example.org");
    assert!(profile.head.contains("content-type: application/x-apple-aspen-config"), "{}", profile.head);
    assert!(profile.body.contains("<key>IncomingMailServerUseSSL</key>"), "{}", profile.body);

    // A name that does not lead here was never asked of the CA, and nothing is said to have failed.
    let elsewhere = wait_for(&scene, "autodiscover.example.org", |named| named["leads_here"] == false);
    assert_eq!((&elsewhere["failures"], &elsewhere["why"]), (&Value::from(0), &Value::Null), "{elsewhere:#}");
    assert!(!pebble.said().contains("autodiscover"), "{}", pebble.said());
    scene.pair.add_records("autodiscover.example.org. 1 IN A 127.0.0.1\n").expect("records");
    wait_for(&scene, "autodiscover.example.org", |named| named["good"] == true);
    let request = "<Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\">\
        <Request><EMailAddress>alice@example.org</EMailAddress></Request></Autodiscover>";
    let discovered = web.curl(OUTLOOK, &["-H", "Content-Type: text/xml", "--data", request]).expect("answered");
    assert!(discovered.body.contains("<SSL>on</SSL>") && !discovered.body.contains("Encryption"), "{discovered:?}");

    for (url, more, status) in [
        (POLICY, &["-X", "POST", "--data", "x"][..], 405),
        (POLICY, &["-X", "DELETE"], 405),
        ("http://mta-sts.example.org/.well-known/mta-sts.txt", &[], 404),
        ("https://mta-sts.example.org/", &[], 404),
        ("https://mta-sts.example.org/.well-known/", &[], 404),
        ("https://mta-sts.example.org/.well-known/../.well-known/mta-sts.txt", &[], 404),
        ("https://mta-sts.example.org/.well-known/%6dta-sts.txt", &[], 404),
        (POLICY, &["-H", "Host: mta-sts.example.org:443"], 200),
        (POLICY, &["-H", "Host: MTA-STS.Example.ORG."], 200),
        (POLICY, &["-H", "Host: mta-sts.example.com"], 404),
        (POLICY, &["-H", "Host:"], 400),
        (POLICY, &["-H", "Host: ../etc"], 404),
        (OUTLOOK, &["--data", "<EMailAddress>alice@example.com</EMailAddress>"], 404),
        (OUTLOOK, &["--data", "<!DOCTYPE a [<!ENTITY b \"c\">]><EMailAddress>&b;@example.org</EMailAddress>"], 400),
        (OUTLOOK, &["--data", "<EMailAddress>alice@example.org"], 400),
        ("http://autodiscover.example.org/autodiscover/autodiscover.xml", &[], 302),
    ] {
        assert_eq!(web.curl(url, more).expect("answered").status, status, "{url} {more:?}");
    }
    // Mail is served under the host's own name all the while.
    assert_eq!(pebble.issued(), 4, "{}", pebble.said());
}

#[test]
fn a_browser_reads_policy_and_settings_over_certificates_it_has_checked() {
    let (scene, pebble) = served();
    let web = web(&scene, &pebble);
    let policy = web.chromium(POLICY).expect("it ran");
    assert!(policy.contains("version: STSv1") && policy.contains("mode: testing"), "{policy}");
    let settings = web.chromium(SETTINGS).expect("it ran");
    assert!(settings.contains("home.example.org"), "{settings}");
    // Where the certificate is of another name it shows nothing of ours.
    let wrong = web.chromium("https://example.org/.well-known/autoconfig/mail/config-v1.1.xml").expect("it ran");
    assert!(!wrong.contains("home.example.org"), "{wrong}");
}

/// Delivers a message to Alice by the first edge.
fn mail_flows(pair: &Pair, number: u64) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let text = message::numbered(number, STRANGER, ALICE, 1000);
    client.deliver(STRANGER, &[ALICE], &text).expect("taken");
}

#[test]
fn a_port_that_is_taken_holds_up_no_mail_and_is_opened_once_it_is_free() {
    let mut scene = Scene::prepared(Some(""), None);
    let stranger = TcpListener::bind(scene.http).expect("a free port");
    scene.run();
    mail_flows(&scene.pair, 1);
    expect_delivered(&scene.pair, ALICE, &[1]);
    let edge = &scene.pair.edge().program;
    let waiting = |status: &Value| status["listen"]["waiting"]["http"].as_str().map(str::to_owned);
    let told = status(edge);
    assert!(waiting(&told).is_some_and(|why| why.contains("is taken by another program")), "{told:#}");
    assert!(edge.ask(&["status"]).expect("told").contains("http         shut: can't listen on"), "{told:#}");
    assert!(edge.said().contains("this door of the web stays shut for now"), "{}", edge.said());
    let at_home = status(&scene.pair.home.program);
    assert!(at_home["troubles"].to_string().contains("can't open its door http"), "{at_home:#}");
    // Another reload is not refused for it.
    edge.ask(&["reload"]).expect("taken");
    drop(stranger);
    let told = observe::until("the door to be open", || status(edge), |status| waiting(status).is_none());
    assert_eq!(told["listen"]["http"], scene.http.to_string(), "{told:#}");
    assert_eq!(curl_status(&format!("http://{}/", scene.http)).expect("answered"), "404");
}

#[test]
fn a_flood_of_challenges_and_of_slow_clients_hurts_nobody_else() {
    let scene = Scene::alone(None, None);
    let connect = |end: &str| {
        let mut stream = TcpStream::connect(scene.http).expect("connected");
        let token = "a".repeat(43);
        // One that is turned away at once can't be written to.
        let _ = write!(stream, "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: h\r\n{end}");
        stream
    };
    // Each has to be carried home, as far as they are let in.
    let flood: Vec<TcpStream> = (0..200).map(|_| connect("\r\n")).collect();
    mail_flows(&scene.pair, 1);
    expect_delivered(&scene.pair, ALICE, &[1]);
    drop(flood);
    // More than one address may hold, none of them ever at its end.
    let mut slow: Vec<TcpStream> = (0..40).map(|_| connect("x: ")).collect();
    mail_flows(&scene.pair, 2);
    expect_delivered(&scene.pair, ALICE, &[1, 2]);
    for stream in slow.iter_mut().skip(16) {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "one address holds sixteen places");
    }
    drop(slow);
    // Who comes again and again, each time politely, is let in no more for a while; mail is.
    let polite = || {
        let mut heard = String::new();
        let mut stream = TcpStream::connect(scene.http).expect("connected");
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut heard));
        heard.starts_with("HTTP/1.0 404")
    };
    observe::until("room at the door", polite, |answered| *answered);
    assert!((0..5000).any(|_| !polite()), "so many are not let in in a minute");
    mail_flows(&scene.pair, 3);
    expect_delivered(&scene.pair, ALICE, &[1, 2, 3]);
    observe::until_ok("the door to have room again", || {
        anyhow::ensure!(curl_status(&format!("http://{}/", scene.http))? == "404");
        Ok(())
    });
}

#[test]
fn two_edges_of_one_name_get_their_certificates_and_tell_the_same() {
    let ca = Ca::new().expect("a place for Pebble");
    let (http, https) = (ports::free(), ports::free());
    let options = Options { certificates: Certificates::AsSet, edges: 2, ..Options::story() }
        .edge_set(&format!("listen.http=\"{http}\""))
        .edge_set(&format!("listen.https=\"{https}\""))
        .edge_set(&format!("acme={{ {} }}", ca.settings()));
    let mut pair = Pair::prepare(&options).expect("a pair");
    // The second is at another address; whoever looks the name up may come to either.
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let config = &pair.edges[1].program.config;
    let text = fs::read_to_string(config).expect("readable");
    let moved = |door: SocketAddr| SocketAddr::new(second, door.port());
    let text = [http, https].iter().fold(text, |text, door| text.replace(&door.to_string(), &moved(*door).to_string()));
    fs::write(config, text).expect("writable");
    for name in [pair.edge_hostname.as_str(), "mta-sts.example.org"] {
        pair.add_records(&format!("{name}. 1 IN A 127.0.0.1\n{name}. 1 IN A 127.0.0.2\n")).expect("records");
    }
    let proofs = Proofs { dns: pair.dns.address(), http: http.port(), tls: https.port() };
    let pebble = ca.start(proofs, &Manner::default()).expect("Pebble starts");
    for edge in &mut pair.edges {
        edge.program.start().expect("it starts");
    }
    pair.home.program.start().expect("it starts");
    pair.wait_until_up();
    let mut policies = Vec::new();
    for (edge, doors) in pair.edges.iter().zip([(http, https), (moved(http), moved(https))]) {
        observe::until(
            "the certificate of the policy's host",
            || named(&status(&edge.program), "mta-sts.example.org"),
            |named| named["good"] == true,
        );
        let web = Web { http: doors.0, https: doors.1, root: pebble.root() };
        policies.push(web.curl(POLICY, &[]).expect("answered").body);
    }
    assert!(policies[0].contains("mode: testing") && policies[0] == policies[1], "{policies:#?}");
}

#[test]
fn a_name_is_given_up_with_its_domain_and_comes_back_without_an_order() {
    let mut scene = Scene::prepared(Some(""), None);
    scene.pair.add_records("mta-sts.example.org. 1 IN A 127.0.0.1\n").expect("records");
    let pebble = scene.start(&Manner::default());
    scene.run();
    wait_for(&scene, "mta-sts.example.org", |named| named["good"] == true);
    // The host's own as well.
    observe::until("both", || pebble.issued(), |issued| *issued == 2);
    let edge = &scene.pair.edge().program;
    let good = fs::read_to_string(&edge.config).expect("readable");
    let other = good.replace("domains = [\"example.org\"]", "domains = [\"example.net\"]");
    assert_ne!(good, other);
    fs::write(&edge.config, other).expect("writable");
    edge.ask(&["reload"]).expect("taken");
    wait_for(&scene, "mta-sts.example.org", Value::is_null);
    let web = web(&scene, &pebble);
    let refused = web.curl(POLICY, &[]).expect_err("it has the certificate of another name").to_string();
    assert!(refused.contains("certificate") || refused.contains("SSL"), "{refused}");
    fs::write(&edge.config, good).expect("writable");
    edge.ask(&["reload"]).expect("taken");
    wait_for(&scene, "mta-sts.example.org", |named| named["good"] == true);
    assert_eq!(web.curl(POLICY, &[]).expect("answered").status, 200);
    assert_eq!(pebble.issued(), 2, "{}", pebble.said());
}

#[test]
fn thunderbird_sets_an_account_up_by_its_address_alone_and_sends() {
    let (scene, pebble) = served();
    let submissions = scene.pair.edge().doors.submissions;
    let person = Person {
        address: ALICE,
        password: &scene.pair.account(ALICE).submission_password,
        recipient: "friend@elsewhere.example",
        hosts: &[scene.edge_name(), "home.example.org", "autoconfig.example.org", "example.org"],
    };
    let told = thunderbird::set_up_and_send(&web(&scene, &pebble), person).expect("it runs");
    assert_eq!(
        told["told"]["incoming"],
        json!(["imap", "home.example.org", scene.pair.edge().doors.imaps.port(), 3, ALICE]),
        "{told:#}"
    );
    let server = format!("smtp://alice%40example.org@{}:{}/", scene.edge_name(), submissions.port());
    assert_eq!(told["told"]["outgoing"], json!([server, 3, ALICE]), "{told:#}");
    let kept = observe::until("its message", || scene.pair.sink.envelopes().expect("read"), |kept| !kept.is_empty());
    let message = scene.pair.sink.message(&kept[0]).expect("kept");
    assert!(String::from_utf8_lossy(&message).contains("Subject: set up by autoconfig alone"));
}
