//! Signatures over header sections that strangers wrote, their SPF records, and what DNS lists say of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::arc::NextSet;
use gatepost_protocol::mail::canonical::Forms;
use gatepost_protocol::mail::dns_list::{self, DnsList};
use gatepost_protocol::mail::header::fields;
use gatepost_protocol::mail::signature::{Algorithm, Seal, SignedHeader, dkim};
use gatepost_protocol::mail::spf::{self, Mechanism, Record};
use gatepost_protocol::mail::verdict::Found;
use gatepost_protocol::network::Network;

const BY: Seal<'_> = Seal { domain: "example.org", selector: "s", algorithm: Algorithm::RsaSha256, unix_s: 1 };

/// Whatever a section holds, what is put in front of it is one field each, and the next set follows on it.
pub fn signature(data: &[u8]) {
    let header = SignedHeader::of_forwarded(data);
    let field = dkim(&header, &[0; 32], BY).signed(&[0xFF; 256]);
    assert_eq!(fields(field.as_bytes()).count(), 1);
    for found in [Found::None, Found::Pass, Found::Fail] {
        let Some(next) = NextSet::after(data, found) else { continue };
        let results = next.results("mail.example.org; none");
        let signature = next.signature(&header, &[0; 32], BY).signed(&[1; 256]);
        let seal = next.seal(&results, &signature, BY).signed(&[2; 256]);
        let set = [seal, signature, results].concat();
        assert_eq!(fields(set.as_bytes()).count(), 3);
        let sealed = [set.as_bytes(), data].concat();
        match found {
            // Nothing follows what was sealed as broken; else the next one does, up to the bound.
            Found::Fail => assert_eq!(NextSet::after(&sealed, found), None),
            _ => assert!(NextSet::after(&sealed, Found::Pass).is_none_or(|after| after != next)),
        }
    }
}

/// Any text is a record or none; the names its macros make are bounded, whatever they stand for.
pub fn spf(data: &[u8]) {
    let text = [b"v=spf1 ", data].concat();
    assert!(spf::is_record(&text));
    let Ok(record) = Record::parse(&text) else { return };
    let value = String::from_utf8_lossy(data).replace(' ', ".");
    let targets = record.directives.iter().filter_map(|directive| match &directive.mechanism {
        Mechanism::Include(target) | Mechanism::Exists(target) => Some(target),
        Mechanism::A(target, _) | Mechanism::Mx(target, _) | Mechanism::Ptr(target) => target.as_ref(),
        Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => None,
    });
    for target in targets.chain(&record.redirect) {
        let name = target.expand(|_| &value);
        assert!(name.len() <= 253 || !name.contains('.'), "{name}");
    }
}

/// Whatever a list answers, only a code of its own is a hit, and its words fit into a reply.
pub fn dns_list(data: &[u8]) {
    let Some(([mask, a, b, c, d, bits], rest)) = data.split_first_chunk() else { return };
    let code = Ipv4Addr::new(*a, *b, *c, *d);
    let codes = format!("127.0.0.0/{}", bits % 33).parse::<Network>().into_iter().collect();
    let zone = Domain::parse("list.example").expect("a domain");
    for (mask, codes) in [(None, Vec::new()), (Some(*mask), codes)] {
        let list = DnsList { zone: zone.clone(), name: "list".to_owned(), weight: 1, codes, mask };
        assert!(!list.is_hit(code) || code.is_loopback() && [*a, *b, *c] != [127, 255, 255]);
    }
    let text = String::from_utf8_lossy(rest).into_owned();
    if let Some(words) = dns_list::words(&[text.clone(), text]) {
        assert!(words.len() <= 200 && words.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
    }
    let address = match rest.first_chunk() {
        Some(octets) => Ipv6Addr::from(*octets).into(),
        None => code.into(),
    };
    assert!(Domain::parse(&dns_list::question(address, &zone)).is_ok());
    // A section is read for what it asks whatever it holds.
    let _ = Forms::asked(rest);
}
