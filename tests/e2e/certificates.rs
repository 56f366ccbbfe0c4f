//! Certificates by ACME, from Pebble: issued, renewed, replaced when revoked, at the edge and, by way of the edge, at a
//! home that nothing can reach.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Certificates, Options};
use gatepost_tests::pair::program::Program;
use gatepost_tests::peers::pebble::{Ca, Manner, Pebble, Proofs, Provider};
use gatepost_tests::world::{authority, ports};
use serde_json::Value;

/// A pair without certificates, and a CA that is not there yet.
pub(crate) struct Scene {
    pub(crate) ca: Ca,
    pub(crate) pair: Pair,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Scene {
    /// `at_edge` and `at_home` are more of their `acme`; without, they ask no CA.
    pub(crate) fn prepared(at_edge: Option<&str>, at_home: Option<&str>) -> Self {
        let ca = Ca::new().expect("a place for Pebble");
        let (http, https) = (ports::free(), ports::free());
        let mut options = Options { certificates: Certificates::AsSet, ..Options::story() }
            .edge_set(&format!("listen.http=\"{http}\""))
            .edge_set(&format!("listen.https=\"{https}\""));
        if let Some(more) = at_edge {
            options = options.edge_set(&format!("acme={{ {}{more} }}", ca.settings()));
        }
        if let Some(more) = at_home {
            options = options.home_set(&format!("acme={{ {}{more} }}", ca.settings()));
        }
        Self { pair: Pair::prepare(&options).expect("a pair"), ca, http, https }
    }

    /// The same, running, without a CA.
    pub(crate) fn alone(at_edge: Option<&str>, at_home: Option<&str>) -> Self {
        let mut scene = Self::prepared(at_edge, at_home);
        scene.run();
        scene
    }

    /// The same, and a CA that was there before.
    fn new(at_edge: Option<&str>, at_home: Option<&str>, manner: &Manner) -> (Self, Pebble) {
        let mut scene = Self::prepared(at_edge, at_home);
        let pebble = scene.start(manner);
        scene.run();
        (scene, pebble)
    }

    pub(crate) fn run(&mut self) {
        self.pair.edge_mut().program.start().expect("the edge starts");
        self.pair.home.program.start().expect("the home starts");
        self.pair.wait_until_up();
    }

    pub(crate) fn start(&self, manner: &Manner) -> Pebble {
        let proofs = Proofs { dns: self.pair.dns.address(), http: self.http.port(), tls: self.https.port() };
        self.ca.start(proofs, manner).expect("Pebble starts")
    }

    /// Adds a table to the home's config.
    pub(crate) fn set_home(&self, table: &str, settings: &str) {
        let path = &self.pair.home.program.config;
        let config = fs::read_to_string(path).expect("readable");
        fs::write(path, format!("{config}\n[{table}]\n{settings}\n")).expect("writable");
    }

    pub(crate) fn edge_name(&self) -> &str {
        &self.pair.edge_hostname
    }
}

pub(crate) fn status(program: &Program) -> Value {
    program.ask_json(&["status", "--json"]).unwrap_or_default()
}

/// Waits until what is served at `address` under `name` is vouched for by this CA.
fn expect_vouched_for(address: SocketAddr, name: &str, pebble: &Pebble) {
    let tls = authority::client_config(pebble.root()).expect("a root");
    observe::until_ok("a certificate of Pebble's", || {
        let mut client = Client::connect(address)?;
        client.secure(&tls, name)
    });
}

/// The certificates kept below a state directory.
fn kept(program: &Program) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(program.state.join("acme")) else { return Vec::new() };
    folders
        .flatten()
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem") && !path.ends_with("account.pem"))
        .collect()
}

