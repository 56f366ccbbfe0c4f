use gatepost_protocol::mail::mta_sts::Mode;
use gatepost_protocol::mail::services::Service;

use super::*;

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("valid")
}

fn edge(name: &str, host: Option<&str>, addresses: &[&str]) -> EdgeFacts {
    EdgeFacts {
        name: name.to_owned(),
        host: host.map(domain),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        submissions: host.map(|_| true),
        issuance: None,
        pins: Vec::new(),
        elsewhere: Vec::new(),
    }
}

fn key(name: &str, text: &str) -> KeyFacts {
    KeyFacts { domain: domain("example.org"), name: name.to_owned(), text: text.to_owned(), phase: KeyPhase::Signs }
}

fn policy() -> StsPolicy {
    let hosts = ["mail.example.org", "mx2.example.net"].map(domain);
    StsPolicy::new(Mode::Testing, 86_400, hosts.to_vec()).expect("good")
}

fn facts() -> Facts {
    Facts {
        edges: vec![
            edge("vps1", Some("mail.example.org"), &["203.0.113.1", "2001:db8::1"]),
            edge("vps2", Some("mx2.example.net"), &["198.51.100.2"]),
        ],
        mta_sts: Some(policy()),
        keys: vec![key("s1._domainkey.example.org", &format!("v=DKIM1; k=rsa; p={}", "A".repeat(392)))],
        ..Facts::default()
    }
}

fn published(records: &[Record]) -> Vec<String> {
    let publish = records.iter().filter(|record| record.state == State::Publish);
    publish
        .map(|record| format!("{} {} {}", record.name, record.kind, record.value.as_deref().unwrap_or("?")))
        .collect()
}

