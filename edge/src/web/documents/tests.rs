use std::collections::HashMap;

use gatepost_protocol::mail::access::AccessList;
use gatepost_protocol::mail::address_set::AddressSet;
use gatepost_protocol::mail::mta_sts::{Mode, StsPolicy};
use gatepost_protocol::mail::policy::Policies;
use gatepost_protocol::mail::services::{Service, Services};

use super::*;

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("valid")
}

fn directory(whole: bool) -> Directory {
    let service = |host: &str, port| Service { host: domain(host), port };
    Directory {
        version: 1,
        domains: HashMap::new(),
        addresses: AddressSet::default(),
        subaddress_separator: None,
        verifiers: HashMap::new(),
        seal_key: Vec::new(),
        message_octets_max: 1,
        patterns: Vec::new(),
        tight: HashMap::new(),
        srs: None,
        access: AccessList::default(),
        policies: Policies::default(),
        hosts: Vec::new(),
        mta_sts: StsPolicy::new(Mode::Testing, 86_400, vec![domain("mail.example.org")]),
        services: Services {
            imaps: whole.then(|| service("home.example.org", 993)),
            submissions: vec![service("mail.example.org", 465)],
        },
    }
}

/// The status, after the domain and directory were found as an edge of example.org finds them.
fn status(what: &str, whole: bool) -> Option<u16> {
    let mut words = what.split(' ');
    let (verb, url) = (words.next().expect("a verb"), words.next().expect("a URL"));
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let (host, target) = rest.split_at(rest.find('/').expect("a path"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = "<a><EMailAddress>alice@example.org</EMailAddress></a>";
    let asked = Asked {
        post: verb == "POST",
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: words.next().unwrap_or(body).to_owned().into(),
        secure: scheme == "https",
    };
    let (domain, site) = sites(host).find(|(domain, _)| domain.as_str() == "example.org")?;
    answer(&asked, &domain, site, &directory(whole)).map(|page| page.status)
}

#[test]
fn each_document_is_where_its_readers_look_and_nowhere_else() {
    for (what, expected) in [
        ("GET https://mta-sts.example.org/.well-known/mta-sts.txt", Some(200)),
        ("POST https://mta-sts.example.org/.well-known/mta-sts.txt", Some(405)),
        ("GET http://mta-sts.example.org/.well-known/mta-sts.txt", None),
        ("GET https://mta-sts.example.org/.well-known/../.well-known/mta-sts.txt", None),
        ("GET https://example.org/.well-known/mta-sts.txt", None),
        ("GET https://mta-sts.example.com/.well-known/mta-sts.txt", None),
        ("GET https://autoconfig.example.org/mail/config-v1.1.xml", Some(200)),
        ("GET http://autoconfig.example.org/mail/config-v1.1.xml?emailaddress=%zz", Some(200)),
        ("POST http://autoconfig.example.org/mail/config-v1.1.xml", Some(405)),
        ("GET https://example.org/.well-known/autoconfig/mail/config-v1.1.xml", Some(200)),
        ("GET https://example.org/mail/config-v1.1.xml", None),
        ("POST https://autodiscover.example.org/Autodiscover/Autodiscover.xml", Some(200)),
        ("POST https://example.org/AUTODISCOVER/autodiscover.XML", Some(200)),
        ("GET https://autodiscover.example.org/autodiscover/autodiscover.xml", Some(405)),
        ("GET http://autodiscover.example.org/autodiscover/autodiscover.xml", Some(302)),
        ("POST https://autodiscover.example.org/autodiscover/autodiscover.xml <bad", Some(400)),
        (
            "POST https://autodiscover.example.org/autodiscover/autodiscover.xml <EMailAddress>a@b.example</EMailAddress>",
            Some(404),
        ),
        ("GET https://autoconfig.example.org/mail/apple.mobileconfig?address=alice%40example.org", Some(200)),
        ("GET http://autoconfig.example.org/mail/apple.mobileconfig?address=alice%40example.org", Some(302)),
        ("GET https://autoconfig.example.org/mail/apple.mobileconfig", Some(400)),
        ("GET https://autoconfig.example.org/mail/apple.mobileconfig?address=alice@example.com", Some(404)),
        ("GET https://autoconfig.example.org/", None),
    ] {
        assert_eq!(status(what, true), expected, "{what}");
    }
}

#[test]
fn mail_programs_are_told_nothing_while_there_is_nothing_to_read_mail_by() {
    for what in [
        "GET https://autoconfig.example.org/mail/config-v1.1.xml",
        "POST https://autodiscover.example.org/autodiscover/autodiscover.xml",
        "GET http://autodiscover.example.org/autodiscover/autodiscover.xml",
        "GET https://autoconfig.example.org/mail/apple.mobileconfig?address=alice%40example.org",
    ] {
        assert_eq!(status(what, false), None, "{what}");
    }
    assert_eq!(status("GET https://mta-sts.example.org/.well-known/mta-sts.txt", false), Some(200));
}

#[test]
fn a_host_may_be_of_two_domains_and_an_address_is_of_none() {
    let of = |host| sites(host).map(|(domain, site)| (domain.to_string(), site)).collect::<Vec<_>>();
    assert_eq!(
        of("mta-sts.example.org"),
        [("example.org".to_owned(), Site::MtaSts), ("mta-sts.example.org".to_owned(), Site::Itself)]
    );
    assert_eq!(of("example.org"), [("example.org".to_owned(), Site::Itself)]);
    for none in ["", "[::1]", "a..b", "mta-sts.", "-"] {
        assert!(of(none).iter().all(|(_, site)| *site == Site::Itself), "{none}");
        assert!(!of(none).iter().any(|(domain, _)| domain.contains(':')), "{none}");
    }
}
