//! Messages and name servers that mean harm: what each costs is bounded, and what comes of it is clear.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_tests::bench::usage;
use gatepost_tests::client::Client;
use gatepost_tests::fault::lying_dns::{Lie, LyingDns};
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use hickory_proto::op::ResponseCode;

use super::{ALICE, fields, started, values};

/// CPU time one message may cost both programs of a debug build, the slowest there is.
const CPU_MAX: Duration = Duration::from_secs(4);
/// What the edge may grow by, in KiB: some header sections of their largest size, and what they are read into.
const GROWTH_KIB_MAX: u64 = 48 * 1024;
/// Questions one message may cost: two checks of SPF at the RFC's limits, and all else.
const QUESTIONS_MAX: usize = 400;
/// A body, and its digest by relaxed canonicalisation.
const BODY: &str = "x\r\n";
const BODY_DIGEST: &str = "s14J+iztnrytnRYzb7lhFG/jS/vrxWJnnahfijFMnco=";

/// What came of a message.
struct Outcome {
    reply: String,
    /// Authentication-Results of what was stored, if it was.
    results: String,
    /// Questions it cost.
    asked: Vec<String>,
}

/// A pair that asks a name server of the test's own.
struct World {
    pair: Pair,
    dns: LyingDns,
}

impl World {
    fn new() -> Self {
        // What is to be seen is what SPF and the others find, not whether domains exist.
        let pair = started(&Options::story().home_set("policy.unknown_sender=accept"));
        let dns = LyingDns::start().expect("a name server");
        // Mail of good.test is good, and says so.
        dns.text("good.test", "v=spf1 ip4:127.0.0.1 -all");
        dns.text("_dmarc.good.test", "v=DMARC1; p=reject");
        dns.host("good.test", Ipv4Addr::LOCALHOST.into());
        // Of watched.test nothing is asked, whatever was found.
        dns.text("_dmarc.watched.test", "v=DMARC1; p=none");
        pair.ask_dns_at(dns.address());
        Self { pair, dns }
    }

    /// Sends a message, which must cost no more than any may.
    fn send(&self, helo: &str, sender: &str, message: &[u8]) -> Outcome {
        let edge = self.pair.edge().program.pid().expect("it runs");
        let programs = [edge, self.pair.home.program.pid().expect("it runs")];
        let before = (usage::cpu(&programs).expect("CPU"), usage::memory(edge).expect("memory"));
        self.dns.asked();
        let outcome = self.deliver(helo, sender, message);
        let cpu = usage::cpu(&programs).expect("CPU").saturating_sub(before.0);
        assert!(cpu < CPU_MAX, "{cpu:?} of CPU");
        let memory = usage::memory(edge).expect("memory").now_kib;
        assert!(memory < before.1.now_kib + GROWTH_KIB_MAX, "{} KiB, then {memory} KiB", before.1.now_kib);
        assert!(outcome.asked.len() <= QUESTIONS_MAX, "{} questions", outcome.asked.len());
        outcome
    }

    fn deliver(&self, helo: &str, sender: &str, message: &[u8]) -> Outcome {
        let mut client = Client::connect(self.pair.edge().doors.smtp).expect("connected");
        client.expect(220).expect("greeted");
        client.say(&format!("EHLO {helo}"), 250).expect("EHLO");
        let answer = client.deliver(sender, &[ALICE], message).expect("answered");
        let asked = self.dns.asked().into_iter().map(|(name, kind)| format!("{kind} {name}")).collect();
        let mut results = String::new();
        for file in message::files(&self.pair.maildir(ALICE)) {
            let stored = fs::read(&file).expect("readable");
            let stored = String::from_utf8_lossy(&stored).replace("\r\n", "\n");
            values(&fields(&stored), "Authentication-Results")[0].clone_into(&mut results);
            fs::remove_file(file).expect("removed");
        }
        Outcome { reply: format!("{} {}", answer.code, answer.text()), results, asked }
    }

    /// After whatever came before, good mail is found good.
    fn expect_well(&self) {
        let good = self.send("good.test", "a@good.test", b"From: a@good.test\r\n\r\nx\r\n");
        assert!(good.reply.starts_with("250 "), "{}", good.reply);
        assert!(good.results.contains("; spf=pass") && good.results.contains("; dmarc=pass"), "{}", good.results);
    }
}

