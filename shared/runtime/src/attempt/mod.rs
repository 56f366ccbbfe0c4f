//! One try at one host with the client machine: connect, TLS as required, a transaction, outcomes.
//! For MX hosts, smarthosts and LMTP alike. Dropped before [`Attempt::finish`], it closes the
//! connection without a final dot, and the host forgets the message.

pub mod pool;
pub mod trust;
mod verify;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use gatepost_protocol::machine::{Machine, Output, TlsFacts};
use gatepost_protocol::mail::dane::Named;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::Vouched;
use gatepost_protocol::smtp::client::{Client, ClientConfig, Event, Failure, Offered, Stage, StartTls};
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};

pub use self::verify::Finding;
use crate::clock::Clock;
use crate::drive::{Connection, DriveError, Security, Socket};

/// How long a host gets to answer QUIT.
const QUIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Which TLS a host must speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Whose word counts for a host's certificate, where STARTTLS is spoken.
#[derive(Clone, Debug, Default)]
pub enum Believed {
    /// Nobody's, or a CA's, as [`Tls`] says.
    #[default]
    ByTls,
    /// Nobody's: any certificate will do.
    Anybody,
    /// A CA's, for the host's name; but any certificate will do, and what was wrong is only noted.
    Noted,
    /// A CA's, and what was wrong is told.
    ByAuthority,
    /// A CA's, because the domain's own policy wants it (RFC 8461).
    MtaSts,
    /// The domain's TLSA records (RFC 7672).
    Dane(Arc<Dane>),
}

/// How a host is verified by DANE.
#[derive(Clone, Debug)]
pub struct Dane {
    /// What its certificate must be one of.
    pub named: Named,
    /// The name that is asked for: where the records are.
    pub base: String,
    /// The names of which its certificate must have one, if a CA of the domain's vouches for it.
    pub names: Vec<String>,
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
    /// Trust roots (DER) besides the system's.
    pub roots: Vec<Vec<u8>>,
    /// Whose word counts for the host's certificate, if `tls` is not all there is to it.
    pub believed: Believed,
    /// What was wrong with the certificate, for whoever asks after a failure.
    pub finding: Finding,
    /// Connecting may take this long.
    pub connect_wait_max: Duration,
}

/// A connection to a host, greeted and ready for a transaction.
#[derive(Debug)]
pub struct Attempt {
    connection: Connection<Client>,
    clock: Clock,
    remote: String,
    /// Where it leads, if not to a local socket.
    peer: Option<Peer>,
    /// Recipients of the open transaction.
    recipients: usize,
    /// What the open transaction came to before its end.
    over: Option<Vec<Outcome>>,
    /// Who vouched for the host.
    vouched: Vouched,
}

/// A host that is spoken to.
#[derive(Clone, Debug)]
struct Peer {
    name: String,
    address: SocketAddr,
    /// Our end.
    own: Option<IpAddr>,
    /// Its address is ours, too.
    local: bool,
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
    /// again without TLS on a new connection. How STARTTLS is used follows from the target, whatever
    /// the config says.
    pub async fn connect(target: &Target, config: ClientConfig, clock: Clock) -> Result<Self, Failure> {
        let starttls = match target.tls {
            Tls::Opportunistic => StartTls::Opportunistic,
            Tls::StartTls => StartTls::Required,
            Tls::Implicit | Tls::Off => StartTls::Never,
        };
        match Self::try_once(target, ClientConfig { starttls, ..config.clone() }, clock.clone()).await {
            // RFC 7435 §3: TLS that can't be had must not be worse than none.
            Err(failure) if failure.stage == Stage::Tls && target.tls == Tls::Opportunistic => {
                tracing::debug!(remote = remote(target), reply = %failure.reply, "trying again without TLS");
                Self::try_once(target, ClientConfig { starttls: StartTls::Never, ..config }, clock).await
            }
            result => result,
        }
    }

    /// The same with a local server, whose socket has this path: without TLS. Connecting may take this long.
    pub async fn connect_local(
        path: &Path,
        connect_wait_max: Duration,
        config: ClientConfig,
        clock: Clock,
    ) -> Result<Self, Failure> {
        let remote = format!("unix:{}", path.display());
        let stream = open(UnixStream::connect(path), &remote, connect_wait_max, &clock).await?;
        let config = ClientConfig { starttls: StartTls::Never, ..config };
        Self::greet(stream.into(), Security::None, config, clock, remote, false).await
    }

    /// Whether the server has hung up, or said something unasked, since the last transaction. Never waits.
    pub fn is_over(&mut self) -> bool {
        self.connection.next().now_or_never().is_some()
    }

