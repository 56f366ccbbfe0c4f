//! `gatepost-home send`: the `sendmail` command. What it takes lies durably in the drop before it ends well,
//! whether the home runs or not; while it runs, and whoever calls may ask it, its answer is the command's.

mod dialog;
mod letters;
mod recipients;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser};
use gatepost_protocol::mail::header;
use gatepost_protocol::sendmail::arguments::{Invocation, Mode};
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use gatepost_runtime::sendmail::{self, Incoming};
use mail_builder::headers::Header;
use mail_builder::headers::address::EmailAddress;

use self::letters::Letters;
use super::Cli;
use crate::pickup::letter::Head;

/// Send mail from stdin as `sendmail` does: recipients as arguments, or with -t in the header; -i -f -F -bs -bp -N -R -V
/// -v mean what they always did, other flags of sendmail's are let be.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct SendArgs {
    /// Flags and recipients, as sendmail takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

impl SendArgs {
    /// Of these words.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Self {
        Self { arguments: words.into_iter().collect() }
    }
}

const HELP: &str = "\
Sends the message on stdin, as sendmail does: send [FLAGS] [RECIPIENT]...
  -t         recipients are in To, Cc and Bcc
  -i, -oi    a dot alone on a line is text
  -f ADDRESS the sender (else you); -F NAME its full name
  -N WHEN    report on: never, or success,failure,delay; -R full|hdrs what of it comes back; -V ID names it
  -v         say what became of it
  -bs        SMTP on stdin and stdout
  -bp        list the queue
  --config FILE, --state DIR
Other flags of sendmail's are let be. Exit codes are those of sysexits.h.
";

/// Performs the command. `called` is the name it was called by.
pub fn run(called: &str, args: SendArgs, config: &Path, state: Option<&Path>) -> ExitCode {
    sendmail::end(called, perform(called, args, config, state))
}

fn perform(called: &str, args: SendArgs, config: &Path, state: Option<&Path>) -> Result<ExitCode, Trouble> {
    let invocation = sendmail::invocation(called, args.arguments)?;
    let config = invocation.config.as_deref().map_or(config, Path::new);
    let state = invocation.state.as_deref().map(Path::new).or(state);
    match invocation.mode {
        Mode::Help => print!("{HELP}"),
        // Aliases are in the database, and the queue runs by itself.
        Mode::Nothing => {}
        Mode::Queue => return Ok(list_queue(config, state)),
        Mode::Dialog => dialog::run(&Letters::at(config, state)?)?,
        Mode::Send => send(&invocation, &Letters::at(config, state)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list_queue(config: &Path, state: Option<&Path>) -> ExitCode {
    let mut words: Vec<OsString> = vec!["gatepost-home".into(), "--config".into(), config.into()];
    if let Some(state) = state {
        words.extend(["--state".into(), state.into()]);
    }
    words.extend(["queue".into(), "list".into()]);
    Cli::parse_from(words).perform()
}

/// One message from stdin.
fn send(invocation: &Invocation, letters: &Letters) -> Result<(), Trouble> {
    let mut incoming = Incoming::new(io::stdin().lock(), invocation.dot_is_text);
    let beginning = incoming.beginning()?;
    let section = sendmail::header_section(&beginning);
    let sender = invocation.sender.clone().unwrap_or_else(sendmail::user);
    let sender = recipients::sender(&sender)?;
    let mut to = recipients::named(&invocation.recipients)?;
    if invocation.from_header {
        to.extend(recipients::in_header(section)?);
    }
    if to.is_empty() {
        return Err(Trouble::new(Exit::Usage, "no recipients; name them, or use -t for those in the header"));
    }
    let author = authored(section, invocation, &sender);
    let head = Head::new(sender, to).with_wishes(invocation.ret, invocation.notify, invocation.envid.clone());
    let mut letter = letters.begin(&head)?;
    letter.write(&author)?;
    letter.write(&beginning)?;
    while let Some(more) = incoming.more()? {
        letter.write(more)?;
    }
    let reply = letters.post(letter)?;
    if invocation.verbose {
        println!("{reply}");
    }
    match Exit::of(&reply) {
        // It lies in the drop, and is taken from there.
        Exit::Ok | Exit::TemporaryFailure => Ok(()),
        exit => Err(Trouble::new(exit, reply)),
    }
}

/// A From field with the full name, if one was given and the message has none.
fn authored(section: &[u8], invocation: &Invocation, sender: &str) -> Vec<u8> {
    let mut field = Vec::new();
    if let Some(name) = invocation.full_name.as_deref().filter(|name| !name.contains(char::is_control))
        && !sender.is_empty()
        && !header::fields(section).any(|field| field.is("From"))
    {
        field.extend_from_slice(b"From: ");
        EmailAddress { name: Some(name.into()), email: sender.into() }.write_header(&mut field, "From: ".len());
    }
    field
}
