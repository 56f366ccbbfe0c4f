//! Exit codes of `sendmail`, as `sysexits.h` numbers them: callers decide by them whether to try again.

use std::fmt::Display;

use crate::mail::reply::{Class, Enhanced, Reply};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `EX_OK`: the message is durable.
    Ok,
    /// `EX_USAGE`: the arguments make no sense.
    Usage,
    /// `EX_DATAERR`: the message, or an address, can't be right.
    DataError,
    /// `EX_NOUSER`: no such recipient.
    NoUser,
    /// `EX_UNAVAILABLE`: refused for another reason, or not offered.
    Unavailable,
    /// `EX_OSERR`: the system failed us.
    SystemError,
    /// `EX_CANTCREAT`: the message could not be put where it belongs.
    CantCreate,
    /// `EX_IOERR`: stdin or stdout broke.
    IoError,
    /// `EX_TEMPFAIL`: not now; nothing was kept.
    TemporaryFailure,
    /// `EX_NOPERM`: this user, or this sender, may not.
    NoPermission,
    /// `EX_CONFIG`: the config is wrong.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::DataError => 65,
            Self::NoUser => 67,
            Self::Unavailable => 69,
            Self::SystemError => 71,
            Self::CantCreate => 73,
            Self::IoError => 74,
            Self::TemporaryFailure => 75,
            Self::NoPermission => 77,
            Self::Config => 78,
        }
    }

    /// What a reply to the message means to who sent it.
    pub fn of(reply: &Reply) -> Self {
        match (reply.class(), reply.enhanced()) {
            (Class::Done, _) => Self::Ok,
            (Class::Temporary | Class::Continue, _) => Self::TemporaryFailure,
            (Class::Permanent, Some(Enhanced(_, 1, 7 | 8) | Enhanced(_, 7, _))) => Self::NoPermission,
            (Class::Permanent, Some(Enhanced(_, 1, _))) => Self::NoUser,
            (Class::Permanent, Some(Enhanced(_, 6, _))) => Self::DataError,
            (Class::Permanent, _) => Self::Unavailable,
        }
    }
}

/// Why the command fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What its caller is told by.
    pub exit: Exit,
    /// What people are told.
    pub why: String,
}

impl Trouble {
    /// It fails by this code, for this reason.
    pub fn new(exit: Exit, why: impl Display) -> Self {
        Self { exit, why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_their_codes() {
        for (reply, code) in [
            (Reply::accepted("x"), 0),
            (Reply::no_room(), 75),
            (Reply::unknown_recipient(), 67),
            (Reply::sender_not_trusted("a@b.c"), 77),
            (Reply::bare_in_message(), 65),
            (Reply::malformed_message("x"), 65),
            (Reply::too_big(1), 69),
        ] {
            assert_eq!(Exit::of(&reply).code(), code, "{reply}");
        }
    }
}
