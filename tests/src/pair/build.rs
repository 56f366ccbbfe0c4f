//! Finds the two programs beside this one, after asking cargo to build them: in the profile this one was
//! built with, so that `cargo pair` and a release bench each drive their own kind.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context as _;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `gatepost-edge`.
    pub edge: PathBuf,
    /// `gatepost-home`.
    pub home: PathBuf,
}

static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();

/// Builds them (once a process) and says where they are.
pub fn binaries() -> anyhow::Result<Binaries> {
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<Binaries> {
    let own = std::env::current_exe().context("where am I?")?;
    // target/debug/pair, or target/debug/deps/e2e-0123456789abcdef
    let mut profile = own.parent().context("no directory")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("no directory")?;
    }
    let target = profile.parent().context("no target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    cargo.args(["build", "--quiet", "--locked", "--bin", "gatepost-edge", "--bin", "gatepost-home"]);
    // The tests crate is named too, so that shared dependencies have the features they already were built with.
    cargo.args(["--package", "gatepost-edge", "--package", "gatepost-home", "--package", "gatepost-tests"]);
    cargo.arg("--target-dir").arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("can't run cargo")?;
    anyhow::ensure!(status.success(), "cargo could not build gatepost-edge and gatepost-home");
    Ok(Binaries { edge: profile.join("gatepost-edge"), home: profile.join("gatepost-home") })
}
