//! Programs of the machine itself that hand their mail to a `sendmail` command: mailx, and whoever is fed by a pipe.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;

use super::{privileged, program, run};
use crate::pair::program::Program;

/// The user and group nobody's, which every Debian has.
const NOBODY: &str = "65534";

/// Runs it with this on stdin.
pub fn fed(mut command: Command, input: &[u8]) -> anyhow::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", command.get_program().display()))?;
    // A program that fails early stops reading; what it says then is the story.
    let _ = child.stdin.take().context("no stdin")?.write_all(input);
    Ok(child.wait_with_output()?)
}

/// Speaks SMTP with a program over its stdin and stdout: a command, then its reply; after 354 a message, up to its dot.
/// Gives what it said.
pub fn dialog(mut command: Command, said: &[u8]) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut to, from) = (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
    let mut from = BufReader::new(from);
    let mut heard = String::new();
    let mut reply = |heard: &mut String| -> anyhow::Result<bool> {
        loop {
            let begun = heard.len();
            anyhow::ensure!(from.read_line(heard)? > 0, "it ended: {heard}");
            let line = &heard[begun..];
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.starts_with("354"));
            }
        }
    };
    reply(&mut heard)?;
    let mut in_message = false;
    for line in said.split_inclusive(|&b| b == b'\n') {
        to.write_all(line)?;
        if !in_message || line == b".\r\n" {
            in_message = reply(&mut heard)?;
        }
    }
    drop(to);
    from.read_to_string(&mut heard)?;
    anyhow::ensure!(child.wait()?.success(), "it failed: {heard}");
    Ok(heard)
}

/// A `sendmail` that is this program's `send`.
pub fn sendmail_script(folder: &Path, program: &Program) -> anyhow::Result<PathBuf> {
    let path = folder.join("sendmail");
    let text = format!(
        "#!/bin/sh\nexec {} --config {} --state {} send \"$@\"\n",
        program.binary.display(),
        program.config.display(),
        program.state.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// `bsd-mailx`, which writes the header itself and gives it all to sendmail.
pub fn mailx(sendmail: &Path, arguments: &[&str], text: &[u8]) -> anyhow::Result<Output> {
    let settings = sendmail.with_file_name("mailrc");
    fs::write(&settings, format!("set sendmail={}\nset sendwait\n", sendmail.display()))?;
    let mut command = Command::new(program("bsd-mailx"));
    command.env("MAILRC", &settings).args(arguments);
    fed(command, text)
}

/// A command of the user nobody's.
pub fn as_nobody(binary: &Path) -> Command {
    let mut command = privileged("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(binary);
    command
}

/// Lets the group nogroup through to the drop, as the README says for a group of one's own.
pub fn let_in(state: &Path, around: &Path, drop: &Path) -> anyhow::Result<()> {
    fs::set_permissions(around, fs::Permissions::from_mode(0o711))?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o710))?;
    run(privileged("chgrp").arg(NOBODY).arg(state).arg(drop))?;
    // A change of group takes the set-group-id bit with it.
    run(privileged("chmod").arg("3730").arg(drop))?;
    Ok(())
}

/// A copy of a program where everybody may run it.
pub fn copy_for_others(binary: &Path) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("gatepost-bin-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("gatepost-home");
    fs::copy(binary, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
