//! A whole message as it lies at home before delivery: in memory if small, else in an unlinked
//! temporary file. Fields to be written in front are kept beside the body. Bytes are never changed
//! here; what a message needs is put in front of it, or takes the place of its header.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_protocol::mail::header;
use gatepost_runtime::durable::{Draft, DurableError};

/// Bodies up to this many octets stay in memory.
pub const MEMORY_OCTETS_MAX: usize = 256 * 1024;
/// Octets read from a file at a time.
const READ_OCTETS: usize = 64 * 1024;

/// A message. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Message {
    /// Header fields to be written in front, each ended by CRLF.
    pub front: Bytes,
    /// The rest, as received.
    pub body: Body,
}

/// Bytes as received.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Memory(Arc<[Bytes]>),
    /// In a file, from `skip` on.
    File {
        /// The file.
        file: Arc<File>,
        /// Octets at its start that are not part of the message any more (a replaced header).
        skip: u64,
        /// Octets from there on.
        octets: u64,
    },
}

impl Message {
    /// Octets, front included.
    pub fn octets(&self) -> u64 {
        self.front.len() as u64 + self.body.octets()
    }

    /// The header section of front and body (up to and with the empty line; all of it if there is no empty
    /// line), at most `octets_max`; `None` if longer.
    pub fn header(&self, octets_max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut header = Vec::with_capacity(READ_OCTETS.min(octets_max));
        if self.front.len() > octets_max {
            return Ok(None);
        }
        header.extend_from_slice(&self.front);
        let mut seen = 0;
        let mut chunks = self.body.chunks();
        loop {
            if let Some(end) = header_end(&header, seen) {
                header.truncate(end);
                return Ok((end <= octets_max).then_some(header));
            }
            if header.len() > octets_max {
                return Ok(None);
            }
            seen = header.len();
            match chunks.next().transpose()? {
                Some(chunk) => header.extend_from_slice(&chunk),
                None => return Ok(Some(header)),
            }
        }
    }

    /// The same message with these fields in front of all others.
    #[must_use]
    pub fn with_fields(&self, fields: &[u8]) -> Self {
        let front = if fields.is_empty() { self.front.clone() } else { [fields, &self.front].concat().into() };
        Self { front, body: self.body.clone() }
    }

    /// Its Message-ID, if one stands where a header's beginning is expected to hold it. Blocking for a body in a
    /// file.
    pub fn message_id(&self) -> Option<String> {
        let start = self.body.chunks().next()?.ok()?;
        let field = header::fields(&start).find(|field| field.is("Message-ID"))?;
        Some(String::from_utf8_lossy(field.value()).trim().to_owned())
    }

    /// Writes front and body into a draft.
    pub fn write_to(&self, draft: &mut Draft) -> Result<(), DurableError> {
        self.write_after(Vec::new(), draft)
    }

    /// Writes these fields, then front and body; a message in memory by one write.
    pub fn write_after(&self, mut fields: Vec<u8>, draft: &mut Draft) -> Result<(), DurableError> {
        match &self.body {
            Body::Memory(parts) => {
                let octets: usize = parts.iter().map(Bytes::len).sum();
                fields.reserve(self.front.len() + octets);
                fields.extend_from_slice(&self.front);
                for part in parts.iter() {
                    fields.extend_from_slice(part);
                }
                draft.write(&fields)
            }
            Body::File { file, skip, octets } => {
                fields.extend_from_slice(&self.front);
                draft.write(&fields)?;
                draft.append_file(file, *skip, skip.saturating_add(*octets)).map(|_| ())
            }
        }
    }
}

impl Body {
    /// Octets.
    pub fn octets(&self) -> u64 {
        match self {
            Self::Memory(parts) => parts.iter().map(|part| part.len() as u64).sum(),
            Self::File { octets, .. } => *octets,
        }
    }

    /// The bytes, in pieces, in order. Blocking where they lie in a file.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks { body: self, position: 0 }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory([Bytes::from(bytes)].into())
    }
}

/// The pieces of a [`Body`].
#[derive(Debug)]
pub struct Chunks<'a> {
    body: &'a Body,
    // Index of the next part in memory, or octets read from the file.
    position: u64,
}

impl Iterator for Chunks<'_> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.body {
            Body::Memory(parts) => {
                let part = parts.get(usize::try_from(self.position).ok()?)?;
                self.position += 1;
                Some(Ok(part.clone()))
            }
            Body::File { file, skip, octets } => {
                let left = octets.saturating_sub(self.position);
                if left == 0 {
                    return None;
                }
                let mut buffer = vec![0; usize::try_from(left).unwrap_or(READ_OCTETS).min(READ_OCTETS)];
                let result = file.read_exact_at(&mut buffer, skip + self.position);
                self.position += buffer.len() as u64;
                Some(result.map(|()| Bytes::from(buffer)))
            }
        }
    }
}

/// Where the header section ends, with its empty line. `seen` octets were searched before.
fn header_end(bytes: &[u8], seen: usize) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let from = seen.saturating_sub(3);
    bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn both(body: &[u8]) -> [Body; 2] {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"old header").and_then(|()| file.write_all(body)).expect("written");
        let cut = body.len() / 3;
        [
            Body::Memory([Bytes::copy_from_slice(&body[..cut]), Bytes::copy_from_slice(&body[cut..])].into()),
            Body::File { file: Arc::new(file), skip: 10, octets: body.len() as u64 },
        ]
    }

    #[test]
    fn is_written_whole_wherever_it_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        for (i, body) in both(b"Subject: x\r\n\r\nhello\r\n").into_iter().enumerate() {
            let message = Message { front: Bytes::from_static(b"Received: us\r\n"), body };
            assert_eq!(message.octets(), 35);
            let path = folder.path().join(format!("draft{i}"));
            let mut draft = Draft::create(&path).expect("created");
            message.write_after(b"Return-Path: <>\r\n".to_vec(), &mut draft).expect("written");
            let written = std::fs::read(&path).expect("there");
            assert_eq!(written, b"Return-Path: <>\r\nReceived: us\r\nSubject: x\r\n\r\nhello\r\n");
        }
    }

    #[test]
    fn the_header_ends_at_the_first_empty_line() {
        for (body, header) in [
            (&b"A: b\r\n\r\nbody\r\n\r\n"[..], &b"F: g\r\nA: b\r\n\r\n"[..]),
            (b"A: b\r\n", b"F: g\r\nA: b\r\n"),
            (b"\r\nbody", b"F: g\r\n\r\n"),
            (b"", b"F: g\r\n"),
        ] {
            for body in both(body) {
                let message = Message { front: Bytes::from_static(b"F: g\r\n"), body };
                assert_eq!(message.header(header.len()).expect("read").as_deref(), Some(header));
                assert_eq!(message.header(header.len() - 1).expect("read"), None);
            }
        }
        let message = Message { front: Bytes::new(), body: Body::from(b"\r\nbody".to_vec()) };
        assert_eq!(message.header(10).expect("read").as_deref(), Some(&b"\r\n"[..]));
    }

    #[test]
    fn chunks_are_bounded_and_in_order() {
        let body: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let [_, file] = both(&body);
        let mut whole = Vec::new();
        for chunk in file.chunks() {
            let chunk = chunk.expect("read");
            assert!(chunk.len() <= READ_OCTETS);
            whole.extend_from_slice(&chunk);
        }
        assert_eq!(whole, body);
    }
}
