//! A message's parts (RFC 2045, RFC 2046 §5.1), as far as it takes to find what is attached to it: bounded in number
//! and depth, each walked through a bounded number of times; nothing is copied before it is asked for.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memchr;

use crate::mail::header;

/// Parts looked at in one message; the others are passed over.
const PARTS_MAX: usize = 32;
/// Parts within parts; what lies deeper is passed over.
const DEPTH_MAX: usize = 4;
/// Longest field that tells what a part is, in octets; what stands behind is not read.
const FIELD_OCTETS_MAX: usize = 4096;

/// Senders break the padding, and the bits behind the last octet.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A part that has no parts of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Its type, such as `application/gzip`, in lower case; `text/plain` if it says none.
    pub(super) media_type: String,
    /// The name of the file it is, in lower case.
    pub(super) name: Option<String>,
    /// Its bytes, still encoded.
    body: &'a [u8],
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Base64,
    QuotedPrintable,
}

/// What an entity says of itself.
struct Head {
    media_type: String,
    boundary: Option<String>,
    name: Option<String>,
    encoding: Encoding,
}

/// The parts of a message, in their order.
pub(super) fn of(message: &[u8]) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    // What is still to be looked at, the next one last.
    let mut open = vec![(message, 0)];
    let mut looked_at = 0;
    while let Some((entity, depth)) = open.pop() {
        looked_at += 1;
        if looked_at > PARTS_MAX {
            break;
        }
        let body = header::body_start(entity).map_or(&entity[entity.len()..], |start| &entity[start..]);
        let head = Head::of(entity);
        match &head.boundary {
            Some(boundary) if head.media_type.starts_with("multipart/") => {
                if depth < DEPTH_MAX {
                    let inner = split(body, boundary, PARTS_MAX - looked_at);
                    open.extend(inner.into_iter().rev().map(|part| (part, depth + 1)));
                }
            }
            _ => {
                let Head { media_type, name, encoding, .. } = head;
                found.push(Part { media_type, name, body, encoding });
            }
        }
    }
    found
}

impl<'a> Part<'a> {
    /// Its bytes as they were before they were encoded.
    pub(super) fn decoded(&self) -> Cow<'a, [u8]> {
        match self.encoding {
            Encoding::None => Cow::Borrowed(self.body),
            Encoding::Base64 => Cow::Owned(base64(self.body)),
            Encoding::QuotedPrintable => Cow::Owned(quoted_printable(self.body)),
        }
    }
}

impl Head {
    fn of(entity: &[u8]) -> Self {
        let mut head = Self { media_type: String::new(), boundary: None, name: None, encoding: Encoding::None };
        for field in header::fields(entity) {
            let value = field.value();
            let value = || String::from_utf8_lossy(&value[..value.len().min(FIELD_OCTETS_MAX)]).into_owned();
            if field.is("Content-Type") && head.media_type.is_empty() {
                let value = value();
                let (media_type, parameters) = parameters(&value);
                head.media_type = media_type;
                for (name, value) in parameters {
                    match name.as_str() {
                        "boundary" => head.boundary = Some(value).filter(|boundary| !boundary.is_empty()),
                        "name" | "name*" => head.name = Some(value.to_lowercase()),
                        _ => {}
                    }
                }
            } else if field.is("Content-Disposition") {
                let value = value();
                let named =
                    parameters(&value).1.into_iter().find(|(name, _)| name == "filename" || name == "filename*");
                if let Some((_, name)) = named {
                    head.name = Some(name.to_lowercase());
                }
            } else if field.is("Content-Transfer-Encoding") {
                head.encoding = match value().trim().to_ascii_lowercase().as_str() {
                    "base64" => Encoding::Base64,
                    "quoted-printable" => Encoding::QuotedPrintable,
                    _ => Encoding::None,
                };
            }
        }
        if head.media_type.is_empty() {
            "text/plain".clone_into(&mut head.media_type);
        }
        head
    }
}

/// A field's first word in lower case, and its parameters (RFC 2045 §5.1), their names in lower case.
fn parameters(value: &str) -> (String, Vec<(String, String)>) {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let (mut is_quoted, mut is_escaped) = (false, false);
    for letter in value.chars().filter(|letter| !matches!(letter, '\r' | '\n')) {
        match letter {
            _ if is_escaped => {
                is_escaped = false;
                piece.push(letter);
            }
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ';' if !is_quoted => pieces.push(std::mem::take(&mut piece)),
            _ => piece.push(letter),
        }
    }
    pieces.push(piece);
    let mut pieces = pieces.into_iter();
    let first = pieces.next().unwrap_or_default().trim().to_ascii_lowercase();
    let pairs = pieces.filter_map(|piece| {
        let (name, value) = piece.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    });
    (first, pairs.collect())
}