/// What SPF found of MAIL FROM.
fn spf(results: &str) -> &str {
    let found = results.split("; ").find(|part| part.starts_with("spf=") && part.contains("smtp.mailfrom"));
    found.and_then(|part| part[4..].split(' ').next()).unwrap_or_default()
}

/// A signature whose body digest is right, so that its key is asked for.
fn signature(selector: &str, signed: &str) -> String {
    format!(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=watched.test; s={selector};\r\n h={signed};\r\n \
         bh={BODY_DIGEST};\r\n b=AAAAAAAA\r\n"
    )
}

fn from(domain: &str) -> String {
    format!("From: a@{domain}\r\n")
}

#[test]
fn of_a_thousand_signatures_eight_are_looked_at() {
    let world = World::new();
    let mut text: String = (0..1000).map(|number| signature(&format!("s{number}"), "from")).collect();
    text += &from("watched.test");
    let outcome = world.send("x.test", "a@watched.test", format!("{text}\r\n{BODY}").as_bytes());
    assert!(outcome.reply.starts_with("250 "), "{}", outcome.reply);
    let keys = outcome.asked.iter().filter(|one| one.contains("._domainkey.")).count();
    assert_eq!((keys, outcome.results.matches("dkim=").count()), (8, 8), "{:?}", outcome.asked);
    // Ones that can't be read are not even that.
    let text = "DKIM-Signature: v=1; a=none\r\nARC-Seal: i=x\r\n".repeat(5000) + &from("watched.test");
    let outcome = world.send("x.test", "a@watched.test", format!("{text}\r\n{BODY}").as_bytes());
    assert!(outcome.reply.starts_with("250 "), "{}", outcome.reply);
    assert!(
        outcome.results.matches("dkim=").count() <= 8 && outcome.results.contains("arc=fail"),
        "{}",
        outcome.results
    );
    world.expect_well();
}

#[test]
fn finding_what_is_signed_costs_no_more_than_any_honest_signature() {
    let world = World::new();
    // A key there is, so that nothing but the cost keeps the signature from being tried.
    let key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    world.dns.text("s._domainkey.watched.test", key);
    let names: Vec<String> = (0..40_000).map(|number| format!("{number:x}")).collect();
    let signed = format!("from:{}", names.join(":\r\n "));
    let text = signature("s", &signed) + &"a:\r\n".repeat(100_000) + &from("watched.test");
    let outcome = world.send("x.test", "a@watched.test", format!("{text}\r\n{BODY}").as_bytes());
    assert!(outcome.reply.starts_with("250 "), "{}", outcome.reply);
    assert!(outcome.results.contains("dkim=policy reason=\"it would cost too much to verify\""), "{}", outcome.results);
    world.expect_well();
}

#[test]
fn records_that_go_in_circles_or_on_and_on_end_at_the_limits() {
    let world = World::new();
    let record = |name: &str, text: &str| world.dns.text(name, &format!("v=spf1 {text}"));
    record("self.test", "include:self.test -all");
    record("redirect.test", "redirect=redirect.test");
    record("ping.test", "include:pong.test -all");
    record("pong.test", "include:ping.test -all");
    record("macro.test", "include:%{d} a:%{d}.%{d}.%{d}.%{d} -all");
    record("void.test", "a:1.void.test a:2.void.test a:3.void.test +all");
    record("two.test", "a:1.void.test a:2.void.test +all");
    let hosts: Vec<_> = (0..11).map(|number| format!("a:h{number}.hosts.test")).collect();
    record("eleven.test", &format!("{} +all", hosts.join(" ")));
    record("ten.test", &format!("{} +all", hosts[..10].join(" ")));
    for number in 0..11 {
        world.dns.host(&format!("h{number}.hosts.test"), [192, 0, 2, 1].into());
    }
    for (domain, found, questions) in [
        ("self.test", "permerror", 1),
        ("redirect.test", "permerror", 1),
        ("ping.test", "permerror", 2),
        ("macro.test", "permerror", 1),
        ("void.test", "permerror", 4),
        ("two.test", "pass", 3),
        ("eleven.test", "permerror", 11),
        ("ten.test", "pass", 11),
    ] {
        let text = from("watched.test") + "\r\n" + BODY;
        let outcome = world.send("x.test", &format!("a@{domain}"), text.as_bytes());
        assert!(outcome.reply.starts_with("250 "), "{domain}: {}", outcome.reply);
        assert_eq!(spf(&outcome.results), found, "{domain}: {}", outcome.results);
        let mut about: Vec<_> =
            outcome.asked.iter().filter(|one| !one.contains("_dmarc") && !one.contains("x.test")).collect();
        about.retain(|one| one.starts_with("TXT") || one.starts_with("A "));
        about.sort();
        about.dedup();
        assert!(about.len() <= questions, "{domain}: {about:?}");
    }
}

