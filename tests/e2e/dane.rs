//! Mail to domains that say in the signed DNS which certificates their hosts have: a world of zones signed by Knot, asked
//! through Unbound, hosts with and without the right certificate, and one zone that somebody changed.

use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::digest;
use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::dnssec::{Anchors, Proven, Shown, Unproven, Validator};
use gatepost_runtime::resolver::{ExchangersAnswer, Resolver};
use gatepost_tests::client::Client;
use gatepost_tests::fault::namespace;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::peers::knot::{Knot, Signed};
use gatepost_tests::peers::unbound::Unbound;
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::dns::Dns;
use gatepost_tests::world::{message, ports};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{ALICE, started};

/// Where the world's mail hosts are; what leaves for them has another address.
const HOST: &str = "93.184.215.14";
/// One whose certificate has expired.
const OLD_HOST: &str = "93.184.215.15";
const ADDRESSES: &str = "ip link set lo up && ip address add 93.184.215.14/32 dev lo && \
     ip address add 93.184.215.15/32 dev lo && ip address add 93.184.215.16/32 dev lo && \
     ip route replace local 93.184.215.14 dev lo table local src 93.184.215.16 && \
     ip route replace local 93.184.215.15 dev lo table local src 93.184.215.16";

/// The digest of a public key that nobody has.
const NOBODY: &str = "00000000000000000000000000000000000000000000000000000000000000ff";
const CHANGED: &str = "00000000000000000000000000000000000000000000000000000000000000fe";

/// What is below the root.
const ZONES: [&str; 3] = ["signed", "unsigned", "bogus"];

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
}

/// SHA-256 of the public key of the first certificate of a file.
fn key_digest(certificate: &Path) -> String {
    let der = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let parsed = ParsedCertificate::try_from(&der).expect("a certificate");
    hex(digest::digest(&digest::SHA256, &parsed.subject_public_key_info()).as_ref())
}

/// A domain, its host, and the host's TLSA record.
fn domain(name: &str, address: &str, tlsa: &str) -> String {
    let tlsa = if tlsa.is_empty() { String::new() } else { format!("_25._tcp.mx.{name}. 60 IN TLSA {tlsa}\n") };
    format!("{name}. 60 IN MX 10 mx.{name}.\nmx.{name}. 60 IN A {address}\n{tlsa}")
}

/// Zones below the root: one that is signed, one that is not, one whose signatures are of other records.
fn zones(of_signed: &str) -> Knot {
    let plain = domain("plain.unsigned", HOST, &format!("3 1 1 {NOBODY}"));
    let bogus = domain("changed.bogus", HOST, &format!("3 1 1 {NOBODY}"));
    let root = "mail.example.org. 60 IN A 93.184.215.16\n";
    let zones = [
        ("signed", Signed::Well, of_signed),
        ("unsigned", Signed::Not, &plain),
        ("bogus", Signed::ThenChanged(NOBODY, CHANGED), &bogus),
    ];
    Knot::start(root, &zones).expect("Knot")
}

fn validator(server: SocketAddr, knot: &Knot) -> Validator {
    let anchors = Anchors::with_file(&knot.anchors().expect("a key")).expect("a key");
    Validator::new(Resolver::new(&[server]), anchors, Clock::real())
}

#[test]
fn what_is_signed_is_told_from_what_is_not_and_from_what_was_changed() {
    let knot = zones(&domain("right.signed", HOST, &format!("3 1 1 {NOBODY}")));
    let unbound = Unbound::validating(knot.address, &ZONES, &knot.anchors().expect("a key")).expect("Unbound");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // By a resolver that validates as well, and by one that leaves it to us.
        for server in [unbound.address, knot.address] {
            let validator = validator(server, &knot);
            assert!(validator.is_usable().await, "{server}: {:?}", validator.shown());
            let exchangers = async |name| validator.exchangers(&Domain::parse(name).expect("a domain")).await;
            assert!(exchangers("right.signed").await.expect("proven").is_secure(), "{server}");
            let host = "mx.right.signed";
            assert!(validator.addresses(host, true).await.expect("proven").is_secure());
            assert_eq!(validator.tlsa(host, 25).await.expect("proven").len(), 1);
            assert_eq!(validator.tlsa(host, 26).await.expect("proven"), [], "it is proven that there is none");
            assert_eq!(exchangers("absent.signed").await, Ok(Proven::Insecure(ExchangersAnswer::NoSuchDomain)));
            let plain = exchangers("plain.unsigned").await.expect("proven to be unsigned");
            assert!(!plain.is_secure(), "{server}: {plain:?}");
            assert!(!validator.addresses("mx.plain.unsigned", false).await.expect("proven").is_secure());
            assert_eq!(validator.tlsa("mx.plain.unsigned", 25).await.expect("proven"), [], "unsigned ones are none");
            let changed = validator.tlsa("mx.changed.bogus", 25).await.expect_err("never told as absent");
            assert!(server == unbound.address || matches!(changed, Unproven::Bogus { .. }), "{changed:?}");
            assert_eq!(validator.shown(), Shown::Works);
        }
    });
}

