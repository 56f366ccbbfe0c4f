//! Two sessions in one process over real loopback TCP.

mod exchanges;
mod hostile;
mod pairing;
mod refusals;
mod silence;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::spool::SpoolRequest;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::clock::Clock;
use crate::identity::Identity;

/// Time after which a test that waits for a state gives up.
const PATIENCE: Duration = Duration::from_secs(20);

type Whole = (Session, mpsc::Receiver<Incoming>);

/// An accepting side on loopback.
struct Edge {
    address: SocketAddr,
    key: NodeKey,
    sessions: mpsc::Receiver<Whole>,
    acceptor: Arc<Acceptor>,
}

impl Edge {
    async fn start(paired: impl Fn(NodeKey) -> bool + Send + Sync + 'static, clock: &Clock) -> Self {
        let identity = Arc::new(Identity::throwaway());
        let key = identity.key();
        let (sender, sessions) = mpsc::channel(4);
        let acceptor = Arc::new(Acceptor::new(identity, "edge".into(), Arc::new(paired), sender, clock.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let serving = Arc::clone(&acceptor);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let acceptor = Arc::clone(&serving);
                tokio::spawn(async move { acceptor.accept(stream, peer).await });
            }
        });
        Self { address, key, sessions, acceptor }
    }

    async fn session(&mut self) -> Whole {
        soon(self.sessions.recv()).await.expect("the acceptor lives")
    }
}

async fn dialled(edge: &Edge, identity: &Identity, clock: &Clock) -> Result<Whole, TunnelError> {
    dialled_at(edge.address, identity, &[edge.key], clock).await
}

async fn dialled_at(
    address: SocketAddr,
    identity: &Identity,
    keys: &[NodeKey],
    clock: &Clock,
) -> Result<Whole, TunnelError> {
    Box::pin(soon(dial(identity, "home", &address.to_string(), keys, clock.clone()))).await
}

/// A whole session: its home's end, its edge's end.
async fn pair(clock: &Clock) -> (Edge, Whole, Whole) {
    let mut edge = Edge::start(|_| true, clock).await;
    let home = dialled(&edge, &Identity::throwaway(), clock).await.expect("a session");
    let theirs = edge.session().await;
    (edge, home, theirs)
}

/// Waits for a state, in real time, with a limit.
#[track_caller]
fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        let output = tokio::time::timeout(PATIENCE, future).await;
        output.unwrap_or_else(|_| panic!("waited in vain at {caller}"))
    }
}

fn request(number: u8) -> Request {
    Request::Spool(SpoolRequest::Fetch(TransferId([number; 16])))
}

/// The lines logged on this thread while it lives. Tests run on one thread each, tasks included.
struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn capture() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Writer(Arc::clone(&writer)))
            .finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("no panic while logging");
        String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
    }

    /// Waits until this many lines hold `text`; returns them.
    async fn holds(&self, text: &str, times: usize) -> Vec<String> {
        let found = async {
            loop {
                let lines: Vec<_> = self.lines().into_iter().filter(|line| line.contains(text)).collect();
                if lines.len() >= times {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let lines = tokio::time::timeout(PATIENCE, found).await;
        lines.unwrap_or_else(|_| panic!("{times} lines with {text:?} expected; logged:\n{}", self.lines().join("\n")))
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while logging").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
