//! Signatures of mail: DKIM (RFC 6376, RFC 8463), and the canonical form of header fields that ARC shares with it. Says
//! what is to be signed and writes the finished field; knows no key. Relaxed canonical forms throughout.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::{self, Field};

/// Fields signed wherever they are, and once more than they are there, so that none can be added (RFC 6376 §8.15).
const OVERSIGNED: [&str; 12] = [
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Fields signed where they are; a list on the way may add its own without breaking anything else.
const SIGNED: [&str; 14] = [
    "Sender",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Date",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "Autocrypt",
];
/// Fields of one name that are signed; the lowest ones, which is where verifiers begin.
const OF_ONE_NAME_MAX: usize = 32;
/// Columns of a line of our fields.
const COLUMNS: usize = 76;

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5 (RFC 6376 §3.3.1).
    RsaSha256,
    /// Ed25519 over the SHA-256 of what is signed (RFC 8463 §3).
    Ed25519Sha256,
}

impl Algorithm {
    /// As `a=` writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// Who signs, by what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// `d=`
    pub domain: &'a str,
    /// `s=`
    pub selector: &'a str,
    /// `a=`
    pub algorithm: Algorithm,
    /// `t=`, seconds since 1970.
    pub unix_s: i64,
}

/// The part of a header section that is signed: names for `h=`, and the fields in canonical form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedHeader {
    names: Vec<&'static str>,
    canonical: Vec<u8>,
}

impl SignedHeader {
    /// Of a message of ours.
    pub fn of(section: &[u8]) -> Self {
        let mut signed = Self::default();
        let fields: Vec<Field<'_>> = header::fields(section).collect();
        for name in OVERSIGNED {
            signed.take(&fields, name);
            signed.names.push(name);
        }
        for name in SIGNED {
            signed.take(&fields, name);
        }
        signed
    }

    /// Of a message of others that goes on: their signatures are part of it (RFC 8617 §4.1.2).
    pub fn of_forwarded(section: &[u8]) -> Self {
        let mut signed = Self::of(section);
        let fields: Vec<Field<'_>> = header::fields(section).collect();
        signed.take(&fields, "DKIM-Signature");
        signed
    }

    /// The fields of this name, the lowest first (RFC 6376 §5.4.2).
    fn take(&mut self, fields: &[Field<'_>], name: &'static str) {
        for field in fields.iter().rev().filter(|field| field.is(name)).take(OF_ONE_NAME_MAX) {
            self.names.push(name);
            self.canonical.extend_from_slice(&relaxed(field));
        }
    }
}

/// A field whose signature is still missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    text: String,
    input: Vec<u8>,
}

impl Unsigned {
    /// `text` is the field up to its `b=`; `before` is signed before it.
    pub(super) fn new(text: String, before: &[u8]) -> Self {
        let mut input = before.to_vec();
        // RFC 6376 §3.7: itself last, with an empty `b=` and no line end.
        if let Some(own) = header::fields(text.as_bytes()).next() {
            let own = relaxed(&own);
            input.extend_from_slice(own.strip_suffix(b"\r\n").unwrap_or(&own));
        }
        Self { text, input }
    }

    /// The octets to sign (for Ed25519, to digest and then to sign).
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// The finished field, with its line end.
    pub fn signed(self, signature: &[u8]) -> String {
        let mut text = self.text;
        fold_base64(&mut text, signature);
        text.push_str("\r\n");
        text
    }
}

/// A DKIM-Signature field: over this header and a body of this digest, in its relaxed form.
pub fn dkim(header: &SignedHeader, body_sha256: &[u8; 32], seal: Seal<'_>) -> Unsigned {
    Unsigned::new(format!("DKIM-Signature: v=1; {}", tags(header, body_sha256, seal)), &header.canonical)
}

/// The tags a DKIM and an ARC message signature have in common, up to an empty `b=`.
pub(super) fn tags(header: &SignedHeader, body_sha256: &[u8; 32], seal: Seal<'_>) -> String {
    let Seal { domain, selector, algorithm, unix_s } = seal;
    let mut text =
        format!("a={}; c=relaxed/relaxed;\r\n\td={domain}; s={selector}; t={};\r\n\t", algorithm.word(), unix_s.max(0));
    let mut column = 8;
    text.push_str("h=");
    for (nth, name) in header.names.iter().enumerate() {
        if nth > 0 {
            text.push(':');
        }
        if column + name.len() > COLUMNS {
            text.push_str("\r\n\t");
            column = 8;
        }
        text.push_str(name);
        column += name.len() + 1;
    }
    // Writing to a string can't fail.
    let _ = write!(text, ";\r\n\tbh={};\r\n\tb=", STANDARD.encode(body_sha256));
    text
}