#[test]
fn a_resolver_that_passes_no_signatures_on_is_found_out() {
    let knot = zones(&domain("right.signed", HOST, ""));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bare = Dns::start(ports::free(), &domain("right.signed", HOST, "")).await.expect("a name server");
        let validator = validator(bare.address(), &knot);
        assert!(!validator.is_usable().await);
        assert!(matches!(validator.shown(), Shown::Missing(_)), "{:?}", validator.shown());
    });
}

#[test]
fn mail_goes_where_dane_says_and_waits_where_it_forbids() {
    namespace::run_inside("dane::inside_a_world_of_signed_zones", ADDRESSES);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_world_of_signed_zones() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path()).expect("a CA");
    let issued = authority.issue(&["mx.ca.signed"]).expect("a certificate");
    let expired = authority.issue_until(&["elsewhere.example"], 2025).expect("a certificate");
    let right = format!("3 1 1 {}", key_digest(&issued.certificate));
    let ca = CertificateDer::from_pem_file(authority.certificate()).expect("a certificate");
    let of_signed = [
        domain("right.signed", HOST, &right),
        domain("wrong.signed", HOST, &format!("3 1 1 {NOBODY}")),
        domain("useless.signed", HOST, &format!("1 1 1 {NOBODY}")),
        domain("none.signed", HOST, ""),
        domain("ca.signed", HOST, &format!("2 0 0 {}", hex(&ca))),
        domain("misnamed.signed", HOST, &format!("2 0 0 {}", hex(&ca))),
        domain("old.signed", OLD_HOST, &format!("3 1 1 {}", key_digest(&expired.certificate))),
        // The alias has no records; the host it leads to does.
        "alias.signed. 60 IN MX 10 mx.alias.signed.\nmx.alias.signed. 60 IN CNAME mx.right.signed.\n".to_owned(),
    ];
    let knot = zones(&of_signed.concat());
    let anchors = knot.anchors().expect("a key");
    let unbound = Unbound::validating(knot.address, &ZONES, &anchors).expect("Unbound");
    let mut options = Options::story()
        .home_set("queue.retry=[\"1 s\"]")
        .edge_set(&format!("dns.servers=[\"{}\"]", unbound.address))
        .edge_set(&format!("dns.trust_anchors=\"{}\"", anchors.display()));
    options.outbound = Outbound::ByMx;
    let pair = started(&options);
    let at = |address: &str| SocketAddr::new(address.parse().expect("an address"), 25);
    let sink = pair.sink_with("mx", at(HOST), &issued).expect("a sink");
    let old = pair.sink_with("old", at(OLD_HOST), &expired).expect("a sink");

    let to = [
        ("right.signed", Ok("verified by DANE")),
        ("alias.signed", Ok("verified by DANE")),
        ("ca.signed", Ok("verified by DANE")),
        ("old.signed", Ok("verified by DANE")),
        ("none.signed", Ok(", unverified")),
        ("useless.signed", Ok(", unverified")),
        ("plain.unsigned", Ok(", unverified")),
        ("wrong.signed", Err("TLS could not be had")),
        ("misnamed.signed", Err("TLS could not be had")),
        ("changed.bogus", Err("DNS")),
    ];
    for (number, (domain, _)) in (1..).zip(&to) {
        submit(&pair, number, &format!("friend@{domain}"));
    }
    for (domain, expected) in to {
        let (what, words) = match expected {
            Ok(words) => ("=> sent", words),
            Err(words) => ("could not yet hand it over", words),
        };
        let story = told(&pair, domain, what);
        assert!(story.contains(words), "{domain}: {words} is missing in\n{story}");
        assert_eq!(expected.is_ok(), story.contains("=> sent"), "{story}");
    }
    let taken = sink.envelopes().expect("readable");
    let recipients: Vec<_> = taken.iter().flat_map(|envelope| envelope.recipients.clone()).collect();
    for never in ["wrong", "misnamed", "changed"] {
        assert!(!recipients.iter().any(|to| to.contains(never)), "{recipients:?}");
    }
    assert_eq!(old.envelopes().expect("readable").len(), 1);
}

/// The story of the message to this domain, once it holds this word.
fn told(pair: &Pair, domain: &str, word: &str) -> String {
    observe::until(
        &format!("mail to {domain} to be {word}"),
        || pair.home.program.ask(&["trace", &format!("friend@{domain}")]).expect("trace answers"),
        |story| story.contains(word),
    )
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
