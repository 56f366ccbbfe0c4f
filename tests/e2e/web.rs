//! What the edge serves on 80 and 443 for its homes: the policy for other mail hosts, the settings for mail programs, each
//! under a certificate of its own name.

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::mta_sts::{Mode, StsPolicy};
use gatepost_tests::observe;
use gatepost_tests::peers::pebble::{Manner, Pebble};
use gatepost_tests::peers::web::Web;
use serde_json::Value;

use crate::certificates::{Scene, status};

const POLICY: &str = "https://mta-sts.example.org/.well-known/mta-sts.txt";
const SETTINGS: &str = "https://autoconfig.example.org/mail/config-v1.1.xml";
const OUTLOOK: &str = "https://autodiscover.example.org/Autodiscover/Autodiscover.xml";

/// A pair whose names lead to the edge but for one, and that has had the CA issue for the others.
fn served() -> (Scene, Pebble) {
    let mut scene = Scene::prepared(Some(""), None);
    scene.set_home("autoconfig", "imaps = \"home.example.org:993\"");
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
    let records = scene.pair.home.program.ask_json(&["dns", "--json"]).expect("records");
    let record = |kind: &str, name: &str| {
        let records = records["records"].as_array().expect("a list");
        records.iter().find(|record| record["type"] == kind && record["name"] == name).map(|r| r["value"].clone())
    };
    assert_eq!(record("TXT", "_mta-sts.example.org"), Some(expected.record().into()), "{records:#}");
    assert_eq!(record("CNAME", "mta-sts.example.org"), Some(format!("{}.", scene.edge_name()).into()), "{records:#}");
    assert_eq!(record("SRV", "_imaps._tcp.example.org"), Some("0 1 993 home.example.org.".into()), "{records:#}");

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
