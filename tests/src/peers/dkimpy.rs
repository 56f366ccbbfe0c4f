//! dkimpy, somebody else's reading of DKIM and ARC: says which signatures of a message hold.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::{judged, note};

/// What it found.
#[derive(Clone, Debug, Deserialize)]
pub struct Judged {
    /// Each DKIM signature, the topmost first.
    pub dkim: Vec<Signature>,
    /// `cv` of the ARC chain: `none`, `pass`, `fail`.
    pub arc: String,
    /// ARC sets.
    pub sets: usize,
    /// What it says of the chain.
    pub why: String,
}

/// One DKIM signature.
#[derive(Clone, Debug, Deserialize)]
pub struct Signature {
    /// It holds.
    pub good: bool,
    /// Why not.
    pub why: Option<String>,
    /// d=
    pub domain: String,
    /// s=
    pub selector: String,
    /// a=
    pub algorithm: String,
}

/// Judges a message by the keys this name server knows.
pub fn judge(message: &[u8], dns: SocketAddr) -> anyhow::Result<Judged> {
    note("dkimpy");
    let words = [dns.ip().to_string(), dns.port().to_string()];
    let said = judged(include_str!("dkimpy.py"), words.iter().map(String::as_str), message)?;
    Ok(serde_json::from_slice(&said)?)
}

/// Seals a message as a list or a forwarder does, over what it says it found (`method=result`, …); the message, sealed.
pub fn seal(message: &[u8], found: &str, domain: &str, selector: &str, key: &Path) -> anyhow::Result<Vec<u8>> {
    note("dkimpy");
    let program = "import dkim, sys\nmessage = sys.stdin.buffer.read()\n\
                   domain, selector = sys.argv[1].encode(), sys.argv[2].encode()\n\
                   results = b'Authentication-Results: ' + domain + b'; ' + sys.argv[4].encode() + b'\\r\\n'\n\
                   key = open(sys.argv[3], 'rb').read()\n\
                   fields = dkim.arc_sign(results + message, selector, domain, key, domain)\n\
                   sys.stdout.buffer.write(b''.join(fields) + results + message)";
    judged(program, [domain, selector, &key.display().to_string(), found].into_iter(), message)
}

/// Signs a message as its sender would, by this private key (PEM, PKCS #1 or #8); the message, signed.
pub fn sign(message: &[u8], domain: &str, selector: &str, key: &Path) -> anyhow::Result<Vec<u8>> {
    note("dkimpy");
    let program = "import dkim, sys\nmessage = sys.stdin.buffer.read()\n\
                   key = open(sys.argv[3], 'rb').read()\n\
                   field = dkim.sign(message, sys.argv[2].encode(), sys.argv[1].encode(), key)\n\
                   sys.stdout.buffer.write(field + message)";
    judged(program, [domain, selector, &key.display().to_string()].into_iter(), message)
}
