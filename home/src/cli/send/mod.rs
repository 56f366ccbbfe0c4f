//! `gatepost-home send`: the `sendmail` command. What it takes lies durably in the drop before it ends well,
//! whether the home runs or not; while it runs, and whoever calls may ask it, its answer is the command's.

mod dialog;
mod letters;
mod recipients;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser};
use gatepost_protocol::mail::header;
use gatepost_protocol::sendmail::arguments::{self, Invocation, Mode};
use gatepost_protocol::sendmail::exit::Exit;
use gatepost_protocol::sendmail::text::Composer;
use gatepost_runtime::host;
use mail_builder::headers::Header;
use mail_builder::headers::address::EmailAddress;

use self::letters::Letters;
use super::Cli;
use crate::pickup::letter::Head;

/// Largest header section, in octets.
const HEADER_OCTETS_MAX: usize = 256 * 1024;
/// Octets read from stdin at a time.
const PIECE_OCTETS: usize = 64 * 1024;

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

/// Why the command fails.
#[derive(Debug)]
struct Trouble {
    exit: Exit,
    why: String,
}

impl Trouble {
    fn new(exit: Exit, why: impl fmt::Display) -> Self {
        Self { exit, why: why.to_string() }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::IoError, error)
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
    match perform(called, args, config, state) {
        Ok(exit) => exit,
        Err(Trouble { exit, why }) => {
            eprintln!("{called}: {why}");
            ExitCode::from(exit.code())
        }
    }
}

fn perform(called: &str, args: SendArgs, config: &Path, state: Option<&Path>) -> Result<ExitCode, Trouble> {
    let words: Vec<String> = args
        .arguments
        .into_iter()
        .map(|word| {
            word.into_string().map_err(|word| Trouble::new(Exit::Usage, format!("{} is not UTF-8", word.display())))
        })
        .collect::<Result<_, _>>()?;
    let invocation = arguments::parse(called, words.iter().map(String::as_str))
        .map_err(|why| Trouble::new(Exit::Usage, format!("{why}; see --help")))?;
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
    let mut stdin = io::stdin().lock();
    let mut composer = Composer::new(invocation.dot_is_text);
    let mut text = Vec::new();
    let mut piece = vec![0; PIECE_OCTETS];
    while !composer.is_in_body() && !composer.is_ended() {
        compose(&mut stdin, &mut piece, &mut composer, &mut text)?;
        if text.len() > HEADER_OCTETS_MAX + PIECE_OCTETS {
            return Err(Trouble::new(Exit::DataError, "the header is longer than 256 KiB"));
        }
    }
    let section = &text[..header::body_start(&text).unwrap_or(text.len())];
    let sender = invocation.sender.clone().unwrap_or_else(letters::user);
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
    letter.write(&text)?;
    while !composer.is_ended() {
        text.clear();
        compose(&mut stdin, &mut piece, &mut composer, &mut text)?;
        letter.write(&text)?;
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

/// Reads a piece of stdin into the composer, which is ended by the end.
fn compose(
    stdin: &mut impl Read,
    piece: &mut [u8],
    composer: &mut Composer,
    text: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let count = loop {
        match stdin.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read.map_err(|error| Trouble::new(Exit::IoError, format!("stdin: {error}")))?,
        }
    };
    if count == 0 {
        composer.finish(text);
    } else {
        composer.take(&piece[..count], text);
        if composer.is_ended() {
            composer.finish(text);
        }
    }
    Ok(())
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

/// The host's name for a greeting.
fn hostname() -> String {
    host::name()
}
