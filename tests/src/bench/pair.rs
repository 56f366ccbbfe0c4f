//! The pair as its users run it: `cargo pair`, read through its `pair.json`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::chain::wait_for;

/// The account's password.
pub const PASSWORD: &str = "bench-password";

/// Runs until dropped.
#[derive(Debug)]
pub struct Pair {
    /// What `pair.json` says.
    pub facts: Facts,
    // None if somebody else runs it.
    process: Option<Child>,
}

/// The parts of `pair.json` a bench needs.
#[derive(Debug, Deserialize)]
pub struct Facts {
    /// The gate.
    pub edge: EdgeFacts,
    /// The authority.
    pub home: HomeFacts,
    /// Who gets mail.
    pub accounts: Vec<AccountFacts>,
}

/// `edge` of `pair.json`.
#[derive(Debug, Deserialize)]
pub struct EdgeFacts {
    /// Where the world connects.
    pub smtp: SocketAddr,
    /// The process.
    pub pid: u32,
}

/// `home` of `pair.json`.
#[derive(Debug, Deserialize)]
pub struct HomeFacts {
    /// Where accounts send from.
    pub submissions: SocketAddr,
    /// The process.
    pub pid: u32,
    /// What started it, and starts it again.
    pub command: Vec<String>,
}

/// One of `accounts` of `pair.json`.
#[derive(Debug, Deserialize)]
pub struct AccountFacts {
    /// Where its mail lies.
    pub maildir: PathBuf,
}

impl Pair {
    /// Starts it with one account, `recipient`, under `folder`; mail to `friend` goes to `world`.
    pub fn start(binary: &Path, folder: &Path, recipient: &str, friend: &str, world: SocketAddr) -> Result<Self> {
        // All load goes out from one account.
        let caps = ["hour", "day"].map(|time| format!("limits.account_recipients_per_{time}=100000"));
        let more: Vec<String> = caps.into_iter().flat_map(|cap| ["--home-set".to_owned(), cap]).collect();
        Self::start_with(binary, folder, recipient, friend, world, &more)
    }

    /// The same with these words for `cargo pair`, and with the shipped limits of an account.
    pub fn start_with(
        binary: &Path,
        folder: &Path,
        recipient: &str,
        friend: &str,
        world: SocketAddr,
        more: &[String],
    ) -> Result<Self> {
        let ready = folder.join("ready");
        let domain = recipient.rsplit_once('@').map(|(_, domain)| domain).context("a recipient needs a domain")?;
        let friends = friend.rsplit_once('@').map(|(_, domain)| domain).context("a friend needs a domain")?;
        let process = Command::new(binary)
            .args(["--domain", domain, "--account", &format!("{recipient}:{PASSWORD}")])
            .args(["--route", &format!("{friends}={world}")])
            // All load comes from one address.
            .args(["--edge-set", "limits.connections_per_address=1000", "--edge-set", "limits.connections=2000"])
            .args(more)
            .arg("--state")
            .arg(folder)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("pair.stderr"))?)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        wait_for("the pair", || Ok(ready.exists()))
            .with_context(|| fs::read_to_string(folder.join("pair.stderr")).unwrap_or_default())?;
        let facts = serde_json::from_slice(&fs::read(folder.join("pair.json"))?).context("reading pair.json")?;
        Ok(Self { facts, process: Some(process) })
    }

    /// One that runs already, by its `pair.json`.
    pub fn running(json: &Path) -> Result<Self> {
        let facts = serde_json::from_slice(&fs::read(json)?).context("reading pair.json")?;
        Ok(Self { facts, process: None })
    }
}

/// The home by itself, started anew without what the pair does around it. Killed when dropped.
#[derive(Debug)]
pub struct Home(Child);

impl Home {
    /// By the command of `pair.json`.
    pub fn start(command: &[String]) -> Result<Self> {
        let (program, words) = command.split_first().context("a command")?;
        Ok(Self(Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}
