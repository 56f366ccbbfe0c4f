//! TLS at our doors, as those see it who make a trade of finding fault with it.

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Certificates, Options};
use gatepost_tests::peers::pebble::{Ca, Manner, Proofs};
use gatepost_tests::peers::sslyze::{postfix_looks_at, scan};
use gatepost_tests::world::ports;

#[test]
fn a_scanner_finds_nothing_against_mozillas_profile_and_postfix_is_content() {
    let ca = Ca::new().expect("a place for Pebble");
    let (http, https) = (ports::free(), ports::free());
    let options = Options { certificates: Certificates::AsSet, ..Options::story() }
        .edge_set(&format!("listen.http=\"{http}\""))
        .edge_set(&format!("listen.https=\"{https}\""))
        // A scanner connects some hundred times.
        .edge_set("limits.connections_per_minute_per_network=100000")
        .edge_set("limits.connections_per_minute=100000")
        .edge_set(&format!("acme={{ {}, rsa = true }}", ca.settings()))
        .home_set(&format!("acme={{ {} }}", ca.settings()));
    let mut pair = Pair::prepare(&options).expect("a pair");
    let proofs = Proofs { dns: pair.dns.address(), http: http.port(), tls: https.port() };
    let pebble = ca.start(proofs, &Manner::default()).expect("Pebble starts");
    pair.edge_mut().program.start().expect("the edge starts");
    pair.home.program.start().expect("the home starts");
    pair.wait_until_up();
    observe::until("all certificates", || pebble.issued(), |issued| *issued == 3);
    let (edge, home) = (pair.edge_hostname.as_str(), pair.home_hostname.as_str());
    let doors = pair.edge().doors;
    observe::until_ok("both to be served", || {
        for (server, name) in [(doors.submissions, edge), (pair.home.submissions, home)] {
            let tls = gatepost_tests::world::authority::client_config(pebble.root())?;
            gatepost_tests::client::Client::connect(server)?.secure(&tls, name)?;
        }
        Ok(())
    });
    for (server, name, starttls) in [
        (doors.smtp, edge, true),
        (doors.submissions, edge, false),
        (https, edge, false),
        (pair.home.submissions, home, false),
    ] {
        let scanned = scan(server, name, starttls, pebble.root()).expect("scanned");
        assert!(scanned.wrong.is_empty(), "{name} {server}: {:#?}", scanned.wrong);
        assert_eq!(scanned.versions, ["tls_1_2", "tls_1_3"], "{name} {server}");
    }
    let told = postfix_looks_at(doors.smtp, edge, pebble.root()).expect("looked at");
    assert!(told.contains("Verified TLS connection established") && told.contains("TLSv1.3"), "{told}");
    let told = postfix_looks_at(doors.smtp, "mail.elsewhere.example", pebble.root()).expect("looked at");
    assert!(!told.contains("Verified TLS connection"), "it would find fault: {told}");
}
