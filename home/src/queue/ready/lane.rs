//! One lane: what waits in it, and where it stands itself. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::super::QueueId;
use super::super::entry::Final;
use super::super::next_hop::Via;
use super::Lane;

/// Which lanes take turns with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Class {
    /// Reports and questions, which need nobody of the world.
    Inner,
    /// The destination answers.
    Proven,
    /// Nothing is known of it, and somebody wrote to it since the program started.
    New,
    /// Nothing is known of it, and something waits that was never tried.
    Unknown,
    /// It could not be reached, or what waits was tried before.
    Troubled,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Inner, Self::Proven, Self::New, Self::Unknown, Self::Troubled];

    /// True if another attempt of this class may begin, beside as many as are `running` of each.
    pub fn has_room(self, running: &[usize; Self::COUNT], attempts_max: usize) -> bool {
        let messages: usize = running.iter().skip(1).sum();
        let share = match self {
            Self::Inner => return true,
            Self::Proven | Self::New | Self::Unknown => attempts_max.saturating_sub(attempts_max / 4),
            Self::Troubled => attempts_max / 2,
        };
        // Some are left to those who write now, however much has piled up.
        let piled_up = running[Self::Unknown as usize] + running[Self::Troubled as usize];
        let all = match self {
            Self::Unknown | Self::Troubled => piled_up < attempts_max.saturating_sub(attempts_max / 8),
            Self::Inner | Self::Proven | Self::New => true,
        };
        all && messages < attempts_max && running[self as usize] < share.max(1)
    }
}

/// What an entry has behind it when it is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Nothing: it was written since the program started.
    New,
    /// It was never tried.
    Untried,
    /// An attempt at it has ended.
    Tried,
}

/// Where a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: nothing waits in it.
    #[default]
    Nowhere,
    /// In a ring.
    Ring,
    /// Until this moment.
    Timer(u64),
    /// Until an attempt at its destination ends.
    Parked,
    /// Until an edge is up.
    Away,
}

/// What is known of a lane.
#[derive(Debug, Default)]
pub struct Queued {
    /// What waits, in order.
    pub waiting: VecDeque<QueueId>,
    /// How many are under way.
    pub running: u32,
    /// Where it stands.
    pub place: Place,
    /// Something in it was never tried.
    pub fresh: bool,
    /// Something in it was written since the program started.
    pub new: bool,
    /// Who takes its mail, once that is known.
    pub receiver: Option<Arc<str>>,
    /// What was heard last, while others wait because of it.
    pub last: Option<Box<Final>>,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bounce => f.write_str("reports"),
            Self::Ask(_) => f.write_str("questions"),
            Self::Hop { to, .. } => f.write_str(to),
            Self::Mailboxes(Some(server)) => write!(f, "{server}"),
            Self::Mailboxes(None) => f.write_str("mailboxes here"),
        }
    }
}

impl Lane {
    /// True if only an edge can do it.
    pub fn needs_edge(&self) -> bool {
        matches!(self, Self::Hop { via: Via::Edge, .. })
    }
}