#[test]
fn the_dearest_sender_costs_a_bounded_number_of_questions() {
    let world = World::new();
    for domain in ["dear.test", "helo.test"] {
        let mut text = String::from("v=spf1");
        for list in 0..10 {
            let _ = write!(text, " mx:{list}.{domain}");
            for host in 0..10 {
                world.dns.exchanger(&format!("{list}.{domain}"), host, &format!("h{list}-{host}.{domain}"));
                world.dns.host(&format!("h{list}-{host}.{domain}"), [192, 0, 2, 1].into());
            }
        }
        world.dns.text(domain, &(text + " -all"));
    }
    for number in 0..100 {
        world.dns.reverse(Ipv4Addr::LOCALHOST.into(), &format!("r{number}.test"));
    }
    let mut text: String = (0..100).map(|number| signature(&format!("s{number}"), "from")).collect();
    text += &from("watched.test");
    let outcome = world.send("helo.test", "a@dear.test", format!("{text}\r\n{BODY}").as_bytes());
    assert_eq!(spf(&outcome.results), "fail", "{}", outcome.results);
    // Each check: its record, ten lists, a hundred hosts (RFC 7208 §4.6.4); no question is asked twice.
    let distinct: BTreeSet<_> = outcome.asked.iter().collect();
    assert!((222..260).contains(&distinct.len()), "{} questions", distinct.len());
    world.expect_well();
}

#[test]
fn long_fields_are_read_in_time_that_grows_as_they_do() {
    let world = World::new();
    let long = |start: &str, piece: &str, end: &str| {
        let mut text = start.to_owned();
        while text.len() < 100_000 {
            text.push_str(piece);
        }
        text + end + "\r\n"
    };
    let plain = from("watched.test");
    for (what, field) in [
        ("a subject", long("Subject: x", "\r\n words and words", "")),
        ("a subject on one line", long("Subject: x", "words", "")),
        ("a List-Id", long("List-Id: ", "<", ">")),
        ("results", long("Authentication-Results: ", "(", "")),
        ("more results", long("Authentication-Results: x", "(\r\n )", ";")),
        (
            "a signature",
            long("DKIM-Signature: v=1; a=rsa-sha256; d=watched.test; s=s;\r\n h=from; bh=", "AAAA\r\n ", "; b=AAAA"),
        ),
        ("many tags", long("DKIM-Signature: ", "x=1;\r\n ", "")),
        ("a seal", long("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=watched.test; s=s; b=", "AAAA\r\n ", "")),
        ("sealed results", long("ARC-Authentication-Results: i=1; x;", " dkim=pass;\r\n ", "")),
    ] {
        let text = format!("{field}{plain}\r\n{BODY}");
        let outcome = world.send("x.test", "a@watched.test", text.as_bytes());
        let clear = outcome.reply.starts_with("250 ") || outcome.reply.starts_with("55");
        assert!(clear, "{what}: {}", outcome.reply);
    }
    for (what, field) in [
        ("brackets", long("From: ", "<", "")),
        ("comments", long("From: a@watched.test ", "(", "")),
        ("quotes", long("From: ", "\"", "")),
        ("escapes", long("From: \"", "\\\\\"", "")),
        ("encoded words", long("From: ", "=?utf-8?q?=?=\r\n ", "a@watched.test")),
        ("groups", long("From: ", "g:", ";")),
        ("commas", long("From: ", ",\r\n ", "a@watched.test")),
        ("addresses", long("From: a@watched.test", ",\r\n a@watched.test", "")),
        ("colons", long("From: ", ":;\r\n ", "")),
    ] {
        let outcome = world.send("x.test", "a@watched.test", format!("{field}\r\n{BODY}").as_bytes());
        let clear = ["250 ", "550 5.6.0 "].iter().any(|start| outcome.reply.starts_with(start));
        assert!(clear, "{what}: {}", outcome.reply);
    }
    world.expect_well();
}

