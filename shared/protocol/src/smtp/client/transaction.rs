//! One transaction of the client: its commands, which replies belong to which, and an outcome for
//! each recipient. Commands go out in groups where the server can take them (RFC 2920).

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::BytesMut;

use crate::mail::address::{Address, ReversePath};
use crate::mail::envelope::{BodyKind, Envelope, Notify, Recipient, Ret};
use crate::mail::outcome::Outcome;
use crate::mail::reply::{Class, Reply};
use crate::smtp::capability::Offered;
use crate::smtp::xtext;

/// Most commands sent and not yet answered. Their replies must fit the buffers between the hosts,
/// or both might wait for the other to read (RFC 2920 §3.1).
const PIPELINED_MAX: usize = 64;

/// A command of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Rset,
    Mail,
    /// To the recipient of this index.
    Rcpt(usize),
    Data,
    /// The end of an empty message that nobody gets: DATA was said before every recipient was refused.
    Dot,
}

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More replies are awaited.
    GoOn,
    /// The server waits for the message.
    Body,
    /// Every recipient has its outcome.
    Over,
    /// The server makes no sense.
    Broken(Reply),
}

/// A transaction under way.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug)]
pub(super) struct Transaction {
    envelope: Envelope,
    octets: u64,
    eight_bit: bool,
    utf8: bool,
    offered: Offered,
    lmtp: bool,
    unsent: VecDeque<Command>,
    unanswered: VecDeque<Command>,
    outcomes: Vec<Option<Outcome>>,
    /// Accepted recipients, in order; LMTP answers the final dot once for each.
    accepted: VecDeque<usize>,
    mail_refused: bool,
}

impl Transaction {
    pub(super) fn new(
        envelope: Envelope,
        octets: u64,
        eight_bit: bool,
        offered: &Offered,
        lmtp: bool,
        reset: bool,
    ) -> Self {
        let mut transaction = Self {
            outcomes: vec![None; envelope.recipients.len()],
            octets,
            eight_bit,
            utf8: false,
            offered: offered.clone(),
            lmtp,
            unsent: VecDeque::new(),
            unanswered: VecDeque::new(),
            accepted: VecDeque::new(),
            mail_refused: false,
            envelope,
        };
        transaction.refuse_what_cannot_go();
        if !transaction.is_over() {
            let open = transaction.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
            let recipients = open.map(|(index, _)| Command::Rcpt(index));
            transaction.unsent.extend(reset.then_some(Command::Rset));
            transaction.unsent.push_back(Command::Mail);
            transaction.unsent.extend(recipients);
            transaction.unsent.push_back(Command::Data);
        }
        transaction
    }

    /// What this server can't take is refused before a word is said.
    fn refuse_what_cannot_go(&mut self) {
        if let Some(Some(octets_max)) = self.offered.size
            && self.octets > octets_max
        {
            return self.fail(&Reply::too_big(octets_max));
        }
        let sender_needs_utf8 = self.envelope.reverse_path.address().is_some_and(Address::needs_utf8);
        // A message that said SMTPUTF8 and then held only ASCII is an ordinary one.
        let content_needs_utf8 = self.envelope.smtputf8 && self.eight_bit;
        let message_needs_utf8 = sender_needs_utf8 || content_needs_utf8;
        // Who stores it in a mailbox passes it on to no host that could not take it: there only addresses count.
        if (sender_needs_utf8 || (content_needs_utf8 && !self.lmtp)) && !self.offered.smtputf8 {
            return self.fail(&Reply::utf8_not_supported());
        }
        if self.eight_bit && !self.offered.eight_bit && !self.lmtp {
            return self.fail(&Reply::eight_bit_not_supported());
        }
        let mut recipient_needs_utf8 = false;
        for (recipient, outcome) in self.envelope.recipients.iter().zip(&mut self.outcomes) {
            if recipient.address.needs_utf8() {
                recipient_needs_utf8 = true;
                if !self.offered.smtputf8 {
                    *outcome = Some(Outcome::of(Reply::utf8_not_supported()));
                }
            }
        }
        self.utf8 = self.offered.smtputf8 && (message_needs_utf8 || recipient_needs_utf8);
    }