#[test]
fn an_edge_gets_its_certificate_by_http_once_the_ca_is_there() {
    let scene = Scene::alone(Some(""), None);
    let edge = &scene.pair.edge().program;
    // The CA is down: said in its own words, and a self-signed one is served meanwhile.
    observe::until("the failure to be told", || status(edge), |status| status["acme"]["failures"].as_u64() > Some(0));
    let told = status(edge);
    assert!(told["acme"]["why"].as_str().is_some_and(|why| why.contains("can't connect to 127.0.0.1")), "{told:#}");
    assert_eq!(told["self_signed_certificate"], true, "{told:#}");
    let pebble = scene.start(&Manner::default());
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    let told = observe::until("it to be told", || status(edge), |told| told["acme"]["failures"] == 0);
    assert_eq!(told["self_signed_certificate"], false, "{told:#}");
    assert_eq!(told["acme"]["why"], Value::Null, "{told:#}");
    assert!(told["acme"]["account"].as_str().is_some_and(|url| url.starts_with("https://")), "{told:#}");
    assert_eq!(pebble.issued(), 1, "{}", pebble.said());
    for file in fs::read_dir(kept(edge)[0].parent().expect("a folder")).expect("readable").flatten() {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn an_edge_gets_its_certificate_by_tls_alpn() {
    let mut scene = Scene::prepared(Some(", challenge = \"tls-alpn-01\", names = [\"smtp.example.org\"]"), None);
    scene.pair.add_records("smtp.example.org. 60 IN A 127.0.0.1\n").expect("records");
    let pebble = scene.start(&Manner::default());
    scene.run();
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    expect_vouched_for(scene.pair.edge().doors.submissions, "smtp.example.org", &pebble);
    assert_eq!(pebble.issued(), 1, "{}", pebble.said());
}

#[test]
fn a_home_that_nobody_can_reach_gets_its_certificate_through_the_edge() {
    let (scene, pebble) = Scene::new(None, Some(""), &Manner::default());
    expect_vouched_for(scene.pair.home.submissions, &scene.pair.home_hostname, &pebble);
    let told = status(&scene.pair.home.program);
    assert_eq!(told["certificate_self_signed"], false, "{told:#}");
    // Its key never left it.
    assert!(kept(&scene.pair.edge().program).is_empty());
}

#[test]
fn a_certificate_outlives_a_restart_and_is_not_ordered_again() {
    let (mut scene, pebble) = Scene::new(Some(""), None, &Manner::default());
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    scene.pair.edge_mut().program.kill();
    scene.pair.edge_mut().program.start().expect("it starts");
    expect_vouched_for(door, scene.edge_name(), &pebble);
    scene.pair.wait_until_up();
    assert_eq!(pebble.issued(), 1, "{}", pebble.said());
    let said = scene.pair.edge().program.said();
    let last_start = said.rfind("edge starts").expect("it said so");
    assert!(!said[last_start..].contains("self-signed"), "{}", &said[last_start..]);
}

#[test]
fn a_renewal_under_load_costs_no_handshake() {
    // Renewed after some ten seconds.
    let manner = Manner { profiles: vec![("default", 7_776_000), ("minutes", 15)], ..Manner::default() };
    let (scene, pebble) = Scene::new(Some(", profile = \"minutes\""), None, &manner);
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    let tls: Arc<_> = authority::client_config(pebble.root()).expect("a root");
    let mut handshakes = 0_u32;
    observe::until(
        "two renewals",
        || {
            let mut client = Client::connect(door).expect("connected");
            client.secure(&tls, scene.edge_name()).expect("every handshake succeeds");
            handshakes += 1;
            pebble.issued()
        },
        |issued| *issued >= 3,
    );
    assert!(handshakes > 50, "{handshakes}");
}

#[test]
fn a_revoked_certificate_is_replaced_at_once() {
    let (mut scene, pebble) = Scene::new(Some(""), None, &Manner::default());
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    let certificate = kept(&scene.pair.edge().program).remove(0);
    let before = fs::read_to_string(&certificate).expect("readable");
    let leaf = scene.pair.directory().join("leaf.pem");
    fs::write(
        &leaf,
        before
            .split_once("-----BEGIN CERTIFICATE")
            .map(|(_, rest)| format!("-----BEGIN CERTIFICATE{rest}"))
            .expect("a chain"),
    )
    .expect("written");
    // What a CA says of a certificate it has revoked: its window is over.
    scene.ca.suggest_renewal(&leaf, "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z").expect("Pebble takes it");
    // It asks at each start, and a few times a day.
    scene.pair.edge_mut().program.kill();
    scene.pair.edge_mut().program.start().expect("it starts");
    observe::until("another certificate", || pebble.issued(), |issued| *issued == 2);
    observe::until_ok("it to be kept", || {
        let after = fs::read_to_string(&certificate)?;
        anyhow::ensure!(after != before);
        // The key stays: what is pinned to it stays good.
        let key = |pem: &str| pem.split_once("-----END PRIVATE KEY").map(|(key, _)| key.to_owned());
        anyhow::ensure!(key(&after) == key(&before));
        Ok(())
    });
}

#[test]
fn a_ca_that_knows_its_customers_gets_to_know_us() {
    let key = "aGVsbG8gcGViYmxlLCB0aGlzIGlzIGEgbG9uZyBrZXk";
    let manner = Manner { external_account: Some(("kid-1", key)), ..Manner::default() };
    let (scene, pebble) =
        Scene::new(Some(&format!(", external_account = {{ id = \"kid-1\", secret = \"{key}\" }}")), None, &manner);
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
}

#[test]
fn a_home_proves_its_name_by_its_owners_dns_where_no_port_is_open() {
    let provider = Provider::start().expect("a provider");
    let hook = format!(", challenge = \"dns-01\", dns_hook = \"{}\"", provider.hook.display());
    let mut scene = Scene::prepared(None, Some(&hook));
    let nowhere = ports::free().port();
    let proofs = Proofs { dns: provider.dns, http: nowhere, tls: nowhere };
    let pebble = scene.ca.start(proofs, &Manner::default()).expect("Pebble starts");
    scene.run();
    expect_vouched_for(scene.pair.home.submissions, &scene.pair.home_hostname, &pebble);
    let name = format!("_acme-challenge.{}", scene.pair.home_hostname);
    let calls = provider.calls();
    assert!(calls.contains(&format!("add {name}\n")) && calls.ends_with(&format!("remove {name}\n")), "{calls}");
}

#[test]
fn nothing_but_a_challenge_that_is_waited_for_is_found() {
    let scene = Scene::alone(None, None);
    for (path, status) in [
        ("/.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", "404"),
        ("/.well-known/acme-challenge/../../etc/passwd", "404"),
        ("/.well-known/acme-challenge/", "404"),
        ("/", "404"),
    ] {
        let answer = gatepost_tests::peers::clients::curl_status(&format!("http://{}{path}", scene.http));
        assert_eq!(answer.expect("answered"), status, "{path}");
    }
}
