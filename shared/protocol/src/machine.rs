//! The one contract every protocol machine follows, so that one adapter can drive them all.
//!
//! Input changes the machine; then [`Machine::poll`] is asked until it answers [`Output::Wait`],
//! and only then may input follow again. A machine never fails: what a peer does wrong becomes a
//! reply or an event.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

/// A protocol as a pure state machine: bytes and deadlines in, bytes and events out.
pub trait Machine {
    /// What the machine asks of, or tells, the program around it.
    type Event;

    /// Bytes the peer sent.
    fn bytes(&mut self, now: Instant, input: &[u8]);
    /// The peer closed its sending side.
    fn end(&mut self, now: Instant);
    /// The moment last given as `until` has come.
    fn deadline(&mut self, now: Instant);
    /// The transport became secure after [`Output::Secure`].
    fn secured(&mut self, now: Instant, facts: TlsFacts);
    /// The next thing to do. Asked again and again until it answers [`Output::Wait`] or [`Output::Close`].
    fn poll(&mut self, now: Instant) -> Output<Self::Event>;
}

/// What a machine wants done next.
#[derive(Debug)]
pub enum Output<E> {
    /// Write these bytes (they may be collected; they must be flushed before the next read).
    Send(Bytes),
    /// A question or a notice for the program. A question must be answered (by the machine's own
    /// method) before the machine goes on; until then it polls as `Wait { read: false }`.
    Event(E),
    /// Start TLS now. Plaintext that came before was already discarded.
    Secure,
    /// Nothing to do until bytes arrive (if `read`), an answer is given, or the moment comes.
    Wait {
        /// When to call [`Machine::deadline`].
        until: Option<Instant>,
        /// False is back-pressure: do not read now.
        read: bool,
    },
    /// Flush and close the connection.
    Close,
}

/// What is known of a TLS session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: String,
    /// Cipher suite as named by IANA.
    pub cipher: String,
    /// Key exchange group, such as `X25519MLKEM768`.
    pub group: String,
    /// The `tls-exporter` channel binding (RFC 9266); TLS 1.3 only.
    pub exporter: Option<[u8; 32]>,
}

/// For logs: `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768`.
impl fmt::Display for TlsFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.version, self.cipher, self.group)
    }
}
