//! Asking for a password: from the terminal without showing it, else the first line of stdin. Never from
//! the command line, where everybody on the machine could read it.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::Failure;
use crate::accounts::password::PASSWORD_OCTETS_MAX;

/// Passwords shorter than this deserve a word.
const SHORT_CHARACTERS: usize = 10;

/// Reads a password for this account.
pub fn read(address: &str) -> Result<Zeroizing<String>, Failure> {
    let password = if io::stdin().is_terminal() {
        let first = prompt(&format!("Password for {address}: "))?;
        let second = prompt("Once more: ")?;
        if *first != *second {
            return Err(Failure::Usage("the two passwords differ; nothing was changed".to_owned()));
        }
        first
    } else {
        line()?
    };
    if password.is_empty() {
        return Err(Failure::Usage(
            "no password: type it, give it on the first line of stdin, or let one be made with --generate".to_owned(),
        ));
    }
    if password.chars().count() < SHORT_CHARACTERS {
        eprintln!("note: this password is short; a few words in a row are easier to keep and harder to guess");
    }
    Ok(password)
}

fn prompt(question: &str) -> Result<Zeroizing<String>, Failure> {
    eprint!("{question}");
    io::stderr().flush().map_err(anyhow::Error::from)?;
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin).map_err(|error| anyhow::Error::from(io::Error::from(error)))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let set = |modes| tcsetattr(&stdin, OptionalActions::Flush, modes).map_err(io::Error::from);
    set(&hidden).map_err(anyhow::Error::from)?;
    let answer = line();
    let restored = set(&shown);
    eprintln!();
    restored.map_err(anyhow::Error::from)?;
    answer
}

fn line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::with_capacity(PASSWORD_OCTETS_MAX));
    io::Read::take(io::stdin().lock(), PASSWORD_OCTETS_MAX as u64 * 2)
        .read_line(&mut line)
        .map_err(anyhow::Error::from)?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}
