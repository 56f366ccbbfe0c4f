//! A letter: what a local program leaves in the drop. One line of JSON says for whom it is, as it was typed; the
//! message follows. Nothing is known of who wrote it, so each bound and rule is checked again when it is read.

use std::io;

use gatepost_protocol::mail::envelope::{Notify, Ret};
use serde::{Deserialize, Serialize};

/// Longest first line, in octets: a thousand long addresses fit.
pub const HEAD_OCTETS_MAX: usize = 512 * 1024;
/// Most recipients.
pub const RECIPIENTS_MAX: usize = 1000;
/// What this version writes.
const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    version: u32,
    /// As written: an address, or a bare local name; empty for nobody.
    pub sender: String,
    /// As written.
    pub recipients: Vec<String>,
    /// `full` or `hdrs` (RFC 3461 §4.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<String>,
    /// `never`, or any of `success`, `failure`, `delay` (RFC 3461 §4.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notify: Vec<String>,
    /// RFC 3461 §4.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
}

impl Head {
    /// For this sender and these recipients.
    pub fn new(sender: String, recipients: Vec<String>) -> Self {
        Self { version: VERSION, sender, recipients, ret: None, notify: Vec::new(), envid: None }
    }

    /// With what the sender wants to hear of it.
    pub fn with_wishes(mut self, ret: Option<Ret>, notify: Notify, envid: Option<String>) -> Self {
        self.ret = ret.map(|ret| if ret == Ret::Full { "full" } else { "hdrs" }.to_owned());
        self.notify = match notify {
            Notify::Unspecified => Vec::new(),
            Notify::Never => vec!["never".to_owned()],
            Notify::On { success, failure, delay } => [(success, "success"), (failure, "failure"), (delay, "delay")]
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, word)| word.to_owned())
                .collect(),
        };
        self.envid = envid;
        self
    }

    /// The line, with its end.
    pub fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads a line. An error says what is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let head: Self = serde_json::from_slice(line).map_err(|error| format!("its first line is no head: {error}"))?;
        if head.version != VERSION {
            return Err(format!("it is of version {}, this program reads {VERSION}", head.version));
        }
        if head.recipients.is_empty() || head.recipients.len() > RECIPIENTS_MAX {
            return Err(format!("it has {} recipients", head.recipients.len()));
        }
        Ok(head)
    }

    /// How much of it a bounce returns.
    pub fn ret(&self) -> Option<Ret> {
        match self.ret.as_deref() {
            Some("full") => Some(Ret::Full),
            Some("hdrs") => Some(Ret::Headers),
            _ => None,
        }
    }

    /// What the sender wants to hear of.
    pub fn notify(&self) -> Notify {
        let has = |word: &str| self.notify.iter().any(|said| said == word);
        if has("never") {
            Notify::Never
        } else if self.notify.is_empty() {
            Notify::Unspecified
        } else {
            Notify::On { success: has("success"), failure: has("failure"), delay: has("delay") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let plain = Head::new("root".into(), vec!["alice".into(), "bob@example.com".into()]);
        let on = Notify::On { success: true, failure: false, delay: true };
        let full = plain.clone().with_wishes(Some(Ret::Headers), on, Some("x".into()));
        for head in [plain, full.clone()] {
            let line = head.line().expect("written");
            assert_eq!(line.iter().position(|&b| b == b'\n'), Some(line.len() - 1));
            assert_eq!(Head::parse(&line), Ok(head));
        }
        assert_eq!((full.ret(), full.notify()), (Some(Ret::Headers), on));
        // What is stored stays readable.
        let stored = br#"{"version":1,"sender":"root","recipients":["alice"]}"#;
        assert_eq!(Head::parse(stored), Ok(Head::new("root".into(), vec!["alice".into()])));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let many = format!(r#"{{"version":1,"sender":"","recipients":[{}"a"]}}"#, "\"a\",".repeat(RECIPIENTS_MAX));
        for (text, says) in [
            ("", "no head"),
            ("{}", "no head"),
            (r#"{"version":2,"sender":"","recipients":["a"]}"#, "version 2"),
            (r#"{"version":1,"sender":"","recipients":[]}"#, "0 recipients"),
            (r#"{"version":1,"sender":"","recipients":["a"],"uid":0}"#, "no head"),
            (&many, "1001 recipients"),
        ] {
            let error = Head::parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
