//! The load generator: SMTP clients that pipeline, over STARTTLS, with numbered messages whose
//! digest travels in a header, so that every one can be accounted for afterwards.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gatepost_runtime::attempt::trust;
use gatepost_runtime::clock::Clock;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::check::digest;
use super::signed::Signer;

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the server listens.
    pub target: SocketAddr,
    /// Clients at once.
    pub sessions: usize,
    /// Messages in all.
    pub messages: usize,
    /// Octets of each body.
    pub octets: usize,
    /// A new connection for each message.
    pub reconnect: bool,
    /// Who sends them.
    pub sender: String,
    /// The sender's password: TLS from the first byte, then a login. Without: STARTTLS, and none.
    pub password: Option<String>,
    /// Who gets them.
    pub recipient: String,
    /// Whose signature each message bears.
    pub signer: Option<Arc<Signer>>,
    /// All messages are made before the first is sent: making them is none of the measured time.
    pub beforehand: bool,
    /// Distinguishes this run's messages from all others.
    pub run: String,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// From the first connection to the last reply.
    pub elapsed: Duration,
    /// For each message, from the final dot to its reply.
    pub replies: Vec<Duration>,
    /// For each connection that carried one message, from connect to the reply to QUIT.
    pub sessions: Vec<Duration>,
}

/// The messages of a plan, each of which is taken once.
#[derive(Clone, Debug)]
pub enum Messages {
    /// Made as they are taken.
    Numbered(Arc<AtomicUsize>),
    /// Made.
    Ready(Arc<Mutex<VecDeque<Vec<u8>>>>),
}

impl Messages {
    /// As the plan wants it.
    pub fn of(plan: &Plan) -> Self {
        if plan.beforehand {
            let made = (0..plan.messages).map(|number| message(plan, number)).collect();
            return Self::Ready(Arc::new(Mutex::new(made)));
        }
        Self::Numbered(Arc::default())
    }

    fn take(&self, plan: &Plan) -> Option<Vec<u8>> {
        match self {
            Self::Numbered(next) => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                (number < plan.messages).then(|| message(plan, number))
            }
            Self::Ready(made) => made.lock().unwrap_or_else(PoisonError::into_inner).pop_front(),
        }
    }
}

/// Sends it all; fails if any message is not answered 250.
pub async fn run(plan: &Plan) -> Result<Seen> {
    send(plan, Messages::of(plan)).await
}

/// The same, of these messages.
pub async fn send(plan: &Plan, messages: Messages) -> Result<Seen> {
    let clock = Clock::real();
    let tls = TlsConnector::from(trust::anybody());
    // Nobody starts before everybody has a message ready: making a large one takes longer than sending it.
    let ready = Arc::new(Barrier::new(plan.sessions + 1));
    let mut clients = JoinSet::new();
    for _ in 0..plan.sessions {
        clients.spawn(client(plan.clone(), messages.clone(), Arc::clone(&ready), tls.clone(), clock.clone()));
    }
    ready.wait().await;
    let start = clock.now();
    let mut seen = Seen::default();
    while let Some(done) = clients.join_next().await {
        let one = done??;
        seen.replies.extend(one.replies);
        seen.sessions.extend(one.sessions);
    }
    seen.elapsed = clock.now() - start;
    ensure!(seen.replies.len() == plan.messages, "{} of {} messages were answered", seen.replies.len(), plan.messages);
    Ok(seen)
}

async fn client(plan: Plan, next: Messages, ready: Arc<Barrier>, tls: TlsConnector, clock: Clock) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut connection: Option<Client> = None;
    let mut following = next.take(&plan);
    ready.wait().await;
    while let Some(message) = following {
        let start = clock.now();
        let mut client = match connection.take() {
            Some(client) => client,
            None => Client::connect(&plan, &tls).await?,
        };
        seen.replies.push(client.send(&plan, &message, &clock).await?);
        if plan.reconnect {
            client.quit().await?;
            seen.sessions.push(clock.now() - start);
        } else {
            connection = Some(client);
        }
        following = next.take(&plan);
    }
    if let Some(mut client) = connection {
        client.quit().await?;
    }
    Ok(seen)
}

