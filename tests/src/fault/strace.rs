//! The order of system calls of a running program: what was synced, renamed and written, and when.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::peers;

/// System calls that are watched.
const CALLS: &str = "trace=fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,write,writev,sendto,sendmsg,pwrite64,pwritev2";

/// The words to put before a program's command; it keeps its process id, and its calls go to `log`.
pub fn wrapper(log: &Path) -> Vec<String> {
    let strace = peers::program("strace").display().to_string();
    let log = log.display().to_string();
    // -D: the tracer is the grandchild, so whoever starts the program still has its process id.
    // -ttt and -T: when each call began, and how long it took.
    ["-D", "-f", "-ttt", "-T", "-yy", "-s", "64", "-e", CALLS, "-e", "signal=none", "-o", &log].into_iter().fold(
        vec![strace],
        |mut words, word| {
            words.push(word.to_owned());
            words
        },
    )
}

/// One finished call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as printed; descriptors with what they are.
    pub arguments: String,
    /// When it began, seconds since 1970.
    pub began: f64,
    /// When it returned.
    pub ended: f64,
}

impl Call {
    /// True for a call that makes something durable.
    pub fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync" | "syncfs" | "sync_file_range")
    }

    /// True for a call that sends bytes to a TCP peer with this port.
    pub fn sends_to(&self, port: u16) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
            && self.arguments.split(',').next().is_some_and(|descriptor| descriptor.contains(&format!(":{port}]>")))
    }

    /// True if the first descriptor or any path among the arguments contains this.
    pub fn names(&self, part: &str) -> bool {
        self.arguments.contains(part)
    }
}

/// Every call in a log, in the order in which they began.
pub fn read(log: &PathBuf) -> anyhow::Result<Vec<Call>> {
    let text = fs::read(log).with_context(|| format!("can't read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut open: std::collections::HashMap<String, (f64, String)> = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((time, rest)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(at) = time.parse::<f64>() else { continue };
        if let Some(so_far) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid.to_owned(), (at, so_far.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((began, head)) = open.remove(pid) else { continue };
            let tail = resumed.split_once("resumed>").map_or("", |(_, tail)| tail);
            calls.extend(parse(began, &format!("{head}{tail}")));
        } else {
            calls.extend(parse(at, rest));
        }
    }
    calls.sort_by(|a, b| a.began.total_cmp(&b.began));
    Ok(calls)
}

fn parse(began: f64, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (before, took) = rest.rsplit_once('<')?;
    let took: f64 = took.strip_suffix('>')?.parse().ok()?;
    let arguments = before.rsplit_once(") = ").map_or(before, |(arguments, _)| arguments);
    Some(Call { name: name.to_owned(), arguments: arguments.to_owned(), began, ended: began + took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_what_other_threads_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let text = "12 100.000001 fsync(7</m/tmp/1> <unfinished ...>\n\
                    13 100.000002 sendto(9<TCP:[127.0.0.1:25->127.0.0.1:4444]>, \"250 2.0.0 Ok\\r\\n\", 14, MSG_NOSIGNAL, NULL, 0) = 14 <0.000010>\n\
                    12 100.000009 <... fsync resumed>) = 0 <0.000500>\n";
        fs::write(&log, text).unwrap();
        let calls = read(&log).unwrap();
        assert_eq!(calls.len(), 2);
        assert!(calls[0].is_sync() && calls[0].names("/m/tmp/1"), "{calls:?}");
        assert!((calls[0].ended - 100.000_501).abs() < 1e-6);
        assert!(calls[1].sends_to(4444) && !calls[1].sends_to(25), "{calls:?}");
        assert!(calls[0].ended > calls[1].began, "the sync had not returned yet");
    }
}
