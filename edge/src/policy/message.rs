//! The message as it flows by: counts hops and bounds the header section. Holds a few octets of a
//! line at most, never the message.

use gatepost_protocol::mail::received::HOPS_MAX;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;

/// Largest header section, in octets, its empty line included.
pub const HEADER_OCTETS_MAX: usize = 512 * 1024;
/// The field that each hop adds (RFC 5321 §4.4), with its colon.
const RECEIVED: &[u8] = b"received:";

/// Looks at one message.
#[derive(Debug, Default)]
pub struct MessageScan {
    hops: usize,
    header_octets: usize,
    in_body: bool,
    // The start of the line that is coming in, and how many octets of it there were.
    start: [u8; RECEIVED.len()],
    line_octets: usize,
}

impl MessageScan {
    /// Takes the next octets in. An error is the refusal of the whole message.
    pub fn take(&mut self, mut octets: &[u8]) -> Result<(), Reply> {
        while !self.in_body && !octets.is_empty() {
            let end = octets.iter().position(|&b| b == b'\n');
            let (line, rest) = octets.split_at(end.map_or(octets.len(), |at| at + 1));
            octets = rest;
            self.header_octets += line.len();
            if self.header_octets > HEADER_OCTETS_MAX {
                return Err(Reply::header_too_big());
            }
            if let Some(room) = self.start.get_mut(self.line_octets..) {
                let count = room.len().min(line.len());
                room[..count].copy_from_slice(&line[..count]);
            }
            self.line_octets += line.len();
            if end.is_some() {
                self.line()?;
            }
        }
        Ok(())
    }

    /// What was found in a whole message.
    pub fn finish(&self) -> Verdict {
        // Bounded by HOPS_MAX, far below 65,536.
        Verdict { hops: u16::try_from(self.hops).unwrap_or(u16::MAX) }
    }

    fn line(&mut self) -> Result<(), Reply> {
        let octets = std::mem::take(&mut self.line_octets);
        // Only CRLF ends a line here: the SMTP machine refused everything else.
        if octets <= 2 {
            self.in_body = true;
        } else if octets > RECEIVED.len() && self.start.eq_ignore_ascii_case(RECEIVED) {
            self.hops += 1;
            // RFC 5321 §6.3.
            if self.hops > HOPS_MAX {
                return Err(Reply::mail_loop());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(message: &[u8], piece: usize) -> Result<u16, Reply> {
        let mut scan = MessageScan::default();
        for octets in message.chunks(piece) {
            scan.take(octets)?;
        }
        Ok(scan.finish().hops)
    }

    #[test]
    fn counts_hops_in_the_header_only_however_it_is_cut() {
        let message = b"Received: from a\r\n\tby b\r\nRECEIVED: x\r\nReceived-SPF: pass\r\nX: received: no\r\n\r\n\
            Received: in the body\r\n";
        for piece in 1..message.len() {
            assert_eq!(scan(message, piece), Ok(2), "in pieces of {piece}");
        }
        assert_eq!(scan(b"\r\nReceived: body\r\n", 3), Ok(0));
        assert_eq!(scan(b"Received: no line end", 3), Ok(0));
    }

    #[test]
    fn a_hundred_hops_pass_and_one_more_does_not() {
        let message = |hops| "Received: x\r\n".repeat(hops).into_bytes();
        assert_eq!(scan(&message(100), 1000), Ok(100));
        assert_eq!(scan(&message(101), 1000), Err(Reply::mail_loop()));
    }

    #[test]
    fn the_header_is_bounded_and_the_body_is_not() {
        let mut message = "X: 1234\r\n".repeat(HEADER_OCTETS_MAX / 9).into_bytes();
        message.truncate(HEADER_OCTETS_MAX / 9 * 9);
        assert_eq!(scan(&message, 4096), Ok(0));
        let mut body = message.clone();
        body.truncate(message.len() - 9);
        body.extend_from_slice(b"\r\n");
        body.extend_from_slice(&[b'x'; HEADER_OCTETS_MAX]);
        assert_eq!(scan(&body, 4096), Ok(0));
        message.extend_from_slice(b"X: 1234\r\n");
        assert_eq!(scan(&message, 4096), Err(Reply::header_too_big()));
    }
}
