//! Certificates by ACME, from Pebble: issued, renewed, replaced when revoked, at the edge and, by way of the edge, at a
//! home that nothing can reach.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Certificates, Options};
use gatepost_tests::pair::program::Program;
use gatepost_tests::peers::openssl;
use gatepost_tests::peers::pebble::{Ca, Manner, Pebble, Proofs, Provider};
use gatepost_tests::world::{authority, message, ports};
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

/// Handshakes one after the other at edge and home while certificates of such a life are renewed twice at each; every
/// one succeeds.
fn renewed_under_load(life_s: u32, patience: Duration) {
    let manner = Manner { profiles: vec![("default", 7_776_000), ("minutes", life_s)], ..Manner::default() };
    let profile = ", profile = \"minutes\"";
    let (scene, pebble) = Scene::new(Some(profile), Some(profile), &manner);
    let doors = [
        (scene.pair.edge().doors.submissions, scene.edge_name()),
        (scene.pair.home.submissions, scene.pair.home_hostname.as_str()),
    ];
    for (door, name) in doors {
        expect_vouched_for(door, name, &pebble);
    }
    let tls: Arc<_> = authority::client_config(pebble.root()).expect("a root");
    let served = || doors.map(|(door, name)| peer_certificate(door, name, &tls));
    let (mut handshakes, mut seen) = (0_u32, served().map(|first| vec![first]));
    observe::until_within(
        patience,
        "two renewals at each",
        || {
            for (seen, now) in seen.iter_mut().zip(served()) {
                handshakes += 1;
                if seen.last() != Some(&now) {
                    seen.push(now);
                }
            }
            [seen[0].len(), seen[1].len()]
        },
        |seen| seen.iter().all(|certificates| *certificates >= 3),
    );
    assert!(handshakes > 50, "{handshakes}");
}

fn peer_certificate(door: SocketAddr, name: &str, tls: &Arc<rustls::ClientConfig>) -> Vec<u8> {
    let mut client = Client::connect(door).expect("connected");
    client.secure(tls, name).expect("every handshake succeeds");
    client.certificate().expect("one")
}

#[test]
fn a_renewal_under_load_costs_no_handshake() {
    // Renewed after some ten seconds.
    renewed_under_load(15, observe::PATIENCE);
}

#[test]
#[ignore = "takes four minutes"]
fn a_renewal_of_what_lives_two_minutes_costs_no_handshake() {
    renewed_under_load(120, Duration::from_mins(12));
}

/// The only certificate kept there.
fn the_kept(program: &Program) -> PathBuf {
    kept(program).pop().expect("one is kept")
}

#[test]
fn revoked_certificates_are_replaced_as_soon_as_the_ca_is_asked() {
    let (mut scene, pebble) = Scene::new(Some(""), Some(""), &Manner::default());
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    expect_vouched_for(scene.pair.home.submissions, &scene.pair.home_hostname, &pebble);
    observe::until("both", || pebble.issued(), |issued| *issued == 2);
    let files = [the_kept(&scene.pair.edge().program), the_kept(&scene.pair.home.program)];
    let before = files.clone().map(|file| fs::read_to_string(file).expect("readable"));
    for file in &files {
        scene.ca.revoke(file).expect("Pebble revokes it");
    }
    // It asks at each start, and as often as the CA likes.
    scene.pair.edge_mut().program.kill();
    scene.pair.home.program.kill();
    scene.run();
    observe::until("others", || pebble.issued(), |issued| *issued == 4);
    for (file, before) in files.iter().zip(before) {
        observe::until_ok("it to be kept", || {
            let after = fs::read_to_string(file)?;
            anyhow::ensure!(after != before);
            // The key stays: what is pinned to it stays good.
            let key = |pem: &str| pem.split_once("-----END PRIVATE KEY").map(|(key, _)| key.to_owned());
            anyhow::ensure!(key(&after) == key(&before));
            Ok(())
        });
    }
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
}

