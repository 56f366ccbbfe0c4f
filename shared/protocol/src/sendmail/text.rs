//! Text as programs write it becomes a message: each line ends with CR LF, whatever ended it before; a lone
//! CR ends one too, so that none is left for another host to misread; a NUL is left out. A header that is missing, or ends without
//! an empty line, gets one; lines of the body too long for mail are broken.

use memchr::memchr3;

/// Longest line of a message without its CR LF, in octets (RFC 5322 §2.1.1).
const LINE_OCTETS_MAX: usize = 998;
/// Longest line held to be looked at: a longer one is no header field, and no dot.
const HELD_OCTETS_MAX: usize = 16 * 1024;

/// Takes text, gives a message.
#[derive(Debug)]
pub struct Composer {
    dot_is_text: bool,
    place: Place,
    /// The line so far, while it may still be a header field or the final dot.
    line: Vec<u8>,
    /// Octets of the present body line already given out.
    given: usize,
    /// One or more CR came, and what follows decides.
    after_cr: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first line.
    Start,
    /// In the header.
    Header,
    /// Behind it.
    Body,
}

impl Composer {
    /// With `dot_is_text`, a dot alone on a line does not end the text.
    pub fn new(dot_is_text: bool) -> Self {
        Self { dot_is_text, place: Place::Start, line: Vec::new(), given: 0, after_cr: false, ended: false }
    }

    /// The header is over: everything given out up to now is its section, with the empty line.
    pub fn is_in_body(&self) -> bool {
        self.place == Place::Body
    }

    /// A dot ended the text: what follows is not read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next bytes, and appends to `out` what they make.
    pub fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() && !self.ended {
            if self.after_cr {
                match bytes[0] {
                    // However many there are, they and the LF behind them end one line.
                    b'\r' => {
                        bytes = &bytes[1..];
                        continue;
                    }
                    b'\n' => bytes = &bytes[1..],
                    _ => {}
                }
                self.after_cr = false;
                self.end_line(out);
                continue;
            }
            let end = memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len());
            self.part(&bytes[..end], out);
            match bytes.get(end) {
                Some(b'\r') => self.after_cr = true,
                Some(b'\n') => self.end_line(out),
                _ => {}
            }
            bytes = bytes.get(end + 1..).unwrap_or_default();
        }
    }

    /// The text is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.ended && (self.after_cr || !self.line.is_empty() || self.given > 0) {
            self.end_line(out);
        }
        if self.place != Place::Body {
            // A header alone.
            out.extend_from_slice(b"\r\n");
            self.place = Place::Body;
        }
        self.ended = true;
    }

    /// A part of a line, without its end.
    fn part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        self.line.extend_from_slice(part);
        if self.place == Place::Body {
            // A dot alone is known at its line's end.
            if self.given > 0 || self.line.len() > 1 {
                self.give(out);
            }
        } else if self.line.len() > HELD_OCTETS_MAX {
            self.begin_body(out);
            self.give(out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if !self.dot_is_text && self.given == 0 && self.line == b"." {
            self.line.clear();
            self.ended = true;
            return;
        }
        if self.place != Place::Body {
            let first = self.place == Place::Start;
            if first && self.line.starts_with(b"From ") {
                // A line of an mbox file.
                self.line.clear();
                self.place = Place::Header;
                return;
            }
            if self.line.is_empty() {
                self.place = Place::Body;
            } else if is_field(&self.line)
                || (!first && self.line.starts_with(b" "))
                || (!first && self.line.starts_with(b"\t"))
            {
                self.place = Place::Header;
            } else {
                self.begin_body(out);
            }
            if self.place != Place::Body || self.line.is_empty() {
                out.append(&mut self.line);
                out.extend_from_slice(b"\r\n");
                return;
            }
        }
        self.give(out);
        self.given = 0;
        out.extend_from_slice(b"\r\n");
    }

    /// The line at hand is the first of the body, though no empty line came.
    fn begin_body(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.place = Place::Body;
    }

    /// Gives the body line so far out, broken where it is too long.
    fn give(&mut self, out: &mut Vec<u8>) {
        let mut rest = self.line.as_slice();
        while !rest.is_empty() {
            if self.given == LINE_OCTETS_MAX {
                out.extend_from_slice(b"\r\n");
                self.given = 0;
            }
            let (fits, more) = rest.split_at(rest.len().min(LINE_OCTETS_MAX - self.given));
            out.extend_from_slice(fits);
            self.given += fits.len();
            rest = more;
        }
        self.line.clear();
    }
}

