//! The message as it flows by: counts hops and bounds the header section. Holds nothing of it.

use gatepost_protocol::mail::header::HeaderScan;
use gatepost_protocol::mail::received::HOPS_MAX;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;

/// Looks at one message.
#[derive(Debug, Default)]
pub struct MessageScan(HeaderScan);

impl MessageScan {
    /// Takes the next octets in. An error is the refusal of the whole message.
    pub fn take(&mut self, octets: &[u8]) -> Result<(), Reply> {
        if self.0.is_over() {
            return Ok(());
        }
        self.0.feed(octets);
        if self.0.is_too_big() {
            return Err(Reply::header_too_big());
        }
        // RFC 5321 §6.3.
        if usize::from(self.0.hops()) > HOPS_MAX {
            return Err(Reply::mail_loop());
        }
        Ok(())
    }

    /// What was found in a whole message.
    pub fn finish(&self) -> Verdict {
        Verdict { hops: self.0.hops(), ..Verdict::default() }
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::header::HEADER_OCTETS_MAX;

    use super::*;

    fn scan(message: &[u8], piece: usize) -> Result<u16, Reply> {
        let mut scan = MessageScan::default();
        for octets in message.chunks(piece) {
            scan.take(octets)?;
        }
        Ok(scan.finish().hops)
    }

    #[test]
    fn a_hundred_hops_pass_and_one_more_does_not() {
        let message = |hops| format!("{}\r\nReceived: in the body\r\n", "Received: x\r\n".repeat(hops)).into_bytes();
        assert_eq!(scan(&message(100), 1000), Ok(100));
        assert_eq!(scan(&message(101), 1000), Err(Reply::mail_loop()));
    }

    #[test]
    fn the_header_is_bounded_and_the_body_is_not() {
        let max = usize::try_from(HEADER_OCTETS_MAX).expect("it is small");
        let mut message = vec![b'x'; max - 4];
        message.extend_from_slice(b"\r\n\r\n");
        assert_eq!(scan(&message, 4096), Ok(0));
        message.extend_from_slice(&vec![b'x'; max]);
        assert_eq!(scan(&message, 4096), Ok(0), "the body does not count");
        message.insert(0, b'x');
        assert_eq!(scan(&message, 4096), Err(Reply::header_too_big()));
    }
}
