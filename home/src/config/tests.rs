//! Configs, read and checked: what is good, and what is said of what is not.

use super::*;

const KEY: &str = "EDGEKEY";

fn read(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("home.toml");
    let key = NodeKey::of_spki(b"edge").to_string();
    std::fs::write(&path, text.replace(KEY, &key)).expect("written");
    Config::read(&path, None)
}

const SMALLEST: &str =
    "hostname = \"home.example.org\"\ndomains = [\"example.org\"]\npostmaster = \"alice@example.org\"\n";

#[test]
fn the_smallest_file_is_whole() {
    let config = read(SMALLEST).expect("good");
    assert_eq!(config.state, Path::new(STATE));
    assert_eq!(config.submissions.map(|at| at.port()), Some(465));
    assert_eq!(config.message_octets_max, 50 * 1024 * 1024);
    assert_eq!(config.subaddress_separator, Some('+'));
    assert_eq!(config.warnings.len(), 1, "no edge is worth a word");
}

#[test]
fn a_fuller_file() {
    let config = read(&format!(
        "{SMALLEST}subaddress_separator = \"\"\nstate = \"/srv/mail\"\n[listen]\nsubmissions = \"off\"\n[limits]\nmessage = \
         \"10 MiB\"\n[[edge]]\nname = \"vps1\"\naddress = \"mail.example.org:10025\"\nkey = \"EDGEKEY\"\n[[edge]]\nname = \
         \"vps2\"\naddress = \"[::1]:10025\"\nkey = [\"{}\"]\n",
        NodeKey::of_spki(b"other")
    ))
    .expect("good");
    assert_eq!(config.edges.len(), 2);
    assert_eq!(config.submissions, None);
    assert_eq!(config.subaddress_separator, None);
    assert_eq!(config.message_octets_max, 10 * 1024 * 1024);
    assert!(config.warnings.is_empty());
}

#[test]
fn what_cannot_be_is_placed_and_explained() {
    let edge = "[[edge]]\nname = \"a\"\naddress = \"mail.example.org:10025\"\nkey = \"EDGEKEY\"\n";
    for (text, line, says) in [
        (SMALLEST.replace("alice@example.org", "alice@example.com"), 3, "in a domain of this home"),
        (SMALLEST.replace("alice@example.org", "alice"), 3, "needs an @"),
        (SMALLEST.replace("[\"example.org\"]", "[]"), 2, "no domain"),
        (SMALLEST.replace("[\"example.org\"]", "[\"example.org\", \"Example.org\"]"), 2, "twice"),
        (SMALLEST.replace("home.example.org", "home example"), 1, "not a host name"),
        (format!("{SMALLEST}subaddress_separator = \"ab\"\n"), 4, "separator"),
        (format!("{SMALLEST}[limits]\nmessage = \"1 KiB\"\n"), 5, "out of range"),
        (format!("{SMALLEST}[listen]\nsubmissions = \"everywhere\"\n"), 5, "off"),
        (format!("{SMALLEST}{edge}{edge}"), 9, "two edges have this name"),
        (format!("{SMALLEST}{edge}{}", edge.replace("\"a\"", "\"b\"")), 11, "two edges have this key"),
        (format!("{SMALLEST}{}", edge.replace("\"EDGEKEY\"", "\"gp2x\"")), 7, "gatepost-edge key"),
        (format!("{SMALLEST}{}", edge.replace(":10025", "")), 6, "not an address to dial"),
        (format!("{SMALLEST}postmastr = 1\n"), 4, "postmaster"),
        (format!("{SMALLEST}acme = {{ email = \"you\" }}\n"), 4, "the CA may write to"),
    ] {
        let error = read(&text).expect_err(&text).to_string();
        assert!(error.contains(says), "{error}\nsays {says}");
        assert!(error.contains(&format!("home.toml:{line}")), "{error}\nnames line {line}");
    }
}
