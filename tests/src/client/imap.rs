//! An IMAP client for tests: says what it is told, and keeps the whole dialog so that a failed expectation can show it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketType};
use rustls_pki_types::ServerName;

/// Longer than any answer should take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);
/// Octets of one response with its literals.
const RESPONSE_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// A connection to an IMAP server, TLS from the first octet, or none at all.
pub struct Imap {
    transport: Transport,
    buffer: Vec<u8>,
    commands: u32,
    dialog: String,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// What came to a command.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Untagged responses, each with its literals, without the last line end.
    pub untagged: Vec<String>,
    /// The tagged line, without its tag.
    pub status: String,
}

impl Answer {
    /// Whether it was done.
    pub fn is_ok(&self) -> bool {
        self.status.starts_with("OK")
    }

    /// The untagged responses that hold these words.
    pub fn with(&self, words: &str) -> Vec<&str> {
        self.untagged.iter().map(String::as_str).filter(|line| line.contains(words)).collect()
    }
}

impl Imap {
    /// Connects, from an address of ours if one is given, and hears the greeting.
    pub fn connect(
        from: Option<IpAddr>,
        address: SocketAddr,
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> anyhow::Result<Self> {
        let stream = match from {
            None => TcpStream::connect(address)?,
            Some(from) => {
                let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
                rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
                rustix::net::connect(&socket, &address)?;
                TcpStream::from(socket)
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        let transport = match tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let session = rustls::ClientConnection::new(Arc::clone(tls), ServerName::try_from("127.0.0.1")?)?;
                Transport::Tls(Box::new(rustls::StreamOwned::new(session, stream)))
            }
        };
        let mut imap = Self { transport, buffer: Vec::new(), commands: 0, dialog: String::new() };
        let greeting = imap.response()?;
        anyhow::ensure!(greeting.starts_with("* OK"), "{greeting}");
        Ok(imap)
    }

    /// Says a command, without its tag, and hears its answer.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<Answer> {
        let tag = self.say(command)?;
        self.answer(&tag)
    }

    /// The same; it must be done.
    pub fn expect(&mut self, command: &str) -> anyhow::Result<Answer> {
        let answer = self.ask(command)?;
        anyhow::ensure!(answer.is_ok(), "{command}: {}\n{}", answer.status, self.dialog);
        Ok(answer)
    }

    /// Says a command and gives its tag.
    pub fn say(&mut self, command: &str) -> anyhow::Result<String> {
        self.commands += 1;
        let tag = format!("t{}", self.commands);
        self.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.dialog.push_str("C: ");
        self.dialog.push_str(&String::from_utf8_lossy(&octets[..octets.len().min(300)]));
        match &mut self.transport {
            Transport::Plain(stream) => stream.write_all(octets)?,
            Transport::Tls(stream) => {
                stream.write_all(octets)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// Hears responses up to the tagged one.
    pub fn answer(&mut self, tag: &str) -> anyhow::Result<Answer> {
        let mut untagged = Vec::new();
        loop {
            let response = self.response()?;
            match response.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(status) => return Ok(Answer { untagged, status: status.to_owned() }),
                None => untagged.push(response),
            }
        }
    }

    /// The next response with its literals.
    pub fn response(&mut self) -> anyhow::Result<String> {
        let mut from = 0;
        loop {
            let Some(end) = self.buffer[from..].windows(2).position(|pair| pair == b"\r\n") else {
                self.read()?;
                continue;
            };
            let line = &self.buffer[from..from + end];
            let literal = line.strip_suffix(b"}").and_then(|line| {
                let open = line.iter().rposition(|octet| *octet == b'{')?;
                std::str::from_utf8(&line[open + 1..]).ok()?.parse::<usize>().ok()
            });
            let after = from + end + 2;
            let Some(octets) = literal else {
                let response = String::from_utf8_lossy(&self.buffer[..from + end]).into_owned();
                self.buffer.drain(..after);
                self.dialog.push_str("S: ");
                self.dialog.extend(response.chars().take(500));
                self.dialog.push('\n');
                return Ok(response);
            };
            while self.buffer.len() < after + octets {
                self.read()?;
            }
            from = after + octets;
        }
    }

    /// Whether nothing more comes.
    pub fn is_closed(&mut self) -> bool {
        self.read().is_err()
    }

    /// Everything that was said.
    pub fn dialog(&self) -> &str {
        &self.dialog
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; 16 * 1024];
        let count = match &mut self.transport {
            Transport::Plain(stream) => stream.read(&mut piece),
            Transport::Tls(stream) => stream.read(&mut piece),
        };
        let count = count.with_context(|| format!("nothing came:\n{}", self.dialog))?;
        anyhow::ensure!(count > 0, "closed:\n{}", self.dialog);
        anyhow::ensure!(self.buffer.len() < RESPONSE_OCTETS_MAX, "an endless response");
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }
}
