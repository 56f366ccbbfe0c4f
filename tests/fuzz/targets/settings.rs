//! What mail programs ask of the edge's web, and what they are answered.

use gatepost_protocol::autoconfig::{address_of_query, apple, outlook};
use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::services::{Service, Services};

/// A request of Outlook's, and the query of everybody else.
pub fn autoconfig(data: &[u8]) {
    if let Some(address) = outlook::asked(data) {
        told(&address);
    }
    if let Some(address) = address_of_query(&String::from_utf8_lossy(data), &apple::PARAMETERS) {
        told(&address);
    }
}

/// Whoever is asked about: a document has the markup it always has.
fn told(address: &Address) {
    let service = |host, port| Service { host: Domain::parse(host).expect("valid"), port };
    let services =
        Services { imaps: Some(service("home.example.org", 993)), submissions: vec![service("mail.example.org", 465)] };
    let plain = Address::parse("a@example.org").expect("valid");
    for document in [outlook::document, apple::document] {
        let markup = |address| {
            let text = String::from_utf8(document(address, &services).expect("there is one")).expect("UTF-8");
            assert!(!text.contains('\0'));
            (text.matches('<').count(), text.matches('>').count())
        };
        assert_eq!(markup(address), markup(&plain), "{address}");
    }
}
