//! APPEND (RFC 9051 §6.3.12): what is announced before the message itself.

use imap_types::datetime::DateTime;
use imap_types::flag::Flag;
use imap_types::mailbox::Mailbox;

/// A message that is announced.
#[derive(Clone, Debug)]
pub struct Append {
    /// For which mailbox.
    pub mailbox: Mailbox<'static>,
    /// Its flags.
    pub flags: Vec<Flag<'static>>,
    /// Seconds since 1970 that it is to bear as its internal date.
    pub date_unix_s: Option<i64>,
    /// Its octets.
    pub octets: u64,
}

impl Append {
    /// As announced.
    pub fn new(mailbox: Mailbox<'static>, flags: &[Flag<'static>], date: Option<DateTime>, octets: u64) -> Self {
        let date_unix_s = date.map(|date| date.as_ref().timestamp());
        Self { mailbox, flags: flags.to_vec(), date_unix_s, octets }
    }
}
