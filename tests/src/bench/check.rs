//! The accounts afterwards: every message of a run lies in the Maildir exactly once, its body's
//! digest as it was sent.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Octets of a file that hold its header section, and more.
const HEAD_OCTETS: usize = 8 * 1024;

/// SHA-256 of a body in hexadecimal, line ends counted as LF.
pub fn digest(body: &[u8]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for piece in body.split_inclusive(|&b| b == b'\r') {
        context.update(piece.strip_suffix(b"\r").unwrap_or(piece));
    }
    context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Message files under a Maildir, in `new` and `cur`.
pub fn files(maildir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["new", "cur"] {
        match fs::read_dir(maildir.join(folder)) {
            Ok(entries) => found.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("reading the Maildir"),
        }
    }
    Ok(found)
}

/// Fails unless the judge found every message of `run` signed and aligned, and its sender allowed to send it.
pub fn passed(maildir: &Path, run: &str) -> Result<()> {
    let marker = format!("<{run}.");
    for path in files(maildir)? {
        let head: Vec<u8> = fs::read(&path)?.into_iter().take(HEAD_OCTETS).collect();
        let text = String::from_utf8_lossy(&head).to_lowercase();
        if !text.contains(&marker) {
            continue;
        }
        let spf = text.contains("spf=pass") || text.contains("received-spf: pass");
        let passed = spf && text.contains("dkim=pass") && text.contains("dmarc=pass");
        ensure!(passed, "it was not judged as it should be:\n{}", text.split("\r\n\r\n").next().unwrap_or_default());
    }
    Ok(())
}

/// How many messages of `run` lie there; fails on a wrong digest or one that lies there twice.
pub fn count(maildir: &Path, run: &str) -> Result<usize> {
    let marker = format!("<{run}.");
    let mut seen: HashMap<String, usize> = HashMap::new();
    for path in files(maildir)? {
        let bytes = fs::read(&path)?;
        let text: Vec<u8> = bytes.into_iter().filter(|&b| b != b'\r').collect();
        let split = text.windows(2).position(|pair| pair == b"\n\n").context("a file without a header")?;
        let header = String::from_utf8_lossy(&text[..split]).into_owned();
        let field =
            |name: &str| header.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        let Some(id) = field("Message-ID:").filter(|id| id.starts_with(&marker)) else {
            continue;
        };
        ensure!(field("X-Body-Digest:") == Some(digest(&text[split + 2..])), "{id} in {} was changed", path.display());
        *seen.entry(id).or_default() += 1;
    }
    if let Some((id, times)) = seen.iter().find(|(_, times)| **times != 1) {
        anyhow::bail!("{id} was delivered {times} times");
    }
    Ok(seen.len())
}
