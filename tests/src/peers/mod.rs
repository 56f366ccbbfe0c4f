//! Real programs at the other end, one file each. A program that is not there is a failure: `tests/install`
//! brings them all. Every use is noted, so that `tests/run` can say how many stories had a foreign end.

pub mod checkdmarc;
pub mod clients;
pub mod dkimpy;
pub mod dovecot;
pub mod exim;
pub mod knot;
pub mod local;
pub mod milters;
pub mod mutt;
pub mod nsd;
pub mod openssl;
pub mod parsedmarc;
pub mod pebble;
pub mod policy_host;
pub mod postfix;
pub mod receiver;
pub mod sslyze;
pub mod thunderbird;
pub mod unbound;
pub mod web;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;

use crate::pair::program::said;
use crate::world::authority::Issued;

/// Programs that are the other end of a story, and not just a tool of it.
const ENDS: [&str; 16] = [
    "bsd-mailx",
    "curl",
    "dovecot",
    "exim4",
    "knotd",
    "master",
    "msmtp",
    "mutt",
    "nsd",
    "opendkim",
    "opendmarc",
    "openssl",
    "pebble",
    "python3",
    "swaks",
    "unbound",
];
/// Where `tests/install` unpacks Exim: its package would put Postfix away.
const EXIM_FOLDER: &str = "/opt/gatepost-tests/exim/usr/sbin";
/// Where `tests/install` puts Python packages that judge signatures.
const JUDGES: &str = "/opt/gatepost-tests/judges/bin/python3";
/// Names the file uses are noted in.
const LOG_VARIABLE: &str = "GATEPOST_FOREIGN_LOG";

/// What a mail server at the other end is for.
#[derive(Clone, Debug)]
pub struct ServerOptions<'a> {
    /// Its name.
    pub hostname: &'a str,
    /// The domain it keeps mail for, every address of it in one Maildir; `nobody@` does not exist.
    pub domain: &'a str,
    /// Domains it sends elsewhere: name and address of the next hop.
    pub routes: &'a [(&'a str, SocketAddr)],
    /// Its certificate.
    pub certificate: &'a Issued,
    /// The CA it trusts.
    pub ca: &'a Path,
}

/// Where a program is. If it is an end of a story, notes that the story that runs on this thread has it.
///
/// # Panics
/// If it is not installed.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/lib/postfix/sbin", "/sbin", "/usr/local/sbin", EXIM_FOLDER, pebble::FOLDER];
    let system = system.map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file());
    let found = found.unwrap_or_else(|| panic!("{name} is missing; tests/install installs it"));
    if ENDS.contains(&name) {
        note(if name == "master" { "postfix" } else { name });
    }
    found
}

/// Python with the packages of `tests/judges.txt`.
///
/// # Panics
/// If it is not installed.
fn python() -> &'static str {
    assert!(Path::new(JUDGES).exists(), "{JUDGES} is missing; tests/install installs it");
    JUDGES
}

/// What a Python program with these arguments says of a message it reads whole.
fn judged<'a>(program: &str, arguments: impl Iterator<Item = &'a str>, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(python())
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(message)?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "{}", said(&output));
    Ok(output.stdout)
}

/// One line for each use: the story (the test's name, which is its thread's), a tab, the program.
fn note(name: &str) {
    let Some(log) = std::env::var_os(LOG_VARIABLE) else { return };
    let thread = std::thread::current();
    let line = format!("{}\t{name}\n", thread.name().unwrap_or("main"));
    let mut log = OpenOptions::new().create(true).append(true).open(log).expect("the log of foreign peers");
    log.write_all(line.as_bytes()).expect("the log of foreign peers");
}

/// A command run as root: directly, or by sudo without a question.
pub fn privileged(name: &str) -> Command {
    let found = program(name);
    if rustix::process::geteuid().is_root() {
        return Command::new(found);
    }
    let mut command = Command::new(program("sudo"));
    command.arg("-n").arg(found);
    command
}

/// Runs it; fails with all it said unless it succeeds.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = output(command)?;
    anyhow::ensure!(output.status.success(), "{}: {}", command.get_program().display(), said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it to its end, whatever that is.
pub fn output(command: &mut Command) -> anyhow::Result<Output> {
    command.output().with_context(|| format!("can't run {}", command.get_program().display()))
}
