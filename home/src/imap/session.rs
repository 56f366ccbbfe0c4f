//! One IMAP session as a pure machine (RFC 9051, RFC 3501): frames commands, keeps to their order, bounds everything, and
//! asks the program around it for what only that knows. It knows no mailbox: what is said about one is handed to it.
//!
//! Implicit TLS only, so there is no STARTTLS and nothing is ever disabled for want of it.

mod auth;
mod read;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::machine::{Machine, Output, TlsFacts};
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::secret::Secret;
use imap_types::command::CommandBody;

use super::answer::Status;
use super::append::Append;

/// Octets of one command with its literals before a login, and after it. A message that is appended does not count.
pub const COMMAND_BEFORE_LOGIN_OCTETS_MAX: usize = 8 * 1024;
pub const COMMAND_OCTETS_MAX: usize = 64 * 1024;
/// A session without a login lasts this long.
pub const LOGIN_WAIT_MAX: Duration = Duration::from_mins(1);
/// Wrong logins in one session.
pub const WRONG_LOGINS_MAX: u32 = 3;
/// Commands in a row that are none.
pub const BAD_COMMANDS_MAX: u32 = 20;
/// A session says nothing for so long and is ended (RFC 9051 §5.4).
pub const IDLE_MAX: Duration = Duration::from_mins(30);
/// In IDLE something is said this often, so that routers in between keep the connection.
pub const STILL_HERE: Duration = Duration::from_mins(2);
/// Mechanisms, the strongest first.
pub const MECHANISMS: [Mechanism; 3] = [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain];

/// What the machine asks of, or tells, the program.
#[derive(Debug)]
pub enum Event {
    /// AUTHENTICATE or LOGIN: to be answered by [`Session::answer_auth`].
    Auth {
        /// How.
        mechanism: Mechanism,
        /// The client's first words.
        initial: Option<Secret>,
    },
    /// The client's next words.
    AuthResponse(Secret),
    /// A command for the mailbox: what is to be said goes in by [`Session::say`], the end by [`Session::finish`].
    Command(Box<CommandBody<'static>>),
    /// A message is announced: [`Session::take_message`], or [`Session::finish`] to refuse it.
    Append(Box<Append>),
    /// Some of it.
    AppendBody(Bytes),
    /// All of it: to be ended by [`Session::finish`].
    AppendEnd,
    /// What had come of a message comes no more.
    AppendBrokenOff,
    /// IDLE: [`Session::idle`] begins it; the program then says what happens by itself.
    Idle,
    /// DONE, to be ended by [`Session::finish`].
    Done,
}

/// What the program says of a login.
#[derive(Debug)]
pub enum AuthAnswer {
    /// Tell the client this.
    Challenge(Vec<u8>),
    /// Logged in.
    Success {
        /// As whom.
        login: String,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// Not; with the text of the answer.
    Failure(Status),
}

/// Where a session stands (RFC 9051 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody is logged in.
    NotAuthenticated,
    /// Somebody is.
    Authenticated,
    /// A mailbox is open.
    Selected,
}

/// What the session waits for.
#[derive(Debug)]
enum Phase {
    /// TLS.
    Fresh,
    /// A command, or the rest of one.
    Command,
    /// The rest of a literal of a command.
    Literal { octets_left: usize },
    /// The end of octets, and of a line after them, that are thrown away.
    Discarding { octets_left: u64 },
    /// The client's words in a login.
    Auth(auth::Auth),
    /// The program.
    Asked,
    /// The program's answer to a login.
    AskedAuth,
    /// The octets of a message.
    Message { octets_left: u64 },
    /// The line that ends the command behind a message.
    MessageLine,
    /// DONE.
    Idling,
    /// Nothing.
    Over,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    standing: Standing,
    tls: Option<TlsFacts>,
    login: Option<String>,
    /// Read and not used.
    input: Vec<u8>,
    /// The command so far.
    command: Vec<u8>,
    /// The tag of the command that runs.
    tag: String,
    /// The message that the program is asked about.
    pending: Option<read::Pending>,
    /// Octets thrown away since the last command.
    discarded: u64,
    events: VecDeque<Event>,
    output: Vec<u8>,
    wrong_logins: u32,
    bad_commands: u32,
    until: Instant,
    ended: bool,
    shutting_down: bool,
}

impl Session {
    /// Before TLS.
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Fresh,
            standing: Standing::NotAuthenticated,
            tls: None,
            login: None,
            input: Vec::new(),
            command: Vec::new(),
            tag: String::new(),
            pending: None,
            discarded: 0,
            events: VecDeque::new(),
            output: Vec::new(),
            wrong_logins: 0,
            bad_commands: 0,
            until: now + LOGIN_WAIT_MAX,
            ended: false,
            shutting_down: false,
        }
    }

    /// What is known of TLS.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Who is logged in.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// A mailbox was opened, or is open no more. Nothing before a login.
    pub fn set_selected(&mut self, selected: bool) {
        if self.standing >= Standing::Authenticated {
            self.standing = if selected { Standing::Selected } else { Standing::Authenticated };
        }
    }

    /// Says something: whole responses, each with its CR LF.
    pub fn say(&mut self, words: &[u8]) {
        self.output.extend_from_slice(words);
    }

    /// The command that runs is done; one that announces a message is refused by it.
    pub fn finish(&mut self, now: Instant, status: &Status) {
        if !matches!(self.phase, Phase::Asked) {
            return;
        }
        if let Some(read::Pending { octets, waits: false }) = self.pending.take() {
            // It comes all the same: what announced it does not wait.
            let tag = std::mem::take(&mut self.tag);
            self.refuse(now, Some(&tag), status, Some(octets));
        } else {
            self.tagged(status);
            self.next_command(now);
        }
        self.go_on(now);
    }

    /// The announced message may come.
    pub fn take_message(&mut self, now: Instant) {
        if let Some(read::Pending { octets, waits }) = self.pending.take() {
            if waits {
                self.say(b"+ Ready\r\n");
            }
            self.phase = Phase::Message { octets_left: octets };
            self.until = now + IDLE_MAX;
        }
        self.go_on(now);
    }

    /// IDLE has begun.
    pub fn idle(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Asked) {
            self.say(b"+ idling\r\n");
            self.phase = Phase::Idling;
            self.until = now + STILL_HERE;
        }
        self.go_on(now);
    }

    /// The program ends: the client is told, and comes again.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
        if matches!(self.phase, Phase::Command | Phase::Idling | Phase::Auth(_)) {
            self.bye("The server is being restarted; come again");
        }
    }

    /// Says goodbye; nothing more is heard.
    fn bye(&mut self, why: &str) {
        self.output.extend_from_slice(b"* BYE ");
        self.output.extend_from_slice(why.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.over();
    }

    fn over(&mut self) {
        self.phase = Phase::Over;
        self.input = Vec::new();
        self.command = Vec::new();
    }

    fn tagged(&mut self, status: &Status) {
        status.put(&mut self.output, &self.tag);
    }

    fn next_command(&mut self, now: Instant) {
        self.phase = Phase::Command;
        self.command = Vec::new();
        self.until = now + if self.login.is_some() { IDLE_MAX } else { LOGIN_WAIT_MAX };
        if self.shutting_down {
            self.bye("The server is being restarted; come again");
        }
    }
}

