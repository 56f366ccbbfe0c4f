//! A link that goes dead without a word, through a proxy that can swallow what it carries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::*;

/// Carries bytes, counts them, and on demand swallows them.
struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    swallow: AtomicBool,
    // Octets carried, per connection and direction, in the order of accepting.
    carried: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(to).await.expect("the edge listens");
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                for (from, to) in [(near_read, far_write), (far_read, near_write)] {
                    let carried = Arc::new(AtomicU64::new(0));
                    shared.carried.lock().expect("no panic").push(Arc::clone(&carried));
                    tokio::spawn(carry(from, to, Arc::clone(&shared), carried));
                }
            }
        });
        Self { address, state }
    }

    fn carried(&self) -> Vec<u64> {
        self.state.carried.lock().expect("no panic").iter().map(|carried| carried.load(Ordering::SeqCst)).collect()
    }

    fn swallow(&self) {
        self.state.swallow.store(true, Ordering::SeqCst);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>, carried: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(octets @ 1..) = from.read(&mut buffer).await {
        if state.swallow.load(Ordering::SeqCst) {
            continue;
        }
        if to.write_all(&buffer[..octets]).await.is_err() {
            break;
        }
        carried.fetch_add(octets as u64, Ordering::SeqCst);
    }
    if state.swallow.load(Ordering::SeqCst) {
        // A dead link does not carry an end either.
        std::future::pending::<()>().await;
    }
}

/// Waits until no more than the heartbeats of one turn are under way: every direction has carried something more.
async fn beaten(proxy: &Proxy, before: &[u64]) {
    soon(async {
        loop {
            let now = proxy.carried();
            if now.len() == before.len() && now.iter().zip(before).all(|(now, before)| now > before) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn heartbeats_keep_an_idle_session_and_their_absence_ends_it() {
    let clock = Clock::still(Duration::ZERO);
    let mut edge = Edge::start(|_| true, &clock).await;
    let proxy = Proxy::start(edge.address).await;
    let (home, _incoming) =
        dialled_at(proxy.address, &Identity::throwaway(), &[edge.key], &clock).await.expect("a session");
    let (theirs, _incoming) = edge.session().await;
    assert_eq!(proxy.carried().len(), 6);
    soon(async {
        while home.round_trip().is_none() || theirs.round_trip().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Ten minutes of idleness: every 20 s something goes each way on each of the three.
    for _ in 0..30 {
        let before = proxy.carried();
        clock.turn(Duration::from_secs(20));
        beaten(&proxy, &before).await;
        settle().await;
    }
    assert!(home.is_alive() && theirs.is_alive());

    proxy.swallow();
    clock.turn(Duration::from_secs(59));
    settle().await;
    assert!(home.is_alive() && theirs.is_alive());
    clock.turn(Duration::from_secs(1));
    assert_eq!(soon(home.ended()).await, TunnelError::Silent);
    assert_eq!(soon(theirs.ended()).await, TunnelError::Silent);
}

/// Lets what is under way on loopback arrive: pongs, after the pings were seen to pass.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
