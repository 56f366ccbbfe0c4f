//! Test messages: each has a number, and its body a digest in the header, so that whoever finds it
//! at the other end can tell which one it is and that every octet of the body is there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::digest;
use gatepost_runtime::random;

/// The header field that holds the number.
const NUMBER: &str = "X-Test-Number: ";
/// The header field that holds the digest of the body.
const DIGEST: &str = "X-Test-Digest: ";
const LINE_OCTETS: usize = 76;

/// A message of about `octets` octets with this number.
pub fn numbered(number: u64, from: &str, to: &str, octets: usize) -> Vec<u8> {
    let seed: [u8; 16] = random::bytes();
    let mut body = Vec::with_capacity(octets + LINE_OCTETS);
    let mut state = u128::from_be_bytes(seed) | 1;
    while body.len() < octets.saturating_sub(400) {
        for _ in 0..LINE_OCTETS {
            // xorshift: printable, incompressible enough, and much faster than asking the system.
            state ^= state << 23;
            state ^= state >> 17;
            state ^= state << 26;
            body.push(b'a' + u8::try_from(state % 26).unwrap_or(0));
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".. a line that begins with dots\r\nthe end\r\n");
    with_body(number, from, to, &body)
}

/// A message with this number around a body of the caller's; the body must end with CRLF.
pub fn with_body(number: u64, from: &str, to: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: number {number}\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{number}.{:016x}@tests.example>\r\n{NUMBER}{number}\r\n{DIGEST}{}\r\n\r\n",
        u64::from_be_bytes(random::bytes()),
        hex(digest::digest(&digest::SHA256, body).as_ref()),
    )
    .into_bytes();
    message.extend_from_slice(body);
    message
}

/// The message as it goes after DATA: dots stuffed, the final dot behind it.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 8);
    let mut at_line_start = true;
    for &octet in message {
        if at_line_start && octet == b'.' {
            out.push(b'.');
        }
        out.push(octet);
        at_line_start = octet == b'\n';
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// The number of a stored message, if its body is what was sent. Line ends may be LF or CRLF.
pub fn check(stored: &[u8]) -> anyhow::Result<u64> {
    let text = String::from_utf8_lossy(stored).replace("\r\n", "\n");
    let (header, body) = text.split_once("\n\n").context("no empty line after the header")?;
    let field = |name: &str| header.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = field(NUMBER).with_context(|| format!("not one of ours:\n{header}"))?.parse()?;
    let digest = digest::digest(&digest::SHA256, body.replace('\n', "\r\n").as_bytes());
    anyhow::ensure!(field(DIGEST) == Some(&hex(digest.as_ref())), "number {number}: the body is not what was sent");
    Ok(number)
}

/// Every message file in `new` and `cur` of a Maildir; a directory that is not there yet is empty.
pub fn files(maildir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        let Ok(entries) = fs::read_dir(maildir.join(folder)) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    found.sort();
    found
}

/// The numbers of all messages in a Maildir, sorted; each body is checked.
pub fn numbers(maildir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in files(maildir) {
        let stored = match fs::read(&file) {
            // A reader of mail may move a file from new to cur between listing and reading.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            stored => stored.with_context(|| file.display().to_string())?,
        };
        numbers.push(check(&stored).with_context(|| file.display().to_string())?);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_octet_is_seen() {
        let message = numbered(7, "a@example.com", "b@example.org", 5000);
        assert!((4800..5300).contains(&message.len()), "{}", message.len());
        assert_eq!(check(&message).unwrap(), 7);
        let mut changed = message.clone();
        let last = changed.len() - 5;
        changed[last] ^= 1;
        assert!(check(&changed).is_err());
    }

    #[test]
    fn stuffs_dots() {
        assert_eq!(stuffed(b".\r\na.b\r\n..c\r\n"), b"..\r\na.b\r\n...c\r\n.\r\n");
    }
}
