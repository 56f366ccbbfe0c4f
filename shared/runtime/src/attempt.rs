//! One try at one host with the client machine: connect, TLS as required, a transaction, outcomes.
//! For MX hosts, smarthosts and LMTP alike.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::machine::TlsFacts;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::smtp::client::{ClientConfig, Failure};

use crate::clock::Clock;

/// Which TLS a host must speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS if offered, any certificate.
    Opportunistic,
    /// STARTTLS, certificate verified for the host's name.
    StartTls,
    /// From the first byte, certificate verified for the host's name.
    Implicit,
    /// None.
    Off,
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name, for TLS and for the log.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Which TLS.
    pub tls: Tls,
    /// Extra trust roots (DER); with none, the system's.
    pub roots: Vec<Vec<u8>>,
    /// Connecting may take this long.
    pub connect_wait_max: Duration,
}

/// A connection to a host, greeted and ready for a transaction.
pub struct Attempt {
    _todo: (),
}

/// What the transaction came to before the message.
#[derive(Debug)]
pub enum Started {
    /// The host waits for the message: [`Attempt::body`], then [`Attempt::finish`].
    Body,
    /// It is over: nobody was accepted, or the message can't go to this host.
    Done(Vec<Outcome>),
}

impl Attempt {
    /// Connects, greets, secures, logs in. With [`Tls::Opportunistic`] a failed handshake is tried
    /// again without TLS on a new connection.
    pub async fn connect(target: &Target, config: ClientConfig, clock: Clock) -> Result<Self, Failure> {
        let _ = (target, config, clock);
        todo!()
    }

    /// MAIL, RCPT…, DATA.
    pub async fn start(&mut self, envelope: Envelope, octets: u64, eight_bit: bool) -> Started {
        let _ = (envelope, octets, eight_bit);
        todo!()
    }

    /// The next bytes; waits while the host is slow. An error shows in [`Attempt::finish`] (nothing was lost).
    pub async fn body(&mut self, bytes: Bytes) {
        let _ = bytes;
        todo!()
    }

    /// The final dot and its reply: an outcome for each recipient.
    pub async fn finish(&mut self) -> Vec<Outcome> {
        todo!()
    }

    /// `name [address]:port`.
    pub fn remote(&self) -> String {
        todo!()
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        todo!()
    }

    /// QUIT, politely and briefly.
    pub async fn quit(self) {
        todo!()
    }
}
