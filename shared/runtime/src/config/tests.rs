use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct File_ {
    hostname: Placed<String>,
    #[serde(default)]
    listen: Listen,
    #[serde(default)]
    edge: Vec<Edge>,
    #[serde(default)]
    other: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Listen {
    smtp: Option<String>,
    hostname: Option<String>,
    limit: Option<Placed<Size>>,
    wait: Option<Span>,
    tls: Option<Tls>,
    password: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Edge {
    name: Placed<String>,
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tls {
    Required,
    Opportunistic,
}

/// The file after a good first line; the error it must be refused with.
fn check(rest: &str, expected: &str) {
    let source = Source::from_text("home.toml", &format!("hostname = \"home.example.org\"\n{rest}"));
    assert_eq!(source.parse::<File_>().unwrap_err().to_string(), expected);
}

#[test]
fn a_misspelt_key_gets_the_nearest_known_one() {
    check(
        "[listen]\nhostnam = \"x\"\n",
        "home.toml:3: unknown key \"hostnam\" in [listen]; did you mean \"hostname\"?\n    hostnam = \"x\"",
    );
    check("Listn = 1\n", "home.toml:2: unknown key \"Listn\"; did you mean \"listen\"?\n    Listn = 1");
    check(
        "[[edge]]\nname = \"a\"\n[[edge]]\nnaem = \"b\"\n",
        "home.toml:5: unknown key \"naem\" in [[edge]]; did you mean \"name\"?\n    naem = \"b\"",
    );
}

#[test]
fn a_strange_key_gets_the_list() {
    check(
        "[[edge]]\nname = \"a\"\nzzz = 1\n",
        "home.toml:4: unknown key \"zzz\" in [[edge]]; known here: name, port\n    zzz = 1",
    );
}

#[test]
fn a_wrong_type_names_the_value_and_what_would_be_right() {
    check("[listen]\nsmtp = 25\n", "home.toml:3: \"smtp\" in [listen] must be a string, not integer 25\n    smtp = 25");
    check(
        "[[edge]]\nname = \"a\"\nport = 70000\n",
        "home.toml:4: \"port\" in [[edge]] must be a whole number from 0 to 65535, not integer 70000\n    port = 70000",
    );
    check("[[edge]]\nname = 7\n", "home.toml:3: \"name\" in [[edge]] must be a string, not integer 7\n    name = 7");
    check("listen = 3\n", "home.toml:2: \"listen\" must be a table, not integer 3\n    listen = 3");
    check(
        "[listen]\ntls = \"requird\"\n",
        "home.toml:3: \"requird\" is not possible here; did you mean \"required\"?\n    tls = \"requird\"",
    );
}

#[test]
fn a_bad_quantity_names_the_value_and_what_would_be_right() {
    check(
        "[listen]\nlimit = \"50 Mbit\"\n",
        "home.toml:3: \"50 Mbit\" is no size; write a whole number with a unit, such as \"50 MiB\" (B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB)\n    limit = \"50 Mbit\"",
    );
    check(
        "[listen]\nwait = 30\n",
        "home.toml:3: 30 is no length of time; write a whole number with a unit, such as \"30 s\" (ms, s, min, h, d, w)\n    wait = 30",
    );
}

#[test]
fn a_missing_key_names_its_table() {
    let error = Source::from_text("home.toml", "").parse::<File_>().unwrap_err().to_string();
    assert_eq!(error, "home.toml:1: the key \"hostname\" is missing; add it");
    check("[[edge]]\nport = 1\n", "home.toml:2: the key \"name\" is missing in [[edge]]; add it\n    [[edge]]");
}

#[test]
fn broken_syntax_is_placed() {
    let error = Source::from_text("home.toml", "a = 1\nb = \n").parse::<File_>().unwrap_err().to_string();
    assert!(error.starts_with("home.toml:2: "), "{error}");
    assert!(error.ends_with("\n    b ="), "{error}");
}

#[test]
fn a_secret_is_never_shown() {
    let text = "hostname = \"h\"\n[listen]\npassword = 424242\n";
    let error = Source::from_text("home.toml", text).parse::<File_>().unwrap_err().to_string();
    assert_eq!(error, "home.toml:3: \"password\" in [listen] must be a string, not something else\n    password = …");
    assert!(!format!("{:?}", Source::from_text("home.toml", text)).contains("4242"));
}

#[test]
fn later_checks_are_placed_too() {
    let source = Source::from_text("home.toml", "\nhostname = \"-\"\n");
    let file: File_ = source.parse().unwrap();
    let error = source.error(&file.hostname, "\"-\" is no host name", "write one such as \"home.example.org\"");
    assert_eq!(
        error.to_string(),
        "home.toml:2: \"-\" is no host name; write one such as \"home.example.org\"\n    hostname = \"-\""
    );
}

#[test]
fn files_that_are_not_there_not_text_or_too_large() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home.toml");
    let error = Source::read(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("can't read {}: No such file", path.display())), "{error}");
    assert!(error.contains("--config"), "{error}");
    fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();
    let error = Source::read(&path).unwrap_err().to_string();
    assert!(error.contains("home.toml:2: this is not UTF-8"), "{error}");
    fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(Source::read(&path).unwrap_err().to_string().contains("larger than 1 MiB"));
}
