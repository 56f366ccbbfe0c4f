//! A receiver put together of pyspf, dkimpy and authheaders: what all three say of a message that comes to it.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use serde::Deserialize;

use super::{judged, note};

/// How the message came.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// From this address.
    pub client: IpAddr,
    /// MAIL FROM, without brackets.
    pub sender: &'a str,
    /// EHLO.
    pub helo: &'a str,
}

/// What was found, each in the word of RFC 8601.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Of the session.
    pub spf: String,
    /// Of one signature.
    pub dkim: String,
    /// Of the chain.
    pub arc: String,
    /// Of both together and From.
    pub dmarc: String,
    /// The whole field.
    pub said: String,
}

impl Found {
    /// SPF, DKIM, ARC, DMARC.
    pub fn words(&self) -> [&str; 4] {
        [&self.spf, &self.dkim, &self.arc, &self.dmarc]
    }
}

/// Judges a message once for each of its DKIM signatures (at least once), by this name server.
pub fn judge(message: &[u8], session: Session<'_>, dns: SocketAddr) -> anyhow::Result<Vec<Found>> {
    for name in ["pyspf", "authheaders"] {
        note(name);
    }
    let words = [dns.ip().to_string(), dns.port().to_string(), session.client.to_string()];
    let words = words.iter().map(String::as_str).chain([session.sender, session.helo]);
    let text = judged(include_str!("receiver.py"), words, message)?;
    serde_json::from_slice(&text).context("the receiver's words")
}
