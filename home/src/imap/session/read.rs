//! From octets to commands: a line, its literals, and what the session does with a whole command by itself.

use std::time::Instant;

use bytes::Bytes;
use gatepost_protocol::sasl::Mechanism;
use imap_codec::CommandCodec;
use imap_codec::decode::Decoder as _;
use imap_types::command::{Command, CommandBody};

use super::super::answer::Status;
use super::super::append::Append;
use super::super::capability;
use super::super::framing::{self, Announced};
use super::{
    BAD_COMMANDS_MAX, COMMAND_BEFORE_LOGIN_OCTETS_MAX, COMMAND_OCTETS_MAX, Event, IDLE_MAX, MECHANISMS, Phase, Session,
    Standing,
};

/// What is refused and comes all the same is read and thrown away, up to here.
const DISCARDED_OCTETS_MAX: u64 = 1024 * 1024;
/// Octets of a message in one event.
const PIECE_OCTETS_MAX: usize = 64 * 1024;

/// A message that is announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) octets: u64,
    pub(super) waits: bool,
}

/// What was found of a line.
pub(super) enum Line {
    /// With its line end.
    Whole(Vec<u8>),
    /// More is to come.
    Part,
    /// Over the bound.
    TooLong,
}

impl Session {
    /// Uses up input until something is wanted that is not there.
    pub(super) fn go_on(&mut self, now: Instant) {
        while self.step(now) {}
        if self.ended && !matches!(self.phase, Phase::Asked | Phase::AskedAuth) && self.events.is_empty() {
            self.over();
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// True if there may be more to do.
    fn step(&mut self, now: Instant) -> bool {
        // What was found is told before anything else is looked for.
        if !self.events.is_empty() {
            return false;
        }
        match self.phase {
            Phase::Fresh | Phase::Asked | Phase::AskedAuth | Phase::Over => false,
            Phase::Command => self.line(now),
            Phase::Literal { octets_left } => {
                let count = octets_left.min(self.input.len());
                self.command.extend(self.input.drain(..count));
                let octets_left = octets_left - count;
                self.phase = if octets_left == 0 { Phase::Command } else { Phase::Literal { octets_left } };
                octets_left == 0
            }
            Phase::Discarding { octets_left } => self.discard(now, octets_left),
            Phase::Auth(_) => self.auth_line(now),
            Phase::Message { octets_left } => {
                let count = at_most(octets_left, self.input.len().min(PIECE_OCTETS_MAX));
                let octets_left = octets_left - count as u64;
                self.phase = if octets_left == 0 { Phase::MessageLine } else { Phase::Message { octets_left } };
                if count > 0 {
                    let piece: Vec<u8> = self.input.drain(..count).collect();
                    self.events.push_back(Event::AppendBody(Bytes::from(piece)));
                    self.until = now + IDLE_MAX;
                }
                count == 0 && octets_left == 0
            }
            Phase::MessageLine => self.message_line(),
            Phase::Idling => self.done_line(now),
        }
    }

    fn octets_max(&self) -> usize {
        if self.login.is_some() { COMMAND_OCTETS_MAX } else { COMMAND_BEFORE_LOGIN_OCTETS_MAX }
    }

    /// The next line, of at most so many octets.
    pub(super) fn take_line(&mut self, octets_max: usize) -> Line {
        match memchr::memchr(b'\n', &self.input) {
            Some(at) if at < octets_max => Line::Whole(self.input.drain(..=at).collect()),
            None if self.input.len() < octets_max => Line::Part,
            _ => Line::TooLong,
        }
    }

    /// The next line of a command.
    fn line(&mut self, now: Instant) -> bool {
        let room = self.octets_max().saturating_sub(self.command.len());
        match self.take_line(room) {
            Line::Part => false,
            Line::TooLong => {
                let words = if self.command.is_empty() { &self.input } else { &self.command };
                let tag = framing::tag(words).map(str::to_owned);
                self.refuse(now, tag.as_deref(), &Status::bad_code("TOOBIG", "The command is too long"), Some(0));
                true
            }
            Line::Whole(line) => {
                let announced = framing::announced(&line);
                let before = self.command.len();
                self.command.extend_from_slice(&line);
                match announced {
                    None => self.whole(now),
                    Some(announced) => self.literal(now, Announced { at: before + announced.at, ..announced }),
                }
                true
            }
        }
    }

    /// A literal is announced.
    fn literal(&mut self, now: Instant, announced: Announced) {
        let Announced { octets, waits, at } = announced;
        if self.standing >= Standing::Authenticated
            && framing::verb(&self.command) == "APPEND"
            && let Some((tag, append)) = self.append_before(at, octets)
        {
            self.tag = tag;
            self.command = Vec::new();
            self.pending = Some(Pending { octets, waits });
            self.phase = Phase::Asked;
            self.events.push_back(Event::Append(Box::new(append)));
            return;
        }
        let room = self.octets_max().saturating_sub(self.command.len());
        match usize::try_from(octets) {
            Ok(count) if count <= room => {
                if waits {
                    self.say(b"+ Ready\r\n");
                }
                self.phase = if count == 0 { Phase::Command } else { Phase::Literal { octets_left: count } };
            }
            _ => {
                let tag = framing::tag(&self.command).map(str::to_owned);
                let coming = (!waits).then_some(octets);
                self.refuse(now, tag.as_deref(), &Status::bad_code("TOOBIG", "The literal is too long"), coming);
            }
        }
    }

    /// What is appended, if the literal that is announced is the message itself.
    fn append_before(&self, at: usize, octets: u64) -> Option<(String, Append)> {
        let probe = [&self.command[..at], b"{1+}\r\nx\r\n"].concat();
        let (_, command) = CommandCodec::new().decode_static(&probe).ok()?;
        match command.body {
            CommandBody::Append { mailbox, flags, date, .. } => {
                Some((command.tag.inner().to_owned(), Append::new(mailbox, &flags, date, octets)))
            }
            _ => None,
        }
    }

    /// The rest of the line behind a message: nothing, for there is one message a command.
    fn message_line(&mut self) -> bool {
        match self.take_line(COMMAND_BEFORE_LOGIN_OCTETS_MAX) {
            Line::Part => false,
            Line::Whole(line) if line == b"\r\n" => {
                self.phase = Phase::Asked;
                self.events.push_back(Event::AppendEnd);
                false
            }
            Line::Whole(_) | Line::TooLong => {
                self.events.push_back(Event::AppendBrokenOff);
                self.tagged(&Status::bad("One message a command"));
                self.bye("What follows the message can't be told from commands");
                false
            }
        }
    }

    fn done_line(&mut self, now: Instant) -> bool {
        match self.take_line(COMMAND_BEFORE_LOGIN_OCTETS_MAX) {
            Line::Part => false,
            Line::Whole(line) if line.eq_ignore_ascii_case(b"DONE\r\n") => {
                self.phase = Phase::Asked;
                self.events.push_back(Event::Done);
                false
            }
            Line::Whole(_) | Line::TooLong => {
                self.tagged(&Status::bad("DONE was due"));
                self.bye("What follows can't be told from commands");
                let _ = now;
                false
            }
        }
    }

    /// Answers what is not taken. `coming`: so many octets come all the same, and a line after them.
    pub(super) fn refuse(&mut self, now: Instant, tag: Option<&str>, status: &Status, coming: Option<u64>) {
        self.command = Vec::new();
        status.put(&mut self.output, tag.unwrap_or("*"));
        self.bad_commands += 1;
        match coming {
            _ if self.bad_commands > BAD_COMMANDS_MAX => self.bye("Too much of what can't be taken"),
            Some(octets) if octets > DISCARDED_OCTETS_MAX => self.bye("Too much of what can't be taken"),
            Some(octets_left) => {
                self.discarded = octets_left;
                self.phase = Phase::Discarding { octets_left };
            }
            None => self.next_command(now),
        }
    }

    /// Throws away octets, and then a line.
    fn discard(&mut self, now: Instant, octets_left: u64) -> bool {
        let count = at_most(octets_left, self.input.len());
        self.input.drain(..count);
        let octets_left = octets_left - count as u64;
        self.phase = Phase::Discarding { octets_left };
        if octets_left > 0 {
            return false;
        }
        let Some(at) = memchr::memchr(b'\n', &self.input) else {
            self.discarded += self.input.len() as u64;
            // The announcement of a literal is short: enough of the line's end is kept to know one.
            let kept = self.input.len().min(KEPT_OCTETS);
            self.input.drain(..self.input.len() - kept);
            self.discarded -= kept as u64;
            if self.discarded > DISCARDED_OCTETS_MAX {
                self.bye("Too much of what can't be taken");
            }
            return false;
        };
        let line: Vec<u8> = self.input.drain(..=at).collect();
        match framing::announced(&line) {
            // What is announced without waiting comes, whatever was said.
            Some(Announced { octets, waits: false, .. }) => {
                self.discarded = self.discarded.saturating_add(octets);
                if self.discarded > DISCARDED_OCTETS_MAX {
                    self.bye("Too much of what can't be taken");
                } else {
                    self.phase = Phase::Discarding { octets_left: octets };
                }
            }
            _ => self.next_command(now),
        }
        true
    }

    /// A command is whole.
    fn whole(&mut self, now: Instant) {
        let command = std::mem::take(&mut self.command);
        let Some(tag) = framing::tag(&command) else {
            return self.refuse(now, None, &Status::bad("A command begins with a tag"), None);
        };
        tag.clone_into(&mut self.tag);
        if let Ok((_, Command { body, .. })) = CommandCodec::new().decode_static(&command) {
            self.bad_commands = 0;
            return self.obey(now, body);
        }
        let known = capability::is_verb(&framing::verb(&command));
        let why = if known { "The arguments can't be read" } else { "There is no such command" };
        let tag = std::mem::take(&mut self.tag);
        self.refuse(now, Some(&tag), &Status::bad(why), None);
    }

    /// Does what needs no program, and asks for the rest.
    fn obey(&mut self, now: Instant, body: CommandBody<'static>) {
        match body {
            CommandBody::Capability => {
                let capabilities = self.capabilities();
                self.say(format!("* CAPABILITY {capabilities}\r\n").as_bytes());
                self.done(now, &Status::ok("CAPABILITY"));
            }
            CommandBody::Logout => {
                self.say(b"* BYE Goodbye\r\n");
                self.tagged(&Status::ok("LOGOUT"));
                self.over();
            }
            CommandBody::Id { .. } => {
                self.say(b"* ID (\"name\" \"Gatepost\")\r\n");
                self.done(now, &Status::ok("ID"));
            }
            CommandBody::Noop if self.standing < Standing::Selected => self.done(now, &Status::ok("NOOP")),
            CommandBody::Authenticate { .. } | CommandBody::Login { .. }
                if self.standing > Standing::NotAuthenticated =>
            {
                self.done(now, &Status::bad("Already logged in"));
            }
            CommandBody::Login { username, password } => {
                self.login_command(now, username.as_ref(), password.declassify().as_ref());
            }
            CommandBody::Authenticate { mechanism, initial_response } => {
                let initial = initial_response.map(|initial| initial.declassify().to_vec());
                self.authenticate(now, &mechanism, initial);
            }
            _ if self.standing == Standing::NotAuthenticated => self.done(now, &Status::no("Log in first")),
            body if capability::needs_mailbox(&body) && self.standing < Standing::Selected => {
                self.done(now, &Status::bad("Select a mailbox first"));
            }
            CommandBody::Idle => {
                self.phase = Phase::Asked;
                self.events.push_back(Event::Idle);
            }
            body => {
                self.phase = Phase::Asked;
                self.events.push_back(Event::Command(Box::new(body)));
            }
        }
    }

    fn done(&mut self, now: Instant, status: &Status) {
        self.tagged(status);
        self.next_command(now);
    }

    /// What is offered now.
    pub(super) fn capabilities(&self) -> String {
        let bound = self.tls.as_ref().is_some_and(|tls| tls.exporter.is_some());
        let offered = MECHANISMS.into_iter().filter(|mechanism| bound || *mechanism != Mechanism::ScramSha256Plus);
        capability::list(self.login.is_some(), offered)
    }
}

/// Octets kept of the end of a line that is thrown away: an announcement is shorter.
const KEPT_OCTETS: usize = 64;

fn at_most(octets: u64, there: usize) -> usize {
    usize::try_from(octets).unwrap_or(usize::MAX).min(there)
}
