use proptest::prelude::*;

use super::*;
use crate::mail::address::Address;

const ALL: Context<'_> = Context { dsn: true, auth: true, smtputf8: true, qualify: None };

fn parse(line: &str) -> Result<Command, Reply> {
    Command::parse(line.as_bytes(), Context::default())
}

fn code(line: &str, context: Context<'_>) -> u16 {
    match Command::parse(line.as_bytes(), context) {
        Ok(_) => 0,
        Err(reply) => reply.code(),
    }
}

fn sender(line: &str) -> String {
    match Command::parse(line.as_bytes(), ALL) {
        Ok(Command::Mail(mail)) => mail.reverse_path.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn verbs_in_any_case() {
    assert_eq!(parse("EHLO mail.example.org"), Ok(Command::Ehlo("mail.example.org".into())));
    assert_eq!(parse("helo [192.0.2.1] "), Ok(Command::Helo("[192.0.2.1]".into())));
    assert_eq!(parse("data"), Ok(Command::Data));
    assert_eq!(parse("DATA \t"), Ok(Command::Data));
    assert_eq!(parse("NOOP whatever"), Ok(Command::Noop));
    assert_eq!(parse("StartTls"), Ok(Command::StartTls));
    assert_eq!(parse("BDAT 10 LAST"), Ok(Command::Bdat));
    assert_eq!(parse("ETRN x"), Ok(Command::NotOffered));
}

#[test]
fn refused_lines() {
    for (line, expected) in [
        ("", 500),
        ("EHLOX a", 500),
        ("STARTTLSX", 500),
        ("DATA now", 501),
        ("STARTTLS now", 501),
        ("RSET 1", 501),
        ("QUIT 1", 501),
        ("EHLO", 501),
        ("EHLO jörg", 501),
        ("VRFY", 501),
        ("AUTH", 501),
        ("AUTH PLAIN not base64", 501),
        ("AUTH PLAIN AA", 501),
        ("MAIL", 501),
        ("MAIL <a@b.c>", 501),
        ("MAIL FROM:a@b.c", 501),
        ("MAIL FROM:<a@b.c", 501),
        ("MAIL FROM:<a@b.c>SIZE=1", 501),
        ("MAIL FROM:<a b@b.c>", 501),
        ("MAIL FROM:<a@b.c> SIZE=x", 501),
        ("MAIL FROM:<a@b.c> SIZE", 501),
        ("MAIL FROM:<a@b.c> SIZE=1 size=2", 501),
        ("MAIL FROM:<a@b.c> BODY=BINARYMIME", 501),
        ("MAIL FROM:<a@b.c> SMTPUTF8=1", 501),
        ("MAIL FROM:<a@b.c> =x", 501),
        ("MAIL FROM:<a@b.c> XYZ", 555),
        ("MAIL FROM:<a@b.c> RET=FULL", 555),
        ("MAIL FROM:<a@b.c> AUTH=<>", 555),
        ("MAIL FROM:<jörg@b.c>", 553),
        ("RCPT TO:<>", 501),
        ("RCPT TO:<alice>", 501),
        ("RCPT TO:<@a:>", 501),
        ("RCPT TO:<@a,b:c@d.e>", 501),
        ("RCPT TO:<@a c@d.e>", 501),
        ("RCPT TO:<jörg@b.c>", 553),
        ("RCPT TO:<a@b.c> NOTIFY=NEVER", 555),
        ("RCPT TO:<a@b.c> SIZE=1", 555),
    ] {
        assert_eq!(code(line, Context::default()), expected, "{line}");
    }
    for (line, expected) in [
        ("RCPT TO:<a@b.c> NOTIFY=NEVER,DELAY", 501),
        ("RCPT TO:<a@b.c> NOTIFY=", 501),
        ("RCPT TO:<a@b.c> NOTIFY=DELAY,DELAY", 501),
        ("RCPT TO:<a@b.c> ORCPT=a@b.c", 501),
        ("RCPT TO:<a@b.c> ORCPT=rfc822;a+0D+0AX", 501),
        ("MAIL FROM:<a@b.c> RET=ALL", 501),
        ("MAIL FROM:<a@b.c> ENVID=+0A", 501),
    ] {
        assert_eq!(code(line, ALL), expected, "{line}");
    }
    assert_eq!(code(&format!("EHLO {}", "a".repeat(255)), ALL), 0);
    assert_eq!(code(&format!("EHLO {}", "a".repeat(256)), ALL), 501);
    assert_eq!(code(&format!("MAIL FROM:<> ENVID={}", "a".repeat(100)), ALL), 0);
    assert_eq!(code(&format!("MAIL FROM:<> ENVID={}", "a".repeat(101)), ALL), 501);
}

#[test]
fn paths() {
    for (line, address) in [
        ("MAIL FROM:<a@b.c>", "a@b.c"),
        ("mail from:<a@b.c> ", "a@b.c"),
        ("MAIL FROM: <a@b.c>", "a@b.c"),
        ("MAIL FROM:<>", ""),
        ("MAIL FROM:<\"a> NOTIFY=NEVER\"@x.org>", "\"a> NOTIFY=NEVER\"@x.org"),
        ("MAIL FROM:<\"a\\\">b\"@x.org>", "\"a\\\">b\"@x.org"),
        ("MAIL FROM:<@one.example,@two.example:a@b.c>", "a@b.c"),
        ("MAIL FROM:<@[IPv6:2001:db8::1]:a@b.c>", "a@b.c"),
        ("MAIL FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"),
        ("MAIL FROM:<jörg@b.c> SMTPUTF8", "jörg@b.c"),
    ] {
        assert_eq!(sender(line), address, "{line}");
    }
    for name in ["Postmaster", "postmaster"] {
        let line = format!("RCPT TO:<{name}>");
        let Ok(Command::Rcpt(rcpt)) = parse(&line) else { panic!("{line}") };
        assert_eq!(rcpt.path, ForwardPath::Postmaster);
    }
}

#[test]
fn parameters() {
    let line = "MAIL FROM:<a@b.c> size=123 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=q+2B1 AUTH=<>";
    let expected = MailFrom {
        reverse_path: ReversePath::Address(Address::parse("a@b.c").expect("valid")),
        size: Some(123),
        body: BodyKind::EightBit,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("q+1".into()),
    };
    assert_eq!(Command::parse(line.as_bytes(), ALL), Ok(Command::Mail(expected)));

    let line = "RCPT TO:<a@b.c> NOTIFY=success,Delay ORCPT=rfc822;a+2Bb@c.d";
    let expected = RcptTo {
        path: ForwardPath::Address(Address::parse("a@b.c").expect("valid")),
        unqualified: false,
        notify: Notify::On { success: true, failure: false, delay: true },
        orcpt: Some("rfc822;a+b@c.d".into()),
    };
    assert_eq!(Command::parse(line.as_bytes(), ALL), Ok(Command::Rcpt(expected)));

    let Ok(Command::Mail(mail)) = parse("MAIL FROM:<> SIZE=99999999999999999999") else { panic!("refused") };
    assert_eq!(mail.size, Some(u64::MAX));
}

#[test]
fn logins() {
    let auth =
        |initial: Option<&str>| Ok(Command::Auth { mechanism: "PLAIN".into(), initial: initial.map(Secret::from) });
    assert_eq!(parse("AUTH PLAIN"), auth(None));
    assert_eq!(parse("AUTH PLAIN ="), auth(Some("")));
    assert_eq!(parse("AUTH PLAIN AGEAYg=="), auth(Some("\0a\0b")));
}

proptest! {
    #[test]
    fn any_line_is_a_command_or_a_refusal(line in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Err(reply) = Command::parse(&line, ALL) {
            prop_assert!((500..600).contains(&reply.code()));
        }
    }

    #[test]
    fn any_path_is_read_back_or_refused(path in "[a-c@\"\\\\><,:. é=]{0,16}", rest in "( [A-Z=;+]{0,8}){0,2}") {
        if let Ok(Command::Mail(mail)) = Command::parse(format!("MAIL FROM:<{path}>{rest}").as_bytes(), ALL) {
            let line = format!("MAIL FROM:<{}> SMTPUTF8", mail.reverse_path);
            prop_assert_eq!(sender(&line), mail.reverse_path.to_string());
        }
    }
}

#[test]
fn bare_names_get_a_domain_only_where_they_have_one() {
    let home = Domain::parse("example.org").expect("valid");
    let with = Context { qualify: Some(&home), ..ALL };
    let rcpt = |line: &str, context| match Command::parse(line.as_bytes(), context) {
        Ok(Command::Rcpt(rcpt)) => Ok((rcpt.path, rcpt.unqualified)),
        Ok(other) => panic!("{other:?}"),
        Err(reply) => Err(reply.code()),
    };
    let address = |text: &str| ForwardPath::Address(Address::parse(text).expect("valid"));
    for (line, expected) in [
        ("RCPT TO:<root>", Ok((address("root@example.org"), true))),
        ("RCPT TO:<\"a b\">", Ok((address("\"a b\"@example.org"), true))),
        ("RCPT TO:<postmaster>", Ok((ForwardPath::Postmaster, false))),
        ("RCPT TO:<root@b.c>", Ok((address("root@b.c"), false))),
        ("RCPT TO:<>", Err(501)),
        ("RCPT TO:<@>", Err(501)),
        ("RCPT TO:<a b>", Err(501)),
        ("RCPT TO:<\"a@b\">", Err(501)),
    ] {
        assert_eq!(rcpt(line, with), expected, "{line}");
    }
    assert_eq!(rcpt("RCPT TO:<root>", ALL), Err(501));
    let mail = |line: &str| match Command::parse(line.as_bytes(), with) {
        Ok(Command::Mail(mail)) => mail.reverse_path.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(mail("MAIL FROM:<printer>"), "printer@example.org");
    assert_eq!(mail("MAIL FROM:<>"), "");
    assert_eq!(mail("MAIL FROM:<postmaster@x.org>"), "postmaster@x.org");
}
