//! Where a session stands. A phase is consumed by each step, and a transaction exists in exactly
//! the phases that carry one.

use super::transaction::Transaction;
use crate::smtp::body::Decoder;

/// Where a session stands. Those marked *question* parse nothing until they are answered.
#[derive(Debug)]
pub(super) enum Phase {
    /// The connection was made and nothing said: [`super::Event::Connected`] is due.
    New,
    /// Question: greet or refuse? The one that ends by itself if the client speaks or goes.
    Greeting,
    /// Commands, no transaction.
    Idle,
    /// 220 to STARTTLS was said; [`crate::machine::Output::Secure`] is due.
    SecureDue,
    /// The TLS handshake runs.
    Securing,
    /// Question: a turn of a login.
    Auth,
    /// A response of the client is awaited.
    AuthResponse,
    /// The login succeeded; the client's empty response to the last challenge is awaited.
    AuthLast {
        /// Who will be logged in.
        login: String,
    },
    /// Question: MAIL.
    Sender(Transaction),
    /// Commands, a transaction is open.
    Open(Transaction),
    /// Question: RCPT.
    Recipient(Transaction),
    /// Question: DATA.
    Data(Transaction),
    /// The message comes.
    Body(Transaction, Decoder),
    /// Question: the message is whole.
    BodyEnd(Transaction),
    /// Nothing more is read; what is due is written and the connection closed.
    Ending,
}

impl Phase {
    /// An answer is awaited.
    pub(super) fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Greeting | Self::Auth | Self::Sender(_) | Self::Recipient(_) | Self::Data(_) | Self::BodyEnd(_)
        )
    }

    /// The open transaction.
    pub(super) fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Open(transaction)
            | Self::Recipient(transaction)
            | Self::Data(transaction)
            | Self::Body(transaction, _)
            | Self::BodyEnd(transaction) => Some(transaction),
            _ => None,
        }
    }
}
