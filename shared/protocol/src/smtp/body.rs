//! The message of DATA (RFC 5321 §4.1.1.4, §4.5.2): finds its one true end, takes stuffed dots
//! out, and puts them in for the client. Bytes pass through as slices of the input buffer.
//!
//! Only CR LF ends a line and only CR LF . CR LF ends a message. A bare CR or LF never starts or
//! ends anything; it makes the message one to refuse, at its true end, so that nothing of its tail
//! is ever taken for a command. So does a NUL: hosts that drop it may then see a dot at a line's start.

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memchr3};
use thiserror::Error;

/// Why a message is refused, whatever the program thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// A CR without LF, or an LF without CR (RFC 5321 §2.3.8).
    BareLineEnd,
    /// A NUL, which no message may hold (RFC 5322 §2.2, RFC 6152 §3).
    Nul,
    /// More octets than allowed.
    TooBig,
}

/// What the decoder found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the message; never empty.
    Chunk(Bytes),
    /// From here on the message is only read to its end; said once.
    Faulty(BodyFault),
    /// The input is used up.
    NeedMore,
    /// The message is whole; what remains in the input follows it.
    End,
}

/// Where in a line the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// After CR LF, or at the very start.
    LineStart,
    /// After a dot at the start of a line; it was not passed on.
    Dot,
    /// After a dot at the start of a line and a CR; neither was passed on.
    DotCr,
    /// Inside a line.
    Inside,
    /// After a CR inside a line; it was passed on.
    Cr,
}

/// Takes a message off the wire.
#[derive(Debug)]
pub struct Decoder {
    place: Place,
    octets: u64,
    octets_max: u64,
    fault: Option<BodyFault>,
    fault_told: bool,
    ended: bool,
}

impl Decoder {
    /// Starts after the CR LF of DATA.
    pub fn new(octets_max: u64) -> Self {
        Self { place: Place::LineStart, octets: 0, octets_max, fault: None, fault_told: false, ended: false }
    }

    /// Octets passed on so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Why the message can't be taken.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault
    }

    /// Takes from the front of `input` as far as the message goes. Call again until it says
    /// [`Decoded::NeedMore`] or [`Decoded::End`].
    pub fn decode(&mut self, input: &mut BytesMut) -> Decoded {
        if let Some(fault) = self.fault
            && !std::mem::replace(&mut self.fault_told, true)
        {
            return Decoded::Faulty(fault);
        }
        if self.ended {
            return Decoded::End;
        }
        if input.is_empty() {
            return Decoded::NeedMore;
        }
        let (read, kept) = self.scan(input);
        let mut chunk = input.split_to(read);
        chunk.truncate(kept);
        let octets = u64::try_from(kept).unwrap_or(u64::MAX);
        if self.fault.is_none() && self.octets.saturating_add(octets) > self.octets_max {
            self.fault = Some(BodyFault::TooBig);
        }
        if self.fault.is_none() && kept > 0 {
            self.octets += octets;
            return Decoded::Chunk(chunk.freeze());
        }
        self.decode(input)
    }

    /// Walks over `input`, closing the gaps that stuffed dots leave. Gives how many bytes were
    /// read, and how many at the front are now message.
    fn scan(&mut self, input: &mut [u8]) -> (usize, usize) {
        let mut read = 0;
        let mut kept = Kept { start: 0, written: 0 };
        while let Some(&byte) = input.get(read) {
            match self.place {
                Place::LineStart if byte == b'.' => {
                    kept.close(input, read);
                    kept.start = read + 1;
                    self.place = Place::Dot;
                    read += 1;
                }
                Place::Dot if byte == b'\r' => {
                    kept.start = read + 1;
                    self.place = Place::DotCr;
                    read += 1;
                }
                Place::LineStart | Place::Dot => self.place = Place::Inside,
                Place::DotCr if byte == b'\n' => {
                    self.ended = true;
                    return (read + 1, kept.written);
                }
                Place::Cr if byte == b'\n' => {
                    self.place = Place::LineStart;
                    read += 1;
                }
                Place::Cr | Place::DotCr => {
                    self.bare();
                    self.place = Place::Inside;
                }
                Place::Inside => read = self.scan_lines(input, read),
            }
        }
        kept.close(input, read);
        (read, kept.written)
    }

    /// From inside a line, over whole lines that begin with no dot: the path nearly all bytes take.
    fn scan_lines(&mut self, input: &[u8], mut read: usize) -> usize {
        loop {
            let Some(at) = memchr3(b'\r', b'\n', 0, &input[read..]) else {
                return input.len();
            };
            read += at;
            match input[read..] {
                [0, ..] => {
                    self.fault.get_or_insert(BodyFault::Nul);
                    read += 1;
                }
                [b'\r', b'\n', next, ..] if next != b'.' => read += 2,
                [b'\r', ..] => {
                    self.place = Place::Cr;
                    return read + 1;
                }
                _ => {
                    self.bare();
                    read += 1;
                }
            }
        }
    }

    fn bare(&mut self) {
        self.fault.get_or_insert(BodyFault::BareLineEnd);
    }
}

