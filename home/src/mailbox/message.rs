//! What a message is made of (RFC 2045, RFC 2046): its parts by their places in its octets. Nothing is decoded; whatever may
//! have been sent has a structure, and finding it costs time linear in its length, with bounds on depth and number. Pure.

pub mod address;
mod bodystructure;
mod envelope;
pub mod field;
pub mod string;

use std::ops::Range;

use self::field::ContentType;
use super::index::Structure;

/// Parts within parts; what lies deeper is not looked into.
pub const DEPTH_MAX: usize = 50;
/// Parts of one message; what comes after them is not parted.
pub const PARTS_MAX: usize = 2_000;
/// Octets of a header that are looked at for its fields.
pub const HEADER_OCTETS_MAX: usize = 1024 * 1024;

/// One part, or the whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its header, with the empty line.
    pub header: Range<usize>,
    /// What follows.
    pub body: Range<usize>,
    /// What it says it is.
    pub kind: ContentType,
    /// What is within.
    pub within: Within,
}

/// What is within a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// Nothing that is looked at.
    Leaf,
    /// Parts.
    Parts(Vec<Part>),
    /// A message.
    Message(Box<Part>),
}

impl Part {
    /// Reads a whole message.
    pub fn of(message: &[u8]) -> Self {
        let mut left = PARTS_MAX;
        read(message, 0..message.len(), "text/plain", 0, &mut left)
    }

    /// A part by the numbers of a section (RFC 9051 §6.4.5.1); none is the whole.
    pub fn find(&self, numbers: &[u32]) -> Option<&Self> {
        let Some((number, rest)) = numbers.split_first() else { return Some(self) };
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        match &self.within {
            Within::Parts(parts) => parts.get(at)?.find(rest),
            // A message's parts are numbered as if they were the part's that holds it.
            Within::Message(message) => match &message.within {
                Within::Parts(_) => message.find(numbers),
                _ if at == 0 => message.find_single(rest),
                _ => None,
            },
            Within::Leaf if at == 0 => self.find_single(rest),
            Within::Leaf => None,
        }
    }

    /// The one part that something without parts has is itself.
    fn find_single(&self, rest: &[u32]) -> Option<&Self> {
        match (&self.within, rest) {
            (_, []) => Some(self),
            (Within::Message(_), rest) => self.find(rest),
            _ => None,
        }
    }
}

/// What responses tell of a message.
pub fn structure(message: &[u8]) -> Structure {
    let part = Part::of(message);
    let mut structure = Structure::default();
    envelope::put(&mut structure.envelope, &message[part.header.clone()]);
    bodystructure::put(&mut structure.body, message, &part, false);
    bodystructure::put(&mut structure.bodystructure, message, &part, true);
    structure
}

/// The message as IMAP has it: every line end with its CR.
pub fn with_line_ends(message: Vec<u8>) -> Vec<u8> {
    let is_bare = |at: usize| at == 0 || message[at - 1] != b'\r';
    if !memchr::memchr_iter(b'\n', &message).any(is_bare) {
        return message;
    }
    let mut whole = Vec::with_capacity(message.len() + message.len() / 30 + 1);
    let mut from = 0;
    for at in memchr::memchr_iter(b'\n', &message) {
        if is_bare(at) {
            whole.extend_from_slice(&message[from..at]);
            whole.push(b'\r');
            from = at;
        }
    }
    whole.extend_from_slice(&message[from..]);
    whole
}

fn read(message: &[u8], place: Range<usize>, default: &str, depth: usize, left: &mut usize) -> Part {
    let start = place.start + header_octets(&message[place.clone()]);
    let (header, body) = (place.start..start, start..place.end);
    let kind = ContentType::of(&message[header.clone()], default);
    let within = if depth >= DEPTH_MAX || *left == 0 {
        Within::Leaf
    } else if kind.is("multipart") {
        match kind.parameter("boundary") {
            Some(boundary) if !boundary.is_empty() => {
                let default = if kind.subtype.eq_ignore_ascii_case("digest") { "message/rfc822" } else { "text/plain" };
                parts(message, body.clone(), boundary.as_bytes(), default, depth, left)
            }
            _ => Within::Leaf,
        }
    } else if kind.is("message") && matches!(kind.subtype.to_ascii_lowercase().as_str(), "rfc822" | "global") {
        *left -= 1;
        Within::Message(Box::new(read(message, body.clone(), "text/plain", depth + 1, left)))
    } else {
        Within::Leaf
    };
    Part { header, body, kind, within }
}

/// The parts between boundaries; none at all is a leaf.
fn parts(message: &[u8], body: Range<usize>, boundary: &[u8], default: &str, depth: usize, left: &mut usize) -> Within {
    let (mut parts, mut begun) = (Vec::new(), None);
    let mut line = body.start;
    while line < body.end {
        let end = memchr::memchr(b'\n', &message[line..body.end]).map_or(body.end, |at| line + at + 1);
        if let Some(last) = delimiter(&message[line..end], boundary) {
            if let Some(start) = begun.take() {
                if *left == 0 {
                    break;
                }
                *left -= 1;
                // The line end before a boundary is the boundary's.
                let stop = before_line_end(message, start, line);
                parts.push(read(message, start..stop, default, depth + 1, left));
            }
            if last {
                return if parts.is_empty() { Within::Leaf } else { Within::Parts(parts) };
            }
            begun = Some(end);
        }
        line = end;
    }
    if let Some(start) = begun.filter(|_| *left > 0) {
        *left -= 1;
        parts.push(read(message, start..body.end, default, depth + 1, left));
    }
    if parts.is_empty() { Within::Leaf } else { Within::Parts(parts) }
}

/// Whether a line is a boundary, and the last one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (rest, last) = rest.strip_prefix(b"--").map_or((rest, false), |rest| (rest, true));
    rest.iter().all(u8::is_ascii_whitespace).then_some(last)
}

fn before_line_end(message: &[u8], start: usize, line: usize) -> usize {
    let mut stop = line;
    if stop > start && message[stop - 1] == b'\n' {
        stop -= 1;
        if stop > start && message[stop - 1] == b'\r' {
            stop -= 1;
        }
    }
    stop
}

/// Octets of the header with its empty line; all of them if there is no such line.
pub fn header_octets(part: &[u8]) -> usize {
    if part.starts_with(b"\r\n") {
        return 2;
    }
    memchr::memmem::find(part, b"\r\n\r\n").map_or(part.len(), |at| at + 4)
}

#[cfg(test)]
mod tests;
