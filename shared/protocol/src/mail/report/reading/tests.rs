use std::net::IpAddr;

use base64::Engine as _;
use proptest::prelude::*;

use super::*;
use crate::mail::report::archive::tests::{gzip, zip};
use crate::mail::report::{Disposition, DkimResult, Reason, ReasonKind, Row, SpfResult};
use crate::mail::verdict::{Asked, Found};

/// As Google writes them.
const GOOGLE: &str = include_str!("google.xml");
/// With everything that a report may have today.
const COMPLETE: &str = include_str!("complete.xml");

fn message(media_type: &str, name: &str, file: &[u8]) -> Vec<u8> {
    let text = base64::engine::general_purpose::STANDARD.encode(file);
    let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line)).collect();
    let head = format!(
        "From: reports@receiver.example\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\n\
         Content-Type: text/plain\r\n\r\nA report.\r\n--b\r\nContent-Type: {media_type}\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    [head, lines.join("\r\n"), "\r\n--b--\r\n".into()].concat().into_bytes()
}

fn xml(text: &str) -> Result<Option<Report>, Unreadable> {
    read(&message("text/xml", "r.xml", text.as_bytes()))
}

fn aggregate(read: Result<Option<Report>, Unreadable>) -> (Aggregate, u64) {
    match read {
        Ok(Some(Report::Aggregate { report, left_out })) => (*report, left_out),
        other => panic!("no aggregate report: {other:?}"),
    }
}

/// A report with these records.
fn of(records: &str) -> String {
    format!(
        "<feedback><report_metadata><org_name>o</org_name><report_id>1</report_id></report_metadata>\
         <policy_published><domain>example.org</domain></policy_published>{records}</feedback>"
    )
}

const RECORD: &str = "<record><row><source_ip>192.0.2.1</source_ip><count>2</count></row></record>";

#[test]
fn a_report_is_found_however_it_is_packed() {
    let (expected, left_out) = aggregate(xml(GOOGLE));
    assert_eq!((expected.rows.len(), left_out), (2, 0));
    let google = GOOGLE.as_bytes();
    let zipped = zip(&[("google.com!example.org!1!2.xml", google)], 8, 0);
    for (media_type, name, file) in [
        ("application/zip", "google.com!example.org!1!2.zip", zipped.clone()),
        ("application/x-zip-compressed", "r", zipped.clone()),
        ("application/octet-stream", "R.ZIP", zipped.clone()),
        ("application/gzip", "r", gzip(google)),
        ("application/x-gzip", "r.xml.gz", gzip(google)),
        ("application/octet-stream", "r.xml.gz", gzip(google)),
        // What it is called is no proof: it is what it begins with.
        ("application/gzip", "r.xml.gz", zipped),
        ("application/xml", "r", google.to_vec()),
        ("text/plain", "r.xml", google.to_vec()),
    ] {
        assert_eq!(aggregate(read(&message(media_type, name, &file))).0, expected, "{media_type} {name}");
    }
    let bare = [b"Content-Type: text/xml\r\n\r\n", google].concat();
    assert_eq!(aggregate(read(&bare)).0, expected);
}

#[test]
fn everything_that_counts_is_read() {
    let (report, left_out) = aggregate(xml(COMPLETE));
    let metadata = &report.metadata;
    assert_eq!(
        (metadata.organisation.as_str(), metadata.id.as_str()),
        ("Receiver & Söhne <mail>", "a1@receiver.example")
    );
    assert_eq!((metadata.begin_unix_s, metadata.end_unix_s), (1_763_596_800, 1_763_683_199));
    assert_eq!(metadata.errors, ["the DNS was slow"]);
    let published = &report.published;
    assert_eq!((published.domain.as_str(), published.asked), ("example.org", Asked::Reject));
    assert_eq!((published.subdomains, published.nonexistent), (Some(Asked::Quarantine), Some(Asked::Reject)));
    assert_eq!(
        (published.strict_dkim, published.strict_spf, published.testing),
        (Some(true), Some(false), Some(false))
    );
    let row = Row {
        source: IpAddr::from([198, 51, 100, 7]),
        count: 3,
        disposition: Disposition::Quarantine,
        dkim: false,
        spf: true,
        reasons: vec![
            Reason { kind: ReasonKind::MailingList, comment: Some("ietf@ietf.example".into()) },
            Reason { kind: ReasonKind::Other, comment: None },
        ],
        header_from: "news.example.org".into(),
        envelope_from: Some("example.org".into()),
        envelope_to: Some("receiver.example".into()),
        dkim_results: vec![
            DkimResult { domain: "example.org".into(), selector: Some("s1".into()), found: Found::Fail },
            DkimResult { domain: "list.example".into(), selector: None, found: Found::Pass },
        ],
        spf_results: vec![
            SpfResult { domain: "example.org".into(), is_helo: false, found: Found::Pass },
            SpfResult { domain: "mx.example.org".into(), is_helo: true, found: Found::PermError },
        ],
    };
    assert_eq!(report.rows, [row]);
    assert_eq!(left_out, 1, "the row without an address");
}

