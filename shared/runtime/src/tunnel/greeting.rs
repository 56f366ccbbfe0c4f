//! The first words on a connection, as frames directly on TLS: the dialling side's hello or its
//! refusal, the accepting side's acknowledgement or its refusal. Reads not one byte further, since
//! the multiplexer's follow.

use std::time::Duration;

use bytes::BytesMut;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::frame::{self, Frame, HEADER_OCTETS};
use gatepost_protocol::tunnel::hello::{
    HELLO_OCTETS_MAX, Hello, HelloAck, Opening, Refusal, Role, VERSION_MAX, VERSION_MIN, common_version, printable,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::TunnelError;
use crate::clock::Clock;

/// Time for the other side's first record.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// What we call ourselves, for people.
pub(super) const SOFTWARE: &str = concat!("gatepost ", env!("CARGO_PKG_VERSION"));
const VERSIONS: (u16, u16) = (VERSION_MIN, VERSION_MAX);

/// What the two sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeted {
    pub(super) version: u16,
    /// The other side's name and software, printable.
    pub(super) node: String,
    pub(super) software: String,
}

/// Dialling: the other side has one of the keys we list, so say hello and hear the answer.
pub(super) async fn hello<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    node: &str,
    session: [u8; 16],
    role: Role,
    clock: &Clock,
) -> Result<Greeted, TunnelError> {
    let hello = Hello {
        versions: VERSIONS,
        software: SOFTWARE.to_owned(),
        node: printable(node),
        session,
        role,
        features: Vec::new(),
    };
    let ack = async {
        say(io, &Opening::Hello(hello), HELLO_OCTETS_MAX).await?;
        hear(io, HELLO_OCTETS_MAX).await
    };
    match clock.timeout(HELLO_DEADLINE, ack).await.ok_or_else(late)?? {
        HelloAck::Accepted { version, software, node, features: _ } => {
            common_version(VERSIONS, (version, version)).map_err(TunnelError::Refused)?;
            Ok(Greeted { version, node: printable(&node), software: printable(&software) })
        }
        HelloAck::Refused(refusal) => Err(TunnelError::Refused(refusal.from_other_side())),
    }
}

/// Dialling: the other side has none of the keys we list. Says so; returns the refusal.
pub(super) async fn refuse_key<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    expected: &[NodeKey],
    got: NodeKey,
    clock: &Clock,
) -> Refusal {
    let expected = expected.iter().map(|key| *key.as_bytes()).collect();
    let refusal = Refusal::WrongKey { expected, got: *got.as_bytes() };
    // If it can't be told, it is logged here all the same.
    let _ = clock.timeout(HELLO_DEADLINE, say(io, &Opening::Refused(refusal.clone()), HELLO_OCTETS_MAX)).await;
    refusal
}

/// Accepting: hears the dialling side's hello and checks that we speak a common version. Not answered yet.
pub(super) async fn hear_hello<IO: AsyncRead + Unpin>(io: &mut IO, clock: &Clock) -> Result<Hello, TunnelError> {
    match clock.timeout(HELLO_DEADLINE, hear(io, HELLO_OCTETS_MAX)).await.ok_or_else(late)?? {
        Opening::Hello(hello) => Ok(hello),
        Opening::Refused(refusal) => Err(TunnelError::Refused(refusal.from_other_side())),
    }
}

/// Accepting: agrees on a version with this hello.
pub(super) fn agree(hello: &Hello) -> Result<Greeted, Refusal> {
    let version = common_version(VERSIONS, hello.versions)?;
    Ok(Greeted { version, node: printable(&hello.node), software: printable(&hello.software) })
}

/// Accepting: connected.
pub(super) async fn accept<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    node: &str,
    version: u16,
    clock: &Clock,
) -> Result<(), TunnelError> {
    let ack =
        HelloAck::Accepted { version, software: SOFTWARE.to_owned(), node: printable(node), features: Vec::new() };
    clock.timeout(HELLO_DEADLINE, say(io, &ack, HELLO_OCTETS_MAX)).await.ok_or_else(late)?
}

/// Accepting: not connected, and why.
pub(super) async fn refuse<IO: AsyncWrite + Unpin>(io: &mut IO, refusal: &Refusal, clock: &Clock) {
    // If it can't be told, it is logged here all the same.
    let _ = clock.timeout(HELLO_DEADLINE, say(io, &HelloAck::Refused(refusal.clone()), HELLO_OCTETS_MAX)).await;
}

/// Says one record of at most `octets_max`.
pub(super) async fn say<IO: AsyncWrite + Unpin, T: Serialize>(
    io: &mut IO,
    record: &T,
    octets_max: usize,
) -> Result<(), TunnelError> {
    let mut bytes = BytesMut::new();
    frame::put_record(&mut bytes, record, octets_max).map_err(broken)?;
    io.write_all(&bytes).await.map_err(broken)?;
    io.flush().await.map_err(broken)
}

/// Hears one record of at most `octets_max`, and not an octet further.
pub(super) async fn hear<IO: AsyncRead + Unpin, T: DeserializeOwned>(
    io: &mut IO,
    octets_max: usize,
) -> Result<T, TunnelError> {
    let malformed = |_| TunnelError::Refused(Refusal::Malformed);
    let mut bytes = BytesMut::zeroed(HEADER_OCTETS);
    io.read_exact(&mut bytes).await.map_err(broken)?;
    // Checks the announced length before anything of it is read.
    let octets = frame::announced(&bytes, octets_max).map_err(malformed)?;
    bytes.resize(HEADER_OCTETS + octets, 0);
    io.read_exact(&mut bytes[HEADER_OCTETS..]).await.map_err(broken)?;
    match frame::take(&mut bytes, octets_max).map_err(malformed)? {
        Some(frame @ Frame::Record(_)) => frame.record().map_err(malformed),
        Some(Frame::Data(_)) | None => Err(TunnelError::Refused(Refusal::Malformed)),
    }
}

fn broken(error: impl std::fmt::Display) -> TunnelError {
    TunnelError::Broken(error.to_string())
}

fn late() -> TunnelError {
    TunnelError::Broken("the other side said no hello in time".to_owned())
}
