//! A server's replies off the wire (RFC 5321 §4.2): bounded lines, a bounded number of them, one
//! code; anything else is an error and the connection no good. Nothing can be smuggled through a
//! reply, so a line may end in LF alone: to call such a 250 no reply would send the message again.

use bytes::{Buf, BytesMut};
use thiserror::Error;

use crate::mail::reply::{Enhanced, REPLY_LINES_MAX, REPLY_OCTETS_MAX, Reply};

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// A line over its bound.
    #[error("The host sent a reply line that is too long")]
    LineTooLong,
    /// More than [`REPLY_LINES_MAX`] lines or [`REPLY_OCTETS_MAX`] octets.
    #[error("The host sent a reply that is too long")]
    TooLong,
    /// No code, or another than the line before.
    #[error("The host sent something that is no reply")]
    Malformed,
}

/// Puts replies together from lines.
#[derive(Debug)]
pub struct ReplyReader {
    line_octets_max: usize,
    /// The code and the text of the lines so far.
    open: Option<(u16, Vec<String>)>,
    octets: usize,
}

impl ReplyReader {
    /// Lines of at most so many octets, their end included.
    pub fn new(line_octets_max: usize) -> Self {
        Self { line_octets_max, open: None, octets: 0 }
    }

    /// The next whole reply, or `None` if it has not come.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(line) = self.line(input)? else { return Ok(None) };
            let (code, more, text) = parse(&line).ok_or(ReplyError::Malformed)?;
            let (first_code, texts) = self.open.get_or_insert_with(|| (code, Vec::new()));
            self.octets += text.len();
            if *first_code != code {
                return Err(ReplyError::Malformed);
            }
            if texts.len() >= REPLY_LINES_MAX || self.octets > REPLY_OCTETS_MAX {
                return Err(ReplyError::TooLong);
            }
            texts.push(text);
            if !more {
                self.octets = 0;
                return Ok(self.open.take().map(|(code, texts)| whole(code, texts)));
            }
        }
    }
}

impl ReplyReader {
    /// The next line without its end, or `None` if it has not come whole.
    fn line(&self, input: &mut BytesMut) -> Result<Option<BytesMut>, ReplyError> {
        let Some(at) = memchr::memchr(b'\n', input) else {
            let too_long = input.len() > self.line_octets_max;
            return if too_long { Err(ReplyError::LineTooLong) } else { Ok(None) };
        };
        if at + 1 > self.line_octets_max {
            return Err(ReplyError::LineTooLong);
        }
        let mut line = input.split_to(at);
        input.advance(1);
        if line.last() == Some(&b'\r') {
            line.truncate(at - 1);
        }
        Ok(Some(line))
    }
}

/// Code, whether more lines follow, text.
fn parse(line: &[u8]) -> Option<(u16, bool, String)> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(digits[0], b'2'..=b'5') {
        return None;
    }
    let code = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let more = match rest.first() {
        None | Some(b' ') => false,
        Some(b'-') => true,
        Some(_) => return None,
    };
    Some((code, more, String::from_utf8_lossy(rest.get(1..).unwrap_or_default()).into_owned()))
}

/// Takes the enhanced code off the lines: it counts if its class is the code's, and each line that
/// repeats it loses it.
fn whole(code: u16, texts: Vec<String>) -> Reply {
    let enhanced = texts
        .first()
        .and_then(|text| Enhanced::split(text))
        .map(|(enhanced, _)| enhanced)
        .filter(|enhanced| enhanced.0 == code / 100);
    let strip = |text: String| match Enhanced::split(&text) {
        Some((found, rest)) if Some(found) == enhanced => rest.to_owned(),
        _ => text,
    };
    Reply::new(code, enhanced, texts.into_iter().map(strip).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(wire: &[u8], cut: usize) -> Result<Vec<Reply>, ReplyError> {
        let mut reader = ReplyReader::new(100);
        let mut input = BytesMut::new();
        let mut replies = Vec::new();
        for piece in wire.chunks(cut) {
            input.extend_from_slice(piece);
            while let Some(reply) = reader.next(&mut input)? {
                replies.push(reply);
            }
        }
        Ok(replies)
    }

    #[test]
    fn reads_replies() {
        for (wire, expected) in [
            ("250 OK\r\n", vec![Reply::new(250, None, vec!["OK".into()])]),
            ("250\r\n", vec![Reply::new(250, None, vec![String::new()])]),
            ("550 5.1.1 gone\r\n", vec![Reply::new(550, Some(Enhanced(5, 1, 1)), vec!["gone".into()])]),
            ("550 4.1.1 odd\r\n", vec![Reply::new(550, None, vec!["4.1.1 odd".into()])]),
            ("250-a\r\n250 b\r\n", vec![Reply::new(250, None, vec!["a".into(), "b".into()])]),
            ("250-a\n250 b\n", vec![Reply::new(250, None, vec!["a".into(), "b".into()])]),
            ("250 a\0\rb\r\n", vec![Reply::new(250, None, vec!["a  b".into()])]),
            (
                "550-5.1.1 a\r\n550 5.1.1 b\r\n354 go\r\n",
                vec![
                    Reply::new(550, Some(Enhanced(5, 1, 1)), vec!["a".into(), "b".into()]),
                    Reply::new(354, None, vec!["go".into()]),
                ],
            ),
        ] {
            for cut in 1..=wire.len() {
                assert_eq!(read(wire.as_bytes(), cut), Ok(expected.clone()), "{wire:?}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for (wire, error) in [
            ("hello\r\n", ReplyError::Malformed),
            ("25\r\n", ReplyError::Malformed),
            ("150 x\r\n", ReplyError::Malformed),
            ("650 x\r\n", ReplyError::Malformed),
            ("250x\r\n", ReplyError::Malformed),
            ("250-a\r\n251 b\r\n", ReplyError::Malformed),
            ("\n", ReplyError::Malformed),
        ] {
            assert_eq!(read(wire.as_bytes(), 100), Err(error), "{wire:?}");
        }
    }

    #[test]
    fn a_reply_has_bounds() {
        let at = |lines: usize| ["250-x\r\n".repeat(lines - 1), "250 x\r\n".into()].concat();
        assert!(read(at(REPLY_LINES_MAX).as_bytes(), 7).is_ok());
        assert_eq!(read(at(REPLY_LINES_MAX + 1).as_bytes(), 7), Err(ReplyError::TooLong));
        let long = format!("250 {}\r\n", "x".repeat(95));
        assert_eq!(read(long.as_bytes(), 7), Err(ReplyError::LineTooLong));
        assert!(read(&long.as_bytes()[1..], 7).is_err());
    }

    proptest! {
        #[test]
        fn our_own_replies_come_back(code in 200_u16..600, lines in proptest::collection::vec("[a-z .0-9]{0,20}", 1..5)) {
            let enhanced = matches!(code / 100, 2 | 4 | 5).then_some(Enhanced(code / 100, 1, 2));
            let reply = Reply::new(code, enhanced, lines);
            prop_assume!(enhanced.is_some() || reply.lines().iter().all(|line| Enhanced::split(line).is_none()));
            prop_assert_eq!(read(&reply.wire(), 3), Ok(vec![reply]));
        }
    }
}
