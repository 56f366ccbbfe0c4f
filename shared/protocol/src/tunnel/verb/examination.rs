//! What a home asks an edge to try out from where the edge stands, and what came of it: a part of `Admin`. The answer
//! travels as the JSON text of [`Examined`].

use serde::{Deserialize, Serialize};

/// Domains to be tried, lists to be asked, doors to be knocked at: so many of each at most.
pub const TARGETS_MAX: usize = 16;
/// Longest name of any of them, in octets.
pub const NAME_OCTETS_MAX: usize = 255;
/// Octets of one [`super::admin::AdminRequest::Echo`], there and back.
pub const ECHO_OCTETS_MAX: usize = 128 * 1024;

/// What is to be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// Is one of these domains' mail hosts reached at port 25, or one of these hosts (`host:port`)?
    pub mail_to: Vec<String>,
    /// Do these DNS lists list the edge?
    pub lists: Vec<String>,
    /// Does a mail server greet at these doors, and does it relay for strangers?
    pub doors: Vec<Door>,
    /// An address that is in no domain of anybody here: what an open relay would take.
    pub elsewhere: String,
    /// The edge's own addresses, as the world knows them.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A mail server's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Its host name.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Examined {
    /// The edge's date, milliseconds since 1970.
    pub unix_ms: i64,
    /// When the last client from outside came to 25, seconds since 1970.
    pub outside_unix_s: Option<i64>,
    /// The port of 25, as it is really served.
    pub smtp_port: Option<u16>,
    /// The port of 465.
    pub submissions_port: Option<u16>,
    /// The first of the mail hosts that was reached, or why none was.
    pub mail_to: Option<Tried>,
    /// Each list and address.
    pub lists: Vec<Standing>,
    /// Each door, in the order asked for.
    pub doors: Vec<Tried>,
    /// Commands by which a stranger's mail would have been relayed, by door.
    pub relayed: Vec<Relayed>,
}

/// One thing that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tried {
    /// What: host and port.
    pub what: String,
    /// It was reached, and greeted.
    pub good: bool,
    /// Its words, or why not.
    pub told: String,
}

/// What one list says of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The list.
    pub list: String,
    /// The address.
    pub address: String,
    /// Listed, not listed, or (none) it could not be asked.
    pub listed: Option<bool>,
    /// Its words, or why it could not be asked.
    pub told: String,
}

/// A stranger's recipient that a door took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Which door.
    pub door: String,
    /// What was said.
    pub command: String,
    /// The answer.
    pub reply: String,
}

impl Examination {
    /// True if it asks for no more than is done at once.
    pub fn is_bounded(&self) -> bool {
        let names = self.mail_to.iter().chain(&self.lists).chain(self.doors.iter().map(|door| &door.host));
        [self.mail_to.len(), self.lists.len(), self.doors.len(), self.addresses.len()]
            .into_iter()
            .all(|count| count <= TARGETS_MAX)
            && names.chain([&self.elsewhere]).all(|name| name.len() <= NAME_OCTETS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_too_much_is_told_from_what_does_not() {
        let asked = |count: usize, octets: usize| Examination {
            lists: vec!["x".repeat(octets); count],
            ..Examination::default()
        };
        assert!(asked(TARGETS_MAX, NAME_OCTETS_MAX).is_bounded());
        assert!(!asked(TARGETS_MAX + 1, 1).is_bounded());
        assert!(!asked(1, NAME_OCTETS_MAX + 1).is_bounded());
        assert!(!Examination { elsewhere: "x".repeat(300), ..asked(0, 0) }.is_bounded());
    }
}
