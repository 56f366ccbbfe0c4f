//! The settings of mail programs, as each kind of program asks for them by HTTP. Pure: what is asked is read, what is
//! answered is written, and every text that stands in an answer is escaped by the writer.
//!
//! Nothing in here knows who has an account: every address of a domain gets the same answer.

pub mod apple;
pub mod outlook;
pub mod thunderbird;

use std::borrow::Cow;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use crate::mail::address::Address;
use crate::mail::report::aggregate::referred;

/// Octets of an address that is read out of a request, percent-encoded at most.
const ADDRESS_OCTETS_MAX: usize = 3 * 320;

/// An address given as this parameter of a query, percent-encoded. A `+` is one: no address has blanks that matter here.
pub fn address_of_query(query: &str, names: &[&str]) -> Option<Address> {
    let mut parts = query.split('&').filter_map(|part| part.split_once('='));
    let (_, value) = parts.find(|(name, _)| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)))?;
    if value.len() > ADDRESS_OCTETS_MAX {
        return None;
    }
    Address::parse(&percent_decoded(value)?).ok()
}

/// Percent-decoded (RFC 3986 §2.1); `None` if it is badly encoded, or no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            octets.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok()
}

/// Writes a document; elements are closed in the order they were opened.
struct Document(Writer<Vec<u8>>);

// Writing to memory can't fail: the results are dropped throughout.
impl Document {
    fn new() -> Self {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        let _ = writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        Self(writer)
    }

    /// An element with what is in it.
    fn within(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Self)) {
        let mut start = BytesStart::new(name);
        for (key, value) in attributes {
            start.push_attribute((*key, *value));
        }
        let _ = self.0.write_event(Event::Start(start));
        inside(self);
        let _ = self.0.write_event(Event::End(BytesEnd::new(name)));
    }

    /// An element with a text in it.
    fn text(&mut self, name: &str, text: &str) {
        let _ = self.0.write_event(Event::Start(BytesStart::new(name)));
        let _ = self.0.write_event(Event::Text(BytesText::new(&sayable(text))));
        let _ = self.0.write_event(Event::End(BytesEnd::new(name)));
    }

    fn empty(&mut self, name: &str) {
        let _ = self.0.write_event(Event::Empty(BytesStart::new(name)));
    }

    fn done(self) -> Vec<u8> {
        let mut text = self.0.into_inner();
        text.push(b'\n');
        text
    }
}

/// Without the letters that no XML may hold, however they are written (XML 1.0 §2.2).
fn sayable(text: &str) -> Cow<'_, str> {
    let may_stand = |letter: char| !matches!(letter, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if text.chars().all(may_stand) { Cow::Borrowed(text) } else { text.chars().filter(|c| may_stand(*c)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_out_of_a_query() {
        let read =
            |query: &str| address_of_query(query, &["emailaddress", "address"]).map(|address| address.to_string());
        for (query, expected) in [
            ("emailaddress=alice%40example.org", Some("alice@example.org")),
            ("a=b&EmailAddress=alice@example.org&c", Some("alice@example.org")),
            ("address=alice+shop@example.org", Some("alice+shop@example.org")),
            ("address=J%C3%BCrgen@example.org", Some("Jürgen@example.org")),
            ("address=alice%4", None),
            ("address=alice%zz@example.org", None),
            ("address=%ff@example.org", None),
            ("address=alice", None),
            ("address=a%00b@example.org", None),
            ("address=%3Cb%3E%20@example.org", None),
            ("other=alice@example.org", None),
            ("", None),
        ] {
            assert_eq!(read(query).as_deref(), expected, "{query}");
        }
        assert_eq!(read(&format!("address={}@example.org", "%61".repeat(400))), None);
    }

    #[test]
    fn nothing_that_is_said_becomes_markup() {
        let mut document = Document::new();
        document.within("a", &[("b", "\"<&'")], |inside| inside.text("c", "</c>&x;\u{0}\u{1}]]>"));
        let text = String::from_utf8(document.done()).expect("UTF-8");
        assert!(text.contains("<a b=\"&quot;&lt;&amp;"), "{text}");
        assert!(text.contains("<c>&lt;/c&gt;&amp;x;]]&gt;</c>"), "{text}");
    }
}
