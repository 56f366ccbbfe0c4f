//! Reports as people and programs read them.

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::tunnel::transfer::TransferId;
use mail_parser::{MessageParser, MimeHeaders};

use super::*;
use crate::queue::tests::{TEXT, address, entry};

fn bounce(recipients: Vec<usize>) -> OpenBounce {
    OpenBounce {
        about: About::Failure,
        id: TransferId([0x11; 16]),
        trace: TraceId::from_random([3; 10]),
        made_unix_s: 1_795_262_400,
        recipients,
        attempts: 0,
        next_unix_ms: 0,
    }
}

fn fail(entry: &mut Entry, place: usize, reply: Reply, remote: Option<&str>) {
    let last = Final { reply, remote: remote.map(str::to_owned), at_unix_ms: 1_795_176_060_000 };
    entry.recipients[place].state = State::Failed { last, told: false };
}

fn made(entry: &Entry, bounce: &OpenBounce, start: Option<&[u8]>) -> String {
    let postmaster = address("alice@example.org");
    let reporter = Reporter { hostname: "home.example.org", postmaster: &postmaster };
    String::from_utf8(report(entry, bounce, reporter, start, 1_795_608_000_000)).expect("UTF-8")
}

#[test]
fn a_report_reads_like_this() {
    let mut entry = entry(&["bob@example.com", "carol@example.net", "dave@example.net"]);
    entry.envid = Some("QQ314159".into());
    entry.recipients[0].recipient.orcpt = Some("rfc822;Bob@example.com".into());
    fail(&mut entry, 0, Reply::unknown_recipient(), Some("mx.example.com [192.0.2.1]:25"));
    fail(&mut entry, 1, Reply::expired("5 days"), None);
    let expected = include_str!("report.eml").replace('\n', "\r\n");
    assert_eq!(made(&entry, &bounce(vec![0, 1]), Some(TEXT)), expected);
}

#[test]
fn programs_find_their_parts() {
    let mut entry = entry(&["bob@example.com"]);
    fail(&mut entry, 0, Reply::unknown_recipient(), Some("mx.example.com [192.0.2.1]:25"));
    let text = made(&entry, &bounce(vec![0]), Some(TEXT));
    let message = MessageParser::default().parse(text.as_bytes()).expect("a message");
    let kind = message.content_type().expect("a type");
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    assert_eq!(message.header("Auto-Submitted").and_then(|value| value.as_text()), Some("auto-replied"));
    let kinds: Vec<String> = message
        .parts
        .iter()
        .skip(1)
        .filter_map(|part| part.content_type())
        .map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("")))
        .collect();
    assert_eq!(kinds, ["text/plain", "message/delivery-status", "message/rfc822"]);
    let original = message.parts.iter().find_map(|part| part.message()).expect("the original");
    assert_eq!(original.subject(), Some("Hi"));
    let envelope = envelope(&entry).expect("a sender");
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert_eq!(envelope.recipients[0].address, address("alice@example.org"));
}

#[test]
fn nobody_gets_no_report() {
    let mut entry = entry(&["bob@example.com"]);
    entry.reverse_path = ReversePath::Null;
    assert_eq!(envelope(&entry), None);
}

#[test]
fn how_much_goes_back() {
    let mut entry = entry(&["bob@example.com"]);
    for (ret, octets, expected) in [
        (None, 64 * 1024, Returned::Whole),
        (None, 64 * 1024 + 1, Returned::Header),
        (Some(Ret::Full), 256 * 1024, Returned::Whole),
        (Some(Ret::Full), 256 * 1024 + 1, Returned::Header),
        (Some(Ret::Headers), 1, Returned::Header),
    ] {
        (entry.ret, entry.octets) = (ret, octets);
        assert_eq!(returned(&entry), expected, "{ret:?} {octets}");
    }
    entry.ret = Some(Ret::Headers);
    fail(&mut entry, 0, Reply::unknown_recipient(), None);
    let text = made(&entry, &bounce(vec![0]), Some(TEXT));
    assert!(text.contains("Content-Type: text/rfc822-headers\r\n"), "{text}");
    assert!(text.contains("Subject: Hi\r\n") && !text.contains("Hello"), "{text}");
    let without = made(&entry, &bounce(vec![0]), None);
    assert!(without.ends_with("--=_gatepost_11111111111111111111111111111111--\r\n") && !without.contains("Hi"));
}

