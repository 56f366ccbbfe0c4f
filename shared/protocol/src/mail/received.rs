//! Trace: the id a message gets at its first hop, our Received field, and hop counting
//! (RFC 5321 §4.4, §6.3).

use std::fmt;
use std::net::IpAddr;

use super::address::Address;
use crate::machine::TlsFacts;

/// Hops after which a message is going in circles (RFC 5321 §6.3 asks for at least 100).
pub const HOPS_MAX: usize = 100;

/// Names one message in every log line and Received field of ours: 16 characters of base32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 10]);

impl TraceId {
    /// A new id from random bytes.
    pub fn from_random(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the wire.
    pub fn to_bytes(self) -> [u8; 10] {
        self.0
    }

    /// Parses the printed form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        let mut bits: u128 = 0;
        for b in text.bytes() {
            let value = ALPHABET.iter().position(|&a| a == b.to_ascii_lowercase())?;
            bits = bits << 5 | value as u128;
        }
        let wide = bits.to_be_bytes();
        wide[6..].try_into().ok().map(Self)
    }
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut wide = [0; 16];
        wide[6..].copy_from_slice(&self.0);
        let bits = u128::from_be_bytes(wide);
        for i in (0..16).rev() {
            let index = (bits >> (5 * i)) & 31;
            write!(f, "{}", char::from(ALPHABET[usize::try_from(index).unwrap_or(0)]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What our Received field says.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// The name the client gave in EHLO; left out for submissions, to keep a private name private.
    pub helo: Option<&'a str>,
    /// The client's address; left out for submissions, to keep a private address private.
    pub client: Option<IpAddr>,
    /// Our own host name.
    pub by: &'a str,
    /// `ESMTP`, `ESMTPS`, `ESMTPSA`… (RFC 3848, RFC 6531 §4.3).
    pub with: &'a str,
    /// The trace id.
    pub trace: TraceId,
    /// What TLS the client spoke.
    pub tls: Option<&'a TlsFacts>,
    /// Named only if the message has one recipient, so that Bcc stays hidden.
    pub only_recipient: Option<&'a Address>,
    /// Now, as RFC 5322 §3.3 writes it.
    pub date: &'a str,
}

impl fmt::Display for Received<'_> {
    /// The whole field, folded, ended by CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Received: ")?;
        match (self.helo, self.client) {
            (Some(helo), Some(ip)) => write!(f, "from {} ({})\r\n\t", token(helo), literal(ip))?,
            (None, Some(ip)) => write!(f, "from {}\r\n\t", literal(ip))?,
            (_, None) => {}
        }
        write!(f, "by {} with {} id {}", self.by, self.with, self.trace)?;
        if let Some(tls) = self.tls {
            write!(f, "\r\n\t(tls {} {} {})", tls.version, tls.cipher, tls.group)?;
        }
        if let Some(recipient) = self.only_recipient {
            write!(f, "\r\n\tfor <{recipient}>")?;
        }
        write!(f, "; {}\r\n", self.date)
    }
}

fn literal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    }
}

/// A client's EHLO name is its own claim: only what is safe in a header is repeated.
fn token(helo: &str) -> String {
    helo.chars().take(255).map(|c| if c.is_ascii_alphanumeric() || ".-_[]:".contains(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_print_and_parse() {
        for bytes in [[0; 10], [255; 10], *b"0123456789"] {
            let id = TraceId::from_random(bytes);
            let text = id.to_string();
            assert_eq!(text.len(), 16);
            assert_eq!(TraceId::parse(&text), Some(id));
        }
        assert_eq!(TraceId::parse("short"), None);
        assert_eq!(TraceId::parse("0000000000000000"), None);
    }

    #[test]
    fn a_field_cannot_be_broken_by_the_client() {
        let field = Received {
            helo: Some("evil\r\nBcc: x (comment"),
            client: Some(IpAddr::from([192, 0, 2, 1])),
            by: "mail.example.org",
            with: "ESMTP",
            trace: TraceId::from_random([1; 10]),
            tls: None,
            only_recipient: None,
            date: "Fri, 20 Nov 2026 12:00:00 +0000",
        }
        .to_string();
        assert_eq!(
            field,
            "Received: from evil??Bcc:?x??comment ([192.0.2.1])\r\n\tby mail.example.org with ESMTP id \
             aeaqcaibaeaqcaib; Fri, 20 Nov 2026 12:00:00 +0000\r\n"
        );
    }
}