/// What stands between the lines of a boundary (RFC 2046 §5.1.1), at most `most` pieces.
fn split<'a>(body: &'a [u8], boundary: &str, most: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut begun = None;
    let mut at = 0;
    while at < body.len() && pieces.len() < most {
        let end = memchr(b'\n', &body[at..]).map_or(body.len(), |line| at + line + 1);
        let line = body[at..end].trim_ascii_end();
        let after = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
        if let Some(after) = after.filter(|after| after.is_empty() || *after == b"--") {
            if let Some(start) = begun.replace(end) {
                // The line end before a boundary is the boundary's.
                let piece: &[u8] = &body[start..at];
                let piece = piece.strip_suffix(b"\n").map_or(piece, |piece| piece.strip_suffix(b"\r").unwrap_or(piece));
                pieces.push(piece);
            }
            if !after.is_empty() {
                return pieces;
            }
        }
        at = end;
    }
    // One that was cut off before its last boundary.
    if let Some(start) = begun.filter(|start| *start < body.len() && pieces.len() < most) {
        pieces.push(&body[start..]);
    }
    pieces
}

/// What is no letter of the alphabet is passed over (RFC 2045 §6.8); what follows the padding is left away.
fn base64(text: &[u8]) -> Vec<u8> {
    let is_letter = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/');
    let text = memchr(b'=', text).map_or(text, |end| &text[..end]);
    let mut letters: Vec<u8> = text.iter().copied().filter(is_letter).collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    // Only letters are left, and no single one at the end.
    BASE64.decode(&letters).unwrap_or_default()
}

/// RFC 2045 §6.7; what is encoded wrongly stands as it is.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'=' {
            decoded.push(octet);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
            rest = &after[2..];
        } else if let Some(line) = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")) {
            rest = line;
        } else {
            decoded.push(octet);
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(message: &str) -> Vec<(String, Option<String>, Vec<u8>)> {
        let parts = of(message.as_bytes());
        parts
            .into_iter()
            .map(|part| (part.media_type.clone(), part.name.clone(), part.decoded().into_owned()))
            .collect()
    }

    #[test]
    fn attachments_are_found_wherever_they_stand() {
        let message = "Content-Type: multipart/mixed;\r\n\tboundary=\"a;b\"\r\n\r\nprologue\r\n\
            --a;b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n\
            --c\r\n\r\nplain\r\n--cc\r\n--c\t\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\
            \r\n\r\n<=62=\r\n>=3\r\n--c--\r\nnothing\r\n\
            --a;b\r\nContent-Type: Application/ZIP; NAME=\"x.ZIP\"\r\nContent-Transfer-Encoding: BASE64\r\n\r\n\
            UEsD\r\n BAoA\r\n--a;b--\r\nepilogue\r\n";
        let expected = [
            ("text/plain".to_owned(), None, b"plain\r\n--cc".to_vec()),
            ("text/html".to_owned(), None, b"<b>=3".to_vec()),
            ("application/zip".to_owned(), Some("x.zip".to_owned()), b"PK\x03\x04\n\0".to_vec()),
        ];
        assert_eq!(told(message), expected);
    }

    #[test]
    fn a_message_may_be_the_attachment_itself() {
        let message = "Content-Type: application/gzip\r\nContent-Disposition: attachment;\r\n filename=A!b!1!2.xml.gz\r\n\
            Content-Transfer-Encoding: base64\r\n\r\nH4sI=AAAA\r\n";
        let expected = ("application/gzip".to_owned(), Some("a!b!1!2.xml.gz".to_owned()), vec![0x1f, 0x8b, 8]);
        assert_eq!(told(message), [expected]);
        assert_eq!(told("Subject: no body"), [("text/plain".to_owned(), None, Vec::new())]);
    }

    #[test]
    fn a_thousand_parts_and_a_thousand_depths_are_bounded() {
        let many = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(1000));
        assert_eq!(told(&many).len(), PARTS_MAX - 1);
        let deep = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(1000) + "\r\nx\r\n";
        assert!(told(&deep).is_empty());
        let cut = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx";
        assert_eq!(told(cut), [("text/plain".to_owned(), None, b"x".to_vec())]);
    }

    proptest! {
        #[test]
        fn any_message_has_parts_or_none(message: Vec<u8>, text in "(--b(--)?\r\n|Content-Type: multipart/a; boundary=b\r\n|\r\n|x=|=3D){0,40}") {
            for message in [&message[..], text.as_bytes()] {
                let parts = of(message);
                prop_assert!(parts.len() <= PARTS_MAX);
                for part in parts {
                    prop_assert!(part.decoded().len() <= message.len());
                }
            }
        }

        #[test]
        fn what_was_encoded_is_decoded(bytes: Vec<u8>) {
            let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let lines = text.as_bytes().chunks(76).map(<[u8]>::to_vec).collect::<Vec<_>>().join(&b"\r\n"[..]);
            prop_assert_eq!(base64(&lines), bytes);
        }
    }
}
