//! Finds the two programs beside this one, after asking cargo to build them: in the profile this one was
//! built with, so that `cargo pair` and a release bench each drive their own kind.

use std::path::{Path, PathBuf};
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

impl Binaries {
    /// The two programs as they lie in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { edge: folder.join("gatepost-edge"), home: folder.join("gatepost-home") }
    }
}

/// The last commit whose programs speak version 1 of the tunnel's protocol.
const OLDER: &str = "fbefafd181ec";

static OLDER_BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();
static BUILT: OnceLock<Result<Binaries, String>> = OnceLock::new();

/// Builds them (once a process) and says where they are.
pub fn binaries() -> anyhow::Result<Binaries> {
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// The two programs as they were when the tunnel spoke version 1, built (once a process, and kept) from
/// the repository's history.
pub fn older_binaries() -> anyhow::Result<Binaries> {
    OLDER_BUILT.get_or_init(|| build_older().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn build_older() -> anyhow::Result<Binaries> {
    let profile = profile()?;
    let target = profile.parent().context("no target directory")?;
    let (folder, source) = (target.join("older"), target.join("older/source"));
    std::fs::create_dir_all(&source)?;
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let archive = folder.join("source.tar");
    let mut git = Command::new("git");
    git.current_dir(repository).args(["archive", "--output"]).arg(&archive).arg(OLDER);
    run(git).with_context(|| format!("commit {OLDER} is needed: `git fetch --unshallow` brings it"))?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&source);
    run(tar)?;
    let built = folder.join("target/debug");
    if !built.exists() {
        // What both versions use need not be built twice.
        std::fs::create_dir_all(&built)?;
        let mut copy = Command::new("sh");
        copy.args(["-c", COPY_SHARED, "sh"]).arg(target.join("debug")).arg(&built);
        run(copy)?;
    }
    let mut cargo = cargo(&source, &folder.join("target"));
    cargo.env_remove("CARGO_TARGET_DIR");
    run(cargo)?;
    Ok(Binaries::in_folder(&built))
}

/// Copies what cargo keeps of other people's crates.
const COPY_SHARED: &str = "for part in deps build .fingerprint; do
  mkdir -p \"$2/$part\"
  find \"$1/$part\" -mindepth 1 -maxdepth 1 ! -name '*gatepost*' ! -perm -u+x -o -mindepth 1 -maxdepth 1 -type d \
    ! -name '*gatepost*' | xargs -d '\\n' -r cp -a -t \"$2/$part\"
  find \"$1/$part\" -mindepth 1 -maxdepth 1 -name '*.so' | xargs -d '\\n' -r cp -a -t \"$2/$part\"
done";

fn profile() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where am I?")?;
    // target/debug/pair, or target/debug/deps/e2e-0123456789abcdef
    let mut profile = own.parent().context("no directory")?;
    if profile.ends_with("deps") {
        profile = profile.parent().context("no directory")?;
    }
    Ok(profile.to_owned())
}

fn cargo(source: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(source);
    cargo.args(["build", "--quiet", "--locked", "--bin", "gatepost-edge", "--bin", "gatepost-home"]);
    // The tests crate is named too, so that shared dependencies have the features they already were built with.
    cargo.args(["--package", "gatepost-edge", "--package", "gatepost-home", "--package", "gatepost-tests"]);
    cargo.arg("--target-dir").arg(target);
    cargo
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("can't run {name}"))?;
    anyhow::ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}

fn build() -> anyhow::Result<Binaries> {
    let profile = profile()?;
    let target = profile.parent().context("no target directory")?;
    let mut cargo = cargo(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    run(cargo).context("gatepost-edge and gatepost-home can't be built")?;
    Ok(Binaries::in_folder(&profile))
}
