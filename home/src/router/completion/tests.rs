//! Submissions as clients send them, and what becomes of them.

use std::io::Write;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::accounts;

const RECEIVED: &str =
    "Received: by home.example.org with ESMTPSA id aeaqcaibaeaqcaib; Fri, 20 Nov 2026 12:00:00 +0000\r\n";

fn submitted() -> Submitted<'static> {
    Submitted {
        author: Author::Account("alice@example.org"),
        hostname: "home.example.org",
        with: "ESMTPSA",
        trace: TraceId::from_random([1; 10]),
        received_unix_s: 1_795_176_000,
    }
}

fn text(message: &Message) -> String {
    let mut bytes = message.front.to_vec();
    for chunk in message.body.chunks() {
        bytes.extend_from_slice(&chunk.expect("read"));
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// In memory, cut in two, and in a file.
fn both(body: &str) -> [Message; 2] {
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let half = bytes.len() / 2;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(body.as_bytes()).expect("written");
    [
        Body::Memory([bytes.slice(..half), bytes.slice(half..)].into()),
        Body::File { file: Arc::new(file), skip: 0, octets: body.len() as u64 },
    ]
    .map(|body| Message { front: Bytes::new(), body })
}

async fn completed(body: &str) -> Result<String, Reply> {
    completed_for(submitted(), body).await
}

/// What a program on this machine, run by `root`, submits.
async fn trusted(body: &str) -> Result<String, Reply> {
    let root = ReversePath::parse("root@example.org").expect("valid");
    completed_for(Submitted { author: Author::Trusted(&root), with: "local", ..submitted() }, body).await
}

async fn completed_for(submitted: Submitted<'_>, body: &str) -> Result<String, Reply> {
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().to_owned();
    let accounts = tokio::task::spawn_blocking(move || accounts::tests::open(&folder)).await.expect("opened");
    let mut results = Vec::new();
    for message in both(body) {
        results.push(complete(&accounts, submitted, message).await.map(|message| text(&message)));
    }
    let file = results.pop().expect("two");
    let memory = results.pop().expect("two");
    // A Message-ID of ours is random.
    let steady = |result: &Result<String, Reply>| {
        result
            .clone()
            .map(|text| text.lines().filter(|line| !line.starts_with("Message-ID: <aeaq")).collect::<String>())
    };
    assert_eq!(steady(&memory), steady(&file), "the same wherever it lies");
    memory
}

#[tokio::test]
async fn what_is_there_is_kept_and_our_trace_put_in_front() {
    let body =
        "From: Alice <alice@example.org>\r\nSubject: a\r\n folded\r\nDate: x\r\nMessage-ID: <m@x>\r\n\r\nHi\r\n.\r\n";
    assert_eq!(completed(body).await, Ok(format!("{RECEIVED}{body}")));
}

#[tokio::test]
async fn what_is_missing_is_completed() {
    let text = completed("From: alice@example.org\r\nDate:\r\n\r\nHi\r\n").await.expect("taken");
    let (before, rest) = text.split_once("Message-ID: <").expect("named");
    assert_eq!(before, format!("{RECEIVED}From: alice@example.org\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"));
    let (id, body) = rest.split_once(">\r\n").expect("whole");
    let (name, domain) = id.split_once('@').expect("with a domain");
    assert_eq!((name.len(), &name[..17], domain), (33, "aeaqcaibaeaqcaib.", "example.org"));
    assert_eq!(body, "\r\nHi\r\n");
}

#[tokio::test]
async fn a_header_without_body_gets_its_empty_line() {
    for body in [
        "From: alice@example.org\r\nDate: x\r\nMessage-ID: <m@x>\r\n",
        "From: alice@example.org\r\nDate: x\r\nMessage-ID: <m@x>",
    ] {
        let expected = format!("{RECEIVED}From: alice@example.org\r\nDate: x\r\nMessage-ID: <m@x>\r\n\r\n");
        assert_eq!(completed(body).await, Ok(expected));
    }
}

#[tokio::test]
async fn nobody_learns_of_a_blind_copy() {
    let body = "BCC: secret@example.com,\r\n\tother@example.com\r\nResent-Bcc : x@example.com\r\nReturn-Path: <x@y>\r\n\
                From: alice@example.org\r\nDate: x\r\nMessage-ID: <m@x>\r\nBcc: last@example.com\r\n\r\nBcc: stays in the body\r\n";
    let expected =
        format!("{RECEIVED}From: alice@example.org\r\nDate: x\r\nMessage-ID: <m@x>\r\n\r\nBcc: stays in the body\r\n");
    assert_eq!(completed(body).await, Ok(expected));
}

#[tokio::test]
async fn authors_must_belong_to_the_login() {
    for (header, refused) in [
        ("From: Alice Example <alice@example.org>", None),
        ("From: alice+shop@example.org", None),
        ("From: \"bob@example.com\" <ALICE@Example.Org>", None),
        ("From: =?utf-8?q?J=C3=B6rg?= <alice@example.org>", None),
        ("From: alice@example.org\r\nSender: alice+desk@example.org", None),
        ("From: Team: alice@example.org;", None),
        ("From: bob@example.org", Some("bob@example.org does not belong")),
        ("From: Alice <alice@example.org>, Bob <bob@example.org>", Some("bob@example.org does not belong")),
        ("From: alice@example.org <evil@example.com>", Some("evil@example.com does not belong")),
        ("From: Team: alice@example.org, bob@example.org;", Some("bob@example.org does not belong")),
        ("From: alice@example.org\r\nSender: bob@example.org", Some("bob@example.org does not belong")),
        (
            "From: alice@example.org\r\nSender: alice@example.org\r\nSender: alice@example.org",
            Some("at most one Sender"),
        ),
        ("From: alice@example.org\r\nFrom: alice@example.org", Some("exactly one From")),
        ("From: alice@example.org\r\nfrom : bob@example.org", Some("exactly one From")),
        ("Subject: nobody", Some("exactly one From")),
        ("From: Alice", Some("no address")),
        ("From:", Some("no address")),
        ("From: undisclosed:;", Some("no address")),
        ("From: <alice@example.org> <evil@example.com>", Some("")),
        ("From: alice@example.org (x) evil@example.com", Some("")),
        ("Subject: x\r\nno field at all\r\nFrom: alice@example.org", Some("Line 2 of the message is no header field")),
        (" From: alice@example.org", Some("Line 1 of the message is no header field")),
        ("Fr\u{f6}m: x\r\nFrom: alice@example.org", Some("Line 1")),
    ] {
        let result = completed(&format!("{header}\r\n\r\nHi\r\n")).await;
        match refused {
            None => assert!(result.is_ok(), "{header}: {result:?}"),
            Some(words) => {
                let reply = result.expect_err(header);
                assert!(reply.text().contains(words), "{header}: {reply}");
                assert_eq!(reply.code() / 100, 5);
            }
        }
    }
}

#[tokio::test]
async fn lines_up_to_the_bound_are_taken_and_one_past_it_is_named() {
    let head = "From: alice@example.org\r\n\r\n";
    for (octets, end, taken) in [(998, "\r\n", true), (999, "\r\n", false), (998, "", true), (999, "", false)] {
        let body = format!("{head}short\r\n{}{end}", "x".repeat(octets));
        match completed(&body).await {
            Ok(_) => assert!(taken, "{octets} {end:?}"),
            Err(reply) => {
                assert!(!taken && reply.text().contains("Line 4 "), "{octets} {end:?}: {reply}");
                assert_eq!((reply.code(), reply.enhanced().map(|code| code.to_string())), (554, Some("5.6.0".into())));
            }
        }
    }
    // Across the pieces a file is read in.
    let long = format!("{head}{}{}\r\n", "ok\r\n".repeat(20_000), "x".repeat(200_000));
    assert!(completed(&long).await.expect_err("too long").text().contains("Line 20003 "));
}

#[tokio::test]
async fn a_header_past_its_bound_is_refused() {
    let body = format!("From: alice@example.org\r\n{}\r\n", "X: y\r\n".repeat(50_000));
    assert_eq!(completed(&body).await.expect_err("too big").code(), 552);
}

proptest! {
    #[test]
    fn any_header_is_refused_or_keeps_its_other_fields(
        fields in prop::collection::vec((0usize..8, "[ -~]{0,30}"), 0..12)
    ) {
        let names = ["From", "Bcc", "BCC ", "Subject", "Date", "Message-ID", "X-\u{7f}", "Received"];
        let mut header = String::from("From: alice@example.org\r\n");
        for (name, value) in &fields {
            header.extend([names[*name], ": ", value, "\r\n"]);
        }
        header.push_str("\r\n");
        if let Ok(fields) = Fields::of(header.as_bytes()) {
            let _ = fields.authors();
            let completed = fields.completed(submitted(), "example.org", [0; 8]);
            let again = Fields::of(&completed).expect("whole fields");
            prop_assert!(completed.ends_with(b"\r\n\r\n"));
            prop_assert!(!again.fields.iter().any(|field| field.is("Bcc")));
            let others = |fields: &Fields<'_>| {
                fields.fields.iter().filter(|field| field.is("Subject")).map(|field| field.value().to_vec()).collect::<Vec<_>>()
            };
            prop_assert_eq!(others(&fields), others(&again));
            for name in ["Date", "Message-ID"] {
                prop_assert!(again.fields.iter().any(|field| field.is(name) && !field.value().trim_ascii().is_empty()));
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(fields) = Fields::of(&bytes) {
            let _ = fields.authors();
            let _ = fields.completed(submitted(), "example.org", [0; 8]);
        }
    }
}

#[tokio::test]
async fn names_without_a_domain_get_ours() {
    const LOCAL: &str =
        "Received: by home.example.org with local id aeaqcaibaeaqcaib; Fri, 20 Nov 2026 12:00:00 +0000\r\n";
    for (given, taken) in [
        ("From: root (Cron Daemon)", "From: \"Cron Daemon\" <root@example.org>"),
        ("From: \"(Cron Daemon)\" <root>", "From: \"(Cron Daemon)\" <root@example.org>"),
        ("From: root", "From: <root@example.org>"),
        ("From: root@localhost", "From: <root@example.org>"),
        ("From: Root of all <root@RaspberryPi>", "From: \"Root of all\" <root@example.org>"),
        ("From: =?utf-8?Q?J=C3=B6rg?= <joerg>", "From: =?utf-8?B?SsO2cmc=?= <joerg@example.org>"),
        ("From: a@example.org\r\nTo: alice", "From: a@example.org\r\nTo: <alice@example.org>"),
        (
            "From: a@example.org\r\nCc: alice, Bob <bob@example.com>",
            "From: a@example.org\r\nCc: <alice@example.org>, \"Bob\" <bob@example.com>",
        ),
        ("From: x@nas.lan\r\nTo: undisclosed-recipients:;", "From: x@nas.lan\r\nTo: undisclosed-recipients:;"),
        ("From: a@example.org\r\nTo: x y z", "From: a@example.org\r\nTo: x y z"),
        ("Subject: none", "From: <root@example.org>\r\nSubject: none"),
    ] {
        let text = trusted(&format!("{given}\r\nDate: x\r\nMessage-ID: <m@x>\r\n\r\nHi\r\n")).await;
        let expected = format!("{LOCAL}{taken}\r\nDate: x\r\nMessage-ID: <m@x>\r\n\r\nHi\r\n");
        assert_eq!(text.expect(given), expected, "{given}");
    }
}

#[tokio::test]
async fn nobody_without_a_login_writes_in_a_strangers_name() {
    for field in
        ["From: x@example.com", "From: a@example.org\r\nSender: x@example.com", "From: a@example.org, x@example.com"]
    {
        let refused = trusted(&format!("{field}\r\n\r\nHi\r\n")).await.expect_err(field);
        assert_eq!(refused, Reply::sender_not_trusted("x@example.com"), "{field}");
    }
    assert_eq!(
        trusted("From: a@example.org\r\nFrom: b@example.org\r\n\r\n").await.map_err(|reply| reply.code()),
        Err(554)
    );
    // An empty message is one, too.
    assert!(trusted("").await.expect("taken").contains("\r\nFrom: <root@example.org>\r\n"));
}
