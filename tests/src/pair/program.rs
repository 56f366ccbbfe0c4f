//! One of the two programs as a process: started, killed, started again with the same command; what it
//! says goes to a file. Whoever drops it, kills it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::observe;

/// Ending may take as long as the mail that is under way.
const END_WAIT_MAX: Duration = Duration::from_mins(1);

/// A program and its files.
pub struct Program {
    /// `edge`, `edge2`, `home`.
    pub name: String,
    /// The program itself.
    pub binary: PathBuf,
    /// Its config.
    pub config: PathBuf,
    /// Its state directory.
    pub state: PathBuf,
    /// What it says.
    pub log: PathBuf,
    wrapper: Vec<String>,
    child: Option<Child>,
}

impl Program {
    /// Not started yet.
    pub fn new(name: &str, binary: &Path, directory: &Path, state: Option<&Path>, wrapper: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            config: directory.join(format!("{name}.toml")),
            state: state.map_or_else(|| directory.join(name), Path::to_owned),
            log: directory.join(format!("{name}.log")),
            wrapper: wrapper.to_vec(),
            child: None,
        }
    }

    /// The words of the command that runs it.
    pub fn command(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.wrapper.iter().map(OsString::from).collect();
        words.extend(self.words(&["run"]));
        words
    }

    /// A command of the program's command line, such as `status --json`.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let words = self.words(arguments);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed; gives what it printed.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.cli(arguments).output().with_context(|| format!("can't run {}", self.binary.display()))?;
        anyhow::ensure!(output.status.success(), "{} {}: {}", self.name, arguments.join(" "), said(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same for a command that reads its stdin.
    pub fn ask_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        use std::io::Write as _;
        let mut command = self.cli(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("can't run {}", self.binary.display()))?;
        child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "{} {}: {}", self.name, arguments.join(" "), said(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command that prints JSON.
    pub fn ask_json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.ask(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{} {}: {text}", self.name, arguments.join(" ")))
    }

    /// Starts it; does not wait until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "{} already runs", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let words = self.command();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", words[0].display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True if it was started and has not ended on its own.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let what = format!("{} to end", self.name);
        let status = observe::until_within(END_WAIT_MAX, &what, || child.try_wait().ok().flatten(), Option::is_some);
        status.context("it ended")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} does not run", self.name))?;
        kill_process(pid, signal)?;
        if signal == Signal::STOP {
            // Its threads stop one by one, and one that still runs may answer.
            let threads = PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero()));
            observe::until(
                "every thread to stand still",
                || states(&threads),
                |states| states.iter().all(|state| state == "T"),
            );
        }
        Ok(())
    }

    /// Everything it said so far, over all its lives.
    pub fn said(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines it said, for a failure's text.
    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn words(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut words = vec![
            self.binary.clone().into_os_string(),
            "--config".into(),
            self.config.clone().into(),
            "--state".into(),
            self.state.clone().into(),
        ];
        words.extend(arguments.iter().map(OsString::from));
        words
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a finished command said, for a failure's text.
pub fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How each thread stands, in the kernel's letters.
fn states(threads: &Path) -> Vec<String> {
    let entries = fs::read_dir(threads).into_iter().flatten().flatten();
    let stats = entries.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.get(..1)?.to_owned())).collect()
}
