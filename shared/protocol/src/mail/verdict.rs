//! What the edge found out about a message. It travels as this structure; the home never parses
//! it back out of a header.

/// The edge's findings. Judging is a chapter of its own; what every message already carries is
/// how many hops it has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Received fields the message came with.
    pub hops: u16,
}
