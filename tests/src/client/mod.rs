//! An SMTP client for tests: says what it is told, byte for byte if need be, and keeps the whole
//! dialog so that a failed expectation can show it.

pub mod imap;
pub mod load;
pub mod scram;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::net::{AddressFamily, SocketType};
use rustls_pki_types::ServerName;

use crate::world::message;

/// Longer than any answer should take, the 60 s of a silent home included.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);
const REPLY_OCTETS_MAX: usize = 1024 * 1024;

/// A reply as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The three digits.
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

impl Answer {
    /// All text, lines joined by a space.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// A connection to an SMTP server.
pub struct Client {
    transport: Option<Transport>,
    buffer: Vec<u8>,
    dialog: String,
}

impl Client {
    /// Connects without reading the greeting.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect(address).with_context(|| format!("can't connect to {address}"))?)
    }

    fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        Ok(Self { transport: Some(Transport::Plain(stream)), buffer: Vec::new(), dialog: String::new() })
    }

    /// Connects from an address of ours, such as 127.0.0.2, without reading the greeting.
    pub fn connect_from(from: IpAddr, address: SocketAddr) -> anyhow::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
        rustix::net::connect(&socket, &address).with_context(|| format!("can't connect to {address} from {from}"))?;
        Self::over(TcpStream::from(socket))
    }

    /// Connects, expects 220, says EHLO and expects 250.
    pub fn greeted(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Self::connect(address)?;
        client.expect(220)?;
        client.say("EHLO client.example", 250)?;
        Ok(client)
    }

    /// Connects with TLS from the first byte, expects 220, says EHLO and expects 250.
    pub fn greeted_tls(address: SocketAddr, tls: &Arc<rustls::ClientConfig>, name: &str) -> anyhow::Result<Self> {
        let mut client = Self::connect(address)?;
        client.secure(tls, name)?;
        client.expect(220)?;
        client.say("EHLO client.example", 250)?;
        Ok(client)
    }

    /// STARTTLS and EHLO again.
    pub fn start_tls(&mut self, tls: &Arc<rustls::ClientConfig>, name: &str) -> anyhow::Result<()> {
        self.say("STARTTLS", 220)?;
        self.secure(tls, name)?;
        self.say("EHLO client.example", 250)?;
        Ok(())
    }

    /// A TLS handshake now.
    pub fn secure(&mut self, tls: &Arc<rustls::ClientConfig>, name: &str) -> anyhow::Result<()> {
        anyhow::ensure!(self.buffer.is_empty(), "the server spoke before the handshake:\n{}", self.dialog);
        let Some(Transport::Plain(mut stream)) = self.transport.take() else {
            anyhow::bail!("already secure, or gone");
        };
        let mut session = rustls::ClientConnection::new(Arc::clone(tls), ServerName::try_from(name.to_owned())?)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).context("TLS handshake")?;
        }
        self.dialog.push_str("-- TLS --\n");
        self.transport = Some(Transport::Tls(Box::new(rustls::StreamOwned::new(session, stream))));
        Ok(())
    }

    /// The certificate the server showed.
    pub fn certificate(&self) -> anyhow::Result<Vec<u8>> {
        let Some(Transport::Tls(stream)) = &self.transport else { anyhow::bail!("no TLS") };
        let shown = stream.conn.peer_certificates().and_then(|chain| chain.first());
        Ok(shown.context("no certificate")?.to_vec())
    }

    /// The `tls-exporter` channel binding (RFC 9266) of this connection.
    pub fn exporter(&self) -> anyhow::Result<[u8; 32]> {
        match &self.transport {
            Some(Transport::Tls(stream)) => {
                Ok(stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))?)
            }
            _ => anyhow::bail!("no TLS"),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        let _ = writeln!(self.dialog, "C: {}", shown.trim_end());
        match self.transport.as_mut().context("the connection is gone")? {
            Transport::Plain(stream) => stream.write_all(bytes)?,
            Transport::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// The next reply, whatever it is.
    pub fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let _ = writeln!(self.dialog, "S: {line}");
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code: u16 = code.with_context(|| format!("no reply: {line:?}\n{}", self.dialog))?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Answer { code, lines });
            }
        }
    }

    /// The next reply, which must have this code.
    pub fn expect(&mut self, code: u16) -> anyhow::Result<Answer> {
        let answer = self.answer()?;
        anyhow::ensure!(answer.code == code, "expected {code}, got {answer:?}; the dialog:\n{}", self.dialog);
        Ok(answer)
    }

    /// Sends a command and gives the reply.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<Answer> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends a command and expects this code.
    pub fn say(&mut self, command: &str, code: u16) -> anyhow::Result<Answer> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.expect(code)
    }

    /// True if the server has closed the connection and says nothing more.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().is_err()
    }

    /// AUTH PLAIN with an initial response.
    pub fn login(&mut self, login: &str, password: &str) -> anyhow::Result<Answer> {
        self.ask(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0{login}\0{password}"))))
    }

    /// MAIL, RCPT and DATA, each of which must be accepted, then the message; gives the reply to its end.
    pub fn deliver(&mut self, from: &str, to: &[&str], bytes: &[u8]) -> anyhow::Result<Answer> {
        self.begin(from, to)?;
        self.send(&message::stuffed(bytes))?;
        self.answer()
    }

    /// MAIL, RCPT and DATA, each of which must be accepted.
    pub fn begin(&mut self, from: &str, to: &[&str]) -> anyhow::Result<()> {
        self.say(&format!("MAIL FROM:<{from}>"), 250)?;
        for recipient in to {
            self.say(&format!("RCPT TO:<{recipient}>"), 250)?;
        }
        self.say("DATA", 354)?;
        Ok(())
    }

    /// QUIT, 221.
    pub fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT", 221)?;
        Ok(())
    }

    /// Our port, by which the server's system calls can be told apart.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn local_port(&self) -> u16 {
        let stream = match self.transport.as_ref().expect("a connection") {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => &stream.sock,
        };
        stream.local_addr().expect("a connected socket has an address").port()
    }

    /// What was said so far.
    pub fn dialog(&self) -> &str {
        &self.dialog
    }

    fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            anyhow::ensure!(self.buffer.len() < REPLY_OCTETS_MAX, "a reply without an end");
            self.fill().with_context(|| format!("the dialog:\n{}", self.dialog))?;
        }
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let octets = match self.transport.as_mut().context("the connection is gone")? {
            Transport::Plain(stream) => stream.read(&mut chunk),
            Transport::Tls(stream) => stream.read(&mut chunk),
        }
        .context("the connection broke")?;
        anyhow::ensure!(octets > 0, "the server closed the connection");
        self.buffer.extend_from_slice(&chunk[..octets]);
        Ok(())
    }
}