#[test]
fn from_names_one_domain_however_it_is_written() {
    let world = World::new();
    let many = |domains: &[&str]| {
        let all: Vec<_> =
            (0..100).map(|number| format!("u{number}@{}", domains[number * domains.len() / 100])).collect();
        format!("From: {}\r\n", all.join(",\r\n "))
    };
    let (nobody, several) = ("it names nobody", "it names several domains");
    for (field, why) in [
        (String::new(), Some(nobody)),
        ("From:\r\n".to_owned(), Some(nobody)),
        ("From: somebody\r\n".to_owned(), Some(nobody)),
        ("From: undisclosed:;\r\n".to_owned(), Some(nobody)),
        ("From: <>\r\n".to_owned(), Some(nobody)),
        (from("good.test"), None),
        ("From: a@good.test, b@GOOD.test\r\n".to_owned(), None),
        ("From: a@good.test, b@strange.test\r\n".to_owned(), Some(several)),
        (from("good.test") + &from("strange.test"), Some(several)),
        (many(&["good.test"]), None),
        (many(&["good.test", "strange.test"]), Some(several)),
        // The last of a hundred.
        (format!("{},\r\n z@strange.test\r\n", many(&["good.test"]).trim_end()), Some(several)),
        ("From: team: a@good.test, b@good.test;\r\n".to_owned(), None),
        ("From: team: a@good.test;, other: b@strange.test;\r\n".to_owned(), Some(several)),
        ("From: \"b@strange.test\" <a@good.test>\r\n".to_owned(), None),
        ("From: J\u{f6}rg <a@good.test>\r\n".to_owned(), None),
    ] {
        let outcome = world.send("good.test", "a@good.test", format!("{field}\r\n{BODY}").as_bytes());
        if let Some(why) = why {
            let reply = format!("550 5.6.0 The message has no usable From field: {why}");
            assert_eq!(outcome.reply, reply, "{field}");
        } else {
            assert!(outcome.reply.starts_with("250 "), "{field}: {}", outcome.reply);
            assert!(outcome.results.contains("dmarc=pass (p=reject) header.from=good.test"), "{}", outcome.results);
        }
    }
    // Octets that are no UTF-8 are a name like any other.
    let outcome = world.send("good.test", "a@good.test", b"From: J\xf6rg \xff <a@good.test>\r\n\r\nx\r\n");
    assert!(outcome.results.contains("dmarc=pass"), "{} {}", outcome.reply, outcome.results);
    // Nested groups are no syntax at all (RFC 5322 §3.4); whatever is read of them, no policy is got round.
    let outcome = world.send("x.test", "a@watched.test", b"From: g: h: a@good.test;; b@strange.test\r\n\r\nx\r\n");
    assert!(outcome.reply.starts_with("550 5."), "{}", outcome.reply);
}

/// Makes an answer of the question.
type Making = fn(&[u8]) -> Vec<u8>;

/// Kinds of answers that are none: each is made of the question.
const MALFORMED: &[(&str, Making)] = &[
    ("nothing", |_| Vec::new()),
    ("one-octet", |query| query[..1].to_vec()),
    ("header-only", |query| answer(query, 1)[..12].to_vec()),
    ("no-question", |query| [&query[..2], &[0x81, 0x80, 0, 0, 0, 1, 0, 0, 0, 0]].concat()),
    ("half", |query| answer(query, 1)[..query.len() / 2].to_vec()),
    ("other-id", |query| {
        let mut octets = record(query, b"\x0bv=spf1 +all");
        octets[0] ^= 0xFF;
        octets
    }),
    ("other-name", |query| {
        let mut octets = record(query, b"\x0bv=spf1 +all");
        octets[13] ^= 0x01;
        octets
    }),
    ("question-back", |query| query.to_vec()),
    ("many-records-promised", |query| answer(query, u16::MAX)),
    ("beyond-the-end", |query| [&answer(query, 1)[..], &[0xC0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0xFF, 0xFF, 5]].concat()),
    ("string-beyond-record", |query| record(query, b"\xffv=spf1 +all")),
    ("pointer-to-itself", |query| {
        let at = u8::try_from(answer(query, 1).len()).unwrap_or(0);
        [&answer(query, 1)[..], &[0xC0, at, 0, 16, 0, 1, 0, 0, 0, 60, 0, 0]].concat()
    }),
    ("pointer-forward", |query| [&answer(query, 1)[..], &[0xFF, 0xFF, 0, 16, 0, 1, 0, 0, 0, 60, 0, 0]].concat()),
    ("label-of-200", |query| [&answer(query, 1)[..], &[200; 220]].concat()),
    ("empty-record", |query| record(query, b"")),
    ("rubbish-behind", |query| [record(query, b"\x0bv=spf1 -all"), vec![0xA5; 400]].concat()),
    ("noise", |query| query.iter().cycle().take(1200).map(|octet| octet.wrapping_mul(37) ^ 0x5A).collect()),
    ("truncated-always", |query| {
        let mut octets = answer(query, 0);
        octets[2] |= 0x02;
        octets
    }),
    ("unknown-code", |query| {
        let mut octets = answer(query, 0);
        octets[3] = 0x8F;
        octets
    }),
];