/// `Name: …` (RFC 5322 §2.2).
fn is_field(line: &[u8]) -> bool {
    let end = line.iter().position(|&b| b == b':').unwrap_or(0);
    end > 0 && line[..end].trim_ascii_end().iter().all(|b| (b'!'..=b'~').contains(b)) && line[0] != b' '
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn composed(text: &[u8], dot_is_text: bool, piece: usize) -> Vec<u8> {
        let mut composer = Composer::new(dot_is_text);
        let mut out = Vec::new();
        for bytes in text.chunks(piece) {
            composer.take(bytes, &mut out);
        }
        composer.finish(&mut out);
        out
    }

    #[test]
    fn text_becomes_a_message() {
        for (text, expected) in [
            ("To: a\n\nHi\n", "To: a\r\n\r\nHi\r\n"),
            ("To: a\r\n\r\nHi\r\n", "To: a\r\n\r\nHi\r\n"),
            ("To: a\r\r\n\nHi", "To: a\r\n\r\nHi\r\n"),
            ("To: a\n b\n\tc\n\nHi", "To: a\r\n b\r\n\tc\r\n\r\nHi\r\n"),
            ("just words\nand more", "\r\njust words\r\nand more\r\n"),
            ("To: a\nno field here\nHi", "To: a\r\n\r\nno field here\r\nHi\r\n"),
            (" indented\n", "\r\n indented\r\n"),
            ("From root Fri Nov 20\nTo: a\n\nHi", "To: a\r\n\r\nHi\r\n"),
            ("", "\r\n"),
            ("To: a", "To: a\r\n\r\n"),
            ("To: a\n", "To: a\r\n\r\n"),
            ("\n\n.\nrest", "\r\n\r\n"),
            (".\nrest", "\r\n"),
            ("\n..\n.x\n", "\r\n..\r\n.x\r\n"),
            ("\n10%\r20%\r\n", "\r\n10%\r\n20%\r\n"),
            ("\nend\r", "\r\nend\r\n"),
            ("\na\0b\0\n\0.\nrest", "\r\nab\r\n"),
        ] {
            for piece in [1, 2, 3, 1000] {
                let found = composed(text.as_bytes(), false, piece);
                assert_eq!(String::from_utf8_lossy(&found), expected, "{text:?} by {piece}");
            }
        }
        assert_eq!(composed(b"\n.\nrest", true, 1000), b"\r\n.\r\nrest\r\n");
        assert_eq!(composed(b"\n.\r\nrest", false, 1), b"\r\n", "whatever ends its line");
    }

    #[test]
    fn long_lines_of_a_body_are_broken_at_the_bound() {
        for (octets, lines) in [(998, 1), (999, 2), (1996, 2), (1997, 3)] {
            let text = [b"\n", "x".repeat(octets).as_bytes(), b"\n"].concat();
            for piece in [1, 997, 100_000] {
                let found = composed(&text, true, piece);
                let found = String::from_utf8_lossy(&found);
                assert_eq!(found.lines().count(), 1 + lines, "{octets} by {piece}");
                assert!(found.lines().all(|line| line.len() <= LINE_OCTETS_MAX));
            }
        }
        let endless = vec![b'x'; 4 * HELD_OCTETS_MAX];
        assert!(composed(&endless, false, 5000).starts_with(b"\r\nxxx"));
    }

    proptest! {
        #[test]
        fn no_bare_line_end_is_left_and_pieces_do_not_matter(
            text in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b':'), Just(b'a'), Just(b' '), Just(0u8)], 0..40),
            piece in 1usize..8,
            dot_is_text: bool,
        ) {
            let whole = composed(&text, dot_is_text, 1000);
            prop_assert_eq!(&whole, &composed(&text, dot_is_text, piece));
            for (at, byte) in whole.iter().enumerate() {
                match byte {
                    b'\r' => prop_assert_eq!(whole.get(at + 1), Some(&b'\n')),
                    b'\n' => prop_assert!(at > 0 && whole[at - 1] == b'\r'),
                    0 => prop_assert!(false, "a NUL is left"),
                    _ => {}
                }
            }
            prop_assert!(whole.ends_with(b"\r\n"));
        }
    }
}
