//! What a door offers, what the machine asks and tells the program around it, and what it is
//! answered about logins.

use bytes::Bytes;

use super::limits::Limits;
use crate::mail::address::Domain;
use crate::mail::reply::Reply;
use crate::sasl::Mechanism;
use crate::secret::Secret;
use crate::smtp::command::{MailFrom, RcptTo};

/// What this door offers.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Our name, in greeting and EHLO.
    pub hostname: String,
    /// STARTTLS is offered (25). On 465 TLS comes first: call [`crate::machine::Machine::secured`] before anything else.
    pub starttls: bool,
    /// Mechanisms offered, only under TLS. Empty: AUTH is not a command here.
    pub mechanisms: Vec<Mechanism>,
    /// MAIL wants a login. Without, a login is the client's choice.
    pub login_required: bool,
    /// `DSN` is offered (RFC 3461).
    pub dsn: bool,
    /// Bare local names are names of this domain; without, they are refused.
    pub qualify: Option<Domain>,
    /// Bounds.
    pub limits: Limits,
}

/// Questions and notices.
#[derive(Debug)]
pub enum Event {
    /// Question: greet or refuse? [`super::Server::answer`] with 220, or 421/554 (which closes). The answer may take its
    /// time: a client that speaks before it is turned away with 554, and [`Event::Closing`] comes instead.
    Connected,
    /// Notice: EHLO or HELO was said and answered.
    Hello {
        /// The name given.
        name: String,
        /// EHLO.
        extended: bool,
    },
    /// Question: a login begins. [`super::Server::answer_auth`].
    Auth {
        /// The mechanism, one of those offered.
        mechanism: Mechanism,
        /// Initial response, decoded.
        initial: Option<Secret>,
    },
    /// Question: the client's response to the challenge, decoded. [`super::Server::answer_auth`].
    AuthResponse(Secret),
    /// Question: MAIL. Syntax, size and order were checked. [`super::Server::answer`].
    Sender(MailFrom),
    /// Question: RCPT. Syntax, count and order were checked. [`super::Server::answer`].
    Recipient(RcptTo),
    /// Question: DATA, with at least one accepted recipient. [`super::Server::answer`] with 354, or a refusal,
    /// which ends the transaction.
    Data,
    /// Notice: the next bytes of the message, unstuffed, CRLF line ends kept. Never empty.
    Body(Bytes),
    /// Question: the message is whole. [`super::Server::answer`] with 250 or a refusal.
    BodyEnd {
        /// Octets that came as [`Event::Body`].
        octets: u64,
    },
    /// Notice: the open transaction is over without an answer to its end (RSET, EHLO, a body the
    /// machine itself refused, the connection ended). What came of it must be forgotten.
    Reset,
    /// Notice: the connection ends, and why; always last.
    Closing(Ending),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// QUIT.
    Quit,
    /// The client hung up.
    HungUp,
    /// Idle or over time.
    TimedOut,
    /// Too many errors, or a protocol abuse such as a bare line end.
    Abuse,
    /// A 421 or a refusal of ours at the greeting.
    Refused,
}

/// The answer to a turn of a login.
#[derive(Debug)]
pub enum AuthAnswer {
    /// 334 with this challenge.
    Challenge(Vec<u8>),
    /// Logged in. With `last`, it is sent as a final challenge first, as RFC 4954 §4 wants; the machine
    /// takes the client's empty response itself.
    Success {
        /// Who logged in.
        login: String,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// 4yz or 5yz.
    Failure(Reply),
}
