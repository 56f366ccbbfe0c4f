//! `gatepost-edge send`: the `sendmail` command of the rented server, for its own cron and root. Whatever recipient
//! is written, the mail is for the postmaster at home. It is sealed to the home's key here, before it touches
//! the disk, and left in the drop, whether the edge runs or not.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser};
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::header;
use gatepost_protocol::mail::received::{Received, TraceId};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::sendmail::arguments::{Invocation, Mode};
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::inbound::Inbound;
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireVerdict};
use gatepost_runtime::clock::{Clock, mail_date};
use gatepost_runtime::durable::{self, DurableError};
use gatepost_runtime::maildrop::{Leaving, Maildrop};
use gatepost_runtime::random;
use gatepost_runtime::sendmail::{self, Incoming};

use super::Cli;
use crate::config::{Config, STATE_PATH};
use crate::handover::sealed::SealedFrames;
use crate::local::notice::{Head, NOTICE, NOTICE_OCTETS_MAX, Notice, NoticedHome};

/// Disk left free, in octets.
const DISK_RESERVE_OCTETS: u64 = 50 * 1024 * 1024;
/// Recipients kept in a header field.
const NAMED_MAX: usize = 20;
/// Longest of them, in characters.
const NAMED_CHARACTERS_MAX: usize = 200;

/// Send mail from stdin to the postmaster at home, as `sendmail` does; whatever recipient is written is kept in a
/// header field.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct SendArgs {
    /// Flags and recipients, as sendmail takes them; --home NAME, where there are several.
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
Sends the message on stdin to the postmaster at home, as sendmail does: send [FLAGS] [RECIPIENT]...
  -t         recipients are in the header; -i, -oi  a dot alone on a line is text
  -f ADDRESS the sender (else you); -F NAME its full name; -v  say what became of it
  --home NAME where there are several homes; --config FILE, --state DIR
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
        Mode::Nothing => {}
        Mode::Queue => {
            let mut words: Vec<OsString> = vec!["gatepost-edge".into(), "--config".into(), config.into()];
            if let Some(state) = state {
                words.extend(["--state".into(), state.into()]);
            }
            words.extend(["spool".into(), "list".into()]);
            return Ok(Cli::parse_from(words).perform());
        }
        Mode::Dialog => return Err(Trouble::new(Exit::Unavailable, "-bs is not offered at an edge")),
        Mode::Send => {
            // Users need not see the config.
            let state = Config::state_path(config, state).unwrap_or_else(|_| STATE_PATH.into());
            send(&invocation, &Maildrop::of(&state))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One message from stdin.
fn send(invocation: &Invocation, drop: &Maildrop) -> Result<(), Trouble> {
    if invocation.recipients.is_empty() && !invocation.from_header {
        return Err(Trouble::new(Exit::Usage, "no recipients; name them, or use -t for those in the header"));
    }
    let notice = notice(drop)?;
    let home = notice.choose(invocation.home.as_deref()).map_err(|why| Trouble::new(Exit::Config, why))?;
    let free = durable::free_octets(drop.folder()).map_err(|error| kept_out(&error))?;
    if free < DISK_RESERVE_OCTETS {
        return Err(Trouble::new(Exit::TemporaryFailure, "the disk has less than 50 MiB left"));
    }
    let mut incoming = Incoming::new(io::stdin().lock(), invocation.dot_is_text);
    let beginning = incoming.beginning()?;
    let mut letter = Letter::begin(drop, &notice.hostname, home, invocation)?;
    letter.data(&beginning)?;
    while let Some(more) = incoming.more()? {
        letter.data(more)?;
    }
    let trace = letter.end(&notice.hostname, invocation, sendmail::header_section(&beginning))?;
    if invocation.verbose {
        println!("Sealed as {trace}");
    }
    Ok(())
}

/// A letter being sealed.
struct Letter {
    leaving: Leaving,
    frames: SealedFrames,
    tally: Tally,
    octets_max: u64,
    trace: TraceId,
    sender: Address,
    now_unix_s: i64,
}

impl Letter {
    fn begin(drop: &Maildrop, hostname: &str, home: &NoticedHome, invocation: &Invocation) -> Result<Self, Trouble> {
        let mut leaving = drop.leave().map_err(|error| kept_out(&error))?;
        let trace = TraceId::from_random(random::bytes());
        let now_unix_s = Clock::real().unix_s();
        let sender = sender(hostname, invocation)?;
        let reverse_path = match invocation.sender.as_deref() {
            Some("") => ReversePath::Null,
            _ => ReversePath::Address(sender.clone()),
        };
        let postmaster = Address::parse(&home.postmaster).map_err(|error| Trouble::new(Exit::SystemError, error))?;
        let envelope = Envelope {
            reverse_path,
            recipients: vec![Recipient::plain(postmaster)],
            body: BodyKind::EightBit,
            smtputf8: false,
            ret: None,
            envid: None,
        };
        let transfer = TransferId(leaving.id());
        let open = TransferOpen {
            transfer,
            trace: trace.to_bytes(),
            envelope: WireEnvelope::from(&envelope),
            client: WireClient {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                helo: hostname.to_owned(),
                with: "local".to_owned(),
                tls: None,
            },
            received_unix_s: now_unix_s,
        };
        let request = Request::Inbound(Box::new(Inbound { open }));
        let frames = SealedFrames::begin(&home.seal_key, transfer, now_unix_s, &request)
            .map_err(|error| Trouble::new(Exit::SystemError, error))?;
        let head = Head::new(home.name.clone(), trace.to_string());
        let line = head.line().map_err(|error| Trouble::new(Exit::SystemError, error))?;
        leaving.write(&line).map_err(|error| kept_out(&error))?;
        let octets_max = home.message_octets_max;
        Ok(Self { leaving, frames, tally: Tally::default(), octets_max, trace, sender, now_unix_s })
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.tally.add(bytes);
        if self.tally.octets() > self.octets_max {
            let reply = Reply::too_big(self.octets_max);
            return Err(Trouble::new(Exit::of(&reply), reply));
        }
        self.frames.data(bytes);
        self.leaving.write(&self.frames.sealed()).map_err(|error| kept_out(&error))
    }

    /// The message is whole, with what it lacks in front. Durable when this returns well.
    fn end(mut self, hostname: &str, invocation: &Invocation, section: &[u8]) -> Result<TraceId, Trouble> {
        let front = self.front(hostname, invocation, section);
        let end = TransferEnd::Whole(self.tally.seal(WireVerdict::from(&Verdict::default()), front));
        let sealed = self.frames.end(&end).map_err(|error| Trouble::new(Exit::SystemError, error))?;
        self.leaving.write(&sealed).map_err(|error| kept_out(&error))?;
        self.leaving.commit(false).map_err(|error| kept_out(&error))?;
        Ok(self.trace)
    }

    /// Our trace, for whom it was written, and what every message has.
    fn front(&self, hostname: &str, invocation: &Invocation, section: &[u8]) -> Vec<u8> {
        let date = mail_date(self.now_unix_s);
        let received = Received {
            helo: None,
            client: None,
            by: hostname,
            with: "local",
            trace: self.trace,
            tls: None,
            only_recipient: None,
            date: &date,
        };
        let mut front = received.to_string();
        for recipient in invocation.recipients.iter().take(NAMED_MAX) {
            let plain = |c: &char| c.is_ascii() && !c.is_ascii_control();
            let recipient: String = recipient.chars().filter(plain).take(NAMED_CHARACTERS_MAX).collect();
            front += &["X-Original-To: ", &recipient, "\r\n"].concat();
        }
        let has = |name: &str| header::fields(section).any(|field| field.is(name));
        if !has("From") {
            let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b" .-_".contains(&b));
            let name = invocation.full_name.as_deref().filter(plain).map(|name| ["\"", name, "\" "].concat());
            front += &["From: ", &name.unwrap_or_default(), "<", &self.sender.to_string(), ">\r\n"].concat();
        }
        if !has("Date") {
            front += &["Date: ", &date, "\r\n"].concat();
        }
        if !has("Message-ID") {
            front += &["Message-ID: <", &self.trace.to_string(), "@", hostname, ">\r\n"].concat();
        }
        front.into_bytes()
    }
}