/// The message so far within one input: written to its front, and a stretch not yet moved there.
struct Kept {
    start: usize,
    written: usize,
}

impl Kept {
    /// Moves the stretch that ends at `end` to where it belongs.
    fn close(&mut self, input: &mut [u8], end: usize) {
        if self.start >= end {
            return;
        }
        if self.start != self.written {
            input.copy_within(self.start..end, self.written);
        }
        self.written += end - self.start;
        self.start = end;
    }
}

/// The message holds a CR or LF on its own and must not go out: what one host reads as text,
/// another may read as its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message holds a bare CR or LF")]
pub struct BareLineEnd;

/// Puts a message on the wire.
#[derive(Debug)]
pub struct Encoder {
    place: Place,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { place: Place::LineStart }
    }
}

impl Encoder {
    /// Stuffs the next bytes of the message. What needs no dot passes through uncopied.
    pub fn encode(&mut self, bytes: Bytes) -> Result<Bytes, BareLineEnd> {
        let mut stuffed: Option<BytesMut> = None;
        let mut copied = 0;
        let mut read = 0;
        while read < bytes.len() {
            match self.place {
                Place::LineStart => {
                    if bytes[read] == b'.' {
                        let out =
                            stuffed.get_or_insert_with(|| BytesMut::with_capacity(bytes.len() + bytes.len() / 8 + 8));
                        out.extend_from_slice(&bytes[copied..=read]);
                        copied = read;
                    }
                    self.place = Place::Inside;
                }
                Place::Cr => {
                    if bytes[read] != b'\n' {
                        return Err(BareLineEnd);
                    }
                    self.place = Place::LineStart;
                    read += 1;
                }
                Place::Inside | Place::Dot | Place::DotCr => read = self.scan_lines(&bytes, read)?,
            }
        }
        Ok(match stuffed {
            None => bytes,
            Some(mut out) => {
                out.extend_from_slice(&bytes[copied..]);
                out.freeze()
            }
        })
    }

    /// From inside a line, over whole lines that begin with no dot: the path nearly all bytes take.
    fn scan_lines(&mut self, bytes: &[u8], mut read: usize) -> Result<usize, BareLineEnd> {
        loop {
            let Some(at) = memchr2(b'\r', b'\n', &bytes[read..]) else {
                return Ok(bytes.len());
            };
            read += at;
            match bytes[read..] {
                [b'\r', b'\n', next, ..] if next != b'.' => read += 2,
                [b'\r', ..] => {
                    self.place = Place::Cr;
                    return Ok(read + 1);
                }
                _ => return Err(BareLineEnd),
            }
        }
    }

