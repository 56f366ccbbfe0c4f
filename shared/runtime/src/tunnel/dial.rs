//! Dialling: resolve, race both address families, three connections, one session. Tries once; when
//! to try again is the caller's business.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::hello::Role;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::Side;
use super::greeting::{self, Greeted};
use super::session::{Session, SessionFacts};
use super::transport::{self, Secured, Tls};
use super::{Incoming, TunnelError};
use crate::clock::Clock;
use crate::identity::Identity;
use crate::random;

/// Time to resolve a name and connect to one of its addresses.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Head start of one address over the next (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Dials a session: resolves the name (both families, raced), makes the three connections, checks
/// the key on each, says hello on each. Exchanges the other side begins come out of the receiver.
///
/// `node` is our own name; `address` is `host:port`; `keys` are those the other side may have.
pub async fn dial(
    identity: &Identity,
    node: &str,
    address: &str,
    keys: &[NodeKey],
    clock: Clock,
) -> Result<(Session, mpsc::Receiver<Incoming>), TunnelError> {
    let dialling = Dialling { identity, node, keys, session: random::bytes(), clock: &clock };
    // Boxed: a handshake's state is large, and whoever dials waits long between two.
    Box::pin(dialling.all(address)).await
}

struct Dialling<'a> {
    identity: &'a Identity,
    node: &'a str,
    keys: &'a [NodeKey],
    session: [u8; 16],
    clock: &'a Clock,
}

impl Dialling<'_> {
    async fn all(&self, address: &str) -> Result<(Session, mpsc::Receiver<Incoming>), TunnelError> {
        let tcp = connect(address, self.clock).await?;
        let reached = tcp.peer_addr().map_err(|error| TunnelError::Broken(error.to_string()))?;
        // The first decides the address and finds every refusal; the other two follow it.
        let (control, greeted) = self.one(tcp, Role::Control).await?;
        let next = async |role| {
            let tcp = self.connect_again(address, reached).await?;
            Ok::<_, TunnelError>(self.one(tcp, role).await?.0)
        };
        let (mail, splice) = tokio::try_join!(next(Role::Mail), next(Role::Splice))?;
        let facts = SessionFacts {
            peer: control.peer,
            node: greeted.node,
            software: greeted.software,
            address: reached,
            since_unix_s: self.clock.unix_s(),
            version: greeted.version,
            group: control.group,
        };
        Ok(Session::start([control.io, mail.io, splice.io], Side::Dialling, facts, self.clock))
    }

    async fn one(&self, tcp: TcpStream, role: Role) -> Result<(Secured<Tls>, Greeted), TunnelError> {
        let mut secured = transport::secure_dialled(tcp, self.identity.client_config(), self.clock).await?;
        if !self.keys.contains(&secured.peer) {
            let refusal = greeting::refuse_key(&mut secured.io, self.keys, secured.peer, self.clock).await;
            transport::linger(secured.io, self.clock).await;
            return Err(TunnelError::Refused(refusal));
        }
        let greeted = greeting::hello(&mut secured.io, self.node, self.session, role, self.clock).await?;
        Ok((secured, greeted))
    }

    async fn connect_again(&self, address: &str, reached: SocketAddr) -> Result<TcpStream, TunnelError> {
        match self.clock.timeout(CONNECT_DEADLINE, TcpStream::connect(reached)).await {
            Some(Ok(tcp)) => Ok(tcp),
            Some(Err(error)) => Err(unreachable(address, &error)),
            None => Err(unreachable(address, &io::ErrorKind::TimedOut.into())),
        }
    }
}

fn unreachable(address: &str, why: &io::Error) -> TunnelError {
    TunnelError::Unreachable { address: address.to_owned(), why: why.to_string() }
}

/// Connects to whichever of a name's addresses answers first.
pub(super) async fn connect(address: &str, clock: &Clock) -> Result<TcpStream, TunnelError> {
    let connected = async {
        let addresses = interleaved(lookup_host(address).await?.collect());
        race(addresses, clock).await
    };
    match clock.timeout(CONNECT_DEADLINE, connected).await {
        Some(Ok(tcp)) => Ok(tcp),
        Some(Err(error)) => Err(unreachable(address, &error)),
        None => Err(unreachable(address, &io::ErrorKind::TimedOut.into())),
    }
}

/// Alternates the families, the resolver's first choice first (RFC 8305 §4).
fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let six_first = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == six_first);
    first.reverse();
    second.reverse();
    let mut addresses = Vec::new();
    while addresses.len() < ADDRESSES_MAX && !(first.is_empty() && second.is_empty()) {
        addresses.extend(first.pop());
        addresses.extend(second.pop());
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// Tries one address after the other, each a moment after the one before or at once when that has
/// failed; the first to answer wins and the others are dropped.
async fn race(addresses: Vec<SocketAddr>, clock: &Clock) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut trying = JoinSet::new();
    let mut why = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let Some(next) = waiting.next() else {
            match trying.join_next().await {
                Some(Ok(Ok(tcp))) => return Ok(tcp),
                Some(Ok(Err(error))) => why = error,
                Some(Err(_)) => {}
                None => return Err(why),
            }
            continue;
        };
        trying.spawn(TcpStream::connect(next));
        tokio::select! {
            Some(tried) = trying.join_next() => match tried {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => why = error,
                Err(_) => {}
            },
            () = clock.sleep(STAGGER) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn addresses(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn families_alternate_and_the_resolver_chooses_who_begins() {
        let found = addresses(&["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1"]);
        let expected = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "[2001:db8::3]:1"]);
        assert_eq!(interleaved(found), expected);
        let found = addresses(&["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"]);
        assert_eq!(interleaved(found.clone()), found);
        assert_eq!(interleaved(vec![found[0]; 40]).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next_at_once() {
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let open = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let reached = open.local_addr().expect("bound");
        // The clock stands still: only the refusal can start the second try.
        let tcp = race(vec![closed, reached], &Clock::still(Duration::ZERO)).await.expect("connected");
        assert_eq!(tcp.peer_addr().expect("connected"), reached);
        let error = race(vec![closed], &Clock::still(Duration::ZERO)).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
