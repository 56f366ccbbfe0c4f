//! What lies under a connection: TCP with its options, TLS 1.3, and the other side's key. Nothing
//! of the application has been read when this is done.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::pairing::{NodeKey, exchange};
use gatepost_protocol::tunnel::hello::ALPN;
use rustls::{ClientConfig, CommonState};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::TunnelError;
use crate::clock::Clock;
use crate::identity::{Identity, peer_key};

/// Time for a TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Time the kernel lets sent data go unacknowledged, in milliseconds.
const UNACKNOWLEDGED_MS_MAX: u32 = 60_000;
/// Time, and octets, for the other side to read why we refuse it and to hang up.
const LINGER_DEADLINE: Duration = Duration::from_secs(2);
const LINGER_OCTETS_MAX: u64 = 64 * 1024;

/// Octets read from the socket at once: TLS itself asks for 4 KiB at a time.
const READ_OCTETS: usize = 32 * 1024;

/// TLS over TCP.
pub(super) type Tls = TlsStream<BufReader<TcpStream>>;

/// A connection whose other end has proven a key.
pub(super) struct Secured<IO> {
    pub(super) io: IO,
    pub(super) peer: NodeKey,
    /// What it is for.
    pub(super) alpn: Alpn,
    /// Key exchange group.
    pub(super) group: String,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// A session.
    Tunnel,
    /// Pairing by code.
    Pairing,
}

/// TLS as the dialling side.
pub(super) async fn secure_dialled(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    clock: &Clock,
) -> Result<Secured<Tls>, TunnelError> {
    prepare(&tcp);
    let address = tcp.peer_addr().map_err(|error| TunnelError::Broken(error.to_string()))?;
    // Not sent, not checked: the key alone decides.
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(config).connect(name, BufReader::with_capacity(READ_OCTETS, tcp));
    let tls = finished(clock.timeout(HANDSHAKE_DEADLINE, handshake).await)?;
    secured(tls.into())
}

/// TLS as the accepting side.
pub(super) async fn secure_accepted(
    tcp: TcpStream,
    identity: &Arc<Identity>,
    clock: &Clock,
) -> Result<Secured<Tls>, TunnelError> {
    prepare(&tcp);
    let handshake = TlsAcceptor::from(identity.server_config()).accept(BufReader::with_capacity(READ_OCTETS, tcp));
    let tls = finished(clock.timeout(HANDSHAKE_DEADLINE, handshake).await)?;
    secured(tls.into())
}

fn finished<T>(handshake: Option<std::io::Result<T>>) -> Result<T, TunnelError> {
    match handshake {
        Some(Ok(tls)) => Ok(tls),
        Some(Err(error)) if is_alpn_refusal(&error) => {
            Err(TunnelError::Handshake("the other side does not know this protocol: upgrade gatepost there".to_owned()))
        }
        Some(Err(error)) => Err(TunnelError::Handshake(error.to_string())),
        None => Err(TunnelError::Handshake("it took too long".to_owned())),
    }
}

fn is_alpn_refusal(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

fn secured(io: Tls) -> Result<Secured<Tls>, TunnelError> {
    let (_, state) = io.get_ref();
    let state: &CommonState = state;
    let alpn = match state.alpn_protocol() {
        Some(ALPN) => Alpn::Tunnel,
        Some(exchange::ALPN) => Alpn::Pairing,
        _ => return Err(TunnelError::Handshake("the other side does not speak gatepost/1".to_owned())),
    };
    let peer = peer_key(state)
        .ok_or_else(|| TunnelError::Handshake("the other side's certificate can't be read".to_owned()))?;
    let group = state.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())).unwrap_or_default();
    Ok(Secured { io, peer, alpn, group })
}

/// Best effort: a connection without these options works, only less well.
fn prepare(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!("can't set TCP_NODELAY: {error}");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(tcp, UNACKNOWLEDGED_MS_MAX) {
        tracing::debug!("can't set TCP_USER_TIMEOUT: {error}");
    }
}

/// Ends a refused connection so that the other side gets to read why: closing a socket with unread
/// bytes would reset it, and take the refusal with it. What still comes is thrown away.
pub(super) async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, clock: &Clock) {
    let leave = async {
        if io.shutdown().await.is_ok() {
            // Its end or its failure are the same to us.
            let _ = tokio::io::copy(&mut io.take(LINGER_OCTETS_MAX), &mut tokio::io::sink()).await;
        }
    };
    let _ = clock.timeout(LINGER_DEADLINE, leave).await;
}
