//! The header section of a message (RFC 5322 §2.2), as bytes: a scan that runs beside a message
//! in transit and holds nothing of it, and whole fields of a section that is at hand.
//!
//! No line is ever rewritten here: a field is passed on, or dropped, as a whole with its folding.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;

/// Longest header section taken, in octets.
pub const HEADER_OCTETS_MAX: u64 = 1024 * 1024;

/// The field name that counts hops (RFC 5321 §6.3).
const RECEIVED: &[u8] = b"received";

/// Looks at a message's header as it passes: how many hops it has made, and whether it is too big.
#[derive(Clone, Debug)]
pub struct HeaderScan {
    place: Place,
    octets: u64,
    octets_max: u64,
    hops: u16,
}

/// Where in the header the scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the name of a field, of which so many octets are those of [`RECEIVED`].
    Name(usize),
    /// A CR is the first octet of this line.
    EmptyLine,
    /// Somewhere in a line whose name is settled.
    Rest,
    /// Past the empty line.
    Body,
}

impl Default for HeaderScan {
    fn default() -> Self {
        Self::new(HEADER_OCTETS_MAX)
    }
}

impl HeaderScan {
    /// A scan that calls a header of more than `octets_max` octets too big.
    pub fn new(octets_max: u64) -> Self {
        Self { place: Place::Name(0), octets: 0, octets_max, hops: 0 }
    }

    /// Looks at the next bytes of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            let used = match self.place {
                Place::Body => return,
                Place::Rest => match memchr(b'\n', bytes) {
                    Some(at) => {
                        self.place = Place::Name(0);
                        at + 1
                    }
                    None => bytes.len(),
                },
                Place::EmptyLine => {
                    self.place = if byte == b'\n' { Place::Body } else { Place::Rest };
                    1
                }
                Place::Name(0) if byte == b'\r' => {
                    self.place = Place::EmptyLine;
                    1
                }
                Place::Name(matched) => self.name(matched, byte),
            };
            self.octets = self.octets.saturating_add(u64::try_from(used).unwrap_or(u64::MAX));
            bytes = &bytes[used..];
        }
    }

    /// One octet of what may be the name `Received`; gives how many were used.
    fn name(&mut self, matched: usize, byte: u8) -> usize {
        if matched == RECEIVED.len() {
            match byte {
                b':' => self.hops = self.hops.saturating_add(1),
                // White space before the colon is obsolete and still read (RFC 5322 §4.5).
                b' ' | b'\t' => return 1,
                _ => {}
            }
        } else if byte.to_ascii_lowercase() == RECEIVED[matched] {
            self.place = Place::Name(matched + 1);
            return 1;
        }
        self.place = Place::Rest;
        0
    }

    /// Received fields seen so far.
    pub fn hops(&self) -> u16 {
        self.hops
    }

    /// The empty line that ends the header has come.
    pub fn is_over(&self) -> bool {
        self.place == Place::Body
    }

    /// The header is longer than it may be.
    pub fn is_too_big(&self) -> bool {
        self.octets > self.octets_max
    }
}

/// One field of a header section, with its folded lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    raw: &'a [u8],
    range: Range<usize>,
    name_octets: usize,
}

impl<'a> Field<'a> {
    /// The name as written; empty for a line that is no field.
    pub fn name(&self) -> &'a [u8] {
        self.raw[..self.name_octets].trim_ascii_end()
    }

    /// True if this is its name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// What follows the colon, folding and last line end included; all of a line that is no field.
    pub fn value(&self) -> &'a [u8] {
        if self.name_octets == 0 { self.raw } else { &self.raw[self.name_octets + 1..] }
    }

    /// The whole field, line end included.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where in the section it stands.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// The fields of a header section (or of a whole message: what follows the empty line is not looked at).
pub fn fields(section: &[u8]) -> Fields<'_> {
    Fields { section, at: 0 }
}

/// Iterates over the fields of a section; ends at the empty line.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    section: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = &self.section[self.at..];
        if rest.is_empty() || rest.starts_with(b"\r\n") {
            return None;
        }
        let mut end = line_end(rest, 0);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end = line_end(rest, end);
        }
        let raw = &rest[..end];
        let first_line = &raw[..line_end(raw, 0)];
        let name_octets = memchr(b':', first_line).filter(|&at| is_name(&first_line[..at])).unwrap_or(0);
        let range = self.at..self.at + end;
        self.at += end;
        Some(Field { raw, range, name_octets })
    }
}

/// Printable ASCII, and white space only behind it (RFC 5322 §2.2, §4.5).
fn is_name(text: &[u8]) -> bool {
    let name = text.trim_ascii_end();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// Just past the line that begins at `start`.
fn line_end(text: &[u8], start: usize) -> usize {
    memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at + 1)
}

/// Where the body begins: just past the empty line. `None` if the header has not ended.
pub fn body_start(message: &[u8]) -> Option<usize> {
    let end = fields(message).last().map_or(0, |field| field.range().end);
    message[end..].starts_with(b"\r\n").then_some(end + 2)
}

