//! A load generator: many sessions, each a thread with a connection, sending numbered messages as
//! fast as the server takes them. It writes as few times as the protocol allows and keeps the time of
//! every message. The same for every server it is pointed at.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use gatepost_runtime::clock::Clock;
use rustls_pki_types::ServerName;

use crate::world::message;

const IO_WAIT_MAX: Duration = Duration::from_mins(2);

/// What to send, and how.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Sessions at once.
    pub sessions: usize,
    /// Number of the first message; they count up from here.
    pub first: u64,
    /// Messages in all.
    pub messages: u64,
    /// Octets of each.
    pub octets: usize,
    /// Reverse-path.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// STARTTLS with this configuration and name.
    pub tls: Option<(Arc<rustls::ClientConfig>, String)>,
    /// One message a connection, or as many as there are.
    pub per_connection: PerConnection,
    /// After a refusal or a broken connection: give that message up and go on, or end the session.
    pub on_failure: OnFailure,
}

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerConnection {
    /// A new one for each message.
    One,
    /// Kept.
    Many,
}

/// What a session does when a message fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Reports it; the load has failed.
    Stop,
    /// Notes it as not accepted and sends the next one.
    GoOn,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Numbers that were answered 250.
    pub accepted: BTreeSet<u64>,
    /// Numbers that were answered otherwise, with the reply.
    pub refused: Vec<(u64, String)>,
    /// Numbers whose connection broke before the answer: accepted or not, nobody knows.
    pub unknown: BTreeSet<u64>,
    /// From the first connection to the last answer.
    pub elapsed: Duration,
    /// From the first octet of a session's message (its connection, if it has its own) to the answer.
    pub whole: Vec<Duration>,
    /// From the end of the data to the answer.
    pub end_of_data: Vec<Duration>,
}

/// Lets a caller end a load early and see how far it is.
#[derive(Clone, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
}

