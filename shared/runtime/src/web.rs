//! Small answers to web clients: one request a connection, bounded in octets and in time, on port 80 and, under TLS,
//! on 443, where a CA's proof by certificate (RFC 8737) is answered as well. What is said is the owner's.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::acme::challenges::Challenges;
use crate::certificate::Served;
use crate::clock::Clock;

/// A whole connection, from its first octet to the answer's last.
const CONNECTION_MAX: Duration = Duration::from_secs(20);
/// The head of a request: the least the library can be told.
const HEAD_OCTETS_MAX: usize = 8192;
/// Fields of a request.
const FIELDS_MAX: usize = 64;
/// The body of a request: mail programs send some hundred octets when they ask for settings.
const BODY_OCTETS_MAX: usize = 16 * 1024;
/// What a client says that wants to see a proof (RFC 8737 §3).
const PROOF_PROTOCOL: &[u8] = b"acme-tls/1";

/// What is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// GET (HEAD is answered as one) or POST.
    pub post: bool,
    /// The host that is asked for, in lower case, without its port; may be empty.
    pub host: String,
    /// The path, as sent: not decoded.
    pub path: String,
    /// What follows the question mark.
    pub query: String,
    /// What was posted.
    pub body: Bytes,
    /// Under TLS.
    pub secure: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// Media type.
    pub kind: &'static str,
    /// The body.
    pub body: Bytes,
    /// One more field, if it has one.
    field: Option<(HeaderName, HeaderValue)>,
}

impl Page {
    /// 200 with a body of this type.
    pub fn new(kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, kind, body: body.into(), field: None }
    }

    /// 302: it is there.
    pub fn moved(location: &str) -> Self {
        // It was read as a host and a path: those have no letter that a field can't have.
        let Ok(location) = HeaderValue::from_str(location) else { return Self::not_found() };
        Self { field: Some((LOCATION, location)), ..plain(StatusCode::FOUND) }
    }

    /// 400, and what is wanted.
    pub fn bad_request(wanted: &'static str) -> Self {
        Self { body: format!("{wanted}\n").into(), ..plain(StatusCode::BAD_REQUEST) }
    }

    /// 404.
    pub fn not_found() -> Self {
        plain(StatusCode::NOT_FOUND)
    }

    /// 405: only these methods.
    pub fn only(methods: &'static str) -> Self {
        Self { field: Some((ALLOW, HeaderValue::from_static(methods))), ..plain(StatusCode::METHOD_NOT_ALLOWED) }
    }

    /// 503: what could be there can't be told now.
    pub fn unavailable() -> Self {
        Self { body: Bytes::from_static(b"try again later\n"), ..plain(StatusCode::SERVICE_UNAVAILABLE) }
    }
}

/// Serves one connection to its end. What breaks off is nobody's trouble.
pub async fn serve<IO, F, Fut>(io: IO, secure: bool, clock: &Clock, answer: F)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = Page>,
{
    let answer = &answer;
    let service = service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(match asked(request, secure).await {
            Ok((asked, head_only)) => response(answer(asked).await, head_only),
            Err(refused) => refused,
        })
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.keep_alive(false).half_close(false).max_buf_size(HEAD_OCTETS_MAX).max_headers(FIELDS_MAX);
    let _ = clock.timeout(CONNECTION_MAX, server.serve_connection(TokioIo::new(io), service)).await;
}

/// TLS for a client of 443; `None` for one that only wanted to see a proof, and has seen it, or there is none.
pub async fn secure<IO>(
    io: IO,
    served: &Served,
    challenges: &Challenges,
    clock: &Clock,
) -> io::Result<Option<TlsStream<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
        let hello = start.client_hello();
        let wants_proof = hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PROOF_PROTOCOL));
        if !wants_proof {
            return start.into_stream(served.server_config()).await.map(Some);
        }
        let Some(proof) = hello.server_name().and_then(|name| challenges.certificate(name)) else {
            return Err(io::Error::other("nobody waits for a proof of this name"));
        };
        let mut stream = start.into_stream(proving(proof)?).await?;
        stream.shutdown().await?;
        Ok(None)
    };
    clock.timeout(CONNECTION_MAX, handshake).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