/// The beginning of an answer that holds so many records.
fn answer(query: &[u8], records: u16) -> Vec<u8> {
    // The question ends where an empty label does, with its type and class behind it.
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap_or(0) + 5;
    let mut octets = query[..end.min(query.len())].to_vec();
    octets[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets[6..8].copy_from_slice(&records.to_be_bytes());
    octets
}

/// An answer with one TXT record of this data.
fn record(query: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or(0).to_be_bytes();
    [&answer(query, 1)[..], &[0xC0, 12, 0, 16, 0, 1, 0, 0, 0, 60], &length, data].concat()
}

#[test]
fn whatever_a_name_server_says_mail_is_judged_in_time_and_proves_nothing() {
    let world = World::new();
    for (kind, make) in MALFORMED {
        world.dns.lie(&format!("{kind}.test"), Lie::Octets(*make));
    }
    for (code, name) in
        [(ResponseCode::ServFail, "servfail"), (ResponseCode::Refused, "refused"), (ResponseCode::NotImp, "notimp")]
    {
        world.dns.lie(&format!("{name}.test"), Lie::Code(code));
    }
    world.dns.lie("silent.test", Lie::Silent);
    // Ten answers, each of them three seconds late.
    for number in 0..10 {
        world.dns.text(&format!("{number}.late.test"), &format!("v=spf1 include:{}.late.test +all", number + 1));
        world.dns.lie(&format!("{number}.late.test"), Lie::Late(Duration::from_secs(3)));
    }
    world.dns.alias("circle.test", "circle.test");
    world.dns.alias("one.test", "other.test");
    world.dns.alias("other.test", "one.test");
    for number in 0..100 {
        world.dns.alias(&format!("chain{number}.test"), &format!("chain{}.test", number + 1));
    }
    let more = ["servfail", "refused", "notimp", "silent", "0.late", "circle", "one", "chain0"];
    let kinds: Vec<&str> = MALFORMED.iter().map(|(kind, _)| *kind).chain(more).collect();
    let clock = Clock::real();
    let began = clock.now();
    std::thread::scope(|scope| {
        // Each from an address of its own: one client has only so many connections.
        for (kind, number) in kinds.iter().zip(1..) {
            let door = world.pair.edge().doors.smtp;
            scope.spawn(move || {
                let mut client = Client::connect_from([127, 0, 1, number].into(), door).expect("connected");
                client.expect(220).expect("greeted");
                client.say("EHLO x.test", 250).expect("EHLO");
                let text = format!("Subject: {kind}\r\n{}\r\nx\r\n", from("watched.test"));
                let answer = client.deliver(&format!("a@{kind}.test"), &[ALICE], text.as_bytes()).expect("answered");
                assert_eq!(answer.code, 250, "{kind}: {answer:?}");
            });
        }
    });
    let took = clock.now().duration_since(began);
    assert!(took < Duration::from_mins(2), "{took:?}");
    let mut seen = BTreeSet::new();
    for file in message::files(&world.pair.maildir(ALICE)) {
        let stored = String::from_utf8_lossy(&fs::read(&file).expect("readable")).replace("\r\n", "\n");
        let fields = fields(&stored);
        let kind = values(&fields, "Subject")[0].to_owned();
        let found = spf(values(&fields, "Authentication-Results")[0]).to_owned();
        let right = match kind.as_str() {
            "circle" | "one" | "chain0" => ["none", "temperror"].contains(&found.as_str()),
            // It is a record, whatever follows it.
            "rubbish-behind" => ["fail", "temperror"].contains(&found.as_str()),
            "no-question" | "header-only" | "question-back" | "other-name" => {
                ["none", "temperror"].contains(&found.as_str())
            }
            _ => found == "temperror",
        };
        assert!(right, "{kind}: {found}");
        seen.insert(kind);
        fs::remove_file(file).expect("removed");
    }
    assert_eq!(seen.len(), kinds.len(), "{seen:?}");
    world.expect_well();
}

#[test]
fn records_as_long_as_an_answer_can_be_are_read_and_given_back() {
    let world = World::new();
    // An answer has 65,535 octets at most, by TCP; no text is longer than that.
    let long = "x".repeat(63_000);
    world.dns.text("long.test", &format!("v=spf1 {long} -all"));
    world.dns.text("words.test", &format!("v=spf1 {} +all", "ip4:192.0.2.1 ".repeat(4500)));
    world.dns.text("_dmarc.dmarc.test", &format!("v=DMARC1; p=reject; x={long}"));
    world.dns.text("s._domainkey.watched.test", &format!("v=DKIM1; k=rsa; p={}", "A".repeat(63_000)));
    for number in 0..1000 {
        world.dns.text("many.test", &format!("{number:040}"));
    }
    for (sender, domain, found) in [
        ("long.test", "watched.test", "permerror"),
        ("words.test", "watched.test", "pass"),
        ("many.test", "watched.test", "none"),
        ("dmarc.test", "dmarc.test", "none"),
    ] {
        let text = signature("s", "from") + &from(domain) + "\r\n" + BODY;
        let outcome = world.send("x.test", &format!("a@{sender}"), text.as_bytes());
        if sender == "dmarc.test" {
            assert!(outcome.reply.starts_with("550 5.7.26 "), "{}", outcome.reply);
            continue;
        }
        assert_eq!(spf(&outcome.results), found, "{sender}: {} {}", outcome.reply, outcome.results);
        assert!(!outcome.results.contains("dkim=pass"), "{}", outcome.results);
    }
    world.expect_well();
}

#[test]
fn what_is_remembered_of_strangers_answers_stays_small() {
    let world = World::new();
    let (long, edge) = ("x".repeat(62_000), world.pair.edge().program.pid().expect("it runs"));
    world.expect_well();
    let before = usage::memory(edge).expect("memory").now_kib;
    for domain in 0..90 {
        let names: Vec<_> = (0..10).map(|number| format!("{number}.d{domain}.test")).collect();
        world.dns.text(&format!("d{domain}.test"), &format!("v=spf1 include:{} +all", names.join(" include:")));
        for name in names {
            world.dns.text(&name, &format!("v=spf1 x={long}"));
        }
        let text = from("watched.test") + "\r\n" + BODY;
        let outcome = world.deliver("x.test", &format!("a@d{domain}.test"), text.as_bytes());
        assert_eq!(spf(&outcome.results), "pass", "{}", outcome.results);
    }
    let after = usage::memory(edge).expect("memory").now_kib;
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    world.expect_well();
}

#[test]
fn a_dead_resolver_delays_mail_once_and_loses_none() {
    let world = World::new();
    let dead = LyingDns::start().expect("a name server");
    dead.lie_always(Lie::Silent);
    world.pair.ask_dns_at(dead.address());
    let clock = Clock::real();
    let began = clock.now();
    let first = world.deliver("x.test", "a@good.test", (from("good.test") + "\r\n" + BODY).as_bytes());
    assert!(first.reply.starts_with("250 "), "{}", first.reply);
    assert_eq!(spf(&first.results), "temperror");
    let took = clock.now().duration_since(began);
    // Without a sign of life within ten seconds it is dead; asking on would take 35.
    assert!(took < Duration::from_secs(30), "{took:?}");
    // From then on it is known to be dead, and nobody waits long for it.
    let began = clock.now();
    let next = world.deliver("x.test", "a@good.test", (from("good.test") + "\r\n" + BODY).as_bytes());
    assert!(next.reply.starts_with("250 "), "{}", next.reply);
    let took = clock.now().duration_since(began);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(world.pair.edge().program.said().contains("the DNS answers nothing"));
    world.pair.ask_dns_at(world.dns.address());
    world.expect_well();
}