/// Who sends: as it is named, else the user who calls, at the edge's own name.
fn sender(hostname: &str, invocation: &Invocation) -> Result<Address, Trouble> {
    let written = invocation.sender.clone().filter(|sender| !sender.is_empty()).unwrap_or_else(sendmail::user);
    let whole = if written.contains('@') { written } else { format!("{written}@{hostname}") };
    Address::parse(&whole).map_err(|error| Trouble::new(Exit::DataError, format!("{whole:?}: {error}")))
}

/// What the edge tells programs of its machine.
fn notice(drop: &Maildrop) -> Result<Notice, Trouble> {
    let read = drop.published(NOTICE, NOTICE_OCTETS_MAX).map_err(|error| {
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::TemporaryFailure,
        };
        Trouble::new(exit, format!("{}: {error}; has gatepost-edge run here before?", drop.folder().display()))
    })?;
    let notice = Notice::parse(&read)
        .ok_or_else(|| Trouble::new(Exit::TemporaryFailure, "the edge's notice is of another version; restart it"))?;
    if notice.homes.is_empty() {
        return Err(Trouble::new(Exit::TemporaryFailure, "no home has told this edge its key yet"));
    }
    Ok(notice)
}

fn kept_out(error: &DurableError) -> Trouble {
    sendmail::kept_out("gatepost-edge", error)
}