#[test]
fn a_certificate_proven_by_tls_alpn_is_replaced_when_it_is_revoked() {
    let (mut scene, pebble) = Scene::new(Some(", challenge = \"tls-alpn-01\""), None, &Manner::default());
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    let file = the_kept(&scene.pair.edge().program);
    let before = fs::read_to_string(&file).expect("readable");
    scene.ca.revoke(&file).expect("Pebble revokes it");
    scene.pair.edge_mut().program.kill();
    scene.pair.edge_mut().program.start().expect("it starts");
    observe::until("another one", || fs::read_to_string(&file).unwrap_or_default(), |after| *after != before);
    assert_eq!(pebble.issued(), 2, "{}", pebble.said());
}

#[test]
#[ignore = "takes two minutes"]
fn a_revoked_certificate_is_replaced_without_a_restart() {
    // Of a life so short the CA is asked once a minute.
    let manner = Manner { profiles: vec![("default", 7_776_000), ("minutes", 1200)], ..Manner::default() };
    let (scene, pebble) = Scene::new(Some(", profile = \"minutes\""), None, &manner);
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    let file = the_kept(&scene.pair.edge().program);
    scene.ca.revoke(&file).expect("Pebble revokes it");
    observe::until_within(Duration::from_mins(8), "another one", || pebble.issued(), |issued| *issued == 2);
}

#[test]
fn two_edges_answer_alike_for_their_home() {
    let ca = Ca::new().expect("a place for Pebble");
    let options = Options { certificates: Certificates::AsSet, edges: 2, ..Options::story() }
        .edge_set("listen.http=\"127.0.0.1:0\"")
        .home_set(&format!("acme={{ {} }}", ca.settings()));
    let mut pair = Pair::prepare(&options).expect("a pair");
    for edge in &mut pair.edges {
        edge.program.start().expect("an edge starts");
    }
    let nowhere = ports::free().port();
    for at in [0, 1] {
        // The CA comes to this edge only; one that has never seen the account before.
        let program = &pair.edges[at].program;
        let http = observe::until("the door", || status(program)["listen"]["http"].clone(), Value::is_string);
        let http: SocketAddr = http.as_str().and_then(|door| door.parse().ok()).expect("an address");
        let proofs = Proofs { dns: pair.dns.address(), http: http.port(), tls: nowhere };
        let pebble = ca.start(proofs, &Manner::default()).expect("Pebble starts");
        pair.home.program.start().expect("the home starts");
        expect_vouched_for(pair.home.submissions, &pair.home_hostname, &pebble);
        assert_eq!((pebble.accounts(), pebble.issued()), (1, 1), "{}", pebble.said());
        pair.home.program.kill();
        let file = the_kept(&pair.home.program);
        // The account stays, and so does what the CA has forgotten of it.
        fs::remove_file(file).expect("removed");
    }
}

#[test]
fn a_certificate_of_rsa_stands_beside_the_other_for_who_knows_nothing_newer() {
    let (mut scene, pebble) = Scene::new(Some(", rsa = true"), None, &Manner::default());
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    let rsa = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"];
    let shown = |how: &[&str]| openssl::public_key(door, scene.edge_name(), pebble.root(), how);
    observe::until_ok("the one of RSA", || {
        let shown = shown(&rsa)?;
        anyhow::ensure!(shown.contains("rsaEncryption") && shown.contains("2048 bit"), "{shown}");
        Ok(())
    });
    for how in [&["-tls1_3"][..], &["-tls1_2"], &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]] {
        let shown = shown(how).expect("shown");
        assert!(shown.contains("id-ecPublicKey"), "{how:?}: {shown}");
    }
    let told = status(&scene.pair.edge().program);
    assert_eq!(told["acme"]["key"], "ECDSA P-256", "{told:#}");
    assert_eq!(told["acme"]["beside"][0]["key"], "RSA 2048", "{told:#}");
    assert_eq!((pebble.accounts(), pebble.issued()), (1, 2), "{}", pebble.said());
    // Both outlive a restart, and neither is ordered again.
    scene.pair.edge_mut().program.kill();
    scene.pair.edge_mut().program.start().expect("it starts");
    observe::until_ok("the one of RSA", || {
        anyhow::ensure!(
            openssl::public_key(door, scene.edge_name(), pebble.root(), &rsa)?.contains("rsaEncryption"),
            "another"
        );
        Ok(())
    });
    assert_eq!(pebble.issued(), 2, "{}", pebble.said());
}