/// What a message signature signs before itself.
pub(super) fn canonical(header: &SignedHeader) -> &[u8] {
    &header.canonical
}

/// A field in its relaxed form (RFC 6376 §3.4.2).
pub(super) fn relaxed(field: &Field<'_>) -> Vec<u8> {
    let mut out = field.name().to_ascii_lowercase();
    out.push(b':');
    let start = out.len();
    let mut space = false;
    let mut octets = field.value().iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' if octets.peek() == Some(&b'\n') => {
                octets.next();
            }
            b' ' | b'\t' => space = true,
            octet => {
                if std::mem::take(&mut space) && out.len() > start {
                    out.push(b' ');
                }
                out.push(octet);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Base64 at the end of a field, on lines of its own but for the first.
fn fold_base64(text: &mut String, octets: &[u8]) {
    let encoded = STANDARD.encode(octets);
    let mut rest = encoded.as_str();
    let mut room = COLUMNS - 12;
    while rest.len() > room {
        let (line, more) = rest.split_at(room);
        text.push_str(line);
        text.push_str("\r\n\t");
        rest = more;
        room = COLUMNS - 8;
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal<'_> =
        Seal { domain: "example.org", selector: "s1", algorithm: Algorithm::RsaSha256, unix_s: 1_700_000_000 };

    #[test]
    fn fields_become_canonical_as_the_rfc_shows() {
        // RFC 6376 §3.4.5.
        let section = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n";
        let found: Vec<Vec<u8>> = header::fields(section).map(|field| relaxed(&field)).collect();
        assert_eq!(found, [b"a:X\r\n".to_vec(), b"b:Y Z\r\n".to_vec()]);
        let empty = header::fields(b"Subject:  \r\n \r\n").next().map(|field| relaxed(&field));
        assert_eq!(empty, Some(b"subject:\r\n".to_vec()));
    }

    #[test]
    fn what_is_there_is_signed_once_more_than_it_is_there() {
        let header = SignedHeader::of(b"To: b\r\nFrom: a\r\nTo: c\r\nList-Id: <l>\r\nX-Other: x\r\n\r\n");
        let names = header.names.join(":");
        assert_eq!(
            names,
            "From:From:Reply-To:To:To:To:Cc:Subject:Date:Message-ID:In-Reply-To:References:MIME-Version:Content-Type:\
             Content-Transfer-Encoding:List-Id"
        );
        assert_eq!(header.canonical, b"from:a\r\nto:c\r\nto:b\r\nlist-id:<l>\r\n", "the lowest first");
    }

    #[test]
    fn fields_of_one_name_are_bounded() {
        let section = ["From: a\r\n".to_owned(), "To: b\r\n".repeat(1000), "\r\n".to_owned()].concat();
        let header = SignedHeader::of(section.as_bytes());
        assert_eq!(header.names.iter().filter(|name| **name == "To").count(), OF_ONE_NAME_MAX + 1);
    }

    #[test]
    fn the_field_is_signed_without_its_signature() {
        let header = SignedHeader::of(b"From: a\r\n\r\n");
        let unsigned = dkim(&header, &[0; 32], SEAL);
        let input = String::from_utf8(unsigned.input().to_vec()).expect("ASCII");
        assert!(
            input.starts_with(
                "from:a\r\ndkim-signature:v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1; t=1700000000; h="
            ),
            "{input}"
        );
        assert!(input.ends_with("; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b="), "{input}");
        let field = unsigned.signed(&[0xFF; 256]);
        assert!(field.ends_with("\r\n"), "{field}");
        for line in field.lines() {
            assert!(line.len() <= 78, "{line}");
        }
        let one: Vec<_> = header::fields(field.as_bytes()).collect();
        assert_eq!(one.len(), 1);
        let unfolded = field.replace("\r\n\t", "");
        assert!(unfolded.contains(&STANDARD.encode([0xFF; 256])), "{unfolded}");
    }

    proptest! {
        #[test]
        fn any_header_gives_one_field(section: Vec<u8>) {
            let header = SignedHeader::of_forwarded(&section);
            let field = dkim(&header, &[1; 32], SEAL).signed(&[2; 64]);
            prop_assert_eq!(header::fields(field.as_bytes()).count(), 1);
        }
    }
}