    /// MAIL, RCPT…, DATA.
    pub async fn start(&mut self, envelope: Envelope, octets: u64, eight_bit: bool) -> Started {
        self.recipients = envelope.recipients.len();
        self.over = None;
        // The host may have hung up since the last transaction.
        if self.is_over() {
            return Started::Done(self.lost());
        }
        let now = self.clock.now();
        self.connection.machine().start(now, envelope, octets, eight_bit);
        match self.event().await {
            Event::Body => Started::Body,
            Event::Done(outcomes) => Started::Done(outcomes),
            Event::Ready | Event::Failed(_) | Event::Closed => Started::Done(self.lost()),
        }
    }

    /// The next bytes; waits while the host is slow. An error shows in [`Attempt::finish`] (nothing was lost).
    pub async fn body(&mut self, bytes: Bytes) {
        if self.over.is_some() {
            return;
        }
        let now = self.clock.now();
        self.connection.machine().body(now, bytes);
        let result = self.connection.flush().await;
        let event = match result {
            Err(error) => Some(self.broken(&error)),
            // A host that has heard enough says so before it is asked.
            Ok(()) => self.event().now_or_never(),
        };
        self.over = match event {
            None => None,
            Some(Event::Done(outcomes)) => Some(outcomes),
            Some(_) => Some(self.lost()),
        };
    }

    /// The final dot and its reply: an outcome for each recipient.
    pub async fn finish(&mut self) -> Vec<Outcome> {
        if let Some(outcomes) = self.over.take() {
            return outcomes;
        }
        let now = self.clock.now();
        self.connection.machine().body_end(now);
        match self.event().await {
            Event::Done(outcomes) => outcomes,
            _ => self.lost(),
        }
    }

    /// What broke the connection after a final dot: whoever has it for an outcome of [`Attempt::finish`] may
    /// have the message all the same (RFC 1047). `None` after any other end.
    pub fn doubt(&mut self) -> Option<Reply> {
        match self.connection.next().now_or_never() {
            Some(Ok(Some(Event::Failed(failure)))) if failure.stage == Stage::Final => Some(failure.reply),
            _ => None,
        }
    }

    /// `name [address]:port`, or `unix:path`.
    pub fn remote(&self) -> String {
        self.remote.clone()
    }

    /// Its name, as it was looked for, and where it is; `None` of a local socket.
    pub fn host(&self) -> Option<(&str, SocketAddr)> {
        self.peer.as_ref().map(|peer| (peer.name.as_str(), peer.address))
    }

    /// Our address at this end of the connection.
    pub fn own_address(&self) -> Option<IpAddr> {
        self.peer.as_ref().and_then(|peer| peer.own)
    }

    /// Who vouched for the host.
    pub fn vouched(&self) -> Vouched {
        self.vouched
    }

    /// True if it is on this machine: the connection has one address at both ends.
    pub fn is_local(&self) -> bool {
        self.peer.as_ref().is_none_or(|peer| peer.local)
    }

    /// True if the last transaction left the connection good for another.
    pub fn is_ready(&self) -> bool {
        self.connection.view().is_ready()
    }

    /// True if another transaction may be started: the last one ended well enough, and the host has not
    /// hung up or said goodbye since.
    pub fn is_open(&mut self) -> bool {
        self.is_ready() && !self.is_over()
    }

    /// What the host calls itself in its reply to EHLO or HELO.
    pub fn server_name(&self) -> &str {
        self.connection.view().server_name()
    }

    /// What the host offers.
    pub fn offered(&self) -> &Offered {
        self.connection.view().offered()
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.connection.view().tls()
    }

    /// QUIT, politely and briefly.
    pub async fn quit(mut self) {
        let clock = self.clock.clone();
        self.connection.machine().quit(clock.now());
        let closed = async { while matches!(self.connection.next().await, Ok(Some(_))) {} };
        clock.timeout(QUIT_WAIT_MAX, closed).await;
    }

    async fn try_once(target: &Target, config: ClientConfig, clock: Clock) -> Result<Self, Failure> {
        let remote = remote(target);
        let stream = open(TcpStream::connect(target.address), &remote, target.connect_wait_max, &clock).await?;
        let own = stream.local_addr().ok().map(|own| own.ip());
        let local = own == Some(target.address.ip());
        let peer = Peer { name: target.host.clone(), address: target.address, own, local };
        let secure_first = target.tls == Tls::Implicit;
        let mut attempt = Self::greet(stream.into(), security(target)?, config, clock, remote, secure_first).await?;
        attempt.peer = Some(peer);
        if attempt.tls().is_some() {
            attempt.vouched = target.vouched();
        }
        Ok(attempt)
    }

