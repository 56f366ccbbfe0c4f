//! Command lines off the wire: bounded, ended by CR LF and nothing else. A bare CR, a bare LF or a
//! NUL is an error, never an end of line.

use bytes::{Buf, BytesMut};
use memchr::memchr3;
use thiserror::Error;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// Over the bound. It was dropped up to its CR LF; the next line can be read.
    #[error("the line is too long")]
    TooLong,
    /// Nothing after it can be trusted.
    #[error("the line holds a bare CR, a bare LF or a NUL")]
    BareLineEnd,
}

/// Cuts lines out of a buffer.
#[derive(Debug, Default)]
pub struct LineReader {
    /// Inside a line that is too long: it is dropped as it comes.
    dropping: bool,
}

impl LineReader {
    /// The next line without its CR LF, or `None` if it has not come whole. `octets_max` counts the CR LF.
    pub fn next(&mut self, input: &mut BytesMut, octets_max: usize) -> Result<Option<BytesMut>, LineError> {
        match memchr3(b'\r', b'\n', 0, input) {
            Some(at) if input[at] == b'\r' && at + 1 < input.len() => {
                if input[at + 1] != b'\n' {
                    return Err(LineError::BareLineEnd);
                }
                let line = input.split_to(at);
                input.advance(2);
                if std::mem::take(&mut self.dropping) || at + 2 > octets_max {
                    return Err(LineError::TooLong);
                }
                Ok(Some(line))
            }
            Some(at) if input[at] != b'\r' => Err(LineError::BareLineEnd),
            // No end yet, or a CR that is the last octet so far.
            found => {
                if self.dropping || input.len() > octets_max {
                    self.dropping = true;
                    input.advance(found.unwrap_or(input.len()));
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(wire: &[u8], cut: usize, octets_max: usize) -> Vec<Result<String, LineError>> {
        let mut reader = LineReader::default();
        let mut input = BytesMut::new();
        let mut seen = Vec::new();
        for piece in wire.chunks(cut) {
            input.extend_from_slice(piece);
            loop {
                match reader.next(&mut input, octets_max) {
                    Ok(None) => break,
                    Ok(Some(line)) => seen.push(Ok(String::from_utf8_lossy(&line).into_owned())),
                    Err(LineError::TooLong) => seen.push(Err(LineError::TooLong)),
                    Err(LineError::BareLineEnd) => {
                        seen.push(Err(LineError::BareLineEnd));
                        return seen;
                    }
                }
            }
            assert!(input.len() <= octets_max, "the buffer grew to {}", input.len());
        }
        seen
    }

    #[test]
    fn only_crlf_ends_a_line() {
        for (wire, expected) in [
            (&b"QUIT\r\n"[..], vec![Ok("QUIT".to_owned())]),
            (b"\r\n\r\n", vec![Ok(String::new()), Ok(String::new())]),
            (b"QUIT\n", vec![Err(LineError::BareLineEnd)]),
            (b"QU\rIT\r\n", vec![Err(LineError::BareLineEnd)]),
            (b"QUIT\r\r\n", vec![Err(LineError::BareLineEnd)]),
            (b"QU\0IT\r\n", vec![Err(LineError::BareLineEnd)]),
            (b"QUIT\r", vec![]),
        ] {
            for cut in 1..=wire.len() {
                assert_eq!(lines(wire, cut, 100), expected, "{:?} by {cut}", wire.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn a_line_at_the_bound_passes_and_one_past_it_does_not() {
        for cut in 1..30 {
            assert_eq!(lines(b"12345678\r\nX\r\n", cut, 10), vec![Ok("12345678".into()), Ok("X".into())]);
            assert_eq!(lines(b"123456789\r\nX\r\n", cut, 10), vec![Err(LineError::TooLong), Ok("X".into())]);
            assert_eq!(
                lines(b"1234567890123456789012345\r\nX\r\n", cut, 10),
                vec![Err(LineError::TooLong), Ok("X".into())]
            );
        }
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(wire in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..40), cut in 1_usize..7) {
            prop_assert_eq!(lines(&wire, cut, 10), lines(&wire, 1, 10));
        }
    }
}
