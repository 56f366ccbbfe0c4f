//! Strings as IMAP writes them (RFC 9051 §4.3): quoted, as a literal, or NIL. Pure.

/// Appends a string: quoted if it can be, else a literal.
pub fn put_string(into: &mut Vec<u8>, text: &[u8]) {
    let quotable = text.len() <= QUOTED_OCTETS_MAX
        && text.iter().all(|octet| matches!(octet, b'\t' | 0x20..=0x7e) && !matches!(octet, b'"' | b'\\'));
    if quotable {
        into.push(b'"');
        into.extend_from_slice(text);
        into.push(b'"');
    } else if text.len() <= QUOTED_OCTETS_MAX && text.iter().all(|octet| matches!(octet, b'\t' | 0x20..=0x7e)) {
        into.push(b'"');
        for octet in text {
            if matches!(octet, b'"' | b'\\') {
                into.push(b'\\');
            }
            into.push(*octet);
        }
        into.push(b'"');
    } else {
        put_literal(into, text);
    }
}

/// Octets of a quoted string; longer ones are literals, which every client reads.
const QUOTED_OCTETS_MAX: usize = 1000;

/// Appends a literal. NUL can't be in one (RFC 9051 §9 `CHAR8`), and 0x80 is what others put in its place.
pub fn put_literal(into: &mut Vec<u8>, text: &[u8]) {
    into.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
    let start = into.len();
    into.extend_from_slice(text);
    if memchr::memchr(0, text).is_some() {
        into[start..].iter_mut().filter(|octet| **octet == 0).for_each(|octet| *octet = 0x80);
    }
}

/// Appends a string, or NIL.
pub fn put_nstring(into: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => put_string(into, text),
        None => into.extend_from_slice(b"NIL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        let mut into = Vec::new();
        put_string(&mut into, text);
        into
    }

    #[test]
    fn strings_are_quoted_if_they_can_be() {
        assert_eq!(string(b""), b"\"\"");
        assert_eq!(string(b"a \"b\" \\"), b"\"a \\\"b\\\" \\\\\"");
        assert_eq!(string("ä".as_bytes()), b"{2}\r\n\xc3\xa4");
        assert_eq!(string(b"a\r\nb"), b"{4}\r\na\r\nb");
        assert_eq!(string(b"a\0b"), b"{3}\r\na\x80b");
        assert!(string(&[b'a'; QUOTED_OCTETS_MAX]).starts_with(b"\""));
        assert!(string(&[b'a'; QUOTED_OCTETS_MAX + 1]).starts_with(b"{1001}"));
    }
}