    /// From the connection to the first transaction.
    async fn greet(
        stream: Socket,
        security: Security,
        config: ClientConfig,
        clock: Clock,
        remote: String,
        secure_first: bool,
    ) -> Result<Self, Failure> {
        let client = Client::new(config, clock.now());
        let connection = Connection::new(stream, client, security, clock.clone());
        let mut attempt =
            Self { connection, clock, remote, peer: None, recipients: 0, over: None, vouched: Vouched::Nobody };
        if secure_first {
            attempt.connection.secure_first().await.map_err(|error| tls_failure(&error))?;
        }
        match attempt.connection.next().await {
            Ok(Some(Event::Ready)) => Ok(attempt),
            Ok(Some(Event::Failed(failure))) => Err(failure),
            Err(error @ (DriveError::Handshake(_) | DriveError::HandshakeTimeout)) => Err(tls_failure(&error)),
            Err(error @ DriveError::Broken(_)) => match attempt.broken(&error) {
                Event::Failed(failure) => Err(failure),
                _ => Err(unreachable(&attempt.remote, &error)),
            },
            Ok(_) => Err(unreachable(&attempt.remote, &"it closed the connection")),
        }
    }

    /// The next event, be it that the connection broke.
    async fn event(&mut self) -> Event {
        match self.connection.next().await {
            Ok(Some(event)) => event,
            Ok(None) => Event::Closed,
            Err(error) => self.broken(&error),
        }
    }

    /// Lets the machine judge a broken connection: it knows what was said and what is in doubt.
    fn broken(&mut self, error: &DriveError) -> Event {
        tracing::debug!(remote = self.remote, %error, "the connection to a host broke");
        // An event that was met while writing comes first.
        if let Some(Ok(Some(event))) = self.connection.next().now_or_never() {
            return event;
        }
        let now = self.clock.now();
        let what = match error {
            DriveError::Broken(error) if error.kind() == io::ErrorKind::TimedOut => "takes nothing we say",
            DriveError::Broken(error) if error.kind() == io::ErrorKind::ConnectionReset => "broke the connection",
            _ => "closed the connection",
        };
        let client = self.connection.machine();
        client.lost(now, what);
        loop {
            match client.poll(now) {
                Output::Send(_) => {}
                Output::Event(event) => return event,
                Output::Secure | Output::Wait { .. } | Output::Close => return Event::Closed,
            }
        }
    }

    fn lost(&self) -> Vec<Outcome> {
        let lost = Reply::connection_lost(&format!("{} closed the connection", self.remote));
        vec![Outcome::Deferred(lost); self.recipients]
    }
}

/// Opens a stream within a time.
async fn open<S>(
    opening: impl Future<Output = io::Result<S>>,
    remote: &str,
    wait_max: Duration,
    clock: &Clock,
) -> Result<S, Failure> {
    match clock.timeout(wait_max, opening).await {
        None => Err(unreachable(remote, &"it does not answer")),
        Some(Err(error)) => Err(unreachable(remote, &error)),
        Some(Ok(stream)) => Ok(stream),
    }
}

fn unreachable(remote: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure { stage: Stage::Hello, reply: Reply::unreachable(&format!("Can't reach {remote}: {why}")) }
}

fn remote(target: &Target) -> String {
    format!("{} [{}]:{}", target.host, target.address.ip(), target.address.port())
}

impl Target {
    /// Who has vouched for the host once TLS is spoken with it.
    fn vouched(&self) -> Vouched {
        match (&self.believed, self.tls) {
            (Believed::Dane(_), _) => Vouched::Dane,
            (Believed::MtaSts, _) => Vouched::MtaSts,
            (Believed::Noted, _) if self.finding.get().is_none() => Vouched::Pkix,
            (Believed::ByAuthority, _) | (Believed::ByTls, Tls::StartTls | Tls::Implicit) => Vouched::Pkix,
            (Believed::ByTls | Believed::Anybody | Believed::Noted, _) => Vouched::Nobody,
        }
    }
}

fn security(target: &Target) -> Result<Security, Failure> {
    let name = |host: &str| ServerName::try_from(host.trim_matches(['[', ']']).trim_end_matches('.').to_owned());
    let tls = |error: rustls::Error| tls_failure(&error);
    Ok(match (&target.believed, target.tls) {
        (_, Tls::Off) => Security::None,
        (Believed::Dane(dane), _) => {
            let config = trust::by_records(dane, target.finding.clone()).map_err(tls)?;
            Security::Client(config, name(&dane.base).map_err(|error| tls_failure(&error))?)
        }
        (Believed::Noted, _) => {
            let config = trust::noted(&target.roots, target.finding.clone()).map_err(tls)?;
            Security::Client(config, name(&target.host).unwrap_or(target.address.ip().into()))
        }
        // A name that can't be one in TLS is not sent: nobody checks it.
        (Believed::Anybody, _) | (Believed::ByTls, Tls::Opportunistic) => {
            Security::Client(trust::anybody(), name(&target.host).unwrap_or(target.address.ip().into()))
        }
        (Believed::ByTls | Believed::ByAuthority | Believed::MtaSts, _) => Security::Client(
            trust::told(&target.roots, target.finding.clone()).map_err(tls)?,
            name(&target.host).map_err(|error| tls_failure(&error))?,
        ),
    })
}

fn tls_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure { stage: Stage::Tls, reply: Reply::tls_failed(&format!("TLS could not be had: {error}")) }
}

#[cfg(test)]
mod tests;
