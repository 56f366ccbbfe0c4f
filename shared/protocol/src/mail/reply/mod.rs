//! Replies of SMTP: code, enhanced code (RFC 3463), text. Every reply Gatepost can speak is a named
//! constructor in the catalogue; nobody else spells three digits.

mod catalogue;
mod judgement;

use std::fmt;

/// Most lines a reply may have, ours or a remote server's.
pub const REPLY_LINES_MAX: usize = 64;
/// Most octets of text in a reply, over all lines.
pub const REPLY_OCTETS_MAX: usize = 8 * 1024;

/// What [`Reply::cut`] counts for each line besides its text, in octets.
pub const LINE_OCTETS: usize = 5;

/// What the first digit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2yz: done.
    Done,
    /// 3yz: go on.
    Continue,
    /// 4yz: not now, try again.
    Temporary,
    /// 5yz: never.
    Permanent,
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u16, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Enhanced {
    /// Parses `5.1.1` at the start of a reply's text; gives the rest of the text too.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = word.split('.');
        let mut digit = |most: usize| -> Option<u16> {
            let part = parts.next()?;
            (!part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        let code = Self(digit(1)?, digit(3)?, digit(3)?);
        if parts.next().is_some() || !matches!(code.0, 2 | 4 | 5) {
            return None;
        }
        Some((code, rest))
    }
}

/// One reply. The text has no control characters and is never empty on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    lines: Vec<String>,
}

impl Reply {
    /// A reply from its parts, as read from a peer or built below. Control characters in the text
    /// become spaces, so a reply can be put in a log line or on the wire as it is.
    pub fn new(code: u16, enhanced: Option<Enhanced>, lines: Vec<String>) -> Self {
        let mut octets = 0;
        let lines = lines
            .into_iter()
            .take(REPLY_LINES_MAX)
            .map(|line| line.replace(|c: char| c.is_control(), " "))
            .take_while(|line| {
                octets += line.len();
                octets <= REPLY_OCTETS_MAX
            })
            .collect();
        Self { code: code.clamp(200, 599), enhanced, lines }
    }

    pub(super) fn one(code: u16, enhanced: (u16, u16, u16), text: impl Into<String>) -> Self {
        let (class, subject, detail) = enhanced;
        Self::new(code, Some(Enhanced(class, subject, detail)), vec![text.into()])
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, if there is one.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text, a line each, without codes.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The first digit.
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Done,
            3 => Class::Continue,
            4 => Class::Temporary,
            _ => Class::Permanent,
        }
    }

    /// True for 2yz.
    pub fn is_positive(&self) -> bool {
        self.class() == Class::Done
    }

    /// The codes and the first part of the text: at most `octets_max` of it, each line counted with
    /// [`LINE_OCTETS`] more for what frames it.
    #[must_use]
    pub fn cut(mut self, octets_max: usize) -> Self {
        let mut left = octets_max;
        let mut kept = 0;
        for line in &mut self.lines {
            let Some(room) = left.checked_sub(LINE_OCTETS) else { break };
            line.truncate(line.floor_char_boundary(room));
            left = room - line.len();
            kept += 1;
        }
        self.lines.truncate(kept);
        self
    }

    /// The text as one line.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// True if it says that a mailbox has no room (RFC 3463 §3.3, RFC 5321 §4.2.3).
    pub fn is_full_mailbox(&self) -> bool {
        match self.enhanced {
            Some(Enhanced(4 | 5, subject, detail)) => (subject, detail) == (2, 2),
            _ => matches!(self.code, 452 | 552),
        }
    }

    /// True if it says that trying is given up, for time is over (RFC 3463 §3.5).
    pub fn is_given_up(&self) -> bool {
        self.enhanced == Some(Enhanced(5, 4, 7))
    }

    /// The bytes on the wire: `250-…` lines and a last `250 …`, each ended by CRLF.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(64);
        let last = self.lines.len().saturating_sub(1);
        let empty = [String::new()];
        let lines = if self.lines.is_empty() { &empty[..] } else { &self.lines[..] };
        for (i, line) in lines.iter().enumerate() {
            let mark = if i == last { ' ' } else { '-' };
            wire.extend_from_slice(format!("{}{mark}", self.code).as_bytes());
            if let Some(enhanced) = self.enhanced {
                wire.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            wire.extend_from_slice(line.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire
    }
}

impl fmt::Display for Reply {
    /// `550 5.1.1 No such user here`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if !self.lines.is_empty() {
            write!(f, " {}", self.text())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_forms() {
        assert_eq!(Reply::ok().wire(), b"250 2.0.0 OK\r\n");
        assert_eq!(
            Reply::hello("mail.example.org", vec!["SIZE 100".into(), "PIPELINING".into()]).wire(),
            b"250-mail.example.org\r\n250-SIZE 100\r\n250 PIPELINING\r\n"
        );
        assert_eq!(Reply::new(250, None, vec![]).wire(), b"250 \r\n");
    }

    #[test]
    fn text_cannot_carry_line_ends() {
        let reply = Reply::new(550, None, vec!["a\r\n250 b".into()]);
        assert_eq!(reply.wire(), b"550 a  250 b\r\n");
    }

    #[test]
    fn a_reply_is_bounded() {
        let reply = Reply::new(250, None, vec!["x".repeat(1000); 1000]);
        assert_eq!(reply.lines().len(), 8);
    }

    #[test]
    fn a_reply_is_cut_between_characters_and_keeps_its_codes() {
        let reply = || Reply::new(550, Some(Enhanced(5, 7, 1)), vec!["first".into(), "zweite Zeile: ü".into()]);
        assert_eq!(reply().cut(1000), reply());
        assert_eq!(reply().cut(10 + 5 + 15).to_string(), "550 5.7.1 first zweite Zeile: ");
        assert_eq!(reply().cut(10 + 4).to_string(), "550 5.7.1 first");
        assert_eq!(reply().cut(0).to_string(), "550 5.7.1");
    }

    #[test]
    fn enhanced_codes_split() {
        assert_eq!(Enhanced::split("5.1.1 gone"), Some((Enhanced(5, 1, 1), "gone")));
        assert_eq!(Enhanced::split("2.0.0"), Some((Enhanced(2, 0, 0), "")));
        for text in ["5.1 gone", "9.1.1 x", "5.1.1.1 x", "5..1 x", "hello", "", "5.1111.1"] {
            assert_eq!(Enhanced::split(text), None, "{text}");
        }
    }
}
