//! Accept loop: limits per address and in all, a short pause when descriptors run out. A
//! handshake is never awaited here: each connection gets a task of its own.

pub mod door;
pub mod places;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{self, Resource, Rlimit};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use self::places::Place;
pub use self::places::{DoorLimits, Places, Turned};
use crate::shutdown::Signal;

/// Connections the system may hold for us before we accept them.
const BACKLOG: u32 = 1024;
/// How long accepting rests when descriptors or memory have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection that was let in. Its place is free again when this is dropped and its task is over.
#[derive(Debug)]
pub struct Admitted {
    /// The stream.
    pub stream: TcpStream,
    /// Who connected; never an IPv4 address in IPv6 clothes.
    pub peer: SocketAddr,
    _place: Arc<Place>,
}

/// A door can't be opened: where, why, and what to do.
#[derive(Debug, Error)]
#[error("can't listen on {address}: {remedy}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// What is the matter and what helps.
    pub remedy: String,
    /// The system's words.
    pub source: io::Error,
}

/// Lets this process open as many files and sockets as the system allows it: the usual soft limit, 1024,
/// is less than full doors need. Gives the limit that holds now; `None` is none.
pub fn raise_open_files() -> Option<u64> {
    let limit = process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(limit = limit.current, %error, "can't raise the limit of open files; full doors may run out of them");
            limit.current
        }
    }
}

/// Opens a listener. `[::]` takes IPv4 as well; where the machine has no IPv6 it is `0.0.0.0`. Must be
/// called inside the runtime.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let result = match open(address) {
        Err(error)
            if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
                && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) =>
        {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        result => result,
    };
    result.map_err(|source| {
        let port = address.port();
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} is taken by another program; stop that one (`ss -ltnp 'sport = :{port}'` names it), or choose another port"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "port {port} needs a privilege; run under the systemd unit, which gives it (CAP_NET_BIND_SERVICE), or choose a port above 1023"
            ),
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; see `ip address`, or use [::] for all".to_owned()
            }
            _ => source.to_string(),
        };
        BindError { address, remedy, source }
    })
}

/// The same beside a listener of ours on that port, which this one is to replace: for the moment both are open.
pub fn bind_beside(address: SocketAddr, ours: &TcpListener) -> Result<TcpListener, BindError> {
    match bind(address) {
        Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
            let shared = |listener: &TcpListener, shared| rustix::net::sockopt::set_socket_reuseport(listener, shared);
            if shared(ours, true).is_err() {
                return Err(error);
            }
            let bound = open_shared(address);
            // Refused only for what is no socket.
            let _ = shared(ours, false);
            let bound = bound.map_err(|_| error)?;
            let _ = shared(&bound, false);
            Ok(bound)
        }
        result => result,
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    listening(socket_for(address)?, address)
}

fn open_shared(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_for(address)?;
    socket.set_reuseport(true)?;
    listening(socket, address)
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last run's connections to fade.
    socket.set_reuseaddr(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
    }
    Ok(socket)
}

fn listening(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What is written (best effort) to who is turned away. Empty where a client would not read it, before TLS.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// The door is full, or has enough of this address.
    pub full: &'static [u8],
    /// The program is ending. Where this is empty the door shuts when draining begins; else it stays open to say so.
    pub ending: &'static [u8],
}

impl Refusal {
    /// Nothing is said.
    pub const SILENT: Self = Self { full: b"", ending: b"" };
}

/// A listener to be served, and when it is to be shut although the program goes on.
#[derive(Debug)]
pub struct Listening {
    listener: Arc<TcpListener>,
    shut: Option<Signal>,
}

impl From<TcpListener> for Listening {
    fn from(listener: TcpListener) -> Self {
        Self { listener: Arc::new(listener), shut: None }
    }
}

impl Listening {
    /// Resolves when it is to be shut.
    async fn shut(&mut self) {
        match &mut self.shut {
            Some(signal) => signal.draining().await,
            None => std::future::pending().await,
        }
    }

    /// Who connected before it was shut, and was not let in yet.
    fn left(&self) -> Option<(TcpStream, SocketAddr)> {
        // Asked past tokio, which knows only what it was told the last time it looked.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = rustix::net::accept_with(&self.listener, flags).ok()?;
        let stream = TcpStream::from_std(stream.into()).ok()?;
        let peer = stream.peer_addr().ok()?;
        Some((stream, peer))
    }
}

/// Serves a listener until it is shut or draining begins; connections that run then go on, each holding the signal.
/// `serve` runs in its own task per connection; a panic there is logged as our bug and hurts nobody else.
pub async fn serve<F, Fut>(
    door: &'static str,
    listening: impl Into<Listening>,
    places: Places,
    mut signal: Signal,
    refusal: Refusal,
    serve: F,
) where
    F: Fn(Admitted) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut listening = listening.into();
    let listener = Arc::clone(&listening.listener);
    let running = signal.clone();
    let admit = |stream: TcpStream, peer: SocketAddr| {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        match places.take(peer.ip()) {
            Ok(place) => {
                let place = Arc::new(place);
                let connection = serve(Admitted { stream, peer, _place: place.clone() });
                let running = running.clone();
                tokio::spawn(async move {
                    if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
                        tracing::error!(door, %peer, "a connection's task panicked; this is a bug of Gatepost's, please report it");
                    }
                    // Both live as long as the task, whatever became of `Admitted`.
                    drop((place, running));
                });
            }
            Err(why) => {
                turn_away(&stream, refusal.full);
                tracing::debug!(door, %peer, ?why, "turned away");
            }
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = signal.draining() => break,
            () = listening.shut() => {
                while let Some((stream, peer)) = listening.left() {
                    admit(stream, peer);
                }
                return;
            }
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            Err(error) => rest_after(door, &error).await,
        }
    }
    // A drain waits for the connections, never for this task.
    drop((serve, signal, running));
    while !refusal.ending.is_empty() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = listening.shut() => return,
        };
        match accepted {
            Ok((stream, _)) => turn_away(&stream, refusal.ending),
            Err(error) => rest_after(door, &error).await,
        }
    }
}

