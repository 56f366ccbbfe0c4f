//! Configs that are wrong are refused with words that help: each directory below `bad_config/` holds a
//! file and the exact text it must be refused with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost_tests::pair::build;
use gatepost_tests::pair::program::said;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bad_config");

#[test]
fn every_bad_config_is_refused_with_its_words() {
    let mut cases: Vec<PathBuf> = fs::read_dir(CASES).expect("cases").flatten().map(|entry| entry.path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases in {CASES}", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What is wrong with the refusal, if anything.
fn check(case: &Path) -> Option<String> {
    let binaries = build::binaries().expect("built");
    let (binary, file) = if case.join("edge.toml").exists() || case.ends_with("edge_file_missing") {
        (binaries.edge, "edge.toml")
    } else {
        (binaries.home, "home.toml")
    };
    let scratch = tempfile::tempdir().expect("a directory");
    let output = Command::new(binary)
        .current_dir(case)
        .args(["--config", file, "--state"])
        .arg(scratch.path())
        .arg("check")
        .output()
        .expect("it runs");
    let expected = fs::read_to_string(case.join("expected")).expect("expected words");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    if std::env::var_os("GATEPOST_ACCEPT").is_some() {
        fs::write(case.join("expected"), &words).expect("written");
        return None;
    }
    let as_it_should = output.status.code() == Some(2) && words == expected && output.stdout.is_empty();
    (!as_it_should).then(|| format!("{}:\nexpected\n{expected}\ngot {}", case.display(), said(&output)))
}
