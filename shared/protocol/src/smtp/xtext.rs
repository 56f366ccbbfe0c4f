//! xtext (RFC 3461 §4): printable ASCII, everything else (and `+`, `=`) as `+` and two hex digits.
//! What is decoded here may stand in a header field: no control characters, ASCII only.

use std::fmt::Write as _;

/// Decodes; `None` if it is not xtext, or does not decode to printable ASCII.
pub fn decode(value: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let byte = match byte {
            b'+' => hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        };
        text.push(Some(char::from(byte)).filter(|c| matches!(c, ' '..='~'))?);
    }
    Some(text)
}

/// Encodes. Non-ASCII is encoded octet by octet.
pub fn encode(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' => write!(value, "+{byte:02X}").expect("a string takes any text"),
            b'!'..=b'~' => value.push(char::from(byte)),
            _ => write!(value, "+{byte:02X}").expect("a string takes any text"),
        }
    }
    value
}

/// One hex digit, upper case as the RFC wants, lower case as some write it.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_what_may_stand_in_a_header() {
        for (value, text) in [
            ("abc", Some("abc")),
            ("a+2Bb+3D", Some("a+b=")),
            ("a+20b", Some("a b")),
            ("a+2bb", Some("a+b")),
            ("a+", None),
            ("a+2", None),
            ("a+GG", None),
            ("a=b", None),
            ("a+0D+0A", None),
            ("a+00", None),
            ("a+FF", None),
            ("a b", None),
        ] {
            assert_eq!(decode(value.as_bytes()).as_deref(), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(text in "[ -~]{0,40}") {
            prop_assert_eq!(decode(encode(&text).as_bytes()), Some(text));
        }
    }
}