    /// What ends the message. A last line without CR LF gets one.
    pub fn finish(self) -> Result<Bytes, BareLineEnd> {
        match self.place {
            Place::LineStart => Ok(Bytes::from_static(b".\r\n")),
            Place::Cr => Err(BareLineEnd),
            Place::Inside | Place::Dot | Place::DotCr => Ok(Bytes::from_static(b"\r\n.\r\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Whole(Vec<u8>),
        Fault(BodyFault),
        Unfinished,
    }

    /// Feeds `wire` in pieces of at most `cut` octets; gives what was seen and what was left over.
    fn decode(wire: &[u8], cut: usize, octets_max: u64) -> (Seen, Vec<u8>) {
        let mut decoder = Decoder::new(octets_max);
        let mut input = BytesMut::new();
        let mut message = Vec::new();
        let mut fault = None;
        let mut fed = 0;
        loop {
            match decoder.decode(&mut input) {
                Decoded::Chunk(chunk) => {
                    assert!(!chunk.is_empty() && fault.is_none());
                    message.extend_from_slice(&chunk);
                }
                Decoded::Faulty(why) => assert_eq!(fault.replace(why), None),
                Decoded::NeedMore if fed == wire.len() => return (Seen::Unfinished, input.to_vec()),
                Decoded::NeedMore => {
                    let next = (fed + cut).min(wire.len());
                    input.extend_from_slice(&wire[fed..next]);
                    fed = next;
                }
                Decoded::End => {
                    let rest = [&input[..], &wire[fed..]].concat();
                    assert_eq!(decoder.fault(), fault);
                    if let Some(why) = fault {
                        return (Seen::Fault(why), rest);
                    }
                    assert_eq!(decoder.octets(), message.len() as u64);
                    return (Seen::Whole(message), rest);
                }
            }
        }
    }

    #[test]
    fn finds_the_one_true_end() {
        let bare = || Seen::Fault(BodyFault::BareLineEnd);
        let cases: &[(&[u8], Seen, &[u8])] = &[
            (b".\r\nQUIT\r\n", Seen::Whole(b"".to_vec()), b"QUIT\r\n"),
            (b"\r\n.\r\n", Seen::Whole(b"\r\n".to_vec()), b""),
            (b"a\r\n.\r\nNOOP", Seen::Whole(b"a\r\n".to_vec()), b"NOOP"),
            (b"..\r\n.\r\n", Seen::Whole(b".\r\n".to_vec()), b""),
            (b"..a\r\n...\r\nx.y\r\n.z\r\n.\r\n", Seen::Whole(b".a\r\n..\r\nx.y\r\nz\r\n".to_vec()), b""),
            (b"ab\xff\r\n.\r\n", Seen::Whole(b"ab\xff\r\n".to_vec()), b""),
            (b"a\0b\r\n.\r\nX", Seen::Fault(BodyFault::Nul), b"X"),
            (b"\0.\r\n.\r\nX", Seen::Fault(BodyFault::Nul), b"X"),
            (b".\0\r\n.\r\nX", Seen::Fault(BodyFault::Nul), b"X"),
            (b"\r\n.\r\0\n.\r\n.\r\nX", bare(), b"X"),
            (b"a\n.\nMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\r.\rMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\r\n.\nMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\n.\r\nMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\r\n.\rMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\r.\r\nMAIL\r\n.\r\nX", bare(), b"X"),
            (b"a\r\r\n.\r\nX", bare(), b"X"),
            (b".\r\r\n.\r\nX", bare(), b"X"),
            (b".\rX\r\n.\r\nX", bare(), b"X"),
            (b".\n.\r\n.\r\nX", bare(), b"X"),
            (b"\n.\r\n\r\n.\r\nX", bare(), b"X"),
            (b"a\r\n.", Seen::Unfinished, b""),
            (b"a\r\n.\r", Seen::Unfinished, b""),
        ];
        for (wire, seen, rest) in cases {
            for cut in 1..=wire.len() {
                let got = decode(wire, cut, 1000);
                assert_eq!((&got.0, &got.1[..]), (seen, *rest), "{:?} by {cut}", wire.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn the_size_bound_holds_and_the_tail_is_swallowed() {
        for cut in 1..20 {
            assert_eq!(decode(b"12345678\r\n.\r\nQ", cut, 10).0, Seen::Whole(b"12345678\r\n".to_vec()));
            assert_eq!(decode(b"123456789\r\n.\r\nQ", cut, 10), (Seen::Fault(BodyFault::TooBig), b"Q".to_vec()));
            assert_eq!(decode(b"12345678\r\n..\r\n.\r\nQ", cut, 10), (Seen::Fault(BodyFault::TooBig), b"Q".to_vec()));
        }
    }

    #[test]
    fn text_without_stuffing_is_not_copied() {
        let mut input = BytesMut::from(&b"line\r\n.\r\n"[..]);
        let before = input.as_ptr();
        let Decoded::Chunk(chunk) = Decoder::new(100).decode(&mut input) else { panic!("no chunk") };
        assert_eq!(chunk.as_ptr(), before);
        let plain = Bytes::from_static(b"a\r\nb.c\r\n");
        assert_eq!(Encoder::default().encode(plain.clone()).expect("no bare line end").as_ptr(), plain.as_ptr());
    }

    #[test]
    fn a_bare_line_end_is_never_sent() {
        for text in ["a\n", "a\rb", "\n.\r\n", "\r\r\n", "a\r\n\n"] {
            assert_eq!(Encoder::default().encode(Bytes::from(text)), Err(BareLineEnd), "{text:?}");
        }
        let mut encoder = Encoder::default();
        assert!(encoder.encode(Bytes::from_static(b"a\r")).is_ok());
        assert_eq!(encoder.finish(), Err(BareLineEnd));
    }

    #[test]
    fn a_last_line_is_ended() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.encode(Bytes::from_static(b".a")), Ok(Bytes::from_static(b"..a")));
        assert_eq!(encoder.finish(), Ok(Bytes::from_static(b"\r\n.\r\n")));
    }

    /// The same rules, written as slowly and plainly as can be: split at CR LF, look at each line.
    fn reference(wire: &[u8]) -> Option<(Option<Vec<u8>>, usize)> {
        let mut message = Vec::new();
        let mut bare = false;
        let mut at = 0;
        loop {
            let end = wire[at..].windows(2).position(|two| two == b"\r\n")? + at;
            let line = &wire[at..end];
            at = end + 2;
            if line == b"." {
                return Some(((!bare).then_some(message), at));
            }
            bare |= line.iter().any(|b| b"\r\n\0".contains(b));
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            message.extend_from_slice(b"\r\n");
        }
    }

    fn text_of_ends() -> impl Strategy<Value = Vec<u8>> {
        let piece = proptest::sample::select(vec!["\r\n", "\r\n", "\r\n.", ".", "\r", "\n", "a", "\0"]);
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_reading(wire in text_of_ends(), cut in 1_usize..9) {
            let (seen, rest) = decode(&wire, cut, 1000);
            match reference(&wire) {
                None => prop_assert_eq!(seen, Seen::Unfinished),
                Some((message, at)) => {
                    prop_assert_eq!(rest, wire[at..].to_vec());
                    match message {
                        Some(message) => prop_assert_eq!(seen, Seen::Whole(message)),
                        None => prop_assert!(matches!(seen, Seen::Fault(_))),
                    }
                }
            }
        }

        #[test]
        fn what_is_stuffed_comes_back(
            lines in proptest::collection::vec("[.aé]{0,5}", 0..12), send in 1_usize..9, receive in 1_usize..9,
        ) {
            let message: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect();
            let mut encoder = Encoder::default();
            let mut wire = Vec::new();
            for piece in message.chunks(send) {
                wire.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(piece)).expect("only CR LF"));
            }
            wire.extend_from_slice(&encoder.finish().expect("only CR LF"));
            prop_assert_eq!(decode(&wire, receive, 1000), (Seen::Whole(message), Vec::new()));
        }
    }
}
