//! The records that `dns` prints are those the domain needs: a name server of others reads them, and others judge our mail
//! by them.

use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::{checkdmarc, dkimpy, nsd::Nsd};
use gatepost_tests::world::ports;

use serde_json::json;

use super::{ALICE, pair, started};

#[test]
fn the_zone_it_prints_is_served_by_a_name_server_of_others_and_proves_our_mail() {
    let pair = pair();
    wait_for_services(&pair);
    let imaps =
        format!("_imaps._tcp.example.org.\t3600\tIN\tSRV\t0 1 {} home.example.org.", pair.edge().doors.imaps.port());
    let zone = pair.home.program.ask(&["dns", "example.org", "--zone"]).expect("told");
    let nsd = Nsd::start("example.org", &zone).expect("served");
    for line in [
        "example.org.\t3600\tIN\tMX\t10 mail.example.org.",
        "mail.example.org.\t3600\tIN\tA\t127.0.0.1",
        "example.org.\t3600\tIN\tTXT\t\"v=spf1 ip4:127.0.0.1 ~all\"",
        "_submissions._tcp.example.org.\t3600\tIN\tSRV\t0 1 465 mail.example.org.",
        imaps.as_str(),
        "autoconfig.example.org.\t3600\tIN\tCNAME\tmail.example.org.",
    ] {
        assert!(zone.lines().any(|found| found == line), "{line}\n{zone}");
    }
    assert!(zone.contains("; 127.0.0.1 is no address the world can reach"), "{zone}");
    let mut client = gatepost_tests::client::Client::greeted_tls(
        pair.home.submissions,
        &pair.tls().expect("a client"),
        &pair.home_hostname,
    )
    .expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    let text = format!("From: <{ALICE}>\r\nSubject: x\r\n\r\nhello\r\n");
    client.deliver(ALICE, &["friend@elsewhere.example"], text.as_bytes()).expect("accepted");
    let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| !kept.is_empty());
    let judged = dkimpy::judge(&pair.sink.message(&kept[0]).expect("kept"), nsd.address).expect("judged");
    assert!(judged.dkim.len() == 2 && judged.dkim.iter().all(|one| one.good), "{judged:?}");
}

/// Waits until the home has heard from its edge where mail programs are taken: records follow from that.
fn wait_for_services(pair: &Pair) {
    observe::until_ok("the edge's doors to be known", || {
        let zone = pair.home.program.ask(&["dns", "example.org", "--zone"])?;
        anyhow::ensure!(zone.contains("autoconfig.example.org.\t"), "{zone}");
        Ok(())
    });
}

#[test]
fn a_checker_of_others_finds_nothing_wrong_with_the_zones() {
    let pair = pair();
    wait_for_services(&pair);
    let told = pair.home.program.ask_json(&["dns", "example.org", "--json"]).expect("told");
    let asked = told["records"].as_array().expect("records").iter().find(|record| record["state"] == "ask-provider");
    let text = |field| asked.and_then(|record| record[field].as_str()).expect("a record for the provider");
    let reverse = format!("{}. 60 IN PTR {}\n", text("name"), text("value"));
    let watches = json!(["A p tag value of none makes DMARC unenforced on email sent as example.org."]);
    let silent = json!(["rua tag (destination for aggregate reports) not found."]);
    for (domain, more, all, policy, warnings) in [
        ("example.org", &[][..], "softfail", "none", watches),
        ("example.org", &["--tested"], "fail", "reject", json!([])),
        ("quiet.example", &["--parked"], "fail", "reject", silent),
    ] {
        let zone = pair.home.program.ask(&[&["dns", domain, "--zone"], more].concat()).expect("told");
        let zones = [(domain, zone.as_str()), ("127.in-addr.arpa", reverse.as_str())];
        let nsd = Nsd::start_at(ports::free(), &zones).expect("served");
        let parked = more == ["--parked"];
        let found = checkdmarc::check(domain, parked, nsd.address).expect("checked");
        assert_eq!((&found["spf"]["valid"], &found["spf"]["warnings"]), (&json!(true), &json!([])), "{found:#}");
        assert_eq!((&found["dmarc"]["valid"], &found["dmarc"]["warnings"]), (&json!(true), &warnings), "{found:#}");
        assert_eq!(found["spf"]["parsed"]["all"], all, "{found:#}");
        assert_eq!(found["dmarc"]["tags"]["p"]["value"], policy, "{found:#}");
        let host = &found["mx"]["hosts"][0];
        if parked {
            assert!(found["mx"]["warnings"][0].as_str().is_some_and(|said| said.contains("null MX")), "{found:#}");
        } else {
            assert_eq!(found["mx"]["warnings"], json!([]), "{found:#}");
            assert_eq!((&host["hostname"], &host["addresses"]), (&json!("mail.example.org"), &json!(["127.0.0.1"])));
        }
    }
}

#[test]
fn each_form_tells_the_same_and_what_is_not_known_is_said_to_be_so() {
    let mut pair = started(&Options { domains: vec!["example.org".into(), "example.net".into()], ..Options::story() });
    wait_for_services(&pair);
    let dns = |words: &[&str]| pair.home.program.ask(&[&["dns"], words].concat());
    let told = pair.home.program.ask_json(&["dns", "--json"]).expect("told");
    let records = told["records"].as_array().expect("records");
    let (table, zone) = (dns(&[]).expect("told"), dns(&["--zone"]).expect("told"));
    for record in records.iter().filter(|record| record["state"] == "publish") {
        let (name, value) = (record["name"].as_str().expect("a name"), record["value"].as_str().expect("a value"));
        let row = table.lines().any(|line| line.trim_start().starts_with(name) && line.ends_with(value));
        assert!(row && zone.contains(&format!("\n{name}.\t")), "{record}\n{table}\n{zone}");
    }
    assert!(records.iter().any(|record| record["domain"] == "example.net" && record["type"] == "MX"));
    assert!(
        records.iter().any(|record| record["state"] == "ask-provider" && record["name"] == "1.0.0.127.in-addr.arpa")
    );
    assert!(
        records.iter().any(|record| record["state"] == "later" && record["type"] == "CAA" && record["value"].is_null())
    );
    let strange = dns(&["other.example"]).expect_err("not ours").to_string();
    assert!(strange.contains("--parked"), "{strange}");
    let parked = dns(&["quiet.example", "--parked", "--zone"]).expect("told");
    Nsd::start("quiet.example", &parked).expect("served");
    for part in ["MX\t0 .", "\"v=spf1 -all\"", "p=reject"] {
        assert!(parked.contains(part), "{parked}");
    }

    // Nothing runs: keys are known, addresses are not, and none is made up.
    pair.home.program.kill();
    let alone = pair.home.program.ask(&["dns", "example.org", "--zone"]).expect("told");
    assert!(alone.contains("p=MII") && alone.contains("; not known yet: example.org. MX"), "{alone}");
    assert!(!alone.contains("127.0.0.1"), "{alone}");
    Nsd::start("example.org", &alone).expect("served");
}
