//! Commands off the wire (RFC 9051 §2.2.1, §4.3): lines that end in CR LF and the literals announced at their ends, put
//! together until a command is whole. Bounded: what is announced is judged before it is sent. Pure.

/// A line that ends in the announcement of a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Octets.
    pub octets: u64,
    /// The client waits to be asked for it.
    pub waits: bool,
    /// Where in the line the announcement begins, with its `~` if it has one.
    pub at: usize,
}

/// Reads the announcement at the end of a line (which still has its CR LF): `{12}`, `{12+}`, `~{12}`. A quoted string
/// ends in a quote, so nothing else ends like this.
pub fn announced(line: &[u8]) -> Option<Announced> {
    let line = line.strip_suffix(b"\r\n")?.strip_suffix(b"}")?;
    let open = line.iter().rposition(|octet| *octet == b'{')?;
    let (digits, waits) = match line[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&line[open + 1..], true),
    };
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Beyond any number there is: it is refused all the same.
    let octets = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    let at = if open > 0 && line[open - 1] == b'~' { open - 1 } else { open };
    Some(Announced { octets, waits, at })
}

/// The tag of a command, if what begins it is one (RFC 9051 §9 `tag`).
pub fn tag(command: &[u8]) -> Option<&str> {
    let end = command.iter().position(|octet| matches!(octet, b' ' | b'\r' | b'\n')).unwrap_or(command.len());
    let tag = &command[..end];
    let is_tag_octet = |octet: &u8| {
        octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'+' | b'"' | b'\\')
    };
    if tag.is_empty() || tag.len() > TAG_OCTETS_MAX || !tag.iter().all(is_tag_octet) {
        return None;
    }
    std::str::from_utf8(tag).ok()
}

/// Octets of a tag: clients use some ten.
pub const TAG_OCTETS_MAX: usize = 64;

/// The verb of a command, in upper case; of `UID FETCH` the `UID`.
pub fn verb(command: &[u8]) -> String {
    let rest = command.splitn(2, |octet| *octet == b' ').nth(1).unwrap_or_default();
    let end = rest.iter().position(|octet| !octet.is_ascii_alphanumeric()).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end.min(16)]).to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_are_announced_at_the_end_of_a_line() {
        let some = |octets, waits, at| Some(Announced { octets, waits, at });
        for (line, expected) in [
            (&b"a LOGIN {5}\r\n"[..], some(5, true, 8)),
            (b"a LOGIN {5+}\r\n", some(5, false, 8)),
            (b"a APPEND x ~{0}\r\n", some(0, true, 11)),
            (b"a X {99999999999999999999}\r\n", some(u64::MAX, true, 4)),
            (b"a LOGIN \"{5}\"\r\n", None),
            (b"a LOGIN {5}\n", None),
            (b"a LOGIN {-5}\r\n", None),
            (b"a LOGIN {}\r\n", None),
            (b"a LOGIN {+}\r\n", None),
            (b"{5}\r\n", some(5, true, 0)),
            (b"}\r\n", None),
        ] {
            assert_eq!(announced(line), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn tags_are_short_and_plain() {
        for (command, expected) in
            [(&b"a1 NOOP\r\n"[..], Some("a1")), (b"A.b-1\r\n", Some("A.b-1")), (b"* NOOP", None), (b" NOOP", None)]
        {
            assert_eq!(tag(command), expected);
        }
        let long = |octets| [vec![b'a'; octets], b" NOOP\r\n".to_vec()].concat();
        assert!(tag(&long(TAG_OCTETS_MAX)).is_some() && tag(&long(TAG_OCTETS_MAX + 1)).is_none());
        assert_eq!(verb(b"a uid FETCH 1"), "UID");
        assert_eq!(verb(b"a"), "");
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (announced(&bytes), tag(&bytes), verb(&bytes));
        }
    }
}
