//! A program whose date is not the machine's: what asks for it is replaced, below the program, and says what a file says.
//! How time passes stays as it is.

use std::fs;
use std::process::Command;

use anyhow::Context as _;

use crate::peers::{program, run};

/// For one program, until dropped.
pub struct SkewedClock {
    directory: tempfile::TempDir,
}

impl SkewedClock {
    /// Right, for now.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("gatepost-clock-").tempdir()?;
        let source = directory.path().join("clock.c");
        fs::write(&source, include_str!("skewed_clock.c"))?;
        let mut compiler = Command::new(program("cc"));
        run(compiler.args(["-shared", "-fPIC", "-o"]).arg(directory.path().join("clock.so")).arg(&source))
            .context("compiling what tells another date")?;
        let clock = Self { directory };
        clock.set(0)?;
        Ok(clock)
    }

    /// Words to put before the program's command.
    pub fn wrapper(&self) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", path("clock.so")),
            format!("GATEPOST_TEST_SKEW={}", path("ahead")),
        ]
    }

    /// From now on it is so many seconds ahead.
    pub fn set(&self, ahead_s: i64) -> anyhow::Result<()> {
        Ok(fs::write(self.directory.path().join("ahead"), ahead_s.to_string())?)
    }
}
