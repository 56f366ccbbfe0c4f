//! The message as it flows by: its header section is held until it is whole, bounded, its hops counted, and freed
//! of results that others wrote in our name; its body is digested and never held.

use std::borrow::Cow;

use gatepost_protocol::mail::canonical::{BodyDigest, BodyDigests, Forms};
use gatepost_protocol::mail::header::{self, HeaderScan};
use gatepost_protocol::mail::received::HOPS_MAX;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::results;

/// Looks at one message.
#[derive(Debug)]
pub struct MessageScan {
    scan: HeaderScan,
    section: Vec<u8>,
    ended: bool,
    digested: bool,
    /// Once the header section has told what they are needed for.
    digests: Option<BodyDigests>,
    hosts: Vec<String>,
}

/// What may go on, in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    /// The header section, once it is whole.
    pub section: Cow<'a, [u8]>,
    /// Some of the body.
    pub body: &'a [u8],
}

impl MessageScan {
    /// Results in the name of these (in lower case) are ours. Bodies are digested only where somebody is to be judged
    /// by it, and in the forms its signatures ask for.
    pub fn new(hosts: Vec<String>, digested: bool) -> Self {
        Self { scan: HeaderScan::default(), section: Vec::new(), ended: false, digested, digests: None, hosts }
    }

    /// Takes the next octets in. An error is the refusal of the whole message.
    pub fn take<'a>(&'a mut self, octets: &'a [u8]) -> Result<Passed<'a>, Reply> {
        if self.ended {
            self.digest(octets);
            return Ok(Passed { section: Cow::Borrowed(&[]), body: octets });
        }
        self.scan.feed(octets);
        if self.scan.is_too_big() {
            return Err(Reply::header_too_big());
        }
        // RFC 5321 §6.3.
        if usize::from(self.scan.hops()) > HOPS_MAX {
            return Err(Reply::mail_loop());
        }
        let before = self.section.len();
        self.section.extend_from_slice(octets);
        if !self.scan.is_over() {
            return Ok(Passed { section: Cow::Borrowed(&[]), body: &[] });
        }
        self.ended = true;
        let start = header::body_start(&self.section).unwrap_or(self.section.len());
        self.section.truncate(start);
        let body = &octets[start.saturating_sub(before).min(octets.len())..];
        self.digests = self.digested.then(|| BodyDigests::new(Forms::asked(&self.section)));
        self.digest(body);
        Ok(Passed { section: self.cleaned(), body })
    }

    /// The message is whole: what is still held, because its header never ended.
    pub fn rest(&self) -> Cow<'_, [u8]> {
        if self.ended { Cow::Borrowed(&[]) } else { self.cleaned() }
    }

    /// Received fields it came with.
    pub fn hops(&self) -> u16 {
        self.scan.hops()
    }

    /// The header section as it came, and the digests of the body.
    pub fn finish(self) -> (Vec<u8>, BodyDigest) {
        // A message may end with its header.
        let digests = self.digests.unwrap_or_else(|| BodyDigests::new(Forms::asked(&self.section)));
        (self.section, digests.finish())
    }

    fn digest(&mut self, body: &[u8]) {
        if let Some(digests) = &mut self.digests {
            digests.feed(body);
        }
    }

    fn cleaned(&self) -> Cow<'_, [u8]> {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        results::without_ours(&self.section, &hosts)
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::header::HEADER_OCTETS_MAX;

    use super::*;

    fn hosts() -> Vec<String> {
        ["mail.example.org", "mail2.example.org"].map(str::to_owned).to_vec()
    }

    /// Hops, and all that passed.
    fn scan(message: &[u8], piece: usize) -> Result<(u16, Vec<u8>), Reply> {
        let mut scan = MessageScan::new(hosts(), true);
        let mut passed = Vec::new();
        for octets in message.chunks(piece) {
            let more = scan.take(octets)?;
            passed.extend_from_slice(&more.section);
            passed.extend_from_slice(more.body);
        }
        passed.extend_from_slice(&scan.rest());
        Ok((scan.hops(), passed))
    }

    fn hops(message: &[u8], piece: usize) -> Result<u16, Reply> {
        scan(message, piece).map(|(hops, _)| hops)
    }

    #[test]
    fn a_hundred_hops_pass_and_one_more_does_not() {
        let message = |hops| format!("{}\r\nReceived: in the body\r\n", "Received: x\r\n".repeat(hops)).into_bytes();
        assert_eq!(hops(&message(100), 1000), Ok(100));
        assert_eq!(hops(&message(101), 1000), Err(Reply::mail_loop()));
    }

    #[test]
    fn the_header_is_bounded_and_the_body_is_not() {
        let max = usize::try_from(HEADER_OCTETS_MAX).expect("it is small");
        let mut message = vec![b'x'; max - 4];
        message.extend_from_slice(b"\r\n\r\n");
        assert_eq!(hops(&message, 4096), Ok(0));
        message.extend_from_slice(&vec![b'x'; max]);
        assert_eq!(hops(&message, 4096), Ok(0), "the body does not count");
        message.insert(0, b'x');
        assert_eq!(hops(&message, 4096), Err(Reply::header_too_big()));
    }

    #[test]
    fn everything_passes_but_results_in_our_name() {
        let forged = "Subject: x\r\nAuthentication-Results: Mail.Example.Org; dmarc=pass\r\n\tfolded\r\nTo: y\r\n\
            Authentication-Results: mail2.example.org; spf=pass\r\n";
        let clean = "Subject: x\r\nTo: y\r\n";
        for rest in ["", "\r\n", "\r\nbody\r\n\r\nAuthentication-Results: mail.example.org; dmarc=pass\r\n"] {
            let whole = format!("{forged}{rest}");
            for piece in 1..=whole.len() {
                let (_, passed) = scan(whole.as_bytes(), piece).expect("taken");
                assert_eq!(String::from_utf8_lossy(&passed), format!("{clean}{rest}"), "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn evidence_is_gathered_of_what_came() {
        let whole = b"Authentication-Results: mail.example.org; x=pass\r\nDKIM-Signature: c=simple\r\n\r\nbody\r\n";
        let digest = |piece| {
            let mut scan = MessageScan::new(hosts(), true);
            for octets in whole.chunks(piece) {
                scan.take(octets).expect("taken");
            }
            scan.finish()
        };
        let (section, expected) = digest(whole.len());
        assert_eq!(section, whole[..whole.len() - 6]);
        let mut body = BodyDigests::new(Forms { simple: true, relaxed: true });
        body.feed(b"body\r\n");
        assert_eq!(expected, body.finish());
        for piece in 1..whole.len() {
            assert_eq!(digest(piece), (section.clone(), expected));
        }
    }
}
