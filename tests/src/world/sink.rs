//! A mail host that takes what comes and keeps it: messages as a Maildir, envelopes beside it as
//! JSON. The local part of a recipient can ask for a refusal; a switch defers everything.
//!
//! | local part begins with | answer |
//! |---|---|
//! | `refuse` | 550 5.1.1 to RCPT |
//! | `defer` | 451 4.2.0 to RCPT |
//! | `reject` | 554 5.6.0 to the end of the message |

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;
use gatepost_protocol::mail::address::ForwardPath;
use gatepost_protocol::mail::reply::{Enhanced, Reply};
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{Event, Profile, Server};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::drive::{Connection, Security};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running sink. It ends when dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    hostname: String,
    directory: PathBuf,
    tls: Option<Arc<rustls::ServerConfig>>,
    deferring: AtomicBool,
    count: AtomicU64,
}

/// What is kept beside each message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEnvelope {
    /// File name of the message in `new`.
    pub message: String,
    /// EHLO name of the client.
    pub hello: String,
    /// TLS version, if it came by TLS.
    pub tls: Option<String>,
    /// Reverse-path without angle brackets; empty for a bounce.
    pub sender: String,
    /// Accepted recipients.
    pub recipients: Vec<String>,
}

impl Sink {
    /// Listens on this address and keeps mail below `directory` (a Maildir, and `envelopes/`). With a TLS
    /// configuration it offers STARTTLS.
    pub async fn start(
        address: SocketAddr,
        hostname: &str,
        directory: &Path,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> anyhow::Result<Self> {
        for folder in ["new", "cur", "tmp", "envelopes"] {
            fs::create_dir_all(directory.join(folder))?;
        }
        let kept = fs::read_dir(directory.join("envelopes"))?.count();
        let shared = Arc::new(Shared {
            hostname: hostname.to_owned(),
            directory: directory.to_owned(),
            tls,
            deferring: AtomicBool::new(false),
            count: AtomicU64::new(kept as u64),
        });
        let listener = TcpListener::bind(address).await.with_context(|| format!("can't bind {address}"))?;
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The Maildir.
    pub fn maildir(&self) -> &Path {
        &self.shared.directory
    }

    /// With `true`, every recipient is answered 451 until it is switched back.
    pub fn defer_all(&self, deferring: bool) {
        self.shared.deferring.store(deferring, Ordering::SeqCst);
    }

    /// What came so far, oldest first.
    pub fn envelopes(&self) -> anyhow::Result<Vec<KeptEnvelope>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.shared.directory.join("envelopes"))?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let parse = |file: &PathBuf| -> anyhow::Result<KeptEnvelope> { Ok(serde_json::from_slice(&fs::read(file)?)?) };
        // One that is being written right now is not there yet.
        Ok(files.iter().filter_map(|file| parse(file).ok()).collect())
    }

    /// The bytes of a kept message.
    pub fn message(&self, envelope: &KeptEnvelope) -> anyhow::Result<Vec<u8>> {
        Ok(fs::read(self.shared.directory.join("new").join(&envelope.message))?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // What ends a connection early is the peer's story to tell.
            let _ = serve(stream, &shared).await;
        });
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let clock = Clock::real();
    let profile = Profile {
        hostname: shared.hostname.clone(),
        starttls: shared.tls.is_some(),
        mechanisms: Vec::new(),
        dsn: false,
        login_required: false,
        qualify: None,
        limits: Limits::default(),
    };
    let security = shared.tls.clone().map_or(Security::None, Security::Server);
    let mut connection = Connection::new(stream, Server::new(profile, clock.now()), security, clock.clone());
    let mut envelope = empty_envelope();
    let mut message = Vec::new();
    while let Some(event) = connection.next().await? {
        let now = clock.now();
        let machine = connection.machine();
        match event {
            Event::Connected => machine.answer(now, Reply::greeting(&shared.hostname)),
            Event::Sender(from) => {
                envelope = empty_envelope();
                message.clear();
                envelope.sender = from.reverse_path.address().map(ToString::to_string).unwrap_or_default();
                machine.answer(now, Reply::sender_ok());
            }
            Event::Recipient(to) => {
                let reply = shared.recipient(&to.path);
                if reply.is_positive() {
                    envelope.recipients.push(plain(&to.path));
                }
                machine.answer(now, reply);
            }
            Event::Data => machine.answer(now, Reply::start_data()),
            Event::Body(bytes) => message.extend_from_slice(&bytes),
            Event::BodyEnd { .. } => {
                envelope.hello = machine.hello().unwrap_or_default().to_owned();
                envelope.tls = machine.tls().map(|facts| facts.version.clone());
                let reply = shared.keep(&mut envelope, &message)?;
                machine.answer(now, reply);
            }
            Event::Auth { .. } | Event::AuthResponse(_) => unreachable!("no mechanism is offered"),
            Event::Hello { .. } | Event::Reset | Event::Closing(_) => {}
        }
    }
    Ok(())
}

impl Shared {
    fn recipient(&self, path: &ForwardPath) -> Reply {
        let address = plain(path);
        if self.deferring.load(Ordering::SeqCst) || address.starts_with("defer") {
            Reply::new(451, Some(Enhanced(4, 2, 0)), vec!["come back later".to_owned()])
        } else if address.starts_with("refuse") {
            Reply::unknown_recipient()
        } else {
            Reply::recipient_ok()
        }
    }

    fn keep(&self, envelope: &mut KeptEnvelope, message: &[u8]) -> anyhow::Result<Reply> {
        if envelope.recipients.iter().any(|recipient| recipient.starts_with("reject")) {
            return Ok(Reply::new(554, Some(Enhanced(5, 6, 0)), vec!["not this message".to_owned()]));
        }
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        envelope.message = format!("{number:08}.sink");
        fs::write(self.directory.join("new").join(&envelope.message), message)?;
        // Last, so that an envelope always has its message.
        fs::write(self.directory.join("envelopes").join(format!("{number:08}.json")), serde_json::to_vec(envelope)?)?;
        Ok(Reply::accepted(&envelope.message))
    }
}

fn plain(path: &ForwardPath) -> String {
    match path {
        ForwardPath::Postmaster => "postmaster".to_owned(),
        ForwardPath::Address(address) => address.to_string(),
    }
}

fn empty_envelope() -> KeptEnvelope {
    KeptEnvelope {
        message: String::new(),
        hello: String::new(),
        tls: None,
        sender: String::new(),
        recipients: Vec::new(),
    }
}