#[test]
fn a_domain_with_two_edges_gets_all_it_needs() {
    let told = published(&of_domain(&facts(), &domain("example.org")));
    let dkim = format!("s1._domainkey.example.org TXT v=DKIM1; k=rsa; p={}", "A".repeat(392));
    let expected = [
        "example.org MX 10 mail.example.org.",
        "example.org MX 20 mx2.example.net.",
        "mail.example.org A 203.0.113.1",
        "mail.example.org AAAA 2001:db8::1",
        "mail.example.org TXT v=spf1 a -all",
        "example.org TXT v=spf1 ip4:198.51.100.2 ip4:203.0.113.1 ip6:2001:db8::1 ~all",
        &dkim,
        "_dmarc.example.org TXT v=DMARC1; p=none; rua=mailto:postmaster@example.org",
        "_smtp._tls.example.org TXT v=TLSRPTv1; rua=mailto:postmaster@example.org",
        "_submissions._tcp.example.org SRV 0 1 465 mail.example.org.",
        "_submissions._tcp.example.org SRV 1 1 465 mx2.example.net.",
        "_imaps._tcp.example.org SRV 0 0 0 .",
        "_imap._tcp.example.org SRV 0 0 0 .",
        "_pop3s._tcp.example.org SRV 0 0 0 .",
        "_pop3._tcp.example.org SRV 0 0 0 .",
        "_submission._tcp.example.org SRV 0 0 0 .",
        &format!("_mta-sts.example.org TXT {}", policy().record()),
        "mta-sts.example.org A 198.51.100.2",
        "mta-sts.example.org A 203.0.113.1",
        "mta-sts.example.org AAAA 2001:db8::1",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_host_stands_in_its_own_zone_and_keys_in_theirs() {
    let told = published(&of_domain(&facts(), &domain("example.net")));
    assert!(told.contains(&"mx2.example.net A 198.51.100.2".to_owned()), "{told:?}");
    assert!(!told.iter().any(|record| record.starts_with("mail.example.org") || record.contains("DKIM1")), "{told:?}");
    let other = published(&of_domain(&facts(), &domain("ample.org")));
    assert!(!other.iter().any(|record| record.starts_with("mail.")), "{other:?}");
}

#[test]
fn once_tested_others_may_refuse_what_fails() {
    let told = published(&of_domain(&Facts { tested: true, ..facts() }, &domain("example.org")));
    assert!(told.iter().any(|record| record.starts_with("example.org TXT v=spf1") && record.ends_with(" -all")));
    assert!(told.iter().any(|record| record.contains("v=DMARC1; p=reject;")), "{told:?}");
}

#[test]
fn what_is_not_known_is_in_no_record() {
    let mut facts = facts();
    facts.edges[1] = edge("vps2", None, &[]);
    let records = of_domain(&facts, &domain("example.org"));
    let told = published(&records);
    assert!(told.contains(&"example.org MX 10 mail.example.org.".to_owned()));
    assert!(!told.iter().any(|record| record.contains("v=spf1 ip")), "half a list would refuse our own mail: {told:?}");
    let unknown: Vec<_> = records.iter().filter(|record| record.state == State::NotKnown).collect();
    assert_eq!(unknown.iter().map(|record| record.kind.as_str()).collect::<Vec<_>>(), ["MX", "TXT (SPF)", "A"]);
    assert!(
        unknown
            .iter()
            .all(|record| record.value.is_none() && record.note.as_deref().is_some_and(|n| n.contains("vps2")))
    );
    let alone = of_domain(&Facts::default(), &domain("example.org"));
    assert!(published(&alone).iter().any(|record| record == "_submissions._tcp.example.org SRV 0 0 0 ."));
}

#[test]
fn edges_of_one_name_are_one_host() {
    let twice = Facts {
        edges: vec![
            edge("a", Some("mail.example.org"), &["203.0.113.1"]),
            edge("b", Some("mail.example.org"), &["203.0.113.1", "203.0.113.2"]),
        ],
        ..Facts::default()
    };
    let told = published(&of_domain(&twice, &domain("example.org")));
    assert_eq!(told.iter().filter(|record| record.contains(" MX ")).count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|record| record.contains(" A ")).count(), 2, "{told:?}");
}

#[test]
fn an_address_nobody_can_reach_is_said_to_be_so_and_ptr_is_the_providers() {
    let lan = Facts { edges: vec![edge("lab", Some("mail.example.org"), &["10.0.0.5"])], ..Facts::default() };
    let records = of_domain(&lan, &domain("example.org"));
    let address = records.iter().find(|record| record.kind == "A").expect("an address");
    assert!(address.note.as_deref().is_some_and(|note| note.contains("no address the world can reach")));
    let records = of_domain(&facts(), &domain("example.org"));
    let names: Vec<_> =
        records.iter().filter(|record| record.state == State::AskProvider).map(|r| r.name.as_str()).collect();
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(names, ["1.113.0.203.in-addr.arpa", v6]);
}

#[test]
fn long_texts_are_split_and_odd_letters_written_out() {
    let text = "a".repeat(256);
    assert_eq!(written::strings(&text), format!("\"{}\" \"a\"", "a".repeat(255)));
    assert_eq!(written::strings("a\"b\\c\u{e9}\n"), "\"a\\\"b\\\\c\\195\\169\\010\"");
    assert_eq!(written::strings(""), "\"\"");
}

#[test]
fn every_line_of_the_zone_is_a_record_or_a_comment() {
    for records in [
        of_domain(&facts(), &domain("example.org")),
        of_domain(&Facts::default(), &domain("x.example")),
        of_parked(&domain("quiet.example")),
    ] {
        let zone = written::zone(&records);
        let mut count = 0;
        for line in zone.lines().filter(|line| !line.is_empty() && !line.starts_with("; ")) {
            let parts: Vec<&str> = line.splitn(5, '\t').collect();
            assert!(parts.len() == 5 && parts[0].ends_with('.') && parts[2] == "IN", "{line}");
            count += 1;
        }
        assert_eq!(count, published(&records).len(), "{zone}");
        assert!(written::table(&records).lines().count() > count);
    }
}

#[test]
fn only_our_own_accounts_may_get_certificates_for_our_hosts() {
    let issuance = |number: u8| Issuance {
        directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
        account: Some(format!("https://acme-v02.api.letsencrypt.org/acme/acct/{number}")),
        proof: Some("http-01".to_owned()),
    };
    let mut facts = facts();
    facts.edges[0].issuance = Some(issuance(1));
    facts.home = HomeFacts { host: Some(domain("home.example.org")), issuance: Some(issuance(2)) };
    let told = published(&of_domain(&facts, &domain("example.org")));
    for expected in [
        "mail.example.org CAA 0 issue \"letsencrypt.org; \
         accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/1; validationmethods=http-01\"",
        "home.example.org A 203.0.113.1",
        "home.example.org A 198.51.100.2",
        "home.example.org AAAA 2001:db8::1",
        "home.example.org CAA 0 issue \"letsencrypt.org; \
         accounturi=https://acme-v02.api.letsencrypt.org/acme/acct/2; validationmethods=http-01\"",
    ] {
        assert!(told.iter().any(|record| record == expected), "{expected}\n{told:#?}");
    }
    assert!(!told.iter().any(|record| record.starts_with("example.org CAA")), "the web site is left alone: {told:#?}");
    // Not yet known, or by no name: said so, and in no record.
    facts.edges[0].issuance = Some(Issuance { account: None, ..issuance(1) });
    facts.home.issuance = Some(Issuance { directory: "https://ca.lan/acme".to_owned(), ..issuance(2) });
    let records = of_domain(&facts, &domain("example.org"));
    let unknown: Vec<_> = records.iter().filter(|record| record.kind == "CAA").collect();
    assert!(unknown.iter().all(|record| record.state == State::NotKnown && record.value.is_none()), "{unknown:#?}");
    assert_eq!(unknown.len(), 2);
}

#[test]
fn what_is_served_to_the_world_has_its_names() {
    let service = |host: &str, port| Service { host: domain(host), port };
    let mut facts = facts();
    let told = published(&of_domain(&facts, &domain("example.org")));
    assert!(!told.iter().any(|record| record.starts_with("auto")), "nothing is told to mail programs: {told:#?}");
    facts.services =
        Services { imaps: Some(service("home.example.org", 993)), submissions: vec![service("mail.example.org", 465)] };
    facts.edges.truncate(1);
    facts.edges[0].elsewhere.push("autodiscover.example.org".to_owned());
    let records = of_domain(&facts, &domain("example.org"));
    let noted = records.iter().filter(|record| record.note.as_deref().is_some_and(|note| note.contains("to vps1 yet")));
    assert_eq!(noted.map(|record| record.name.as_str()).collect::<Vec<_>>(), ["autodiscover.example.org"]);
    let told = published(&of_domain(&facts, &domain("example.org")));
    for expected in [
        "mta-sts.example.org CNAME mail.example.org.",
        "autoconfig.example.org CNAME mail.example.org.",
        "autodiscover.example.org CNAME mail.example.org.",
        "_imaps._tcp.example.org SRV 0 1 993 home.example.org.",
    ] {
        assert!(told.iter().any(|record| record == expected), "{expected}\n{told:#?}");
    }
}

#[test]
fn keys_of_an_edge_are_pinned_at_its_name_and_nonsense_pins_nothing() {
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let told = serde_json::json!([
        { "record": format!("3 1 1 {old}"), "phase": "in-use", "kept": true },
        { "record": format!("3 1 1 {new}"), "phase": "next", "kept": true },
        { "record": format!("2 0 1 {new}"), "phase": "in-use", "kept": true },
        { "record": "3 1 1 abc\nx TXT y", "phase": "in-use", "kept": true },
        7,
    ]);
    let mut facts = facts();
    facts.edges[0].pins = Pin::of_status(&told);
    let records = of_domain(&facts, &domain("example.org"));
    let pins: Vec<_> = records.iter().filter(|record| record.kind == "TLSA").collect();
    let values: Vec<_> = pins.iter().filter_map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [format!("3 1 1 {old}"), format!("3 1 1 {new}")]);
    assert!(pins.iter().all(|record| record.name == "_25._tcp.mail.example.org"), "{pins:?}");
    assert!(pins[1].note.as_deref().is_some_and(|note| note.contains("waits for this record")));
    assert!(Pin::of_status(&serde_json::Value::Null).is_empty());
}
