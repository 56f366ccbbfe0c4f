//! Two sessions in one process over real loopback TCP.

mod exchanges;

use std::net::SocketAddr;
use std::sync::Arc;
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
    soon(dial(identity, "home", &edge.address.to_string(), &[edge.key], clock.clone())).await
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
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("waited in vain at {caller}"),
        }
    }
}

fn request(number: u8) -> Request {
    Request::Spool(SpoolRequest::Fetch(TransferId([number; 16])))
}