/// Says why, best effort, before the connection is dropped. Written past tokio, which would have to be waited for; a fresh
/// stream has room.
pub fn turn_away(stream: &TcpStream, words: &[u8]) {
    let _ = rustix::io::write(stream, words);
}

/// After a failed accept: some failures are the connection's own, others last a while.
async fn rest_after(door: &str, error: &io::Error) {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    if matches!(errno, Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM)) {
        return;
    }
    tracing::warn!(door, %error, "can't accept connections for a moment");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;
    use crate::shutdown::Shutdown;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_may_be() {
        let before = process::getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(1 << 20);
        process::setrlimit(Resource::Nofile, Rlimit { current: Some(hard - 1), ..before }).unwrap();
        assert_eq!(raise_open_files(), before.maximum);
        assert_eq!(process::getrlimit(Resource::Nofile).current, before.maximum);
    }

    #[tokio::test]
    async fn who_is_one_too_many_reads_why_and_the_place_is_free_again_afterwards() {
        let listener = bind(LOOPBACK).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = Shutdown::new();
        let (ended, mut endings) = mpsc::channel(1);
        let limits = DoorLimits { connections_max: 10, connections_per_address_max: 1 };
        let refusal = Refusal { full: b"421 full\r\n", ending: b"421 ending\r\n" };
        // Only the stream is taken out: the place must be held all the same.
        tokio::spawn(serve("test", listener, Places::new(limits), signal, refusal, move |admitted: Admitted| {
            let ended = ended.clone();
            let mut stream = admitted.stream;
            async move {
                stream.write_all(b"in\n").await.unwrap();
                let _ = stream.read(&mut [0]).await;
                ended.send(()).await.unwrap();
            }
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        first.read_exact(&mut [0; 3]).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "421 full\r\n");
        drop(first);
        endings.recv().await.unwrap();
        // The place is freed a moment after the task's last word: ask until it is.
        loop {
            let mut third = TcpStream::connect(address).await.unwrap();
            let mut greeting = [0; 3];
            third.read_exact(&mut greeting).await.unwrap();
            if &greeting == b"in\n" {
                break;
            }
        }
        shutdown.drain();
        shutdown.idle().await;
        // Nobody works here any more, and still it says why.
        let mut late = TcpStream::connect(address).await.unwrap();
        let mut heard = String::new();
        late.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "421 ending\r\n");
    }

    #[tokio::test]
    async fn a_panic_hurts_nobody_else() {
        let listener = bind(LOOPBACK).unwrap();
        let address = listener.local_addr().unwrap();
        let (_shutdown, signal) = Shutdown::new();
        let limits = DoorLimits { connections_max: 1, connections_per_address_max: 1 };
        tokio::spawn(serve(
            "test",
            listener,
            Places::new(limits),
            signal,
            Refusal::SILENT,
            |mut admitted: Admitted| async move {
                let mut octet = [0];
                admitted.stream.read_exact(&mut octet).await.unwrap();
                assert_eq!(&octet, b"a", "as the test wants it");
                admitted.stream.write_all(b"ok").await.unwrap();
            },
        ));
        let mut bad = TcpStream::connect(address).await.unwrap();
        bad.write_all(b"x").await.unwrap();
        assert_eq!(bad.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        loop {
            let mut good = TcpStream::connect(address).await.unwrap();
            let mut heard = String::new();
            if good.write_all(b"a").await.is_ok() && good.read_to_string(&mut heard).await.is_ok() && heard == "ok" {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_drained_door_is_closed_while_its_connections_go_on() {
        let listener = bind(LOOPBACK).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = Shutdown::new();
        let limits = DoorLimits { connections_max: 1, connections_per_address_max: 1 };
        let door = tokio::spawn(serve(
            "test",
            listener,
            Places::new(limits),
            signal,
            Refusal::SILENT,
            |mut admitted: Admitted| async move {
                let mut octet = [0];
                admitted.stream.read_exact(&mut octet).await.unwrap();
                admitted.stream.write_all(&octet).await.unwrap();
            },
        ));
        let mut inside = TcpStream::connect(address).await.unwrap();
        // Only once it is inside.
        while TcpStream::connect(address).await.unwrap().read(&mut [0]).await.is_ok_and(|count| count > 0) {}
        shutdown.drain();
        door.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
        assert!(shutdown.idle().now_or_never().is_none());
        inside.write_all(b"z").await.unwrap();
        let mut heard = Vec::new();
        inside.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"z");
        shutdown.idle().await;
    }

    #[tokio::test]
    async fn a_taken_port_is_explained() {
        let listener = bind(LOOPBACK).unwrap();
        let text = bind(listener.local_addr().unwrap()).unwrap_err().to_string();
        assert!(text.contains("is taken by another program"), "{text}");
        let text = bind("192.0.2.1:2525".parse().unwrap()).unwrap_err().to_string();
        assert!(text.contains("this machine has no such address"), "{text}");
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }
}