impl Control {
    /// Every session ends after its message under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Messages accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Load {
    /// Runs it to its end.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        self.run_controlled(&Control::default())
    }

    /// Runs it until its end or until it is told to stop.
    pub fn run_controlled(&self, control: &Control) -> anyhow::Result<Outcome> {
        let clock = Clock::real();
        let next = AtomicU64::new(self.first);
        let began = clock.now();
        let parts = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.sessions).map(|_| scope.spawn(|| self.session(&next, control, &clock))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a session never panics")).collect::<Vec<_>>()
        });
        let mut all = Outcome { elapsed: clock.now() - began, ..Outcome::default() };
        for part in parts {
            let part = part?;
            all.accepted.extend(part.accepted);
            all.refused.extend(part.refused);
            all.unknown.extend(part.unknown);
            all.whole.extend(part.whole);
            all.end_of_data.extend(part.end_of_data);
        }
        Ok(all)
    }

    fn session(&self, next: &AtomicU64, control: &Control, clock: &Clock) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut wire: Option<Wire> = None;
        while !control.stop.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= self.first + self.messages {
                break;
            }
            let bytes = message::stuffed(&message::numbered(number, &self.from, &self.to, self.octets));
            let began = clock.now();
            let mut sent = None;
            let answer = self.transaction(&mut wire, &bytes, clock, &mut sent);
            let now = clock.now();
            match answer {
                Ok(reply) if reply.starts_with("250") => {
                    outcome.accepted.insert(number);
                    outcome.whole.push(now - began);
                    outcome.end_of_data.extend(sent.map(|sent| now - sent));
                    control.accepted.fetch_add(1, Ordering::SeqCst);
                }
                Ok(reply) if self.on_failure == OnFailure::GoOn => {
                    outcome.refused.push((number, reply));
                    wire = None;
                }
                Err(_) if self.on_failure == OnFailure::GoOn => {
                    // Without a final dot the server can't have taken it.
                    if sent.is_some() {
                        outcome.unknown.insert(number);
                    } else {
                        outcome.refused.push((number, "the connection broke before the end of data".to_owned()));
                    }
                    wire = None;
                }
                Ok(reply) => anyhow::bail!("message {number}: {reply}"),
                Err(error) => return Err(error.context(format!("message {number}"))),
            }
            if self.per_connection == PerConnection::One
                && let Some(mut wire) = wire.take()
            {
                // Polite, and not waited for: the answer was had.
                let _ = wire.write(b"QUIT\r\n");
            }
        }
        Ok(outcome)
    }

    /// One message; the reply to its end, or the first that was not positive.
    fn transaction(
        &self,
        wire: &mut Option<Wire>,
        bytes: &[u8],
        clock: &Clock,
        sent: &mut Option<std::time::Instant>,
    ) -> anyhow::Result<String> {
        let wire = match wire {
            Some(wire) => wire,
            None => wire.insert(match self.open()? {
                Ok(wire) => wire,
                Err(reply) => return Ok(reply),
            }),
        };
        let commands = format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", self.from, self.to);
        wire.write(commands.as_bytes())?;
        for expected in ["250", "250", "354"] {
            let reply = wire.reply()?;
            if !reply.starts_with(expected) {
                return Ok(reply);
            }
        }
        // A dot can't have been seen before it was written, so the last write counts as the end.
        let (head, tail) = bytes.split_at(bytes.len() - 3);
        if bytes.len() > 64 * 1024 {
            wire.write(head)?;
            *sent = Some(clock.now());
            wire.write(tail)?;
        } else {
            *sent = Some(clock.now());
            wire.write(bytes)?;
        }
        wire.reply()
    }

    fn open(&self) -> anyhow::Result<Result<Wire, String>> {
        let stream = TcpStream::connect(self.address).with_context(|| format!("can't connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_WAIT_MAX))?;
        stream.set_write_timeout(Some(IO_WAIT_MAX))?;
        let mut wire = Wire { stream, tls: None, buffer: Vec::with_capacity(4096), taken: 0 };
        let greeting = wire.reply()?;
        if !greeting.starts_with("220") {
            return Ok(Err(greeting));
        }
        wire.write(b"EHLO load.example\r\n")?;
        wire.reply()?;
        if let Some((config, name)) = &self.tls {
            wire.write(b"STARTTLS\r\n")?;
            let reply = wire.reply()?;
            if !reply.starts_with("220") {
                return Ok(Err(reply));
            }
            let name = ServerName::try_from(name.clone())?;
            let mut session = rustls::ClientConnection::new(Arc::clone(config), name)?;
            while session.is_handshaking() {
                session.complete_io(&mut wire.stream).context("TLS handshake")?;
            }
            wire.tls = Some(session);
            wire.write(b"EHLO load.example\r\n")?;
            wire.reply()?;
        }
        Ok(Ok(wire))
    }
}

struct Wire {
    stream: TcpStream,
    tls: Option<rustls::ClientConnection>,
    buffer: Vec<u8>,
    taken: usize,
}

impl Wire {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes)?,
            Some(session) => {
                let mut stream = rustls::Stream::new(session, &mut self.stream);
                stream.write_all(bytes)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// The last line of the next reply.
    fn reply(&mut self) -> anyhow::Result<String> {
        loop {
            let rest = &self.buffer[self.taken..];
            if let Some(end) = rest.iter().position(|&octet| octet == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).trim_end().to_owned();
                self.taken += end + 1;
                if line.as_bytes().get(3) == Some(&b'-') {
                    continue;
                }
                return Ok(line);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let mut chunk = [0; 4096];
            let octets = match &mut self.tls {
                None => self.stream.read(&mut chunk)?,
                Some(session) => rustls::Stream::new(session, &mut self.stream).read(&mut chunk)?,
            };
            anyhow::ensure!(octets > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&chunk[..octets]);
        }
    }
}
