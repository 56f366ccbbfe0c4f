use proptest::prelude::*;

use super::address::addresses;
use super::*;

const MIXED: &str = "From: \"Doe, Jane\" <jane@example.org>\r\nSubject: =?utf-8?q?h=C3=A4?=\r\n\tmore\r\n\
    Content-Type: multipart/mixed; boundary=\"b 1\"\r\n\r\npreamble\r\n--b 1\r\n\r\nhello\r\n--b 1\r\n\
    Content-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\
    Content-Type: text/html; charset=utf-8\r\n\r\n<b>\r\n--x--\r\n--b 1\r\n\
    Content-Type: image/png; name=a.png\r\nContent-Disposition: attachment; filename=\"a \\\"b\\\".png\"\r\n\
    Content-Transfer-Encoding: BASE64\r\n\r\nAAAA\r\n--b 1--\r\nepilogue\r\n";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn at(message: &str, numbers: &[u32]) -> Option<String> {
    let part = Part::of(message.as_bytes());
    part.find(numbers).map(|part| message[part.body.clone()].to_owned())
}

#[test]
fn parts_are_found_by_their_numbers() {
    assert_eq!(at(MIXED, &[1]).as_deref(), Some("hello"));
    assert_eq!(at(MIXED, &[2, 1]).as_deref(), Some("<b>"));
    assert_eq!(at(MIXED, &[3]).as_deref(), Some("AAAA"));
    assert!(at(MIXED, &[2]).expect("a message").starts_with("Subject: in"));
    for none in [&[0][..], &[4], &[1, 2], &[2, 2], &[3, 1, 1]] {
        assert_eq!(at(MIXED, none), None, "{none:?}");
    }
    let plain = "Subject: x\r\n\r\nbody\r\n";
    assert_eq!(at(plain, &[1]).as_deref(), Some("body\r\n"));
    assert_eq!(at(plain, &[2]), None);
    let forwarded = "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner";
    assert_eq!(at(forwarded, &[1]).as_deref(), Some("inner"));
}

#[test]
fn structures_are_written_as_the_grammar_has_them() {
    let Structure { envelope, body, bodystructure } = structure(MIXED.as_bytes());
    assert_eq!(
        text(&envelope),
        "(NIL \"=?utf-8?q?h=C3=A4?=\tmore\" ((\"Doe, Jane\" NIL \"jane\" \"example.org\")) ((\"Doe, Jane\" NIL \"jane\" \
         \"example.org\")) ((\"Doe, Jane\" NIL \"jane\" \"example.org\")) NIL NIL NIL NIL NIL)"
    );
    assert_eq!(
        text(&body),
        "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 5 0)(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 121 \
         (NIL \"in\" NIL NIL NIL NIL NIL NIL NIL NIL) ((\"text\" \"html\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 3 0) \
         \"alternative\") 7)(\"image\" \"png\" (\"name\" \"a.png\") NIL NIL \"BASE64\" 4) \"mixed\")"
    );
    assert!(text(&bodystructure).contains("(\"attachment\" (\"filename\" \"a \\\"b\\\".png\")) NIL NIL"));
    assert!(text(&bodystructure).ends_with("\"mixed\" (\"boundary\" \"b 1\") NIL NIL NIL)"));
}

#[test]
fn addresses_are_read_as_people_write_them() {
    let show = |value: &str| -> Vec<String> {
        let part = |text: &Option<Vec<u8>>| {
            text.as_ref().map_or("NIL".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
        };
        let one = |address: &address::Address| {
            [&address.name, &address.route, &address.mailbox, &address.host].map(part).join("|")
        };
        addresses(value.as_bytes()).iter().map(one).collect()
    };
    for (value, expected) in [
        ("a@b", &["NIL|NIL|a|b"][..]),
        ("A B <a.c@b.d>, e@f", &["A B|NIL|a.c|b.d", "NIL|NIL|e|f"]),
        ("\"B, A\" <a@b>", &["B, A|NIL|a|b"]),
        ("a@b (Some One)", &["Some One|NIL|a|b"]),
        ("<@r:a@b>", &["NIL|@r|a|b"]),
        ("friends: a@b, c@d;", &["NIL|NIL|friends|NIL", "NIL|NIL|a|b", "NIL|NIL|c|d", "NIL|NIL|NIL|NIL"]),
        ("undisclosed-recipients:;", &["NIL|NIL|undisclosed-recipients|NIL", "NIL|NIL|NIL|NIL"]),
        ("\"a b\"@c", &["NIL|NIL|a b|c"]),
        ("a@[192.0.2.1]", &["NIL|NIL|a|[192.0.2.1]"]),
        ("root", &["NIL|NIL|root|"]),
        (", ,", &[]),
        ("J. Doe <j@d>", &["J. Doe|NIL|j|d"]),
    ] {
        assert_eq!(show(value), expected, "{value}");
    }
}

#[test]
fn depth_and_number_are_bounded() {
    let mut deep = String::new();
    for level in 0..500 {
        let part = format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n");
        deep.push_str(&part);
    }
    let part = Part::of(deep.as_bytes());
    assert!(part.find(&[1; DEPTH_MAX]).is_some() && part.find(&vec![1; DEPTH_MAX + 2]).is_none());
    let wide =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(PARTS_MAX + 50));
    let part = Part::of(wide.as_bytes());
    let last = u32::try_from(PARTS_MAX).expect("small");
    assert!(part.find(&[last]).is_some() && part.find(&[last + 1]).is_none());
}

#[test]
fn lines_get_their_ends() {
    assert_eq!(with_line_ends(b"a\nb\r\nc\n\n".to_vec()), b"a\r\nb\r\nc\r\n\r\n");
    assert_eq!(with_line_ends(b"a\r\nb".to_vec()), b"a\r\nb");
    assert_eq!(with_line_ends(b"\n".to_vec()), b"\r\n");
}

proptest! {
    #[test]
    fn whatever_was_sent_has_a_structure(message in prop::collection::vec(any::<u8>(), 0..400)) {
        let part = Part::of(&message);
        prop_assert!(part.body.end <= message.len());
        let _ = structure(&message);
    }

    #[test]
    fn whatever_looks_like_mail_has_a_structure(lines in prop::collection::vec(
        prop::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=a", "Content-Type: message/rfc822", "", "--a", "--a--", "From: (x <a@",
            "To: a:b;;<\"", "Content-Disposition: x; y=\"", " folded", "text", "Content-Type: multipart/digest; boundary=\"a\"",
        ]), 0..60)) {
        let _ = structure(lines.join("\r\n").as_bytes());
    }
}
