//! kill -9, or an error, at a chosen system call: the process dies as it enters that call, so everything
//! before it has happened and nothing after it; or the call fails as on a broken disk.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use gatepost_runtime::clock::Clock;

use crate::peers;

/// Detaching from a process that runs takes milliseconds.
const DETACHED: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// A tracer that waits for its moment. Dropped, it lets the process go on.
pub struct CrashPoint {
    tracer: Child,
}

impl CrashPoint {
    /// Kills process `pid` as one of its threads enters `call` for the `nth` time from now.
    pub fn arm(pid: u32, call: &str, nth: usize) -> anyhow::Result<Self> {
        Self::inject(pid, call, &format!("signal=KILL:when={nth}"))
    }

    /// Lets `call` fail with `error` in process `pid`, each `nth` time of a thread, until dropped.
    pub fn fail(pid: u32, call: &str, error: &str, nth: usize) -> anyhow::Result<Self> {
        Self::inject(pid, call, &format!("error={error}:when={nth}+{nth}"))
    }

    fn inject(pid: u32, call: &str, what: &str) -> anyhow::Result<Self> {
        let mut tracer = Command::new(peers::program("strace"))
            .args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:{what}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let said = tracer.stderr.take().context("its stderr was asked for")?;
        let mut lines = BufReader::new(said);
        let mut line = String::new();
        while !line.contains("attached") {
            line.clear();
            anyhow::ensure!(lines.read_line(&mut line)? > 0, "the tracer can't attach to process {pid}");
        }
        // It must never wait for somebody to read.
        std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
        Ok(Self { tracer })
    }
}

impl Drop for CrashPoint {
    fn drop(&mut self) {
        // SIGTERM: it detaches and leaves the process running, if it still runs. Told so while the threads of
        // a killed process are ending, strace waits for the first of them for ever, which the kernel keeps
        // until strace has seen the last: then it has nothing left to put in order, and is killed.
        let _ = Command::new("kill").arg(self.tracer.id().to_string()).status();
        let clock = Clock::real();
        let end = clock.now() + DETACHED;
        while clock.now() < end {
            if !matches!(self.tracer.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
    }
}