/// Connections that do nothing, greeted and secured, until dropped.
#[derive(Debug)]
pub struct Idle(Vec<Client>);

/// Opens so many, one after another.
pub async fn idle(plan: &Plan, count: usize) -> Result<Idle> {
    let tls = TlsConnector::from(trust::anybody());
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(plan, &tls).await?);
    }
    Ok(Idle(clients))
}

impl Idle {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// A whole message, dot-stuffed, with the final dot.
fn message(plan: &Plan, number: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(plan.octets + 80);
    let mut line = 0usize;
    while body.len() < plan.octets {
        let text = format!("{number:08} {line:08} the quick brown fox jumps over the lazy dog, and over\r\n");
        body.extend_from_slice(text.as_bytes());
        line += 1;
    }
    let mut message = format!(
        "From: Load <{}>\r\nTo: <{}>\r\nSubject: message {number}\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{}.{number}@load.example>\r\nX-Body-Digest: {}\r\n\r\n",
        plan.sender,
        plan.recipient,
        plan.run,
        digest(&body)
    )
    .into_bytes();
    if let Some(signer) = &plan.signer {
        message = [signer.field(&message, &body).as_bytes(), &message].concat();
    }
    message.extend_from_slice(&body);
    message.extend_from_slice(b".\r\n");
    message
}

/// One connection, greeted and secured.
#[derive(Debug)]
struct Client {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(plan: &Plan, tls: &TlsConnector) -> Result<Self> {
        let mut tcp = TcpStream::connect(plan.target).await?;
        tcp.set_nodelay(true)?;
        let mut buffer = Vec::new();
        if let Some(password) = &plan.password {
            let stream = tls.connect(ServerName::try_from("home.example.test")?, tcp).await?;
            let mut client = Self { stream, buffer };
            replies(&mut client.stream, &mut client.buffer, &[220]).await?;
            let login = BASE64.encode(format!("\0{}\0{password}", plan.sender));
            for (command, code) in [("EHLO load.example".to_owned(), 250), (format!("AUTH PLAIN {login}"), 235)] {
                client.stream.write_all(format!("{command}\r\n").as_bytes()).await?;
                client.stream.flush().await?;
                replies(&mut client.stream, &mut client.buffer, &[code]).await?;
            }
            return Ok(client);
        }
        replies(&mut tcp, &mut buffer, &[220]).await?;
        tcp.write_all(b"EHLO load.example\r\n").await?;
        replies(&mut tcp, &mut buffer, &[250]).await?;
        tcp.write_all(b"STARTTLS\r\n").await?;
        replies(&mut tcp, &mut buffer, &[220]).await?;
        let stream = tls.connect(ServerName::try_from("mail.example.test")?, tcp).await?;
        let mut client = Self { stream, buffer };
        client.stream.write_all(b"EHLO load.example\r\n").await?;
        replies(&mut client.stream, &mut client.buffer, &[250]).await?;
        Ok(client)
    }

    async fn send(&mut self, plan: &Plan, message: &[u8], clock: &Clock) -> Result<Duration> {
        let commands = format!("MAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", plan.sender, plan.recipient);
        self.stream.write_all(commands.as_bytes()).await?;
        self.stream.flush().await?;
        replies(&mut self.stream, &mut self.buffer, &[250, 250, 354]).await?;
        self.stream.write_all(message).await?;
        self.stream.flush().await?;
        let start = clock.now();
        replies(&mut self.stream, &mut self.buffer, &[250]).await?;
        Ok(clock.now() - start)
    }

    async fn quit(&mut self) -> Result<()> {
        self.stream.write_all(b"QUIT\r\n").await?;
        self.stream.flush().await?;
        replies(&mut self.stream, &mut self.buffer, &[221]).await
    }
}

/// Reads one reply for each code wanted.
async fn replies<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, wanted: &[u16]) -> Result<()> {
    for code in wanted {
        loop {
            let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
                if stream.read_buf(buffer).await.context("reading a reply")? == 0 {
                    bail!("the server hung up where {code} was due");
                }
                continue;
            };
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&line);
            ensure!(text.starts_with(&code.to_string()), "{code} was due, got: {text}");
            if line.get(3) == Some(&b' ') {
                break;
            }
        }
    }
    Ok(())
}