#[test]
fn a_header_is_cut_at_a_whole_line() {
    for (start, expected) in [
        (&b"A: b\r\nC: d\r\n\r\nbody"[..], &b"A: b\r\nC: d\r\n"[..]),
        (b"A: b\r\nC: d", b"A: b\r\n"),
        (b"\r\nbody", b""),
        (b"A", b""),
    ] {
        assert_eq!(header(start), expected);
    }
}

#[test]
fn a_remote_can_put_nothing_else_into_a_report() {
    let mut entry = entry(&["bob@example.com"]);
    entry.envid = Some("x\r\nReturn-Path: <evil>\r\n\r\n".into());
    entry.recipients[0].recipient.orcpt = Some("rfc822;a\r\nEvil: b".into());
    let long = vec!["word ".repeat(300), "x".repeat(3000), "\u{fc}".repeat(1500)];
    fail(&mut entry, 0, Reply::new(550, None, long), Some("mx\r\nEvil: c [192.0.2.1]:25"));
    let text = made(&entry, &bounce(vec![0]), Some(TEXT));
    assert!(!text.contains("\r\nEvil") && !text.contains("\r\nReturn-Path"), "{text}");
    assert!(text.lines().all(|line| line.len() <= 998), "every line within its bound");
    assert!(text.contains("Status: 5.0.0\r\n"));
}

#[test]
fn addresses_beyond_ascii_have_a_report_of_their_own_kind() {
    let mut entry = entry(&["j\u{f6}rg@example.com"]);
    entry.smtputf8 = true;
    fail(&mut entry, 0, Reply::utf8_not_supported(), None);
    let text = made(&entry, &bounce(vec![0]), Some(TEXT));
    for part in
        ["message/global-delivery-status", "message/global\r\n", "Final-Recipient: utf-8; j\u{f6}rg@", "Status: 5.6.7"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(envelope(&entry).expect("a sender").smtputf8);
}

#[test]
fn a_delay_reads_like_this() {
    let mut entry = entry(&["bob@example.com", "carol@example.net"]);
    let last = Final {
        reply: Reply::unreachable("Can't reach mx.example.com [192.0.2.1]:25: Connection refused (os error 111)"),
        remote: None,
        at_unix_ms: 1_795_176_060_000,
    };
    entry.recipients[0].state = State::Waiting(crate::queue::entry::Waiting { last: Some(last), ..Default::default() });
    let delay = OpenBounce { about: About::Delay, ..bounce(vec![0, 1]) };
    let text = made(&entry, &delay, Some(TEXT));
    assert_eq!(text, include_str!("delay.eml").replace('\n', "\r\n"));
    assert!(!text.contains("Hello"), "the message itself stays here");
}

#[test]
fn success_reads_like_this() {
    let mut entry = entry(&["bob@example.com"]);
    let last = Final {
        reply: Reply::accepted("abc"),
        remote: Some("mx.example.com [192.0.2.1]:25".into()),
        at_unix_ms: 1_795_176_060_000,
    };
    entry.recipients[0].state = State::Delivered { last, told: false };
    for (about, subject, action) in [
        (About::Relay, "Subject: Sent on: bob@example.com\r\n", "Action: relayed\r\nStatus: 2.0.0\r\n"),
        (About::Delivery, "Subject: Delivered: bob@example.com\r\n", "Action: delivered\r\nStatus: 2.0.0\r\n"),
    ] {
        let text = made(&entry, &OpenBounce { about, ..bounce(vec![0]) }, Some(TEXT));
        assert!(text.contains(subject) && text.contains(action), "{text}");
        let message = MessageParser::default().parse(text.as_bytes()).expect("a message");
        assert_eq!(message.parts.len(), 4, "text, status and header, within the whole");
    }
}
