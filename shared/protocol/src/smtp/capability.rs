//! EHLO keywords (RFC 5321 §4.1.1.1): what a server of ours offers, and what a client of ours
//! understands of others.

use crate::mail::reply::Reply;
use crate::sasl::Mechanism;

/// What a server of ours offers right now, a line each.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Largest message, for SIZE.
    pub message_octets_max: u64,
    /// STARTTLS can be said.
    pub starttls: bool,
    /// AUTH can be said, with these.
    pub mechanisms: &'a [Mechanism],
    /// DSN parameters are known.
    pub dsn: bool,
}

impl Offer<'_> {
    /// The keyword lines after our name.
    pub fn lines(self) -> Vec<String> {
        let mut lines = vec!["PIPELINING".to_owned(), format!("SIZE {}", self.message_octets_max)];
        if self.starttls {
            lines.push("STARTTLS".to_owned());
        }
        if !self.mechanisms.is_empty() {
            let names: Vec<_> = self.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
            lines.push(format!("AUTH {}", names.join(" ")));
        }
        if self.dsn {
            lines.push("DSN".to_owned());
        }
        lines.extend(["ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"].map(str::to_owned));
        lines
    }
}

/// What another server offers.
#[expect(clippy::struct_excessive_bools, reason = "each is a keyword of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// `PIPELINING` (RFC 2920).
    pub pipelining: bool,
    /// `8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `DSN` (RFC 3461).
    pub dsn: bool,
    /// `SIZE` (RFC 1870), and its limit if it names one.
    pub size: Option<Option<u64>>,
    /// `STARTTLS` (RFC 3207).
    pub starttls: bool,
    /// `AUTH` (RFC 4954): those of its mechanisms that we speak.
    pub mechanisms: Vec<Mechanism>,
}

impl Offered {
    /// Reads the reply to EHLO. Its first line is the server's name and greeting.
    pub fn parse(reply: &Reply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines().iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offered.pipelining = true,
                "8BITMIME" => offered.eight_bit = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "DSN" => offered.dsn = true,
                "STARTTLS" => offered.starttls = true,
                // Zero is no limit (RFC 1870 §4).
                "SIZE" => offered.size = Some(words.next().and_then(|n| n.parse().ok()).filter(|&n| n != 0)),
                "AUTH" => offered.mechanisms.extend(words.filter_map(Mechanism::parse)),
                _ => {}
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Offered {
        Offered::parse(&Reply::new(250, None, lines.iter().map(|&line| line.to_owned()).collect()))
    }

    #[test]
    fn what_we_offer_is_what_we_understand() {
        let offer = Offer { message_octets_max: 1000, starttls: true, mechanisms: &[Mechanism::Plain], dsn: true };
        let offered = Offered::parse(&Reply::hello("mail.example.org", offer.lines()));
        let expected = Offered {
            pipelining: true,
            eight_bit: true,
            smtputf8: true,
            dsn: true,
            size: Some(Some(1000)),
            starttls: true,
            mechanisms: vec![Mechanism::Plain],
        };
        assert_eq!(offered, expected);
    }

    #[test]
    fn reads_others() {
        assert_eq!(parse(&["PIPELINING greets you"]), Offered::default());
        assert_eq!(parse(&["x", "SIZE"]).size, Some(None));
        assert_eq!(parse(&["x", "size 0"]).size, Some(None));
        assert_eq!(parse(&["x", "SIZE -1"]).size, Some(None));
        assert_eq!(parse(&["x", "AUTH GSSAPI login X"]).mechanisms, [Mechanism::Login]);
        assert_eq!(parse(&["x", "CHUNKING", ""]), Offered::default());
    }
}