impl Machine for Session {
    type Event = Event;

    fn bytes(&mut self, now: Instant, input: &[u8]) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.input.extend_from_slice(input);
        self.go_on(now);
    }

    fn end(&mut self, _now: Instant) {
        self.ended = true;
        if matches!(self.phase, Phase::Message { .. } | Phase::MessageLine) {
            self.events.push_back(Event::AppendBrokenOff);
        }
        if !matches!(self.phase, Phase::Asked | Phase::AskedAuth) {
            self.over();
        }
    }

    fn deadline(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        match self.phase {
            Phase::Idling => {
                self.say(b"* OK Still here\r\n");
                self.until = now + STILL_HERE;
            }
            Phase::Asked | Phase::AskedAuth | Phase::Over => {}
            Phase::Message { .. } | Phase::MessageLine => {
                self.events.push_back(Event::AppendBrokenOff);
                self.bye("Nothing came for too long");
            }
            _ if self.login.is_none() => self.bye("No login in time"),
            _ => self.bye("Nothing came for too long"),
        }
    }

    fn secured(&mut self, now: Instant, facts: TlsFacts) {
        self.tls = Some(facts);
        if matches!(self.phase, Phase::Fresh) {
            self.output.extend_from_slice(b"* OK [CAPABILITY ");
            let capabilities = self.capabilities();
            self.output.extend_from_slice(capabilities.as_bytes());
            self.output.extend_from_slice(b"] Gatepost ready\r\n");
            self.until = now + LOGIN_WAIT_MAX;
            self.phase = Phase::Command;
            if self.shutting_down {
                self.bye("The server is being restarted; come again");
            }
        }
    }

    fn poll(&mut self, now: Instant) -> Output<Event> {
        if !self.output.is_empty() {
            return Output::Send(std::mem::take(&mut self.output).into());
        }
        if let Some(event) = self.events.pop_front() {
            // What came behind it waits in the input.
            self.go_on(now);
            return Output::Event(event);
        }
        match self.phase {
            Phase::Over => Output::Close,
            Phase::Asked | Phase::AskedAuth => Output::Wait { until: None, read: false },
            _ => Output::Wait { until: Some(self.until), read: true },
        }
    }
}