#[test]
fn a_new_key_is_used_once_the_dns_has_shown_its_record_and_never_before() {
    let (scene, pebble) = Scene::new(Some(", rollover = \"2 s\""), None, &Manner::default());
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    let home = &scene.pair.home.program;
    let name = format!("_25._tcp.{}", scene.edge_name());
    let pins = || {
        let told = home.ask_json(&["dns", "--json"]).expect("records");
        let records = told["records"].as_array().cloned().unwrap_or_default();
        let of_host = records.iter().filter(|record| record["type"] == "TLSA" && record["name"] == name.as_str());
        of_host.map(|record| record["value"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let old = observe::until("the key in use", &pins, |pins| pins.len() == 1).remove(0);
    scene.pair.replace_records(&name, "TLSA", &[&old]).expect("published");
    let told = home.ask_json(&["certificate", "rotate", "--json"]).expect("asked");
    let new = told["edges"][0]["records"][0]["value"].as_str().expect("a record").to_owned();
    assert_ne!(new, old);
    observe::until("both", &pins, |pins| *pins == [old.clone(), new.clone()]);
    // Asked again, it is the same one.
    let shown = scene.pair.edge().program.ask(&["certificate", "rotate"]).expect("asked");
    assert_eq!(shown, format!("{name}. TLSA {new}\n"));
    // It looks every two seconds; as long as its record is not there, nothing happens.
    let looks = || scene.pair.edge().program.said().matches("new keys wait for their records").count();
    assert!(looks() >= 1);
    assert_eq!(pebble.issued(), 1, "{}", pebble.said());
    let upper = new.to_uppercase();
    scene.pair.replace_records(&name, "TLSA", &[&old, &upper]).expect("published");
    observe::until("the new key alone", &pins, |pins| *pins == [new.clone()]);
    expect_vouched_for(door, scene.edge_name(), &pebble);
    assert_eq!(pebble.issued(), 2, "{}", pebble.said());
}

#[test]
fn files_that_are_renewed_are_taken_up_and_what_is_half_written_is_not() {
    let pair = super::pair();
    let (door, name) = (pair.edge().doors.submissions, pair.edge_hostname.as_str());
    let config: toml::Table = fs::read_to_string(&pair.edge().program.config).expect("readable").parse().expect("TOML");
    let file = |key: &str| PathBuf::from(config["tls"][key].as_str().expect("a path"));
    let (chain, key) = (file("certificate"), file("key"));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = authority::Authority::new(elsewhere.path()).expect("an authority");
    let renewed = other.issue(&[name]).expect("issued");
    let tls = authority::client_config(&other.certificate()).expect("a root");
    let old = pair.tls().expect("a root");
    // The chain without its key stays so: the old pair is served, and the reason is told once.
    fs::copy(&renewed.certificate, &chain).expect("copied");
    let edge = &pair.edge().program;
    let told = observe::until("the reason", || status(edge), |told| told["certificate_files"]["why"].is_string());
    let why = told["certificate_files"]["why"].as_str().unwrap_or_default();
    assert!(why.contains(&key.display().to_string()) && why.contains("does not belong to the certificate"), "{why}");
    Client::connect(door).and_then(|mut client| client.secure(&old, name)).expect("the old pair is served");
    fs::copy(&renewed.key, &key).expect("copied");
    observe::until_ok("the new pair", || Client::connect(door)?.secure(&tls, name));
    observe::until("it to be told", || status(edge)["certificate_files"]["why"].clone(), Value::is_null);
    let said = edge.said();
    assert_eq!(said.matches("have changed and can't be served").count(), 1, "{said}");
}

#[test]
fn a_certificate_that_has_ended_is_served_and_shouted_about_and_the_postmaster_gets_a_letter() {
    let folder = tempfile::tempdir().expect("a folder");
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let mut params = rcgen::CertificateParams::new(vec!["mail.example.org".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2024, 4, 1);
    let made = rcgen::KeyPair::generate().expect("a key");
    fs::write(&chain, params.self_signed(&made).expect("signed").pem()).expect("written");
    fs::write(&key, made.serialize_pem()).expect("written");
    let files = format!("tls={{ certificate = \"{}\", key = \"{}\" }}", chain.display(), key.display());
    let options = Options { certificates: Certificates::AsSet, ..Options::story() }.edge_set(&files);
    let pair = Pair::start(&options).expect("a pair");
    let shown = openssl::public_key(pair.edge().doors.submissions, &pair.edge_hostname, &chain, &[]).expect("shown");
    assert!(shown.contains("id-ecPublicKey"), "{shown}");
    observe::until_ok("the shout", || {
        let said = pair.edge().program.said();
        anyhow::ensure!(said.contains("the certificate that is served is not good now"), "{said}");
        Ok(())
    });
    let told = status(&pair.edge().program);
    assert_eq!(told["certificate_ends"]["at"], "2024-04-01T00:00:00Z", "{told:#}");
    // The postmaster of the pair is alice.
    observe::until_ok("the letter", || {
        let letters = message::files(&pair.maildir(super::ALICE));
        let found = letters.iter().any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.contains("The certificate of edge") && text.contains("it ends on 2024-04-01")
        });
        anyhow::ensure!(found, "{} letters", letters.len());
        Ok(())
    });
}

#[test]
fn who_can_keep_nothing_asks_no_ca() {
    let mut scene = Scene::prepared(Some(""), None);
    let pebble = scene.start(&Manner::default());
    // No folder can be made where a file is; root may write anywhere else.
    fs::create_dir_all(&scene.pair.edge().program.state).expect("made");
    fs::write(scene.pair.edge().program.state.join("acme"), "in the way").expect("written");
    scene.run();
    let edge = &scene.pair.edge().program;
    let told = observe::until("the reason", || status(edge), |told| told["acme"]["why"].is_string());
    assert!(told["acme"]["why"].as_str().is_some_and(|why| why.contains("/acme")), "{told:#}");
    assert_eq!(told["self_signed_certificate"], true, "{told:#}");
    assert_eq!((pebble.accounts(), pebble.issued()), (0, 0), "{}", pebble.said());
    fs::remove_file(edge.state.join("acme")).expect("removed");
    expect_vouched_for(scene.pair.edge().doors.submissions, scene.edge_name(), &pebble);
    assert_eq!((pebble.accounts(), pebble.issued()), (1, 1), "{}", pebble.said());
}

#[test]
fn a_ca_that_knows_its_customers_gets_to_know_us() {
    let key = "aGVsbG8gcGViYmxlLCB0aGlzIGlzIGEgbG9uZyBrZXk";
    let manner = Manner { external_account: Some(("kid-1", key)), ..Manner::default() };
    let (scene, pebble) =
        Scene::new(Some(&format!(", external_account = {{ id = \"kid-1\", secret = \"{key}\" }}")), None, &manner);
    let (mut scene, pebble) = (scene, pebble);
    let door = scene.pair.edge().doors.submissions;
    expect_vouched_for(door, scene.edge_name(), &pebble);
    // A crash after the CA has heard of us, before we have heard of that: the same key is the same account.
    scene.pair.edge_mut().program.kill();
    let file = the_kept(&scene.pair.edge().program);
    fs::remove_file(file.with_file_name("account.json")).expect("removed");
    fs::remove_file(&file).expect("removed");
    scene.pair.edge_mut().program.start().expect("it starts");
    observe::until_ok("it to be ordered again", || Ok(fs::metadata(&file).map(drop)?));
    assert_eq!(pebble.accounts(), 1, "{}", pebble.said());
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
