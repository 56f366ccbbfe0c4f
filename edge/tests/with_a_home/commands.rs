//! The binary's commands and exit codes.

use std::path::Path;
use std::process::{Command, Output};

use gatepost_protocol::pairing::NodeKey;

use crate::edge::{World, until};

fn edge(config: &Path, state: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost-edge"));
    command.arg("--config").arg(config).arg("--state").arg(state).args(words).output().expect("it runs")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text").trim()
}

#[test]
fn the_key_is_made_once_and_needs_no_config() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (config, state) = (directory.path().join("none.toml"), directory.path().join("state"));
    let first = edge(&config, &state, &["key"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let key: NodeKey = stdout(&first).parse().expect("a key");
    assert_eq!(stdout(&edge(&config, &state, &["key"])), key.to_string());
    let json: serde_json::Value =
        serde_json::from_str(stdout(&edge(&config, &state, &["key", "--json"]))).expect("JSON");
    assert_eq!(json["key"], key.to_string());
}

#[test]
fn what_is_wrong_ends_with_2_and_what_fails_with_1() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (config, state) = (directory.path().join("edge.toml"), directory.path().join("state"));
    assert_eq!(edge(&config, &state, &["check"]).status.code(), Some(2), "no config");
    std::fs::write(&config, "hostname = \"a b\"\n").expect("written");
    let check = edge(&config, &state, &["check"]);
    assert_eq!(check.status.code(), Some(2));
    let words = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(words.contains("edge.toml:1") && words.contains("not a host name"), "{words}");
    assert_eq!(edge(&config, &state, &["run"]).status.code(), Some(2));
    assert_eq!(edge(&config, &state, &["fly"]).status.code(), Some(2), "no such command");
    let key = NodeKey::of_spki(b"home");
    let home = format!("[[home]]\nname = \"cottage\"\nkey = \"{key}\"\ndomains = [\"example.org\"]\n");
    std::fs::write(&config, format!("hostname = \"mail.example.org\"\n{home}")).expect("written");
    let check = edge(&config, &state, &["check"]);
    assert_eq!(check.status.code(), Some(0));
    let words = stdout(&check);
    assert!(words.contains("home cottage, listed in ") && words.contains("edge.toml:3: example.org"), "{words}");
    let status = edge(&config, &state, &["status"]);
    assert_eq!(status.status.code(), Some(1), "it does not run");
    assert!(String::from_utf8_lossy(&status.stderr).contains("not running"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_spool_list_ask_the_running_edge() {
    let mut world = World::start("60 s");
    let ask = |words: &[&str]| edge(&world.config(), &world.state(), words);
    // The control socket opens a moment after the doors.
    until(|| ask(&["status"]).status.success()).await;
    let status: serde_json::Value = serde_json::from_str(stdout(&ask(&["status", "--json"]))).expect("JSON");
    assert_eq!(status["homes"][0]["connected"], false);
    assert_eq!(status["listen"]["smtp"], world.smtp().to_string());
    assert_eq!(stdout(&ask(&["spool", "list", "--json"])), "[]");
    assert!(stdout(&ask(&["status"])).contains("away"));

    world.stop_edge().await;
    std::fs::write(world.state().join("spool/cottage/stray.sealed"), b"?").expect("written");
    world.start_edge();
    let ask = |words: &[&str]| edge(&world.config(), &world.state(), words);
    until(|| ask(&["status"]).status.success()).await;
    let status = ask(&["status"]);
    assert!(stdout(&status).contains("damaged") && stdout(&status).ends_with('1'), "{}", stdout(&status));
    let list = ask(&["spool", "list"]);
    assert!(String::from_utf8_lossy(&list.stderr).contains("1 damaged file(s) of cottage"), "{list:?}");
}