fn proving(proof: Arc<CertifiedKey>) -> io::Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Always(proof)));
    config.alpn_protocols = vec![PROOF_PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// The request, and whether only the head of the answer is wanted.
async fn asked(request: Request<Incoming>, secure: bool) -> Result<(Asked, bool), Response<Full<Bytes>>> {
    let head_only = request.method() == Method::HEAD;
    let post = request.method() == Method::POST;
    if !(head_only || post || request.method() == Method::GET) {
        return Err(response(Page::only("GET, HEAD, POST"), false));
    }
    let (head, body) = request.into_parts();
    let named = named(&head).map_err(|()| response(plain(StatusCode::BAD_REQUEST), false))?;
    let host = host_of(named);
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body = match Limited::new(body, BODY_OCTETS_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(response(plain(StatusCode::PAYLOAD_TOO_LARGE), false)),
    };
    Ok((Asked { post, host, path, query, body, secure }, head_only))
}

/// The host that is asked for, which HTTP/1.1 has to name, once (RFC 9112 §3.2).
fn named(head: &request::Parts) -> Result<&str, ()> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_11 => Err(()),
        (None, _) => Ok(head.uri.host().unwrap_or_default()),
        (Some(_), Some(_)) => Err(()),
        (Some(host), None) => host.to_str().map_err(drop),
    }
}

/// Without its port.
fn host_of(named: &str) -> String {
    let host = match named.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => named,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn plain(status: StatusCode) -> Page {
    let words = status.canonical_reason().unwrap_or("refused").to_lowercase();
    Page { status: status.as_u16(), kind: "text/plain; charset=utf-8", body: format!("{words}\n").into(), field: None }
}

fn response(page: Page, head_only: bool) -> Response<Full<Bytes>> {
    let length = page.body.len();
    let mut response = Response::new(Full::new(if head_only { Bytes::new() } else { page.body }));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some((name, value)) = page.field {
        fields.insert(name, value);
    }
    if head_only {
        fields.insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn said(request: &[u8]) -> String {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let clock = Clock::real();
            serve(far, false, &clock, async |asked: Asked| {
                Page::new("text/plain", format!("{} {}?{} {}", asked.host, asked.path, asked.query, asked.body.len()))
            })
            .await;
        });
        // Who is refused early does not read on.
        let _ = near.write_all(request).await;
        let mut heard = Vec::new();
        let _ = near.read_to_end(&mut heard).await;
        serving.await.expect("served");
        String::from_utf8_lossy(&heard).into_owned()
    }

    #[tokio::test]
    async fn one_request_is_answered_and_the_connection_ends() {
        let heard = said(b"GET /a%2e/b?c=d HTTP/1.1\r\nHost: Mail.Example.ORG:80\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert!(heard.contains("connection: close\r\n"), "{heard}");
        assert!(heard.ends_with("\r\n\r\nmail.example.org /a%2e/b?c=d 0"), "{heard}");
        assert!(!heard.to_lowercase().contains("server:"), "{heard}");
    }

    #[tokio::test]
    async fn a_head_has_no_body_and_the_length_of_one() {
        let heard = said(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(heard.contains("content-length: 7\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn what_is_odd_or_large_is_refused() {
        let long_head = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 9000], b"\r\n\r\n"].concat();
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
        let large =
            [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n".as_slice(), &vec![b'a'; 20000]].concat();
        for (request, status) in [
            (b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n".as_slice(), "405"),
            (b"EHLO you\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
            (b"GET / HTTP/1.0\r\n\r\n", "200"),
            (&long_head, "431"),
            (many.as_bytes(), "431"),
            (&large, "413"),
        ] {
            let heard = said(request).await;
            let shown = String::from_utf8_lossy(&request[..20.min(request.len())]).into_owned();
            assert_eq!(heard.split(' ').nth(1), Some(status), "{shown}: {heard}");
        }
    }

    #[tokio::test]
    async fn who_is_slow_is_cut_off_wherever_it_stands() {
        for start in [
            &b""[..],
            b"GET / HT",
            b"GET / HTTP/1.1\r\nHost: h\r\nx: ",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\na",
        ] {
            let (mut near, far) = tokio::io::duplex(1 << 16);
            let clock = Clock::still(Duration::from_hours(500_000));
            let turned = clock.clone();
            let serving = tokio::spawn(async move {
                serve(far, false, &turned, async |_| Page::new("text/plain", "told")).await;
            });
            near.write_all(start).await.expect("there is room");
            while !serving.is_finished() {
                clock.turn(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.expect("the end");
            assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
        }
    }

    #[test]
    fn a_host_is_known_without_its_port() {
        for (named, host) in [
            ("A.example", "a.example"),
            ("a.example:8080", "a.example"),
            ("a.example.:80", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("", ""),
        ] {
            assert_eq!(host_of(named), host, "{named}");
        }
    }
}
