//! The envelope: who sent it, who gets it, and what the client said about both.

use super::address::{Address, ReversePath};

/// Everything of a transaction but the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// Accepted recipients, in the order they came.
    pub recipients: Vec<Recipient>,
    /// `BODY=` (RFC 6152).
    pub body: BodyKind,
    /// `SMTPUTF8` was said (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=`, xtext decoded (RFC 3461 §4.4).
    pub envid: Option<String>,
}

/// One recipient and what the sender wants to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// RCPT TO.
    pub address: Address,
    /// `NOTIFY=` (RFC 3461 §4.1).
    pub notify: Notify,
    /// `ORCPT=` as `type;address`, xtext decoded (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient with nothing special asked.
    pub fn plain(address: Address) -> Self {
        Self { address, notify: Notify::default(), orcpt: None }
    }
}

/// `BODY=` of MAIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// `7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBit,
}

/// How much of a message a bounce returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header fields.
    Headers,
}

/// When the sender wants a delivery status notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// Nothing said: failures, and delays as we see fit.
    #[default]
    Unspecified,
    /// `NEVER`.
    Never,
    /// Any of `SUCCESS`, `FAILURE`, `DELAY`.
    On {
        /// Tell of success.
        success: bool,
        /// Tell of failure.
        failure: bool,
        /// Tell of delay.
        delay: bool,
    },
}

impl Notify {
    /// True if a failure is to be told.
    pub fn on_failure(self) -> bool {
        match self {
            Self::Unspecified => true,
            Self::Never => false,
            Self::On { failure, .. } => failure,
        }
    }

    /// True if a delay may be told.
    pub fn on_delay(self) -> bool {
        match self {
            Self::Unspecified => true,
            Self::Never => false,
            Self::On { delay, .. } => delay,
        }
    }

    /// True if a delivery, or a relaying past which nobody reports, is to be told.
    pub fn on_success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}
