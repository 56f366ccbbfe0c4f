//! What the edge tells its own machine's programs, and they tell it: the notice that hangs in the drop, by which
//! a program seals its mail, and the first line of what it leaves there.

use serde::{Deserialize, Serialize};

/// The notice's name in the drop.
pub const NOTICE: &str = "homes";
/// Largest notice, in octets.
pub const NOTICE_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// Longest first line, in octets.
pub const HEAD_OCTETS_MAX: usize = 1024;
/// What this version writes and reads.
const VERSION: u32 = 1;

/// Whose mail may be sealed, and to which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    version: u32,
    /// The edge's own name.
    pub hostname: String,
    /// Whose the machine's mail is, unless who sends says otherwise.
    pub home: Option<String>,
    /// The homes that have told their key.
    pub homes: Vec<NoticedHome>,
}

/// One home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticedHome {
    /// Its name.
    pub name: String,
    /// Who gets the mail there.
    pub postmaster: String,
    /// The public key to seal to.
    pub seal_key: Vec<u8>,
    /// Largest message, in octets.
    pub message_octets_max: u64,
}

/// The first line of a sealed letter; the sealed bytes follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    version: u32,
    /// For which home.
    pub home: String,
    /// Names the message in log lines.
    pub trace: String,
}

impl Notice {
    /// Of these.
    pub fn new(hostname: String, home: Option<String>, homes: Vec<NoticedHome>) -> Self {
        Self { version: VERSION, hostname, home, homes }
    }

    /// Reads one; `None` if it is none of ours.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|notice: &Self| notice.version == VERSION)
    }

    /// The home that is named, or meant: the config's, or the only one.
    pub fn choose(&self, named: Option<&str>) -> Result<&NoticedHome, String> {
        match (named.or(self.home.as_deref()), self.homes.as_slice()) {
            (Some(name), homes) => homes
                .iter()
                .find(|home| home.name == name)
                .ok_or_else(|| format!("the home {name:?} has never told this edge its key, or is none of its homes")),
            (None, [only]) => Ok(only),
            (None, []) => Err("no home has told this edge its key yet".to_owned()),
            (None, _) => Err("several homes: name one with --home, or with local_mail in edge.toml".to_owned()),
        }
    }
}

impl Head {
    /// For this home.
    pub fn new(home: String, trace: String) -> Self {
        Self { version: VERSION, home, trace }
    }

    /// The line, with its end.
    pub fn line(&self) -> std::io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads a line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().filter(|head: &Self| head.version == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(home: Option<&str>, names: &[&str]) -> Notice {
        let noticed = |name: &&str| NoticedHome {
            name: (*name).to_owned(),
            postmaster: format!("postmaster@{name}.example"),
            seal_key: vec![1, 2],
            message_octets_max: 1000,
        };
        Notice::new("mail.example.org".into(), home.map(str::to_owned), names.iter().map(noticed).collect())
    }

    #[test]
    fn the_home_that_is_meant_is_found() {
        for (home, names, named, found) in [
            (None, &["cottage"][..], None, Ok("cottage")),
            (None, &["cottage", "cabin"], None, Err("several homes")),
            (Some("cabin"), &["cottage", "cabin"], None, Ok("cabin")),
            (Some("cabin"), &["cottage", "cabin"], Some("cottage"), Ok("cottage")),
            (Some("cabin"), &["cottage"], None, Err("never told")),
            (None, &[], None, Err("no home")),
        ] {
            let notice = notice(home, names);
            match (notice.choose(named), found) {
                (Ok(home), Ok(name)) => assert_eq!(home.name, name),
                (Err(why), Err(says)) => assert!(why.contains(says), "{why}"),
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn what_is_told_is_read() {
        let notice = notice(Some("cottage"), &["cottage"]);
        let text = serde_json::to_vec(&notice).expect("written");
        assert_eq!(Notice::parse(&text), Some(notice));
        assert_eq!(Notice::parse(b"{}"), None);
        let head = Head::new("cottage".into(), "aeaqcaibaeaqcaib".into());
        assert_eq!(Head::parse(&head.line().expect("written")), Some(head));
        assert_eq!(Head::parse(br#"{"version":2,"home":"x","trace":"y"}"#), None);
    }
}
