//! What became of one recipient, and the one judgement temporary or permanent.

use super::reply::{Class, Reply};

/// What became of one recipient at the next hop. The reply is the remote's own words, or ours
/// where no remote spoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop has taken responsibility.
    Accepted(Reply),
    /// Not now; try again.
    Deferred(Reply),
    /// Never; tell the sender.
    Refused(Reply),
}

impl Outcome {
    /// Judges a final reply. A 3yz where a final reply is due is a protocol error, hence temporary.
    pub fn of(reply: Reply) -> Self {
        match reply.class() {
            Class::Done => Self::Accepted(reply),
            Class::Permanent => Self::Refused(reply),
            Class::Continue | Class::Temporary => Self::Deferred(reply),
        }
    }

    /// The reply behind the judgement.
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Accepted(reply) | Self::Deferred(reply) | Self::Refused(reply) => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_by_class() {
        assert!(matches!(Outcome::of(Reply::ok()), Outcome::Accepted(_)));
        assert!(matches!(Outcome::of(Reply::no_room()), Outcome::Deferred(_)));
        assert!(matches!(Outcome::of(Reply::unknown_recipient()), Outcome::Refused(_)));
        assert!(matches!(Outcome::of(Reply::start_data()), Outcome::Deferred(_)));
    }
}
