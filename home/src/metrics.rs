//! The door for Prometheus: off unless the config opens it. HTTP/1.1, one `GET /metrics` a connection, then it is
//! closed; nothing else is understood. Bounded in every way, for whoever connects may be slow or hostile.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::config::{ConfigError, Placed, Source};
use gatepost_runtime::listen::{self, DoorLimits, Places, Refusal};
use gatepost_runtime::shutdown::Signal;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// Connections at once, and from one address.
const CONNECTIONS_MAX: usize = 8;
/// Octets of a request with its header.
const REQUEST_OCTETS_MAX: usize = 8 * 1024;
/// A connection may last this long, from its first octet to its last.
const CONNECTION_MAX: Duration = Duration::from_secs(20);
/// What who is turned away reads.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// `[metrics]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMetrics {
    listen: Option<Placed<String>>,
}

impl RawMetrics {
    /// Where to listen; `None` if the door stays shut.
    pub fn check(&self, source: &Source) -> Result<Option<SocketAddr>, ConfigError> {
        match &self.listen {
            None => Ok(None),
            Some(written) if written.get_ref() == "off" => Ok(None),
            Some(written) => written.get_ref().parse().map(Some).map_err(|_| {
                source.error(written, "not an address to listen at", "such as \"127.0.0.1:9464\"; or \"off\"")
            }),
        }
    }
}

/// Serves until draining begins. `page` makes the page.
pub async fn serve<F, Fut>(listener: TcpListener, clock: Clock, signal: Signal, page: F)
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = String> + Send + 'static,
{
    let limits = DoorLimits { connections_max: CONNECTIONS_MAX, connections_per_address_max: CONNECTIONS_MAX };
    let refusal = Refusal { full: FULL, ending: b"" };
    listen::serve("metrics", listener, Places::new(limits), signal, refusal, move |admitted| {
        let (page, clock) = (page.clone(), clock.clone());
        async move {
            let mut admitted = admitted;
            let answered = clock.timeout(CONNECTION_MAX, answer(&mut admitted.stream, page)).await;
            if let Some(Err(error)) = answered {
                tracing::debug!(peer = %admitted.peer, %error, "somebody who asked for metrics has gone");
            }
        }
    })
    .await;
}

async fn answer<S, F, Fut>(stream: &mut S, page: F) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn() -> Fut,
    Fut: Future<Output = String>,
{
    let Some(request) = header(stream).await? else { return Ok(()) };
    let (status, kind, body) = match understood(&request) {
        Ok(()) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", page().await),
        Err(status) => (status, "text/plain; charset=utf-8", "Gatepost: GET /metrics is all there is.\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await?;
    stream.shutdown().await
}

/// The request's header, up to its empty line; `None` if it is none, or longer than any honest one.
async fn header<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Option<Vec<u8>>> {
    let mut header = Vec::with_capacity(512);
    while !header.windows(4).any(|end| end == b"\r\n\r\n") {
        if header.len() >= REQUEST_OCTETS_MAX || stream.read_buf(&mut header).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(header))
}

/// An error is the status to answer with.
fn understood(request: &[u8]) -> Result<(), &'static str> {
    let line = request.split(|&octet| octet == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&octet| octet == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !words.next().is_some_and(|version| version.starts_with(b"HTTP/1.")) || words.next().is_some() {
        return Err("400 Bad Request");
    }
    match (method, target.split(|&octet| octet == b'?').next()) {
        (b"GET", Some(b"/metrics")) => Ok(()),
        (b"GET", _) => Err("404 Not Found"),
        _ => Err("405 Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn asked(request: &[u8]) -> String {
        let (mut near, mut far) = duplex(64 * 1024);
        far.write_all(request).await.unwrap();
        far.shutdown().await.unwrap();
        answer(&mut near, || std::future::ready("gatepost_up 1\n".to_owned())).await.unwrap();
        drop(near);
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn one_page_is_served_and_nothing_else() {
        let page = asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\ngatepost_up 1\n"), "{page}");
        assert!(page.contains("Content-Length: 14\r\n"), "{page}");
        for (request, status) in [
            (&b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"[..], "200"),
            (b"GET / HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\x16\x03\x01\r\n\r\n", "400"),
            (b"GET /metrics HTTP/1.1 x\r\n\r\n", "400"),
        ] {
            assert!(asked(request).await.starts_with(&format!("HTTP/1.1 {status} ")), "{status}");
        }
    }

    #[tokio::test]
    async fn who_never_ends_a_request_or_sends_too_much_hears_nothing() {
        assert_eq!(asked(b"GET /metrics HTTP/1.1\r\n").await, "");
        assert_eq!(asked(&[b'x'; REQUEST_OCTETS_MAX + 5]).await, "");
    }
}
