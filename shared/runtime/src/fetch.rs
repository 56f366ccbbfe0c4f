//! One question to a web server and its whole answer, over HTTP/1.1: bounded in octets and in time, no redirect
//! followed, no cookie, no connection kept.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_protocol::network::is_public;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::attempt::trust;
use crate::clock::Clock;
use crate::resolver::{CouldNotTell, Resolver};

/// One address of a host that has several may take this long to answer.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why there is no answer. The words name what failed, not whom was asked.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The address can't be asked.
    #[error("{0} is no address that can be asked: https:// and a host are wanted")]
    Address(String),
    /// The DNS could not tell where the host is.
    #[error(transparent)]
    Dns(#[from] CouldNotTell),
    /// The host has no address.
    #[error("{0} has no address in the DNS")]
    NoAddress(String),
    /// No connection, or none under TLS.
    #[error("can't connect to {host}: {source}")]
    Connect {
        /// Host and port.
        host: String,
        /// The system's words, or those of TLS.
        source: io::Error,
    },
    /// No TLS at all.
    #[error("no TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No HTTP.
    #[error("no proper answer: {0}")]
    Http(#[from] hyper::Error),
    /// The answer broke off or could not be read.
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is longer than was allowed.
    #[error("the answer is longer than {0} octets")]
    TooLong(usize),
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl FetchError {
    /// True if the host was there and could not prove its name.
    pub fn is_of_tls(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
    }
}

/// What a web server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status, such as 200.
    pub status: u16,
    /// Of what kind it says the text is, in lower case and without parameters.
    pub kind: String,
    /// The text.
    pub body: Bytes,
}

/// How much of an answer is wanted, and how long it may take from the look-up to its last octet.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Octets of the body.
    pub octets_max: usize,
    /// All of it.
    pub wait_max: Duration,
}

/// Asks web servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    tls: Arc<ClientConfig>,
    resolver: Resolver,
    clock: Clock,
    /// Addresses of this machine and its network are left alone.
    public: bool,
}

impl Fetcher {
    /// Believes whom the system's roots vouch for, and `roots` (DER) besides.
    pub fn new(roots: &[Vec<u8>], resolver: Resolver, clock: Clock) -> Result<Self, FetchError> {
        Ok(Self { tls: trust::vouched_for(roots)?, resolver, clock, public: false })
    }

    /// Where others chose the host: never to this machine or its network.
    pub fn to_the_public_only(self) -> Self {
        Self { public: true, ..self }
    }

    /// Asks once. The request's address is a whole one, `https://…`.
    pub async fn ask<B>(&self, request: Request<B>, bounds: Bounds) -> Result<Response<Bytes>, FetchError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let asked = self.asked(request, bounds.octets_max);
        self.clock.timeout(bounds.wait_max, asked).await.ok_or(FetchError::Silent(bounds.wait_max))?
    }

    /// Asks for a page; whatever the server answers is one, a redirect too.
    pub async fn get(&self, address: &str, bounds: Bounds) -> Result<Page, FetchError> {
        let request = Request::get(address).body(Empty::<Bytes>::new());
        let answer = self.ask(request.map_err(|_| FetchError::Address(address.to_owned()))?, bounds).await?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Page { status: answer.status().as_u16(), kind, body: answer.into_body() })
    }

    async fn asked<B>(&self, mut request: Request<B>, octets_max: usize) -> Result<Response<Bytes>, FetchError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (host, port) = place(request.uri()).ok_or_else(|| FetchError::Address(request.uri().to_string()))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| FetchError::Address(request.uri().to_string()))?;
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = path.parse().map_err(|_| FetchError::Address(path))?;
        if let Ok(authority) = HeaderValue::from_str(&authority) {
            request.headers_mut().insert(HOST, authority);
        }
        let failed = |source| FetchError::Connect { host: format!("{host}:{port}"), source };
        let stream = self.connect(&host, port).await?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(failed)?;
        exchange(stream, request, async |answer| whole(answer, octets_max).await).await
    }

    /// To the first of its addresses that answers.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let addresses = self.resolver.addresses(host, true).await?;
        let mut last = None;
        let allowed = addresses.into_iter().filter(|ip| !self.public || is_public(*ip));
        for address in allowed.take(ADDRESSES_MAX) {
            let connecting = TcpStream::connect(SocketAddr::new(address, port));
            match self.clock.timeout(CONNECT_WAIT_MAX, connecting).await {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = Some(error),
                None => last = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        match last {
            Some(source) => Err(FetchError::Connect { host: format!("{host}:{port}"), source }),
            None => Err(FetchError::NoAddress(host.to_owned())),
        }
    }
}

/// Host and port of an address that can be asked.
fn place(uri: &Uri) -> Option<(String, u16)> {
    if uri.scheme_str() != Some("https") {
        return None;
    }
    let host = uri.host()?.trim_matches(['[', ']']);
    (!host.is_empty()).then(|| (host.to_owned(), uri.port_u16().unwrap_or(443)))
}

async fn whole(answer: Response<Incoming>, octets_max: usize) -> Result<Response<Bytes>, FetchError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, octets_max).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { FetchError::TooLong(octets_max) } else { FetchError::Body(error) }
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// One request over a connection, and what `read` makes of the answer while the connection lasts.
pub(crate) async fn exchange<IO, B, T, E>(
    io: IO,
    request: Request<B>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, E>,
) -> Result<T, E>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: From<hyper::Error>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let asked = async { read(sender.send_request(request).await?).await };
    let driven = async {
        // It ends when all was said, or with why it broke; then the question ends with the same.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answered = asked => answered,
        never = driven => never,
    }
}
