//! Answers of the kinds that echo services send.

use proptest::prelude::*;

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn read_text(text: &str) -> Answer {
    read(text.replace('\n', "\r\n").as_bytes(), TOKEN, &["mail.example.org".to_owned()])
}

fn said(answer: &Answer) -> Vec<String> {
    answer.results.iter().map(|told| format!("{}: {}={}", told.by, told.method.name(), told.found)).collect()
}

#[test]
fn a_message_that_comes_back_whole_is_read_by_the_fields_in_front_of_it() {
    let answer = read_text(
        "Authentication-Results: mail.example.org; spf=fail; dkim=none; dmarc=fail\n\
         Authentication-Results: relay.echo.example; dkim=none; spf=softfail\n\
         From: Echo <echo@echo.example>\nSubject: Re: Probe\nMIME-Version: 1.0\n\
         Content-Type: multipart/mixed; boundary=b\n\n\
         --b\nContent-Type: text/plain\n\nThis is what came.\n\
         --b\nContent-Type: message/rfc822\n\n\
         Received: from mail.example.org by mx.echo.example; Sat, 21 Nov 2026 12:00:00 +0000\n\
         Authentication-Results: mx.echo.example;\n\tdkim=pass (good) header.d=example.org;\n\tdkim=neutral (unknown)\n header.d=example.org;\n\
         \tspf=pass smtp.mailfrom=example.org; dmarc=pass\nMessage-ID: <probe.0123456789abcdef@example.org>\n\nhello\n--b--\n",
    );
    assert_eq!(answer.from, "echo@echo.example");
    assert_eq!(
        said(&answer),
        [
            "mx.echo.example: dkim=pass",
            "mx.echo.example: dkim=neutral",
            "mx.echo.example: spf=pass",
            "mx.echo.example: dmarc=pass"
        ]
    );
}

#[test]
fn the_probe_itself_sent_back_is_read_from_its_top() {
    let answer = read_text(
        "Authentication-Results: mail.example.org; spf=none\nAuthentication-Results: mx.echo.example; spf=pass; dkim=fail\n\
         Received-SPF: pass (x)\nFrom: alice@example.org\nMessage-ID: <probe.0123456789abcdef@example.org>\n\nhello\n",
    );
    assert_eq!(
        said(&answer),
        ["mx.echo.example: spf=pass", "mx.echo.example: dkim=fail", "its Received-SPF: spf=pass"]
    );
}

#[test]
fn what_is_quoted_is_read_however_it_is_quoted() {
    for text in [
        "> Authentication-Results: mx.echo.example; spf=pass\n>  smtp.mailfrom=example.org; dkim=pass\n>\tdmarc=pass\n> To: x\n",
        "  | Authentication-Results: mx.echo.example;\n  |  spf=pass; dkim=pass;\n  |  dmarc=pass\n\nTheir SPF: fail\n",
        "Authentication-Results: mx.echo.example; spf=pass;\n   dkim=pass; dmarc=pass (p=none)\nSubject: dkim=fail\n",
    ] {
        let answer = read_text(&format!("From: a@echo.example\n\nYour header was:\n\n{text}"));
        let found = said(&answer);
        assert!(found.contains(&"mx.echo.example: spf=pass".to_owned()), "{found:?} in {text}");
        assert!(found.contains(&"mx.echo.example: dkim=pass".to_owned()), "{found:?} in {text}");
        assert!(!found.iter().any(|one| one.ends_with("fail")), "{found:?} in {text}");
    }
    let html =
        "From: a@echo.example\nContent-Type: text/html\n\n<p>SPF check: <b>pass</b></p><p>DKIM check: fail</p>\n";
    assert_eq!(said(&read_text(html)), ["its report: spf=pass", "its report: dkim=fail"]);
    let encoded = "From: a@echo.example\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n\
                   U1BGIGNoZWNrOiAgICBwYXNzCkRLSU0gY2hlY2s6IG5vbmUK\n";
    assert_eq!(said(&read_text(encoded)), ["its report: spf=pass", "its report: dkim=none"]);
}

#[test]
fn a_report_in_words_is_read_and_other_words_are_not() {
    let answer = read_text(
        "From: report@echo.example\n\nSummary of Results\n\nSPF check:          pass\nDKIM check:         softfail\n\
         DMARC check: PASS\nDomainKeys check: neutral\nSPF records are fine: pass them on\nDKIM: yes\n\
         DKIM is explained at length in many documents: fail\nDMARC = none\n",
    );
    assert_eq!(
        said(&answer),
        [
            "its report: spf=pass",
            "its report: dkim=softfail",
            "its report: dmarc=pass",
            "its report: spf=pass",
            "its report: dmarc=none"
        ]
    );
    assert_eq!(said(&read_text("From: a@b.example\n\nThank you, I got it.\n")), [""; 0]);
}

#[test]
fn a_report_on_delivery_tells_the_reply() {
    let answer = read_text(include_str!("../../queue/bounce/report.eml"));
    assert_eq!(answer.fates.len(), 2);
    let Fate { action, reply, remote } = &answer.fates[0];
    assert_eq!(
        (action.as_str(), reply.as_str(), remote.as_deref()),
        ("failed", "550 5.1.1 No such address here", Some("mx.example.com"))
    );
    let delayed = read_text(include_str!("../../queue/bounce/delay.eml"));
    assert_eq!((delayed.fates[0].action.as_str(), delayed.fates[1].reply.as_str()), ("delayed", "4.0.0"));
    assert!(delayed.fates[0].reply.ends_with("Connection refused (os error 111)"), "{delayed:?}");
}

#[test]
fn what_is_kept_is_bounded() {
    let many = "Authentication-Results: x; spf=pass; dkim=pass\n".repeat(10_000);
    assert_eq!(read_text(&format!("From: a@b.example\n\n{many}")).results.len(), RESULTS_MAX);
    let deep = "Content-Type: message/rfc822\n\n".repeat(1000);
    assert_eq!(read_text(&format!("From: a@b.example\n{deep}Authentication-Results: x; spf=pass\n\n")).results, []);
}

proptest! {
    #[test]
    fn any_message_is_read_without_a_panic(
        text in "(Authentication-Results: |spf=pass|dkim=|;|\\(|\"|> |\r\n|Content-Type: (message/rfc822|multipart/mixed; boundary=b|text/html)\r\n|--b\r\n|SPF check: |[a-z:=é]{0,3}){0,40}"
    ) {
        let answer = read(text.as_bytes(), TOKEN, &[]);
        prop_assert!(answer.results.len() <= RESULTS_MAX);
    }
}