    /// Which reply is missing.
    pub(super) fn words(&self) -> &'static str {
        match self.unanswered.front() {
            Some(Command::Rset) => "after RSET",
            Some(Command::Mail) => "after MAIL",
            Some(Command::Rcpt(_)) => "after RCPT",
            Some(Command::Data) => "after DATA",
            Some(Command::Dot) => "after the final dot",
            None => "in the transaction",
        }
    }

    /// Every recipient has its outcome.
    pub(super) fn is_over(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// Gives this reply to every recipient that has none.
    pub(super) fn fail(&mut self, reply: &Reply) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Outcome::of(failure(reply.clone())));
        }
    }

    /// An outcome for each recipient.
    pub(super) fn into_outcomes(mut self) -> Vec<Outcome> {
        self.fail(&Reply::local_error());
        self.outcomes.into_iter().flatten().collect()
    }

    /// Writes the commands that may go out now.
    pub(super) fn write_commands(&mut self, wire: &mut BytesMut) {
        let unanswered_max = if self.offered.pipelining { PIPELINED_MAX } else { 1 };
        while self.unanswered.len() < unanswered_max {
            let Some(command) = self.unsent.pop_front() else { return };
            wire.extend_from_slice(self.line(command).as_bytes());
            self.unanswered.push_back(command);
        }
    }

    fn line(&self, command: Command) -> String {
        match command {
            Command::Rset => "RSET\r\n".to_owned(),
            Command::Mail => self.mail_line(),
            Command::Rcpt(index) => self.rcpt_line(&self.envelope.recipients[index]),
            Command::Data => "DATA\r\n".to_owned(),
            Command::Dot => ".\r\n".to_owned(),
        }
    }

    fn mail_line(&self) -> String {
        let mut line = match &self.envelope.reverse_path {
            ReversePath::Null => "MAIL FROM:<>".to_owned(),
            ReversePath::Address(sender) => format!("MAIL FROM:<{sender}>"),
        };
        if self.offered.size.is_some() {
            write!(line, " SIZE={}", self.octets).expect("a string takes any text");
        }
        if self.offered.eight_bit && (self.eight_bit || self.envelope.body == BodyKind::EightBit) {
            line.push_str(" BODY=8BITMIME");
        }
        if self.utf8 {
            line.push_str(" SMTPUTF8");
        }
        if self.offered.dsn {
            match self.envelope.ret {
                Some(Ret::Full) => line.push_str(" RET=FULL"),
                Some(Ret::Headers) => line.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &self.envelope.envid {
                write!(line, " ENVID={}", xtext::encode(envid)).expect("a string takes any text");
            }
        }
        line.push_str("\r\n");
        line
    }

    fn rcpt_line(&self, recipient: &Recipient) -> String {
        let mut line = format!("RCPT TO:<{}>", recipient.address);
        if self.offered.dsn {
            line.push_str(&notify_parameter(recipient.notify));
            // UTF-8 in it may go only where SMTPUTF8 was said (RFC 6533 §3); left out elsewhere.
            let orcpt = recipient.orcpt.as_deref().filter(|text| text.is_ascii());
            if let Some((kind, address)) = orcpt.and_then(|text| text.split_once(';'))
                && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            {
                write!(line, " ORCPT={kind};{}", xtext::encode(address)).expect("a string takes any text");
            }
        }
        line.push_str("\r\n");
        line
    }

    /// The reply to the oldest command without one.
    pub(super) fn reply(&mut self, reply: Reply) -> Step {
        let Some(command) = self.unanswered.pop_front() else {
            return Step::Broken(super::unasked());
        };
        match command {
            Command::Rset if reply.is_positive() => Step::GoOn,
            Command::Rset => Step::Broken(failure(reply)),
            Command::Mail => {
                if !reply.is_positive() {
                    self.mail_refused = true;
                    self.fail(&reply);
                }
                self.after_refusal()
            }
            Command::Rcpt(index) => {
                self.recipient_answered(index, reply);
                self.after_refusal()
            }
            Command::Data => self.data_answered(&reply),
            Command::Dot => Step::Over,
        }
    }

    fn recipient_answered(&mut self, index: usize, reply: Reply) {
        if self.mail_refused {
            return;
        }
        if reply.is_positive() {
            self.accepted.push_back(index);
            return;
        }
        // "Too many recipients" was 552 once, and means: later (RFC 5321 §4.5.3.1.10).
        self.outcomes[index] = Some(if reply.code() == 552 && reply.enhanced().is_none() {
            Outcome::Deferred(reply)
        } else {
            Outcome::of(failure(reply))
        });
    }

    /// Once nobody is left to send to, no more commands go out.
    fn after_refusal(&mut self) -> Step {
        if self.mail_refused || self.is_over() {
            self.unsent.clear();
        }
        if self.unanswered.is_empty() && self.unsent.is_empty() { Step::Over } else { Step::GoOn }
    }

    fn data_answered(&mut self, reply: &Reply) -> Step {
        let waits = reply.code() == 354;
        if reply.is_positive() || (!waits && reply.class() == Class::Continue) {
            return Step::Broken(Reply::protocol_error("The host answered DATA with neither 354 nor a refusal"));
        }
        match (waits, self.accepted.is_empty()) {
            (true, false) => Step::Body,
            // It would take a message for nobody: RFC 2920 §3.1 ends it by a lone dot. To that LMTP
            // owes no reply at all, so there the connection must end.
            (true, true) if self.lmtp => {
                Step::Broken(Reply::protocol_error("The host wants a message that it has no recipient for"))
            }
            (true, true) => {
                self.unsent.push_back(Command::Dot);
                Step::GoOn
            }
            (false, _) => {
                self.fail(reply);
                Step::Over
            }
        }
    }

    /// A reply to the final dot. True if it was the last one.
    pub(super) fn final_reply(&mut self, reply: Reply) -> bool {
        if self.lmtp {
            if let Some(index) = self.accepted.pop_front() {
                self.outcomes[index] = Some(Outcome::of(reply));
            }
            return self.accepted.is_empty();
        }
        for index in std::mem::take(&mut self.accepted) {
            self.outcomes[index] = Some(Outcome::of(reply.clone()));
        }
        true
    }
}

/// A reply that must not count as acceptance where it stands.
fn failure(reply: Reply) -> Reply {
    if reply.is_positive() { Reply::protocol_error("The host accepted what was not asked") } else { reply }
}

fn notify_parameter(notify: Notify) -> String {
    match notify {
        Notify::Unspecified => String::new(),
        Notify::Never => " NOTIFY=NEVER".to_owned(),
        Notify::On { success, failure, delay } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let said: Vec<_> = words.into_iter().filter(|(said, _)| *said).map(|(_, word)| word).collect();
            if said.is_empty() { String::new() } else { format!(" NOTIFY={}", said.join(",")) }
        }
    }
}
