//! One transaction: from MAIL to the answer at the end of its message. The envelope
//! itself belongs to the program; here is only what order and bounds need.

use crate::smtp::command::MailFrom;

/// What the machine remembers of MAIL and RCPT.
#[derive(Debug)]
pub(super) struct Transaction {
    /// MAIL said SMTPUTF8.
    pub(super) smtputf8: bool,
    /// Recipients accepted.
    accepted: usize,
    /// Recipients refused for their number alone.
    excess: usize,
}

impl Transaction {
    pub(super) fn new(mail: &MailFrom) -> Self {
        Self { smtputf8: mail.smtputf8, accepted: 0, excess: 0 }
    }

    /// At least one recipient was accepted.
    pub(super) fn has_recipients(&self) -> bool {
        self.accepted > 0
    }

    /// Room for one more?
    pub(super) fn has_room(&self, recipients_max: usize) -> bool {
        self.accepted < recipients_max
    }

    pub(super) fn accept(&mut self) {
        self.accepted += 1;
    }

    /// One recipient too many. True once there are more of these than a client that simply did not
    /// know our limit would send: then each is an error.
    pub(super) fn exceed(&mut self, recipients_max: usize) -> bool {
        self.excess += 1;
        self.excess > recipients_max
    }
}
