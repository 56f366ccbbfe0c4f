//! An edge that the home knows and that says whatever a test wants: what root on a taken edge could do.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::authenticate::{AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::directory::DirectoryHeld;
use gatepost_protocol::tunnel::verb::inbound::{Credential, Handed, Inbound, Submission};
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireVerdict};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::random;
use gatepost_runtime::tunnel::{Acceptor, Incoming, Session};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::pair::files::EdgePeer;
use crate::world::ports;

/// Waits for the home to dial, then speaks.
pub struct LyingEdge {
    /// How the home's config names it.
    pub peer: EdgePeer,
    runtime: tokio::runtime::Runtime,
    sessions: mpsc::Receiver<(Session, mpsc::Receiver<Incoming>)>,
    session: Option<Session>,
}

impl LyingEdge {
    /// Listens, with a key of its own below `directory`.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let identity = Arc::new(Identity::load_or_create(&directory.join("lying.key"))?);
        let peer = EdgePeer { name: "liar".to_owned(), address: ports::free(), key: identity.key().to_string() };
        let (sender, sessions) = mpsc::channel(4);
        let node = "liar.example".to_owned();
        let acceptor = Arc::new(Acceptor::new(identity, node, Arc::new(|_| true), sender, Clock::real()));
        let listener = runtime.block_on(TcpListener::bind(peer.address))?;
        runtime.spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let acceptor = Arc::clone(&acceptor);
                tokio::spawn(async move { acceptor.accept(stream, from).await });
            }
        });
        Ok(Self { peer, runtime, sessions, session: None })
    }

    /// Waits until the home has dialled. What the home asks from then on is answered as an edge would,
    /// as far as the home needs it.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let (session, mut asked) = self.runtime.block_on(self.sessions.recv()).context("no session")?;
        self.runtime.spawn(async move {
            while let Some(incoming) = asked.recv().await {
                if let Request::Directory2(directory) = incoming.request {
                    let mut stream = incoming.stream;
                    let _ = stream.send(&DirectoryHeld { version: directory.version() }).await;
                    stream.finish().await;
                }
            }
        });
        self.session = Some(session);
        Ok(())
    }

    /// Hands over a submission with this credential; gives the home's reply.
    pub fn submit(&self, credential: Credential, from: &str, to: &str, message: &[u8]) -> anyhow::Result<Reply> {
        let open = transfer(from, to)?;
        self.hand_over(&Request::Submission(Box::new(Submission { open, credential })), message)
    }

    /// Hands over a message from the world; gives the home's reply.
    pub fn inbound(&self, from: &str, to: &str, message: &[u8]) -> anyhow::Result<Reply> {
        let open = transfer(from, to)?;
        self.hand_over(&Request::Inbound(Box::new(Inbound { open })), message)
    }

    /// Logs in with PLAIN, as a client of this edge did; gives the grant.
    pub fn authenticate(&self, login: &str, password: &str) -> anyhow::Result<[u8; 16]> {
        let request = Request::Authenticate(Authenticate {
            mechanism: "PLAIN".to_owned(),
            initial: Some(format!("\0{login}\0{password}").into_bytes()),
            exporter: None,
            client: std::net::Ipv4Addr::LOCALHOST.into(),
        });
        let session = self.session.as_ref().context("the home has not dialled")?;
        self.runtime.block_on(async {
            let mut stream = session.open(&request).await?;
            stream.flush().await?;
            match stream.record().await? {
                AuthStep::Granted { grant, .. } => Ok(grant),
                other => anyhow::bail!("{other:?}"),
            }
        })
    }

    fn hand_over(&self, request: &Request, message: &[u8]) -> anyhow::Result<Reply> {
        let session = self.session.as_ref().context("the home has not dialled")?;
        let mut tally = Tally::default();
        tally.add(message);
        let end = TransferEnd::Whole(tally.seal(WireVerdict::from(&Verdict::default()), Vec::new()));
        self.runtime.block_on(async {
            let mut stream = session.open(request).await?;
            stream.send_data(Bytes::copy_from_slice(message)).await?;
            stream.send(&end).await?;
            stream.flush().await?;
            let handed: Handed = stream.record().await?;
            Ok(Reply::from(handed.reply))
        })
    }
}

fn transfer(from: &str, to: &str) -> anyhow::Result<TransferOpen> {
    let envelope = Envelope {
        reverse_path: ReversePath::parse(from)?,
        recipients: vec![Recipient::plain(Address::parse(to)?)],
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    Ok(TransferOpen {
        transfer: TransferId(random::bytes()),
        trace: random::bytes(),
        envelope: WireEnvelope::from(&envelope),
        client: WireClient {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "client.example".to_owned(),
            with: "ESMTPSA".to_owned(),
            tls: None,
        },
        received_unix_s: Clock::real().unix_s(),
    })
}
