//! Where a connection stands; what is awaited from the server.

use super::transaction::Transaction;
use crate::sasl::ClientExchange;
use crate::secret::Secret;
use crate::smtp::body::Encoder;

/// Where a connection stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// The greeting is awaited.
    Greeting,
    /// The reply to EHLO or LHLO.
    Ehlo,
    /// The reply to HELO.
    Helo,
    /// The reply to STARTTLS.
    StartTls,
    /// [`crate::machine::Output::Secure`] is due.
    SecureDue,
    /// The TLS handshake runs.
    Securing,
    /// The reply to a turn of the login.
    Login(Box<Login>),
    /// The program's turn.
    Ready,
    /// Replies to MAIL, RCPT and DATA.
    Transaction(Box<Transaction>),
    /// The program gives the message.
    Body(Box<Transaction>, Encoder),
    /// The reply (LMTP: replies) to the final dot.
    Final(Box<Transaction>),
    /// The reply to QUIT.
    Quitting,
    /// Nothing more is said.
    Ended,
}

impl Phase {
    /// Where that is, as it completes "The host went silent …".
    pub(super) fn words(&self) -> &'static str {
        match self {
            Self::Greeting => "before its greeting",
            Self::Ehlo => "after EHLO",
            Self::Helo => "after HELO",
            Self::StartTls => "after STARTTLS",
            Self::SecureDue | Self::Securing => "in the TLS handshake",
            Self::Login(_) => "in the login",
            Self::Ready => "between messages",
            Self::Transaction(transaction) => transaction.words(),
            Self::Body(..) => "in the message",
            Self::Final(_) => "after the final dot",
            Self::Quitting | Self::Ended => "at the end",
        }
    }
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) exchange: ClientExchange,
    /// An initial response that did not fit the AUTH line.
    pub(super) initial: Option<Secret>,
}