/// The section without the fields of these names; borrowed if there were none. What follows the
/// empty line stays.
pub fn without<'a>(section: &'a [u8], names: &[&str]) -> Cow<'a, [u8]> {
    without_those(section, |field| names.iter().any(|name| field.is(name)))
}

/// The section without the fields for which `goes` holds; borrowed if there were none. What follows the empty line
/// stays.
pub fn without_those(section: &[u8], goes: impl Fn(&Field<'_>) -> bool) -> Cow<'_, [u8]> {
    let mut kept = Cow::Borrowed(section);
    let mut copied = 0;
    for field in fields(section).filter(goes) {
        let Range { start, end } = field.range();
        match &mut kept {
            Cow::Borrowed(_) => kept = Cow::Owned(section[..start].to_vec()),
            Cow::Owned(text) => text.extend_from_slice(&section[copied..start]),
        }
        copied = end;
    }
    if let Cow::Owned(text) = &mut kept {
        text.extend_from_slice(&section[copied..]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(message: &[u8], cut: usize) -> HeaderScan {
        let mut scan = HeaderScan::new(100);
        message.chunks(cut).for_each(|piece| scan.feed(piece));
        scan
    }

    #[test]
    fn hops_are_counted_in_the_header_only() {
        for (message, hops, over) in [
            ("", 0, false),
            ("\r\nReceived: x\r\n", 0, true),
            ("Received: a\r\nRECEIVED:b\r\n\tReceived: folded\r\nreceived \t: c\r\n\r\nReceived: d\r\n", 3, true),
            ("X-Received: a\r\nReceivedX: b\r\nReceived\r\nReceive: c\r\n\r\n", 0, true),
            ("Received-SPF: pass\r\nReceived: a", 1, false),
            ("Subject: x\r\n \r\nReceived: a\r\n\r\n", 1, true),
            ("\r Received: x\r\n", 0, false),
        ] {
            for cut in 1..=message.len().max(1) {
                let scan = scan(message.as_bytes(), cut);
                assert_eq!((scan.hops(), scan.is_over()), (hops, over), "{message:?} by {cut}");
            }
        }
    }

    #[test]
    fn the_header_bound_holds() {
        let at = format!("A: {}\r\n\r\n", "x".repeat(93));
        assert_eq!(at.len(), 100);
        for cut in [1, 7, 200] {
            assert!(!scan(format!("{at}{}", "body".repeat(100)).as_bytes(), cut).is_too_big());
            assert!(scan(format!("B{at}").as_bytes(), cut).is_too_big());
            assert!(scan(&b"a: b\r\n".repeat(17), cut).is_too_big());
        }
        let mut flood = HeaderScan::default();
        for _ in 0..100_000 {
            flood.feed(b"Received: from a by b; c\r\n");
        }
        assert!(flood.is_too_big());
        assert_eq!(flood.hops(), u16::MAX);
    }

    #[test]
    fn fields_come_whole() {
        let section = b"From: a\r\nTo : b,\r\n c\r\n\td\r\nno field\r\nBcc:x\r\n\r\nBody: no\r\n";
        let seen: Vec<_> = fields(section).map(|f| (f.name().to_vec(), f.value().to_vec())).collect();
        let expected = [
            (&b"From"[..], &b" a\r\n"[..]),
            (b"To", b" b,\r\n c\r\n\td\r\n"),
            (b"", b"no field\r\n"),
            (b"Bcc", b"x\r\n"),
        ];
        assert_eq!(seen.len(), expected.len());
        for (seen, expected) in seen.iter().zip(expected) {
            assert_eq!((seen.0.as_slice(), seen.1.as_slice()), expected);
        }
        assert_eq!(body_start(section), Some(section.len() - 10));
        assert_eq!(body_start(b"From: a\r\n"), None);
        assert_eq!(body_start(b"\r\nx"), Some(2));
    }

    #[test]
    fn whole_fields_are_dropped() {
        let section = b"Bcc: a\r\nFrom: a\r\nBCC: b,\r\n c\r\nTo: d\r\nbcc:\r\n\r\nBcc: body\r\n";
        assert_eq!(&*without(section, &["Bcc"]), b"From: a\r\nTo: d\r\n\r\nBcc: body\r\n");
        assert_eq!(&*without(section, &["bcc", "To", "from"]), b"\r\nBcc: body\r\n");
        assert!(matches!(without(section, &["Subject"]), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn fields_and_body_are_the_message(message in "([A-Ca-c: \t]{0,4}|\r\n){0,12}") {
            let message = message.as_bytes();
            let section: Vec<u8> = fields(message).flat_map(|field| field.raw().to_vec()).collect();
            prop_assert!(message.starts_with(&section));
            prop_assert_eq!(without(message, &[]), message);
            let start = body_start(message);
            prop_assert_eq!(start.is_some(), scan(message, 3).is_over());
            if let Some(start) = start {
                prop_assert_eq!(section.len() + 2, start);
            }
        }
    }
}
