//! The first words on each connection: versions, names, the session it belongs to, and whether the
//! other side accepts. Nothing counts as connected before the acknowledgement was read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pairing::NodeKey;

/// ALPN of the tunnel.
pub const ALPN: &[u8] = b"gatepost/1";
/// Oldest protocol version this build speaks.
pub const VERSION_MIN: u16 = 1;
/// Newest protocol version this build speaks. 2 added `Directory2`, `Events`, `Admin`, `RelayStep::Ended`
/// and `AttemptState::EndedWith`; each is said only where both sides speak 2.
pub const VERSION_MAX: u16 = 2;
/// Largest hello or acknowledgement, in octets.
pub const HELLO_OCTETS_MAX: usize = 4 * 1024;

/// Which of a session's three connections this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Directory, logins, administration.
    Control,
    /// Messages.
    Mail,
    /// Mail clients' connections, opaque.
    Splice,
}

impl Role {
    /// All three, in the order they are dialled.
    pub const ALL: [Self; 3] = [Self::Control, Self::Mail, Self::Splice];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Mail => "mail",
            Self::Splice => "splice",
        })
    }
}

/// The dialling side's first record, sent after it has checked the other side's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest and newest protocol version spoken.
    pub versions: (u16, u16),
    /// Software version, for people.
    pub software: String,
    /// Node name, for people.
    pub node: String,
    /// The session these three connections form.
    pub session: [u8; 16],
    /// Which of the three.
    pub role: Role,
    /// Optional features; unknown ones are ignored.
    pub features: Vec<String>,
}

/// The answer; also what either side sends instead of its hello when it refuses the other's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAck {
    /// Connected.
    Accepted {
        /// The version both will speak.
        version: u16,
        /// Software version, for people.
        software: String,
        /// Node name, for people.
        node: String,
        /// Optional features.
        features: Vec<String>,
    },
    /// Not connected, and why.
    Refused(Refusal),
}

/// The first record of the dialling side: its hello, or the reason it hangs up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// Go on.
    Hello(Hello),
    /// The key it found is not the one it expected.
    Refused(Refusal),
}

/// Why there is no connection: one clear line for both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The accepting side does not list the dialling side's key.
    NotPaired {
        /// The key it was shown.
        got: [u8; 32],
    },
    /// The dialling side found another key than it lists.
    WrongKey {
        /// Keys it lists.
        expected: Vec<[u8; 32]>,
        /// The key it was shown.
        got: [u8; 32],
    },
    /// No version both speak.
    NoCommonVersion {
        /// Of the side that refuses.
        mine: (u16, u16),
        /// Of the other.
        yours: (u16, u16),
    },
    /// A newer session of the same home took over.
    Replaced,
    /// The first record could not be read.
    Malformed,
}

impl Refusal {
    /// A refusal the other side has sent, told from our side.
    pub fn from_other_side(self) -> Self {
        match self {
            Self::NoCommonVersion { mine, yours } => Self::NoCommonVersion { mine: yours, yours: mine },
            refusal => refusal,
        }
    }
}

/// Largest name or software version kept, in octets.
pub const NAME_OCTETS_MAX: usize = 255;

/// A name fit for logs and terminals: no control characters, bounded.
pub fn printable(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        let character = if character.is_control() { '?' } else { character };
        if name.len() + character.len_utf8() > NAME_OCTETS_MAX {
            break;
        }
        name.push(character);
    }
    name
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPaired { got } => {
                write!(f, "not paired: the edge does not list the home key {}", NodeKey::from_bytes(*got))
            }
            Self::WrongKey { expected, got } => {
                write!(f, "wrong key: expected ")?;
                for (i, key) in expected.iter().enumerate() {
                    let or = if i > 0 { " or " } else { "" };
                    write!(f, "{or}{}", NodeKey::from_bytes(*key))?;
                }
                write!(f, ", got {}", NodeKey::from_bytes(*got))
            }
            Self::NoCommonVersion { mine, yours } => {
                let upgrade = if mine.1 < yours.0 { "this side" } else { "the other side" };
                write!(
                    f,
                    "no common version of the tunnel's protocol: this side speaks {} to {}, the other {} to {}; upgrade \
                     gatepost on {upgrade}",
                    mine.0, mine.1, yours.0, yours.1
                )
            }
            Self::Replaced => {
                f.write_str("replaced by a newer session; if this happens again and again, two homes have the same key")
            }
            Self::Malformed => f.write_str("the other side's hello can't be read"),
        }
    }
}

/// The version both sides will speak: the newest that both know.
pub fn common_version(mine: (u16, u16), yours: (u16, u16)) -> Result<u16, Refusal> {
    let version = mine.1.min(yours.1);
    if version >= mine.0.max(yours.0) { Ok(version) } else { Err(Refusal::NoCommonVersion { mine, yours }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(common_version((1, 1), (1, 1)), Ok(1));
        assert_eq!(common_version((1, 2), (1, 1)), Ok(1));
        assert_eq!(common_version((1, 2), (2, 3)), Ok(2));
        let refusal = common_version((1, 1), (2, 3)).expect_err("disjoint");
        let words = "no common version of the tunnel's protocol: this side speaks 1 to 1, the other 2 to 3; upgrade \
                     gatepost on this side";
        assert_eq!(refusal.to_string(), words);
        let there = refusal.from_other_side().to_string();
        assert!(
            there.contains("this side speaks 2 to 3, the other 1 to 1; upgrade gatepost on the other side"),
            "{there}"
        );
    }

    #[test]
    fn names_are_made_fit_to_print() {
        assert_eq!(printable("vps1"), "vps1");
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(printable(&"x".repeat(NAME_OCTETS_MAX + 1)).len(), NAME_OCTETS_MAX);
        assert_eq!(printable(&"ü".repeat(200)).len(), NAME_OCTETS_MAX - 1);
    }

    #[test]
    fn a_version_refused_there_is_told_from_here() {
        let refusal = Refusal::NoCommonVersion { mine: (1, 1), yours: (2, 3) }.from_other_side();
        assert_eq!(refusal, Refusal::NoCommonVersion { mine: (2, 3), yours: (1, 1) });
    }

    #[test]
    fn refusals_are_one_clear_line() {
        let key = NodeKey::of_spki(b"x");
        let other = NodeKey::of_spki(b"y");
        let line = Refusal::WrongKey { expected: vec![*key.as_bytes()], got: *other.as_bytes() }.to_string();
        assert_eq!(line, format!("wrong key: expected {key}, got {other}"));
        assert!(Refusal::Replaced.to_string().starts_with("replaced by a newer session; "));
    }
}