#[test]
fn failure_reports_tell_how_a_message_came() {
    let message = include_str!("failure.eml").replace('\n', "\r\n");
    let Ok(Some(Report::Failure(failure))) = read(message.as_bytes()) else { panic!("no failure report") };
    let expected = Failure {
        kind: "auth-failure".into(),
        failed: Some("dmarc".into()),
        domain: Some("example.org".into()),
        source: Some(IpAddr::from([192, 0, 2, 99])),
        envelope_from: Some("bounce@forger.example".into()),
        header_from: Some("example.org".into()),
        delivery: Some("reject".into()),
        aligned: Some("none".into()),
        incidents: 2,
    };
    assert_eq!(*failure, expected);
    assert_eq!(failure.about(), Some("example.org"));
    let unnamed = message.replace("Reported-Domain", "X-Domain");
    let Ok(Some(Report::Failure(failure))) = read(unnamed.as_bytes()) else { panic!("no failure report") };
    assert_eq!(failure.about(), Some("example.org"));
}

#[test]
fn ordinary_mail_is_no_report() {
    for message in [
        &b"Subject: hello\r\n\r\n<feedback></feedback>\r\n"[..],
        b"",
        b"\r\n",
        &message("application/pdf", "a.pdf", b"%PDF"),
        &message("application/zip", "photos.zip", &zip(&[("a.jpg", b"x"), ("b.jpg", b"y")], 0, 0)),
        &message("image/svg+xml", "a.svg", b"<svg/>"),
        &message("application/tlsrpt+gzip", "tls.json.gz", &gzip(b"{}")),
        &message("text/xml", "a.xml", b"<html><body/></html>"),
    ] {
        assert_eq!(read(message), Ok(None), "{}", String::from_utf8_lossy(message));
    }
}

#[test]
fn entities_and_document_types_are_refused() {
    let lol = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;&lol;&lol;&lol;&lol;&lol;\">]>";
    assert_eq!(xml(&format!("{lol}{}", of(RECORD))), Err(Unreadable::Entities));
    let external = "<!DOCTYPE x SYSTEM \"file:///etc/passwd\">";
    assert_eq!(xml(&format!("<?xml version=\"1.0\"?>{external}{}", of(RECORD))), Err(Unreadable::Entities));
    assert_eq!(xml(&of("<record>&lol;</record>")), Err(Unreadable::Entities));
    // A name for a letter is none of those, nor is a careless ampersand.
    assert_eq!(aggregate(xml(&of(RECORD).replace(">o<", ">&#65;&amp; B & C<"))).0.metadata.organisation, "A& B & C");
}

#[test]
fn bombs_cost_their_bound() {
    let spaces = vec![b' '; 64 * 1024 * 1024];
    for bomb in [gzip(&spaces), zip(&[("a.xml", &spaces)], 8, 0)] {
        assert_eq!(read(&message("application/gzip", "a.gz", &bomb)), Err(Unreadable::TooBig));
    }
    let deep = "<record>".repeat(100_000);
    assert_eq!(xml(&of(&deep)), Err(Unreadable::TooDeep));
    let huge = of(RECORD).replace(">o<", &format!(">{}<", "ö".repeat(1024 * 1024)));
    assert_eq!(aggregate(xml(&huge)).0.metadata.organisation.chars().count(), 128);
    let many = "<record><row><source_ip>192.0.2.1</source_ip></row></record>".repeat(aggregate::ROWS_MAX + 3);
    let (report, left_out) = aggregate(xml(&of(&many)));
    assert_eq!((report.rows.len(), left_out), (aggregate::ROWS_MAX, 3));
    let lists = "<dkim><domain>d</domain></dkim><spf/>".repeat(1000);
    let row = of(&RECORD.replace("</row>", &format!("</row><auth_results>{lists}</auth_results>")));
    let (report, _) = aggregate(xml(&row));
    assert_eq!((report.rows[0].dkim_results.len(), report.rows[0].spf_results.len()), (16, 4));
    let inner = zip(&[("a.xml", of(RECORD).as_bytes())], 8, 0);
    assert_eq!(read(&message("application/zip", "a.zip", &zip(&[("a.zip", &inner)], 8, 0))), Ok(None));
    let names: Vec<String> = (0..60_000).map(|n| n.to_string()).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(read(&message("application/zip", "a.zip", &zip(&files, 0, 0))), Err(Unreadable::ManyFiles));
}

#[test]
fn what_is_cut_off_is_no_report() {
    let whole = GOOGLE.trim_end();
    for cut in (10..whole.len() - 1).step_by(97) {
        assert!(!matches!(xml(&whole[..cut]), Ok(Some(_))), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn any_message_is_read_or_not(file: Vec<u8>, kind in 0..4usize) {
        let (media_type, name) = [("text/xml", "a.xml"), ("application/zip", "a"), ("x/y", "a.gz"), ("", "")][kind];
        let _ = read(&file);
        let _ = read(&message(media_type, name, &file));
    }

    #[test]
    fn any_elements_are_a_report_or_none(
        tags in prop::collection::vec("(</?(record|row|auth_results|dkim|reason|policy_evaluated|x)/?>|text|&amp;|<!--x-->|<!\\[CDATA\\[x\\]\\]>)", 0..60)
    ) {
        let _ = xml(&of(&tags.concat()));
    }

    #[test]
    fn texts_are_kept_printable_and_short(text: String) {
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        if let Ok(Some(Report::Aggregate { report, .. })) = xml(&of(RECORD).replace(">o<", &format!(">{escaped}<"))) {
            let kept = report.metadata.organisation;
            prop_assert!(kept.len() <= 256 && !kept.contains(char::is_control), "{kept:?}");
        }
    }
}
